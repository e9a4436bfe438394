"""The two ways in which a compressed stream is refused."""

from __future__ import annotations

from logstore.errors import CorruptDataError

__all__ = ["damaged_stream", "over_limit"]


def damaged_stream(
    reason: str,
    position: int,
    expected: int | str | None = None,
    actual: int | str | None = None,
) -> CorruptDataError:
    """Return the error for a malformed stream; `position` is in the stream, -1 for the whole."""
    return CorruptDataError(
        "<memory>",
        position,
        reason,
        expected,
        actual,
        advice="Nothing of the batch that holds it can be read.",
    )


def over_limit(limit_bytes: int, actual: int | None = None) -> CorruptDataError:
    """Return the error for a stream that holds, or says that it holds, more than the limit."""
    return CorruptDataError(
        "<memory>",
        -1,
        "decompressed size exceeds limit",
        limit_bytes,
        actual if actual is not None else f"more than {limit_bytes}",
        advice="If the data is to be trusted, read it with a higher limit.",
    )
