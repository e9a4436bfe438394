"""Where a consumer stands: seeking, committing, lag."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypeAlias

from logstore.clients.consumer_fetching import FetchingConsumer
from logstore.errors import InvalidRequestError
from logstore.model import Lag, OffsetAndMetadata, OffsetAndTimestamp, TopicPartition
from logstore.positions import Position, resolve_position

if TYPE_CHECKING:
    from datetime import datetime

    from logstore._native.partition_turns import PartitionReader

__all__ = ["Partition", "PositionedConsumer", "topic_partition"]

Partition: TypeAlias = TopicPartition | tuple[str, int]
"""A `TopicPartition`, or a tuple of topic and number."""


def topic_partition(partition: Partition) -> TopicPartition:
    """A partition as users write it.

    Raises
    ------
    InvalidRequestError
    """
    if isinstance(partition, tuple) and len(partition) == 2:
        topic, number = partition
        if isinstance(topic, str) and isinstance(number, int) and not isinstance(number, bool):
            return TopicPartition(topic, number)
    raise InvalidRequestError(f"a partition must be a TopicPartition or a tuple such as (\"orders\", 0), not {partition!r}")


class PositionedConsumer(FetchingConsumer):
    """A consumer's positions. `logstore.clients.consumer.Consumer` is what is used."""

    def _reader(self, partition: Partition) -> PartitionReader:
        self._check_open()
        self._check_thread()
        reader = self._readers.get(topic_partition(partition))
        if reader is None:
            assigned = ", ".join(f"{topic}-{number}" for topic, number in sorted(self._readers)) or "nothing"
            raise InvalidRequestError(
                f"{partition[0]}-{partition[1]} is not assigned to this consumer, which has {assigned}; "
                "in a group, partitions come with the first poll"
            )
        return reader

    def _readers_of(self, partitions: Iterable[Partition]) -> list[PartitionReader]:
        """Those given, or all."""
        given = list(partitions)
        self._check_open()
        self._check_thread()
        return [self._reader(partition) for partition in given] if given else list(self._readers.values())

    def _offset_of(self, partition: TopicPartition, position: Position, what: str) -> int:
        kind, number = resolve_position(position, what, self._now_ms())
        if kind == "offset":
            return number
        first, end = self._offsets(partition)
        if kind != "timestamp":
            return first if kind == "earliest" else end
        found = self._broker.offset_for_timestamp(*partition, number)
        return end if found is None else found.offset

    # ---- positions ----------------------------------------------------------------------------------

    def position(self, partition: Partition) -> int:
        """Offset of the next record of an assigned partition that will be handed out.

        Raises
        ------
        InvalidRequestError
            The partition is not assigned.
        NoOffsetForPartitionError
            There is no committed offset, and ``auto_offset_reset`` is ``"none"``.
        UnstableOffsetCommitError
            A transaction commits it, which has not ended after 10 s.
        ClosedError
        """
        reader = self._reader(partition)
        if reader.position < 0:
            self._locate_now(reader)
        return reader.position

    def seek(self, partition: Partition, position: Position) -> None:
        """Goes on elsewhere with an assigned partition.

        Parameters
        ----------
        partition : TopicPartition or tuple[str, int]
        position : int, datetime or str
            An offset; a datetime with a time zone, or an age such as ``"-1h"``: the first record at or after it, the end
            where there is none; ``"earliest"`` or ``"latest"``. An offset that the log does not hold is met by the next
            poll, as ``auto_offset_reset`` says.

        Raises
        ------
        InvalidRequestError, UnknownTopicOrPartitionError, ClosedError
        """
        reader = self._reader(partition)
        self._seek(reader, self._offset_of(reader.topic_partition, position, "position"))

    def seek_to_beginning(self, *partitions: Partition) -> None:
        """Goes to the log start offset of these assigned partitions, or of all."""
        for reader in self._readers_of(partitions):
            self._seek(reader, self._offsets(reader.topic_partition)[0])

    def seek_to_end(self, *partitions: Partition) -> None:
        """Goes to the log end offset of these assigned partitions, or of all."""
        for reader in self._readers_of(partitions):
            self._seek(reader, self._offsets(reader.topic_partition)[1])

    def pause(self, *partitions: Partition) -> None:
        """Hands out nothing of these assigned partitions, or of all, until `resume`. Positions stay."""
        for reader in self._readers_of(partitions):
            self._set_paused(reader, True)

    def resume(self, *partitions: Partition) -> None:
        """Takes `pause` back, for these partitions or for all."""
        for reader in self._readers_of(partitions):
            if reader.is_paused:
                self._set_paused(reader, False)

    def paused(self) -> set[TopicPartition]:
        """Assigned partitions that are paused."""
        return {partition for partition, reader in self._readers.items() if reader.is_paused}

    # ---- what the logs hold -------------------------------------------------------------------------

    def beginning_offsets(self, partitions: Iterable[Partition] | None = None) -> dict[TopicPartition, int]:
        """Log start offset of each of these partitions, assigned or not; of the assigned ones, if not given.

        Raises
        ------
        UnknownTopicOrPartitionError, ClosedError
        """
        return {partition: self._offsets(partition)[0] for partition in self._any(partitions)}

    def end_offsets(self, partitions: Iterable[Partition] | None = None) -> dict[TopicPartition, int]:
        """Log end offset of each of these partitions, as `beginning_offsets`: that of the next record to come; with
        ``isolation_level="read_committed"`` the last stable offset."""
        return {partition: self._offsets(partition)[1] for partition in self._any(partitions)}

    def offsets_for_times(
        self, times: Mapping[Partition, int | datetime | str]
    ) -> dict[TopicPartition, OffsetAndTimestamp | None]:
        """For each partition the first record at or after a time; None where there is none.

        Parameters
        ----------
        times : mapping
            Milliseconds since the epoch, a datetime with a time zone, or an age such as ``"-1h"``.

        Raises
        ------
        InvalidRequestError, UnknownTopicOrPartitionError, ClosedError
        """
        self._check_open()
        found = {}
        for given, time in times.items():
            partition = topic_partition(given)
            kind, timestamp = resolve_position(time, "a time", self._now_ms())
            if kind in ("earliest", "latest"):
                raise InvalidRequestError(f"a time must be milliseconds, a datetime or an age, not {time!r}")
            found[partition] = self._broker.offset_for_timestamp(*partition, timestamp)
        return found

    def lag(self, partitions: Iterable[Partition] | None = None) -> dict[TopicPartition, Lag]:
        """How far each assigned partition, or each of those given, is behind its log.

        Returns
        -------
        dict[TopicPartition, Lag]
            ``records``: offsets between position and log end offset. ``seconds``: age of the oldest record not handed out
            yet, by its timestamp; 0 where there is none.

        Raises
        ------
        InvalidRequestError, ClosedError
        """
        lags = {}
        for reader in self._readers_of(partitions or ()):
            position = self.position(reader.topic_partition)
            first, end = self._offsets(reader.topic_partition)
            position = max(position, first)  # what was deleted can't be read any more
            seconds = self._age_seconds(reader.topic_partition, position) if position < end else 0.0
            lags[reader.topic_partition] = Lag(max(end - position, 0), seconds)
        return lags

    def _age_seconds(self, partition: TopicPartition, position: int) -> float:
        cursor = self._broker.cursor(
            *partition, position, read_bytes=4096, isolation_level=self._config.isolation_level
        )
        while (batch := cursor.next_batch()) is not None:
            if batch.is_control:
                continue
            for record in batch:
                if record.offset >= position:
                    return max(self._now_ms() - record.timestamp, 0) / 1000
        return 0.0

    def _any(self, partitions: Iterable[Partition] | None) -> list[TopicPartition]:
        self._check_open()
        return list(self._readers) if partitions is None else [topic_partition(partition) for partition in partitions]

    # ---- committed offsets --------------------------------------------------------------------------

    def _group(self) -> str:
        self._check_open()
        self._check_thread()
        if self._config.group is None:
            raise InvalidRequestError(
                "this consumer has no group, so there are no committed offsets; make it with broker.consumer(..., group=...)"
            )
        return self._config.group

    def committed(self, partition: Partition) -> OffsetAndMetadata | None:
        """The group's committed offset of a partition, assigned or not; None where there is none.

        Raises
        ------
        InvalidRequestError
            The consumer has no group.
        GroupError, ClosedError
        """
        wanted = topic_partition(partition)
        return self._broker.coordinator.committed_offsets(self._group(), [wanted]).get(wanted)

    def commit(self, offsets: Mapping[Partition, int | OffsetAndMetadata] | None = None) -> None:
        """Commits offsets for the group; on disk when it returns, as far as the broker's durability goes.

        Parameters
        ----------
        offsets : mapping, optional
            Of each partition the offset of the next record to read, or an `OffsetAndMetadata`. Without: the positions of
            all assigned partitions, which covers everything handed out so far, the record in hand included.

        Raises
        ------
        CommitFailedError
            The group has given the partitions to others; nothing was committed.
        InvalidRequestError
            The consumer has no group, or an offset is negative.
        GroupError, UnknownTopicOrPartitionError, StorageFailureError, ClosedError
        """
        self._group()
        if offsets is None:
            self._commit(self._positions())
            return
        checked = {}
        for partition, offset in offsets.items():
            entry = offset if isinstance(offset, OffsetAndMetadata) else OffsetAndMetadata(offset)
            if isinstance(entry.offset, bool) or not isinstance(entry.offset, int) or entry.offset < 0:
                raise InvalidRequestError(
                    f"the offset to commit for {partition} must be an int, 0 or more, not {entry.offset!r}"
                )
            checked[topic_partition(partition)] = entry
        self._commit_offsets(checked)

    def _commit(self, positions: Mapping[TopicPartition, int]) -> None:
        """Commits positions, but for those that are committed already."""
        readers = self._readers
        changed = {
            partition: OffsetAndMetadata(position)
            for partition, position in positions.items()
            if readers[partition].committed_position != position
        }
        if changed:
            self._commit_offsets(changed)

    def _commit_offsets(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        self._send_commit(offsets)
        for partition, entry in offsets.items():
            if (reader := self._readers.get(partition)) is not None:
                reader.committed_position = entry.offset

    def _send_commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        self._broker.coordinator.commit_offsets(self._group(), offsets)
