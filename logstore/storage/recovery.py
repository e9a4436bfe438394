"""Opening a log's directory: finish what a crash interrupted, scan from the recovery point, judge the tail.

What it finds is an `OpenedLog`; `logstore.storage.log.Log` works on it. Rules: log-format, section 5, made stricter by
docs/durability.md: only a torn tail is cut, the bytes cut are kept, damage anywhere else stops writing.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any, NamedTuple

from logstore._native.segment import Segment, SegmentScan
from logstore._native.segment_opening import reopen_segment
from logstore.errors import CorruptDataError, DiskFullError, StorageFailureError
from logstore.model import RecoveryReport
from logstore.storage import layout
from logstore.storage.cache_mark import CacheMark, spare_scan
from logstore.storage.checkpoint import Checkpoint
from logstore.storage.files import refusals, replace_file, sync_directory, write_at
from logstore.storage.interrupted_swaps import file_number, interrupted_swap, visible_segments
from logstore.storage.segment_digests import SegmentDigests

__all__ = [
    "OpenedLog",
    "SegmentSettings",
    "interrupted_truncation",
    "last_leader_epoch",
    "list_segments",
    "open_segments",
    "rewrite_unflushed",
    "sync_indexes",
    "write_indexes",
]

TRUNCATE_SUFFIX = ".truncate"
INDEX_SUFFIXES = (".index", ".timeindex", ".txnindex")
_DELETED = ".deleted"
_SPARE_BYTES_MIN = 256 << 10  # more than file systems round sizes up to
_DELETED_AT_ONCE = 1000  # files left over from mass deletion: others go while the log is open
_LEFTOVERS = (TRUNCATE_SUFFIX + ".tmp", ".torn.tmp", ".repaired")
_TEMPORARY = frozenset({layout.LEADER_EPOCH_FILE + ".tmp", layout.PARTITION_METADATA_FILE + ".tmp"})


class SegmentSettings(NamedTuple):
    """What opening a segment has to know."""

    index_interval_bytes: int
    index_bytes: int
    contiguous: bool = False

    def as_arguments(self) -> dict[str, Any]:
        return self._asdict()


class OpenedLog:
    """What opening found.

    Attributes
    ----------
    segments : list[Segment]
        Ascending; empty for a new log. The last one is active.
    log_end_offset : int
    flushed_offset : int
        Never above the checkpoint's: that a scan read it does not mean that it is on disk.
    report : RecoveryReport
    damage : CorruptDataError or None
        Why the log must not be written.
    leader_epoch : int
        Of the last batch scanned; -1 for none.
    mark : CacheMark or None
        What spared a scan of what stands before it.
    deleted : list[str]
        Files that are out of the log, but too many to be unlinked before it is open.
    is_cut : bool
        Zeros ahead of the end were taken away: the file's size is to be on disk before the log counts as closed.
    """

    __slots__ = (
        "damage", "deleted", "flushed_offset", "is_cut", "leader_epoch", "log_end_offset", "mark", "report", "segments",
    )

    def __init__(self, log_end_offset: int, flushed_offset: int = 0):
        self.segments: list[Segment] = []
        self.log_end_offset = log_end_offset
        self.flushed_offset = flushed_offset
        self.report = RecoveryReport()
        self.damage: CorruptDataError | None = None
        self.leader_epoch = -1
        self.mark: CacheMark | None = None
        self.deleted: list[str] = []
        self.is_cut = False


def list_segments(directory: str) -> list[int]:
    """Base offsets of the segments in a directory, ascending."""
    with refusals(directory, "list"):
        return sorted(offset for name in os.listdir(directory) if (offset := layout.segment_offset(name)) is not None)


def write_indexes(segment: Segment, *, final: bool = False, sync: bool = False) -> None:
    """Brings a segment's index files up to what is in memory; ``final`` cuts whatever stands behind.

    An index can be deleted at any time and comes back, so a full disk only costs the next open some time. But one that
    has lost its last entries looks whole: ``sync`` before a checkpoint says that it need not be looked at again.
    """
    stem = segment.path[: -len(".log")]
    (offset_position, offset_bytes), (time_position, time_bytes) = segment.unwritten_index_bytes()
    offset_size = offset_position + len(offset_bytes)
    time_size = time_position + len(time_bytes)
    if offset_bytes or final:
        write_at(stem + ".index", offset_position, offset_bytes, size=offset_size if final else None, sync=sync)
    if time_bytes or final:
        write_at(stem + ".timeindex", time_position, time_bytes, size=time_size if final else None, sync=sync)
    segment.index_written(offset_size, time_size)


def sync_indexes(segment: Segment) -> None:
    """fsync of a sealed segment's index files, as they are."""
    stem = segment.path[: -len(".log")]
    for path in (stem + ".index", stem + ".timeindex"):
        with refusals(path, "fsync"):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def open_segments(
    directory: str, checkpoint: Checkpoint | None, settings: SegmentSettings, *, writable: bool,
    digests: SegmentDigests | None = None, mark: CacheMark | None = None,
) -> OpenedLog:
    """Opens all segments of a log.

    Parameters
    ----------
    directory : str
    checkpoint : Checkpoint or None
        What is known to be on disk; None scans everything.
    settings : SegmentSettings
    writable : bool
        Whether leftovers may be removed and a torn tail cut.
    digests : SegmentDigests, optional
        What sealed segments are known to hold: nothing of it is a torn tail.
    mark : CacheMark, optional
        Up to where a scan may be spared, if it holds.

    Returns
    -------
    OpenedLog

    Raises
    ------
    StorageFailureError
        A file can't be opened or read.
    """
    deleted = _finish_interrupted(directory) if writable else []
    paths = visible_segments(directory)
    bases = list(paths)
    known = checkpoint or Checkpoint()
    opened = OpenedLog(log_end_offset=max(known.log_start_offset, known.log_end_offset))
    opened.deleted = deleted
    if not bases:
        if known.flushed_offset > known.log_start_offset or known.position > 0:
            opened.damage = CorruptDataError(
                os.path.join(directory, layout.segment_file_name(known.segment_base_offset)), -1,
                "the log's segment files are missing", known.flushed_offset, known.log_start_offset,
                "Restore them from a backup, or delete the partition's directory to start over.",
            )
        return opened
    if checkpoint is not None and known.position > 0 and known.segment_base_offset not in bases:
        opened.damage = CorruptDataError(
            os.path.join(directory, layout.segment_file_name(known.segment_base_offset)), -1,
            "a segment file of this log is missing", known.segment_base_offset, None,
        )
    if checkpoint is not None and known.is_contiguous and known.log_start_offset < bases[0] and opened.damage is None:
        # The start is moved before segments are deleted, never after.
        opened.damage = CorruptDataError(
            os.path.join(directory, layout.segment_file_name(bases[0])), -1,
            "segment files before this one are missing", known.log_start_offset, bases[0],
        )
    for base, end in zip(bases, bases[1:], strict=False):
        opened.segments.append(
            Segment.sealed(paths[base], base, end, **settings.as_arguments())
        )
    spared = None
    if checkpoint is not None and opened.damage is None and mark is not None:
        spared = spare_scan(
            directory, opened.segments, bases, _first_doubtful(bases, known), known, mark, settings.as_arguments(),
            writable=writable,
        )
    if spared is not None and mark is not None:
        found = OpenedLog(opened.log_end_offset)
        found.segments = list(opened.segments)
        found.mark = mark
        _scan_tail(
            directory, bases, bases.index(mark.segment_base_offset), spared.known, settings, found,
            has_checkpoint=True, writable=writable, digests=digests, resumed=spared.resumed,
        )
        found.report = found.report._replace(spared_bytes=spared.spared_bytes)
        opened.is_cut = found.is_cut
        if found.damage is None:
            opened = found
    if opened.mark is None:  # or what was scanned behind the mark is odd: judged by all there is
        _scan_tail(
            directory, bases, _first_doubtful(bases, checkpoint), known, settings, opened,
            has_checkpoint=checkpoint is not None, writable=writable, digests=digests,
        )
    opened.flushed_offset = min(known.flushed_offset, opened.log_end_offset)
    return opened


