"""Looking after groups: how far behind they are, moving their offsets, deleting records that all have read."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from logstore.broker_api import GroupState
from logstore.consumer_protocol import PROTOCOL_TYPE, decode_assignment, decode_subscription
from logstore.errors import (
    CorruptDataError,
    InvalidRequestError,
    NonEmptyGroupError,
    OffsetOutOfRangeError,
    UnknownMemberIdError,
    UnknownTopicOrPartitionError,
)
from logstore.model import OffsetAndMetadata, TopicPartition
from logstore.positions import Position, resolve_position
from logstore.storage import layout

if TYPE_CHECKING:
    from logstore.broker.broker import Broker
    from logstore.storage.log import Log

__all__ = [
    "DescribedGroup",
    "DescribedMember",
    "GroupPartition",
    "OffsetReset",
    "apply_reset",
    "delete_records",
    "describe_group",
    "plan_reset",
]


class DescribedMember(NamedTuple):
    """A member of a group.

    Attributes
    ----------
    member_id, client_id, client_host : str
    group_instance_id : str or None
        Of a static member.
    topics : tuple[str, ...] or None
        What it subscribes to; None where that is not known: the group is not stable, or its bytes are no subscription.
    partitions : tuple[TopicPartition, ...] or None
        What it was assigned; None as above.
    """

    member_id: str
    group_instance_id: str | None
    client_id: str
    client_host: str
    topics: tuple[str, ...] | None
    partitions: tuple[TopicPartition, ...] | None


class GroupPartition(NamedTuple):
    """How far a group has come in a partition.

    Attributes
    ----------
    topic : str
    partition : int
    committed_offset : int or None
    metadata : str
        What was committed with the offset.
    log_end_offset : int or None
        None where the partition is no longer there.
    lag : int or None
        Offsets between the committed one and the end; None where either is unknown.
    lag_s : float or None
        Age of the oldest record not read yet in seconds; 0 where there is none; None where it is not known.
    member_id : str or None
        Who reads it now.
    """

    topic: str
    partition: int
    committed_offset: int | None
    metadata: str
    log_end_offset: int | None
    lag: int | None
    lag_s: float | None
    member_id: str | None


class DescribedGroup(NamedTuple):
    """A group, its members and its partitions; both sorted."""

    group: str
    state: GroupState
    protocol_type: str
    protocol: str
    generation: int
    members: tuple[DescribedMember, ...]
    partitions: tuple[GroupPartition, ...]


class OffsetReset(NamedTuple):
    """What a reset does to one partition.

    Attributes
    ----------
    topic : str
    partition : int
    before : int or None
        The committed offset; None where there was none.
    after : int
    asked_for : int
        The same as ``after``, unless that lies outside of what the log holds.
    """

    topic: str
    partition: int
    before: int | None
    after: int
    asked_for: int


# ---- describing -----------------------------------------------------------------------------------------


def describe_group(broker: Broker, group: str) -> DescribedGroup:
    """See `logstore.broker.Broker.describe_group`."""
    described = broker.coordinator.describe_group(group)
    committed = broker.coordinator.committed_offsets(group)
    is_readable = described.state == "Stable" and described.protocol_type == PROTOCOL_TYPE
    owners: dict[TopicPartition, str] = {}
    members = []
    for member in described.members:
        topics = partitions = None
        if is_readable:
            try:
                topics = tuple(sorted(decode_subscription(member.metadata).topics))
                partitions = tuple(sorted(decode_assignment(member.assignment).partitions))
            except CorruptDataError:
                topics = None  # some other protocol's bytes
        for partition in partitions or ():
            owners[partition] = member.member_id
        members.append(
            DescribedMember(
                member.member_id, member.group_instance_id, member.client_id, member.client_host, topics, partitions
            )
        )
    now_ms = time.time_ns() // 1_000_000
    return DescribedGroup(
        described.group, described.state, described.protocol_type, described.protocol, described.generation,
        tuple(sorted(members)),
        tuple(
            _progress(broker, partition, committed.get(partition), owners.get(partition), now_ms)
            for partition in sorted({*committed, *owners})
        ),
    )


def _log_of(broker: Broker, partition: TopicPartition) -> Log | None:
    try:
        log = broker.topic(partition.topic).partition(partition.partition)
    except UnknownTopicOrPartitionError:
        return None
    log.refresh()
    return log


def _progress(
    broker: Broker, partition: TopicPartition, committed: OffsetAndMetadata | None, owner: str | None, now_ms: int
) -> GroupPartition:
    log = _log_of(broker, partition)
    offset = None if committed is None else committed.offset
    metadata = "" if committed is None else committed.metadata
    if log is None:
        return GroupPartition(*partition, offset, metadata, None, None, None, owner)
    end_offset = log.log_end_offset
    lag = None if offset is None else max(end_offset - max(offset, log.log_start_offset), 0)
    lag_s = None if offset is None else _age_s(log, offset, now_ms)
    return GroupPartition(*partition, offset, metadata, end_offset, lag, lag_s, owner)


def _age_s(log: Log, offset: int, now_ms: int) -> float | None:
    """Age of the first record at or after an offset."""
    try:
        cursor = log.cursor(max(offset, log.log_start_offset))
        while (batch := cursor.next_batch()) is not None:
            if batch.is_control:
                continue
            for record in batch:
                if record.offset >= offset:
                    return None if record.timestamp < 0 else max(now_ms - record.timestamp, 0) / 1000
    except (CorruptDataError, OffsetOutOfRangeError):
        # Damaged, or deleted while it was looked at; past the end it is an offset of a topic that was here before.
        return None
    return 0.0


# ---- resetting offsets ----------------------------------------------------------------------------------


def _partitions_of(
    broker: Broker, wanted: str | Iterable[str | TopicPartition | tuple[str, int]]
) -> list[TopicPartition]:
    found: dict[TopicPartition, None] = {}
    for each in [wanted] if isinstance(wanted, str) else wanted:
        if isinstance(each, str):
            found.update((TopicPartition(each, number), None) for number in range(broker.topic(each).partitions))
        else:
            partition = TopicPartition(*each)
            broker.topic(partition.topic).partition(partition.partition)
            found[partition] = None
    return list(found)


def plan_reset(
    broker: Broker,
    group: str,
    topics_or_partitions: str | Iterable[str | TopicPartition | tuple[str, int]] | None,
    *,
    to: Position | None,
    shift_by: int | None,
) -> list[OffsetReset]:
    """What a reset would do; see `logstore.broker.Broker.reset_offsets`."""
    if (to is None) == (shift_by is None):
        raise InvalidRequestError("reset_offsets needs either to= or shift_by=")
    if shift_by is not None and (isinstance(shift_by, bool) or not isinstance(shift_by, int)):
        raise InvalidRequestError(f"shift_by must be a whole number of records, not {shift_by!r}")
    members = broker.coordinator.describe_group(group).members
    if members:
        raise _has_members(group, len(members))
    committed = broker.coordinator.committed_offsets(group)
    if topics_or_partitions is None:
        partitions = sorted(partition for partition in committed if _log_of(broker, partition) is not None)
    else:
        partitions = _partitions_of(broker, topics_or_partitions)
    now_ms = time.time_ns() // 1_000_000
    plan = []
    for partition in partitions:
        log = broker.topic(partition.topic).partition(partition.partition)
        log.refresh()
        before = committed[partition].offset if partition in committed else None
        if shift_by is not None:
            if before is None:
                raise InvalidRequestError(
                    f"group {group!r} has no committed offset in {partition.topic}-{partition.partition} to shift; "
                    "use to= there"
                )
            asked_for = before + shift_by
        else:
            assert to is not None
            asked_for = _offset_at(log, to, now_ms)
        after = min(max(asked_for, log.log_start_offset), log.log_end_offset)
        plan.append(OffsetReset(*partition, before, after, asked_for))
    return plan


def apply_reset(broker: Broker, group: str, plan: list[OffsetReset]) -> None:
    """Commits what a plan says.

    Raises
    ------
    NonEmptyGroupError
        A member has joined since; nothing has changed.
    """
    try:
        broker.coordinator.commit_offsets(
            group, {TopicPartition(each.topic, each.partition): OffsetAndMetadata(each.after) for each in plan}
        )
    except UnknownMemberIdError:
        raise _has_members(group, len(broker.coordinator.describe_group(group).members)) from None


def _has_members(group: str, count: int) -> NonEmptyGroupError:
    return NonEmptyGroupError(
        f"group {group!r} has {count} members, which would commit over the reset; stop them, then reset"
    )


def _offset_at(log: Log, position: Position, now_ms: int) -> int:
    kind, number = resolve_position(position, "to", now_ms)
    if kind == "offset":
        return number
    if kind == "earliest":
        return int(log.log_start_offset)
    found = None if kind == "latest" else log.offset_for_timestamp(number)
    return int(log.log_end_offset) if found is None else found.offset


# ---- deleting records -----------------------------------------------------------------------------------


def delete_records(
    broker: Broker, topic: str, offsets: Mapping[int, int] | None, before: Position | None
) -> dict[int, int]:
    """See `logstore.broker.Broker.delete_records`."""
    if (offsets is None) == (before is None):
        raise InvalidRequestError("delete_records needs either offsets of partitions or before=")
    broker._check_writable()
    found = broker.topic(topic)
    if topic in layout.INTERNAL_TOPICS:
        raise InvalidRequestError(f"{topic} is the broker's own; its records go by compaction alone")
    if "delete" not in found.config["cleanup.policy"]:
        raise InvalidRequestError(
            f"{topic} is compacted, so each key keeps its last record; delete records by tombstones, or set "
            "cleanup.policy=compact,delete"
        )
    now_ms = time.time_ns() // 1_000_000
    targets: dict[int, int] = {}
    for number, offset in (
        offsets.items() if offsets is not None else ((number, None) for number in range(found.partitions))
    ):
        log = found.partition(number)
        if offset is None:
            assert before is not None
            target = _offset_at(log, before, now_ms)
        else:
            target = log.log_end_offset if offset == -1 else offset
        if isinstance(target, bool) or not isinstance(target, int) or not 0 <= target <= log.log_end_offset:
            raise OffsetOutOfRangeError(
                f"{topic}-{number} ends at offset {log.log_end_offset}, so its records before {target!r} can't be deleted; "
                "nothing was",
                offset=target, log_start_offset=log.log_start_offset, log_end_offset=log.log_end_offset,
            )
        targets[number] = target
    for number, target in targets.items():
        found.partition(number).advance_log_start_offset(target)
    return {number: found.partition(number).log_start_offset for number in targets}
