"""Logs made by hand for the column tests: batches in files, published without a writer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from logstore._native.log_state import LogState
from logstore._native.record_batch_builder import RecordBatchBuilder
from logstore._native.segment import Segment

if TYPE_CHECKING:
    from pathlib import Path

Headers = list[tuple[str, bytes | None]]


@dataclass(frozen=True)
class Row:
    """One record as it is expected back."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers = field(default_factory=list)


def encode(rows: list[Row], **build: object) -> bytes:
    """One batch of rows with consecutive offsets."""
    builder = RecordBatchBuilder()
    for row in rows:
        builder.append(row.value, row.key, headers=row.headers, timestamp=row.timestamp)
    return bytes(builder.build(base_offset=rows[0].offset, **build))


class MadeLog:
    """A log of sealed segments: `add` batches, `roll`, then `publish`."""

    def __init__(self, directory: Path, partition: int = 0) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.partition = partition
        self.segments: list[tuple[int, bytearray]] = [(0, bytearray())]
        self.end_offset = 0
        self.state = LogState()
        self.state._identify("orders", partition)

    def add(self, batch: bytes, end_offset: int) -> None:
        self.segments[-1][1].extend(batch)
        self.end_offset = end_offset

    def add_rows(self, rows: list[Row], **build: object) -> None:
        self.add(encode(rows, **build), rows[-1].offset + 1)

    def roll(self) -> None:
        self.segments.append((self.end_offset, bytearray()))

    def path(self, i: int = 0) -> Path:
        return self.directory / f"{self.segments[i][0]:020d}.log"

    def publish(self, log_start_offset: int = 0) -> LogState:
        ends = [base for base, _ in self.segments[1:]] + [self.end_offset]
        made = []
        for i, ((base_offset, data), end_offset) in enumerate(
            zip(self.segments, ends, strict=True)
        ):
            self.path(i).write_bytes(data)
            made.append(
                Segment.sealed(
                    str(self.path(i)),
                    base_offset,
                    max(end_offset, base_offset + 1),
                    index_interval_bytes=4096,
                    index_bytes=1 << 20,
                )
            )
        self.state._publish(
            segments=tuple(made),
            log_start_offset=log_start_offset,
            log_end_offset=self.end_offset,
        )
        return self.state


def make_rows(first: int, count: int, value_bytes: int = 20) -> list[Row]:
    """Rows with nulls, empty and odd sizes, headers and records without a timestamp among them."""
    rows = []
    for offset in range(first, first + count):
        headers: Headers = []
        if offset % 5 == 1:
            headers = [("trace", b"%d" % offset), ("empty", b""), ("none", None)][: 1 + offset % 3]
        elif offset % 5 == 2:
            headers = [("größe-✓", b"\x00\xff")]
        rows.append(
            Row(
                offset,
                -1 if offset % 11 == 4 else 1_700_000_000_000 + 7 * offset,
                None if offset % 3 == 0 else b"k%d" % offset * (offset % 4),
                None if offset % 7 == 3 else b"%d." % offset * (offset % value_bytes),
                headers,
            )
        )
    return rows
