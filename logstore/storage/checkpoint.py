"""``logstore.checkpoint``: what one log knows about itself, in two alternating slots (docs/format/checkpoint.md).

It is a lower bound and a hint: unreadable or missing, the whole log is scanned; nothing is ever deleted for it.
"""

from __future__ import annotations

import os
import struct
from typing import NamedTuple

from logstore._native.checksum import crc32c
from logstore.errors import UnsupportedFormatError
from logstore.storage.cache_mark import CacheMark
from logstore.storage.files import read_bytes, sync_directory, write_at

__all__ = ["SLOT_BYTES", "Checkpoint", "CheckpointFile"]

MAGIC = b"LSCP"
VERSION = 1
# A slot a sector and a page of its own, so that a torn write of one can't touch the other.
SLOT_BYTES = 4096
_BODY = struct.Struct(">4sHHqqqqqq")  # magic, version, flags, sequence, five offsets
_CRC = struct.Struct(">I")

FLAG_CLEAN = 1
FLAG_SYNC_FAILED = 2
FLAG_CONTIGUOUS = 4
FLAG_PRODUCERS = 8
FLAG_TRANSACTIONS = 16


class Checkpoint(NamedTuple):
    """One state of a log.

    Attributes
    ----------
    log_start_offset : int
        First offset that can be read.
    flushed_offset : int
        Records below it are on disk (Kafka: recovery point).
    segment_base_offset, position : int
        The segment that held the flushed offset, and the byte position in its .log file.
    log_end_offset : int
        The log ended at least here: offsets below are never used again.
    is_clean : bool
        The log was closed in good order, and nothing was written since.
    sync_failed : bool
        An fsync failed: pages that look right may not be on disk.
    is_contiguous : bool
        No compaction, truncation or follower has left gaps between batches.
    has_producers, has_transactions : bool
        A batch below the flushed offset has a producer id, or began a transaction. Without, no producer snapshot or
        transaction index has to be looked for.
    """

    log_start_offset: int = 0
    flushed_offset: int = 0
    segment_base_offset: int = 0
    position: int = 0
    log_end_offset: int = 0
    is_clean: bool = False
    sync_failed: bool = False
    is_contiguous: bool = True
    has_producers: bool = False
    has_transactions: bool = False


class CheckpointFile:
    """The file, and which of its slots is next. One writer at a time.

    Attributes
    ----------
    mark : CacheMark or None
        As read or written last; None where there is none, and once it does not hold any more.
    damaged_slots : list[int]
        Which slots held something, but no whole state, when the file was read.
    """

    __slots__ = ("_has_mark", "_is_named", "_sequence", "damaged_slots", "mark", "path")

    def __init__(self, path: str):
        self.path = path
        self.mark: CacheMark | None = None
        self.damaged_slots: list[int] = []
        self._has_mark = False  # whether the file has one, whole or not
        self._sequence = 0
        self._is_named = False  # whether the file's name is known to be on disk

    def read(self) -> Checkpoint | None:
        """The newest whole state; None where there is none.

        Raises
        ------
        UnsupportedFormatError
            A newer version wrote it.
        StorageFailureError
        """
        self.damaged_slots = []
        data = read_bytes(self.path, 3 * SLOT_BYTES)
        if data is None:
            return None
        mark = data[2 * SLOT_BYTES :]
        self._has_mark = bool(mark.strip(b"\0"))
        self.mark = CacheMark.decode(mark) if self._has_mark else None
        newest: Checkpoint | None = None
        for slot in range(2):
            body = data[slot * SLOT_BYTES : slot * SLOT_BYTES + _BODY.size]
            stored = data[slot * SLOT_BYTES + _BODY.size : slot * SLOT_BYTES + _BODY.size + _CRC.size]
            if len(stored) < _CRC.size or _CRC.unpack(stored)[0] != crc32c(body) or body[:4] != MAGIC:
                if data[slot * SLOT_BYTES : (slot + 1) * SLOT_BYTES].strip(b"\0"):
                    self.damaged_slots.append(slot)
                continue
            _, version, flags, sequence, *offsets = _BODY.unpack(body)
            if version != VERSION:
                raise UnsupportedFormatError(
                    f"{self.path}: checkpoint version {version}, this release reads {VERSION}; "
                    "open it with the version that wrote it"
                )
            if sequence > self._sequence:
                self._sequence = sequence
                newest = Checkpoint(*offsets)._replace(
                    is_clean=bool(flags & FLAG_CLEAN),
                    sync_failed=bool(flags & FLAG_SYNC_FAILED),
                    is_contiguous=bool(flags & FLAG_CONTIGUOUS),
                    has_producers=bool(flags & FLAG_PRODUCERS),
                    has_transactions=bool(flags & FLAG_TRANSACTIONS),
                )
        return newest

    def write(self, state: Checkpoint, *, sync: bool = False) -> None:
        """Writes a state into the older slot.

        Parameters
        ----------
        state : Checkpoint
        sync : bool
            Whether it has to be on disk when this returns. Without, it may come later: an older state is still true.

        Raises
        ------
        StorageFailureError
        """
        sequence = self._sequence + 1
        flags = (
            FLAG_CLEAN * state.is_clean + FLAG_SYNC_FAILED * state.sync_failed + FLAG_CONTIGUOUS * state.is_contiguous
            + FLAG_PRODUCERS * state.has_producers + FLAG_TRANSACTIONS * state.has_transactions
        )
        body = _BODY.pack(MAGIC, VERSION, flags, sequence, *state[:5])
        write_at(self.path, sequence % 2 * SLOT_BYTES, body + _CRC.pack(crc32c(body)), sync=sync)
        self._sequence = sequence
        if sync and not self._is_named:
            sync_directory(os.path.dirname(self.path))
            self._is_named = True

    def replace(self, state: Checkpoint) -> None:
        """Writes a state that contradicts earlier ones (records are gone) into both slots, durably: damage to one
        of them must not bring the other's old state back.

        Raises
        ------
        StorageFailureError
        """
        self.forget_mark()
        self.write(state, sync=True)
        self.write(state, sync=True)

    def write_mark(self, mark: CacheMark) -> None:
        """Notes what was handed over to the page cache; it is not synced, as it counts for nothing after the next boot.

        Raises
        ------
        StorageFailureError
        """
        self._has_mark = True
        write_at(self.path, 2 * SLOT_BYTES, mark.encode())
        self.mark = mark

    def forget_mark(self) -> None:
        """Takes the mark back, before something changes that it speaks of.

        Raises
        ------
        StorageFailureError
        """
        self.mark = None
        if self._has_mark:
            write_at(self.path, 2 * SLOT_BYTES, b"", size=2 * SLOT_BYTES)
            self._has_mark = False
