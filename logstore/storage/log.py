"""One partition in one directory: the log engine's Python side.

The hot path (append, read) is compiled (`logstore._native`); here are the steps taken once a batch or less: opening,
rolling, flushing, truncating, closing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

from logstore._native import log_appender
from logstore._native.log_appender import LogAppender, durability_level
from logstore._native.log_cursor import LogCursor
from logstore._native.record_batch import RecordBatch
from logstore._native.record_reader import RecordReader
from logstore._native.segment import Segment
from logstore.errors import (
    ClosedError,
    CorruptDataError,
    DiskFullError,
    InvalidRequestError,
    LogstoreError,
    OffsetOutOfRangeError,
    ReadOnlyError,
    StorageFailureError,
)
from logstore.model import Durability, RecoveryReport
from logstore.storage import layout
from logstore.storage.checkpoint import Checkpoint, CheckpointFile
from logstore.storage.config import TopicConfig
from logstore.storage.directory_lock import DirectoryLock
from logstore.storage.files import make_directory, refusals, sync_directory
from logstore.storage.flush_scheduler import FlushScheduler
from logstore.storage.leader_epochs import LeaderEpochs
from logstore.storage.positions import Position, resolve_position
from logstore.storage.recovery import (
    OpenedLog,
    SegmentSettings,
    interrupted_truncation,
    last_leader_epoch,
    list_segments,
    open_segments,
    remove_segment_files,
    write_indexes,
)
from logstore.storage.text_checkpoints import new_topic_id, read_topic_id, write_topic_id
from logstore.storage.truncation import before_truncation, truncate_segments
from logstore.storage.waiting import Waiter, watch_directories

__all__ = ["Log", "OffsetAndTimestamp"]

# Flushed bytes after which the recovery point on disk is moved: what a scan after a crash reads at most, besides
# what was not flushed.
CHECKPOINT_INTERVAL_BYTES = 4 << 20
INT64_MAX = 2**63 - 1


class OffsetAndTimestamp(NamedTuple):
    """Answer to a look-up by time."""

    offset: int
    timestamp: int


class Log(LogAppender):
    """One partition's log in one directory.

    Parameters
    ----------
    directory : str
        ``<data directory>/<topic>-<partition>``; created if missing, unless read-only.
    config : TopicConfig, optional
    durability : {"flushed", "appended", "buffered"}
        What an acknowledgement means where neither the call nor the topic says.
    read_only : bool
        Writes nothing, takes no lock, repairs nothing; follows another process that writes.
    lock : DirectoryLock, optional
        The data directory's lock, where the caller holds it; otherwise the log takes it.
    scheduler : FlushScheduler, optional
        Shared with other logs; otherwise the log has one of its own.
    topic_id : str, optional
        For a new log.
    known : Checkpoint, optional
        What Kafka's own checkpoints say, where there is none of ours.
    trust_checkpoint : bool
        False where another engine has written the directory since.
    clock : callable, optional
        Gives the time in ms; for tests.

    Raises
    ------
    DataDirLockedError
        Another writer has the directory.
    StorageFailureError
    InvalidRequestError
        The directory's name is no partition's.

    Notes
    -----
    All methods are thread-safe. A reader returned by `read` or `batches` belongs to one thread. Damage that forbids writing
    does not keep a log from opening: `damage` says what it is, appends raise it, and reads around it work.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        config: TopicConfig | None = None,
        *,
        durability: Durability = "flushed",
        read_only: bool = False,
        lock: DirectoryLock | None = None,
        scheduler: FlushScheduler | None = None,
        topic_id: str | None = None,
        known: Checkpoint | None = None,
        trust_checkpoint: bool = True,
        clock: Callable[[], int] | None = None,
    ):
        self.path = os.path.abspath(os.fspath(directory))
        place = layout.split_partition_directory_name(os.path.basename(self.path))
        if place is None:
            raise InvalidRequestError(f"{self.path}: a log's directory is named <topic>-<partition>, such as orders-0")
        self._identify(*place)
        self.read_only = read_only
        self.recovery_report = RecoveryReport()
        self.damage: CorruptDataError | None = None
        self._durability = durability
        self._clock = clock
        # Held over each fdatasync: those who wait for it find their records flushed when they get it. A plain lock,
        # since a signal handler may raise anywhere in a Condition.
        self._flush_lock = threading.Lock()
        self._new_names = False
        self._failure: StorageFailureError | None = None
        self._own_lock: DirectoryLock | None = None
        self._own_scheduler: FlushScheduler | None = None
        self.config = config or TopicConfig()
        self._checkpoint_file = CheckpointFile(os.path.join(self.path, layout.CHECKPOINT_FILE))
        self._checkpoint = Checkpoint()
        self._is_clean = False
        self._listed_ns = -1  # when the directory had changed last, at its last listing; a reader process's
        if read_only:
            self._open(known, trust_checkpoint=trust_checkpoint)
            return
        make_directory(os.path.dirname(self.path))
        if lock is None:
            lock = self._own_lock = DirectoryLock(os.path.dirname(self.path))
        if scheduler is None:
            scheduler = self._own_scheduler = FlushScheduler()
        self._scheduler = scheduler
        try:
            make_directory(self.path)
            try:
                self.topic_id = read_topic_id(self.path)
            except CorruptDataError as error:
                # The broker knows the id as well; no record depends on it.
                _logger().warning("%s It is written anew.", error)
                self.topic_id = None
            if self.topic_id is None:
                self.topic_id = topic_id or new_topic_id()
                write_topic_id(self.path, self.topic_id)
            self._open(known, trust_checkpoint=trust_checkpoint)
        except BaseException:
            self._let_go()
            raise
        _open_logs.add(self)

    # ---- opening ------------------------------------------------------------------------------------

    def _open(self, known: Checkpoint | None, *, trust_checkpoint: bool) -> None:
        stored = self._checkpoint_file.read() if trust_checkpoint else None
        checkpoint = stored or known
        writable = not self.read_only
        self._epochs = LeaderEpochs(self.path)
        with refusals(self.path, "list"):
            if self.read_only and not os.path.isdir(self.path):
                raise FileNotFoundError(2, "no such log")
        if writable and checkpoint is not None and (cut := interrupted_truncation(self.path)) is not None:
            # Before the files are cut: what they hold then must not look like a loss.
            checkpoint = before_truncation(checkpoint, self.path, *cut)
            self._checkpoint_file.replace(checkpoint)
        # Where no offsets are missing, a gap is damage: known before the segments are looked at.
        self._publish(contiguous=stored.is_contiguous if stored is not None else (
            checkpoint is None and not list_segments(self.path)
        ))
        opened = open_segments(self.path, checkpoint, self._segment_settings(), writable=writable)
        self.damage = opened.damage
        self.recovery_report = opened.report
        self._checkpoint = checkpoint or Checkpoint()
        if opened.report.cut_bytes:
            _logger().warning(
                "%s: cut %d bytes of an unfinished write (%s); the log ends at offset %d%s",
                opened.report.path, opened.report.cut_bytes, opened.report.reason, opened.log_end_offset,
                f", the bytes are kept in {opened.report.kept_as}" if opened.report.kept_as else "",
            )
        if self.damage is not None:
            _logger().error("%s", self.damage)
        if writable and self.damage is None:
            if not opened.segments:
                opened.segments.append(self._create_segment(opened.log_end_offset))
            has_changed = self._epochs.truncate_from_end(max(opened.log_end_offset, 1))
            if self._epochs.latest < 0 and opened.leader_epoch < 0:
                # The file is lost or names no record that is left, and nothing was scanned: epochs must not fall, so
                # the batches are asked.
                opened.leader_epoch = last_leader_epoch(opened.segments, self._segment_settings())
            if self._epochs.latest < max(opened.leader_epoch, 0):
                # The leader of an embedded log is always this process: one epoch, or the one it takes over.
                self._epochs.assign(max(opened.leader_epoch, 0), opened.segments[0].base_offset)
                has_changed = True
            if has_changed:
                self._epochs.write()
            if self._checkpoint.sync_failed:
                self._rewrite_unflushed(opened)
        first = opened.segments[0].base_offset if opened.segments else opened.log_end_offset
        contiguous = stored.is_contiguous if stored is not None else (
            checkpoint is None and not opened.report.scanned_bytes
        )
        self._checkpoint = self._checkpoint._replace(is_contiguous=contiguous)
        self._publish(
            segments=tuple(opened.segments),
            log_start_offset=min(max(self._checkpoint.log_start_offset, first), opened.log_end_offset),
            log_end_offset=opened.log_end_offset,
            contiguous=contiguous,
        )
        self._set_flushed_offset(opened.flushed_offset)
        if writable:
            self._apply_config()
        if writable and self.damage is None:
            self._is_clean = self._checkpoint.is_clean
            self._activate(
                opened.segments[-1], opened.log_end_offset, opened.flushed_offset, max(self._epochs.latest, 0),
                stored is None or stored.is_clean,
            )
            self._set_write_state(log_appender.STATE_WRITABLE)
            if opened.flushed_offset < opened.log_end_offset and self.config["flush.ms"] != INT64_MAX:
                self._flush_was_scheduled(True)
                self._schedule_flush()

    def _segment_settings(self) -> SegmentSettings:
        return SegmentSettings(
            self.config["index.interval.bytes"], self.config["segment.index.bytes"], self.contiguous
        )

    def _apply_config(self) -> None:
        config = self.config
        jitter = min(config["segment.jitter.ms"], config["segment.ms"])
        self._configure(
            level=durability_level(config["logstore.durability"] or self._durability),
            codec=config.codec,
            codec_level=config.codec_level,
            segment_bytes=config["segment.bytes"],
            segment_ms=config.roll_ms - (int.from_bytes(os.urandom(8), "big") % jitter if jitter else 0),
            batch_bytes=config["logstore.batch.bytes"],
            message_bytes_max=config["max.message.bytes"],
            timestamp_before_max_ms=config["message.timestamp.before.max.ms"],
            timestamp_after_max_ms=config["message.timestamp.after.max.ms"],
            flush_messages=config["flush.messages"],
            flush_by_time=config["flush.ms"] != INT64_MAX,
            append_time=config["message.timestamp.type"] == "LogAppendTime",
            keys_required=config.is_compacted,
            clock=self._clock,
        )

    def reconfigure(self, config: TopicConfig) -> None:
        """Takes other settings over; segment and index sizes count from the next segment on."""
        self.config = config
        if not self.read_only:
            self._apply_config()

    def _rewrite_unflushed(self, opened: OpenedLog) -> None:
        """After a failed fsync the page cache may show what the disk does not have: writes it again, and syncs."""
        for segment in opened.segments:
            if segment.base_offset < self._checkpoint.segment_base_offset:
                continue
            start = self._checkpoint.position if segment.base_offset == self._checkpoint.segment_base_offset else 0
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
        sync_directory(self.path)
        opened.flushed_offset = opened.log_end_offset
        self._checkpoint = self._state_at(
            opened.segments[-1].base_offset, opened.segments[-1].size_bytes, opened.log_end_offset
        )._replace(is_contiguous=self._checkpoint.is_contiguous, log_start_offset=self._checkpoint.log_start_offset)
        self._checkpoint_file.write(self._checkpoint, sync=True)

    # ---- steps the appender asks for; its lock is held -------------------------------------------------

    def _create_segment(self, base_offset: int) -> Segment:
        settings = self._segment_settings()
        for suffix in (".log", ".index", ".timeindex", ".txnindex"):
            leftover = os.path.join(self.path, layout.segment_file_name(base_offset, suffix))
            # Of a roll that failed half-way: a .log here that holds data would have been opened.
            if os.path.exists(leftover) and (suffix != ".log" or os.path.getsize(leftover) == 0):
                with refusals(leftover, "unlink"):
                    os.unlink(leftover)
        path = os.path.join(self.path, layout.segment_file_name(base_offset))
        segment = Segment.create(path, base_offset, **settings.as_arguments())
        self._new_names = True
        return segment

    def _roll(self, base_offset: int) -> None:
        old = self.segments[-1]
        if old.size_bytes == 0 and old.base_offset == base_offset:
            return
        new = self._create_segment(base_offset)
        old.seal(base_offset)
        with contextlib.suppress(StorageFailureError):
            write_indexes(old, final=True)
        self._start_segment((*self._without_old_descriptors(), new), new)
        if self.config["segment.jitter.ms"]:
            self._scheduler.schedule(0, self._apply_config)
        self._scheduler.schedule(0, self._flush_in_background)

    def _without_old_descriptors(self) -> tuple[Segment, ...]:
        """The segments, with those written in this session and covered by the checkpoint as ones that open when read.

        Readers that stand in one of them keep what they have.
        """
        segments = list(self.segments)
        covered = self._checkpoint.segment_base_offset
        for index in range(len(segments) - 2, -1, -1):
            segment, following = segments[index], segments[index + 1]
            if not segment.writable:
                break
            if following.base_offset <= covered:
                segments[index] = Segment.sealed(
                    segment.path, segment.base_offset, following.base_offset, **self._segment_settings().as_arguments()
                )
        return tuple(segments)

    def _writing_begins(self) -> None:
        """The checkpoint says that the log was closed in good order: take that back before the first write."""
        self._is_clean = False
        self._checkpoint = self._checkpoint._replace(is_clean=False)
        self._checkpoint_file.write(self._checkpoint, sync=True)

    def _write_failed(self, reason: str) -> None:
        _logger().error("%s-%d: %s failed; the log is closed for writing until it is opened again",
                        self.topic, self.partition, reason)
        self._note_failure()

    def _note_failure(self) -> None:
        """Leaves a mark for the next open. The disk may refuse that, too."""
        self._checkpoint = self._checkpoint._replace(sync_failed=True, is_clean=False)
        with contextlib.suppress(StorageFailureError):
            self._checkpoint_file.write(self._checkpoint)

    def _gap_appended(self) -> None:
        self.segments[-1].allow_gaps()
        self._checkpoint = self._checkpoint._replace(is_contiguous=False)
        self._checkpoint_file.replace(self._checkpoint)

    def _epoch_started(self, epoch: int, start_offset: int) -> None:
        if self._epochs.assign(epoch, start_offset):
            self._epochs.write()

    def _schedule_hand_over(self) -> None:
        self._scheduler.schedule(self.config["logstore.linger.ms"], self._hand_over_in_background)

    def _schedule_flush(self) -> None:
        self._scheduler.schedule(self.config["flush.ms"], self._flush_in_background)

    def _hand_over_in_background(self) -> None:
        if self.is_writable:
            try:
                self._locked(_nothing)
                if self._messages_are_due():
                    self._flush_until(self.log_end_offset)
            except LogstoreError:
                if self.is_writable:  # a full disk: the records stay in the open batch, and are tried again
                    self._schedule_hand_over()
                raise

    def _flush_in_background(self) -> None:
        self._flush_was_scheduled(False)
        if self.is_writable:
            self._flush_until(self.log_end_offset)

    def _not_writable(self) -> LogstoreError:
        if not self.is_open:
            return ClosedError(
                f"the log of {self.topic}-{self.partition} is closed, or belongs to the parent process; open it again"
            )
        if self._failure is not None:
            failure = StorageFailureError(
                self._failure.path, self._failure.operation, self._failure.errno or 0,
                "The log was closed for writing then; reads go on. Open the broker again once the disk is sound.",
            )
            failure.__cause__ = self._failure
            return failure
        if self.damage is not None:
            return CorruptDataError(
                self.damage.path, self.damage.position, self.damage.reason, self.damage.expected, self.damage.actual,
                "Writing is refused, so that nothing is lost; reads around it work.",
            )
        if not self.read_only:
            return StorageFailureError(
                self.path, "an earlier write", 5, "The log was closed for writing then; open the broker again."
            )
        return ReadOnlyError(f"{self.path} is open for reading only; open the broker without read_only=True")

    # ---- flushing -------------------------------------------------------------------------------------

    def _flush_until(self, offset: int) -> None:
        """Returns once all records below the offset are on disk. Callers that wait share one fdatasync."""
        with self._flush_lock:
            if self.flushed_offset >= offset:
                return
            if self._failure is not None or not self.is_open:
                self._raise_not_flushed()
            self._sync()

    def _fail(self, error: StorageFailureError) -> None:
        """Unknown what reached the disk, and a retry would prove nothing: the log takes no more."""
        self._failure = error
        self._set_write_state(log_appender.STATE_FAILED)
        self._note_failure()

    def _raise_not_flushed(self) -> None:
        raise self._not_writable() if self._failure is not None else StorageFailureError(
            self.path, "flush", 9, "The log was closed meanwhile."
        )

    def _sync(self) -> None:
        """One fdatasync for all that is in the log now (log-format, 4.3). The flush lock is held."""
        # Size before end offset before segments: each covers what was read before it.
        active = self.segments[-1]
        position = active.size_bytes
        end_offset = self.log_end_offset
        segments = self.segments
        try:
            self._sync_segments(segments)
        except StorageFailureError as error:
            # Too many open files, say, is no failed fsync: the names are synced when they can be.
            if error.operation != "open the directory":
                self._fail(error)
            raise
        self._set_flushed_offset(end_offset)
        saved = self._checkpoint
        if active.base_offset != saved.segment_base_offset or position - saved.position >= CHECKPOINT_INTERVAL_BYTES:
            with contextlib.suppress(StorageFailureError):  # a hint: without it the next open reads more
                for segment in reversed(segments[:-1]):
                    if segment.base_offset < saved.segment_base_offset:
                        break
                    if segment.writable:
                        write_indexes(segment, final=True, sync=True)
                write_indexes(active, sync=True)
                self._save_checkpoint(self._state_at(active.base_offset, position, end_offset))

    def _sync_segments(self, segments: tuple[Segment, ...]) -> None:
        first = len(segments) - 1
        while first > 0 and segments[first].base_offset > self.flushed_offset:
            first -= 1
        for segment in segments[first:]:
            segment.sync()
        if self._new_names:
            # First taken back, since a roll may set it again meanwhile.
            self._new_names = False
            try:
                sync_directory(self.path)
            except BaseException:
                self._new_names = True
                raise

    def _state_at(self, base_offset: int, position: int, end_offset: int) -> Checkpoint:
        return Checkpoint(
            log_start_offset=self.log_start_offset,
            flushed_offset=end_offset,
            segment_base_offset=base_offset,
            position=position,
            log_end_offset=end_offset,
            is_contiguous=self._checkpoint.is_contiguous,
        )

    def _save_checkpoint(self, state: Checkpoint, *, sync: bool = False) -> None:
        self._checkpoint_file.write(state, sync=sync)
        self._checkpoint = state

    def flush(self, durability: Durability = "flushed") -> None:
        """Returns once everything appended so far is at least at this level.

        Parameters
        ----------
        durability : {"flushed", "appended"}

        Raises
        ------
        StorageFailureError
            The log is closed for writing: what was acknowledged as ``flushed`` is on disk, the rest is unknown.
        DiskFullError
            Records in the open batch could not be handed over; they stay there.
        """
        level = durability_level(durability)
        if level == 0:
            return
        if self.read_only or self.damage is not None:
            return
        self._locked(_nothing)
        if not self.is_writable:
            raise self._not_writable()
        if level == 2 or self._messages_are_due():
            self._flush_until(self.log_end_offset)

    def _messages_are_due(self) -> bool:
        """Whether ``flush.messages`` asks for a flush of what was handed over."""
        return bool(self.log_end_offset - self.flushed_offset >= self.config["flush.messages"])

    def roll(self) -> None:
        """Starts a new segment, unless the active one is empty."""
        if not self.is_writable:
            raise self._not_writable()
        self._locked(lambda: self._roll(self.log_end_offset))

    # ---- whole batches ----------------------------------------------------------------------------------

    def append_as_leader(self, batch: bytes | RecordBatch, *, durability: Durability | None = None) -> range:
        """Appends one whole batch from a client; the log assigns its offsets.

        Parameters
        ----------
        batch : bytes-like or RecordBatch
            One batch of magic 2 with base offset 0.
        durability : {"flushed", "appended"}, optional

        Returns
        -------
        range
            Its offsets.

        Raises
        ------
        CorruptDataError, InvalidRecordError, RecordTooLargeError
            The batch breaks a rule (log-format, 1.11); nothing was appended.
        """
        from logstore.storage.foreign_batches import checked_for_leader

        stamped = checked_for_leader(batch, self.config, self._now_ms(), self.topic)
        first, last = self._append_stamped(stamped, True, self._batch_level(durability))
        return range(first, last + 1)

    def append_as_follower(self, batches: bytes | RecordBatch, *, durability: Durability | None = None) -> range:
        """Appends whole batches of another log as they are; their offsets are verified, not assigned.

        Parameters
        ----------
        batches : bytes-like or RecordBatch
            One or several batches, end to end. The first one's base offset must be at or past the log end offset.

        Returns
        -------
        range
            From the first batch's base offset to the last one's last offset.

        Raises
        ------
        CorruptDataError, OffsetOutOfRangeError
            Batches before the one that is refused have been appended.
        """
        from logstore.storage.foreign_batches import split_for_follower

        level = self._batch_level(durability)
        first = end = -1
        for batch in split_for_follower(batches):
            base_offset, last_offset = self._append_stamped(batch, False, min(level, 1))
            first = base_offset if first < 0 else first
            end = last_offset + 1
        if level == 2:
            self._flush_until(end)
        return range(first, end)

    def _batch_level(self, durability: Durability | None) -> int:
        return durability_level(durability or self.config["logstore.durability"] or self._durability)

    def _now_ms(self) -> int:
        return time.time_ns() // 1_000_000 if self._clock is None else self._clock()

    # ---- reading ----------------------------------------------------------------------------------------

    def bounds(self, start: Position = "earliest", stop: Position | None = None) -> tuple[int, int | None]:
        """Offsets of a start and a stop position, ``(first, end)``; an end of None means none.

        Raises
        ------
        OffsetOutOfRangeError
            An offset before the log start offset or past the log end offset.
        InvalidRequestError
        """
        if self.read_only:
            self.refresh()
        first = self._offset_of(start, "start")
        end = None if stop is None else self._offset_of(stop, "stop")
        if first > self.log_end_offset or first < self.log_start_offset:
            raise OffsetOutOfRangeError(
                f"offset {first} is outside of {self.topic}-{self.partition}, which holds offsets "
                f"{self.log_start_offset} to {self.log_end_offset} (exclusive)",
                offset=first, log_start_offset=self.log_start_offset, log_end_offset=self.log_end_offset,
            )
        return first, end

    def _offset_of(self, position: Position, what: str) -> int:
        if type(position) is int and position >= 0:
            return position
        kind, number = resolve_position(position, what, self._now_ms())
        if kind == "earliest":
            return int(self.log_start_offset)
        if kind == "latest":
            return int(self.log_end_offset)
        found = self.offset_for_timestamp(number)
        return int(self.log_end_offset) if found is None else found.offset

    def cursor(self, start_offset: int, stop_offset: int | None = None) -> LogCursor:
        """A cursor over whole batches; the first one may begin before the start offset. One thread at a time."""
        return LogCursor(self, start_offset, stop_offset)

    def read(
        self,
        start: Position = "earliest",
        *,
        stop: Position | None = None,
        follow: bool = False,
        timeout: float | None = None,
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
        return read_logs([self], [self.bounds(start, stop)], follow=follow, timeout=timeout)

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

    def scan(self, start: Position = "earliest", *, stop: Position | None = None) -> Any:
        """Reads columns; see `logstore.Topic.scan`."""
        from logstore.records.scan import Scan

        first, end = self.bounds(start, stop)
        return Scan([self], [(first, self.log_end_offset if end is None else min(end, self.log_end_offset))])

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
        log_start_offset = self.log_start_offset
        for segment in self.segments:
            if segment.max_timestamp < timestamp:
                continue
            from_offset = max(log_start_offset, segment.base_offset)
            while (found := segment.find_timestamp(timestamp, from_offset)) is not None:
                _, _, base_offset, last_offset = found
                if base_offset >= self.log_end_offset:
                    return None
                batch = LogCursor(self, max(base_offset, log_start_offset), last_offset + 1).next_batch()
                if batch is not None and (hit := batch.find_timestamp(timestamp, log_start_offset)) is not None:
                    return OffsetAndTimestamp(*hit)
                from_offset = last_offset + 1
        return None

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

    def _list_again(self) -> list[int] | None:
        """Base offsets of the segments; None where the directory has not changed since they were listed."""
        with refusals(self.path, "list"):
            changed_ns = os.stat(self.path).st_mtime_ns
        if changed_ns == self._listed_ns:
            return None
        bases = list_segments(self.path)
        # Within a tick of the file system's clock another change may come that leaves the same time.
        settled = time.time_ns() - changed_ns > 1_000_000_000
        self._listed_ns = changed_ns if settled else -1
        return bases

    def _refresh(self) -> bool:
        before = (self.log_start_offset, self.log_end_offset, len(self.segments))
        bases = self._list_again()
        if bases is None:
            segments, bases = list(self.segments), []
        else:
            known = set(bases)
            segments = [segment for segment in self.segments if segment.base_offset in known]
        if not segments and not bases:
            return False
        if not segments or (segments[-1].base_offset != self.segments[-1].base_offset):
            self._open(None, trust_checkpoint=True)
            return before != (self.log_start_offset, self.log_end_offset, len(self.segments))
        if self.contiguous and not (self._checkpoint_file.read() or self._checkpoint).is_contiguous:
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
            for base in [base for base in bases if base > segments[-1].base_offset]:
                # The old one first, to its end: it is complete once the next one exists.
                segments[-1].catch_up()
                segments[-1].seal(base)
                path = os.path.join(self.path, layout.segment_file_name(base))
                segments.append(
                    Segment.reopen(path, base, trusted_bytes=0, trusted_offset=base, writable=False,
                                   **self._segment_settings().as_arguments())[0]
                )
        end_offset = self.log_end_offset if self.damage is not None else max(
            segments[-1].next_offset, self.log_end_offset)
        checkpoint = self._checkpoint_file.read() or self._checkpoint
        self._publish(
            segments=tuple(segments),
            log_start_offset=max(min(checkpoint.log_start_offset, end_offset), self.log_start_offset,
                                 segments[0].base_offset),
            log_end_offset=end_offset,
            contiguous=checkpoint.is_contiguous and self.contiguous,
        )
        return before != (self.log_start_offset, self.log_end_offset, len(self.segments))

    @property
    def size_bytes(self) -> int:
        """Bytes of all .log files."""
        return sum(segment.size_bytes for segment in self.segments)

    # ---- taking records away -------------------------------------------------------------------------------

    def truncate_to(self, offset: int) -> None:
        """Removes all records from an offset on; the log ends there, durably.

        Parameters
        ----------
        offset : int
            At or past the log end offset nothing changes; below the log start offset everything goes.

        Raises
        ------
        InvalidRequestError
            Negative.
        StorageFailureError
            Nothing has changed; or, where the log was closed for writing, opening it again finishes the truncation.

        Notes
        -----
        A reader past the new end gets `LogTruncatedError`. Source: log-format, 4.7; unlike there, records of the same
        batch below the offset are kept.
        """
        if offset < 0:
            raise InvalidRequestError(f"an offset is 0 or more, not {offset}")
        if not self.is_writable:
            raise self._not_writable()
        with self._flush_lock:
            self._locked(self._truncate, offset)

    def _truncate(self, offset: int) -> None:
        if self._epochs.truncate_from_end(offset):
            self._epochs.write()
        if offset >= self.log_end_offset:
            return
        truncations = self.truncation_count
        # The checkpoint is about to say where the log ends: all that stays must be on disk by then.
        self._sync()
        try:
            opened, checkpoint = truncate_segments(self, offset, self._checkpoint, self._segment_settings())
            if opened.damage is None and not opened.segments:
                opened.segments.append(self._create_segment(offset))
                self._epochs.clear()
            if opened.damage is None and self._epochs.latest < 0:
                # Batches below the log start offset may still be there.
                epoch = max(last_leader_epoch(opened.segments, self._segment_settings()), 0)
                self._epochs.assign(epoch, opened.segments[0].base_offset)
                self._epochs.write()
        except BaseException as error:
            has_begun = self.truncation_count != truncations or interrupted_truncation(self.path) is not None
            failure = error if isinstance(error, StorageFailureError) else None
            if has_begun or (failure is not None and failure.operation == "sync"):
                self._fail(failure or StorageFailureError(self.path, "truncate", errno.EINTR))
            raise
        if opened.damage is not None:
            self.damage = opened.damage
            self._set_write_state(log_appender.STATE_READ_ONLY)
            raise opened.damage
        self._checkpoint = checkpoint
        if not checkpoint.is_contiguous:
            opened.segments[-1].allow_gaps()
        self._publish(
            segments=tuple(opened.segments), log_start_offset=checkpoint.log_start_offset, log_end_offset=offset,
            contiguous=checkpoint.is_contiguous,
        )
        self._activate(opened.segments[-1], offset, min(self.flushed_offset, offset), max(self._epochs.latest, 0), False)
        with contextlib.suppress(StorageFailureError):  # what stays is checked when used, and only costs time
            write_indexes(opened.segments[-1], final=True, sync=True)
        self._new_names = True
        self._sync()
        active = self.segments[-1]
        self._save_checkpoint(self._state_at(active.base_offset, active.size_bytes, offset))

    def advance_log_start_offset(self, offset: int) -> None:
        """Removes all records before an offset, durably; segments that hold nothing else are deleted.

        Parameters
        ----------
        offset : int
            From the log start offset to the log end offset; below the start nothing changes.

        Raises
        ------
        OffsetOutOfRangeError
            Past the log end offset.
        StorageFailureError

        Notes
        -----
        A reader before the offset gets `OffsetOutOfRangeError`. Source: log-format, 4.6.
        """
        if not self.is_writable:
            raise self._not_writable()
        with self._flush_lock:
            self._locked(self._advance_start, offset)

    def _advance_start(self, offset: int) -> None:
        if offset <= self.log_start_offset:
            return
        if offset > self.log_end_offset:
            raise OffsetOutOfRangeError(
                f"{self.topic}-{self.partition} ends at offset {self.log_end_offset}; its start can't move to {offset}",
                offset=offset, log_start_offset=self.log_start_offset, log_end_offset=self.log_end_offset,
            )
        # What is deleted must not be needed to know where the log ends.
        self._sync()
        active = self.segments[-1]
        state = self._state_at(active.base_offset, active.size_bytes, self.log_end_offset)
        self._checkpoint = state._replace(log_start_offset=offset)
        self._checkpoint_file.replace(self._checkpoint)
        kept = [
            segment for index, segment in enumerate(self.segments)
            if index == len(self.segments) - 1 or self.segments[index + 1].base_offset > offset
        ]
        gone = [segment.base_offset for segment in self.segments if segment not in kept]
        self._publish(log_start_offset=offset)
        self._publish(segments=tuple(kept))
        if self._epochs.truncate_from_start(offset):
            self._epochs.write()
        for base_offset in gone:
            remove_segment_files(self.path, base_offset)
        if gone:
            sync_directory(self.path)

    # ---- the end ------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Hands over, flushes, writes indexes and checkpoint, and closes. Idempotent.

        Records, batches and arrays handed out stay valid; readers get `ClosedError`.

        Raises
        ------
        StorageFailureError
            Something could not be flushed. The log is closed all the same, and recovers when it is opened again.
        """
        if not self.is_open:
            return
        try:
            if self.is_writable:
                self._close_in_good_order()
        finally:
            self._set_write_state(log_appender.STATE_CLOSED)
            self._publish(is_open=False)
            self._let_go()
            _open_logs.discard(self)

    def _close_in_good_order(self) -> None:
        self._locked(_nothing)
        self._flush_until(self.log_end_offset)
        with self._flush_lock:
            self._locked(self._write_final_state)

    def _write_final_state(self) -> None:
        if self._failure is not None:
            return
        for segment in self.segments[:-1]:
            if segment.doubtful_index:  # rebuilt in memory when it was read: the next open need not do it again
                with contextlib.suppress(StorageFailureError):
                    write_indexes(segment, final=True, sync=True)
        active = self.segments[-1]
        state = self._state_at(active.base_offset, active.size_bytes, self.log_end_offset)._replace(is_clean=True)
        if self._is_clean and state == self._checkpoint and not active.doubtful_index:
            return
        if self._new_names:
            self._sync()
        active.seal(INT64_MAX)
        try:
            write_indexes(active, final=True, sync=True)
            self._save_checkpoint(state, sync=True)
        except DiskFullError as error:
            # Every record is flushed. Closing works on a full disk; the next open reads more.
            _logger().warning("%s", error)
        self._set_write_state(log_appender.STATE_CLOSED)

    def _let_go(self) -> None:
        if self._own_scheduler is not None:
            self._own_scheduler.close()
        if self._own_lock is not None:
            self._own_lock.release()

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"Log({self.path!r}, log_start_offset={self.log_start_offset}, log_end_offset={self.log_end_offset}, "
            f"flushed_offset={self.flushed_offset})"
        )

    def _forked(self) -> None:
        """In a forked child: the files belong to the parent."""
        self._set_write_state(log_appender.STATE_FORKED)
        self._flush_lock = threading.Lock()
        self._publish(is_open=False)
        if self._own_scheduler is not None:
            self._own_scheduler.forget()
        if self._own_lock is not None:
            self._own_lock.forget()


def _nothing() -> None:
    return


def _logger() -> Any:
    import logging

    return logging.getLogger("logstore.storage")


def read_logs(
    logs: list[Log],
    bounds: list[tuple[int, int | None]],
    *,
    follow: bool = False,
    timeout: float | None = None,
) -> RecordReader:
    """Records of several logs, merged by timestamp, each in order of its offsets."""
    ends = [
        (log.log_end_offset if end is None and not follow else end) for log, (_, end) in zip(logs, bounds, strict=True)
    ]
    cursors = [
        LogCursor(log, first, end) for log, (first, _), end in zip(logs, bounds, ends, strict=True)
    ]
    if not follow:
        return RecordReader(cursors)
    if logs and logs[0].read_only:
        watch = watch_directories([log.path for log in logs])
        for log in logs:
            log.refresh()

        def wait_for_files() -> bool:
            deadline = None if timeout is None else time.monotonic() + timeout
            while True:
                if any([log.refresh() for log in logs]):
                    return True
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                watch.wait(left)

        return RecordReader(cursors, wait_for_files, watch.close)
    waiter = Waiter(logs)
    return RecordReader(cursors, lambda: waiter.wait(timeout), waiter.close)


_open_logs: weakref.WeakSet[Log] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for log in list(_open_logs):
        log._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