def last_leader_epoch(segments: list[Segment], settings: SegmentSettings) -> int:
    """Leader epoch of the last batch there is, by its header; -1 where there is none."""
    for segment in reversed(segments):
        if segment.size_bytes:
            opened, _ = reopen_segment(
                segment.path, segment.base_offset, trusted_bytes=0, trusted_offset=segment.base_offset, writable=False,
                deep=False, **settings.as_arguments(),
            )
            return opened.state["last_leader_epoch"]
    return -1


def _first_doubtful(bases: list[int], checkpoint: Checkpoint | None) -> int:
    """Index of the first segment that has to be scanned."""
    if checkpoint is None:
        return 0
    return max(sum(base <= checkpoint.segment_base_offset for base in bases) - 1, 0)


def _scan_tail(
    directory: str,
    bases: list[int],
    first_doubtful: int,
    known: Checkpoint,
    settings: SegmentSettings,
    opened: OpenedLog,
    *,
    has_checkpoint: bool,
    writable: bool,
    digests: SegmentDigests | None,
    resumed: tuple[Segment, SegmentScan] | None = None,
) -> None:
    """Scans from the recovery point on (``resumed`` is the first segment, scanned); the last one becomes the active one."""
    scanned_bytes = rebuilt = 0
    known_contiguous = has_checkpoint and known.is_contiguous
    for index in range(first_doubtful, len(bases)):
        base = bases[index]
        path = os.path.join(directory, layout.segment_file_name(base))
        trusted = base == known.segment_base_offset and known.position > 0
        try:
            segment, scan = resumed or reopen_segment(
                path, base, trusted_bytes=known.position if trusted else 0,
                trusted_offset=known.flushed_offset if trusted else base, writable=writable, **settings.as_arguments(),
            )
        except CorruptDataError as error:
            opened.damage = opened.damage or error
            segment, scan = reopen_segment(
                path, base, trusted_bytes=0, trusted_offset=base, writable=writable, **settings.as_arguments()
            )
            trusted = False
        resumed = None
        scanned_bytes += scan.file_size_bytes - (known.position if trusted else 0)
        rebuilt += 2 * segment.doubtful_index
        opened.leader_epoch = max(opened.leader_epoch, segment.state["last_leader_epoch"])
        is_last = index == len(bases) - 1
        end_offset = scan.next_offset
        if scan.is_filled and _is_filled_ahead(scan, base, known, digests, bases[index + 1 :], trusted=trusted):
            if writable and opened.damage is None:
                segment.truncate(scan.valid_bytes, scan.next_offset)
                opened.is_cut = True
            scan = scan._replace(tail="none", file_size_bytes=scan.valid_bytes)
            if not is_last:
                segment.seal(bases[index + 1])
                opened.segments[index] = segment  # which knows where it ends
        if is_last and writable and opened.damage is None and scan.tail == "none" and _has_spare_blocks(path):
            segment.truncate(scan.valid_bytes, scan.next_offset)
        if scan.tail != "none":
            below = (trusted and scan.valid_bytes < known.position) or scan.valid_bytes < _sealed_bytes(digests, base)
            if scan.tail == "corrupt" or below or opened.damage is not None or _is_contradicted(path, scan):
                opened.damage = opened.damage or CorruptDataError(
                    path, scan.position, scan.reason, scan.expected, scan.actual,
                    "Writing is refused, so that nothing is lost; reads around it work. "
                    "`logstore verify --deep` names all damage, `logstore repair` what can be done.",
                )
                end_offset = _end_behind_damage(segment, scan)
                if not is_last:
                    end_offset = bases[index + 1]
                segment = Segment.sealed(path, base, max(end_offset, base), **settings.as_arguments())
            else:
                opened.report = _cut_tail(directory, segment, scan, bases[index + 1 :], writable=writable)
                is_last = True
        elif trusted and known.is_clean and scan.valid_bytes == known.position and end_offset > known.flushed_offset:
            # No CRC covers a base offset, and in a log with gaps no neighbour contradicts the last one.
            opened.damage = opened.damage or CorruptDataError(
                path, -1, "offsets go on behind the log's end", known.flushed_offset, end_offset,
                "`logstore verify` names the batch, and `logstore repair` corrects its offset.",
            )
            end_offset = known.flushed_offset
        elif scan.valid_bytes < (sealed_bytes := _sealed_bytes(digests, base)):
            opened.damage = opened.damage or CorruptDataError(
                path, scan.valid_bytes, "the file is shorter than it was on disk", sealed_bytes, scan.valid_bytes,
                "Acknowledged records are gone from it: restore the file, or see what `logstore repair` proposes.",
            )
            if not is_last:
                segment = Segment.sealed(path, base, bases[index + 1], **settings.as_arguments())
        elif (
            not is_last and known_contiguous and opened.damage is None
            and max(end_offset, known.log_start_offset) < bases[index + 1]
        ):
            # Whole batches, but the last ones never got to the disk, while the next file's did.
            report = _cut_tail(directory, segment, scan, bases[index + 1 :], writable=writable)
            opened.report = report._replace(reason="records are missing before the next segment")
            is_last = True
        if is_last:
            opened.segments[index:] = [segment]
            opened.log_end_offset = max(end_offset, opened.log_end_offset)
            break
        # Whole to its end, though not known to be: the next one is scanned as well.
        if writable and opened.damage is None:
            segment.seal(bases[index + 1])
            with contextlib.suppress(DiskFullError):  # a full disk can be opened and read
                # Synced with the next checkpoint, unless that is written before any flush.
                write_indexes(segment, final=True, sync=known.sync_failed)
    opened.report = opened.report._replace(scanned_bytes=scanned_bytes, rebuilt_indexes=rebuilt)
    trusted_end = known.flushed_offset if opened.damage is None else 0
    if opened.log_end_offset < trusted_end:
        opened.damage = CorruptDataError(
            opened.segments[-1].path, opened.segments[-1].size_bytes, "flushed records are missing at the end",
            trusted_end, opened.log_end_offset, "Restore the file, or read what is left with read_only=True.",
        )


