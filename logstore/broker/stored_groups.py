"""What groups leave in ``__consumer_offsets``: reading it at the start, following it, and writing it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from logstore.broker.committed_offsets import CommittedOffset, LogReplay, ReplayedRecord
from logstore.broker.group_membership import GroupMembership
from logstore.broker.group_state import Group
from logstore.broker.offsets_schema import (
    GroupValue,
    OffsetKey,
    OffsetValue,
    encode_group_key,
    encode_group_value,
    encode_offset_keys,
)
from logstore.broker.offsets_topic import OffsetsTopic, in_batches
from logstore.errors import ClosedError, ReadOnlyError
from logstore.model import TopicPartition

if TYPE_CHECKING:
    from logstore.broker.broker import Broker

__all__ = ["StoredGroups", "is_nothing"]


class StoredGroups(GroupMembership):
    """Groups and their record in the log. `logstore.broker.group_coordinator.GroupCoordinator` is what is used."""

    def __init__(
        self,
        broker: Broker,
        *,
        clock_ms: Callable[[], float],
        wall_clock_ms: Callable[[], int],
        schedule: Callable[[float, Callable[[], None]], None],
    ):
        super().__init__(broker.config.as_dict(), clock_ms, wall_clock_ms, schedule)
        self._broker = broker
        self._topic = OffsetsTopic(broker)
        self._replays: list[LogReplay] = []
        self._is_loaded = False

    @abstractmethod
    def _expire_regularly(self) -> None:
        """Removes what has expired, and is scheduled again."""

    # ---- reading the log ----------------------------------------------------------------------------

    def _make_ready(self) -> None:
        if self._is_closed:
            raise ClosedError(f"the broker of {self._broker.path} is closed; open it again")
        if not self._is_loaded:
            self._load()
        elif self._broker.read_only:
            self._refresh()

    def _check_writable(self) -> None:
        if self._broker.read_only:
            raise ReadOnlyError(f"{self._broker.path} is open for reading only; groups need a broker that writes")

    def _load(self) -> None:
        replays = [LogReplay(log) for log in self._topic.logs()]
        groups: dict[str, Group] = {}
        incomplete: set[str] = set()
        for replay in replays:
            for record in replay.newest():
                if self._apply(groups, record):
                    incomplete.add(record.key.group)
        self._groups, self._replays = groups, replays
        self._is_loaded = True
        for group in [each for each in groups.values() if is_nothing(each)]:
            del groups[group.group_id]
        if self._broker.read_only:
            return
        for group in groups.values():
            for member in group.members.values():
                self._extend_session(group, member)
            if group.members and group.group_id in incomplete:
                self._prepare_rebalance(group)
        self._schedule(self._config["offsets.retention.check.interval.ms"], self._expire_regularly)

    def _refresh(self) -> None:
        """In a reader process: what the writer has committed since."""
        logs = self._topic.logs()
        for log in logs:
            log.refresh()
        if len(logs) != len(self._replays) or any(replay.is_outdated for replay in self._replays):
            self._load()
            return
        for replay in self._replays:
            for record in replay.newest():
                self._apply(self._groups, record)
                if is_nothing(self._groups[record.key.group]):
                    del self._groups[record.key.group]

    def _apply(self, groups: dict[str, Group], record: ReplayedRecord) -> bool:
        """Takes one record of the log over; True where a group has lost members that ended with their process."""
        key, value, log_offset = record
        group = groups.get(key.group)
        if group is None:
            group = groups[key.group] = Group(key.group, self._wall_clock_ms())
        if isinstance(key, OffsetKey):
            partition = TopicPartition(key.topic, key.partition)
            if isinstance(value, OffsetValue):
                group.offsets.put(partition, CommittedOffset(value, log_offset))
            else:
                group.offsets.remove(partition, log_offset)
            return False
        if not isinstance(value, GroupValue):
            value = GroupValue("", 0, None, None, -1, ())
        return group.restore(value, self._wall_clock_ms(), without_in_process=not self._broker.read_only)

    # ---- writing it ---------------------------------------------------------------------------------

    def _append_group(self, group: Group, assignments: Mapping[str, bytes]) -> Callable[[], None]:
        record = (encode_group_key(group.group_id), encode_group_value(group.value(assignments)))
        log, offsets = self._topic.append(group.group_id, [record], self._wall_clock_ms())
        return partial(self._topic.flush, log, offsets)

    def _remove_offsets(self, group: Group, partitions: Iterable[TopicPartition]) -> Callable[[], None]:
        """Writes tombstones and forgets the offsets; what it returns waits until that is durable. The lock is held."""
        wait: Callable[[], None] = _nothing
        listed = list(partitions)
        by_key = dict(zip(encode_offset_keys(group.group_id, listed), listed, strict=True))
        for batch in in_batches((key, None) for key in by_key):
            log, offsets = self._topic.append(group.group_id, batch, self._wall_clock_ms())
            for log_offset, (key, _) in zip(offsets, batch, strict=True):
                group.offsets.remove(by_key[key], log_offset)
            wait = partial(self._topic.flush, log, offsets)
        return wait

    def _remove_group(self, group: Group) -> Callable[[], None]:
        """Writes a group's tombstones and forgets it. The lock is held."""
        self._remove_offsets(group, list(group.offsets.by_partition))
        # Also where it never had members: to Kafka a group is there until its own tombstone is.
        tombstone = (encode_group_key(group.group_id), None)
        log, offsets = self._topic.append(group.group_id, [tombstone], self._wall_clock_ms())
        del self._groups[group.group_id]
        return partial(self._topic.flush, log, offsets)


def is_nothing(group: Group) -> bool:
    return group.offsets.is_idle and not group.members and not group.pending_members and not group.generation


def _nothing() -> None:
    return
