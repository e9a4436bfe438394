"""The nouns that all layers share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, Union

if TYPE_CHECKING:
    from logstore._native.record_batch import RecordBatch

__all__ = [
    "BytesLike",
    "Durability",
    "GroupMetadata",
    "Headers",
    "IsolationLevel",
    "Lag",
    "OffsetAndMetadata",
    "OffsetAndTimestamp",
    "RecordMetadata",
    "RecoveryReport",
    "TimestampType",
    "TopicPartition",
    "Values",
]

BytesLike: TypeAlias = Union[bytes, bytearray, memoryview, "RecordBatch"]
"""Anything with a contiguous buffer of bytes."""

Values: TypeAlias = Iterable[bytes | None] | Any
"""Many values or keys: a list of bytes or None, a numpy array, or an Arrow array (``__arrow_c_array__``)."""

Durability: TypeAlias = Literal["flushed", "appended", "buffered"]
"""What an acknowledgement means; see ``docs/durability.md``."""

IsolationLevel: TypeAlias = Literal["read_uncommitted", "read_committed"]
"""Whether a reader sees every record, or waits for transactions to end and sees those of committed ones alone."""

TimestampType: TypeAlias = Literal["CreateTime", "LogAppendTime"]

Headers: TypeAlias = Sequence[tuple[str, bytes | None]]
"""Record headers in order; names may repeat, a value may be null."""


class TopicPartition(NamedTuple):
    """A topic's name and one of its partitions."""

    topic: str
    partition: int


class OffsetAndTimestamp(NamedTuple):
    """Answer to a look-up by time: a record's offset, and its time in ms."""

    offset: int
    timestamp: int


class OffsetAndMetadata(NamedTuple):
    """A committed offset: the next record to read, and what the consumer wants to remember with it.

    Attributes
    ----------
    offset : int
    metadata : str
        Up to ``offset.metadata.max.bytes`` of text.
    leader_epoch : int
        -1 where unknown.
    """

    offset: int
    metadata: str = ""
    leader_epoch: int = -1


class GroupMetadata(NamedTuple):
    """Who commits for a group. Where a generation is given, a member that the group has left behind is refused.

    Attributes
    ----------
    group : str
    generation : int
        -1 where nobody asks.
    member_id : str
    group_instance_id : str or None
    """

    group: str
    generation: int = -1
    member_id: str = ""
    group_instance_id: str | None = None


class Lag(NamedTuple):
    """How far a reader is behind a partition.

    Attributes
    ----------
    records : int
        Offsets not read yet.
    seconds : float
        Age of the oldest record not read yet; 0 where there is none.
    """

    records: int
    seconds: float


class RecordMetadata(NamedTuple):
    """Where an acknowledged record stands.

    Attributes
    ----------
    topic : str
    partition : int
    offset : int
    timestamp : int
        Milliseconds since the epoch, UTC.
    """

    topic: str
    partition: int
    offset: int
    timestamp: int


class RecoveryReport(NamedTuple):
    """What opening a log after a crash checked, found and did.

    Attributes
    ----------
    path : str
        The segment file whose tail was cut; empty when nothing was cut.
    cut_offset : int
        First offset that is no longer there; the log end offset after recovery.
    cut_bytes : int
        How many bytes were cut; 0 when nothing was.
    reason : str
        Why the tail was not a whole batch.
    kept_as : str
        The file that holds the bytes cut; empty when nothing was cut.
    scanned_bytes : int
        How much was read to find out.
    rebuilt_indexes : int
        How many index files were missing or doubtful and were rebuilt.
    spared_bytes : int
        How much that was not flushed did not have to be read: the process that wrote it was killed, but the page cache that
        it wrote to is still the same. A sample of it was read.
    """

    path: str = ""
    cut_offset: int = -1
    cut_bytes: int = 0
    reason: str = ""
    kept_as: str = ""
    scanned_bytes: int = 0
    rebuilt_indexes: int = 0
    spared_bytes: int = 0
