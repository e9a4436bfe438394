"""Durations and sizes as people write them: ``"7d"``, ``"-1h"``, ``"512MiB"``."""

from __future__ import annotations

import re

from logstore.errors import InvalidConfigError

__all__ = ["bytes_from", "format_bytes", "format_ms", "ms_from"]

_MS = {
    "ms": 1,
    "s": 1_000,
    "m": 60_000,
    "min": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 604_800_000,
}
_BYTES = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
    "k": 2**10,
    "m": 2**20,
    "g": 2**30,
    "t": 2**40,
}
_SIGN = re.compile(r"\s*([+-]?)")
_QUANTITY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", re.ASCII)


def _parse(value: object, units: dict[str, int], what: str, example: str) -> int:
    if isinstance(value, bool):
        raise InvalidConfigError(f"{what} must be a number or a text such as {example}, not {value}")
    if isinstance(value, int):
        return value
    if isinstance(value, str):
        total = 0
        sign = _SIGN.match(value)
        assert sign is not None
        factor = -1 if sign[1] == "-" else 1  # of all parts: "-1h30m" is an hour and a half ago
        start = position = sign.end()
        while match := _QUANTITY.match(value, position):
            number, unit = match.groups()
            if not unit and match.end() == len(value) and position == start and "." not in number:
                return factor * int(number)
            if unit.lower() not in units:
                break
            scale = units[unit.lower()]
            total += round(float(number) * scale) if "." in number else int(number) * scale
            position = match.end()
            if position == len(value):
                return factor * total
    raise InvalidConfigError(
        f"{what} must be a whole number or a text such as {example}, not {value!r}; units are {', '.join(units)}"
    )


def ms_from(value: object, what: str = "a duration") -> int:
    """Milliseconds from a number of them or a text such as ``"7d"``, ``"1h30m"``, ``"250ms"``.

    Raises
    ------
    InvalidConfigError
    """
    return _parse(value, _MS, what, '"7d"')


def bytes_from(value: object, what: str = "a size") -> int:
    """Bytes from a number of them or a text such as ``"512MiB"`` or ``"1GB"``.

    Raises
    ------
    InvalidConfigError
    """
    return _parse(value, _BYTES, what, '"512MiB"')


def format_bytes(count: int) -> str:
    """A size for people: ``"1.4 GiB"``."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def format_ms(ms: int) -> str:
    """A duration for people: ``"7d"``, ``"1h 30m"``, ``"250ms"``; at most two units."""
    if ms < 0:
        return f"-{format_ms(-ms)}"
    parts = []
    for unit in ("d", "h", "m", "s", "ms"):
        count, ms = divmod(ms, _MS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2]) or "0ms"
