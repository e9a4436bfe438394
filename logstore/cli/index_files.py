"""The files beside a ``.log``: offset index, time index and leader epochs, read on their own."""

from __future__ import annotations

import os
import struct
from typing import NamedTuple

from logstore.errors import CorruptDataError
from logstore.storage.batch_walk import PlacedBatch
from logstore.storage.files import refusals
from logstore.storage.text_checkpoints import read_rows

__all__ = [
    "IndexFile",
    "OffsetIndexCheck",
    "TimeIndexCheck",
    "read_leader_epochs",
    "read_offset_index",
    "read_time_index",
]

_OFFSET_ENTRY = struct.Struct(">ii")
_TIME_ENTRY = struct.Struct(">qi")


class IndexFile(NamedTuple):
    """Entries of an index file.

    Attributes
    ----------
    path : str
    entries : list[tuple[int, int]]
        ``(relative offset, position)`` or ``(timestamp, relative offset)``.
    padding : int
        How many entries of zeros stand behind: the file of a segment that is being written has them in Kafka.
    fault : str
        Which rule of the file format is broken; empty for none.
    """

    path: str
    entries: list[tuple[int, int]]
    padding: int
    fault: str


def _read(path: str, entry: struct.Struct) -> tuple[list[tuple[int, int]], int, str]:
    with refusals(path, "read"), open(path, "rb") as file:
        data = file.read()
    extra = len(data) % entry.size
    whole = data[: len(data) - extra]
    used = len(whole.rstrip(b"\0"))
    kept = min(-(-used // entry.size) * entry.size, len(whole))
    fault = f"{len(data)} bytes are no multiple of {entry.size}" if extra else ""
    return list(entry.iter_unpack(whole[:kept])), (len(whole) - kept) // entry.size, fault


def read_offset_index(path: str) -> IndexFile:
    """An ``.index`` file.

    Raises
    ------
    StorageFailureError
    """
    entries, padding, fault = _read(path, _OFFSET_ENTRY)
    previous = (-1, -1)
    for number, entry in enumerate(entries):
        if not fault and (entry[0] <= previous[0] or entry[1] <= previous[1]):
            fault = f"entry {number} does not rise: {entry} after {previous}"
        previous = entry
    return IndexFile(path, entries, padding, fault)


def read_time_index(path: str) -> IndexFile:
    """A ``.timeindex`` file.

    Raises
    ------
    StorageFailureError
    """
    entries, padding, fault = _read(path, _TIME_ENTRY)
    previous = (-1, 0)
    for number, entry in enumerate(entries):
        if not fault and (entry[0] <= previous[0] or entry[1] < previous[1]):
            fault = f"entry {number} does not rise: {entry} after {previous}"
        previous = entry
    return IndexFile(path, entries, padding, fault)


def read_leader_epochs(path: str) -> list[tuple[int, int]]:
    """``(epoch, start offset)`` of a ``leader-epoch-checkpoint``.

    Raises
    ------
    CorruptDataError, StorageFailureError
    """
    with refusals(path, "read"):
        os.stat(path)
    found: list[tuple[int, int]] = []
    for row in read_rows(path, 2):
        try:
            entry = int(row[0]), int(row[1])
        except ValueError:
            raise CorruptDataError(path, -1, "malformed entry", "two numbers", " ".join(row)[:80]) from None
        if min(entry) < 0 or (found and (entry[0] <= found[-1][0] or entry[1] <= found[-1][1])):
            raise CorruptDataError(path, -1, "epochs and offsets must rise", None, f"{entry[0]} {entry[1]}")
        found.append(entry)
    return found


class OffsetIndexCheck:
    """Compares an offset index with the batches, one after the other."""

    def __init__(self, index: IndexFile, base_offset: int):
        self._entries = index.entries
        self._base_offset = base_offset
        self._next = 0
        self.fault = index.fault

    def batch(self, placed: PlacedBatch) -> None:
        """The next sound batch."""
        self._entries_before(placed.position)
        if not self.fault and self._next < len(self._entries):
            relative, position = self._entries[self._next]
            if position == placed.position:
                last = placed.batch.last_offset - self._base_offset
                if relative != last:
                    self.fault = (
                        f"entry {self._next} gives offset {self._base_offset + relative} for position {position}, "
                        f"where a batch ends at offset {placed.batch.last_offset}"
                    )
                self._next += 1

    def skip(self, end_position: int) -> None:
        """Damage up to a position: entries into it can't be judged."""
        while self._next < len(self._entries) and self._entries[self._next][1] < end_position:
            self._next += 1

    def end(self, size_bytes: int) -> str:
        """What does not agree; empty for nothing."""
        self._entries_before(size_bytes)
        if not self.fault and self._next < len(self._entries):
            self.fault = f"entry {self._next} points past the end of the .log file: {self._entries[self._next][1]}"
        return self.fault

    def _entries_before(self, position: int) -> None:
        if not self.fault and self._next < len(self._entries) and self._entries[self._next][1] < position:
            self.fault = f"entry {self._next} points to position {self._entries[self._next][1]}, where no batch starts"


class TimeIndexCheck:
    """Compares a time index with the batches, one after the other."""

    def __init__(self, index: IndexFile, base_offset: int):
        self._entries = index.entries
        self._base_offset = base_offset
        self._next = 0
        self._largest = (-1, -1)
        self._unknown = False
        self.fault = index.fault

    def batch(self, placed: PlacedBatch) -> None:
        """The next sound batch."""
        last = placed.batch.last_offset - self._base_offset
        self._entries_before(last)
        if placed.batch.max_timestamp > self._largest[0]:
            self._largest = (placed.batch.max_timestamp, last)
        if self._next < len(self._entries) and self._entries[self._next] == self._largest:
            self._next += 1
        elif not self._unknown and self._next < len(self._entries) and self._entries[self._next][1] == last:
            self._say(self._entries[self._next])

    def skip(self) -> None:
        """Damage: from here on the largest timestamp so far is not known."""
        self._unknown = True

    def end(self) -> str:
        """What does not agree; empty for nothing."""
        if not self._unknown and self._next < len(self._entries):
            self._say(self._entries[self._next])
        return self.fault

    def _entries_before(self, relative_offset: int) -> None:
        if not self._unknown and self._next < len(self._entries) and self._entries[self._next][1] < relative_offset:
            self._say(self._entries[self._next])

    def _say(self, entry: tuple[int, int]) -> None:
        timestamp, relative = self._largest
        if not self.fault:
            self.fault = (
                f"entry {self._next} gives timestamp {entry[0]} at offset {self._base_offset + entry[1]}, but the "
                f"largest up to there is {timestamp} at offset {self._base_offset + relative}"
            )
        self._next += 1
