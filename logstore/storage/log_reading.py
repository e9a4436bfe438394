"""The reading side of a log: positions, records, batches, columns, look-ups by time, and following another process."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from logstore._native.columns import ColumnCursor
from logstore._native.log_cursor import LogCursor
from logstore._native.record_batch import RecordBatch
from logstore._native.record_reader import RecordReader
from logstore._native.segment import Segment
from logstore._native.segment_opening import reopen_segment
from logstore._native.timestamp_lookup import find_timestamp
from logstore.errors import CorruptDataError, OffsetOutOfRangeError, StorageFailureError
from logstore.model import IsolationLevel, OffsetAndTimestamp, RecoveryReport
from logstore.positions import Position, resolve_position
from logstore.storage import layout
from logstore.storage.checkpoint import Checkpoint, CheckpointFile
from logstore.storage.files import refusals
from logstore.storage.interrupted_swaps import visible_segments
from logstore.storage.leader_epochs import LeaderEpochs
from logstore.storage.log_producers import ProducerLog, is_committed
from logstore.storage.open_batch import OpenBatchRecords, open_batch_path
from logstore.storage.recovery import SegmentSettings
from logstore.storage.segment_digests import SegmentDigests
from logstore.storage.waiting import Waiter, watch_directories

if TYPE_CHECKING:
    from logstore.records.scan import Scan

__all__ = ["ReadableLog", "read_logs", "scan_logs"]


class ReadableLog(ProducerLog):
    """What a log offers its readers. `logstore.storage.log.Log` is what is used."""

    _checkpoint_file: CheckpointFile
    _digests: SegmentDigests
    _listed_ns: int = -1  # when the directory had changed last, at its last listing; a reader process's
    _open_batch_records: OpenBatchRecords  # a reader process's
    _epochs: LeaderEpochs
    recovery_report: RecoveryReport
    _files: dict[int, tuple[int, int]]  # inode and time of change by base offset; a reader process's

    @abstractmethod
    def _open(self, known: Checkpoint | None, *, trust_checkpoint: bool) -> None:
        """Opens the directory, again if it is open."""

    def _segment_settings(self) -> SegmentSettings:
        return SegmentSettings(
            self.config["index.interval.bytes"], self.config["segment.index.bytes"], self.contiguous
        )

    def bounds(
        self, start: Position = "earliest", stop: Position | None = None, *, committed: bool = False
    ) -> tuple[int, int | None]:
        """Offsets of a start and a stop position, ``(first, end)``; an end of None means none. For readers of committed
        records ``"latest"`` is the last stable offset.

        Raises
        ------
        OffsetOutOfRangeError
            An offset before the log start offset or past the log end offset.
        InvalidRequestError
        """
        if self.read_only:
            self.refresh()
        latest = self.last_stable_offset if committed else self.log_end_offset
        first = self._offset_of(start, "start", latest)
        end = None if stop is None else self._offset_of(stop, "stop", latest)
        if first > self.log_end_offset or first < self.log_start_offset:
            raise OffsetOutOfRangeError(
                f"offset {first} is outside of {self.topic}-{self.partition}, which holds offsets "
                f"{self.log_start_offset} to {self.log_end_offset} (exclusive)",
                offset=first, log_start_offset=self.log_start_offset, log_end_offset=self.log_end_offset,
            )
        return first, end

    def _offset_of(self, position: Position, what: str, latest: int) -> int:
        if type(position) is int and position >= 0:
            return position
        kind, number = resolve_position(position, what, self._now_ms())
        if kind == "earliest":
            return int(self.log_start_offset)
        if kind == "latest":
            return latest
        found = self.offset_for_timestamp(number)
        return int(self.log_end_offset) if found is None else found.offset

    def cursor(
        self,
        start_offset: int,
        stop_offset: int | None = None,
        *,
        read_bytes: int = 0,
        isolation_level: IsolationLevel = "read_uncommitted",
    ) -> LogCursor:
        """A cursor over whole batches; the first one may begin before the start offset. One thread at a time.

        With ``"read_committed"`` it ends at the last stable offset, and batches of aborted transactions are passed over.
        Transaction markers are handed out at both levels: they are batches, though none of their records is anybody's.
        """
        committed = is_committed(isolation_level)
        if committed:
            self._know_transactions()
        return LogCursor(self, start_offset, stop_offset, read_bytes, committed)

    def column_cursor(
        self,
        start_offset: int,
        stop_offset: int | None = None,
        *,
        read_bytes: int = 0,
        isolation_level: IsolationLevel = "read_uncommitted",
    ) -> ColumnCursor:
        """A cursor over columns, without control batches. One thread at a time."""
        committed = is_committed(isolation_level)
        if committed:
            self._know_transactions()
        return ColumnCursor(self, start_offset, stop_offset, read_bytes, committed)

    def read(
        self,
        start: Position = "earliest",
        *,
        stop: Position | None = None,
        follow: bool = False,
        timeout: float | None = None,
        isolation_level: IsolationLevel = "read_uncommitted",
    ) -> RecordReader:
        """Reads records in order of their offsets.

        Parameters
        ----------
        start : int, datetime or str
            An offset; a datetime with a time zone, or an age such as ``"-1h"``: the first record at or after it;
            ``"earliest"`` or ``"latest"``.
        stop : int, datetime or str, optional
            Exclusive: the read ends before this offset, or before the first record at or after this time.
        follow : bool
            At the end, waits for new records.
        timeout : float, optional
            Seconds to wait for the next record; then the read ends. None waits for ever.
        isolation_level : {"read_uncommitted", "read_committed"}
            With ``"read_committed"``, records of aborted transactions are left out, and the read ends, or waits, where
            the oldest open transaction begins.

        Returns
        -------
        RecordReader
            An iterator of `Record`. Stays valid while others append.

        Raises
        ------
        OffsetOutOfRangeError, InvalidRequestError
        CorruptDataError
            While iterating: the next batch is damaged.
        """
        committed = is_committed(isolation_level)
        bounds = self.bounds(start, stop, committed=committed)
        return read_logs([self], [bounds], follow=follow, timeout=timeout, committed=committed)

    def fetch(self, offset: int, max_bytes: int = 1 << 20) -> list[RecordBatch]:
        """Whole batches from the one that holds an offset on.

        Parameters
        ----------
        offset : int
        max_bytes : int
            Batches are added while they fit; the first one always is.

        Returns
        -------
        list[RecordBatch]
            Empty at the log end offset. The first batch may begin before the offset.

        Raises
        ------
        OffsetOutOfRangeError, CorruptDataError
        """
        cursor = LogCursor(self, offset, None, min(max(max_bytes, 4096), 1 << 20))
        batches: list[RecordBatch] = []
        size_bytes = 0
        while (batch := cursor.next_batch()) is not None:
            size_bytes += batch.size_bytes
            if batches and size_bytes > max_bytes:
                break
            batches.append(batch)
            if size_bytes >= max_bytes:
                break
        return batches

    def scan(
        self,
        start: Position = "earliest",
        *,
        stop: Position | None = None,
        isolation_level: IsolationLevel = "read_uncommitted",
    ) -> Scan:
        """Reads columns; see `logstore.Topic.scan`."""
        committed = is_committed(isolation_level)
        return scan_logs([self], [self.bounds(start, stop, committed=committed)], committed=committed)

    def offset_for_timestamp(self, timestamp: int) -> OffsetAndTimestamp | None:
        """The first record at or after a time (log-format, 4.5).

        Parameters
        ----------
        timestamp : int
            Milliseconds UTC.

        Returns
        -------
        OffsetAndTimestamp or None
            The smallest *offset* whose timestamp is at or after it; None where there is none.

        Raises
        ------
        CorruptDataError
        """
        while True:
            replacements = self.replacement_count
            try:
                return self._offset_for_timestamp(timestamp)
            except (CorruptDataError, StorageFailureError):
                # A segment that compaction has replaced before it was opened.
                if replacements == self.replacement_count and not self._has_replaced_segments():
                    raise

    def _offset_for_timestamp(self, timestamp: int) -> OffsetAndTimestamp | None:
        if (found := find_timestamp(self, timestamp)) is not None:
            return OffsetAndTimestamp(*found)
        log_start_offset = self.log_start_offset
        for segment in self.readable_segments:
            try:
                if segment.max_timestamp < timestamp:
                    continue
            except (CorruptDataError, StorageFailureError):
                if self._was_deleted(segment):
                    continue
                raise
            from_offset = max(log_start_offset, segment.base_offset)
            while (place := segment.find_timestamp(timestamp, from_offset)) is not None:
                _, _, base_offset, last_offset = place
                if base_offset >= self.log_end_offset:
                    return None
                batch = LogCursor(self, max(base_offset, log_start_offset), last_offset + 1).next_batch()
                if batch is not None and (hit := batch.find_timestamp(timestamp, log_start_offset)) is not None:
                    return OffsetAndTimestamp(*hit)
                from_offset = last_offset + 1
        return None

    def _was_deleted(self, segment: Segment) -> bool:
        """Whether a segment that can't be opened has been deleted since the log's segments were looked at."""
        if self.read_only:
            self.refresh()
        return bool(segment.next_offset <= self.log_start_offset)

    def _has_replaced_segments(self) -> bool:
        replacements = self.replacement_count
        self.refresh()
        return replacements != self.replacement_count

    def refresh(self) -> bool:
        """In a reader process: looks for what the writer has appended, rolled or deleted since.

        Returns
        -------
        bool
            Whether there is anything new.

        Raises
        ------
        StorageFailureError, CorruptDataError
        """
        if not self.read_only or not self.is_open:
            return False
        with self._flush_lock:
            return self._refresh()

    def catch_up(self) -> bool:
        """`refresh`, at a fraction of the cost, where nothing but what ``.log`` files hold has changed since the last one.

        What is staged, it finds where it finds nothing else: while it is told of changes by the writer, nothing is.
        Returns and raises what `refresh` does.
        """
        if not self.read_only or not self.is_open:
            return False
        is_new = self._catch_up_active()
        if is_new or (is_new is not None and not self._open_batch_records.are_there()):
            return is_new
        return self.refresh()  # cut, with a gap that has become legal meanwhile, or with records in the open batch

    def _list_again(self) -> dict[int, str] | None:
        """The segments' files by base offset; None where the directory has not changed since they were listed."""
        with refusals(self.path, "list"):
            changed_ns = os.stat(self.path).st_mtime_ns
        if changed_ns == self._listed_ns:
            return None
        paths = visible_segments(self.path)
        # Within a tick of the file system's clock another change may come that leaves the same time.
        settled = time.time_ns() - changed_ns > 1_000_000_000
        self._listed_ns = changed_ns if settled else -1
        return paths

    def _note_files(self, paths: dict[int, str]) -> set[int]:
        """Base offsets of the segments whose file is another than at the last look."""
        before = self._files
        self._files = {}
        for base, path in paths.items():
            with contextlib.suppress(FileNotFoundError):
                about = os.stat(path)
                # An inode is used again soon; with the time of its last rename it is known.
                self._files[base] = (about.st_ino, about.st_ctime_ns)
        return {base for base in paths if base in before and before[base] != self._files.get(base)}

    def _sealed_now(self, paths: dict[int, str]) -> tuple[list[Segment], bool]:
        """The segments there are but for those rolled since; and whether any has taken the place of others."""
        active = self.segments[-1]
        changed = self._note_files(paths) - {active.base_offset}
        known = {segment.base_offset: segment for segment in self.segments}
        bases = [base for base in paths if base <= active.base_offset]
        segments = []
        replaced = False
        for base, end in zip(bases, [*bases[1:], 0], strict=True):
            if base in known and base not in changed:
                segments.append(known[base])
            else:
                replaced = True
                segments.append(Segment.sealed(paths[base], base, end, **self._segment_settings().as_arguments()))
        return segments, replaced

    def _refresh(self) -> bool:
        before = self._seen()
        staged = self._open_batch_records.look()  # first: what is handed over from here on is found in the segments
        shown = self._open_batch_records.segment
        paths = self._list_again()
        replaced = False
        if paths is None:
            segments, paths = list(self.segments), {}
        elif not self.segments or self.segments[-1].base_offset not in paths:
            segments = []
        else:
            segments, replaced = self._sealed_now(paths)
        if not segments and not paths:
            return False
        if not segments or (segments[-1].base_offset != self.segments[-1].base_offset):
            self._open(None, trust_checkpoint=True)
            return before != self._seen()
        # Each state is read once: None means that there is no newer one.
        checkpoint = self._checkpoint = self._checkpoint_file.read() or self._checkpoint
        if self.contiguous and not checkpoint.is_contiguous:
            for segment in segments:
                segment.allow_gaps()
        if self.damage is None:
            try:
                segments[-1].catch_up()
            except CorruptDataError:
                # The writer has truncated below what this reader knew; damage shows when it is opened again.
                self._open(None, trust_checkpoint=True)
                self._publish(truncated=self.log_end_offset)
                return True
            for base in [base for base in paths if base > segments[-1].base_offset]:
                # The old one first, to its end: it is complete once the next one exists.
                segments[-1].catch_up()
                segments[-1].seal(base)
                path = os.path.join(self.path, layout.segment_file_name(base))
                segment, _ = reopen_segment(path, base, trusted_bytes=0, trusted_offset=base, writable=False,
                                            **self._segment_settings().as_arguments())
                segment.share_descriptor(is_synced=True)
                segments.append(segment)
        before_end = self.log_end_offset
        end_offset = before_end if self.damage is not None else max(
            segments[-1].next_offset, before_end if shown is None else shown.base_offset)
        stable = None
        if self._producer_state is not None:
            self._follow_producers(segments, end_offset)
            stable = self._producer_state.first_unstable_offset
        files_end = end_offset
        in_memory = None
        if self.damage is None:
            in_memory = self._show_open_batch(staged, segments, files_end)
            end_offset = files_end if in_memory is None else in_memory.next_offset
        self._publish(
            segments=tuple(segments),
            in_memory=in_memory,
            truncated=end_offset if end_offset < before_end else None,
            first_unstable_offset=stable,
            log_start_offset=max(min(checkpoint.log_start_offset, files_end), self.log_start_offset,
                                 segments[0].base_offset),
            log_end_offset=end_offset,
            contiguous=checkpoint.is_contiguous and self.contiguous,
            replaced=replaced or in_memory is not shown,  # cursors find what they have not read by its offset
        )
        return before != self._seen()

    def _show_open_batch(self, content: bytes | None, segments: list[Segment], end_offset: int) -> Segment | None:
        """What is staged behind the segments, as one more; none where it is damaged, which is said once."""
        try:
            return self._open_batch_records.show(
                content, end_offset, leader_epoch=max(self._epochs.latest, segments[-1].state["last_leader_epoch"], 0),
                append_time=self.config["message.timestamp.type"] == "LogAppendTime",
                **self._segment_settings().as_arguments(),
            ) if segments and self.damage is None else None
        except CorruptDataError as error:
            if content is not None and not self.recovery_report.cut_bytes:
                self.recovery_report = self.recovery_report._replace(
                    path=open_batch_path(self.path), cut_offset=end_offset, cut_bytes=len(content), reason=error.reason
                )
            return None

    def _seen(self) -> tuple[int, int, int, int]:
        return self.log_start_offset, self.log_end_offset, len(self.segments), self.first_unstable_offset

    @property
    def size_bytes(self) -> int:
        """Bytes of all .log files."""
        return sum(segment.size_bytes for segment in self.segments)


