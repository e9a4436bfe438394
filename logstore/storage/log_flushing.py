"""The durable side of a log: one fdatasync for all who wait, and what follows when the disk refuses."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from logstore._native import log_writer
from logstore._native.append_arguments import durability_level
from logstore._native.segment import Segment
from logstore.errors import ClosedError, CorruptDataError, LogstoreError, ReadOnlyError, StorageFailureError
from logstore.model import Durability
from logstore.storage.cache_mark import MARK_INTERVAL_BYTES, CacheMark, identify
from logstore.storage.checkpoint import Checkpoint
from logstore.storage.files import sync_directory
from logstore.storage.log_reading import ReadableLog
from logstore.storage.open_batch import forget_open_batch
from logstore.storage.recovery import sync_indexes, write_indexes
from logstore.storage.segment_digests import SegmentDigests, digest_of

if TYPE_CHECKING:
    from logstore.storage.flush_scheduler import FlushScheduler

__all__ = ["FlushedLog", "nothing", "storage_logger"]

# Flushed bytes after which the recovery point on disk is moved: what a scan after a crash reads at most, besides
# what was not flushed.
CHECKPOINT_INTERVAL_BYTES = 16 << 20

# Longest time an appended record of a burst is invisible to other processes; and how often is looked whether bursts go on.
STAGED_LINGER_MS = 2
STAGING_LOOK_MS = 1000

# A log whose end has not moved for so long is idle: the zeros ahead of its end are given back.
FILL_IDLE_MS = 10_000

# Bytes of one segment after which its producers are written down once more: what is replayed after a crash at most.
SNAPSHOT_INTERVAL_BYTES = 16 << 20


class FlushedLog(ReadableLog):
    """What makes a log's acknowledgements true. `logstore.storage.log.Log` is what is used."""

    _scheduler: FlushScheduler
    _failure: StorageFailureError | None = None
    _new_names: bool = False
    _unmarked_bytes: int = 0  # handed over to sealed segments since the last mark or checkpoint
    _index_lags: bool = False  # of a sealed segment that is not known to be on disk, or was scanned at open
    _fills_ahead: bool = False
    _idle_end_offset: int = 0
    _digests: SegmentDigests
    _snapshot_position: int = 0

    def _write_failed(self, reason: str) -> None:
        storage_logger().error("%s-%d: %s failed; the log is closed for writing until it is opened again",
                        self.topic, self.partition, reason)
        self._note_failure()

    def _note_failure(self) -> None:
        """Leaves a mark for the next open. The disk may refuse that, too."""
        self._checkpoint = self._checkpoint._replace(sync_failed=True, is_clean=False)
        with contextlib.suppress(StorageFailureError):
            self._checkpoint_file.write(self._checkpoint)
        with contextlib.suppress(StorageFailureError):
            self._checkpoint_file.forget_mark()

    def _mark(self) -> None:
        """Notes what was handed over, if it is much, so that it need not be scanned after a kill. The lock is held."""
        active = self.segments[-1]
        unmarked_bytes = self._unmarked_bytes + active.size_bytes - self._marked_position(active)
        if unmarked_bytes >= MARK_INTERVAL_BYTES:
            self._leave_mark(active)
            unmarked_bytes = 0
        self._set_mark_due(active.size_bytes + MARK_INTERVAL_BYTES - unmarked_bytes)

    def _count_unmarked(self, sealed: Segment) -> None:
        """A segment is sealed, and its indexes are written."""
        self._unmarked_bytes += sealed.size_bytes - self._marked_position(sealed)
        if self._unmarked_bytes >= MARK_INTERVAL_BYTES:
            self._leave_mark(sealed)

    def _marked_position(self, segment: Segment) -> int:
        """Up to where a mark or the checkpoint spares a scan of a segment."""
        saved = self._checkpoint
        position = saved.position if saved.segment_base_offset == segment.base_offset else 0
        mark = self._checkpoint_file.mark
        return max(position, mark.size_bytes) if mark and mark.segment_base_offset == segment.base_offset else position

    def _leave_mark(self, segment: Segment) -> None:
        self._unmarked_bytes = 0
        identity = None if self._index_lags else identify(segment.path)
        if identity is not None:
            with contextlib.suppress(StorageFailureError):  # a hint: without it the next open reads more
                write_indexes(segment)
                self._checkpoint_file.write_mark(CacheMark.of(identity, segment, has_producers=self.has_producers))

    def _schedule_hand_over(self, staged: bool = False) -> None:
        linger_ms = self.config["logstore.linger.ms"]
        delay_ms = min(linger_ms, STAGED_LINGER_MS) if staged else linger_ms
        self._scheduler.schedule_urgent(delay_ms, self._hand_over_in_background)

    def _staging_began(self) -> None:
        self._scheduler.schedule(STAGING_LOOK_MS, self._end_staging_in_background)

    def _end_staging_in_background(self) -> None:
        if self.is_writable and not self._locked(self._end_staging_if_idle):
            self._staging_began()

    def _remove_open_batch_file(self) -> None:
        forget_open_batch(self.path)

    def _schedule_flush(self) -> None:
        self._scheduler.schedule(self.config["flush.ms"], self._flush_in_background)

    def _hand_over_in_background(self) -> None:
        if self.is_writable:
            try:
                self._locked(self._lingered)
                if self._messages_are_due():
                    self._scheduler.schedule(0, self._flush_in_background)
            except LogstoreError:
                if self.is_writable:  # a full disk: the records stay in the open batch, and are tried again
                    self._schedule_hand_over(self.staged)
                raise

    def _flush_in_background(self) -> None:
        self._flush_was_scheduled(False)
        if self.is_writable:
            self._flush_until(self.log_end_offset)

    def _fill_ahead(self) -> None:
        """One flush follows the other: from now on the active segment's file is filled with zeros ahead of its end."""
        if self.config["preallocate"] and not self._fills_ahead and self.is_writable:
            self._fills_ahead = True
            self._idle_end_offset = self.log_end_offset
            self.segments[-1].fill_ahead(self.config["segment.bytes"])
            self._scheduler.schedule(FILL_IDLE_MS, self._cut_when_idle)

    def _cut_when_idle(self) -> None:
        if self.is_writable and self._fills_ahead:
            if self.log_end_offset == self._idle_end_offset:
                self._locked(self._cut_ahead)
            else:
                self._idle_end_offset = self.log_end_offset
                self._scheduler.schedule(FILL_IDLE_MS, self._cut_when_idle)

    def _cut_ahead(self) -> bool:
        """Takes the zeros behind the end away; whether there were any. The log's lock is held."""
        self._fills_ahead = False
        self._count_flushes_anew()
        return self.segments[-1].cut_ahead()

    def _freeze_in_background(self) -> None:
        if self.is_writable:
            self._locked(self._freeze_producers)

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

    def flush_until(self, offset: int) -> None:
        """Returns once all records below an offset are on disk; at or past the log end offset, all there are.

        Raises
        ------
        StorageFailureError, ClosedError
        """
        self._flush_until(min(offset, self.log_end_offset))

    def _fail(self, error: StorageFailureError) -> None:
        """Unknown what reached the disk, and a retry would prove nothing: the log takes no more."""
        self._failure = error
        self._set_write_state(log_writer.STATE_FAILED)
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
        end_offset = self.end_offset
        if active.next_offset > end_offset:  # but for a batch that is being appended: its end is published last
            position = min(position, _position_of(active, end_offset))
        segments = self.segments
        try:
            self._sync_segments(segments)
        except StorageFailureError as error:
            # Too many open files, say, is no failed fsync: the names are synced when they can be.
            if error.operation not in ("open the directory", "open"):
                self._fail(error)
            raise
        self._set_flushed_offset(end_offset)
        if self._pending_snapshots:
            with contextlib.suppress(StorageFailureError):  # without them the next open replays more
                self._write_snapshots(end_offset)
        saved = self._checkpoint
        if active.base_offset != saved.segment_base_offset or position - saved.position >= CHECKPOINT_INTERVAL_BYTES:
            with contextlib.suppress(StorageFailureError):  # a hint: without it the next open reads more
                for segment in reversed(segments[:-1]):
                    if segment.base_offset < saved.segment_base_offset:
                        break
                    if segment.writable:
                        write_indexes(segment, final=True, sync=True)
                    else:
                        sync_indexes(segment)  # written by the process before, and not scanned
                write_indexes(active, sync=True)
                self._save_checkpoint(self._state_at(active.base_offset, position, end_offset))
                self._index_lags = False
                self._unmarked_bytes = 0
                self._record_digests(segments)
            if self.has_producers and position - self._snapshot_position >= SNAPSHOT_INTERVAL_BYTES:
                self._snapshot_position = position
                self._scheduler.schedule(0, self._freeze_in_background)
        if self._checkpoint.segment_base_offset == active.base_offset and not (self._new_names or self._pending_snapshots):
            self._flushes_hot(active, self._checkpoint.position + CHECKPOINT_INTERVAL_BYTES)

    def _record_digests(self, segments: tuple[Segment, ...], *, closing: bool = False) -> None:
        """Notes what the segments sealed since hold, and when closing the active one; all of it is on disk, and
        their indexes are final."""
        with contextlib.suppress(StorageFailureError):  # hints, too
            generation = self._digests.generation
            known = self._digests.entries()
            digests = []
            for segment in segments if closing else segments[:-1]:
                before = known.get(segment.base_offset)
                if segment.writable and segment.size_bytes and (before is None or before.is_growing):
                    digest = digest_of(segment, is_growing=segment is segments[-1])
                    digests += [] if digest is None else [digest]
            self._digests.record(digests, generation=generation, log_start_offset=self.log_start_offset)

    def _sync_segments(self, segments: tuple[Segment, ...]) -> None:
        first = len(segments) - 1
        # One whose last record is on disk may have been cut to its size since, which has to be on disk as well.
        while first > 0 and segments[first].base_offset >= self.flushed_offset:
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
            has_producers=self.has_producers,
            has_transactions=self.has_transactions,
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
        self._locked(nothing)
        if not self.is_writable:
            raise self._not_writable()
        if level == 2 or self._messages_are_due():
            self._flush_until(self.log_end_offset)

    def _messages_are_due(self) -> bool:
        """Whether ``flush.messages`` asks for a flush of what was handed over."""
        return bool(self.log_end_offset - self.flushed_offset >= self.config["flush.messages"])


def _position_of(segment: Segment, offset: int) -> int:
    """Where the batch stands that begins at an offset, or would; 0 where that can't be known."""
    size_bytes = segment.size_bytes
    try:
        found = segment.locate(offset)
    except (CorruptDataError, StorageFailureError):
        return 0
    return size_bytes if found is None else int(found[0])


def nothing() -> None:
    """A step that does nothing: handing over is what is wanted."""


def storage_logger() -> Any:
    """Where warnings of this layer go; logging loads with the first."""
    import logging

    return logging.getLogger("logstore.storage")
