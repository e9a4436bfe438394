"""What a log has handed over to the page cache, for the open after its process was killed (docs/format/log-checkpoint.md).

What a killed process wrote is in the page cache, in the order it was written, as long as the machine runs on and the file
system stays mounted. So a log that writes faster than the disk takes it leaves a *mark* every 8 MiB: up to here, in this
segment, all is written and in the index files. If boot, mount and files are the same when it is opened, what lies before
the mark needs no scan. It is not on disk for that: the mark never counts as a flush, and what it vouches for is synced first
when the log flushes again.

A mark that does not hold costs nothing but the scan that there would have been. Any doubt is one: another boot, another
mount, a copy of the directory, a file shorter than it says, an index that ends elsewhere, a hole in the file, a sample
that fails its CRC.
"""

from __future__ import annotations

import os
import struct
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from logstore._native.checksum import crc32c
from logstore._native.file_identity import file_identity
from logstore._native.segment import Segment, SegmentScan
from logstore._native.segment_opening import resume_segment
from logstore.errors import CorruptDataError, StorageFailureError, UnsupportedFormatError
from logstore.storage import layout

if TYPE_CHECKING:
    from logstore.storage.checkpoint import Checkpoint

__all__ = ["MARK_INTERVAL_BYTES", "CacheMark", "Spared", "boot_id", "identify", "spare_scan"]

# Handed over between two marks: what is scanned after a kill, at most, of what was not flushed.
MARK_INTERVAL_BYTES = 8 << 20

MAGIC = b"LSCM"
VERSION = 1
FLAG_PRODUCERS = 1
# magic, version, flags; the identity; base offset, state, index entries and epoch of the segment
_BODY = struct.Struct(">4sHH16sQQQqQqqqqqqqqqi")
_CRC = struct.Struct(">I")
_BOOT_ID = "/proc/sys/kernel/random/boot_id"

# Batches looked at as a sample of what is not scanned, and their bytes at most.
SAMPLES = 16
SAMPLE_BYTES_MAX = 4 << 20
_CRC_AT, _COVERED_AT = 17, 21  # positions in a batch


class Identity(NamedTuple):
    """What must be the same for the page cache to be the one that was written to."""

    boot_id: bytes
    mount_id: int
    device: int
    directory_inode: int
    directory_birth_ns: int
    segment_inode: int
    segment_birth_ns: int


class CacheMark(NamedTuple):
    """One mark.

    Attributes
    ----------
    identity : Identity
    segment_base_offset : int
    size_bytes, next_offset, max_timestamp, max_timestamp_offset, first_batch_max_timestamp, last_leader_epoch : int
        The segment's state then.
    offset_entries, time_entries : int
        In its index files.
    has_producers : bool
        A batch before the mark has a producer id.
    """

    identity: Identity
    segment_base_offset: int
    size_bytes: int
    next_offset: int
    max_timestamp: int
    max_timestamp_offset: int
    first_batch_max_timestamp: int
    offset_entries: int
    time_entries: int
    last_leader_epoch: int
    has_producers: bool

    @classmethod
    def of(cls, identity: Identity, segment: Segment, *, has_producers: bool) -> CacheMark:
        """What a segment holds now; its index files have been brought up to it."""
        state = segment.state
        offset_entries, time_entries = segment.index_entries_count
        return cls(
            identity, segment.base_offset, state["size_bytes"], state["next_offset"], state["max_timestamp"],
            state["max_timestamp_offset"], state["first_batch_max_timestamp"], offset_entries, time_entries,
            state["last_leader_epoch"], has_producers,
        )

    def encode(self) -> bytes:
        """The bytes of the file."""
        body = _BODY.pack(MAGIC, VERSION, FLAG_PRODUCERS * self.has_producers, *self.identity, *self[1:-1])
        return body + _CRC.pack(crc32c(body))

    @classmethod
    def decode(cls, data: bytes) -> CacheMark | None:
        """The mark in some bytes; None where there is none that this version knows."""
        body, stored = data[: _BODY.size], data[_BODY.size : _BODY.size + _CRC.size]
        if len(stored) < _CRC.size or _CRC.unpack(stored)[0] != crc32c(body):
            return None
        magic, version, flags, *fields = _BODY.unpack(body)
        if magic != MAGIC or version != VERSION:
            return None
        return cls._make([Identity(*fields[:7]), *fields[7:], bool(flags & FLAG_PRODUCERS)])


    def resume(self, path: str, settings: dict[str, Any], *, writable: bool) -> tuple[Segment, SegmentScan] | None:
        """Opens the mark's segment and scans what stands behind; None where it is not as the mark says."""
        return resume_segment(
            path, self.segment_base_offset, size_bytes=self.size_bytes, next_offset=self.next_offset,
            max_timestamp=self.max_timestamp, max_timestamp_offset=self.max_timestamp_offset,
            first_batch_max_timestamp=self.first_batch_max_timestamp, last_leader_epoch=self.last_leader_epoch,
            offset_entries=self.offset_entries, time_entries=self.time_entries, writable=writable, **settings,
        )


