"""Scanning logs as columns: batches of numpy arrays, or one Arrow stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

from logstore._native.arrow_schema import schema_capsule
from logstore._native.arrow_stream import stream_capsule
from logstore._native.columns import ColumnBatch, ColumnCursor
from logstore.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from logstore._native.log_state import LogState

__all__ = ["ColumnBatch", "Scan"]


class Scan:
    """Records of one or more logs between fixed offsets, as columns.

    Iterating gives `ColumnBatch` objects, partition after partition, each in order of offset.
    Every Arrow reader takes a scan as it is: ``pyarrow.table(scan)``, ``polars.DataFrame(scan)``,
    ``duckdb.sql("select count(*) from scan")``. Both can be done any number of times. Every CRC
    is verified; control batches are left out.

    Parameters
    ----------
    logs : sequence of LogState
        Read one after another.
    bounds : sequence of (int, int)
        For each log the first offset wanted and the one behind the last.
    committed : bool
        Leaves records of aborted transactions out, and ends where the oldest open one begins.

    Raises
    ------
    InvalidRequestError
        Not one pair of bounds for each log.

    Notes
    -----
    While reading: CorruptDataError where stored bytes are damaged; OffsetOutOfRangeError where
    records within the bounds were deleted; ClosedError after the log was closed. Through Arrow
    these arrive as the reader's own exception, with the same text.

    Arrow schema: partition int32, offset int64, timestamp timestamp[ms, UTC] (null where the
    record has none), key binary, value binary, headers list<struct<key: utf8, value: binary>>.
    Bytes of a header's key that are not UTF-8 become U+FFFD.
    """

    def __init__(
        self, logs: Sequence[LogState], bounds: Sequence[tuple[int, int]], *, committed: bool = False
    ) -> None:
        if len(logs) != len(bounds):
            raise InvalidRequestError(
                f"a scan needs bounds for each log, not {len(bounds)} for {len(logs)}"
            )
        self._committed = committed
        self._parts = tuple((log, *pair) for log, pair in zip(logs, bounds, strict=True))

    def __iter__(self) -> Iterator[ColumnBatch]:
        for log, start_offset, stop_offset in self._parts:
            yield from ColumnCursor(log, start_offset, stop_offset, committed=self._committed)

    def __arrow_c_schema__(self) -> object:
        """The schema as a capsule; called by Arrow readers."""
        return schema_capsule()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """A stream over the records as a capsule; called by Arrow readers."""
        return stream_capsule(self._parts, requested_schema, committed=self._committed)

    def __repr__(self) -> str:
        parts = ", ".join(
            f"{log.topic}-{log.partition}[{start_offset}:{stop_offset}]"
            for log, start_offset, stop_offset in self._parts
        )
        return f"Scan({parts})"
