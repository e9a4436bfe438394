"""Who reads which partitions: the assignors a group's leader chooses from, as pure functions.

=====================  ==========================================================================================
``range``              topic by topic, a run of neighbouring partitions each; topics with as many partitions and the same
                       members are divided alike, so that records of one key in both are read by one member
``roundrobin``         all partitions of all topics, dealt out one by one
``sticky``             even, and everyone keeps what they had as far as that allows; all stop while the group rebalances
``cooperative-sticky`` the same, and only partitions that move stop being read while the group rebalances
=====================  ==========================================================================================

An assignor of your own is any object with a ``name`` and `Assignor.assign`; all members of a group need it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, cast

from logstore.clients.sticky_assignment import Claim, assign_sticky
from logstore.consumer_protocol import Subscription, decode_sticky_user_data, encode_sticky_user_data
from logstore.errors import CorruptDataError, InvalidConfigError, InvalidRequestError
from logstore.model import TopicPartition

__all__ = [
    "Assignor",
    "CooperativeStickyAssignor",
    "RangeAssignor",
    "RoundRobinAssignor",
    "StickyAssignor",
    "assignor_user_data",
    "check_assignment",
    "find_assignors",
    "is_cooperative",
]

Assignments: TypeAlias = Mapping[str, Sequence[TopicPartition]]


class Assignor(Protocol):
    """Divides partitions among members. Only the group's leader is asked.

    Attributes
    ----------
    name : str
        What members of a group agree by.
    is_cooperative : bool, optional
        Members keep what they own while the group rebalances. Such an assignor gives a partition that moves to nobody
        as long as its owner lists it among ``owned_partitions``. False where the attribute is missing.
    user_data : callable, optional
        ``user_data(topics, owned, generation) -> bytes | None``: bytes a member sends to the leader's assignor.
    """

    name: str

    def assign(self, partition_counts: Mapping[str, int], subscriptions: Mapping[str, Subscription]) -> Assignments:
        """Partitions by member id, from the number of partitions by topic and the subscriptions by member id."""


def is_cooperative(assignor: Assignor) -> bool:
    """Whether members keep their partitions during a rebalance."""
    return bool(getattr(assignor, "is_cooperative", False))


def assignor_user_data(
    assignor: Assignor, topics: Sequence[str], owned: Sequence[TopicPartition], generation: int
) -> bytes | None:
    """The bytes an assignor wants in a member's subscription."""
    make = getattr(assignor, "user_data", None)
    if make is None:
        return None
    data: bytes | None = make(topics, owned, generation)
    return data


def _in_order(subscriptions: Mapping[str, Subscription]) -> list[str]:
    """Members as Kafka sorts them: static ones by their instance id, then the others by member id."""

    def place(member: str) -> tuple[bool, str]:
        instance = subscriptions[member].group_instance_id
        return instance is None, member if instance is None else instance

    return sorted(subscriptions, key=place)


class RangeAssignor:
    """Topic by topic, a run of neighbouring partitions for each member; the first members get one more."""

    name = "range"

    def assign(
        self, partition_counts: Mapping[str, int], subscriptions: Mapping[str, Subscription]
    ) -> dict[str, list[TopicPartition]]:
        """See `Assignor.assign`."""
        assigned: dict[str, list[TopicPartition]] = {member: [] for member in subscriptions}
        readers: dict[str, list[str]] = {}
        for member in _in_order(subscriptions):
            for topic in set(subscriptions[member].topics):
                readers.setdefault(topic, []).append(member)
        for topic in sorted(readers):
            share, more = divmod(partition_counts.get(topic, 0), len(readers[topic]))
            first = 0
            for index, member in enumerate(readers[topic]):
                after = first + share + (index < more)
                assigned[member].extend(TopicPartition(topic, number) for number in range(first, after))
                first = after
        return assigned


class RoundRobinAssignor:
    """All partitions of all topics in order, dealt to the members in order; who has not subscribed is passed over."""

    name = "roundrobin"

    def assign(
        self, partition_counts: Mapping[str, int], subscriptions: Mapping[str, Subscription]
    ) -> dict[str, list[TopicPartition]]:
        """See `Assignor.assign`."""
        assigned: dict[str, list[TopicPartition]] = {member: [] for member in subscriptions}
        members = _in_order(subscriptions)
        topics = [frozenset(subscriptions[member].topics) for member in members]
        turn = 0
        for topic in sorted(frozenset().union(*topics)):
            for number in range(partition_counts.get(topic, 0)):
                while topic not in topics[turn]:
                    turn = (turn + 1) % len(members)
                assigned[members[turn]].append(TopicPartition(topic, number))
                turn = (turn + 1) % len(members)
        return assigned


