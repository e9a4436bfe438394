"""The producers of a log: loading what is known of them, transaction markers, snapshots, and what readers of committed
records ask for (log-format, sections 5.4 and 10)."""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Callable, Sequence

from logstore._native.append_arguments import durability_level
from logstore._native.log_appender import LogAppender
from logstore._native.log_cursor import LogCursor
from logstore._native.producer_batches import ProducerBatches, ProducerHeader
from logstore._native.record_batch_builder import RecordBatchBuilder
from logstore._native.segment import Segment
from logstore.errors import ClosedError, CorruptDataError, InvalidRequestError, OffsetOutOfRangeError, StorageFailureError
from logstore.model import Durability, IsolationLevel
from logstore.storage.checkpoint import Checkpoint
from logstore.storage.config import TopicConfig
from logstore.storage.producer_snapshot import (
    encode_snapshot,
    list_snapshots,
    read_snapshot,
    remove_snapshots,
    write_snapshot,
)
from logstore.storage.producer_state import (
    NONE_OPEN,
    PRODUCER_ID_EXPIRATION_MS,
    AbortedTransaction,
    OpenTransaction,
    Plan,
    Producer,
    ProducerState,
)
from logstore.storage.segment_digests import SegmentDigests
from logstore.storage.transaction_index import TransactionIndex

__all__ = ["ProducerLog", "is_committed"]

EXPIRATION_CHECK_INTERVAL_MS = 600_000  # producer.id.expiration.check.interval.ms
CONTROL_VERSION = 0
ABORT, COMMIT = 0, 1
_KEY = struct.Struct(">hh")
_VALUE = struct.Struct(">hi")


def is_committed(isolation_level: IsolationLevel) -> bool:
    """Whether a reader sees records of committed transactions alone.

    Raises
    ------
    InvalidRequestError
    """
    if isolation_level == "read_committed":
        return True
    if isolation_level == "read_uncommitted":
        return False
    raise InvalidRequestError(
        f"isolation_level must be 'read_committed' or 'read_uncommitted', not {isolation_level!r}"
    )


