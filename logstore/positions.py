"""What ``start=`` and ``stop=`` mean: an offset, a datetime, an age, ``"earliest"`` or ``"latest"``."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, TypeAlias, Union

from logstore.errors import InvalidConfigError, InvalidRequestError
from logstore.quantities import ms_from

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["Position", "ResolvedPosition", "resolve_position"]

Position: TypeAlias = Union[int, str, "datetime"]
"""An offset, ``"earliest"``, ``"latest"``, an age such as ``"-1h"``, a datetime with a time zone, or ISO 8601 text."""

ResolvedPosition: TypeAlias = tuple[str, int]
"""``("offset", offset)``, ``("timestamp", ms)``, ``("earliest", 0)`` or ``("latest", 0)``."""


def resolve_position(position: Position, what: str, now_ms: int | None = None) -> ResolvedPosition:
    """Reads a position as users write it.

    Parameters
    ----------
    position
        An offset (int), ``"earliest"``, ``"latest"``, an age (``"-1h"``, ``"-7d"``), a timezone-aware datetime, or such a
        datetime as ISO 8601 text.
    what : str
        The argument's name, for messages.
    now_ms : int, optional
        What an age counts from; the wall clock, if not given.

    Raises
    ------
    InvalidRequestError
    """
    if isinstance(position, bool):
        raise InvalidRequestError(f"{what} must be an offset, a time or an age, not {position}")
    if isinstance(position, int):
        if position < 0:
            raise InvalidRequestError(
                f"{what} must be an offset of 0 or more, not {position}; for an age write \"-1h\""
            )
        return "offset", position
    if (loaded := sys.modules.get("datetime")) is not None and isinstance(position, loaded.datetime):
        return "timestamp", _datetime_ms(position, what)
    if isinstance(position, str):
        text = position.strip()
        if text in ("earliest", "latest"):
            return text, 0
        if text.startswith("-"):
            try:
                age_ms = -ms_from(text, what)
            except InvalidConfigError as error:
                raise InvalidRequestError(str(error)) from None
            return "timestamp", max((time.time_ns() // 1_000_000 if now_ms is None else now_ms) - age_ms, 0)
        from datetime import datetime

        try:
            return "timestamp", _datetime_ms(datetime.fromisoformat(text), what)
        except ValueError as error:
            if isinstance(error, InvalidRequestError):
                raise
    raise InvalidRequestError(
        f"{what} must be an offset, a datetime, an age such as \"-1h\", \"earliest\" or \"latest\", not {position!r}"
    )


def _datetime_ms(moment: datetime, what: str) -> int:
    from datetime import UTC, datetime

    if moment.tzinfo is None:
        raise InvalidRequestError(
            f"{what} is a datetime without a time zone; say which: moment.replace(tzinfo=timezone.utc), or "
            "moment.astimezone() for local time"
        )
    delta = moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return max((delta.days * 86_400 + delta.seconds) * 1000 + delta.microseconds // 1000, 0)
