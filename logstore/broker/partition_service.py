"""The data side of `logstore.broker_api.BrokerApi`, answered from the logs of this process."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING

from logstore._native.columns import ColumnCursor
from logstore._native.log_cursor import LogCursor
from logstore._native.record_batch import RecordBatch
from logstore.broker.following import Follower
from logstore.broker.topic import Topic
from logstore.errors import ClosedError, UnknownTopicOrPartitionError
from logstore.model import Durability, IsolationLevel, OffsetAndTimestamp, TopicPartition
from logstore.storage.log_producers import is_committed

if TYPE_CHECKING:
    from logstore.broker.transaction_coordinator import TransactionCoordinator
    from logstore.broker_api import TopicLimits, Wakeable

__all__ = ["PartitionService"]


class PartitionService:
    """Producing to and fetching from partitions by name and number. `logstore.broker.Broker` is what is used."""

    durability: Durability
    _lock: threading.RLock
    _topics: dict[str, Topic]
    _follower: Follower | None = None  # of a broker that only reads
    _metadata_version: int = 0
    _metadata_waiters: frozenset[Wakeable] = frozenset()

    @abstractmethod
    def topic(self, name: str) -> Topic:
        """A topic by its name."""

    @property
    @abstractmethod
    def transaction_coordinator(self) -> TransactionCoordinator:
        """Transactions."""

    @abstractmethod
    def topics(self) -> list[str]:
        """Names of all topics that are not internal."""

    # ---- metadata -----------------------------------------------------------------------------------

    @property
    def metadata_version(self) -> int:
        """Rises whenever a topic comes, goes, or gains partitions."""
        return self._metadata_version

    def add_metadata_waiter(self, waiter: Wakeable) -> None:
        """Has ``waiter.notify()`` called whenever `metadata_version` has risen."""
        with self._lock:
            self._metadata_waiters |= {waiter}
        if self._follower is not None:
            self._follower.follow_topics()

    def remove_metadata_waiter(self, waiter: Wakeable) -> None:
        """Takes `add_metadata_waiter` back."""
        with self._lock:
            self._metadata_waiters -= {waiter}
        if self._follower is not None:
            self._follower.unfollow_topics()

    def _metadata_changed(self) -> None:
        self._metadata_version += 1
        for waiter in self._metadata_waiters:
            waiter.notify()

    def partition_counts(self, topics: Iterable[str] | None = None) -> dict[str, int]:
        """Number of partitions by topic; unknown topics are left out."""
        names = self.topics() if topics is None else topics
        found = ((name, self._topics.get(name)) for name in names)
        return {name: topic.partitions for name, topic in found if topic is not None}

    def topic_limits(self, topic: str) -> TopicLimits:
        """What a producer has to know of a topic.

        Raises
        ------
        UnknownTopicOrPartitionError
        """
        from logstore.broker_api import TopicLimits

        found = self.topic(topic)
        config = found.config
        return TopicLimits(
            partitions=found.partitions,
            message_bytes_max=min(config["max.message.bytes"], config["segment.bytes"]),
            keys_required=config.is_compacted,
            durability=config["logstore.durability"] or self.durability,
            is_append_time=config["message.timestamp.type"] == "LogAppendTime",
            codec=config.codec,
            codec_level=config.codec_level,
            timestamp_before_max_ms=config["message.timestamp.before.max.ms"],
            timestamp_after_max_ms=config["message.timestamp.after.max.ms"],
        )

    # ---- records ------------------------------------------------------------------------------------

    def produce(
        self,
        topic: str,
        partition: int,
        batch: RecordBatch,
        *,
        durability: Durability = "appended",
        expected_offset: int | None = None,
    ) -> tuple[int, int]:
        """Appends one batch a client has built; see `logstore.broker_api.BrokerApi.produce`."""
        log = self.topic(topic).partition(partition)
        if batch.is_transactional:
            self.transaction_coordinator.add_partition(
                batch.producer_id, batch.producer_epoch, TopicPartition(topic, partition)
            )
        return log.append_built(
            batch, durability=durability, expected_offset=expected_offset
        )

    def flush_partition(self, topic: str, partition: int, offset: int) -> None:
        """Returns once all records of a partition below an offset are on disk."""
        self.topic(topic).partition(partition).flush_until(offset)

    def cursor(
        self,
        topic: str,
        partition: int,
        offset: int,
        *,
        read_bytes: int = 0,
        isolation_level: IsolationLevel = "read_uncommitted",
    ) -> LogCursor:
        """A cursor over whole batches from the one that holds an offset on."""
        log = self.topic(topic).partition(partition)
        return log.cursor(offset, read_bytes=read_bytes, isolation_level=isolation_level)

    def column_cursor(
        self,
        topic: str,
        partition: int,
        offset: int,
        *,
        read_bytes: int = 0,
        isolation_level: IsolationLevel = "read_uncommitted",
    ) -> ColumnCursor:
        """A cursor over columns from an offset on."""
        log = self.topic(topic).partition(partition)
        return log.column_cursor(offset, read_bytes=read_bytes, isolation_level=isolation_level)

    def partition_offsets(
        self, topic: str, partition: int, *, isolation_level: IsolationLevel = "read_uncommitted"
    ) -> tuple[int, int]:
        """Log start offset, and log end offset or last stable offset."""
        log = self.topic(topic).partition(partition)
        if log.read_only:
            log.refresh()
        if is_committed(isolation_level):
            return log.log_start_offset, log.last_stable_offset
        return log.log_start_offset, log.log_end_offset

    def offset_for_timestamp(self, topic: str, partition: int, timestamp: int) -> OffsetAndTimestamp | None:
        """The first record at or after a time in ms; None where there is none."""
        return self.topic(topic).partition(partition).offset_for_timestamp(timestamp)

    def add_waiter(self, topic: str, partition: int, waiter: Wakeable) -> None:
        """Has ``waiter.notify()`` called after each append to a partition, and when it is closed or deleted."""
        log = self.topic(topic).partition(partition)
        log.add_waiter(waiter)
        if self._follower is not None:
            self._follower.follow(log, waiter)

    def remove_waiter(self, topic: str, partition: int, waiter: Wakeable) -> None:
        """Takes `add_waiter` back; what is gone or closed has nobody left to forget."""
        try:
            log = self.topic(topic).partition(partition)
        except (UnknownTopicOrPartitionError, ClosedError):
            return
        log.remove_waiter(waiter)
        if self._follower is not None:
            self._follower.unfollow(log, waiter)
