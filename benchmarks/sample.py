"""The records that every benchmark writes and reads: made up front, the same in every run."""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["FIRST_TIMESTAMP_MS", "KEY_BYTES", "Sample", "WrongResultError", "sample_records"]

KEY_BYTES = 16
FIRST_TIMESTAMP_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z
RECORDS_PER_MS = 4
SEED = 20_261_122


class WrongResultError(Exception):
    """What came back is not what went in, so its speed means nothing."""


@dataclass(frozen=True)
class Sample:
    """Records in the order in which they are appended.

    Attributes
    ----------
    keys, values : list of bytes
        16-byte keys and JSON values, all of ``value_bytes`` bytes.
    timestamps : list of int
        Milliseconds; they rise, and four records share each.
    value_bytes : int
    """

    keys: list[bytes]
    values: list[bytes]
    timestamps: list[int]
    value_bytes: int

    def __len__(self) -> int:
        return len(self.values)

    @property
    def record_bytes(self) -> int:
        """What one record takes in a batch of hundreds: 125 for a value of 100."""
        body = 1 + 2 + 2 + 1 + KEY_BYTES + _varint_bytes(self.value_bytes) + self.value_bytes + 1
        return _varint_bytes(body) + body

    @property
    def checksum(self) -> int:
        """CRC-32 over every key and value in order."""
        return _checksum(zip(self.keys, self.values, strict=True))[1]

    def first(self, count: int) -> Sample:
        """The first `count` records."""
        return Sample(self.keys[:count], self.values[:count], self.timestamps[:count], self.value_bytes)

    def check(self, pairs: Iterable[tuple[bytes, bytes]], *, source: str) -> None:
        """Raise `WrongResultError` unless `pairs` are these keys and values, all and in order."""
        count, checksum = _checksum(pairs)
        if count != len(self):
            raise WrongResultError(f"{source}: {count} records came back, {len(self)} went in")
        if checksum != self.checksum:
            raise WrongResultError(f"{source}: {count} records came back with other bytes")

    def some_offsets(self, count: int = 20_000) -> list[int]:
        """`count` offsets at random, the same in every run."""
        chance = random.Random(SEED + 1)
        return [chance.randrange(len(self)) for _ in range(count)]

    def some_timestamps(self, count: int = 20_000) -> list[int]:
        """`count` times at random, each the time of a record."""
        return [self.timestamps[offset] for offset in self.some_offsets(count)]

    def first_offset_at(self, timestamp_ms: int) -> int:
        """The offset that a look-up by time must give, worked out without one."""
        return max(0, timestamp_ms - FIRST_TIMESTAMP_MS) * RECORDS_PER_MS


def _varint_bytes(value: int) -> int:
    """Bytes of a zigzag varint of a length that is not negative."""
    return max(1, -(-(2 * value).bit_length() // 7))


def _checksum(pairs: Iterable[tuple[bytes, bytes]]) -> tuple[int, int]:
    parts = list(chain.from_iterable(pairs))
    return len(parts) // 2, zlib.crc32(b"".join(parts))


@lru_cache(maxsize=4)
def sample_records(count: int, value_bytes: int = 100) -> Sample:
    """`count` orders of a shop as JSON, each value exactly `value_bytes` long (at least 80)."""
    if value_bytes < 80:
        raise ValueError(f"value_bytes must be at least 80, got {value_bytes}")
    chance = random.Random(SEED)
    notes = "".join(chance.choice("abcdefghij klmnopqrstuvwxyz ") for _ in range(8192))
    keys = []
    values = []
    for order in range(count):
        draw = chance.getrandbits(48)
        keys.append(b"customer-%07d" % (draw % 5_000_000))
        head = b'{"order":%d,"cents":%d,"items":%d,"currency":"EUR","note":"' % (
            order,
            draw >> 30,
            1 + draw % 9,
        )
        room = value_bytes - len(head) - 2
        at = draw % 1000
        note = (notes[at : at + min(room, 4096)] * (1 + room // 4096))[:room]
        values.append(head + note.encode() + b'"}')
    timestamps = [FIRST_TIMESTAMP_MS + order // RECORDS_PER_MS for order in range(count)]
    sample = Sample(keys, values, timestamps, value_bytes)
    if {len(value) for value in values} - {value_bytes} or {len(key) for key in keys} - {KEY_BYTES}:
        raise AssertionError("a sample record has the wrong size")
    return sample