def _end_of(log: ReadableLog, committed: bool) -> int:
    return log.last_stable_offset if committed else log.log_end_offset


def scan_logs(logs: Sequence[ReadableLog], bounds: list[tuple[int, int | None]], *, committed: bool = False) -> Scan:
    """Columns of several logs, one after another, as far as they go now."""
    from logstore.records.scan import Scan

    ends = [_end_of(log, committed) for log in logs]
    limits = [(first, last if end is None else min(end, last)) for (first, end), last in zip(bounds, ends, strict=True)]
    return Scan(logs, limits, committed=committed)


def read_logs(
    logs: Sequence[ReadableLog],
    bounds: list[tuple[int, int | None]],
    *,
    follow: bool = False,
    timeout: float | None = None,
    committed: bool = False,
) -> RecordReader:
    """Records of several logs, merged by timestamp, each in order of its offsets."""
    ends = [
        (_end_of(log, committed) if end is None and not follow else end)
        for log, (_, end) in zip(logs, bounds, strict=True)
    ]
    cursors = [
        LogCursor(log, first, end, committed=committed)
        for log, (first, _), end in zip(logs, bounds, ends, strict=True)
    ]
    if not follow:
        return RecordReader(cursors)
    if logs and logs[0].read_only:
        watch = watch_directories([log.path for log in logs], os.path.dirname(logs[0].path))
        for log in logs:
            log.refresh()
        wait = functools.partial(watch.follow, {log.path: log for log in logs}, timeout)
        return RecordReader(cursors, wait, watch.close)
    waiter = Waiter(logs)
    return RecordReader(cursors, lambda: waiter.wait(timeout), waiter.close)
