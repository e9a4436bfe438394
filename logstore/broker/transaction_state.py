"""Transactions as their coordinator holds them, and as ``__transaction_state`` does: keys and values as bytes
(wire-protocol, section 11.4)."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple

from logstore.broker.offsets_schema import FieldReader, MalformedRecordError
from logstore.model import TopicPartition

__all__ = [
    "MARKER_EPOCH_MAX",
    "Status",
    "Transaction",
    "TransactionValue",
    "decode_transaction_key",
    "decode_transaction_value",
    "encode_transaction_key",
    "encode_transaction_value",
]

KEY_VERSION = 0
VALUE_VERSION = 0
FLEXIBLE_VERSION = 1
MARKER_EPOCH_MAX = 32766
"""A producer that has come to this epoch gets another id: one more is what a marker may need."""

_HEAD = struct.Struct(">hqhib")
_TIMES = struct.Struct(">qq")
_INT16 = struct.Struct(">h")
_INT32 = struct.Struct(">i")


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


class Transaction:
    """One transactional id. Its lock is held by whoever changes it, also while the disk is waited for."""

    __slots__ = (
        "ended", "expires_epoch", "is_recorded", "lock", "marked", "partitions", "producer_epoch", "producer_id",
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
        self.lock = threading.Lock()

    def value(self) -> TransactionValue:
        """As it is written."""
        return TransactionValue(
            self.producer_id, self.producer_epoch, self.timeout_ms, self.status, tuple(sorted(self.partitions)),
            self.updated_ms, self.start_ms,
        )


def encode_transaction_key(transactional_id: str) -> bytes:
    """Key of a transactional id."""
    return _INT16.pack(KEY_VERSION) + _string(transactional_id)


def encode_transaction_value(value: TransactionValue) -> bytes:
    """Value, in version 0, which every Kafka reads."""
    parts = [_HEAD.pack(VALUE_VERSION, value.producer_id, value.producer_epoch, value.timeout_ms, value.status)]
    if value.status is Status.EMPTY:
        parts.append(_INT32.pack(-1))
    else:
        by_topic = _by_topic(value.partitions)
        parts.append(_INT32.pack(len(by_topic)))
        for topic, numbers in by_topic.items():
            parts += [_string(topic), _INT32.pack(len(numbers)), *map(_INT32.pack, numbers)]
    parts.append(_TIMES.pack(value.updated_ms, value.start_ms))
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
