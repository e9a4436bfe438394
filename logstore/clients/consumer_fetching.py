"""The cold steps of fetching: where to begin, what to do when a log no longer holds a position, waiting in an event loop."""

from __future__ import annotations

import contextlib
import math
import time
from abc import abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from logstore._native.partition_turns import PartitionReader
from logstore._native.record_fetcher import BATCHES, COLUMNS, COLUMNS_BYTES, RECORDS, RecordFetcher, deadline_after
from logstore._native.wakeup import Wakeup
from logstore.clients.consumer_config import ConsumerConfig
from logstore.errors import (
    ClosedError,
    CorruptDataError,
    LogstoreError,
    LogTruncatedError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    UnknownTopicOrPartitionError,
    UnstableOffsetCommitError,
)
from logstore.model import OffsetAndMetadata, TopicPartition
from logstore.quantities import bytes_from

if TYPE_CHECKING:
    from logstore._native.columns import ColumnBatch
    from logstore._native.record_batch import Record, RecordBatch
    from logstore.broker_api import BatchCursor, BrokerApi, ColumnBatchCursor

__all__ = ["FetchingConsumer"]

# What a broker reads at a time where nobody asks for less.
READ_BYTES = 512 * 1024
READ_BYTES_MIN = 16 * 1024
# How long a transaction is waited for that commits the offset of a partition whose position somebody asks for.
UNSTABLE_SECONDS_MAX = 10.0


