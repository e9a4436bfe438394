"""One transaction as a context, for threads and for tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from logstore.errors import LogstoreError
from logstore.model import GroupMetadata, OffsetAndMetadata

if TYPE_CHECKING:
    from logstore.clients.consumer import Consumer
    from logstore.clients.transactions import TransactionalProducer

__all__ = ["Transaction"]


class Transaction:
    """What ``with producer.transaction() as transaction:`` gives. Commits at the end of the block; aborts if it raises.

    In a task, ``async with`` does the same, and the event loop goes on meanwhile.

    Attributes
    ----------
    producer : Producer
    """

    __slots__ = ("producer",)

    def __init__(self, producer: TransactionalProducer):
        self.producer = producer

    def send(self, *arguments: Any, **options: Any) -> Any:
        """`Producer.send`."""
        return self.producer.send(*arguments, **options)

    def send_offsets(
        self,
        offsets: Mapping[Any, int | OffsetAndMetadata],
        group: str | GroupMetadata | Consumer,
    ) -> None:
        """`Producer.send_offsets_to_transaction`."""
        self.producer.send_offsets_to_transaction(offsets, group)

    def __enter__(self) -> Self:
        self.producer.begin_transaction()
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if kind is None:
            try:
                self.producer.commit_transaction()
            except Exception:
                self._abort_after_error()
                raise
        else:
            self._abort_after_error()

    def _abort_after_error(self) -> None:
        """The error that ended the block is what its caller has to see."""
        try:
            self.producer.abort_transaction()
        except LogstoreError as error:
            _not_aborted(error)

    # ---- asyncio ------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self.producer._never_block()
        await self.producer.init_transactions_async()
        self.producer.begin_transaction()
        return self

    async def __aexit__(self, kind: object, error: object, traceback: object) -> None:
        if kind is None:
            try:
                await self.producer.commit_transaction_async()
            except BaseException:  # a task that is cancelled calls nothing again
                if not self.producer._is_committing:
                    await self._abort_after_error_async()
                raise
        else:
            await self._abort_after_error_async()

    async def _abort_after_error_async(self) -> None:
        try:
            await self.producer.abort_transaction_async()
        except LogstoreError as error:
            _not_aborted(error)


def _not_aborted(error: LogstoreError) -> None:
    import logging

    logging.getLogger("logstore.clients").warning("the transaction could not be aborted now: %s", error)
