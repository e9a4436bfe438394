"""``.txnindex``: the aborted transactions of a log, segment by segment, in Kafka's format (log-format, 10.5).

An entry stands in the segment that holds the transaction's marker. The files are caches: entries are kept in memory while
their segment is written, and reach the file when a producer snapshot is about to rely on them. Kafka's format has no
checksum, so `logstore.digests` has one of each file; what is not as it was written is derived from the batches.
"""

from __future__ import annotations

import contextlib
import os
import struct
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence

from logstore._native.checksum import crc32c
from logstore.errors import CorruptDataError, StorageFailureError
from logstore.storage import layout
from logstore.storage.files import read_bytes, replace_file, sync_directory, write_at
from logstore.storage.producer_state import AbortedTransaction
from logstore.storage.segment_digests import SegmentDigests

__all__ = ["ENTRY_BYTES", "TransactionIndex", "decode_entries", "encode_entries"]

VERSION = 0
_ENTRY = struct.Struct(">hqqqq")
ENTRY_BYTES = _ENTRY.size
_WHOLE = 2**63 - 1
_NOTHING = (0, 0)


def encode_entries(entries: Iterable[AbortedTransaction]) -> bytes:
    """The bytes of entries, one after the other."""
    return b"".join(_ENTRY.pack(VERSION, *entry) for entry in entries)


def decode_entries(data: bytes, base_offset: int = 0, path: str = "<memory>") -> list[AbortedTransaction]:
    """The entries of a file.

    Parameters
    ----------
    base_offset : int
        Of the segment: no marker stands before it.

    Raises
    ------
    CorruptDataError
        Another version, a cut-off entry, or markers that do not rise.
    """
    if len(data) % ENTRY_BYTES:
        raise CorruptDataError(path, len(data) - len(data) % ENTRY_BYTES, "transaction index ends inside of an entry",
                               ENTRY_BYTES, len(data) % ENTRY_BYTES)
    entries: list[AbortedTransaction] = []
    least = base_offset
    for version, *fields in _ENTRY.iter_unpack(data):
        entry = AbortedTransaction(*fields)
        position = len(entries) * ENTRY_BYTES
        if version != VERSION:
            raise CorruptDataError(path, position, "transaction index entry's version", VERSION, version)
        if entry.last_offset < least or not 0 <= entry.first_offset < entry.last_offset:
            raise CorruptDataError(path, position, "transaction index entry out of order", least, entry.last_offset)
        entries.append(entry)
        least = entry.last_offset + 1
    return entries