class FetchingConsumer(RecordFetcher):
    """Reads partitions of a broker. `logstore.clients.consumer.Consumer` is what is used."""

    def __init__(self, broker: BrokerApi, config: ConsumerConfig):
        self._broker = broker
        self._config = config
        self._closed = ""  # why, once it is
        self._is_unlocated = False  # a partition waits for a transaction that commits its offset
        self._records_max = config.max_poll_records
        self._bytes_max = config.max_partition_fetch_bytes
        self._consumer_timeout = config.consumer_timeout
        if config.clock is not None:
            self._clock = config.clock

    @abstractmethod
    def _attend(self) -> None:
        """What comes before the next record: groups, metadata, commits that are due."""

    @abstractmethod
    def _partition_deleted(self, reader: PartitionReader, error: LogstoreError) -> None:
        """A partition is gone: raises, or stops reading it."""

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(self._closed)

    def _now_ms(self) -> int:
        return int((time.time() if self._config.clock is None else self._config.clock()) * 1000)

    # ---- partitions ---------------------------------------------------------------------------------

    def _start_reading(self, partitions: Iterable[TopicPartition], *, from_start: bool = False) -> None:
        for partition in partitions:
            position = self._broker.partition_offsets(*partition)[0] if from_start else -1
            reader = self._add_reader(partition, position)
            try:
                self._broker.add_waiter(*partition, reader)
            except BaseException:
                self._remove_reader(reader)
                raise

    def _stop_reading(self, partitions: Iterable[TopicPartition]) -> None:
        for partition in partitions:
            if (reader := self._readers.get(partition)) is not None:
                self._broker.remove_waiter(*partition, reader)
                self._remove_reader(reader)

    def _read_bytes(self) -> int:
        """Largest read of a partition: what is read ahead of all of them stays within ``fetch_max_bytes``."""
        share = self._config.fetch_max_bytes // (2 * max(len(self._readers), 1))
        share = min(share, self._config.max_partition_fetch_bytes)
        return 0 if share >= READ_BYTES else max(share, READ_BYTES_MIN)

    def _open_cursor(self, reader: PartitionReader) -> BatchCursor:
        return self._broker.cursor(*reader.topic_partition, reader.position, **self._how_to_read())

    def _open_columns(self, reader: PartitionReader) -> ColumnBatchCursor:
        return self._broker.column_cursor(*reader.topic_partition, reader.position, **self._how_to_read())

    def _how_to_read(self) -> dict[str, Any]:
        return {"read_bytes": self._read_bytes(), "isolation_level": self._config.isolation_level}

    def _offsets(self, partition: TopicPartition) -> tuple[int, int]:
        """Where a log begins, and where it ends for this consumer."""
        return self._broker.partition_offsets(*partition, isolation_level=self._config.isolation_level)

    def _bytes_limit(self, max_bytes: int | str | None) -> int:
        return self._bytes_max if max_bytes is None else max(bytes_from(max_bytes, "max_bytes"), 1)

    # ---- where to begin -----------------------------------------------------------------------------

    def _locate(self) -> None:
        """Gives partitions a position that have none: the committed offset, or what ``auto_offset_reset`` says.

        Those of which a transaction is about to commit an offset have to wait until it has ended, since its records must not
        be dealt with twice: they are not read until then.
        """
        readers = [reader for reader in self._readers.values() if reader.position < 0]
        self._is_unlocated = False
        if not readers:
            return
        committed = self._committed_now([reader.topic_partition for reader in readers])
        for reader in readers:
            if reader.topic_partition not in committed:
                self._is_unlocated = True
                self._hold(reader)
            elif (found := committed[reader.topic_partition]) is not None:
                self._seek(reader, found.offset)
                reader.committed_position = found.offset
            else:
                self._seek(reader, self._reset_offset(reader.topic_partition))
        if self._is_unlocated:
            assert self._config.group is not None
            self._broker.coordinator.notify_when_stable(self._config.group, self._notifier)

    def _committed_now(self, partitions: list[TopicPartition]) -> dict[TopicPartition, OffsetAndMetadata | None]:
        """Committed offsets; without those that a transaction is about to commit."""
        group = self._config.group
        if group is None:
            return dict.fromkeys(partitions)
        found: dict[TopicPartition, OffsetAndMetadata | None] = {}
        ask = self._broker.coordinator.committed_offsets
        is_stable = self._config.isolation_level == "read_committed"
        try:
            return {**dict.fromkeys(partitions), **ask(group, partitions, require_stable=is_stable)}
        except UnstableOffsetCommitError:
            for partition in partitions:
                with contextlib.suppress(UnstableOffsetCommitError):
                    found[partition] = ask(group, [partition], require_stable=True).get(partition)
        return found

    def _locate_now(self, reader: PartitionReader) -> None:
        """The same for somebody who asks for a partition's position, and waits for it."""
        deadline = time.monotonic() + UNSTABLE_SECONDS_MAX
        self._locate()
        while reader.position < 0 and not reader.is_removed:
            assert self._config.group is not None
            ended = Wakeup()
            self._broker.coordinator.notify_when_stable(self._config.group, ended)
            if not ended.wait(deadline - time.monotonic()):
                raise UnstableOffsetCommitError(
                    f"for {UNSTABLE_SECONDS_MAX:g} s, a transaction has been open that commits an offset of "
                    f"{_name(reader.topic_partition)} for group {self._config.group!r}; ask again when it has ended"
                )
            self._check_open()
            self._locate()

    def _reset_offset(self, partition: TopicPartition) -> int:
        first, end = self._offsets(partition)
        if self._config.auto_offset_reset == "none":
            raise NoOffsetForPartitionError(
                f"{_name(partition)} has no committed offset, and auto_offset_reset is 'none'; "
                f"seek({tuple(partition)}, ...) says where to begin",
                offset=-1, log_start_offset=first, log_end_offset=end,
            )
        return first if self._config.auto_offset_reset == "earliest" else end

    # ---- when reading fails -------------------------------------------------------------------------

    def _fetch_failed(self, reader: PartitionReader, error: Exception) -> None:
        if isinstance(error, OffsetOutOfRangeError) and not isinstance(error, NoOffsetForPartitionError):
            self._out_of_range(reader, error)
        elif isinstance(error, (ClosedError, UnknownTopicOrPartitionError)):
            self._log_is_gone(reader, error)
        else:
            if isinstance(error, CorruptDataError):
                error.add_note(
                    f"This is {_name(reader.topic_partition)} at offset {reader.position}; seek() behind it to go on there."
                )
            raise error

    def _out_of_range(self, reader: PartitionReader, error: OffsetOutOfRangeError) -> None:
        """Goes on where ``auto_offset_reset`` says, and says so."""
        policy = self._config.auto_offset_reset
        if policy == "none":
            raise error
        position = reader.position
        first, end = self._broker.partition_offsets(*reader.topic_partition)
        if isinstance(error, LogTruncatedError) and first <= error.truncation_offset <= end:
            target = error.truncation_offset  # what is appended from here on has not been read
            what = "the log was truncated below this position"
        elif first <= position <= end:
            target = position  # the log has moved meanwhile
            what = "the log has changed"
        else:
            target = first if policy == "earliest" else end
            lost = f"offsets {position} to {target} (exclusive) are passed over" if target > position else (
                f"offsets {target} to {position} (exclusive) are read again")
            what = f"the log holds offsets {first} to {end} (exclusive): {lost}"
        _logger().warning(
            "%s: position %d is out of range; %s; going on at %d (auto_offset_reset=%r)",
            _name(reader.topic_partition), position, what, target, policy,
        )
        self._seek(reader, target)

    def _log_is_gone(self, reader: PartitionReader, error: LogstoreError) -> None:
        """A log was closed: with its broker, or because its topic was deleted, and perhaps made anew."""
        partition = reader.topic_partition
        try:
            self._broker.partition_offsets(*partition)
        except UnknownTopicOrPartitionError as unknown:
            self._partition_deleted(reader, unknown)
            return
        if isinstance(error, UnknownTopicOrPartitionError):
            raise error
        _logger().warning("%s was deleted and created again; reading it from its start", _name(partition))
        self._stop_reading([partition])
        self._start_reading([partition], from_start=True)

    # ---- asyncio ------------------------------------------------------------------------------------

    async def poll_async(self, timeout: float | None = None, max_records: int | None = None) -> list[Record]:
        """`poll` for an event loop: waits without blocking it, for ever unless there is a timeout.

        A wait that is cancelled has taken nothing.
        """
        records: list[Record] = await self._wait_async(RECORDS, self._records_limit(max_records), timeout)
        return records

    async def fetch_async(self, timeout: float | None = None, max_bytes: int | str | None = None) -> list[RecordBatch]:
        """`fetch` for an event loop, as `poll_async`."""
        batches: list[RecordBatch] = await self._wait_async(BATCHES, self._bytes_limit(max_bytes), timeout)
        return batches

    async def fetch_columns_async(
        self, timeout: float | None = None, max_bytes: int | str | None = None
    ) -> list[ColumnBatch]:
        """`fetch_columns` for an event loop, as `poll_async`."""
        limit = COLUMNS_BYTES if max_bytes is None else self._bytes_limit(max_bytes)
        columns: list[ColumnBatch] = await self._wait_async(COLUMNS, limit, timeout)
        return columns

    async def _wait_async(self, kind: int, limit: int, timeout: float | None) -> list[Any]:
        deadline = deadline_after(timeout)
        self._enter()
        try:
            while True:
                found = self._collect(kind, limit)
                if found or self._take_woken() or not await self._rest_async(deadline):
                    return found
        finally:
            self._leave()

    async def _wait_for_record(self) -> Record:
        """The slow half of ``async for``."""
        deadline = None
        self._enter()
        try:
            if self._take_turn_ended():
                import asyncio

                await asyncio.sleep(0)  # others have their turn as well
            while True:
                record = self._take_next()
                if record is not None:
                    return record
                if deadline is None:
                    deadline = deadline_after(self._consumer_timeout)
                if self._take_woken() or not await self._rest_async(deadline):
                    raise StopAsyncIteration
        finally:
            self._leave()

    async def _rest_async(self, deadline: float | None) -> bool:
        """Waits until there may be something; False where the deadline has passed."""
        import asyncio

        left = math.inf if deadline is None else deadline - time.monotonic()
        if left <= 0:
            return False
        left = min(left, max(self._attend_at - self._clock(), 0.0))
        loop = asyncio.get_running_loop()
        woken = loop.create_future()

        def wake() -> None:
            if not woken.done():
                woken.set_result(None)

        def notified() -> None:
            try:
                loop.call_soon_threadsafe(wake)
            except RuntimeError:
                return  # the loop is closed, so nobody waits

        timer = None if left == math.inf else loop.call_later(left, wake)
        self._wakeup.listen(notified)
        try:
            await woken
        finally:
            self._wakeup.listen(None)
            self._wakeup.clear()
            if timer is not None:
                timer.cancel()
        return True


def _name(partition: TopicPartition) -> str:
    return f"{partition.topic}-{partition.partition}"


def _logger() -> Any:
    import logging

    return logging.getLogger("logstore.consumer")
