"""What transactions leave in ``__transaction_state`` and in the logs: reading it at the start, settling what a crash has
left open, and writing it."""

from __future__ import annotations

import contextlib
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from logstore.broker.offsets_topic import OFFSETS_TOPIC, TRANSACTIONS_TOPIC
from logstore.broker.transaction_state import Status, Transaction, TransactionValue
from logstore.broker.transactions_topic import TransactionReplay, TransactionsTopic, transaction_logger
from logstore.errors import ClosedError, LogstoreError, UnknownTopicOrPartitionError
from logstore.model import TopicPartition
from logstore.storage.producer_state import NONE_OPEN

if TYPE_CHECKING:
    from logstore.broker.broker import Broker
    from logstore.storage.log import Log

__all__ = ["StoredTransactions", "has_open_transactions"]

COORDINATOR_EPOCH = 0


def has_open_transactions(broker: Broker) -> bool:
    """Whether a log waits for the end of a transaction, and there is anybody who would know of it."""
    return TRANSACTIONS_TOPIC in broker and any(log.first_unstable_offset != NONE_OPEN for log in broker.logs())


class StoredTransactions:
    """Transactions and their record. `logstore.broker.transaction_coordinator.TransactionCoordinator` is what is used."""

    def __init__(self, broker: Broker, wall_clock_ms: Callable[[], int]):
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

    @abstractmethod
    def _end_open(self, known: Transaction) -> None:
        """Aborts what is open, and carries out what is decided."""

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
        decisions: dict[tuple[int, int], bool] = {}
        for replay in self._replays:
            for transactional_id, value in replay.records():
                if value is None:
                    self._transactions.pop(transactional_id, None)
                    continue
                if value.producer_id in open_in and value.status.is_prepared:
                    decisions[value.producer_id, value.producer_epoch] = value.status.is_commit
                self._transactions[transactional_id] = Transaction(transactional_id, value)
        self._by_producer = {known.producer_id: known for known in self._transactions.values()}
        self._is_loaded = True
        if not self._broker.read_only:
            self._raise_epochs()
            self._settle_markers(open_in, decisions)
            for known in list(self._transactions.values()):
                try:
                    with known.lock:
                        self._end_open(known)
                except LogstoreError as error:  # whoever wants to write under this id has it tried again
                    transaction_logger().error("%s", error)
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

    def _settle_markers(
        self, open_in: dict[int, list[tuple[Log, int]]], decisions: dict[tuple[int, int], bool]
    ) -> None:
        """Ends, in each log, transactions that are past: decided ones whose markers the disk has lost, and those of which
        it has lost the beginning."""
        for producer_id, places in open_in.items():
            known = self._by_producer.get(producer_id)
            for log, epoch in places:
                partition = TopicPartition(log.topic, log.partition)
                decision = decisions.get((producer_id, epoch + 1))
                if decision is None and known is None:
                    continue  # of another engine's producer, or of one that has no transactional id
                if decision is None and known is not None and partition in known.partitions and (
                    known.status is Status.ONGOING or known.status.is_prepared
                ):
                    continue  # ended with all its partitions
                transaction_logger().warning(
                    "%s: a transaction of producer %d is %s, which the crash had left open", log.path, producer_id,
                    "committed" if decision else "aborted",
                )
                self._mark(partition, producer_id, epoch + 1, bool(decision))

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

    def _write(self, known: Transaction, *, flush: bool) -> None:
        count = self._topic.write(known, flush=flush)
        if count > self._segments_count:
            # Compaction may take decisions out of the segments before: their markers have to be on disk by then.
            if self._segments_count:
                for log in list(self._marked_logs):
                    self._marked_logs.discard(log)
                    with contextlib.suppress(ClosedError):
                        log.flush_until(log.log_end_offset)
            self._segments_count = count

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