def _is_filled_ahead(
    scan: SegmentScan, base_offset: int, known: Checkpoint, digests: SegmentDigests | None, later_bases: list[int], *,
    trusted: bool,
) -> bool:
    """Whether zeros to the end of a file stand where nothing can be missing: it was filled ahead of its end."""
    if (trusted and scan.valid_bytes < known.position) or scan.valid_bytes < _sealed_bytes(digests, base_offset):
        return False
    return not later_bases or scan.next_offset == later_bases[0]


def _has_spare_blocks(path: str) -> bool:
    """Whether a file has blocks behind its end, as one that was given them ahead by a process that was killed."""
    with refusals(path, "stat"):
        about = os.stat(path)
    return getattr(about, "st_blocks", 0) * 512 >= about.st_size + _SPARE_BYTES_MIN


def _sealed_bytes(digests: SegmentDigests | None, base_offset: int) -> int:
    """The size a segment is known to have had on disk; 0 where nothing is known."""
    with contextlib.suppress(StorageFailureError):
        digest = None if digests is None else digests.get(base_offset)
        return 0 if digest is None else digest.size_bytes
    return 0


def _is_contradicted(path: str, scan: SegmentScan) -> bool:
    """Whether a batch that seems cut off by the end of the file can't have been: a sound batch stands behind it, and nothing
    between is missing. Its length is wrong then, and what follows was acknowledged."""
    if scan.next_valid_position < 0 or scan.reason != "batch is cut off":
        return False
    with refusals(path, "read"), open(path, "rb") as file:
        file.seek(scan.valid_bytes)
        between = file.read(scan.next_valid_position - scan.valid_bytes)
    sector = -(-scan.valid_bytes // 512) * 512 - scan.valid_bytes
    starts = [0, *range(sector, len(between), 512)]
    return not any(
        start < end and not between[start:end].strip(b"\0")
        for start, end in zip(starts, [*starts[1:], len(between)], strict=True)
    )


def _end_behind_damage(segment: Segment, scan: SegmentScan) -> int:
    """The offset after the last sound batch of a damaged segment, wherever the damage is."""
    end_offset = scan.next_offset
    while scan.tail != "none" and scan.next_valid_position >= 0:
        scan = segment.recover(scan.next_valid_position, end_offset)
        end_offset = scan.next_offset
    return end_offset


def _cut_tail(
    directory: str, segment: Segment, scan: SegmentScan, later_bases: list[int], *, writable: bool
) -> RecoveryReport:
    """Cuts an unfinished write off and keeps the bytes beside the segment, as ``.torn``."""
    cut_bytes = scan.file_size_bytes - scan.valid_bytes
    kept_as = ""
    if writable:
        kept_as = f"{segment.path}.{scan.valid_bytes}.torn"
        with refusals(segment.path, "read"), open(segment.path, "rb") as file:
            file.seek(scan.valid_bytes)
            tail = file.read(min(cut_bytes, 256 << 20))
        if tail.strip(b"\0"):
            replace_file(kept_as, tail)
        else:
            kept_as = ""  # preallocated or never written: zeros are no evidence
        segment.truncate(scan.valid_bytes, scan.next_offset)
        segment.sync()
    for base in later_bases:
        # Written after what was lost, and never flushed: only a prefix may survive.
        path = os.path.join(directory, layout.segment_file_name(base))
        with refusals(path, "rename"):
            cut_bytes += os.path.getsize(path)
            if writable:
                os.replace(path, path + ".torn")
                for suffix in INDEX_SUFFIXES:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(os.path.join(directory, layout.segment_file_name(base, suffix)))
    if writable:
        sync_directory(directory)
    return RecoveryReport(
        path=segment.path, cut_offset=scan.next_offset, cut_bytes=cut_bytes, reason=scan.reason, kept_as=kept_as
    )


def _finish_interrupted(directory: str) -> list[str]:
    """Finishes or undoes deletions, replacements and truncations that a crash interrupted (log-format, 5.2); gives the files
    that are out of the log, but too many to be unlinked now.

    Idempotent: a crash in here changes nothing about what the next run does.
    """
    with refusals(directory, "list"):
        names = sorted(os.listdir(directory))
    undone, swaps, replaced = interrupted_swap(directory, names)
    deleted = [name for name in names if name.endswith(_DELETED)]
    leftovers = [name for name in names if name.endswith(_LEFTOVERS) or name in _TEMPORARY]
    removed = deleted[:_DELETED_AT_ONCE] + leftovers + undone + replaced
    with refusals(directory, "clean up after a crash"):
        for name in dict.fromkeys(removed):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(directory, name))
        if removed and swaps:
            sync_directory(directory)  # a segment that came back would overlap the one in its place
        for name in swaps:
            os.replace(os.path.join(directory, name), os.path.join(directory, name.removesuffix(".swap")))
    for name in names:
        if _is_truncation(name):
            finish_truncation(directory, name)
    present, gone = set(names), set(removed)
    for name in names:
        stem, suffix = os.path.splitext(name)
        if suffix in INDEX_SUFFIXES and f"{stem}.log" not in present and name not in gone:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(directory, name))
    if removed or swaps:
        sync_directory(directory)
    return [os.path.join(directory, name) for name in deleted[_DELETED_AT_ONCE:]]


