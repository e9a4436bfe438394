"""``logstore tail``: several topics as they grow."""

from __future__ import annotations

import sys
from itertools import islice
from typing import TYPE_CHECKING

import click

from logstore.cli.consume import printable, printable_text
from logstore.cli.invocation import Command, Invocation, pass_invocation, topic_of
from logstore.cli.output import data_output, format_time, json_line
from logstore.cli.record_json import json_from_record

if TYPE_CHECKING:
    import logstore

__all__ = ["command"]

# One colour for each partition's name, in turn; values stay as the terminal has them.
_COLOURS = ("cyan", "green", "yellow", "magenta", "blue", "bright_red")


@click.command("tail", cls=Command)
@click.argument("topics", metavar="[TOPIC]...", nargs=-1)
@click.option("--pattern", metavar="REGEX", help="Every topic whose whole name matches, also those to come.")
@click.option("-n", "--lines", type=click.IntRange(0), default=10, show_default=True, help="Records to begin with.")
@click.option("--timeout", type=click.FloatRange(0), metavar="SECONDS", help="End where nothing comes for so long.")
@pass_invocation
def command(
    invocation: Invocation, topics: tuple[str, ...], pattern: str | None, lines: int, timeout: float | None
) -> None:
    """Print the last records of topics, and then each new one as it comes, until Ctrl-C.

    All topics, if none is named. Works beside a running writer.
    """
    if topics and pattern is not None:
        raise click.UsageError("Name topics or give a --pattern, one of them.")
    with invocation.open_for_reading() as broker:
        for name in topics:
            topic_of(broker, name)
        if not topics and pattern is None:
            pattern = ".*"
        write = _Writer(as_json=invocation.json)
        with broker.consumer(*topics, pattern=pattern, consumer_timeout=timeout) as consumer:
            _show_last(broker, consumer, lines, write)
            for record in consumer:
                write(record)


def _show_last(broker: logstore.Broker, consumer: logstore.Consumer, count: int, write: _Writer) -> None:
    """The last records by time, of all partitions together; the consumer goes on behind them."""
    found: list[logstore.Record] = []
    for topic, number in sorted(consumer.assignment()):
        log = broker.topic(topic).partition(number)
        end = log.log_end_offset
        if count:
            start = max(log.log_start_offset, end - count)
            found += islice(log.read(start, stop=end), count)
        consumer.seek((topic, number), end)
    found.sort(key=lambda record: record.timestamp)
    for record in found[max(len(found) - count, 0) :]:
        write(record)


class _Writer:
    """Writes records, each at once."""

    def __init__(self, *, as_json: bool):
        self.as_json = as_json
        self.with_colour = sys.stdout.isatty() and not as_json
        self.out = data_output()
        self.colours: dict[tuple[str, int], str] = {}

    def __call__(self, record: logstore.Record) -> None:
        if self.as_json:
            self.out.write(json_line({"topic": record.topic, **json_from_record(record)}))
        else:
            place = f"{record.topic}-{record.partition}:{record.offset}"
            when = format_time(record.timestamp)
            if self.with_colour:
                place = click.style(place, fg=self.colour(record))
                when = click.style(when, dim=True)
            headers = ", ".join(f"{printable_text(name)}={printable(value)}" for name, value in record.headers)
            parts = [place, when, printable(record.key), printable(record.value), *([f"[{headers}]"] if headers else [])]
            self.out.write(("  ".join(parts) + "\n").encode())
        self.out.flush()

    def colour(self, record: logstore.Record) -> str:
        partition = (record.topic, record.partition)
        return self.colours.setdefault(partition, _COLOURS[len(self.colours) % len(_COLOURS)])