class ProducerLog(LogAppender):
    """What a log knows of producers with an id. `logstore.storage.log.Log` is what is used."""

    path: str
    config: TopicConfig
    read_only: bool
    damage: CorruptDataError | None
    _checkpoint: Checkpoint
    _digests: SegmentDigests
    _clock: Callable[[], int] | None
    _durability: Durability
    _producer_state: ProducerState | None = None
    _aborted: TransactionIndex
    _pending_snapshots: list[tuple[int, list[Producer], bool]]
    _snapshot_offset: int  # of the newest snapshot that was taken, or -1
    _stray_snapshot: int  # of the newest one that was written: to be removed after the next, unless a segment begins there
    _replayed_offset: int  # up to where the batches are taken in; a reader process's
    _expired_ms: int  # when producers were last looked through for those that have expired
    _transactions_known: bool = False

    producer_id_expiration_ms: int = PRODUCER_ID_EXPIRATION_MS
    """How long an idle producer is remembered (``producer.id.expiration.ms``)."""

    @property
    def has_producers(self) -> bool:
        """Whether a batch with a producer id was appended here."""
        return self._plans.has_producers

    @property
    def has_transactions(self) -> bool:
        """Whether one of a transaction was."""
        return self._plans.has_transactions

    # ---- loading --------------------------------------------------------------------------------------

    def _load_producers(
        self, segments: Sequence[Segment], log_start_offset: int, end_offset: int, *, known: Checkpoint | None, now_ms: int
    ) -> None:
        """Rebuilds what is known from the newest snapshot and the batches behind it. No append is under way.

        Parameters
        ----------
        known : Checkpoint or None
            Ours; None where another engine may have written.

        Raises
        ------
        CorruptDataError
            A batch behind the snapshot is damaged.
        StorageFailureError
        """
        state = ProducerState(f"{self.topic}-{self.partition}")
        had_producers = known is not None and known.has_producers
        snapshots = list_snapshots(self.path)
        if known is not None and not known.has_producers:
            # No producer with an id below the recovery point: nothing to load, and nothing to replay there.
            start = max(log_start_offset, min(known.flushed_offset, end_offset))
            producers = None
        else:
            producers, start = self._newest_snapshot(snapshots, log_start_offset, end_offset)
        if not self.read_only:
            bases = {segment.base_offset for segment in segments}
            stale = [
                offset for offset in snapshots
                if not log_start_offset <= offset <= end_offset or (offset not in bases and offset != start)
            ]
            # One that speaks of batches that are gone must not be there when others take their offsets.
            remove_snapshots(self.path, stale, sync=any(offset > end_offset for offset in stale))
        state.restore([
            producer for producer in producers or ()
            if producer.transaction_offset >= 0 or now_ms - producer.last_timestamp < self.producer_id_expiration_ms
        ])
        is_possible = (
            known.has_transactions if known is not None else start > log_start_offset or bool(state.open_transactions)
        )
        aborted = TransactionIndex(
            self.path, self._derive_aborted, self._oldest_open, digests=self._digests, writable=not self.read_only,
            is_possible=is_possible,
        )
        has_seen = False
        replayed = [
            (segment, end) for segment, end in _with_ends(segments, end_offset) if end > start or segment is segments[-1]
        ]
        for segment, end in replayed:
            entries = aborted.live(segment.base_offset, start)
            for header in ProducerBatches(segment, start, end) if end > start else ():
                has_seen = True
                plan = replay_plan(state, header)
                if plan is not None:
                    is_possible = is_possible or plan.opens >= 0 or plan.closes
                    state.apply(plan)
                    if plan.aborted is not None:
                        entries.append(plan.aborted)
        if is_possible:
            for segment, _ in replayed:
                aborted.reconcile(segment.base_offset)
        self._producer_state = state
        self._may_catch_up(False)
        self._aborted = aborted
        self._pending_snapshots = []
        self._snapshot_offset = self._stray_snapshot = start if producers is not None else -1
        self._replayed_offset = end_offset
        self._expired_ms = now_ms
        active = segments[-1].base_offset if segments else end_offset
        has_producers = had_producers or has_seen or bool(producers)
        self._plans.restart(state, aborted.live(active), has_producers, is_possible)
        self._publish(aborted_possible=is_possible)

    def _follow_producers(self, segments: Sequence[Segment], end_offset: int) -> None:
        """In a reader process: takes in what was appended since. The caller publishes ``first_unstable_offset``."""
        state = self._producer_state
        assert state is not None
        for segment, end in _with_ends(segments, end_offset):
            if end <= self._replayed_offset:
                continue
            entries = self._aborted.live(segment.base_offset)
            for header in ProducerBatches(segment, self._replayed_offset, end):
                plan = replay_plan(state, header)
                if plan is not None:
                    state.apply(plan)
                    if plan.aborted is not None:
                        entries.append(plan.aborted)
                        self._publish(aborted_possible=True)
        self._replayed_offset = end_offset

    def _newest_snapshot(
        self, snapshots: list[int], log_start_offset: int, end_offset: int
    ) -> tuple[list[Producer] | None, int]:
        """What the newest whole snapshot says, and its offset; without one None and the log start offset."""
        for offset in reversed(snapshots):
            if log_start_offset <= offset <= end_offset:
                try:
                    return read_snapshot(self.path, offset), offset
                except CorruptDataError:
                    if not self.read_only:
                        remove_snapshots(self.path, [offset])
                except StorageFailureError:
                    continue  # gone meanwhile, or no file
        return None, log_start_offset

    def _derive_aborted(self, base_offset: int, below: int) -> list[AbortedTransaction]:
        """The transactions whose ABORT marker stands in a segment, below an offset, from its batches."""
        state = ProducerState(f"{self.topic}-{self.partition}")
        found: list[AbortedTransaction] = []
        snapshots = [offset for offset in list_snapshots(self.path) if offset <= base_offset]
        producers, start = self._newest_snapshot(snapshots, 0, base_offset)
        state.restore(producers or [])
        for segment, end in _with_ends(self.segments, self.log_end_offset):
            if segment.base_offset > base_offset:
                break
            if end <= start:
                continue
            for header in ProducerBatches(segment, start, min(end, below)):
                plan = replay_plan(state, header)
                if plan is not None:
                    state.apply(plan)
                    if plan.aborted is not None and segment.base_offset == base_offset:
                        found.append(plan.aborted)
        return found

    def _oldest_open(self, base_offset: int) -> int | None:
        """First offset of the oldest transaction that was open where a segment begins, as its snapshot has it."""
        try:
            producers = read_snapshot(self.path, base_offset)
        except (CorruptDataError, StorageFailureError):
            return None
        return min((one.transaction_offset for one in producers if one.transaction_offset >= 0), default=NONE_OPEN)

    # ---- readers --------------------------------------------------------------------------------------

    def _know_transactions(self) -> None:
        """In a log that does not write, what is known of transactions is loaded when it is first asked for."""
        if self._transactions_known:
            return
        if not self.is_open:
            raise ClosedError(f"the log of {self.topic}-{self.partition} is closed; open the broker again")
        with self._flush_lock:  # which `refresh` holds: the end must not move meanwhile
            if self._transactions_known:
                return
            self._load_producers(
                self.segments, self.log_start_offset, self.log_end_offset, known=None, now_ms=self._now_ms()
            )
            assert self._producer_state is not None
            self._publish(first_unstable_offset=self._producer_state.first_unstable_offset)
            self._transactions_known = True

    def _aborted_between(self, start_offset: int, end_offset: int) -> Sequence[AbortedTransaction]:
        return self._aborted.overlapping([segment.base_offset for segment in self.segments], start_offset, end_offset)

    @property
    def last_stable_offset(self) -> int:
        """Up to where every transaction is decided: readers of committed records see what is below.

        Raises
        ------
        CorruptDataError
            A log that is open for reading only, or damaged: its batches say nothing certain about transactions.
        """
        self._know_transactions()
        end_offset = self.log_end_offset  # first: see LogState
        return max(min(end_offset, self.first_unstable_offset), self.log_start_offset)

    def open_transactions(self) -> list[OpenTransaction]:
        """Transactions that have neither been committed nor aborted, in order of their first offsets."""
        self._know_transactions()
        state = self._producer_state
        assert state is not None
        found = []
        for producer in sorted(state.producers.copy().values(), key=lambda producer: producer.transaction_offset):
            if producer.transaction_offset >= 0:
                start_timestamp = self._first_timestamp(producer.transaction_offset)
                found.append(
                    OpenTransaction(producer.producer_id, producer.epoch, producer.transaction_offset, start_timestamp)
                )
        return found

    def _now_ms(self) -> int:
        return time.time_ns() // 1_000_000 if self._clock is None else self._clock()

    def _first_timestamp(self, offset: int) -> int:
        try:
            batch = LogCursor(self, offset, offset + 1).next_batch()
        except OffsetOutOfRangeError:
            return -1
        return -1 if batch is None else batch.base_timestamp

    def producers(self) -> list[Producer]:
        """What is known of producers with an id, in no order."""
        self._know_transactions()
        assert self._producer_state is not None
        return list(self._producer_state.producers.copy().values())

    # ---- markers --------------------------------------------------------------------------------------

    def append_marker(
        self, producer_id: int, producer_epoch: int, commit: bool, coordinator_epoch: int = 0, *,
        durability: Durability | None = None,
    ) -> int:
        """Ends a producer's transaction in this log.

        Parameters
        ----------
        producer_id, producer_epoch : int
            A higher epoch than the known one shuts that one's producer out.
        commit : bool
            Or abort.
        coordinator_epoch : int
        durability : {"flushed", "appended"}, optional

        Returns
        -------
        int
            The marker's offset. Where no transaction was open, the marker is kept all the same.

        Raises
        ------
        InvalidProducerEpochError, TransactionCoordinatorFencedError
            Nothing was appended.
        StorageFailureError, ReadOnlyError, ClosedError

        Notes
        -----
        Thread-safe. Source: log-format, 1.7 and 10.5.
        """
        if not (0 <= producer_id < 2**63 and 0 <= producer_epoch < 2**15):
            raise InvalidRequestError(f"a transaction has a producer id and epoch, not {producer_id} and {producer_epoch}")
        builder = RecordBatchBuilder(128)
        builder.append(
            _VALUE.pack(CONTROL_VERSION, coordinator_epoch), _KEY.pack(CONTROL_VERSION, COMMIT if commit else ABORT),
            timestamp=self._now_ms(),
        )
        marker = builder.build(
            transactional=True, control=True, producer_id=producer_id, producer_epoch=producer_epoch
        )
        level = durability_level(durability or self.config["logstore.durability"] or self._durability)
        return self._append_stamped(bytearray(marker), True, level)[0]

    # ---- snapshots ------------------------------------------------------------------------------------

    def _freeze_producers(self, base_offset: int | None = None, *, durable: bool = False) -> None:
        """Has a snapshot of the producers as they are now written with the next flush, numbered with the log end offset
        or a new segment's base; durably, where the batches it stands for are about to go. The log's lock is held."""
        assert self._producer_state is not None
        offset = self.log_end_offset if base_offset is None else base_offset
        if self.has_producers and (offset > self._snapshot_offset or durable):
            # Not at each: records may be older than their append, and a batch may be sent again just behind a roll.
            if self._now_ms() - self._expired_ms >= EXPIRATION_CHECK_INTERVAL_MS:
                self._expire_producers()
            self._pending_snapshots.append((offset, list(self._producer_state.producers.values()), durable))
            self._flushes_cold()
            self._snapshot_offset = offset

    def _write_snapshots(self, flushed_offset: int, *, sync: bool = False) -> None:
        """Writes the snapshots of what is on disk, and before them the transaction index they rely on.

        Raises
        ------
        StorageFailureError
        """
        while self._pending_snapshots and self._pending_snapshots[0][0] <= flushed_offset:
            offset, producers, durable = self._pending_snapshots[0]
            self._aborted.write(offset)
            write_snapshot(self.path, offset, encode_snapshot(producers), sync=sync or durable)
            if 0 <= self._stray_snapshot < offset and all(
                segment.base_offset != self._stray_snapshot for segment in self.segments
            ):
                remove_snapshots(self.path, [self._stray_snapshot])
            self._stray_snapshot = offset
            with contextlib.suppress(IndexError):  # a truncation has dropped them meanwhile
                self._pending_snapshots.pop(0)

    def _expire_producers(self) -> None:
        assert self._producer_state is not None
        self._expired_ms = self._now_ms()
        self._plans.forget(self._producer_state.expired(self._expired_ms, self.producer_id_expiration_ms))

    def expire_producers(self) -> None:
        """Forgets producers that have been idle for `producer_id_expiration_ms`, by their last timestamp."""
        if self.is_writable:
            self._locked(self._expire_producers)


def replay_plan(state: ProducerState, header: ProducerHeader) -> Plan | None:
    """What a batch that is in the log has changed; None for nothing."""
    if header.marker >= 0:
        return state.plan_marker(
            header.producer_id, header.producer_epoch, header.marker == COMMIT, header.coordinator_epoch,
            header.base_offset, header.max_timestamp, False,
        )
    if header.marker == -1:
        return state.plan_batch(
            header.producer_id, header.producer_epoch, header.base_sequence, header.base_offset, header.last_offset,
            header.max_timestamp, header.is_transactional, False,
        )
    return None


def _with_ends(segments: Sequence[Segment], end_offset: int) -> list[tuple[Segment, int]]:
    """Each segment with where the next one begins, or the log ends."""
    ends = [segment.base_offset for segment in segments[1:]]
    return list(zip(segments, [*ends, end_offset], strict=True)) if segments else []
