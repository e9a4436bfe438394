"""Record batches as Python holds them: codecs, numpy columns, Arrow streams."""

from __future__ import annotations

from typing import TYPE_CHECKING

from logstore._native.batch_codecs import set_codecs

if TYPE_CHECKING:
    from collections.abc import Buffer  # type: ignore[attr-defined]


def _compress(codec: int, payload: Buffer, level: int | None) -> bytes:
    from logstore.records.codecs import compress

    return compress(codec, payload, level)


def _decompress(codec: int, payload: Buffer, limit_bytes: int, path: str, position: int) -> bytes:
    from logstore.errors import CorruptDataError
    from logstore.records.codecs import decompress

    try:
        return decompress(codec, payload, limit_bytes)
    except CorruptDataError as error:
        raise CorruptDataError(
            path, position, error.reason, error.expected, error.actual
        ) from error


# The native layer calls back up through these alone; the codec packages load with the first compressed batch.
set_codecs(_compress, _decompress)
