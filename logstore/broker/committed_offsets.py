"""Committed offsets in memory, and reading them back from ``__consumer_offsets``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from logstore.broker.offsets_schema import (
    GroupKey,
    GroupValue,
    MalformedRecordError,
    OffsetKey,
    OffsetValue,
    decode_group_value,
    decode_key,
    decode_offset_value,
)
from logstore.errors import CorruptDataError
from logstore.model import TopicPartition

if TYPE_CHECKING:
    from logstore._native.record_batch import RecordBatch
    from logstore.storage.log import Log

__all__ = ["CommittedOffset", "GroupOffsets", "LogReplay", "ReplayedRecord", "group_logger"]

COMMIT_MARKER = 1


class CommittedOffset(NamedTuple):
    """A committed offset as the coordinator holds it; ``log_offset`` is where its record stands."""

    value: OffsetValue
    log_offset: int


class GroupOffsets:
    """The committed offsets of one group. The log's order decides, whatever the order in which commits are acknowledged."""

    __slots__ = ("_in_flight", "_removed", "by_partition")

    def __init__(self) -> None:
        self.by_partition: dict[TopicPartition, CommittedOffset] = {}
        # Commits that are appended but not acknowledged, and what was removed meanwhile: they must not bring it back.
        self._in_flight = 0
        self._removed: dict[TopicPartition, int] = {}

    def begin(self) -> None:
        """A commit is about to be appended."""
        self._in_flight += 1

    def end(self) -> None:
        """It was acknowledged, or has failed."""
        self._in_flight -= 1
        if not self._in_flight:
            self._removed.clear()

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing, and nothing on its way."""
        return not self.by_partition and not self._in_flight

    @property
    def is_committing(self) -> bool:
        """Whether something is on its way."""
        return self._in_flight > 0

    def put(self, partition: TopicPartition, committed: CommittedOffset) -> None:
        """Takes an offset over, unless the log has a newer one."""
        known = self.by_partition.get(partition)
        if known is not None and known.log_offset > committed.log_offset:
            return
        if self._removed.get(partition, -1) < committed.log_offset:
            self.by_partition[partition] = committed

    def remove(self, partition: TopicPartition, log_offset: int) -> None:
        """Forgets an offset; its tombstone stands at ``log_offset``."""
        if self._in_flight:
            self._removed[partition] = log_offset
        known = self.by_partition.get(partition)
        if known is not None and known.log_offset < log_offset:
            del self.by_partition[partition]


class ReplayedRecord(NamedTuple):
    """What the log says last about one key; a value of None is a tombstone."""

    key: OffsetKey | GroupKey
    value: OffsetValue | GroupValue | None
    log_offset: int


class LogReplay:
    """Reads one partition of ``__consumer_offsets``, from its start and later on from where it has come to."""

    def __init__(self, log: Log):
        self.log = log
        self.next_offset = log.log_start_offset
        self._truncations = log.truncation_count
        # By producer id: what transactions that have not ended have written.
        self._open: dict[int, dict[bytes, tuple[int, bytes | None]]] = {}

    @property
    def is_outdated(self) -> bool:
        """Whether what was read is no longer what the log says."""
        return self.log.truncation_count != self._truncations or self.next_offset < self.log.log_start_offset

    def pending_partitions(self) -> set[tuple[str, TopicPartition]]:
        """Groups and partitions for which an open transaction has written an offset."""
        pending = set()
        for records in self._open.values():
            for data in records:
                try:
                    key = decode_key(data)
                except MalformedRecordError:
                    continue
                if isinstance(key, OffsetKey):
                    pending.add((key.group, TopicPartition(key.topic, key.partition)))
        return pending

    def newest(self) -> Iterator[ReplayedRecord]:
        """The last record of each key among those not read yet, in order of the log."""
        last: dict[bytes, tuple[int, bytes | None]] = {}
        for batch in self._batches():
            try:
                self._replay_batch(batch, last)
            except CorruptDataError as error:
                group_logger().error("%s: committed offsets that can't be read are skipped: %s", self.log.path, error)
        for data, (log_offset, value) in sorted(last.items(), key=lambda item: item[1][0]):
            if (record := self._decoded(data, value, log_offset)) is not None:
                yield record

    def _batches(self) -> Iterator[RecordBatch]:
        cursor = self.log.cursor(self.next_offset)
        while True:
            try:
                batch = cursor.next_batch()
            except CorruptDataError as error:
                group_logger().error("%s: damaged committed offsets are skipped: %s", self.log.path, error)
                try:
                    cursor.skip_damage()
                except CorruptDataError:  # nothing behind it is sound
                    self.next_offset = self.log.log_end_offset
                    return
                continue
            self.next_offset = max(self.next_offset, cursor.next_offset)
            if batch is None:
                return
            yield batch

    def _replay_batch(self, batch: RecordBatch, last: dict[bytes, tuple[int, bytes | None]]) -> None:
        if batch.is_control:
            self._end_transaction(batch, last)
            return
        target = self._open.setdefault(batch.producer_id, {}) if batch.is_transactional else last
        for record in batch:
            key = record.key
            if key is None:
                group_logger().warning("%s: the record at offset %d has no key and is skipped", self.log.path, record.offset)
                continue
            target[key] = (record.offset, record.value)

    def _end_transaction(self, batch: RecordBatch, last: dict[bytes, tuple[int, bytes | None]]) -> None:
        records = self._open.pop(batch.producer_id, {})
        for marker in batch:
            key = marker.key or b""
            if len(key) < 4 or int.from_bytes(key[2:4], "big") != COMMIT_MARKER:
                return
        for data, (log_offset, value) in records.items():
            if data not in last or last[data][0] < log_offset:
                last[data] = (log_offset, value)

    def _decoded(self, data: bytes, value: bytes | None, log_offset: int) -> ReplayedRecord | None:
        try:
            key = decode_key(data)
            if key is None:
                return None
            if value is None:
                return ReplayedRecord(key, None, log_offset)
            if isinstance(key, OffsetKey):
                return ReplayedRecord(key, decode_offset_value(value), log_offset)
            return ReplayedRecord(key, decode_group_value(value), log_offset)
        except MalformedRecordError as error:
            group_logger().warning(
                "%s: the record at offset %d is skipped: %s", self.log.path, log_offset, error
            )
            return None


def group_logger() -> Any:
    """Where warnings about groups go; logging loads with the first."""
    import logging

    return logging.getLogger("logstore.groups")
