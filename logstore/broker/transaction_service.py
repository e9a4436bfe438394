"""What a broker offers for transactions: their coordinator, and the methods by which people look after them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from logstore.broker.group_service import GroupService
from logstore.broker.offsets_topic import TRANSACTIONS_TOPIC
from logstore.errors import LogstoreError
from logstore.storage.producer_state import NONE_OPEN

if TYPE_CHECKING:
    from logstore.broker.topic import Topic
    from logstore.broker.transaction_coordinator import TransactionCoordinator
    from logstore.broker_api import TransactionDescription, TransactionListing
    from logstore.storage.log import Log

__all__ = ["TransactionService"]


class TransactionService(GroupService):
    """The transaction side of a broker. `logstore.broker.Broker` is what is used."""

    _topics: dict[str, Topic]
    _transaction_coordinator: TransactionCoordinator | None = None

    def logs(self) -> Iterator[Log]:
        """The logs of all topics, internal ones as well."""
        for topic in list(self._topics.values()):
            yield from topic.logs

    @property
    def transaction_coordinator(self) -> TransactionCoordinator:
        """Transactions as clients use them; see `logstore.broker_api.TransactionCoordinatorApi`."""
        if self._transaction_coordinator is None:
            from logstore.broker.transaction_coordinator import TransactionCoordinator

            with self._lock:
                self._check_open()
                if self._transaction_coordinator is None:
                    self._transaction_coordinator = TransactionCoordinator(
                        self._as_broker(), schedule=self._scheduler.schedule
                    )
        return self._transaction_coordinator

    def _has_open_transactions(self) -> bool:
        """Whether a log waits for the end of a transaction, and there is anybody who would know of it."""
        return TRANSACTIONS_TOPIC in self._topics and any(log.first_unstable_offset != NONE_OPEN for log in self.logs())

    def _settle_transactions(self) -> None:
        """After opening: ends transactions that a crash has left open."""
        if self._has_open_transactions():
            from logstore.broker.transactions_topic import transaction_logger

            try:
                self.transaction_coordinator.settle()
            except LogstoreError as error:
                transaction_logger().error("open transactions could not be ended yet: %s", error)

    def transactions(self, states: Collection[str] | None = None) -> list[TransactionListing]:
        """All transactional ids, sorted.

        Parameters
        ----------
        states : collection of str, optional
            Only those in one of these: ``"Ongoing"``, ``"PrepareCommit"``, ``"CompleteAbort"``, ...
        """
        return self.transaction_coordinator.list_transactions(states)

    def describe_transaction(self, transactional_id: str) -> TransactionDescription:
        """One transactional id, and the partitions that its open transaction has touched.

        Raises
        ------
        TransactionalIdNotFoundError
        """
        return self.transaction_coordinator.describe_transaction(transactional_id)

    def abort_transaction(self, transactional_id: str) -> bool:
        """Aborts the transaction that is open under a transactional id; its producer is shut out.

        Returns
        -------
        bool
            Whether anything was open.

        Raises
        ------
        TransactionalIdNotFoundError, StorageFailureError, ReadOnlyError, ClosedError
        """
        return self.transaction_coordinator.abort_transaction(transactional_id)
