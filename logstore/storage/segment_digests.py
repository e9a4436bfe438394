"""``logstore.digests``: what a log's segments are known to hold (docs/format/segment-digests.md).

Kafka's files say nothing of a segment as a whole: swapped, stale, copied or shortened at a batch's end, it looks
sound. An entry here says size, offsets and digest of one, and checksums of its two index files: for each segment when it
is sealed, and for the active one when the log is closed. Entries are only ever appended; the last one for a segment
counts. They are hints: lost, they are made again by the next verification.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Iterable
from typing import NamedTuple

from logstore._native.checksum import crc32c
from logstore._native.segment import Segment
from logstore._native.verification import SegmentVerifier
from logstore.errors import DiskFullError
from logstore.storage import layout
from logstore.storage.files import read_bytes, refusals, replace_file, sync_directory, write_at

__all__ = ["SegmentDigest", "SegmentDigests", "digest_of"]

MAGIC = b"LSDG"
VERSION = 1
TRANSACTION_INDEX_VERSION = 2  # an entry for a .txnindex file
# magic, version, flags, base offset, end offset, size, largest timestamp, verified at, digest, size and CRC of both indexes
_BODY = struct.Struct(">4sHHqqqqq16sIIII")
_CRC = struct.Struct(">I")
ENTRY_BYTES = _BODY.size + _CRC.size
FLAG_FORGOTTEN = 1
FLAG_GROWING = 2
# Entries that count for nothing any more, before the file is written anew.
_OBSOLETE_MAX = 256


class SegmentDigest(NamedTuple):
    """What is known of one segment.

    Attributes
    ----------
    base_offset, end_offset : int
        The end is that of its last batch, not the next segment's base offset.
    size_bytes : int
    max_timestamp : int
        In ms; -1 for none.
    digest : bytes
        16 bytes over the headers of all batches.
    offset_index, time_index : tuple[int, int]
        Size and CRC-32C of the index files.
    verified_ms : int
        When every byte was last checked; 0 for never.
    is_growing : bool
        Of the active segment, when the log was closed: it may have become longer since, behind what is described here.
    """

    base_offset: int
    end_offset: int
    size_bytes: int
    max_timestamp: int
    digest: bytes
    offset_index: tuple[int, int]
    time_index: tuple[int, int]
    verified_ms: int = 0
    is_growing: bool = False


class SegmentDigests:
    """The digests of one log. Thread-safe. One process writes.

    Parameters
    ----------
    directory : str
        The partition's.

    Attributes
    ----------
    damaged_at : int
        Byte position of the last damaged entry; -1 for none. Entries before it are not used: what was forgotten since
        may be what is damaged.
    generation : int
        Rises whenever digests are forgotten.
    """

    def __init__(self, directory: str):
        self.path = os.path.join(directory, layout.DIGESTS_FILE)
        self.damaged_at = -1
        self.generation = 0
        self._lock = threading.Lock()
        self._entries: dict[int, SegmentDigest] | None = None
        self._transaction_indexes: dict[int, tuple[int, int]] = {}  # loaded with them
        self._file_bytes = 0

    # ---- reading ----------------------------------------------------------------------------------------

    def entries(self) -> dict[int, SegmentDigest]:
        """All digests, by base offset.

        Raises
        ------
        StorageFailureError
        """
        with self._lock:
            return dict(self._loaded())

    def get(self, base_offset: int) -> SegmentDigest | None:
        """The digest of one segment; None where it is not known."""
        with self._lock:
            return self._loaded().get(base_offset)

    def transaction_index(self, base_offset: int) -> tuple[int, int] | None:
        """Size and CRC-32C of a segment's ``.txnindex`` as it was written last; None where that is not known."""
        with self._lock:
            self._loaded()
            return self._transaction_indexes.get(base_offset)

    def _loaded(self) -> dict[int, SegmentDigest]:
        if self._entries is None:
            self._load()
        assert self._entries is not None
        return self._entries

    def _load(self) -> None:
        data = read_bytes(self.path) or b""
        whole = len(data) - len(data) % ENTRY_BYTES
        while whole and not data[whole - ENTRY_BYTES : whole].strip(b"\0"):
            whole -= ENTRY_BYTES  # the length got to the disk before the data
        found: dict[int, SegmentDigest] = {}
        indexes_found: dict[int, tuple[int, int]] = {}
        self.damaged_at = -1
        for position in range(0, whole, ENTRY_BYTES):
            body = data[position : position + _BODY.size]
            stored = _CRC.unpack_from(data, position + _BODY.size)[0]
            magic, version, flags, base, end, size, latest, verified, digest, *indexes = _BODY.unpack(body)
            if stored != crc32c(body) or magic != MAGIC:
                self.damaged_at = position
                found.clear()
                indexes_found.clear()
            elif version == TRANSACTION_INDEX_VERSION:
                indexes_found.pop(base, None)
                if not flags & FLAG_FORGOTTEN:
                    indexes_found[base] = indexes[0], indexes[1]
            elif version == VERSION:
                found.pop(base, None)
                if not flags & FLAG_FORGOTTEN:
                    found[base] = SegmentDigest(
                        base, end, size, latest, digest, (indexes[0], indexes[1]), (indexes[2], indexes[3]), verified,
                        bool(flags & FLAG_GROWING),
                    )
        self._entries = found
        self._transaction_indexes = indexes_found
        self._file_bytes = whole

    # ---- writing ----------------------------------------------------------------------------------------

    def record(
        self, digests: Iterable[SegmentDigest], *, generation: int | None = None, log_start_offset: int = 0
    ) -> None:
        """Adds digests of segments that are on disk; not durably, since they can be made again.

        Parameters
        ----------
        digests : iterable of SegmentDigest
        generation : int, optional
            As it was when the segments were looked at: nothing is added if any have been forgotten since.
        log_start_offset : int
            Segments below it are gone for good.

        Raises
        ------
        StorageFailureError
        """
        with self._lock:
            if generation is not None and generation != self.generation:
                return
            known = self._loaded()
            added = [digest for digest in digests if known.get(digest.base_offset) != digest]
            known.update((digest.base_offset, digest) for digest in added)
            if not added:
                return
            if self._is_mostly_old():
                self._rewrite({base: entry for base, entry in known.items() if entry.end_offset > log_start_offset})
            else:
                self._append(b"".join(map(_encoded, added)), sync=False)

    def record_transaction_index(self, base_offset: int, size_bytes: int, crc: int) -> None:
        """Notes what a segment's ``.txnindex`` holds; not durably, since it can be derived again.

        Raises
        ------
        StorageFailureError
        """
        with self._lock:
            self._loaded()
            about = size_bytes, crc
            if self._transaction_indexes.get(base_offset) == about:
                return
            self._transaction_indexes[base_offset] = about
            if self._is_mostly_old():
                self._rewrite(self._loaded())
            else:
                self._append(_encoded_transaction_index(base_offset, about), sync=False)

    def forget_transaction_indexes(self, base_offsets: Iterable[int]) -> None:
        """Other files are about to take the place of these segments' ``.txnindex``. Not durably: what is not as it was
        written does not count anyway.

        Raises
        ------
        StorageFailureError
        """
        with self._lock:
            self._loaded()
            known = self._transaction_indexes
            gone = [(base, known.pop(base)) for base in set(base_offsets) if base in known]
            if gone:
                self._append(
                    b"".join(_encoded_transaction_index(base, about, FLAG_FORGOTTEN) for base, about in gone), sync=False
                )

    def _is_mostly_old(self) -> bool:
        used = len(self._loaded()) + len(self._transaction_indexes)
        return self.damaged_at >= 0 or self._file_bytes // ENTRY_BYTES > 2 * used + _OBSOLETE_MAX

    def forget(self, base_offsets: Iterable[int]) -> None:
        """Removes digests durably, before the segments change.

        Raises
        ------
        StorageFailureError
        """
        with self._lock:
            self.generation += 1
            known = self._loaded()
            gone = [known.pop(base) for base in set(base_offsets) if base in known]
            if gone or self.damaged_at >= 0:
                try:
                    self._append(b"".join(_encoded(entry, FLAG_FORGOTTEN) for entry in gone), sync=True)
                except DiskFullError:
                    self._remove()

    def forget_from(self, offset: int) -> None:
        """Removes, durably, the digests of all segments that hold anything at or after an offset."""
        self.forget([base for base, entry in self.entries().items() if entry.end_offset > offset or base >= offset])

    def forget_all(self) -> None:
        """Removes all digests durably: somebody else has written the log."""
        with self._lock:
            self.generation += 1
            self._remove()

    def _append(self, content: bytes, *, sync: bool) -> None:
        end = self._file_bytes + len(content)
        write_at(self.path, self._file_bytes, content, size=end, sync=sync)
        self._file_bytes = end

    def _rewrite(self, entries: dict[int, SegmentDigest]) -> None:
        # Of segments that are gone there is no digest any more, save of those that never had one.
        first = min(entries, default=-1)
        indexes = {base: about for base, about in self._transaction_indexes.items() if base >= first}
        content = b"".join([
            *map(_encoded, entries.values()), *(_encoded_transaction_index(base, about) for base, about in indexes.items())
        ])
        replace_file(self.path, content)
        self._entries, self._transaction_indexes = entries, indexes
        self._file_bytes, self.damaged_at = len(content), -1

    def _remove(self) -> None:
        self._entries, self._transaction_indexes = {}, {}
        self._file_bytes, self.damaged_at = 0, -1
        with refusals(self.path, "unlink"):
            try:
                os.unlink(self.path)
            except FileNotFoundError:
                return
        sync_directory(os.path.dirname(self.path))


