"""Transactions of a producer: records and committed offsets that are seen all together, or not at all."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from logstore._native.producer_core import ProducerCore
from logstore.clients.transaction_scope import Transaction
from logstore.errors import (
    ClosedError,
    DeliveryFailedError,
    InvalidProducerEpochError,
    InvalidRequestError,
    InvalidTxnStateError,
    LogstoreError,
    ProducerFencedError,
    TransactionAbortedError,
)
from logstore.model import GroupMetadata, OffsetAndMetadata, TopicPartition

if TYPE_CHECKING:
    from logstore.broker_api import BrokerApi
    from logstore.clients.consumer import Consumer
    from logstore.clients.producer_settings import ProducerSettings

__all__ = ["TransactionalProducer"]


class TransactionalProducer(ProducerCore):
    """A producer's identity and transactions. `logstore.clients.producer.Producer` is what is used."""

    settings: ProducerSettings
    _identity: BrokerApi
    _is_initialized = False
    _is_fenced = False
    _ending: str = ""  # "commit" or "abort", from when it is asked for until it is through

    def _take_identity(self, broker: BrokerApi) -> None:
        self._identity = broker
        if self.settings.transactional_id is not None:
            self._be_transactional()
        elif self.settings.enable_idempotence:
            self._take_producer_id(*broker.transaction_coordinator.init_producer_id())

    @abstractmethod
    def _check_open(self) -> None:
        """Raises if the producer is closed."""

    @abstractmethod
    def _deliver_all(self, timeout: float | None) -> None:
        """Returns once everything sent so far is acknowledged, or has failed."""

    @abstractmethod
    async def _settle_all(self) -> None:
        """The same for tasks."""

    # ---- the five calls -----------------------------------------------------------------------------

    def _transactional_id(self) -> str:
        self._check_open()
        if self.settings.transactional_id is None:
            raise InvalidTxnStateError("this producer has no transactions; broker.producer(transactional_id=...) makes one")
        if self._is_fenced:
            raise ProducerFencedError(
                f"another producer has taken transactional_id {self.settings.transactional_id!r} over; close this one"
            )
        return self.settings.transactional_id

    def init_transactions(self) -> None:
        """Takes the ``transactional_id`` over: whoever had it is shut out, and its open transaction aborted.

        Raises
        ------
        InvalidTxnStateError
            The producer has no ``transactional_id``.
        InvalidTransactionTimeoutError, StorageFailureError, ClosedError

        Notes
        -----
        Thread-safe. `begin_transaction` does it where it was not done; doing it first shuts the predecessor out earlier.
        """
        transactional_id = self._transactional_id()
        if not self._is_initialized:
            self._take_producer_id(
                *self._identity.transaction_coordinator.init_producer_id(
                    transactional_id, int(self.settings.transaction_timeout * 1000)
                )
            )
            self._is_initialized = True

    def begin_transaction(self) -> None:
        """Opens a transaction; `send` takes records until it is committed or aborted.

        Raises
        ------
        InvalidTxnStateError
            One is open already, or the producer has no ``transactional_id``.
        ProducerFencedError, StorageFailureError, ClosedError

        Notes
        -----
        A producer has one transaction at a time, which all threads that send through it share.
        """
        self._transactional_id()
        if self.in_transaction:
            raise InvalidTxnStateError("a transaction is open; commit_transaction() or abort_transaction() it first")
        self.init_transactions()
        self._ending = ""
        self._begin()

    def send_offsets_to_transaction(
        self,
        offsets: Mapping[Any, int | OffsetAndMetadata],
        group: str | GroupMetadata | Consumer,
    ) -> None:
        """Commits a group's offsets as part of the transaction.

        Parameters
        ----------
        offsets : mapping of (topic, partition) to int or OffsetAndMetadata
            Of each partition the offset of the next record to read.
        group : Consumer, GroupMetadata or str
            A consumer of the group, or its `group_metadata`: then one that has lost its partitions to others is refused.
            A group's name alone refuses nobody.

        Raises
        ------
        InvalidTxnStateError
            No transaction is open.
        GroupError, UnknownTopicOrPartitionError
            The transaction can only be aborted.
        ProducerFencedError, InvalidProducerEpochError, StorageFailureError, ClosedError
        """
        self._check_in_transaction()
        metadata = _metadata_of(group)
        checked = {}
        for partition, offset in offsets.items():
            if not isinstance(partition, tuple) or len(partition) != 2:
                raise InvalidRequestError(f"a partition must be a tuple such as (\"orders\", 0), not {partition!r}")
            checked[TopicPartition(*partition)] = (
                offset if isinstance(offset, OffsetAndMetadata) else OffsetAndMetadata(offset)
            )
        if not checked:
            return
        try:
            self._identity.transaction_coordinator.add_offsets(self.producer_id, self.producer_epoch, metadata.group)
            self._identity.coordinator.commit_transactional_offsets(
                metadata.group, checked, producer_id=self.producer_id, producer_epoch=self.producer_epoch,
                generation=metadata.generation, member_id=metadata.member_id, group_instance_id=metadata.group_instance_id,
            )
        except BaseException as error:
            self._fail_transaction(error)
            raise

    def commit_transaction(self) -> None:
        """Delivers what was sent, and has all of it seen at once, as durably as the broker is.

        Raises
        ------
        InvalidTxnStateError
            No transaction is open, or it is being aborted.
        DeliveryFailedError
            A record was not delivered. The transaction can only be aborted.
        InvalidProducerEpochError
            It was open for more than ``transaction_timeout``, and was aborted; call `abort_transaction`.
        ProducerFencedError
            Another producer has the ``transactional_id`` now.
        StorageFailureError
            Whether it is committed is known at the next start, all of it or nothing; after a `DiskFullError` it can be
            tried again, or aborted.

        Notes
        -----
        Thread-safe. Interrupted by Ctrl-C, it can be called again.
        """
        self._check_in_transaction("commit")
        self._stop_taking()
        self._deliver_all(None)
        self._check_committable()
        self._end_transaction(commit=True)

    def _check_committable(self) -> None:
        """Everything is delivered, or has failed, which is told here."""
        if self._transaction_error is not None:
            error = self._transaction_error
            if isinstance(error, InvalidProducerEpochError):
                self._note(error)
                raise error
            counts, first = self._take_failures()
            places = {TopicPartition(*place): count for place, count in counts.items()}
            if places:
                raise DeliveryFailedError(places, first) from first
            raise InvalidTxnStateError(
                f"the transaction can only be aborted, since something in it has failed: {error}"
            ) from error

    def abort_transaction(self) -> None:
        """Takes back all that was sent and committed since `begin_transaction`: no reader of committed records sees it.

        Futures of records that were not handed over yet have a `TransactionAbortedError`.

        Raises
        ------
        InvalidTxnStateError
            No transaction is open, or its commit has begun.
        ProducerFencedError, StorageFailureError, ClosedError

        Notes
        -----
        Thread-safe. Interrupted by Ctrl-C, it can be called again.
        """
        self._take_back()
        self._end_transaction(commit=False)

    def _take_back(self) -> None:
        self._check_in_transaction("abort")
        self._stop_taking()
        self._abandon(TransactionAbortedError("the record's transaction was aborted before it was handed over"))
        self._take_failures()  # what was to be delivered is taken back anyway

    # ---- for tasks ----------------------------------------------------------------------------------

    async def init_transactions_async(self) -> None:
        """`init_transactions` for tasks: the event loop goes on meanwhile."""
        self._transactional_id()
        if not self._is_initialized:
            await _in_thread(self.init_transactions)

    async def commit_transaction_async(self) -> None:
        """`commit_transaction` for tasks: the event loop goes on meanwhile.

        Cancelled before everything is delivered, nothing is decided. Cancelled later, the commit goes on to its end.

        Raises
        ------
        As `commit_transaction`.
        """
        self._check_in_transaction("commit")
        self._stop_taking()
        await self._settle_all()
        self._check_committable()
        self._ending = "commit"
        await _in_thread(lambda: self._end_transaction(commit=True))

    async def abort_transaction_async(self) -> None:
        """`abort_transaction` for tasks; cancelled, it goes on to its end.

        Raises
        ------
        As `abort_transaction`.
        """
        self._take_back()
        self._ending = "abort"
        await _in_thread(lambda: self._end_transaction(commit=False))

    @property
    def _is_committing(self) -> bool:
        """Whether a commit may be on its way."""
        return self._ending == "commit"

    def transaction(self) -> Transaction:
        """A transaction as a context: committed where the block ends, aborted where it raises.

        Examples
        --------
        ::

            with producer.transaction() as transaction:
                transaction.send("invoices", invoice, key=b"sarah")
                transaction.send_offsets({("orders", 0): 42}, "billing")

        In a task, ``async with producer.transaction() as transaction:``.
        """
        return Transaction(self)

    # ---- the end ------------------------------------------------------------------------------------

    def _check_in_transaction(self, end: str = "") -> None:
        self._transactional_id()
        if not self.in_transaction:
            raise InvalidTxnStateError("no transaction is open; begin_transaction() opens one")
        if self._ending and self._ending != end:
            raise InvalidTxnStateError(
                f"the {self._ending} of this transaction has begun; call {self._ending}_transaction() again"
            )

    def _end_transaction(self, *, commit: bool) -> None:
        assert self.settings.transactional_id is not None
        self._ending = "commit" if commit else "abort"
        coordinator = self._identity.transaction_coordinator
        try:
            identity = coordinator.end_transaction(
                self.settings.transactional_id, self.producer_id, self.producer_epoch, commit
            )
        except InvalidProducerEpochError as error:
            if commit or isinstance(error, ProducerFencedError):
                self._note(error)
                raise
            # It timed out, and was aborted: the same producer goes on.
            identity = coordinator.init_producer_id(
                self.settings.transactional_id, int(self.settings.transaction_timeout * 1000),
                producer_id=self.producer_id, producer_epoch=self.producer_epoch,
            )
        except LogstoreError as error:
            if error.retriable:
                self._ending = ""  # nothing was decided
            raise
        self._take_producer_id(*identity)
        self._ending = ""
        self._end()

    def _note(self, error: InvalidProducerEpochError) -> None:
        self._ending = ""
        if isinstance(error, ProducerFencedError):
            self._is_fenced = True
            self._abandon(TransactionAbortedError("another producer has the transactional_id now; its start aborted this"))
            self._end()

    async def _abort_if_open_async(self) -> None:
        if self.in_transaction:
            await _in_thread(self._abort_if_open)

    def _abort_if_open(self) -> None:
        """For the close: what was not committed is taken back, and a commit that was interrupted carried through."""
        if not self.in_transaction:
            return
        self._abandon(TransactionAbortedError("the producer was closed within the transaction, which aborts it"))
        try:
            self._end_transaction(commit=self._ending == "commit")
        except ClosedError:
            pass
        except LogstoreError as error:
            import logging

            logging.getLogger("logstore.clients").warning("an open transaction could not be ended: %s", error)
        self._end()


async def _in_thread(step: Callable[[], None]) -> None:
    """What waits for the disk, beside the event loop; whoever waits for it may be cancelled, the step is not."""
    import asyncio

    await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, step))


def _metadata_of(group: object) -> GroupMetadata:
    if isinstance(group, GroupMetadata):
        return group
    if isinstance(group, str):
        return GroupMetadata(group)
    found = getattr(group, "group_metadata", None)
    if not callable(found):
        raise InvalidRequestError(f"a group is given by its name, a consumer or its group_metadata(), not {group!r}")
    metadata = found()
    assert isinstance(metadata, GroupMetadata)
    return metadata
