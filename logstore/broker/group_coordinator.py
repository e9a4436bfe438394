"""The group coordinator: membership, committed offsets, and their record in ``__consumer_offsets``.

Source: wire-protocol, sections 8.3, 8.4 and 10.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from logstore.broker.committed_offsets import CommittedOffset, group_logger
from logstore.broker.group_membership import check_group_id, check_text
from logstore.broker.group_rebalance import run_all
from logstore.broker.group_state import Group
from logstore.broker.offsets_schema import OffsetValue, encode_offset_keys, encode_offset_value
from logstore.broker.stored_groups import is_nothing
from logstore.broker.transactional_offsets import TransactionalOffsets
from logstore.broker_api import GroupDescription, GroupListing, GroupState, JoinGroupResponse, SyncGroupResponse
from logstore.errors import (
    ClosedError,
    GroupIdNotFoundError,
    GroupSubscribedToTopicError,
    IllegalGenerationError,
    InvalidRequestError,
    LogstoreError,
    NonEmptyGroupError,
    OffsetMetadataTooLargeError,
    UnknownMemberIdError,
    UnknownTopicOrPartitionError,
)
from logstore.model import OffsetAndMetadata, TopicPartition
from logstore.storage.config import INT32_MAX, INT64_MAX

if TYPE_CHECKING:
    from logstore.broker.broker import Broker

__all__ = ["GroupCoordinator"]


class GroupCoordinator(TransactionalOffsets):
    """Consumer groups of one broker: implements `logstore.broker_api.GroupCoordinatorApi`. Thread-safe.

    Parameters
    ----------
    broker : Broker
    clock_ms : callable, optional
        Monotonic, for sessions.
    wall_clock_ms : callable, optional
        For timestamps and the expiry of offsets.
    schedule : callable, optional
        ``schedule(delay_ms, step)``, as `logstore.storage.flush_scheduler.FlushScheduler` has it.

    Notes
    -----
    The log is read at the first call. No lock is held while records are flushed, so commits at a time share an fdatasync.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        clock_ms: Callable[[], float] = lambda: time.monotonic_ns() / 1e6,
        wall_clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        schedule: Callable[[float, Callable[[], None]], None],
    ):
        super().__init__(broker, clock_ms=clock_ms, wall_clock_ms=wall_clock_ms, schedule=schedule)
        self._pending = {}
        self._stable_waiters = {}

    # ---- committed offsets --------------------------------------------------------------------------

    def commit_offsets(
        self,
        group: str,
        offsets: Mapping[TopicPartition, OffsetAndMetadata],
        *,
        generation: int = -1,
        member_id: str = "",
        group_instance_id: str | None = None,
    ) -> None:
        """Commits offsets, all or none, durably as the broker is; without a generation only while the group has no members.

        Raises
        ------
        UnknownMemberIdError, IllegalGenerationError, RebalanceInProgressError, FencedInstanceIdError
        UnknownTopicOrPartitionError, OffsetMetadataTooLargeError, InvalidRequestError, RecordTooLargeError
            Nothing was committed.
        StorageFailureError
            Whether the offsets will be there at the next start is unknown; until then the old ones count.

        Notes
        -----
        Of two commits at the same time that one counts which is later in the log, whichever returns first.
        """
        self._check_writable()
        check_group_id(group)
        now_ms = self._wall_clock_ms()
        values = self._values(offsets, now_ms)
        records = list(zip(encode_offset_keys(group, values), map(encode_offset_value, values.values()), strict=True))
        with self._locked():
            found = self._groups.get(group)
            self._check_commit(group, found, generation, member_id, group_instance_id)
            if not values:
                return
            if found is None:
                found = self._groups[group] = Group(group, now_ms)
            found.offsets.begin()
            try:
                log, log_offsets = self._topic.append(group, records, now_ms)
            except BaseException:
                self._commit_ended(found)
                raise
        is_durable = False
        try:
            self._topic.flush(log, log_offsets)
            is_durable = True
        finally:
            with self._lock:
                if is_durable:
                    for log_offset, (partition, value) in zip(log_offsets, values.items(), strict=True):
                        found.offsets.put(partition, CommittedOffset(value, log_offset))
                self._commit_ended(found)

    def _commit_ended(self, group: Group) -> None:
        group.offsets.end()
        if is_nothing(group) and self._groups.get(group.group_id) is group:
            del self._groups[group.group_id]

    def _values(self, offsets: Mapping[TopicPartition, OffsetAndMetadata], now_ms: int) -> dict[TopicPartition, OffsetValue]:
        values = {
            TopicPartition(*partition): self._checked(partition, given, now_ms) for partition, given in offsets.items()
        }
        self._check_partitions(values)
        return values

    def _checked(self, partition: TopicPartition, given: OffsetAndMetadata, now_ms: int) -> OffsetValue:
        offset, metadata, leader_epoch = given
        if type(offset) is not int or not 0 <= offset <= INT64_MAX:
            raise InvalidRequestError(f"the offset to commit for {partition} must be 0 or more, not {offset!r}")
        if not isinstance(metadata, str):
            raise InvalidRequestError(f"the metadata to commit for {partition} must be text, not {metadata!r}")
        if type(leader_epoch) is not int or not -1 <= leader_epoch <= INT32_MAX:
            raise InvalidRequestError(f"the leader epoch to commit for {partition} must be -1 or more, not {leader_epoch!r}")
        if metadata:
            check_text(metadata, "the metadata of an offset")
        if len(metadata) > self._config["offset.metadata.max.bytes"]:
            raise OffsetMetadataTooLargeError(
                f"the metadata to commit for {partition} have {len(metadata)} characters; offset.metadata.max.bytes of the "
                f"broker allows {self._config['offset.metadata.max.bytes']}"
            )
        return OffsetValue(offset, leader_epoch, metadata, now_ms)

    def _check_partitions(self, partitions: Iterable[TopicPartition]) -> None:
        counts = self._broker.partition_counts({topic for topic, _ in partitions})
        for topic, number in partitions:
            if not 0 <= number < counts.get(topic, 0):
                raise UnknownTopicOrPartitionError(
                    f"there is no partition {number} of topic {topic!r}; nothing was committed"
                )

    def _check_commit(
        self, group_id: str, group: Group | None, generation: int, member_id: str, group_instance_id: str | None
    ) -> None:
        if group is None:
            if generation >= 0:
                raise IllegalGenerationError(f"there is no group {group_id!r}, so no generation {generation}; join again")
            return
        if generation < 0 and group.state == "Empty":
            return
        if generation < 0 and not member_id and group_instance_id is None:
            raise UnknownMemberIdError(
                f"group {group_id!r} has members, so only they can commit; stop them first, or commit as one of them"
            )
        member = group.member(member_id, group_instance_id)
        # Where the new generation has no assignment yet, Kafka refuses this. But nobody reads anything as assigned by it
        # before the leader has synced: what a member of both has read is still its own to commit.
        if group.state != "CompletingRebalance" or generation != member.assigned_generation:
            group.check_generation(generation)
        self._extend_session(group, member)

    def committed_offsets(
        self, group: str, partitions: Iterable[TopicPartition] | None = None, *, require_stable: bool = False
    ) -> dict[TopicPartition, OffsetAndMetadata]:
        """Committed offsets; partitions without one are left out. None: all of the group's.

        Raises
        ------
        UnstableOffsetCommitError
            With ``require_stable``: a transaction that has not ended yet has committed some of them.
        """
        partitions = None if partitions is None else list(partitions)
        with self._lock:
            self._make_ready()
            if require_stable:
                self._check_stable(group, partitions)
            found = self._groups.get(group)
            if found is None:
                return {}
            known = found.offsets.by_partition
            wanted = list(known) if partitions is None else [TopicPartition(*each) for each in partitions]
            values = {partition: known[partition].value for partition in wanted if partition in known}
        return {
            partition: OffsetAndMetadata(value.offset, value.metadata, value.leader_epoch)
            for partition, value in values.items()
        }

    def delete_offsets(self, group: str, partitions: Iterable[TopicPartition]) -> None:
        """Forgets committed offsets of partitions that no member is subscribed to.

        Raises
        ------
        GroupIdNotFoundError
        GroupSubscribedToTopicError, NonEmptyGroupError
            Nothing was deleted.
        """
        self._check_writable()
        wanted = [TopicPartition(*partition) for partition in partitions]
        with self._locked():
            found = self._existing(group)
            if found.state != "Empty":
                topics = found.subscribed_topics()
                if topics is None:
                    raise NonEmptyGroupError(
                        f"group {group!r} has members and it is not known what they read (it is {found.state}); try again "
                        "when it is stable, or stop them"
                    )
                for partition in wanted:
                    if partition.topic in topics:
                        raise GroupSubscribedToTopicError(
                            f"group {group!r} reads {partition.topic!r}, so its offsets can't be deleted; stop its members"
                        )
            wait = self._remove_offsets(found, [each for each in wanted if each in found.offsets.by_partition])
        wait()

    def forget_topic(self, topic: str) -> None:
        """Drops all groups' offsets of a topic that was deleted.

        Raises
        ------
        StorageFailureError
        """
        waits = []
        with self._locked():
            for group in list(self._groups.values()):
                gone = [partition for partition in group.offsets.by_partition if partition.topic == topic]
                if gone:
                    waits.append(self._remove_offsets(group, gone))
        for wait in waits:
            wait()

    # ---- expiry -------------------------------------------------------------------------------------

    def _expire_regularly(self) -> None:
        try:
            self.expire_offsets()
        except ClosedError:
            return
        except LogstoreError as error:
            group_logger().warning("expired offsets could not be removed: %s", error)
        self._schedule(self._config["offsets.retention.check.interval.ms"], self._expire_regularly)

    def expire_offsets(self) -> int:
        """Removes offsets whose time is up, and groups that have nothing left; done every ten minutes anyway.

        Returns
        -------
        int
            Number of offsets removed.

        Raises
        ------
        StorageFailureError, ReadOnlyError, ClosedError

        Notes
        -----
        The time is ``offsets.retention.minutes``: from when the last member left; for topics that the members no longer
        read, and for groups that never had members, from the commit.
        """
        self._check_writable()
        with self._locked():
            names = list(self._groups)
            pending = set().union(*(replay.pending_partitions() for replay in self._replays))
        count = 0
        for name in names:
            with self._locked():
                if (group := self._groups.get(name)) is not None:
                    count += self._expire_group(group, pending)
        return count

    def _expire_group(self, group: Group, pending: set[tuple[str, TopicPartition]]) -> int:
        if group.offsets.is_committing:
            return 0
        expired = [each for each in self._expired(group) if (group.group_id, each) not in pending]
        if expired:
            self._remove_offsets(group, expired)
        if group.state == "Empty" and not group.offsets.by_partition and not group.pending_members and not any(
            name == group.group_id for name, _ in pending
        ):
            if expired or not is_nothing(group):
                self._remove_group(group)
            else:  # somebody asked to join and was never seen again: the log knows nothing of it
                del self._groups[group.group_id]
        return len(expired)

    def _expired(self, group: Group) -> list[TopicPartition]:
        now_ms = self._wall_clock_ms()
        retention_ms = self._config["offsets.retention.minutes"] * 60_000
        subscribed = group.subscribed_topics()
        if group.state != "Empty" and subscribed is None:
            return []
        is_simple = not group.protocol_type
        expired = []
        for partition, (value, _) in group.offsets.by_partition.items():
            if group.state != "Empty" and partition.topic in (subscribed or ()):
                continue
            if value.expire_timestamp >= 0:
                is_over = now_ms >= value.expire_timestamp
            elif group.state == "Empty" and not is_simple:
                is_over = now_ms - group.state_timestamp >= retention_ms
            else:
                is_over = now_ms - value.commit_timestamp >= retention_ms
            if is_over:
                expired.append(partition)
        return expired

    # ---- groups -------------------------------------------------------------------------------------

    def list_groups(self, states: Collection[GroupState] | None = None) -> list[GroupListing]:
        """All groups, sorted by name; only those in one of ``states``, if given."""
        with self._lock:
            self._make_ready()
            return [
                group.listing() for _, group in sorted(self._groups.items()) if states is None or group.state in states
            ]

    def describe_group(self, group: str) -> GroupDescription:
        """A group that does not exist is described as Dead."""
        with self._lock:
            self._make_ready()
            found = self._groups.get(group)
            return GroupDescription(group, "Dead", "", "", -1, ()) if found is None else found.description()

    def delete_group(self, group: str) -> None:
        """Deletes a group without members, and its offsets.

        Raises
        ------
        GroupIdNotFoundError, NonEmptyGroupError, StorageFailureError
        """
        self._check_writable()
        with self._locked():
            found = self._existing(group)
            if found.state != "Empty":
                raise NonEmptyGroupError(
                    f"group {group!r} has {len(found.members)} members; stop them, then delete it"
                )
            wait = self._remove_group(found)
        wait()

    def _existing(self, group: str) -> Group:
        found = self._groups.get(group)
        if found is None:
            raise GroupIdNotFoundError(f"there is no group {group!r} in {self._broker.path}")
        return found

    # ---- the end ------------------------------------------------------------------------------------

    def close(self) -> None:
        """Answers all that wait with `ClosedError`. Idempotent."""
        closed = ClosedError(f"the broker of {self._broker.path} is closed")
        with self._lock:
            self._is_closed = True
            after = self._after = []
            for group in self._groups.values():
                for member in group.members.values():
                    self._answer_join(member, JoinGroupResponse(closed, member.member_id))
                    self._answer_sync(member, SyncGroupResponse(closed))
                    self._notify(member)
            self._groups = {}
            waiters = set().union(*self._stable_waiters.values())
            self._stable_waiters = {}
        run_all(after)
        for waiter in waiters:
            waiter.notify()

    def forked(self) -> None:
        """In a forked child: the groups belong to the parent."""
        self._is_closed = True
        self._lock = threading.Lock()
