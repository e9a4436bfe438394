"""Erasing every record of one key from a log, at once and for good, and proving it.

Segments that hold the key are rewritten one by one; batches stay, as headers if need be, so that
offsets, sequences and transactions are what they were. The old files are unlinked before the report is made.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from logstore._native.compaction import Compactor
from logstore.errors import InvalidRequestError, StorageFailureError
from logstore.storage import layout
from logstore.storage.files import refusals, sync_directory
from logstore.storage.segment_swap import Replacement, prepare_swaps, remove_unfinished, swap_segments

if TYPE_CHECKING:
    from logstore._native.segment import Segment
    from logstore.storage.log import Log
    from logstore.storage.log_reading import ReadableLog

__all__ = ["ErasureReport", "count_key", "erase_key"]


class ErasureReport(NamedTuple):
    """What was erased, and what shows that it is gone.

    Attributes
    ----------
    key : bytes
    up_to_offset : int
        Records below it were looked at; those of the key that were appended later are untouched.
    records_erased : int
    segments_rewritten : list[int]
        Their base offsets.
    records_scanned, records_found : int
        After it, every record was read again: how many there were, and how many still had the key. Found is 0.
    files_removed : list[str]
        Names of files with older bytes of the log that waited for removal, and are gone.
    files_left : list[str]
        Names of files beside the log that may hold the key and were kept, since they are all that is left of an unfinished
        write (``.torn``): delete them by hand once they are not needed.
    """

    key: bytes
    up_to_offset: int
    records_erased: int
    segments_rewritten: list[int]
    records_scanned: int
    records_found: int
    files_removed: list[str]
    files_left: list[str]


def erase_key(log: Log, key: bytes, *, progress: Callable[[int, int], None] | None = None) -> ErasureReport:
    """See `logstore.storage.log.Log.erase_key`."""
    if not isinstance(key, (bytes, bytearray, memoryview)):
        raise InvalidRequestError(f"a key is bytes, not {type(key).__name__}")
    with log._compaction_lock:
        return _Erasure(log, bytes(key), progress).run()


def count_key(log: ReadableLog, key: bytes, *, progress: Callable[[int], None] | None = None) -> int:
    """How many records of a log have a key; changes nothing, and works on a log that is open for reading only.

    Parameters
    ----------
    log : ReadableLog
    key : bytes
    progress : callable, optional
        Called with the bytes read so far.

    Raises
    ------
    CorruptDataError, StorageFailureError
    """
    log.refresh()
    segments = log.segments
    is_staged = log.ends_in_memory
    files_end = segments[-1].next_offset if is_staged else log.log_end_offset
    ends = [*(segment.base_offset for segment in segments[1:]), files_end]
    done_bytes = 0

    def moved(read_bytes: int, _written_bytes: int) -> None:
        nonlocal done_bytes
        done_bytes += read_bytes
        if progress is not None:
            progress(done_bytes)

    compactor = Compactor(None, erased_key=key)
    for segment, end_offset in zip(segments, ends, strict=True):
        if size_bytes := segment.size_bytes:
            compactor.rewrite_segment(segment.path, size_bytes, segment.base_offset, end_offset, None, None, moved)
    found = int(compactor.counts["records_superseded"])
    return found + sum(record.key == key for record in log.read(files_end)) if is_staged else found


class _Erasure:
    def __init__(self, log: Log, key: bytes, progress: Callable[[int, int], None] | None):
        self.log = log
        self.key = key
        self.progress = progress
        self.done_bytes = self.total_bytes = 0

    def run(self) -> ErasureReport:
        log = self.log
        if not log.is_writable:
            raise log._not_writable()
        log.roll()
        log._locked(log._end_staging)
        end_offset = log.segments[-1].base_offset
        self.total_bytes = 2 * log.size_bytes
        erased = 0
        sealed = [
            (segment, following.base_offset) for segment, following in zip(log.segments, log.segments[1:], strict=False)
        ]
        hits = [(segment, end) for segment, end in sealed if self._count(segment, end)[1]]
        if hits:
            log.flush_until(end_offset)
            prepare_swaps(log, contiguous=True)
        try:
            for segment, end in hits:
                erased += self._rewrite(segment, end)
        finally:
            remove_unfinished(log.path)
        removed = self._remove_older_files()
        scanned = found = 0
        for segment, following in zip(log.segments, log.segments[1:], strict=False):
            if following.base_offset <= end_offset:
                records, with_key = self._count(segment, following.base_offset)
                scanned, found = scanned + records, found + with_key
        return ErasureReport(
            self.key, end_offset, erased, [segment.base_offset for segment, _ in hits], scanned, found, removed,
            sorted(name for name in os.listdir(log.path) if name.endswith(".torn")),
        )

    def _compactor(self) -> Compactor:
        return Compactor(None, erased_key=self.key)

    def _count(self, segment: Segment, end_offset: int) -> tuple[int, int]:
        """Records of a segment, and how many of them have the key."""
        compactor = self._compactor()
        if size_bytes := segment.size_bytes:
            compactor.rewrite_segment(
                segment.path, size_bytes, segment.base_offset, end_offset, None, None, self._moved
            )
        return compactor.counts["records_read"], compactor.counts["records_superseded"]

    def _rewrite(self, segment: Segment, end_offset: int) -> int:
        log = self.log
        compactor = self._compactor()
        replacement = Replacement(log, [segment], end_offset, contiguous=log.contiguous)
        compactor.rewrite_segment(
            segment.path, segment.size_bytes, segment.base_offset, end_offset,
            replacement.next_output(segment.base_offset), replacement.next_output, self._moved,
        )
        replacement.keep_transaction_index()
        replacement.finish()
        if not swap_segments(log, replacement):
            raise StorageFailureError(
                segment.path, "erase", 2, "The segment was truncated or deleted meanwhile; erase the key again."
            )
        return compactor.counts["records_superseded"]

    def _remove_older_files(self) -> list[str]:
        """What retention and truncation have set aside holds older bytes, maybe the key's."""
        log = self.log
        with contextlib.suppress(StorageFailureError):
            log._deleted_files.take_names(log.path)  # if somebody is at it
            log._deleted_files.unlink()
        removed = []
        with refusals(log.path, "unlink"):
            for name in sorted(os.listdir(log.path)):
                if name.endswith(".deleted") and layout.segment_offset(name.split(".", 1)[0] + ".log") is not None:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(os.path.join(log.path, name))
                    removed.append(name)
        sync_directory(log.path)
        return removed

    def _moved(self, read_bytes: int, written_bytes: int) -> None:
        self.done_bytes = min(self.done_bytes + read_bytes, self.total_bytes)
        if self.progress is not None and read_bytes:
            self.progress(self.done_bytes, self.total_bytes)
