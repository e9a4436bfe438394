"""One topic of a broker: partitions under one name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from logstore._native.record_reader import RecordReader
from logstore._native.topic_appender import TopicAppender
from logstore.errors import InvalidRequestError, UnknownTopicOrPartitionError
from logstore.model import Durability, IsolationLevel, OffsetAndTimestamp
from logstore.positions import Position
from logstore.storage.config import TopicConfig
from logstore.storage.log import Log
from logstore.storage.log_producers import is_committed
from logstore.storage.log_reading import read_logs, scan_logs

if TYPE_CHECKING:
    from logstore.broker.metadata import TopicMetadata
    from logstore.records.scan import Scan

__all__ = ["Topic"]


class Topic(TopicAppender):
    """One topic: append to it, read it, scan it.

    Made by `Broker.create_topic` and `Broker.topic`. Thread-safe; an iterator it returns belongs to one thread.
    """

    def __init__(self, metadata: TopicMetadata, logs: tuple[Log, ...]):
        self._metadata = metadata
        self.logs = logs
        self._set_logs(metadata.name, logs)

    def _take_over(self, metadata: TopicMetadata, logs: tuple[Log, ...]) -> None:
        """Settings or partitions have changed."""
        self._metadata = metadata
        self.logs = logs
        self._set_logs(metadata.name, logs)

    @property
    def id(self) -> str:
        """The topic id: 22 characters of URL-safe base64."""
        return self._metadata.topic_id

    @property
    def partitions(self) -> int:
        """Number of partitions."""
        return len(self.logs)

    @property
    def config(self) -> TopicConfig:
        """The settings; `Broker.alter_topic` changes them."""
        return self._metadata.config

    def partition(self, number: int) -> Log:
        """The log of one partition.

        Raises
        ------
        UnknownTopicOrPartitionError
        """
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(self.logs):
            raise UnknownTopicOrPartitionError(
                f"topic {self.name!r} has no partition {number!r}; it has 0 to {len(self.logs) - 1}"
            )
        return self.logs[number]

    def _bounds(
        self, start: Position, stop: Position | None, partition: int | None, committed: bool = False
    ) -> tuple[list[Log], list[tuple[int, int | None]]]:
        if partition is None and len(self.logs) > 1:
            for what, position in (("start", start), ("stop", stop)):
                if isinstance(position, int) and not isinstance(position, bool):
                    raise InvalidRequestError(
                        f"an offset as {what}= needs partition=, since each of the {len(self.logs)} partitions of "
                        f"{self.name!r} counts for itself"
                    )
        logs = list(self.logs) if partition is None else [self.partition(partition)]
        return logs, [log.bounds(start, stop, committed=committed) for log in logs]

    def read(
        self,
        start: Position = "earliest",
        *,
        stop: Position | None = None,
        partition: int | None = None,
        follow: bool = False,
        timeout: float | None = None,
        isolation_level: IsolationLevel = "read_uncommitted",
    ) -> RecordReader:
        """Reads records.

        Parameters
        ----------
        start : int, datetime or str
            An offset (with ``partition=``, unless there is one partition); a datetime with a time zone, or an age such as
            ``"-1h"``: in each partition the first record at or after it; ``"earliest"`` or ``"latest"``.
        stop : int, datetime or str, optional
            Exclusive: in each partition the read ends before this offset, or before the first record at or after this
            time. Without, a read that does not follow ends where the partitions end now.
        partition : int, optional
            One partition alone. Without, the partitions are merged by timestamp, in order within each.
        follow : bool
            At the end, waits for new records.
        timeout : float, optional
            Seconds to wait for the next record; then the read ends. None waits for ever.
        isolation_level : {"read_uncommitted", "read_committed"}
            With ``"read_committed"``, records of aborted transactions are left out, and each partition's read ends, or
            waits, where its oldest open transaction begins.

        Returns
        -------
        RecordReader
            An iterator of `Record`; ``close()`` or ``with`` ends a read that follows.

        Raises
        ------
        InvalidRequestError, OffsetOutOfRangeError, UnknownTopicOrPartitionError
        CorruptDataError
            While iterating: the next batch is damaged. Another read can start behind it.
        """
        committed = is_committed(isolation_level)
        logs, bounds = self._bounds(start, stop, partition, committed)
        return read_logs(logs, bounds, follow=follow, timeout=timeout, committed=committed)

    def scan(
        self,
        start: Position = "earliest",
        *,
        stop: Position | None = None,
        partition: int | None = None,
        isolation_level: IsolationLevel = "read_uncommitted",
    ) -> Scan:
        """Reads columns: numpy arrays and an Arrow stream, with no Python object per record.

        Parameters
        ----------
        start, stop, partition, isolation_level
            As in `read`; the scan ends where the partitions end now.

        Returns
        -------
        Scan
            Iterate for `ColumnBatch` (partition after partition), or hand it to pyarrow, polars or duckdb.

        Raises
        ------
        As `read`.
        """
        committed = is_committed(isolation_level)
        logs, bounds = self._bounds(start, stop, partition, committed)
        return scan_logs(logs, bounds, committed=committed)

    def offset_for_timestamp(self, timestamp: int, partition: int = 0) -> OffsetAndTimestamp | None:
        """The first record of a partition at or after a time in ms; None where there is none."""
        return self.partition(partition).offset_for_timestamp(timestamp)

    def flush(self, durability: Durability = "flushed") -> None:
        """Returns once everything appended so far is at least at this level.

        Raises
        ------
        StorageFailureError
        """
        # Hand over everywhere first, so that the disk can work on all of them.
        for log in self.logs:
            log.flush("appended")
        for log in self.logs:
            log.flush(durability)

    def __repr__(self) -> str:
        return f"Topic({self.name!r}, partitions={len(self.logs)})"

    def __reduce__(self) -> Any:
        raise TypeError("a Topic belongs to its broker and can't be pickled; pass the directory and the name")
