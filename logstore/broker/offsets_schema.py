"""The records of ``__consumer_offsets``: keys and values as bytes (wire-protocol, section 10).

Every key and value begins with a version of two bytes; that of a key tells what kind of record it is. All versions that
Kafka has written are read; what is written is key 1 with value 3 for an offset, key 2 with value 3 for a group.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

__all__ = [
    "FieldReader",
    "GroupKey",
    "GroupValue",
    "MalformedRecordError",
    "MemberValue",
    "OffsetKey",
    "OffsetValue",
    "decode_group_value",
    "decode_key",
    "decode_offset_value",
    "encode_group_key",
    "encode_group_value",
    "encode_offset_key",
    "encode_offset_keys",
    "encode_offset_value",
]

STRING_BYTES_MAX = 32767
OFFSET_KEY_VERSION = 1
GROUP_KEY_VERSION = 2
VALUE_VERSION = 3
FLEXIBLE_VERSION = 4
# A member in the flexible encoding, with all its texts and bytes empty; in the others it is longer.
MEMBER_BYTES_MIN = 15

_INT16 = struct.Struct(">h")
_INT32 = struct.Struct(">i")
_INT64 = struct.Struct(">q")
_INT16_TWICE = struct.Struct(">hh")
_OFFSET_HEAD = struct.Struct(">hqih")
_OFFSET_WITHOUT_METADATA = struct.Struct(">hqihq")


class MalformedRecordError(ValueError):
    """The bytes are no record of a known version. It is skipped, whoever wrote it."""


class OffsetKey(NamedTuple):
    """Names a committed offset."""

    group: str
    topic: str
    partition: int


class GroupKey(NamedTuple):
    """Names a group."""

    group: str


class OffsetValue(NamedTuple):
    """A committed offset; times are in ms, -1 where there is none."""

    offset: int
    leader_epoch: int
    metadata: str
    commit_timestamp: int
    expire_timestamp: int = -1


class MemberValue(NamedTuple):
    """A member of a group, with what it subscribes to and what it was assigned."""

    member_id: str
    group_instance_id: str | None
    client_id: str
    client_host: str
    rebalance_timeout_ms: int
    session_timeout_ms: int
    subscription: bytes
    assignment: bytes


class GroupValue(NamedTuple):
    """A generation of a group."""

    protocol_type: str
    generation: int
    protocol: str | None
    leader: str | None
    state_timestamp: int
    members: tuple[MemberValue, ...]


# ---- writing --------------------------------------------------------------------------------------------


def _string(text: str) -> bytes:
    data = text.encode()
    if len(data) > STRING_BYTES_MAX:
        raise ValueError(f"{text[:40]!r}... has {len(data)} bytes; Kafka's format takes up to {STRING_BYTES_MAX}")
    return _INT16.pack(len(data)) + data


def _nullable_string(text: str | None) -> bytes:
    return b"\xff\xff" if text is None else _string(text)


def _bytes(data: bytes) -> bytes:
    return _INT32.pack(len(data)) + data


def encode_offset_key(group: str, topic: str, partition: int) -> bytes:
    """Key of a committed offset."""
    return _INT16.pack(OFFSET_KEY_VERSION) + _string(group) + _string(topic) + _INT32.pack(partition)


def encode_offset_keys(group: str, partitions: Iterable[tuple[str, int]]) -> list[bytes]:
    """Keys of many committed offsets of one group."""
    heads: dict[str, bytes] = {}
    keys = []
    for topic, partition in partitions:
        head = heads.get(topic)
        if head is None:
            head = heads[topic] = encode_offset_key(group, topic, 0)[:-4]
        keys.append(head + _INT32.pack(partition))
    return keys


def encode_offset_value(value: OffsetValue) -> bytes:
    """Value of a committed offset."""
    offset, leader_epoch, metadata, commit_timestamp, _ = value
    if not metadata:
        return _OFFSET_WITHOUT_METADATA.pack(VALUE_VERSION, offset, leader_epoch, 0, commit_timestamp)
    data = _string(metadata)
    return _OFFSET_HEAD.pack(VALUE_VERSION, offset, leader_epoch, len(data) - 2) + data[2:] + _INT64.pack(commit_timestamp)


def encode_group_key(group: str) -> bytes:
    """Key of a group."""
    return _INT16.pack(GROUP_KEY_VERSION) + _string(group)


def encode_group_value(value: GroupValue) -> bytes:
    """Value of a group."""
    parts = [
        _INT16.pack(VALUE_VERSION),
        _string(value.protocol_type),
        _INT32.pack(value.generation),
        _nullable_string(value.protocol),
        _nullable_string(value.leader),
        _INT64.pack(value.state_timestamp),
        _INT32.pack(len(value.members)),
    ]
    for member in value.members:
        parts += [
            _string(member.member_id),
            _nullable_string(member.group_instance_id),
            _string(member.client_id),
            _string(member.client_host),
            _INT32.pack(member.rebalance_timeout_ms),
            _INT32.pack(member.session_timeout_ms),
            _bytes(member.subscription),
            _bytes(member.assignment),
        ]
    return b"".join(parts)


# ---- reading --------------------------------------------------------------------------------------------


class FieldReader:
    """A cursor over the fields of one key or value; nothing is taken that is not there."""

    __slots__ = ("_at", "_data", "is_flexible")

    def __init__(self, data: bytes):
        self._data = data
        self._at = 0
        self.is_flexible = False

    def take(self, count: int) -> bytes:
        """The next bytes."""
        end = self._at + count
        if count < 0 or end > len(self._data):
            raise MalformedRecordError(f"a field of {count} bytes at byte {self._at} of {len(self._data)}")
        data = self._data[self._at : end]
        self._at = end
        return data

    def int16(self) -> int:
        """The next i16."""
        return int.from_bytes(self.take(2), "big", signed=True)

    def int32(self) -> int:
        """The next i32."""
        return int.from_bytes(self.take(4), "big", signed=True)

    def int64(self) -> int:
        """The next i64."""
        return int.from_bytes(self.take(8), "big", signed=True)

    def _unsigned_varint(self) -> int:
        value = 0
        for shift in range(0, 35, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise MalformedRecordError(f"a varint longer than 5 bytes before byte {self._at}")

    def _length(self, width: int) -> int:
        """Length of a string, bytes or array; -1 for null."""
        if self.is_flexible:
            return self._unsigned_varint() - 1
        return self.int16() if width == 2 else self.int32()

    def nullable_string(self) -> str | None:
        """The next string, or None."""
        length = self._length(2)
        if length == -1:
            return None
        try:
            return self.take(length).decode()
        except UnicodeDecodeError as error:
            raise MalformedRecordError(f"text that is no UTF-8 before byte {self._at}: {error}") from None

    def string(self) -> str:
        """The next string, which must not be null."""
        text = self.nullable_string()
        if text is None:
            raise MalformedRecordError(f"null where text belongs before byte {self._at}")
        return text

    def blob(self) -> bytes:
        """The next bytes; null counts as none."""
        length = self._length(4)
        return b"" if length == -1 else self.take(length)

    def count(self, least_bytes: int) -> int:
        """Length of the next array, which must not be null, and whose elements have at least so many bytes each."""
        count = self.nullable_count(least_bytes)
        if count < 0:
            raise MalformedRecordError(f"null where an array belongs before byte {self._at}")
        return count

    def nullable_count(self, least_bytes: int) -> int:
        """The same; -1 for null."""
        count = self._length(4)
        if count < -1 or count * least_bytes > len(self._data) - self._at:
            raise MalformedRecordError(f"an array of {count} elements before byte {self._at} of {len(self._data)}")
        return count

    def skip_tags(self) -> None:
        """Passes over the tagged fields that end a flexible structure; all of them are optional."""
        if not self.is_flexible:
            return
        for _ in range(self._unsigned_varint()):
            self._unsigned_varint()
            self.take(self._unsigned_varint())

    def value_version(self) -> int:
        """The version that a value begins with; refused if it is unknown."""
        version = self.int16()
        if not 0 <= version <= FLEXIBLE_VERSION:
            raise MalformedRecordError(f"version {version} of a value; 0 to {FLEXIBLE_VERSION} are known")
        self.is_flexible = version >= FLEXIBLE_VERSION
        return version


def decode_key(data: bytes) -> OffsetKey | GroupKey | None:
    """What a record is about; None for kinds that belong to other protocols (KIP-848 groups, share groups).

    Raises
    ------
    MalformedRecordError
    """
    if len(data) > 4:
        # What nearly all records are, read in few steps: a log may hold millions.
        kind, group_bytes = _INT16_TWICE.unpack_from(data)
        topic_at = 6 + group_bytes
        if kind == OFFSET_KEY_VERSION and 6 <= topic_at <= len(data) - 4:
            topic_end = topic_at + int.from_bytes(data[topic_at - 2 : topic_at], "big", signed=True)
            if topic_at <= topic_end == len(data) - 4:
                try:
                    return OffsetKey(
                        data[4 : topic_at - 2].decode(), data[topic_at:topic_end].decode(),
                        int.from_bytes(data[topic_end:], "big", signed=True),
                    )
                except UnicodeDecodeError:
                    pass  # said below
    reader = FieldReader(data)
    kind = reader.int16()
    if kind in (0, OFFSET_KEY_VERSION):
        return OffsetKey(reader.string(), reader.string(), reader.int32())
    if kind == GROUP_KEY_VERSION:
        return GroupKey(reader.string())
    if kind < 0:
        raise MalformedRecordError(f"a key of version {kind}")
    return None


def decode_offset_value(data: bytes) -> OffsetValue:
    """A committed offset, of any version.

    Raises
    ------
    MalformedRecordError
    """
    if len(data) == _OFFSET_WITHOUT_METADATA.size and data[:2] == b"\0\x03" and data[14:16] == b"\0\0":
        _, offset, leader_epoch, _, commit_timestamp = _OFFSET_WITHOUT_METADATA.unpack(data)
        return OffsetValue(offset, leader_epoch, "", commit_timestamp)
    reader = FieldReader(data)
    version = reader.value_version()
    offset = reader.int64()
    leader_epoch = reader.int32() if version >= 3 else -1
    metadata = reader.string()
    commit_timestamp = reader.int64()
    expire_timestamp = reader.int64() if version == 1 else -1
    reader.skip_tags()
    return OffsetValue(offset, leader_epoch, metadata, commit_timestamp, expire_timestamp)


def decode_group_value(data: bytes) -> GroupValue:
    """A generation of a group, of any version.

    Raises
    ------
    MalformedRecordError
    """
    reader = FieldReader(data)
    version = reader.value_version()
    protocol_type = reader.string()
    generation = reader.int32()
    protocol = reader.nullable_string()
    leader = reader.nullable_string()
    state_timestamp = reader.int64() if version >= 2 else -1
    members = tuple(_member(reader, version) for _ in range(reader.count(MEMBER_BYTES_MIN)))
    reader.skip_tags()
    return GroupValue(protocol_type, generation, protocol, leader, state_timestamp, members)


def _member(reader: FieldReader, version: int) -> MemberValue:
    member_id = reader.string()
    group_instance_id = reader.nullable_string() if version >= 3 else None
    client_id = reader.string()
    client_host = reader.string()
    rebalance_timeout_ms = reader.int32() if version >= 1 else -1
    session_timeout_ms = reader.int32()
    subscription = reader.blob()
    assignment = reader.blob()
    reader.skip_tags()
    if rebalance_timeout_ms < 0:
        rebalance_timeout_ms = session_timeout_ms
    return MemberValue(
        member_id, group_instance_id, client_id, client_host, rebalance_timeout_ms, session_timeout_ms, subscription,
        assignment,
    )
