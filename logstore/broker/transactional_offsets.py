"""Offsets that groups commit as part of a transaction: they count once that is committed, and never if it is aborted."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from logstore.broker.committed_offsets import CommittedOffset
from logstore.broker.group_membership import check_group_id
from logstore.broker.group_state import Group
from logstore.broker.offsets_schema import OffsetValue, encode_offset_keys, encode_offset_value
from logstore.broker.stored_groups import StoredGroups
from logstore.broker_api import Wakeable
from logstore.errors import UnstableOffsetCommitError
from logstore.model import OffsetAndMetadata, TopicPartition
from logstore.storage.log import Log

__all__ = ["TransactionalOffsets"]


class PendingCommit(NamedTuple):
    """What one call has committed; in one partition of ``__consumer_offsets``."""

    partition: int
    producer_epoch: int
    group: Group
    offsets: dict[TopicPartition, CommittedOffset]


class TransactionalOffsets(StoredGroups):
    """Commits within transactions. `logstore.broker.group_coordinator.GroupCoordinator` is what is used."""

    _pending: dict[int, list[PendingCommit]]  # by producer id
    _stable_waiters: dict[str, set[Wakeable]]  # by group

    @abstractmethod
    def _values(self, offsets: Mapping[TopicPartition, OffsetAndMetadata], now_ms: int) -> dict[TopicPartition, OffsetValue]:
        """Checked offsets, as they are written."""

    @abstractmethod
    def _check_commit(
        self, group_id: str, group: Group | None, generation: int, member_id: str, group_instance_id: str | None
    ) -> None:
        """Raises if the member may not commit."""

    @abstractmethod
    def _commit_ended(self, group: Group) -> None:
        """Takes note that a commit is no longer on its way."""

    def offsets_log(self, group: str) -> Log:
        """The partition of ``__consumer_offsets`` that holds a group; the topic is made if it is missing.

        Raises
        ------
        StorageFailureError, ReadOnlyError, ClosedError
        """
        self._check_writable()
        check_group_id(group)
        return self._topic.log_of(group)

    def commit_transactional_offsets(
        self,
        group: str,
        offsets: Mapping[TopicPartition, OffsetAndMetadata],
        *,
        producer_id: int,
        producer_epoch: int,
        generation: int = -1,
        member_id: str = "",
        group_instance_id: str | None = None,
    ) -> None:
        """Commits offsets together with a transaction; the group's log is part of it already.

        Raises
        ------
        As `GroupCoordinator.commit_offsets`, and `InvalidProducerEpochError`.

        Notes
        -----
        Without a member id, whoever has the producer may commit for the group.
        """
        self._check_writable()
        check_group_id(group)
        now_ms = self._wall_clock_ms()
        values = self._values(offsets, now_ms)
        records = list(zip(encode_offset_keys(group, values), map(encode_offset_value, values.values()), strict=True))
        with self._locked():
            found = self._groups.get(group)
            if generation >= 0 or member_id or group_instance_id is not None:
                self._check_commit(group, found, generation, member_id, group_instance_id)
            if not values:
                return
            if found is None:
                found = self._groups[group] = Group(group, now_ms)
            partition = self._topic.log_of(group).partition
            pending = self._pending.setdefault(producer_id, [])
            sequence = sum(
                len(each.offsets) for each in pending
                if each.partition == partition and each.producer_epoch == producer_epoch
            )
            found.offsets.begin()
            try:
                _, log_offsets = self._topic.append(group, records, now_ms, (producer_id, producer_epoch, sequence))
            except BaseException:
                self._commit_ended(found)
                raise
            pending.append(PendingCommit(partition, producer_epoch, found, {
                each: CommittedOffset(value, log_offset)
                for log_offset, (each, value) in zip(log_offsets, values.items(), strict=True)
            }))

    def transaction_ended(self, producer_id: int, partition: int, commit: bool) -> None:
        """A marker stands in a partition of ``__consumer_offsets``: what the producer has committed there counts, or is
        forgotten."""
        woken: set[Wakeable] = set()
        with self._lock:
            kept = []
            for each in self._pending.pop(producer_id, ()):
                if each.partition != partition:
                    kept.append(each)
                    continue
                if commit:
                    for place, committed in each.offsets.items():
                        each.group.offsets.put(place, committed)
                self._commit_ended(each.group)
                woken |= self._stable_waiters.pop(each.group.group_id, set())
            if kept:
                self._pending[producer_id] = kept
        for waiter in woken:
            waiter.notify()

    def notify_when_stable(self, group: str, waiter: Wakeable) -> None:
        """Has ``waiter.notify()`` called once, when the next transaction ends that commits offsets of a group; at once where
        there is none."""
        with self._lock:
            if any(each.group.group_id == group for commits in self._pending.values() for each in commits):
                self._stable_waiters.setdefault(group, set()).add(waiter)
                return
        waiter.notify()

    def _check_stable(self, group: str, partitions: Iterable[TopicPartition] | None) -> None:
        """Raises if a transaction that has not ended has committed offsets of a group. The lock is held."""
        wanted = None if partitions is None else {TopicPartition(*each) for each in partitions}
        for commits in self._pending.values():
            for each in commits:
                if each.group.group_id == group and (wanted is None or not wanted.isdisjoint(each.offsets)):
                    raise UnstableOffsetCommitError(
                        f"a transaction that has not ended yet commits offsets of group {group!r}; ask again when it has"
                    )
