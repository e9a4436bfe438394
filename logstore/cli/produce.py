"""``logstore produce``: records from standard input."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from logstore.cli.invocation import (
    Command,
    InputError,
    Invocation,
    pass_invocation,
    topic_argument,
    topic_of,
)
from logstore.cli.output import format_count, say, write_json
from logstore.cli.positions import check_partition
from logstore.cli.record_json import NewRecord, new_record_from_json

if TYPE_CHECKING:
    import logstore

__all__ = ["Appended", "append_records", "command"]

_PIECE_BYTES = 1 << 20
DURABILITIES = click.Choice(["flushed", "appended", "buffered"])


class Appended:
    """How many records went into which partition, and where."""

    def __init__(self, topic: str):
        self.topic = topic
        self.partitions: dict[int, list[int]] = {}  # records, first offset, last offset

    def add(self, offsets: dict[int, range]) -> None:
        for partition, span in offsets.items():
            if not span:
                continue
            entry = self.partitions.setdefault(partition, [0, span.start, span.stop - 1])
            entry[0] += len(span)
            entry[2] = span.stop - 1

    @property
    def count(self) -> int:
        return sum(records for records, _, _ in self.partitions.values())

    def as_json(self) -> dict[str, Any]:
        return {
            "topic": self.topic,
            "records": self.count,
            "partitions": {
                str(partition): {"records": records, "first_offset": first, "last_offset": last}
                for partition, (records, first, last) in sorted(self.partitions.items())
            },
        }

    def __str__(self) -> str:
        records = "1 record" if self.count == 1 else f"{format_count(self.count)} records"
        places = [
            f"partition {partition}: {format_count(count)} "
            + (f"(offsets {first} to {last})" if count > 1 else f"(offset {first})")
            for partition, (count, first, last) in sorted(self.partitions.items())
        ]
        return f"{records} appended to {self.topic}" + "".join(f"\n  {place}" for place in places)


@click.command("produce", cls=Command)
@topic_argument()
@click.option(
    "-K",
    "--key-delimiter",
    metavar="TEXT",
    help=r"Each line is KEY, this, VALUE; \t for a tab. Without it, a line is a value.",
)
@click.option(
    "-f",
    "--format",
    "format_",
    type=click.Choice(["lines", "json"]),
    default="lines",
    show_default=True,
    help='json: a line is {"key": ..., "value": ..., "headers": [[name, value], ...], "timestamp": ms}, where a '
    'key or value is a text, {"base64": "..."} or null.',
)
@click.option("--null", metavar="TEXT", help="Lines: a key or value of just this text is null.")
@click.option("-p", "--partition", type=int, help="All into this one; else by key.")
@click.option("-H", "--header", metavar="NAME=VALUE", multiple=True, help="On every record; may be repeated.")
@click.option(
    "--durability",
    type=DURABILITIES,
    help="What an acknowledgement means; else as the topic is set.",
)
@click.option(
    "--compression",
    type=click.Choice(["none", "gzip", "snappy", "lz4", "zstd"]),
    help="Of the batches; else as the topic is set.",
)
@click.option(
    "--partitioner",
    type=click.Choice(["murmur2", "crc32", "round_robin"]),
    help="Where records go by their keys: as Kafka (murmur2, the default) or librdkafka has it, or in turn.",
)
@pass_invocation
def command(
    invocation: Invocation,
    topic: str,
    key_delimiter: str | None,
    format_: str,
    null: str | None,
    partition: int | None,
    header: tuple[str, ...],
    durability: Any,
    compression: str | None,
    partitioner: str | None,
) -> None:
    """Append records read from standard input, one a line.

    A line's end (LF or CRLF) is no part of the value. Records are appended as lines come in, and whatever
    was read before a bad line stays appended.
    """
    if format_ == "json" and (key_delimiter is not None or null is not None):
        raise click.UsageError("-K and --null are for --format lines; JSON lines carry their keys and nulls.")
    headers = tuple(_header(text) for text in header)
    appended = Appended(topic)
    with ExitStack() as closing:
        broker = closing.enter_context(invocation.open_for_writing())
        found = topic_of(broker, topic)
        check_partition(found, partition)
        append: Callable[[list[NewRecord]], None]
        append = partial(append_records, found, partition=partition, durability=durability, appended=appended)
        if compression is not None or partitioner is not None:
            producer = broker.producer(
                compression_type=compression, partitioner=partitioner or "murmur2", durability=durability
            )
            closing.enter_context(producer)
            append = partial(send_records, producer, partition=partition, appended=appended)
        try:
            if format_ == "json":
                parse: Any = _JsonLines(headers)
            else:
                parse = _PlainLines(headers, _delimiter(key_delimiter), None if null is None else null.encode())
            number = 0
            for lines in _pieces(sys.stdin.buffer):
                records: list[NewRecord] = []
                try:
                    for line in lines:
                        number += 1
                        records.append(parse(line))
                except ValueError as error:
                    append(records)
                    raise InputError(f"standard input, line {number}: {error}") from None
                append(records)
        finally:
            if invocation.json:
                write_json(appended.as_json())
            else:
                say(str(appended))


def send_records(
    producer: logstore.Producer, records: list[NewRecord], *, partition: int | None, appended: Appended
) -> None:
    """Send in order, and wait until all are acknowledged."""
    futures = [
        producer.send(
            appended.topic, record.value, record.key, list(record.headers) or None, partition, record.timestamp
        )
        for record in records
    ]
    producer.flush()
    for future in futures:
        placed = future.result()
        appended.add({placed.partition: range(placed.offset, placed.offset + 1)})


def append_records(
    topic: logstore.Topic,
    records: list[NewRecord],
    partition: int | None,
    durability: Any,
    appended: Appended,
) -> None:
    """Append in order, neighbours with the same headers in one call."""
    now_ms = time.time_ns() // 1_000_000
    for headers, group in groupby(records, key=lambda record: record.headers):
        alike = list(group)
        offsets = topic.append_many(
            [record.value for record in alike],
            [record.key for record in alike],
            timestamps=[now_ms if record.timestamp is None else record.timestamp for record in alike],
            headers=list(headers) or None,
            partition=partition,
            durability=durability,
        )
        appended.add(offsets)


def _pieces(stream: BinaryIO) -> Iterator[list[bytes]]:
    """Whole lines, as many as have come in: one at a time from a keyboard, thousands from a file."""
    read = getattr(stream, "read1", stream.read)
    rest: list[bytes] = []
    while piece := read(_PIECE_BYTES):
        head, newline, tail = piece.rpartition(b"\n")
        if not newline:
            rest.append(piece)
            continue
        rest.append(head)
        yield b"".join(rest).split(b"\n")
        rest = [tail] if tail else []
    if rest:
        yield [b"".join(rest)]


class _PlainLines:
    def __init__(
        self,
        headers: tuple[tuple[str, bytes | None], ...],
        delimiter: bytes | None,
        null: bytes | None,
    ):
        self.headers = headers
        self.delimiter = delimiter
        self.null = null

    def __call__(self, line: bytes) -> NewRecord:
        value: bytes | None = line.removesuffix(b"\r")
        key: bytes | None = None
        if self.delimiter is not None:
            assert value is not None
            key, found, value = value.partition(self.delimiter)
            if not found:
                raise ValueError(f"no key delimiter {self.delimiter.decode(errors='replace')!r}")
        if self.null is not None:
            key = None if key == self.null else key
            value = None if value == self.null else value
        return NewRecord(key, value, None, self.headers)


class _JsonLines:
    def __init__(self, headers: tuple[tuple[str, bytes | None], ...]):
        self.headers = headers

    def __call__(self, line: bytes) -> NewRecord:
        record = new_record_from_json(line)
        return record._replace(headers=self.headers + record.headers) if self.headers else record


def _delimiter(text: str | None) -> bytes | None:
    if text is None:
        return None
    if not text:
        raise click.UsageError("The key delimiter must not be empty.")
    return text.replace("\\t", "\t").encode()


def _header(text: str) -> tuple[str, bytes]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise click.UsageError(f"-H takes NAME=VALUE, not {text!r}.")
    return name, value.encode()
