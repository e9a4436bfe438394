"""Transactions as their coordinator holds them, and as ``__transaction_state`` does: keys and values as bytes
(wire-protocol, section 11.4)."""

from __future__ import annotations

import functools
import struct
import threading
from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import NamedTuple

from logstore.broker.offsets_schema import FieldReader, MalformedRecordError
from logstore.model import TopicPartition

__all__ = [
    "ENDS_HEADER",
    "MARKER_EPOCH_MAX",
    "Decision",
    "Status",
    "Transaction",
    "TransactionValue",
    "decode_ends",
    "decode_transaction_key",
    "decode_transaction_value",
    "encode_ends",
    "encode_transaction_key",
    "encode_transaction_value",
]

KEY_VERSION = 0
VALUE_VERSION = 0
FLEXIBLE_VERSION = 1
MARKER_EPOCH_MAX = 32766
"""A producer that has come to this epoch gets another id: one more is what a marker may need."""

ENDS_HEADER = "logstore.ends"
"""Header of a record that decides to commit."""

_HEAD = struct.Struct(">hqhib")
_TIMES = struct.Struct(">qq")
_INT16 = struct.Struct(">h")
_INT32 = struct.Struct(">i")
_END = struct.Struct(">iq")
_NO_PARTITIONS = _INT32.pack(-1)


class Status(IntEnum):
    """Where a transaction stands, in Kafka's numbers."""

    EMPTY = 0
    ONGOING = 1
    PREPARE_COMMIT = 2
    PREPARE_ABORT = 3
    COMPLETE_COMMIT = 4
    COMPLETE_ABORT = 5
    DEAD = 6
    PREPARE_EPOCH_FENCE = 7

    @property
    def label(self) -> str:
        """Kafka's name."""
        return "".join(word.capitalize() for word in self.name.split("_"))

    @property
    def is_prepared(self) -> bool:
        """Decided, but not in all partitions yet."""
        return self in (Status.PREPARE_COMMIT, Status.PREPARE_ABORT, Status.PREPARE_EPOCH_FENCE)

    @property
    def is_commit(self) -> bool:
        """Decided, and that way."""
        return self in (Status.PREPARE_COMMIT, Status.COMPLETE_COMMIT)


class TransactionValue(NamedTuple):
    """The value of a record; times are in ms, -1 where there is none."""

    producer_id: int
    producer_epoch: int
    timeout_ms: int
    status: Status
    partitions: tuple[TopicPartition, ...]
    updated_ms: int
    start_ms: int


class Decision:
    """How a transaction was to end, as the log has it; it counts if all of the transaction had reached the disk."""

    __slots__ = ("commit", "ends", "transactional_id", "value")

    def __init__(self, transactional_id: str, value: TransactionValue, ends: Mapping[TopicPartition, int]):
        self.transactional_id = transactional_id
        self.value = value
        self.commit = value.status.is_commit
        self.ends = ends  # where the logs ended; empty once it is certain that it counts


class Transaction:
    """One transactional id. Its lock is held by whoever changes it, also while the disk is waited for."""

    __slots__ = (
        "decision", "ended", "expires_epoch", "is_recorded", "lock", "marked", "partitions", "producer_epoch", "producer_id",
        "start_ms", "status", "timeout_ms", "transactional_id", "updated_ms",
    )

    def __init__(self, transactional_id: str, value: TransactionValue):
        self.transactional_id = transactional_id
        self.producer_id = value.producer_id
        self.producer_epoch = value.producer_epoch
        self.timeout_ms = value.timeout_ms
        self.status = value.status
        self.partitions = set(value.partitions)
        self.updated_ms = value.updated_ms
        self.start_ms = value.start_ms
        # Id and epoch of the transaction that was decided last: whoever asks again is answered again.
        self.ended = (-1, -1)
        # Epoch of a producer whose transaction was aborted behind its back: it may go on with the next (KIP-588).
        self.expires_epoch = -1
        self.is_recorded = True  # the decision is in the log
        self.marked: set[TopicPartition] = set()  # have their markers
        self.decision: Decision | None = None  # the last one, as it was read from the log
        self.lock = threading.Lock()

    def value(self) -> TransactionValue:
        """As it is written."""
        return TransactionValue(
            self.producer_id, self.producer_epoch, self.timeout_ms, self.status, tuple(sorted(self.partitions)),
            self.updated_ms, self.start_ms,
        )


