"""What a broker offers for groups: their coordinator, and the methods by which people look after them."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from logstore.model import TopicPartition
from logstore.positions import Position

if TYPE_CHECKING:
    from logstore.broker.broker import Broker
    from logstore.broker.group_admin import DescribedGroup, OffsetReset
    from logstore.broker.group_coordinator import GroupCoordinator
    from logstore.broker_api import GroupListing, GroupState
    from logstore.storage.flush_scheduler import FlushScheduler

__all__ = ["GroupService"]


class GroupService:
    """The group side of a broker. `logstore.broker.Broker` is what is used."""

    _lock: threading.RLock
    _scheduler: FlushScheduler
    _coordinator: GroupCoordinator | None = None

    @abstractmethod
    def _check_open(self) -> None:
        """Raises if the broker is closed."""

    def _as_broker(self) -> Broker:
        from logstore.broker.broker import Broker

        assert isinstance(self, Broker)
        return self

    @property
    def coordinator(self) -> GroupCoordinator:
        """Consumer groups as clients use them; see `logstore.broker_api.GroupCoordinatorApi`."""
        if self._coordinator is None:
            from logstore.broker.group_coordinator import GroupCoordinator

            with self._lock:
                self._check_open()
                if self._coordinator is None:
                    self._coordinator = GroupCoordinator(self._as_broker(), schedule=self._scheduler.schedule)
        return self._coordinator

    def groups(self, states: Collection[GroupState] | None = None) -> list[GroupListing]:
        """All consumer groups, sorted by name.

        Parameters
        ----------
        states : collection of str, optional
            Only groups in one of these: ``"Stable"``, ``"Empty"``, ``"PreparingRebalance"``, ``"CompletingRebalance"``.
        """
        return self.coordinator.list_groups(states)

    def describe_group(self, group: str) -> DescribedGroup:
        """A group's members, what each of them reads, and how far behind they are.

        Returns
        -------
        DescribedGroup
            A group that does not exist is described as Dead.

        Raises
        ------
        ClosedError, StorageFailureError
        """
        from logstore.broker.group_admin import describe_group

        return describe_group(self._as_broker(), group)

    def delete_group(self, group: str) -> None:
        """Deletes a group without members, and its committed offsets.

        Raises
        ------
        GroupIdNotFoundError, NonEmptyGroupError, StorageFailureError, ReadOnlyError
        """
        self.coordinator.delete_group(group)

    def delete_group_offsets(self, group: str, partitions: Iterable[TopicPartition | tuple[str, int]]) -> None:
        """Forgets a group's committed offsets of partitions that none of its members reads.

        Raises
        ------
        GroupIdNotFoundError, GroupSubscribedToTopicError, NonEmptyGroupError, StorageFailureError, ReadOnlyError
        """
        self.coordinator.delete_offsets(group, [TopicPartition(*partition) for partition in partitions])

    def reset_offsets(
        self,
        group: str,
        topics_or_partitions: str | Iterable[str | TopicPartition | tuple[str, int]] | None = None,
        *,
        to: Position | None = None,
        shift_by: int | None = None,
        dry_run: bool = False,
    ) -> list[OffsetReset]:
        """Moves a group's committed offsets, so that it reads again, or skips.

        Parameters
        ----------
        group : str
            Without members; made if it does not exist.
        topics_or_partitions : str, or iterable of str or (topic, partition), optional
            What to move; all that the group has committed offsets for, if not given.
        to : int, datetime or str, optional
            An offset, a datetime with a time zone, an age such as ``"-1h"``, ``"earliest"`` or ``"latest"``.
        shift_by : int, optional
            Records forward, or back where negative. One of the two must be given.
        dry_run : bool
            Changes nothing, and returns the same.

        Returns
        -------
        list[OffsetReset]
            Each partition with its offset before and after; an offset outside of what the log holds is moved to its edge,
            and ``asked_for`` says what it would have been.

        Raises
        ------
        NonEmptyGroupError
            The group has members; stop them first.
        UnknownTopicOrPartitionError, InvalidRequestError, StorageFailureError, ReadOnlyError
        """
        from logstore.broker.group_admin import apply_reset, plan_reset

        plan = plan_reset(self._as_broker(), group, topics_or_partitions, to=to, shift_by=shift_by)
        if not dry_run:
            apply_reset(self._as_broker(), group, plan)
        return plan

    def delete_records(
        self, topic: str, offsets: Mapping[int, int] | None = None, *, before: Position | None = None
    ) -> dict[int, int]:
        """Deletes the records of a topic before an offset or a time, durably.

        Parameters
        ----------
        topic : str
        offsets : mapping of partition to offset, optional
            The first offset to keep; -1 for the log end offset.
        before : int, datetime or str, optional
            For all partitions: an offset, a datetime with a time zone, an age such as ``"-7d"``, or ``"latest"``.
            One of the two must be given.

        Returns
        -------
        dict[int, int]
            The new log start offset of each partition.

        Raises
        ------
        UnknownTopicOrPartitionError, OffsetOutOfRangeError, InvalidRequestError
            Nothing was deleted.
        StorageFailureError, ReadOnlyError
        """
        from logstore.broker.group_admin import delete_records

        return delete_records(self._as_broker(), topic, offsets, before)
