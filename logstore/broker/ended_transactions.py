"""How a transaction ends: the decision, durably and with all that it speaks of; then the markers, and what follows them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from logstore.broker.producer_ids import ProducerIds
from logstore.broker.stored_transactions import RETRY_MS, StoredTransactions
from logstore.broker.transaction_state import MARKER_EPOCH_MAX, Status, Transaction, TransactionValue
from logstore.broker.transactions_topic import transaction_logger
from logstore.errors import ClosedError, ConcurrentTransactionsError, LogstoreError
from logstore.storage.flush_together import flush_together

if TYPE_CHECKING:
    from logstore.broker.broker import Broker

__all__ = ["EndedTransactions"]


class EndedTransactions(StoredTransactions):
    """The end of transactions. `logstore.broker.transaction_coordinator.TransactionCoordinator` is what is used."""

    def __init__(
        self, broker: Broker, wall_clock_ms: Callable[[], int], schedule: Callable[[float, Callable[[], None]], None]
    ):
        super().__init__(broker, wall_clock_ms, schedule)
        self._producer_ids = ProducerIds(broker.path, self._highest_producer_id)

    def _decide(self, known: Transaction, commit: bool) -> None:
        """Settles how a transaction ends. Its lock is held."""
        before = (known.status, known.updated_ms, known.ended)
        known.updated_ms = self._now_ms()
        known.ended = (known.producer_id, known.producer_epoch)
        known.marked = set()
        # From here on what was interrupted is taken up by `_finish`.
        known.status = Status.PREPARE_COMMIT if commit else Status.PREPARE_ABORT
        known.producer_epoch += 1
        known.is_recorded = not commit  # a decision to abort needs no record: without one it is aborted, too
        self._unwritten.discard(known)
        if commit:
            self._record_decision(known, before)

    def _record_decision(
        self, known: Transaction, before: tuple[Status, int, tuple[int, int]] | None = None
    ) -> None:
        """Writes a commit down, and has the disk take it together with all that was written in the transaction.

        One round of flushes is enough, since the record says up to where each log has to be there for it to count: after a
        crash that had taken some of it, the transaction is aborted. ``before`` is what is gone back to where nothing was
        written.
        """
        places = {}
        for partition in (partitions := tuple(sorted(known.partitions))):
            if (log := self._log_of(partition)) is not None:
                places[partition] = (log, log.log_end_offset)
        value = TransactionValue(
            known.producer_id, known.producer_epoch, known.timeout_ms, known.status, partitions, known.updated_ms,
            known.start_ms,
        )
        try:
            ends = {partition: end_offset for partition, (_, end_offset) in places.items()}
            place = self._write(known.transactional_id, value, ends)
        except Exception as error:
            if before is not None and getattr(error, "retriable", False):
                known.status, known.updated_ms, known.ended = before
                known.producer_epoch -= 1
                known.is_recorded = True
            raise
        if self._is_flushed or any(log.config["logstore.durability"] == "flushed" for log, _ in places.values()):
            flush_together([place, *places.values()])
        known.is_recorded = True

    def _finish(self, known: Transaction) -> None:
        """Carries a decision out. Its lock is held; what is done already is not done again.

        Raises
        ------
        ConcurrentTransactionsError
            A partition can't be told now; it is tried again soon.
        """
        if not known.status.is_prepared:
            return
        if not known.is_recorded:
            self._record_decision(known)
        commit = known.status.is_commit
        identity = known.producer_id, known.producer_epoch
        try:
            self._settle(known.producer_id)
            self._mark_all(known)
            known.updated_ms = self._now_ms()
            value = TransactionValue(
                *identity, known.timeout_ms, Status.COMPLETE_COMMIT if commit else Status.COMPLETE_ABORT, (),
                known.updated_ms, known.start_ms,
            )
            if known.producer_epoch + 1 >= MARKER_EPOCH_MAX:
                value = value._replace(producer_id=self._producer_ids.take(), producer_epoch=0)
                self._write_durably(known.transactional_id, value)
        except LogstoreError as error:
            if isinstance(error, ClosedError):
                raise
            self._schedule(RETRY_MS, lambda: self._finish_later(known))
            raise ConcurrentTransactionsError(
                f"the transaction of {known.transactional_id!r} is {'committed' if commit else 'aborted'}, but not all of "
                f"its partitions can be told yet: {error}"
            ) from error
        known.partitions = set()
        known.status, known.producer_id, known.producer_epoch = value.status, value.producer_id, value.producer_epoch
        self._by_producer[known.producer_id] = known
        self._write_soon(known)

    def _mark_all(self, known: Transaction) -> None:
        """A partition that can't be told keeps none of the others waiting."""
        failure: LogstoreError | None = None
        for partition in sorted(known.partitions - known.marked):
            try:
                self._mark(partition, known.producer_id, known.producer_epoch, known.status.is_commit)
            except LogstoreError as error:
                failure = failure or error
            else:
                known.marked.add(partition)
        if failure is not None:
            raise failure

    def _finish_later(self, known: Transaction) -> None:
        with known.lock, contextlib.suppress(ClosedError):
            try:
                self._finish(known)
            except ConcurrentTransactionsError as error:
                transaction_logger().warning("%s", error)

    def _end_open(self, known: Transaction) -> None:
        """Aborts what is open, and carries out what is decided. Its lock is held."""
        if known.status is Status.ONGOING:
            self._decide(known, False)
        self._finish(known)
