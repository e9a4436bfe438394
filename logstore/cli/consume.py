"""``logstore consume``: records to standard output."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from logstore.cli.group_reading import consume_as_group
from logstore.cli.invocation import Command, Invocation, pass_invocation, topic_argument, topic_of
from logstore.cli.output import data_output, format_time
from logstore.cli.positions import POSITION, check_partition
from logstore.cli.record_json import record_line

if TYPE_CHECKING:
    import logstore

__all__ = ["command", "printable"]


@click.command("consume", cls=Command)
@topic_argument()
@click.option(
    "--from",
    "start",
    type=POSITION,
    help="Where to start: an offset, a time (2013-01-15T08:30Z), an age (-1h), 'earliest' or 'latest'. "
    "[earliest; latest with --follow]",
)
@click.option(
    "--to",
    "stop",
    type=POSITION,
    help="Where to stop: the same; records from there on are left out.",
)
@click.option("-n", "--count", type=click.IntRange(0), help="At most this many records.")
@click.option("--last", type=click.IntRange(0), metavar="N", help="Only the last N records there are.")
@click.option("-p", "--partition", type=int, help="Only this one; else all, merged by time.")
@click.option("-f", "--follow", is_flag=True, help="Wait for new records until Ctrl-C.")
@click.option(
    "-g",
    "--group",
    help="As a member of this consumer group: from its committed offsets on, and what was printed is committed. "
    "--from counts where it has none. Needs to be the one writer.",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["text", "json", "key-value"]),
    default="text",
    show_default=True,
    help="text: partition, offset, time, key, value and headers, printable; json: one object a line; "
    "key-value: key, delimiter, value, as they are.",
)
@click.option("-K", "--key-delimiter", metavar="TEXT", help=r"For key-value; \t for a tab. [\t]")
@click.option("--values-only", is_flag=True, help="Nothing but each value and a newline, as they are.")
@click.option(
    "--null",
    metavar="TEXT",
    default="null",
    show_default=True,
    help="What stands for null where records are printed as they are.",
)
@pass_invocation
def command(
    invocation: Invocation,
    topic: str,
    start: Any,
    stop: Any,
    count: int | None,
    last: int | None,
    partition: int | None,
    follow: bool,
    group: str | None,
    format_: str,
    key_delimiter: str | None,
    values_only: bool,
    null: str,
) -> None:
    """Print records in order: of one partition by offset, of several by timestamp.

    Works beside a running writer. Times are UTC unless they say otherwise.
    """
    if last is not None and (start is not None or stop is not None):
        raise click.UsageError("--last counts back from the end: it goes with neither --from nor --to.")
    if follow and stop is not None:
        raise click.UsageError("--follow has no end: it does not go with --to.")
    if key_delimiter is not None:
        if values_only or invocation.json or format_ == "json":
            raise click.UsageError("-K is for --format key-value.")
        format_ = "key-value"
    render = _renderer(
        "json" if invocation.json else "values" if values_only else format_,
        (key_delimiter or "\t").replace("\\t", "\t").encode(),
        null.encode(),
    )
    if group is not None:
        if stop is not None or last is not None or partition is not None:
            raise click.UsageError("--group goes with none of --to, --last and --partition: the group says where.")
        with invocation.open_for_writing() as broker:
            check_partition(topic_of(broker, topic), None, *(() if start is None else (start,)))
            consume_as_group(broker, topic, group, start, count, follow, render)
        return
    with invocation.open_for_reading() as broker:
        found = topic_of(broker, topic)
        check_partition(found, partition, *(bound for bound in (start, stop) if bound is not None))
        records: Iterator[logstore.Record]
        if last is not None:
            records = _last(found, partition, last, follow)
        else:
            if start is None:
                start = "latest" if follow else "earliest"
            records = iter(found.read(start, stop=stop, partition=partition, follow=follow))
        write = data_output().write
        flush = data_output().flush
        for record in islice(records, count):
            write(render(record))
            if follow:
                flush()
        flush()


def _last(topic: logstore.Topic, partition: int | None, count: int, follow: bool) -> Iterator[logstore.Record]:
    """The last records, then, if asked for, all that follow."""
    partitions = range(topic.partitions) if partition is None else [partition]
    ends = {at: topic.partition(at).log_end_offset for at in partitions}
    # Opened before the records there are have been read: what comes in meanwhile is not lost.
    following = iter(topic.read("latest", partition=partition, follow=True)) if follow else None
    tails = [_tail(topic, at, ends[at], count) for at in partitions]
    merged = list(heapq.merge(*tails, key=lambda record: record.timestamp))
    yield from merged[max(len(merged) - count, 0) :]
    if following is not None:
        yield from (record for record in following if record.offset >= ends[record.partition])


def _tail(topic: logstore.Topic, partition: int, end: int, count: int) -> list[logstore.Record]:
    """The last records of one partition; compaction and markers leave gaps, so it may have to look back further."""
    first = topic.partition(partition).log_start_offset
    span = count
    while True:
        start = max(end - span, first)
        found = list(topic.read(start, stop=end, partition=partition)) if start < end else []
        if len(found) >= count or start == first:
            return found[max(len(found) - count, 0) :]
        span *= 2


def _renderer(format_: str, delimiter: bytes, null: bytes) -> Callable[[logstore.Record], bytes]:
    if format_ == "json":
        return record_line
    if format_ == "values":
        return lambda record: _or(record.value, null) + b"\n"
    if format_ == "key-value":
        return lambda record: _or(record.key, null) + delimiter + _or(record.value, null) + b"\n"
    return _text


def _or(data: bytes | None, null: bytes) -> bytes:
    return null if data is None else data


def _text(record: logstore.Record) -> bytes:
    parts = [
        f"{record.partition}:{record.offset}",
        format_time(record.timestamp),
        printable(record.key),
        printable(record.value),
    ]
    headers = record.headers
    if headers:
        shown = ", ".join(f"{printable_text(name)}={printable(value)}" for name, value in headers)
        parts.append(f"[{shown}]")
    return ("  ".join(parts) + "\n").encode()


def printable(data: bytes | None) -> str:
    r"""Text as it is, with ``\x1b`` and the like for what a terminal would act on; null as ``-``."""
    return "-" if data is None else printable_text(data.decode("utf-8", "backslashreplace"))


def printable_text(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode() for char in text
    )
