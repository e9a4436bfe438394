"""One partition in one directory: the log engine's Python side.

The hot path (append, read) is compiled (`logstore._native`); here are the steps taken once a batch or less: opening,
truncating, closing. `log_rolling`, `log_flushing`, `log_reading` and `log_producers` have the rest.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from logstore._native import log_writer
from logstore._native.append_arguments import durability_level
from logstore._native.record_batch import RecordBatch
from logstore.errors import (
    CorruptDataError,
    DiskFullError,
    InvalidRequestError,
    StorageFailureError,
)
from logstore.model import Durability, RecoveryReport
from logstore.storage import layout
from logstore.storage.cache_mark import boot_id
from logstore.storage.checkpoint import Checkpoint, CheckpointFile
from logstore.storage.cleaner_checkpoint import lower_cleaner_offset
from logstore.storage.config import TopicConfig
from logstore.storage.directory_lock import DirectoryLock
from logstore.storage.files import make_directory, refusals, sync_directory
from logstore.storage.flush_scheduler import FlushScheduler
from logstore.storage.interrupted_swaps import visible_segments
from logstore.storage.leader_epochs import LeaderEpochs
from logstore.storage.log_flushing import storage_logger
from logstore.storage.log_rolling import RolledLog
from logstore.storage.open_batch import OpenBatchRecords, open_batch_path, restore_open_batch
from logstore.storage.recovery import (
    OpenedLog,
    interrupted_truncation,
    last_leader_epoch,
    list_segments,
    open_segments,
    rewrite_unflushed,
    write_indexes,
)
from logstore.storage.retention import RetentionPlan
from logstore.storage.segment_deletion import (
    DeletedFiles,
    apply_retention,
    delete_before,
    remove_below_start,
)
from logstore.storage.segment_digests import SegmentDigests
from logstore.storage.text_checkpoints import new_topic_id, read_topic_id, write_topic_id
from logstore.storage.truncation import before_truncation, truncate_segments

if TYPE_CHECKING:
    from logstore.storage.compaction import CompactionProgress, CompactionReport
    from logstore.storage.compaction_plan import CompactionPlan
    from logstore.storage.erasure import ErasureReport

__all__ = ["Log"]

INT64_MAX = 2**63 - 1


class Log(RolledLog):
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
    deletion_scheduler : FlushScheduler, optional
        Where deleted files are unlinked, which may take long; otherwise the same.
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
    All methods are thread-safe. A reader returned by `read` or `cursor` belongs to one thread. Damage that forbids writing
    does not keep a log from opening: `damage` says what it is, appends raise it, and reads around it work.
    """

    # What most logs never change stands here: with 30 attributes of its own or fewer, an instance takes a third of it.
    recovery_report: RecoveryReport = RecoveryReport()
    damage: CorruptDataError | None = None
    _own_lock: DirectoryLock | None = None
    _own_scheduler: FlushScheduler | None = None

    def __init__(
        self,
        directory: str | os.PathLike[str],
        config: TopicConfig | None = None,
        *,
        durability: Durability = "flushed",
        read_only: bool = False,
        lock: DirectoryLock | None = None,
        scheduler: FlushScheduler | None = None,
        deletion_scheduler: FlushScheduler | None = None,
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
        self._durability = durability
        self._clock = clock
        self._compaction_lock = threading.Lock()  # taken before the flush lock; one compaction or erasure at a time
        self.config = config or TopicConfig()
        self._checkpoint_file = CheckpointFile(os.path.join(self.path, layout.CHECKPOINT_FILE))
        self._checkpoint = Checkpoint()
        self._digests = SegmentDigests(self.path)
        self._pending_snapshots = []
        self._files = {}
        if read_only:
            self._open_batch_records = OpenBatchRecords(self.path, trust=trust_checkpoint)
            self._open(known, trust_checkpoint=trust_checkpoint)
            return
        make_directory(os.path.dirname(self.path))
        if lock is None:
            lock = self._own_lock = DirectoryLock(os.path.dirname(self.path))
        if scheduler is None:
            scheduler = self._own_scheduler = FlushScheduler()
        self._scheduler = scheduler
        self._deleted_files = DeletedFiles(deletion_scheduler or scheduler)
        try:
            make_directory(self.path)
            try:
                self.topic_id = read_topic_id(self.path)
            except CorruptDataError as error:
                # The broker knows the id as well; no record depends on it.
                storage_logger().warning("%s It is written anew.", error)
                self.topic_id = None
            if self.topic_id is None:
                self.topic_id = topic_id or new_topic_id()
                write_topic_id(self.path, self.topic_id)
            if (readers := lock.waiting_readers()) is not None:
                self._signal_by(readers, self.path)
            self._open(known, trust_checkpoint=trust_checkpoint)
        except BaseException:
            self._let_go()
            raise
        _open_logs.add(self)

    # ---- opening ------------------------------------------------------------------------------------

    def _open(self, known: Checkpoint | None, *, trust_checkpoint: bool) -> None:
        if writable := not self.read_only:
            _finish_repair(self.path)
        stored = self._checkpoint_file.read() if trust_checkpoint else None
        checkpoint = stored or known
        self._epochs = LeaderEpochs(self.path)
        with refusals(self.path, "list"):
            if self.read_only and not os.path.isdir(self.path):
                raise FileNotFoundError(2, "no such log")
        staged = None
        if self.read_only:
            self._may_catch_up(False)
            staged = self._open_batch_records.look()
            self._note_files(visible_segments(self.path))  # first: what is replaced from here on is found out later
        if writable and checkpoint is not None and (cut := interrupted_truncation(self.path)) is not None:
            # Before the files are cut: what they hold then must not look like a loss.
            checkpoint = before_truncation(checkpoint, self.path, *cut)
            self._checkpoint_file.replace(checkpoint)
        if writable and not trust_checkpoint:
            self._digests.forget_all()
        # Where no offsets are missing, a gap is damage: known before the segments are looked at.
        self._publish(contiguous=stored.is_contiguous if stored is not None else (
            checkpoint is None and not list_segments(self.path)
        ))
        opened = open_segments(
            self.path, checkpoint, self._segment_settings(), writable=writable,
            digests=self._digests if trust_checkpoint else None, mark=self._checkpoint_file.mark,
        )
        if writable and opened.mark is None:
            self._checkpoint_file.forget_mark()
        if writable:
            self._deleted_files.add(opened.deleted, 0)
        self.damage = opened.damage
        self.recovery_report = opened.report
        self._checkpoint = checkpoint or Checkpoint()
        if opened.report.cut_bytes:
            storage_logger().warning(
                "%s: cut %d bytes of an unfinished write (%s); the log ends at offset %d%s",
                opened.report.path, opened.report.cut_bytes, opened.report.reason, opened.log_end_offset,
                f", the bytes are kept in {opened.report.kept_as}" if opened.report.kept_as else "",
            )
        if self.damage is not None:
            storage_logger().error("%s", self.damage)
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
                rewrite_unflushed(opened.segments, self._checkpoint)
                sync_directory(self.path)
                opened.flushed_offset = opened.log_end_offset
                self._checkpoint = self._checkpoint._replace(
                    flushed_offset=opened.log_end_offset, segment_base_offset=opened.segments[-1].base_offset,
                    position=opened.segments[-1].size_bytes, log_end_offset=opened.log_end_offset, is_clean=False,
                    sync_failed=False, has_producers=True, has_transactions=True,  # what was scanned may have them
                )
                self._checkpoint_file.write(self._checkpoint, sync=True)
            self._new_names |= opened.is_cut
            opened.segments = remove_below_start(self, opened.segments, self._checkpoint.log_start_offset)
        first = opened.segments[0].base_offset if opened.segments else opened.log_end_offset
        contiguous = stored.is_contiguous if stored is not None else (
            checkpoint is None and not opened.report.scanned_bytes
        )
        self._checkpoint = self._checkpoint._replace(is_contiguous=contiguous)
        log_start_offset = min(max(self._checkpoint.log_start_offset, first), opened.log_end_offset)
        spared = opened.mark
        self._load_producers_of(
            opened, log_start_offset,
            stored if stored is None or spared is None or spared.has_producers
            else stored._replace(flushed_offset=spared.next_offset),
        )
        if opened.segments:
            opened.segments[-1].share_descriptor(
                is_synced=self._checkpoint.is_clean and opened.flushed_offset >= opened.log_end_offset and not opened.is_cut
            )
        shown = self._show_open_batch(staged, opened.segments, opened.log_end_offset) if self.read_only else None
        self._publish(
            segments=tuple(opened.segments),
            in_memory=shown,
            log_start_offset=log_start_offset,
            log_end_offset=opened.log_end_offset if shown is None else shown.next_offset,
            contiguous=contiguous,
            first_unstable_offset=self._producer_state.first_unstable_offset if self._producer_state else None,
        )
        if self.read_only:
            self._may_catch_up(self.damage is None and self._producer_state is None)
        self._set_flushed_offset(opened.flushed_offset)
        if writable:
            if (run := boot_id()) is not None:
                self._stage_in(os.fsencode(open_batch_path(self.path)), str(self.topic_id).encode(), run)
            self._apply_config()
        if writable and self.damage is None:
            self._is_clean = self._checkpoint.is_clean
            self._index_lags = opened.segments[-1].base_offset != self._checkpoint.segment_base_offset
            if self._index_lags or not self._is_clean:
                self._new_names = True  # of the process before, which may not have synced them
            self._activate(
                opened.segments[-1], opened.log_end_offset, opened.flushed_offset, max(self._epochs.latest, 0),
                stored is None or stored.is_clean,
            )
            self._set_write_state(log_writer.STATE_WRITABLE)
            if opened.flushed_offset < opened.log_end_offset and self.config["flush.ms"] != INT64_MAX:
                self._flush_was_scheduled(True)
                self._schedule_flush()
            self._restore(trust_open_batch=trust_checkpoint)

    def _restore(self, *, trust_open_batch: bool) -> None:
        torn = restore_open_batch(self, trust=trust_open_batch)
        if torn is None:
            return
        storage_logger().warning(
            "%s: %d bytes are not what was appended to the open batch (%s); the log ends at offset %d, "
            "the bytes are kept in %s",
            torn.path, torn.cut_bytes, torn.reason, torn.cut_offset, torn.kept_as,
        )
        if not self.recovery_report.cut_bytes:
            self.recovery_report = torn._replace(
                scanned_bytes=self.recovery_report.scanned_bytes, rebuilt_indexes=self.recovery_report.rebuilt_indexes
            )

    def _load_producers_of(self, opened: OpenedLog, log_start_offset: int, stored: Checkpoint | None) -> None:
        """Loads what is known of producers, if the log is to be written or its readers have asked for it."""
        writes = not self.read_only and self.damage is None
        if not writes and not self._transactions_known:
            return
        self._producer_state = None
        try:
            self._load_producers(
                opened.segments, log_start_offset, opened.log_end_offset, known=stored, now_ms=self._now_ms()
            )
        except CorruptDataError as error:
            if not writes:
                self._transactions_known = False
                raise
            self.damage = error
            storage_logger().error("%s", error)
        self._transactions_known = self._producer_state is not None
        self._checkpoint = self._checkpoint._replace(
            has_producers=self.has_producers, has_transactions=self.has_transactions
        )

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

    def append_built(
        self, batch: RecordBatch, *, durability: Durability | None = None, expected_offset: int | None = None
    ) -> tuple[int, int]:
        """Appends a batch that a producer of this process has built.

        Parameters
        ----------
        batch : RecordBatch
            One that a producer has sealed is taken over: offset and, where the topic asks for it, time of append are
            stamped in place. Any other is copied and checked first.
        durability : {"flushed", "appended"}, optional
        expected_offset : int, optional
            Refuses the batch unless the log ends here.

        Returns
        -------
        tuple[int, int]
            Base offset; and the time of append in ms where records get that, otherwise -1.

        Raises
        ------
        As `append_as_leader`; `UnexpectedOffsetError`.
        """
        level = self._batch_level(durability)
        expected = -1 if expected_offset is None else expected_offset
        placed = self._append_built(batch, level, expected)
        if placed is not None:
            return placed
        from logstore.storage.foreign_batches import checked_for_leader

        now_ms = self._now_ms()
        stamped = checked_for_leader(batch, self.config, now_ms, self.topic)
        first, _last = self._append_stamped(stamped, True, level, expected, batch)
        return first, now_ms if self.config["message.timestamp.type"] == "LogAppendTime" else -1

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
        if offset <= self.log_start_offset:
            # A segment may get the name of one that was deleted, which has to be out of the way, durably.
            self._deleted_files.add(self._deleted_files.take_names(self.path), self.config["file.delete.delay.ms"])
            self._new_names = True
        self._cut_ahead()
        lower_cleaner_offset(self.path, self.topic, self.partition, offset)
        self._end_staging()  # before the directory is synced: nothing that is cut may come back from there
        truncations = self.truncation_count
        # The checkpoint is about to say where the log ends: all that stays must be on disk by then.
        self._sync()
        self._digests.forget_from(offset)  # after the sync, which may have noted what a segment holds
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
            self._set_write_state(log_writer.STATE_READ_ONLY)
            raise opened.damage
        self._checkpoint = checkpoint
        if not checkpoint.is_contiguous:
            opened.segments[-1].allow_gaps()
        opened.log_end_offset = offset
        try:
            self._load_producers_of(opened, checkpoint.log_start_offset, checkpoint)
            if self.damage is not None:
                self._set_write_state(log_writer.STATE_READ_ONLY)
                raise self.damage
            assert self._producer_state is not None
            opened.segments[-1].share_descriptor(is_synced=False)
            self._publish(
                segments=tuple(opened.segments), log_start_offset=checkpoint.log_start_offset, log_end_offset=offset,
                contiguous=checkpoint.is_contiguous, first_unstable_offset=self._producer_state.first_unstable_offset,
            )
            self._activate(opened.segments[-1], offset, min(self.flushed_offset, offset), max(self._epochs.latest, 0), False)
        except BaseException as error:
            # The files are cut; what their producers did is not known, or the appender would go on where they ended before.
            if self.damage is None:
                failure = error if isinstance(error, StorageFailureError) else None
                self._fail(failure or StorageFailureError(self.path, "truncate", errno.EINTR))
            raise
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
        delete_before(self, offset)

    def apply_retention(
        self, plan: RetentionPlan, *, now_ms: int, group_offsets: Callable[[], dict[str, int | None]] | None = None
    ) -> RetentionPlan:
        """Carries a retention plan out as far as it still holds; see `logstore.storage.segment_deletion.apply_retention`."""
        return apply_retention(self, plan, now_ms=now_ms, group_offsets=group_offsets)

    # ---- compaction ---------------------------------------------------------------------------------------

    def compaction_plan(self) -> CompactionPlan:
        """What compaction could do now, whether it is due, and what keeps it back. Changes nothing."""
        from logstore.storage.compaction import gather_facts
        from logstore.storage.compaction_plan import compaction_plan

        return compaction_plan(gather_facts(self), self.config, self._now_ms())

    def compact(
        self,
        *,
        memory_bytes: int = 128 << 20,
        bytes_per_second: float | None = None,
        progress: Callable[[CompactionProgress], None] | None = None,
        stop: Callable[[], bool] | None = None,
        threads: int = 2,
    ) -> CompactionReport:
        """Compacts whatever can be compacted now: of each key, only the last record stays.

        Parameters
        ----------
        memory_bytes : int
            For the map of keys, about 30 bytes each, 35 with all that goes with it; where they do not fit, there are
            several rounds.
        bytes_per_second : float, optional
            Limit on bytes read and written.
        progress : callable, optional
            Called after each read, about once a MiB.
        stop : callable, optional
            Asked as often; True ends the work. Segments that were replaced by then stay so.
        threads : int
            2: one more works beside the calling one, where there is a processor for it and no limit on bytes; 1: none does.

        Returns
        -------
        CompactionReport

        Raises
        ------
        InvalidRequestError
            The topic's ``cleanup.policy`` does not say compact.
        CorruptDataError
            A segment is damaged; it, and what stands behind it, is as it was.
        DiskFullError, StorageFailureError, ClosedError

        Notes
        -----
        Thread-safe; appends and reads go on meanwhile. Source: log-format, section 7.
        """
        from logstore.storage.compaction import compact

        return compact(
            self, memory_bytes=memory_bytes, bytes_per_second=bytes_per_second, progress=progress, stop=stop,
            threads=threads,
        )

    def erase_key(self, key: bytes, *, progress: Callable[[int, int], None] | None = None) -> ErasureReport:
        """Erases every record with a key that was appended so far, durably, whatever the topic's ``cleanup.policy``.

        Parameters
        ----------
        key : bytes
        progress : callable, optional
            Called with the bytes read so far and those to be read.

        Returns
        -------
        ErasureReport
            What was erased, and what a scan of everything afterwards has found: nothing.

        Raises
        ------
        CorruptDataError
            A segment is damaged, so that nobody can say what it holds.
        DiskFullError, StorageFailureError, ClosedError

        Notes
        -----
        Thread-safe; appends and reads go on meanwhile. Readers that hold records, or stand in a segment that was rewritten,
        keep what they have. What the disk's free blocks still hold is the file system's business.
        """
        from logstore.storage.erasure import erase_key

        return erase_key(self, key, progress=progress)

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
            self._close_writing(log_writer.STATE_CLOSED)
            self._publish(is_open=False)
            if not self.read_only:
                self._deleted_files.close()
            self._let_go()
            _open_logs.discard(self)

    def _close_in_good_order(self) -> None:
        self._locked(self._end_staging)
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
        if self._cut_ahead():
            self._new_names = True  # and a new size
        state = self._state_at(active.base_offset, active.size_bytes, self.log_end_offset)._replace(is_clean=True)
        self._freeze_producers()
        if self._is_clean and state == self._checkpoint and not active.doubtful_index and not self._pending_snapshots:
            return
        if self._new_names:
            self._sync()
        active.seal(INT64_MAX)
        try:
            write_indexes(active, final=True, sync=True)
            self._write_snapshots(self.log_end_offset, sync=True)
            self._save_checkpoint(state, sync=True)
            self._record_digests(self.segments, closing=True)
        except DiskFullError as error:
            # Every record is flushed. Closing works on a full disk; the next open reads more.
            storage_logger().warning("%s", error)
        self._set_write_state(log_writer.STATE_CLOSED)

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
        self._set_write_state(log_writer.STATE_FORKED)
        self._flush_lock.forget()
        self._compaction_lock = threading.Lock()
        self._publish(is_open=False)
        if not self.read_only:
            self._deleted_files.forget()
        if self._own_scheduler is not None:
            self._own_scheduler.forget()
        if self._own_lock is not None:
            self._own_lock.forget()


def _finish_repair(directory: str) -> None:
    if os.path.exists(os.path.join(directory, layout.REPAIR_FILE)):
        from logstore.storage.repair import finish_repair

        finish_repair(directory)


_open_logs: weakref.WeakSet[Log] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for log in list(_open_logs):
        log._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