class TransactionIndex:
    """The aborted transactions of one log. The writer appends to the list of the active segment; readers look up.

    Parameters
    ----------
    directory : str
    derive : callable
        ``derive(base_offset, below)``: the entries of a segment whose markers lie below an offset, from its batches.
    oldest_open : callable
        ``oldest_open(base_offset)``: the first offset of the oldest transaction that was open where a segment begins,
        2^63-1 for none; None where that is not known.
    digests : SegmentDigests, optional
        Of this log: files that it does not know are derived from the batches.
    writable : bool
        Whether files may be written.
    is_possible : bool
        False where no transaction was ever begun here: missing files hold nothing then.
    """

    def __init__(
        self,
        directory: str,
        derive: Callable[[int, int], list[AbortedTransaction]],
        oldest_open: Callable[[int], int | None],
        *,
        digests: SegmentDigests | None = None,
        writable: bool,
        is_possible: bool,
    ):
        self._directory = directory
        self._digests = digests
        self._derive = derive
        self._oldest_open = oldest_open
        self._open_at: dict[int, int | None] = {}
        self._writable = writable
        self.is_possible = is_possible
        self._lock = threading.Lock()
        self._live: dict[int, list[AbortedTransaction]] = {}  # by segment: what was replayed or appended
        self._below: dict[int, int] = {}  # segments whose entries with markers below an offset are yet to be looked up
        self._written: dict[int, tuple[int, int]] = {}  # entries in the files of segments in _live, and their CRC

    def _path(self, base_offset: int) -> str:
        return os.path.join(self._directory, layout.segment_file_name(base_offset, ".txnindex"))

    def live(self, base_offset: int, replayed_from: int | None = None) -> list[AbortedTransaction]:
        """The list that the writer appends to; from ``replayed_from`` on, it knows of all markers in the segment."""
        if base_offset not in self._live:
            self._live[base_offset] = []
            if replayed_from is not None and replayed_from > base_offset:
                self._below[base_offset] = replayed_from
        return self._live[base_offset]

    def reconcile(self, base_offset: int) -> None:
        """After a replay: has the file of a segment hold nothing that the log does not.

        Raises
        ------
        StorageFailureError
        """
        stored, crc = self._read(base_offset)
        if not stored:
            return
        below = self._below.pop(base_offset, base_offset)
        live = self._live[base_offset]
        live[0:0] = [entry for entry in stored if entry.last_offset < below]
        same = 0
        while same < min(len(stored), len(live)) and stored[same] == live[same]:
            same += 1
        self._written[base_offset] = same, crc if same == len(stored) else crc32c(encode_entries(stored[:same]))
        if self._writable and same < len(stored):
            path = self._path(base_offset)
            write_at(path, same * ENTRY_BYTES, b"", size=same * ENTRY_BYTES, sync=True)
            self._record(base_offset)

    def _read(self, base_offset: int) -> tuple[list[AbortedTransaction] | None, int]:
        """The entries in a file, None where there is none that can be used; and their CRC."""
        path = self._path(base_offset)
        try:
            data = read_bytes(path)
            if data is not None and self._is_known(base_offset, len(data), crc := crc32c(data)):
                return decode_entries(data, base_offset, path), crc
        except (StorageFailureError, CorruptDataError):
            pass
        return None, 0

    def _is_known(self, base_offset: int, size_bytes: int, crc: int) -> bool:
        """Whether a file is as it was written last."""
        if self._digests is None:
            return False
        found = size_bytes, crc
        known = self._digests.transaction_index(base_offset)
        if known != found and not self._writable:  # another process may have gone on
            fresh = SegmentDigests(self._directory)
            known = fresh.transaction_index(base_offset)
            self._digests = fresh
        if known is not None and known[0] == found[0] and known[1] != found[1]:
            import logging

            logging.getLogger("logstore.storage").warning(
                "%s is damaged: its CRC is %08x, it was written with %08x; no record is lost, the aborted transactions of "
                "this segment are derived from its batches", self._path(base_offset), found[1], known[1],
            )
        return known == found

    def _record(self, base_offset: int) -> None:
        """Notes what a file holds by now."""
        if self._digests is not None:
            count, crc = self._written[base_offset]
            with contextlib.suppress(StorageFailureError):  # a hint
                self._digests.record_transaction_index(base_offset, count * ENTRY_BYTES, crc)

    def entries(self, base_offset: int) -> list[AbortedTransaction]:
        """The aborted transactions whose markers are in a segment, in order. A missing file is derived from the log.

        Raises
        ------
        CorruptDataError, StorageFailureError
        """
        live = self._live.get(base_offset)
        if live is not None and base_offset not in self._below:
            return live
        with self._lock:
            live = self._live.get(base_offset)
            below = _WHOLE if live is None else self._below.get(base_offset)
            if live is not None and below is None:
                return live
            assert below is not None
            stored, crc = self._read(base_offset)
            content = b""
            if stored is None:
                stored = self._derive(base_offset, below) if self.is_possible else []
                content = encode_entries(stored)
                crc = crc32c(content)
            if live is None:
                live = self._live[base_offset] = stored
                self._written[base_offset] = len(stored), crc
                if content and self._writable:
                    with contextlib.suppress(StorageFailureError):  # a cache: the next open derives it again
                        replace_file(self._path(base_offset), content)
                        self._record(base_offset)
            else:
                live[0:0] = [entry for entry in stored if entry.last_offset < below]
                del self._below[base_offset]
            return live

    def overlapping(self, bases: Sequence[int], start_offset: int, end_offset: int) -> list[AbortedTransaction]:
        """Aborted transactions with records in ``[start, end)``.

        Parameters
        ----------
        bases : sequence of int
            Base offsets of the log's segments, ascending.

        Raises
        ------
        CorruptDataError, StorageFailureError
        """
        found: list[AbortedTransaction] = []
        first = max(bisect_right(bases, start_offset) - 1, 0)
        for index in range(first, len(bases)):
            base_offset = bases[index]
            if index > first and base_offset >= end_offset and not self._may_reach_back(base_offset, end_offset):
                break
            entries = self.entries(base_offset)
            for entry in entries[bisect_left(entries, start_offset, key=lambda entry: entry.last_offset) :]:
                if entry.first_offset < end_offset:
                    found.append(entry)
                if entry.last_stable_offset >= end_offset:
                    return found
        return found

    def _may_reach_back(self, base_offset: int, end_offset: int) -> bool:
        """Whether a transaction that was open where a segment begins has records below an offset."""
        if base_offset not in self._open_at:
            self._open_at[base_offset] = self._oldest_open(base_offset)
        oldest = self._open_at[base_offset]
        return oldest is None or oldest < end_offset

    def begin(self, base_offset: int, oldest_open: int) -> list[AbortedTransaction]:
        """A new segment, and the first offset of the oldest transaction that is open there."""
        self._open_at[base_offset] = oldest_open
        return self.live(base_offset)

    def write(self, end_offset: int) -> None:
        """Brings the files up to date with markers below an offset, durably.

        Raises
        ------
        StorageFailureError
        """
        is_new = False
        for base_offset, live in list(self._live.items()):
            count = bisect_left(live, end_offset, key=lambda entry: entry.last_offset)
            if count <= self._written.get(base_offset, _NOTHING)[0] or base_offset > end_offset:
                continue
            entries = self.entries(base_offset)  # with those before, where the file is yet to be looked at
            count = bisect_left(entries, end_offset, key=lambda entry: entry.last_offset)
            written, crc = self._written.get(base_offset, _NOTHING)
            path = self._path(base_offset)
            is_new = is_new or not os.path.exists(path)
            added = encode_entries(entries[written:count])
            write_at(path, written * ENTRY_BYTES, added, size=count * ENTRY_BYTES, sync=True)
            self._written[base_offset] = count, crc32c(added, crc)
            self._record(base_offset)
        if is_new:
            sync_directory(self._directory)

    def replace(self, old: Sequence[int], new: Sequence[int]) -> None:
        """Before other segments take the place of some: entries go with the offsets of their markers. Those of records that
        compaction has removed do no harm.

        Raises
        ------
        CorruptDataError, StorageFailureError
        """
        entries = [entry for base_offset in old for entry in self.entries(base_offset)]
        starts = [entry.last_offset for entry in entries]
        for base_offset, end_offset in zip(new, [*new[1:], _WHOLE], strict=True):
            moved = entries[bisect_left(starts, base_offset) : bisect_left(starts, end_offset)]
            self._live[base_offset] = moved
            self._written[base_offset] = len(moved), crc32c(encode_entries(moved))

    def forget(self, base_offsets: Iterable[int]) -> None:
        """Segments are gone."""
        for base_offset in base_offsets:
            self._live.pop(base_offset, None)
            self._below.pop(base_offset, None)
            self._written.pop(base_offset, None)
            self._open_at.pop(base_offset, None)
