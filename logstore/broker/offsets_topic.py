"""The internal topic ``__consumer_offsets``: which partition a group is in, and appending to it."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from logstore._native.record_batch_builder import RecordBatchBuilder
from logstore.errors import UnknownTopicOrPartitionError
from logstore.model import Headers
from logstore.storage.config import INT64_MAX, TopicConfig
from logstore.storage.log import Log

if TYPE_CHECKING:
    from logstore.broker.broker import Broker

__all__ = [
    "OFFSETS_TOPIC", "TRANSACTIONS_TOPIC", "OffsetsTopic", "in_batches", "internal_topic_config", "java_string_hash",
]

OFFSETS_TOPIC = "__consumer_offsets"
TRANSACTIONS_TOPIC = "__transaction_state"


@functools.lru_cache(4096)
def java_string_hash(text: str) -> int:
    """Java's ``String.hashCode``: over UTF-16 units, in 32 bits with a sign."""
    value = 0
    units = text.encode("utf-16-be", "surrogatepass")
    for at in range(0, len(units), 2):
        value = (31 * value + (units[at] << 8 | units[at + 1])) & 0xFFFFFFFF
    return value - (1 << 32) if value & 0x80000000 else value


def internal_topic_config(name: str, segment_bytes: int = 104_857_600) -> TopicConfig:
    """Settings of a topic whose own are not known: an internal one is compacted, lest committed offsets be deleted."""
    if name not in (OFFSETS_TOPIC, TRANSACTIONS_TOPIC):
        return TopicConfig()
    return TopicConfig(
        {
            "cleanup.policy": "compact",
            "compression.type": "producer",
            "segment.bytes": segment_bytes,
            # Its records carry the coordinator's clock, not a client's.
            "message.timestamp.after.max.ms": INT64_MAX,
        }
    )


class OffsetsTopic:
    """``__consumer_offsets`` of one broker; made when something is written to it first."""

    name = OFFSETS_TOPIC
    partitions_setting = "offsets.topic.num.partitions"
    segment_bytes_setting = "offsets.topic.segment.bytes"

    def __init__(self, broker: Broker):
        self._broker = broker
        self._logs: tuple[Log, ...] = ()
        # A broker that acknowledges records before they are handed over does not do so with offsets: they are few.
        self._is_flushed = broker.durability == "flushed"

    def logs(self) -> tuple[Log, ...]:
        """Its partitions, whose number never changes; none where it does not exist yet."""
        if not self._logs:
            with contextlib.suppress(UnknownTopicOrPartitionError):
                self._logs = self._broker.topic(self.name).logs
        return self._logs

    def log_of(self, group: str) -> Log:
        """The partition that holds a group; the topic is made if it is missing.

        Raises
        ------
        StorageFailureError, ReadOnlyError, ClosedError
        """
        logs = self.logs()
        if not logs:
            config = self._broker.config
            logs = self._logs = self._broker.create_topic(
                self.name,
                config[self.partitions_setting],
                internal_topic_config(self.name, config[self.segment_bytes_setting]).overrides(),
                exist_ok=True,
            ).logs
        return logs[(java_string_hash(group) & 0x7FFFFFFF) % len(logs)]

    def append(
        self,
        group: str,
        records: Sequence[tuple[bytes, bytes | None]],
        timestamp: int,
        producer: tuple[int, int, int] | None = None,
        headers: Headers | None = None,
    ) -> tuple[Log, range]:
        """Appends keys and values as one batch, all or none of it; not yet flushed.

        Parameters
        ----------
        producer : tuple[int, int, int], optional
            Producer id, epoch and base sequence, of a batch that belongs to a transaction.
        headers : sequence of (str, bytes or None), optional
            Of each record.

        Returns
        -------
        Log, range
            Where they are, for `flush`.

        Raises
        ------
        RecordTooLargeError
            The batch is over ``max.message.bytes``.
        StorageFailureError, ReadOnlyError, ClosedError
        """
        builder = RecordBatchBuilder()
        for key, value in records:
            builder.append(value, key, headers=headers, timestamp=timestamp)
        log = self.log_of(group)
        producer_id, producer_epoch, base_sequence = producer or (-1, -1, -1)
        batch = builder.build(
            topic=log.topic, partition=log.partition, transactional=producer is not None, producer_id=producer_id,
            producer_epoch=producer_epoch, base_sequence=base_sequence, with_keys=True,
        )
        base_offset, _ = log.append_built(batch, durability="appended")
        return log, range(base_offset, base_offset + len(records))

    def flush(self, log: Log, offsets: range) -> None:
        """Returns once records are as durable as the broker promises; callers at the same time share one fdatasync.

        Raises
        ------
        StorageFailureError, ClosedError
        """
        if self._is_flushed:
            log.flush_until(offsets.stop)


def in_batches(
    records: Iterable[tuple[bytes, bytes | None]], bytes_max: int = 500_000
) -> Iterable[list[tuple[bytes, bytes | None]]]:
    """Records in lists that fit a batch each, for changes that need not be atomic."""
    batch: list[tuple[bytes, bytes | None]] = []
    size_bytes = 0
    for record in records:
        record_bytes = len(record[0]) + len(record[1] or b"") + 32
        if batch and size_bytes + record_bytes > bytes_max:
            yield batch
            batch, size_bytes = [], 0
        batch.append(record)
        size_bytes += record_bytes
    if batch:
        yield batch
