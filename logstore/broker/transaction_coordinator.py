"""Transactions of one broker: who may write in them, and how they end (wire-protocol, section 11.3)."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from logstore.broker.ended_transactions import EndedTransactions
from logstore.broker.offsets_topic import OFFSETS_TOPIC
from logstore.broker.stored_transactions import RETRY_MS
from logstore.broker.transaction_state import MARKER_EPOCH_MAX, Status, Transaction, TransactionValue
from logstore.broker.transactions_topic import transaction_logger
from logstore.broker_api import TransactionDescription, TransactionListing
from logstore.errors import (
    ClosedError,
    ConcurrentTransactionsError,
    InvalidProducerEpochError,
    InvalidRequestError,
    InvalidTransactionTimeoutError,
    InvalidTxnStateError,
    LogstoreError,
    ProducerFencedError,
    ReadOnlyError,
    TransactionalIdNotFoundError,
)
from logstore.model import TopicPartition

if TYPE_CHECKING:
    from logstore.broker.broker import Broker

__all__ = ["TransactionCoordinator"]

TRANSACTIONAL_ID_BYTES_MAX = 32_767


class TransactionCoordinator(EndedTransactions):
    """Producer ids and transactions of one broker: implements `logstore.broker_api.TransactionCoordinatorApi`.

    Parameters
    ----------
    broker : Broker
    wall_clock_ms : callable, optional
        For timestamps and timeouts.
    schedule : callable
        ``schedule(delay_ms, step)``, as `logstore.storage.flush_scheduler.FlushScheduler` has it.

    Notes
    -----
    Thread-safe. Each transactional id has a lock of its own, so that those of different producers end side by side and
    share their flushes.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        wall_clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        schedule: Callable[[float, Callable[[], None]], None],
    ):
        super().__init__(broker, wall_clock_ms, schedule)
        self._timer_ms = math.inf  # when transactions are looked at for their timeouts

    # ---- producers ----------------------------------------------------------------------------------

    def init_producer_id(
        self,
        transactional_id: str | None = None,
        timeout_ms: int = 60_000,
        *,
        producer_id: int = -1,
        producer_epoch: int = -1,
    ) -> tuple[int, int]:
        """A producer id and epoch to write with.

        Parameters
        ----------
        transactional_id : str, optional
            Shuts out whoever had it before, and aborts the transaction that one has open.
        timeout_ms : int
            After which a transaction is aborted.
        producer_id, producer_epoch : int, optional
            What the caller has had: it goes on as the same producer, unless it was shut out.

        Raises
        ------
        InvalidRequestError, InvalidTransactionTimeoutError
        ProducerFencedError
            Another producer has taken the transactional id over.
        ConcurrentTransactionsError, StorageFailureError, ReadOnlyError, ClosedError
        """
        self._check_writable()
        if transactional_id is None:
            return self._producer_ids.take(), 0
        self._check_ids(transactional_id, timeout_ms)
        with self._lock:
            self._make_ready()
            known = self._transactions.get(transactional_id)
            if known is None:
                known = Transaction(
                    transactional_id,
                    TransactionValue(self._producer_ids.take(), -1, timeout_ms, Status.EMPTY, (), -1, -1),
                )
                self._add(known)
        with known.lock:
            if producer_id >= 0:
                if (producer_id, producer_epoch) == (known.producer_id, known.expires_epoch):
                    known.expires_epoch = -1
                    return known.producer_id, known.producer_epoch
                self._check_producer(known, producer_id, producer_epoch)
            self._end_open(known)
            before = (known.producer_id, known.producer_epoch, known.timeout_ms, known.status, known.ended)
            known.timeout_ms = timeout_ms
            self._next_epoch(known)
            known.status, known.start_ms, known.updated_ms = Status.EMPTY, -1, self._now_ms()
            known.expires_epoch, known.ended = -1, (-1, -1)
            self._unwritten.discard(known)
            try:
                self._write_durably(known.transactional_id, known.value())
            except BaseException:
                known.producer_id, known.producer_epoch, known.timeout_ms, known.status, known.ended = before
                raise
            self._by_producer[known.producer_id] = known
            return known.producer_id, known.producer_epoch

    def _check_ids(self, transactional_id: str, timeout_ms: int) -> None:
        if not isinstance(transactional_id, str) or not transactional_id:
            raise InvalidRequestError(
                f"a transactional_id is a text of at least one character, not {transactional_id!r}"
            )
        if len(transactional_id.encode(errors="replace")) > TRANSACTIONAL_ID_BYTES_MAX:
            raise InvalidRequestError(f"a transactional_id has at most {TRANSACTIONAL_ID_BYTES_MAX} bytes")
        longest_ms = self._broker.config["transaction.max.timeout.ms"]
        if not 0 < timeout_ms <= longest_ms:
            raise InvalidTransactionTimeoutError(
                f"transaction_timeout must be above 0 and at most {longest_ms} ms (transaction.max.timeout.ms of the "
                f"broker), not {timeout_ms} ms"
            )

    def _next_epoch(self, known: Transaction) -> None:
        if known.producer_epoch + 1 < MARKER_EPOCH_MAX:
            known.producer_epoch += 1
        else:
            known.producer_id, known.producer_epoch = self._producer_ids.take(), 0

    def _check_producer(self, known: Transaction, producer_id: int, producer_epoch: int) -> None:
        if (producer_id, producer_epoch) == (known.producer_id, known.producer_epoch):
            return
        where = f"transactional_id {known.transactional_id!r}"
        if (producer_id, producer_epoch) == (known.producer_id, known.expires_epoch):
            raise InvalidProducerEpochError(
                f"the transaction of {where} was open for more than {known.timeout_ms} ms and was aborted; call "
                "abort_transaction(), then do it again, in smaller steps or with a longer transaction_timeout",
                producer_id=producer_id, producer_epoch=producer_epoch, current_epoch=known.producer_epoch,
            )
        raise ProducerFencedError(
            f"another producer has taken {where} over, or its transaction was ended by hand: epoch {producer_epoch} of "
            f"producer {producer_id} is no longer valid; close this one",
            producer_id=producer_id, producer_epoch=producer_epoch, current_epoch=known.producer_epoch,
        )

    def _of_producer(self, producer_id: int) -> Transaction:
        with self._lock:
            self._make_ready()
            known = self._by_producer.get(producer_id)
        if known is None:
            raise InvalidTxnStateError(
                f"producer {producer_id} has no transactional_id, so there is no transaction it could write in"
            )
        return known

    # ---- while it is open ---------------------------------------------------------------------------

    def add_partition(self, producer_id: int, producer_epoch: int, partition: TopicPartition) -> None:
        """Has a partition take part in a producer's transaction, which begins with its first one.

        Raises
        ------
        ProducerFencedError, InvalidProducerEpochError, InvalidTxnStateError
        ConcurrentTransactionsError
            The last transaction is not through yet.
        StorageFailureError, ClosedError
        """
        known = self._by_producer.get(producer_id)
        if (
            known is not None and known.producer_epoch == producer_epoch and known.status is Status.ONGOING
            and partition in known.partitions
        ):
            return  # what nearly all batches find
        self._check_writable()
        known = self._of_producer(producer_id)
        with known.lock:
            self._check_producer(known, producer_id, producer_epoch)
            if known.status.is_prepared:
                self._finish(known)
            known.updated_ms = now_ms = self._now_ms()
            if known.status is not Status.ONGOING:
                known.status, known.partitions, known.start_ms = Status.ONGOING, set(), now_ms
            known.partitions = {*known.partitions, partition}
            self._write_soon(known)
            known.ended = (-1, -1)  # the last one is past: a late end of it is refused
            deadline_ms = known.start_ms + known.timeout_ms
        self._watch(deadline_ms)

    def add_offsets(self, producer_id: int, producer_epoch: int, group: str) -> None:
        """Has a group's committed offsets take part in a producer's transaction; errors as `add_partition`."""
        log = self._broker.coordinator.offsets_log(group)
        self.add_partition(producer_id, producer_epoch, TopicPartition(OFFSETS_TOPIC, log.partition))

    # ---- the end ------------------------------------------------------------------------------------

    def end_transaction(
        self, transactional_id: str, producer_id: int, producer_epoch: int, commit: bool
    ) -> tuple[int, int]:
        """Commits or aborts; for readers as one, and after a crash, too.

        Returns
        -------
        tuple[int, int]
            Producer id and epoch of the next transaction: nothing that comes late can touch that one (KIP-890).

        Raises
        ------
        ProducerFencedError, InvalidProducerEpochError
        InvalidTxnStateError
            It has ended the other way.
        StorageFailureError
            What has become of a commit is known at the next start, unless this is a `DiskFullError`: then it can be asked
            for again.
        ReadOnlyError, ClosedError

        Notes
        -----
        Interrupted, it can be called again.
        """
        self._check_writable()
        known = self._existing(transactional_id)
        with known.lock:
            if (producer_id, producer_epoch) == known.ended:
                if known.status.is_commit != commit:
                    raise InvalidTxnStateError(
                        f"the transaction of {transactional_id!r} was {'committed' if known.status.is_commit else 'aborted'}"
                        " already"
                    )
            else:
                self._check_producer(known, producer_id, producer_epoch)
                if known.status.is_prepared:
                    self._finish(known)
                if known.status is Status.ONGOING or not commit:
                    self._decide(known, commit)
                else:
                    return known.producer_id, known.producer_epoch  # nothing was written
            try:
                self._finish(known)
            except ConcurrentTransactionsError as error:
                transaction_logger().warning("%s", error)  # it is decided, and told to readers as soon as possible
            return (known.producer_id, known.producer_epoch)

    # ---- timeouts -----------------------------------------------------------------------------------

    def _watch(self, deadline_ms: float) -> None:
        """Has transactions looked at when one of them is due."""
        if deadline_ms < self._timer_ms:
            self._timer_ms = deadline_ms
            self._schedule(max(deadline_ms - self._now_ms(), 0) + 1, self._abort_when_due)

    def _abort_when_due(self) -> None:
        if self._is_closed:
            return
        self._timer_ms = math.inf
        try:
            self.abort_timed_out()
        except LogstoreError as error:
            transaction_logger().warning("transactions that timed out could not be aborted yet: %s", error)
            self._watch(self._now_ms() + RETRY_MS)

    def abort_timed_out(self) -> list[str]:
        """Aborts transactions that are open for longer than their producers asked for; done by itself, too.

        Returns
        -------
        list[str]
            Their transactional ids.
        """
        aborted = []
        for known in list(self._transactions.values()):
            if known.status is not Status.ONGOING:
                continue
            with known.lock:
                if known.status is not Status.ONGOING:
                    continue
                if self._now_ms() - known.start_ms < known.timeout_ms:
                    self._watch(known.start_ms + known.timeout_ms)
                    continue
                epoch = known.producer_epoch
                self._decide(known, False)
                # Its producer may go on, but has to learn of it first: only an abort is answered as done already.
                known.expires_epoch = epoch
                known.ended = (-1, -1)
                aborted.append(known.transactional_id)
                self._finish(known)
        return aborted

    # ---- looking after them -------------------------------------------------------------------------

    def _existing(self, transactional_id: str) -> Transaction:
        with self._lock:
            self._make_ready()
            known = self._transactions.get(transactional_id)
        if known is None:
            raise TransactionalIdNotFoundError(f"no producer of {self._broker.path} has transactional_id "
                                               f"{transactional_id!r}; `logstore transaction list` shows them all")
        return known

    def list_transactions(self, states: Collection[str] | None = None) -> list[TransactionListing]:
        """All transactional ids, sorted; only those in one of ``states``, if given."""
        with self._lock:
            self._make_ready()
            listed = sorted(self._transactions.items())
        return [
            TransactionListing(name, known.producer_id, known.status.label)
            for name, known in listed
            if states is None or known.status.label in states
        ]

    def describe_transaction(self, transactional_id: str) -> TransactionDescription:
        """One transactional id, with what its open transaction has touched.

        Raises
        ------
        TransactionalIdNotFoundError
        """
        known = self._existing(transactional_id)
        value = known.value()
        return TransactionDescription(
            transactional_id, value.status.label, value.producer_id, value.producer_epoch, value.timeout_ms,
            value.start_ms if value.status is Status.ONGOING or value.status.is_prepared else -1,
            value.updated_ms, value.partitions,
        )

    def abort_transaction(self, transactional_id: str) -> bool:
        """Aborts what is open under a transactional id, and shuts its producer out.

        Returns
        -------
        bool
            Whether anything was open.

        Raises
        ------
        TransactionalIdNotFoundError
        InvalidTxnStateError
            It is committed, and can't be taken back.
        StorageFailureError, ReadOnlyError, ClosedError
        """
        self._check_writable()
        known = self._existing(transactional_id)
        with known.lock:
            if known.status is Status.PREPARE_COMMIT:
                self._finish(known)
                raise InvalidTxnStateError(f"the transaction of {transactional_id!r} is committed, and can't be taken back")
            was_open = known.status is Status.ONGOING
            self._end_open(known)
            if was_open:
                known.ended = (-1, -1)
            return was_open

    def close(self) -> None:
        """Ends nothing: what is open is aborted by its producer, or at the next start. Idempotent."""
        self._write_states()
        self._is_closed = True

    def forked(self) -> None:
        """In a forked child: the transactions belong to the parent."""
        self._is_closed = True
        self._lock = threading.RLock()

    def _check_writable(self) -> None:
        if self._is_closed:
            raise ClosedError(f"the broker of {self._broker.path} is closed; open it again")
        if self._broker.read_only:
            raise ReadOnlyError(f"{self._broker.path} is open for reading only; transactions need a broker that writes")