def digest_of(segment: Segment, *, is_growing: bool = False) -> SegmentDigest | None:
    """The digest of a segment of this process, whose indexes are final; None where it is damaged.

    Where it was not taken while the segment was written, its headers are read.

    Raises
    ------
    StorageFailureError
    """
    digest, end_offset = segment.digest, segment.state["next_offset"]
    if digest is None:
        verifier = SegmentVerifier(segment.path, segment.base_offset, segment.next_offset)
        if verifier.step(verifier.size_bytes, deep=False) is not None:
            return None
        digest, end_offset = verifier.digest, verifier.next_offset
    offset_index, time_index = segment.encode_offset_index(0), segment.encode_time_index(0)
    return SegmentDigest(
        segment.base_offset, end_offset, segment.size_bytes, segment.max_timestamp, digest,
        (len(offset_index), crc32c(offset_index)), (len(time_index), crc32c(time_index)), is_growing=is_growing,
    )


def _encoded(entry: SegmentDigest, flags: int = 0) -> bytes:
    flags |= FLAG_GROWING * entry.is_growing
    body = _BODY.pack(
        MAGIC, VERSION, flags, entry.base_offset, entry.end_offset, entry.size_bytes, entry.max_timestamp,
        entry.verified_ms, entry.digest, *entry.offset_index, *entry.time_index,
    )
    return body + _CRC.pack(crc32c(body))


def _encoded_transaction_index(base_offset: int, about: tuple[int, int], flags: int = 0) -> bytes:
    body = _BODY.pack(MAGIC, TRANSACTION_INDEX_VERSION, flags, base_offset, 0, 0, 0, 0, bytes(16), *about, 0, 0)
    return body + _CRC.pack(crc32c(body))
