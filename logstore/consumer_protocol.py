"""What the members of a consumer group tell each other, through a coordinator that does not read it.

Kafka's consumer protocol: a member's *subscription* goes to the leader with JoinGroup, its *assignment* comes back with
SyncGroup. Versions 0 to 3 are read and 3 is written; a newer version only appends fields, which are passed over.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

from logstore.errors import CorruptDataError, InvalidRequestError
from logstore.model import TopicPartition

__all__ = [
    "PROTOCOL_TYPE",
    "Assignment",
    "Subscription",
    "decode_assignment",
    "decode_sticky_user_data",
    "decode_subscription",
    "encode_assignment",
    "encode_sticky_user_data",
    "encode_subscription",
]

PROTOCOL_TYPE = "consumer"
VERSION = 3


class Subscription(NamedTuple):
    """What a member wants to read, and what it holds.

    Attributes
    ----------
    topics : tuple[str, ...]
    user_data : bytes or None
        For the assignor.
    owned_partitions : tuple[TopicPartition, ...]
        What the member still holds while it joins (cooperative protocol).
    generation : int
        The last generation the member was assigned partitions in; -1 where unknown.
    rack_id : str or None
    group_instance_id : str or None
        Of a static member. Not in the bytes: the coordinator knows it.
    """

    topics: tuple[str, ...] = ()
    user_data: bytes | None = None
    owned_partitions: tuple[TopicPartition, ...] = ()
    generation: int = -1
    rack_id: str | None = None
    group_instance_id: str | None = None


class Assignment(NamedTuple):
    """The partitions a member may read, and bytes its assignor adds."""

    partitions: tuple[TopicPartition, ...] = ()
    user_data: bytes | None = None


# ---- writing ------------------------------------------------------------------------------------


def _string(text: str) -> bytes:
    data = text.encode()
    if len(data) > 0x7FFF:
        raise InvalidRequestError(f"a name of {len(data)} bytes is too long for the consumer protocol: {text[:40]!r}...")
    return struct.pack(">h", len(data)) + data


def _bytes(data: bytes | None) -> bytes:
    return struct.pack(">i", -1) if data is None else struct.pack(">i", len(data)) + data


def _partitions(partitions: Iterable[TopicPartition]) -> bytes:
    by_topic: dict[str, list[int]] = {}
    for topic, partition in partitions:
        by_topic.setdefault(topic, []).append(partition)
    parts = [struct.pack(">i", len(by_topic))]
    for topic, numbers in by_topic.items():
        parts += (_string(topic), struct.pack(f">i{len(numbers)}i", len(numbers), *numbers))
    return b"".join(parts)


def encode_subscription(subscription: Subscription) -> bytes:
    """A subscription as bytes, version 3.

    Raises
    ------
    InvalidRequestError
        A name is longer than 32,767 bytes.
    """
    topics = subscription.topics
    rack_id = subscription.rack_id
    return b"".join(
        (
            struct.pack(">hi", VERSION, len(topics)),
            *map(_string, topics),
            _bytes(subscription.user_data),
            _partitions(subscription.owned_partitions),
            struct.pack(">i", subscription.generation),
            struct.pack(">h", -1) if rack_id is None else _string(rack_id),
        )
    )


def encode_assignment(assignment: Assignment) -> bytes:
    """An assignment as bytes, version 3.

    Raises
    ------
    InvalidRequestError
        A name is longer than 32,767 bytes.
    """
    return struct.pack(">h", VERSION) + _partitions(assignment.partitions) + _bytes(assignment.user_data)


def encode_sticky_user_data(owned: Iterable[TopicPartition], generation: int) -> bytes:
    """What Kafka's eager sticky assignor puts into the user data: what a member held, and in which generation."""
    return _partitions(owned) + struct.pack(">i", generation)


# ---- reading ------------------------------------------------------------------------------------


class _Reader:
    """A cursor over bytes that somebody else wrote; no count is believed that the bytes left can't hold."""

    def __init__(self, data: bytes, what: str):
        self.data = bytes(data)
        self.at = 0
        self.what = what

    def left(self) -> int:
        return len(self.data) - self.at

    def broken(self, reason: str) -> CorruptDataError:
        return CorruptDataError(
            "<memory>", self.at, f"{self.what}: {reason}", advice="A member of the group sent it; see which client it uses."
        )

    def take(self, length: int) -> bytes:
        if length < 0 or length > self.left():
            raise self.broken(f"a length of {length} where {self.left()} bytes are left")
        self.at += length
        return self.data[self.at - length : self.at]

    def int16(self) -> int:
        return int.from_bytes(self.take(2), "big", signed=True)

    def int32(self) -> int:
        return int.from_bytes(self.take(4), "big", signed=True)

    def count(self, smallest: int) -> int:
        """Number of elements of an array whose elements take ``smallest`` bytes or more."""
        count = self.int32()
        if count < 0 or count * smallest > self.left():
            raise self.broken(f"an array of {count} where {self.left()} bytes are left")
        return count

    def string(self) -> str:
        data = self.take(self.int16())
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise self.broken("a name that is not UTF-8") from None

    def nullable_string(self) -> str | None:
        if self.data[self.at : self.at + 2] == b"\xff\xff":
            self.at += 2
            return None
        return self.string()

    def nullable_bytes(self) -> bytes | None:
        length = self.int32()
        return None if length == -1 else self.take(length)

    def partitions(self) -> tuple[TopicPartition, ...]:
        found: list[TopicPartition] = []
        for _ in range(self.count(6)):
            topic = self.string()
            count = self.count(4)
            numbers = struct.unpack(f">{count}i", self.take(4 * count))
            if count and min(numbers) < 0:
                raise self.broken(f"partition {min(numbers)} of {topic!r}")
            found.extend(TopicPartition(topic, number) for number in numbers)
        return tuple(found)

    def version(self) -> int:
        version = self.int16()
        if version < 0:
            raise self.broken(f"version {version}")
        return version


def decode_subscription(data: bytes, group_instance_id: str | None = None) -> Subscription:
    """Reads a subscription of any version; bytes behind what is known are passed over.

    Raises
    ------
    CorruptDataError
        The bytes break off or contradict themselves.
    """
    reader = _Reader(data, "subscription")
    version = reader.version()
    topics = tuple([reader.string() for _ in range(reader.count(2))])
    user_data = reader.nullable_bytes()
    owned = reader.partitions() if version >= 1 else ()
    generation = reader.int32() if version >= 2 else -1
    rack_id = reader.nullable_string() if version >= 3 else None
    return Subscription(topics, user_data, owned, generation, rack_id, group_instance_id)


def decode_assignment(data: bytes) -> Assignment:
    """Reads an assignment of any version. No bytes at all are an empty one: the leader did not know the member.

    Raises
    ------
    CorruptDataError
        The bytes break off or contradict themselves.
    """
    if not data:
        return Assignment()
    reader = _Reader(data, "assignment")
    reader.version()
    partitions = reader.partitions()
    return Assignment(partitions, reader.nullable_bytes())


def decode_sticky_user_data(data: bytes | None) -> tuple[tuple[TopicPartition, ...], int]:
    """What a member held and in which generation, from a sticky assignor's user data; nothing where there is none.

    Version 0 has no generation: -1.

    Raises
    ------
    CorruptDataError
        The bytes break off or contradict themselves.
    """
    if not data:
        return (), -1
    reader = _Reader(data, "sticky user data")
    partitions = reader.partitions()
    return partitions, reader.int32() if reader.left() >= 4 else -1