class StickyAssignor:
    """Even, and everyone keeps what they had as far as that allows.

    Members give up everything before they join (Kafka's eager protocol) and tell what they had in the user data, in
    Kafka's format.
    """

    name = "sticky"

    def user_data(self, topics: Sequence[str], owned: Sequence[TopicPartition], generation: int) -> bytes | None:
        """What the member had; None for a new one."""
        return encode_sticky_user_data(owned, generation) if generation >= 0 else None

    def assign(
        self, partition_counts: Mapping[str, int], subscriptions: Mapping[str, Subscription]
    ) -> dict[str, list[TopicPartition]]:
        """See `Assignor.assign`."""
        claims: dict[str, Claim] = {}
        for member, subscription in subscriptions.items():
            try:
                claims[member] = decode_sticky_user_data(subscription.user_data)
            except CorruptDataError:  # as in Kafka: bytes of another assignor's make a new member
                claims[member] = ((), -1)
        return assign_sticky(partition_counts, _topics(subscriptions), claims)


class CooperativeStickyAssignor:
    """As `StickyAssignor`, while members keep reading: a partition that moves is given to nobody until its owner has let go
    of it and joined again."""

    name = "cooperative-sticky"
    is_cooperative = True

    def assign(
        self, partition_counts: Mapping[str, int], subscriptions: Mapping[str, Subscription]
    ) -> dict[str, list[TopicPartition]]:
        """See `Assignor.assign`."""
        claims = {
            member: (subscription.owned_partitions, subscription.generation)
            for member, subscription in subscriptions.items()
        }
        assigned = assign_sticky(partition_counts, _topics(subscriptions), claims)
        owners: dict[TopicPartition, list[str]] = {}
        for member, (partitions, _) in claims.items():
            for partition in partitions:
                owners.setdefault(partition, []).append(member)
        return {
            member: [place for place in partitions if place not in owners or member in owners[place]]
            for member, partitions in assigned.items()
        }


def _topics(subscriptions: Mapping[str, Subscription]) -> dict[str, tuple[str, ...]]:
    return {member: subscriptions[member].topics for member in _in_order(subscriptions)}


_KNOWN: dict[str, type[Assignor]] = {
    assignor.name: assignor for assignor in (CooperativeStickyAssignor, StickyAssignor, RangeAssignor, RoundRobinAssignor)
}


def find_assignors(strategy: str | Assignor | Iterable[str | Assignor]) -> tuple[Assignor, ...]:
    """Assignors by preference, from names and objects.

    Raises
    ------
    InvalidConfigError
        There is none of that name, one comes twice, or an object is no assignor.
    """
    is_one = isinstance(strategy, str) or hasattr(strategy, "assign")
    chosen: list[Any] = [strategy] if is_one else list(cast("Iterable[str | Assignor]", strategy))
    found: dict[str, Assignor] = {}
    for one in chosen:
        if isinstance(one, str):
            if one not in _KNOWN:
                import difflib

                near = difflib.get_close_matches(one.lower().replace("_", "-"), _KNOWN, 1, 0.5)
                advice = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(map(repr, _KNOWN))}."
                raise InvalidConfigError(f"partition_assignment_strategy: no assignor is called {one!r}; {advice}")
            one = _KNOWN[one]()
        name = getattr(one, "name", None)
        if not isinstance(name, str) or not name or not callable(getattr(one, "assign", None)) or isinstance(one, type):
            raise InvalidConfigError(
                f"partition_assignment_strategy: {one!r} is no assignor; pass a name, or an object with a name and "
                "assign(partition_counts, subscriptions)."
            )
        if name in found:
            raise InvalidConfigError(f"partition_assignment_strategy: {name!r} comes twice")
        found[name] = one
    if not found:
        raise InvalidConfigError(f"partition_assignment_strategy is empty; choose from {', '.join(map(repr, _KNOWN))}.")
    return tuple(found.values())


def check_assignment(
    name: str, assigned: Assignments, partition_counts: Mapping[str, int], subscriptions: Mapping[str, Subscription]
) -> None:
    """Refuses what an assignor must not do: a partition given twice, to a stranger, or to who has not subscribed.

    Raises
    ------
    InvalidRequestError
    """
    owner: dict[TopicPartition, str] = {}
    for member, partitions in assigned.items():
        if member not in subscriptions:
            raise InvalidRequestError(f"assignor {name!r} assigned partitions to {member!r}, who is not in the group")
        topics = frozenset(subscriptions[member].topics)
        for place in partitions:
            topic, number = place
            if topic not in topics or not 0 <= number < partition_counts.get(topic, 0):
                raise InvalidRequestError(
                    f"assignor {name!r} gave {topic}-{number} to {member!r}, who has not subscribed to it or where it does "
                    "not exist"
                )
            if place in owner:
                raise InvalidRequestError(f"assignor {name!r} gave {topic}-{number} to {owner[place]!r} and to {member!r}")
            owner[place] = member
