"""What the leader of a group does for all of its members: it reads their subscriptions and divides the partitions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from logstore.broker_api import JoinedMember
from logstore.clients.assignors import Assignor, check_assignment
from logstore.consumer_protocol import Assignment, Subscription, decode_subscription, encode_assignment
from logstore.errors import CorruptDataError
from logstore.model import TopicPartition

if TYPE_CHECKING:
    import logging

__all__ = ["client_logger", "divide", "read_subscriptions"]


def read_subscriptions(group: str, members: Iterable[JoinedMember]) -> dict[str, Subscription]:
    """Subscriptions by member id. One that can't be read is logged and counts as empty: the others go on reading."""
    subscriptions: dict[str, Subscription] = {}
    for member in members:
        try:
            subscription = decode_subscription(member.metadata, member.group_instance_id)
        except CorruptDataError as error:
            client_logger().warning("group %r: member %s gets nothing: %s", group, member.member_id, error)
            subscription = Subscription(group_instance_id=member.group_instance_id)
        subscriptions[member.member_id] = subscription
    return subscriptions


def divide(
    assignor: Assignor, partition_counts: Mapping[str, int], subscriptions: Mapping[str, Subscription]
) -> dict[str, bytes]:
    """Everyone's assignment, as bytes.

    Raises
    ------
    InvalidRequestError
        The assignor did what it must not.
    """
    assigned = assignor.assign(partition_counts, subscriptions)
    check_assignment(assignor.name, assigned, partition_counts, subscriptions)
    return {
        member: encode_assignment(Assignment(tuple(TopicPartition(*place) for place in assigned.get(member, ()))))
        for member in subscriptions
    }


def client_logger() -> logging.Logger:
    """Where clients log; loads `logging` when there is something to say."""
    import logging

    return logging.getLogger("logstore.clients")