def interrupted_truncation(directory: str) -> tuple[int, bool] | None:
    """The base offset of a truncation that a crash interrupted, and whether any record of the batch there stays."""
    with refusals(directory, "list"):
        for name in os.listdir(directory):
            if _is_truncation(name):
                return file_number(name), os.path.getsize(os.path.join(directory, name)) > 0
    return None


def finish_truncation(directory: str, name: str) -> None:
    """Carries a truncation through: ``<base>.log.truncate`` holds what is left of the batch at its base offset, whole,
    or nothing; the log is cut there, and the file takes its place.

    Every step can be repeated. Names go durably before the next step relies on it: one that came back would leave a
    gap.
    """
    base = file_number(name)
    marker = os.path.join(directory, name)
    with refusals(marker, "read"):
        is_empty = os.path.getsize(marker) == 0
    bases = list_segments(directory)
    floor = max((known for known in bases if known < base), default=None)
    removed = [known for known in bases if known > base or (is_empty and known == base)]
    for later in reversed(removed):
        remove_segment_files(directory, later)
    with refusals(directory, "unlink"):
        for suffix in INDEX_SUFFIXES:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(directory, layout.segment_file_name(base, suffix)))
    sync_directory(directory)
    if floor is not None:
        path = os.path.join(directory, layout.segment_file_name(floor))
        position = _position_of(path, base)
        with refusals(path, "truncate"):
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                os.ftruncate(descriptor, position)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    with refusals(marker, "rename"):
        if is_empty:
            os.unlink(marker)
        else:
            os.replace(marker, marker.removesuffix(TRUNCATE_SUFFIX))
    sync_directory(directory)