@functools.lru_cache(4096)
def encode_transaction_key(transactional_id: str) -> bytes:
    """Key of a transactional id."""
    return _INT16.pack(KEY_VERSION) + _string(transactional_id)


def encode_transaction_value(value: TransactionValue) -> bytes:
    """Value, in version 0, which every Kafka reads."""
    producer_id, producer_epoch, timeout_ms, status, partitions, updated_ms, start_ms = value
    return b"".join((
        _HEAD.pack(VALUE_VERSION, producer_id, producer_epoch, timeout_ms, status),
        _NO_PARTITIONS if status is Status.EMPTY else _encoded_partitions(partitions),
        _TIMES.pack(updated_ms, start_ms),
    ))


@functools.lru_cache(1024)  # a producer's transactions are much alike
def _encoded_partitions(partitions: tuple[TopicPartition, ...]) -> bytes:
    by_topic = _by_topic(partitions)
    parts = [_INT32.pack(len(by_topic))]
    for topic, numbers in by_topic.items():
        parts += [_string(topic), _INT32.pack(len(numbers)), *map(_INT32.pack, numbers)]
    return b"".join(parts)


def _by_topic(partitions: Iterable[TopicPartition]) -> dict[str, list[int]]:
    by_topic: dict[str, list[int]] = {}
    for topic, number in partitions:
        by_topic.setdefault(topic, []).append(number)
    return by_topic


def _string(text: str) -> bytes:
    data = text.encode()
    return _INT16.pack(len(data)) + data


def decode_transaction_key(data: bytes) -> str:
    """The transactional id.

    Raises
    ------
    MalformedRecordError
    """
    reader = FieldReader(data)
    version = reader.int16()
    if version != KEY_VERSION:
        raise MalformedRecordError(f"a key of version {version}")
    return reader.string()


def decode_transaction_value(data: bytes) -> TransactionValue:
    """The state, of either version.

    Raises
    ------
    MalformedRecordError
    """
    reader = FieldReader(data)
    version = reader.int16()
    if version not in (VALUE_VERSION, FLEXIBLE_VERSION):
        raise MalformedRecordError(f"version {version} of a value; 0 and 1 are known")
    reader.is_flexible = version == FLEXIBLE_VERSION
    producer_id, producer_epoch, timeout_ms = reader.int64(), reader.int16(), reader.int32()
    number = reader.take(1)[0]
    if number not in Status.__members__.values():
        raise MalformedRecordError(f"status {number} of a transaction")
    partitions = []
    for _ in range(max(reader.nullable_count(3), 0)):
        topic = reader.string()
        partitions += [TopicPartition(topic, reader.int32()) for _ in range(reader.count(4))]
        reader.skip_tags()
    updated_ms, start_ms = reader.int64(), reader.int64()
    reader.skip_tags()
    return TransactionValue(
        producer_id, producer_epoch, timeout_ms, Status(number), tuple(partitions), updated_ms, start_ms
    )


def encode_ends(ends: Mapping[TopicPartition, int]) -> bytes:
    """Where logs ended, for the header of a decision."""
    parts = []
    by_topic = _by_topic(ends)
    parts.append(_INT32.pack(len(by_topic)))
    for topic, numbers in by_topic.items():
        parts += [_string(topic), _INT32.pack(len(numbers))]
        parts += [_END.pack(number, ends[TopicPartition(topic, number)]) for number in numbers]
    return b"".join(parts)


def decode_ends(data: bytes) -> dict[TopicPartition, int]:
    """Where logs ended; nothing where the header is missing.

    Raises
    ------
    MalformedRecordError
    """
    ends: dict[TopicPartition, int] = {}
    if not data:
        return ends
    reader = FieldReader(data)
    for _ in range(reader.count(6)):
        topic = reader.string()
        for _ in range(reader.count(12)):
            number = reader.int32()
            ends[TopicPartition(topic, number)] = reader.int64()
    return ends