@cache
def boot_id() -> bytes | None:
    """What this boot of the machine is called, 16 bytes; None where nobody says."""
    try:
        with open(_BOOT_ID, encoding="ascii") as file:
            found = bytes.fromhex(file.read().strip().replace("-", ""))
    except (OSError, ValueError):
        return None
    return found if len(found) == 16 and any(found) else None


def identify(segment_path: str) -> Identity | None:
    """What the page cache's content of a segment hangs on; None where that can't be known, so that marks are of no use."""
    boot = boot_id()
    if boot is None:
        return None
    try:
        directory = file_identity(os.path.dirname(segment_path))
        segment = file_identity(segment_path)
    except StorageFailureError:
        return None
    if directory is None or segment is None or directory[:2] != segment[:2]:
        return None
    return Identity(boot, *directory, *segment[2:])


class Spared(NamedTuple):
    """What a mark spares.

    Attributes
    ----------
    known : Checkpoint
        The one that there would be if all before the mark were on disk.
    resumed : tuple[Segment, SegmentScan]
        The mark's segment, scanned behind it.
    spared_bytes : int
        What need not be scanned.
    """

    known: Checkpoint
    resumed: tuple[Segment, SegmentScan]
    spared_bytes: int


def spare_scan(
    directory: str,
    sealed: list[Segment],
    bases: list[int],
    first_doubtful: int,
    known: Checkpoint,
    mark: CacheMark,
    settings: dict[str, Any],
    *,
    writable: bool,
) -> Spared | None:
    """Scans behind a mark in its segment; None where the mark is of no use, or anything at all is odd. Changes nothing.

    Parameters
    ----------
    directory : str
    sealed : list[Segment]
        All but the last segment.
    bases : list[int]
        Base offsets of all.
    first_doubtful : int
        Index of the first segment that would have to be scanned.
    known : Checkpoint
    mark : CacheMark
    settings : dict[str, Any]
        What opening a segment has to know.
    writable : bool

    Raises
    ------
    StorageFailureError
    """
    base = mark.segment_base_offset
    if known.is_clean or known.sync_failed or base not in bases or mark.next_offset <= known.flushed_offset:
        return None
    path = os.path.join(directory, layout.segment_file_name(base))
    if identify(path) != mark.identity:
        return None
    resumed = mark.resume(path, settings, writable=writable)
    if resumed is None:
        return None
    parts = [(segment, segment.size_bytes, end) for segment, end in zip(sealed, bases[1:], strict=False)]
    parts[bases.index(base) :] = [(resumed[0], mark.size_bytes, mark.next_offset)]
    spared_bytes = 0
    for segment, size_bytes, end_offset in parts[first_doubtful:]:
        start, start_offset = 0, segment.base_offset
        if segment.base_offset == known.segment_base_offset:
            start, start_offset = known.position, max(known.flushed_offset, start_offset)
        if not is_undisturbed(segment, start, start_offset, size_bytes, end_offset):
            return None
        spared_bytes += size_bytes - start
    as_marked = known._replace(
        flushed_offset=mark.next_offset, segment_base_offset=base, position=mark.size_bytes,
        log_end_offset=max(known.log_end_offset, mark.next_offset),
    )
    return Spared(as_marked, resumed, spared_bytes)


def is_undisturbed(segment: Segment, start: int, start_offset: int, end: int, end_offset: int) -> bool:
    """Looks for signs that part of a segment is not what was written: a hole, or a batch in a sample that is not sound.

    Parameters
    ----------
    segment : Segment
    start, end : int
        Positions between which the file must have no hole: some file systems leave one for what never reached the disk.
    start_offset, end_offset : int
        Offsets of that part; the batch with the last one must be there.
    """
    if start >= end:
        return True
    try:
        return not _has_hole(segment.path, start, end) and _has_sound_samples(segment, start_offset, end_offset)
    except (OSError, StorageFailureError, CorruptDataError, UnsupportedFormatError):
        return False


def _has_hole(path: str, start: int, end: int) -> bool:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.lseek(descriptor, start, os.SEEK_HOLE) < end
    finally:
        os.close(descriptor)


def _has_sound_samples(segment: Segment, start_offset: int, end_offset: int) -> bool:
    """Whether some batches, evenly spread by offset, are whole; the first and the last are among them."""
    count = min(SAMPLES, end_offset - start_offset)
    seen = set()
    bytes_left = SAMPLE_BYTES_MAX
    for number in range(count):
        place = segment.locate(start_offset + (end_offset - 1 - start_offset) * number // max(count - 1, 1))
        if place is None:
            return False
        if place[0] not in seen and place[1] <= bytes_left:
            if not _is_sound(segment, place[0], place[1]):
                return False
            seen.add(place[0])
            bytes_left -= place[1]
    return True


def _is_sound(segment: Segment, position: int, size_bytes: int) -> bool:
    batch = segment.read(position, size_bytes)
    return len(batch) == size_bytes and int.from_bytes(batch[_CRC_AT:_COVERED_AT], "big") == crc32c(batch[_COVERED_AT:])