def remove_segment_files(directory: str, base_offset: int) -> None:
    """Takes a segment's files out of the log at once (``.deleted``), then unlinks them; readers keep what they opened."""
    with refusals(directory, "delete a segment"):
        renamed = []
        for suffix in (".log", *INDEX_SUFFIXES, ".snapshot"):
            path = os.path.join(directory, layout.segment_file_name(base_offset, suffix))
            with contextlib.suppress(FileNotFoundError):
                os.replace(path, path + ".deleted")
                renamed.append(path + ".deleted")
        for path in renamed:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


def _is_truncation(name: str) -> bool:
    return name.endswith(TRUNCATE_SUFFIX) and layout.segment_offset(name.removesuffix(TRUNCATE_SUFFIX)) is not None


def _position_of(path: str, offset: int) -> int:
    """Byte position of the first batch whose base offset is at or after an offset; the size where there is none."""
    base_offset = layout.segment_offset(os.path.basename(path)) or 0
    segment, scan = reopen_segment(
        path, base_offset, index_interval_bytes=4096, index_bytes=10_485_760, trusted_bytes=0,
        trusted_offset=base_offset, writable=False, deep=False,
    )
    found = segment.locate(offset)
    return scan.valid_bytes if found is None else int(found[0])


def rewrite_unflushed(segments: list[Segment], checkpoint: Checkpoint) -> None:
    """After a failed fsync the page cache may show what the disk does not have: writes it again, and syncs."""
    for segment in segments:
        if segment.base_offset < checkpoint.segment_base_offset:
            continue
        start = checkpoint.position if segment.base_offset == checkpoint.segment_base_offset else 0
        with refusals(segment.path, "rewrite after a failed fsync"), open(segment.path, "r+b") as file:
            while start < segment.size_bytes:
                file.seek(start)
                chunk = file.read(min(1 << 20, segment.size_bytes - start))
                if not chunk:
                    break
                file.seek(start)
                file.write(chunk)
                start += len(chunk)
            file.flush()
            os.fsync(file.fileno())
