"""The internal topic ``__transaction_state``: what becomes of each transaction, durably."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from logstore.broker.committed_offsets import LogReplay
from logstore.broker.offsets_schema import MalformedRecordError
from logstore.broker.offsets_topic import TRANSACTIONS_TOPIC, OffsetsTopic
from logstore.broker.transaction_state import (
    ENDS_HEADER,
    TransactionValue,
    decode_ends,
    decode_transaction_key,
    decode_transaction_value,
    encode_ends,
    encode_transaction_key,
    encode_transaction_value,
)
from logstore.errors import CorruptDataError
from logstore.model import TopicPartition
from logstore.storage.log import Log

__all__ = ["ReplayedTransaction", "TransactionReplay", "TransactionsTopic", "transaction_logger"]


class ReplayedTransaction(NamedTuple):
    """One record; a value of None is a tombstone. ``ends`` is where the logs of a commit ended, if the record says so."""

    transactional_id: str
    value: TransactionValue | None
    ends: Mapping[TopicPartition, int]


class TransactionsTopic(OffsetsTopic):
    """``__transaction_state`` of one broker; made when something is written to it first."""

    name = TRANSACTIONS_TOPIC
    partitions_setting = "transaction.state.log.num.partitions"
    segment_bytes_setting = "transaction.state.log.segment.bytes"

    def write(
        self, transactional_id: str, value: TransactionValue, ends: Mapping[TopicPartition, int] | None = None
    ) -> tuple[Log, int]:
        """Notes a transaction as it is; not flushed yet.

        Parameters
        ----------
        ends : mapping, optional
            Of a decision to commit: up to where each log has to be on disk for it to count.

        Returns
        -------
        Log, int
            The partition, and the offset behind the record.

        Raises
        ------
        StorageFailureError, ReadOnlyError, ClosedError
        """
        record = (encode_transaction_key(transactional_id), encode_transaction_value(value))
        headers = None if ends is None else [(ENDS_HEADER, encode_ends(ends))]
        log, offsets = self.append(transactional_id, [record], value.updated_ms, headers=headers)
        return log, offsets.stop

    def remove(self, transactional_id: str, now_ms: int) -> None:
        """Writes a tombstone.

        Raises
        ------
        StorageFailureError, ReadOnlyError, ClosedError
        """
        self.append(transactional_id, [(encode_transaction_key(transactional_id), None)], now_ms)


class TransactionReplay(LogReplay):
    """Reads one partition of ``__transaction_state``, from its start and later on from where it has come to."""

    def records(self) -> Iterator[ReplayedTransaction]:
        """All records not read yet, in order."""
        for batch in self._batches():
            if batch.is_control:
                continue
            try:
                for record in batch:
                    value = record.value
                    try:
                        headers = dict(record.headers)
                        yield ReplayedTransaction(
                            decode_transaction_key(record.key or b""),
                            None if value is None else decode_transaction_value(value),
                            decode_ends(headers.get(ENDS_HEADER) or b""),
                        )
                    except MalformedRecordError as error:
                        transaction_logger().warning(
                            "%s: the record at offset %d is skipped: %s", self.log.path, record.offset, error
                        )
            except CorruptDataError as error:
                transaction_logger().error("%s: transactions that can't be read are skipped: %s", self.log.path, error)


def transaction_logger() -> Any:
    """Where warnings about transactions go; logging loads with the first."""
    import logging

    return logging.getLogger("logstore.transactions")
