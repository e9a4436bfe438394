"""What transactions leave in ``__transaction_state`` and in the logs: reading it at the start, settling what a crash has
left open, and writing it."""

from __future__ import annotations

import contextlib
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from logstore.broker.offsets_topic import OFFSETS_TOPIC
from logstore.broker.transaction_state import Decision, Status, Transaction, TransactionValue
from logstore.broker.transactions_topic import TransactionReplay, TransactionsTopic, transaction_logger
from logstore.errors import ClosedError, LogstoreError, UnknownTopicOrPartitionError
from logstore.model import TopicPartition
from logstore.storage.producer_state import NONE_OPEN

if TYPE_CHECKING:
    from logstore.broker.broker import Broker
    from logstore.storage.log import Log

__all__ = ["RETRY_MS", "StoredTransactions"]

COORDINATOR_EPOCH = 0
RETRY_MS = 1000
WRITE_DELAY_MS = 50


def _identity(value: TransactionValue) -> tuple[int, int]:
    return value.producer_id, value.producer_epoch


class StoredTransactions:
    """Transactions and their record. `logstore.broker.transaction_coordinator.TransactionCoordinator` is what is used."""

    def __init__(
        self, broker: Broker, wall_clock_ms: Callable[[], int], schedule: Callable[[float, Callable[[], None]], None]
    ):
        self._schedule = schedule
        self._broker = broker
        self._now_ms = wall_clock_ms
        self._topic = TransactionsTopic(broker)
        self._lock = threading.RLock()  # of the tables; taken before a transaction's own, and never for long
        self._transactions: dict[str, Transaction] = {}
        self._by_producer: dict[int, Transaction] = {}
        self._replays: list[TransactionReplay] = []
        self._is_loaded = False
        self._is_closed = False
        self._is_flushed = broker.durability == "flushed"
        # Logs with markers that may not be on disk yet, and how many segments the decisions took up then.
        self._marked_logs: set[Log] = set()
        self._segments_count = 0
        # By producer id: logs with a transaction that the process before has left open, its epoch, whether to commit it.
        self._unsettled: dict[int, list[tuple[Log, int, bool]]] = {}
        self._unwritten: set[Transaction] = set()  # states that are written soon
        self._is_writing_soon = False

    @abstractmethod
    def _finish(self, known: Transaction) -> None:
        """Carries out what is decided."""

    # ---- reading the log ----------------------------------------------------------------------------

    def _make_ready(self) -> None:
        if self._is_closed:
            raise ClosedError(f"the broker of {self._broker.path} is closed; open it again")
        if not self._is_loaded or self._broker.read_only:
            self._load()

    def settle(self) -> None:
        """After a start: ends all transactions that were open, since no producer outlives the process that had the
        directory. Those that were decided are carried out, the others aborted.

        Raises
        ------
        StorageFailureError
        """
        with self._lock:
            self._make_ready()

    def _load(self) -> None:
        for log in self._topic.logs():
            if log.read_only:
                log.refresh()
        if len(self._topic.logs()) != len(self._replays) or any(replay.is_outdated for replay in self._replays):
            self._replays = [TransactionReplay(log) for log in self._topic.logs()]
            self._transactions, self._by_producer = {}, {}
        open_in = self._open_in_logs()
        decisions: dict[tuple[int, int], Decision] = {}
        for replay in self._replays:
            for transactional_id, value, ends in replay.records():
                before = self._transactions.pop(transactional_id, None)
                if value is None:
                    continue
                known = self._transactions[transactional_id] = Transaction(transactional_id, value)
                last = None if before is None else before.decision
                is_revised = value.status.is_prepared and last is not None and _identity(last.value) == _identity(value)
                if last is not None and not is_revised:
                    last.ends = {}  # nothing else is written before a decision counts
                if value.status.is_prepared:
                    known.decision = Decision(transactional_id, value, ends)
                    if value.producer_id in open_in:
                        decisions[_identity(value)] = known.decision
        self._by_producer = {known.producer_id: known for known in self._transactions.values()}
        if not self._broker.read_only:
            try:
                self._settle_all(open_in, decisions)
            except BaseException:
                self._replays, self._unsettled = [], {}  # whoever comes next reads it again, and judges it again
                raise
        self._is_loaded = True

    def _settle_all(
        self, open_in: dict[int, list[tuple[Log, int]]], decisions: dict[tuple[int, int], Decision]
    ) -> None:
        self._raise_epochs()
        self._find_unsettled(open_in, decisions)
        for known in list(self._transactions.values()):
            if known.status is Status.ONGOING or known.status.is_prepared or known.producer_id in self._unsettled:
                self._take_up(known)
        self._settle_the_rest()
        self._expire()

    def _open_in_logs(self) -> dict[int, list[tuple[Log, int]]]:
        """The logs that wait for the end of a producer's transaction, each with the epoch it was written in."""
        found: dict[int, list[tuple[Log, int]]] = {}
        if self._broker.read_only:
            return found
        for log in self._broker.logs():
            if log.first_unstable_offset != NONE_OPEN:
                for each in log.open_transactions():
                    found.setdefault(each.producer_id, []).append((log, each.producer_epoch))
        return found

    def _raise_epochs(self) -> None:
        """Where the disk kept records of a producer and lost that of its epoch, the logs know it."""
        for log in self._broker.logs():
            if log.has_producers and log.damage is None:
                for producer in log.producers():
                    known = self._by_producer.get(producer.producer_id)
                    if known is not None and producer.epoch > known.producer_epoch:
                        known.producer_epoch = producer.epoch

    # ---- what a crash has left open -----------------------------------------------------------------

    def _find_unsettled(
        self, open_in: dict[int, list[tuple[Log, int]]], decisions: dict[tuple[int, int], Decision]
    ) -> None:
        """How each transaction ends that is open in a log: as it was decided, and aborted where nothing was. A log may be
        one transaction ahead of the others, so each is judged by the epoch it was written in."""
        for producer_id, places in open_in.items():
            for log, epoch in places:
                decision = decisions.get((producer_id, epoch + 1))
                if decision is None and producer_id not in self._by_producer:
                    continue  # of another engine's producer, or of one that has no transactional id
                if decision is not None and decision.commit and not self._counts(decision):
                    self._revise(decision)
                commit = decision is not None and decision.commit
                self._unsettled.setdefault(producer_id, []).append((log, epoch, commit))

    def _counts(self, decision: Decision) -> bool:
        """Whether all that a commit speaks of has reached the disk: its record goes there at the same time."""
        for partition, end_offset in decision.ends.items():
            log = self._log_of(partition)
            if log is not None and log.log_end_offset < end_offset:
                return False
        return True

    def _revise(self, decision: Decision) -> None:
        """Has a commit that does not count forgotten, durably, before the logs grow again to where it would count."""
        value = decision.value._replace(status=Status.PREPARE_ABORT)
        log, end_offset = self._topic.write(decision.transactional_id, value)
        log.flush_until(end_offset)
        decision.commit = False

    def _take_up(self, known: Transaction) -> None:
        """Ends what the process before has left open under a transactional id."""
        places = self._unsettled.get(known.producer_id, ())
        decision = known.decision
        is_commit = decision is not None and decision.commit and self._counts(decision)
        known.status = Status.PREPARE_COMMIT if is_commit else Status.PREPARE_ABORT
        known.partitions = set()  # what there is to do in logs is found in the logs
        known.producer_epoch = max([known.producer_epoch, *(epoch + 1 for _, epoch, _ in places)])
        try:
            with known.lock:
                self._finish(known)
        except LogstoreError as error:  # tried again soon, and by whoever wants to write under this id
            transaction_logger().error("%s", error)

    def _settle(self, producer_id: int) -> None:
        """Ends, in each log, what the process before has left open of a producer."""
        failure: LogstoreError | None = None
        places = self._unsettled.get(producer_id, [])
        for place in list(places):
            log, epoch, commit = place
            try:
                self._mark(TopicPartition(log.topic, log.partition), producer_id, epoch + 1, commit)
            except LogstoreError as error:
                failure = failure or error
                continue
            places.remove(place)
            transaction_logger().warning(
                "%s: a transaction of producer %d is %s, which the process before had left open", log.path, producer_id,
                "committed" if commit else "aborted",
            )
        if failure is not None:
            raise failure
        self._unsettled.pop(producer_id, None)

    def _settle_the_rest(self) -> None:
        """The same for producers whose transactional id goes on under another one."""
        try:
            for producer_id in [each for each in self._unsettled if each not in self._by_producer]:
                self._settle(producer_id)
        except ClosedError:
            return
        except LogstoreError as error:
            transaction_logger().error("%s", error)
            self._schedule(RETRY_MS, self._settle_the_rest)

    # ---- writing ------------------------------------------------------------------------------------

    def _add(self, known: Transaction) -> None:
        self._transactions[known.transactional_id] = known
        self._by_producer[known.producer_id] = known

    def _log_of(self, partition: TopicPartition) -> Log | None:
        """None where the topic was deleted."""
        try:
            return self._broker.topic(partition.topic).partition(partition.partition)
        except UnknownTopicOrPartitionError:
            return None

    def _mark(self, partition: TopicPartition, producer_id: int, producer_epoch: int, commit: bool) -> None:
        """Ends a producer's transaction in one partition."""
        log = self._log_of(partition)
        if log is None:
            return
        log.append_marker(producer_id, producer_epoch, commit, COORDINATOR_EPOCH, durability="appended")
        self._marked_logs.add(log)
        if partition.topic == OFFSETS_TOPIC:
            self._broker.coordinator.transaction_ended(producer_id, partition.partition, commit)

    def _write(
        self, transactional_id: str, value: TransactionValue, ends: Mapping[TopicPartition, int] | None = None
    ) -> tuple[Log, int]:
        """Appends a state; gives the place up to where to flush, if it is to be durable."""
        log, end_offset = self._topic.write(transactional_id, value, ends)
        count = len(log.segments)
        if count > self._segments_count:
            # Compaction may take decisions out of the segments before: their markers have to be on disk by then.
            if self._segments_count:
                for marked in list(self._marked_logs):
                    self._marked_logs.discard(marked)
                    with contextlib.suppress(ClosedError):
                        marked.flush_until(marked.log_end_offset)
            self._segments_count = count
        return log, end_offset

    def _write_durably(self, transactional_id: str, value: TransactionValue) -> None:
        """For what must not be lost whatever the broker's durability: without it, nobody would know the producer id."""
        log, end_offset = self._write(transactional_id, value)
        log.flush_until(end_offset)

    def _write_soon(self, known: Transaction) -> None:
        """Has a state written a moment later, if it is the last one by then. None of those that pass this way is needed
        after a crash: without a decision, what is open in the logs is aborted."""
        self._unwritten.add(known)
        if not self._is_writing_soon:
            self._is_writing_soon = True
            self._schedule(WRITE_DELAY_MS, self._write_states)

    def _write_states(self) -> None:
        self._is_writing_soon = False
        for known in list(self._unwritten):
            if not known.lock.acquire(blocking=False):
                self._write_soon(known)  # it is about to change again
                continue
            try:
                if known in self._unwritten and not self._is_closed:
                    self._unwritten.discard(known)
                    self._write(known.transactional_id, known.value())
            except LogstoreError as error:
                transaction_logger().warning("the state of %r could not be noted: %s", known.transactional_id, error)
            finally:
                known.lock.release()

    def _expire(self) -> None:
        """Forgets transactional ids that nobody has used for long."""
        now_ms = self._now_ms()
        oldest_ms = now_ms - self._broker.config["transactional.id.expiration.ms"]
        for name, known in list(self._transactions.items()):
            if known.updated_ms < oldest_ms and known.status is not Status.ONGOING and not known.status.is_prepared:
                with contextlib.suppress(LogstoreError):
                    self._topic.remove(name, now_ms)
                    del self._transactions[name]
                    self._by_producer.pop(known.producer_id, None)

    def _highest_producer_id(self) -> int:
        """The highest id that any log knows, or -1."""
        highest = -1
        for log in self._broker.logs():
            if log.has_producers and log.damage is None:
                highest = max([highest, *(producer.producer_id for producer in log.producers())])
        for replay in [TransactionReplay(log) for log in self._topic.logs()]:
            highest = max([highest, *(each.value.producer_id for each in replay.records() if each.value is not None)])
        return highest

    def values(self) -> Iterator[tuple[str, TransactionValue]]:
        """All transactional ids with their states."""
        for name, known in sorted(self._transactions.items()):
            yield name, known.value()
