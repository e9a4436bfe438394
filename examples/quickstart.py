"""Put the rows of a CSV file into a log, then replay a day by time and an aircraft by key.

    python examples/quickstart.py                    # a month of New York's flights, shipped beside
    python examples/quickstart.py my.csv --key user --timestamp at

Each row becomes a record: one column is its key, one its timestamp, the row as JSON its value.
The file is read completely before anything is stored, so a bad line leaves nothing behind.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from time import perf_counter

from csv_rows import EPOCH, InputError, Row, read_rows

import logstore

SHIPPED = Path(__file__).parent / "data" / "flights-2013-01.csv.gz"
CHUNK = 5_000  # records in one call of append_many
SHOWN = 5  # records printed of each replay


def store(broker: logstore.Broker, name: str, rows: list[Row]) -> None:
    """Append the rows to a new topic, and say how fast; all or nothing."""
    topic = broker.create_topic(name, partitions=3)
    started = perf_counter()
    try:
        with progress_bar(f"write {name}", len(rows)) as show:
            for first in range(0, len(rows), CHUNK):
                timestamps, keys, values = zip(*rows[first : first + CHUNK], strict=True)
                topic.append_many(
                    list(values), list(keys), timestamps=list(timestamps), durability="appended"
                )
                show(first + len(values))
            topic.flush()  # once for all of them; without durability= every call would do it
    except BaseException:  # also Ctrl-C: a part of a file must not pass for the whole
        broker.delete_topic(name)
        raise
    print(f"  write      {rate(len(rows), started)}, all on disk")


def replay(topic: logstore.Topic, day: date | None, key: bytes | None) -> None:
    """Read everything, then one day, then one key, and say how fast."""
    started = perf_counter()
    count = sum(1 for _ in topic.read())  # all partitions, merged by timestamp
    print(f"  read       {rate(count, started)}")

    if day is None:
        day = middle_day(topic)
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    started = perf_counter()
    of_day = list(topic.read(start=midnight, stop=midnight + timedelta(days=1)))
    print(f"\n  by time    {day} (UTC): {rate(len(of_day), started)}")
    show_records(of_day)

    if key is None:  # the one seen most often that day
        seen = Counter(record.key for record in of_day if record.key is not None).most_common(1)
        if not seen:
            return
        key = seen[0][0]
    partition = logstore.partition_for_key(key, topic.partitions)
    started = perf_counter()
    of_key = [record for record in topic.read(partition=partition) if record.key == key]
    took = f"{(perf_counter() - started) * 1e3:.1f} ms in partition {partition} alone"
    print(f"\n  by key     {key.decode(errors='replace')}: {len(of_key):,} records in {took}")
    show_records(of_key)


def middle_day(topic: logstore.Topic) -> date:
    """The day half-way between the first timestamp and the last."""
    first = next(iter(topic.read())).timestamp
    last = max(segment.max_timestamp for log in topic.logs for segment in log.segments)
    return (EPOCH + timedelta(milliseconds=(first + last) / 2)).date()


def show_records(records: list[logstore.Record]) -> None:
    for record in records[:SHOWN]:
        moment = EPOCH + timedelta(milliseconds=record.timestamp)
        key = (record.key or b"-").decode(errors="replace")
        print(f"    {moment:%Y-%m-%d %H:%M}  {key:<8}  {summary(record.value)}")
    if len(records) > SHOWN:
        print(f"    ... and {len(records) - SHOWN:,} more")


def summary(value: bytes | None) -> str:
    text = (value or b"").decode(errors="replace")
    try:
        row = json.loads(text)
        flight = f"{row['carrier']} {row['flight']!s:<5} {row['origin']} > {row['dest']}"
        delay = row["dep_delay"]
        return f"{flight}  {'cancelled' if delay is None else f'delay {delay!s:>4} min'}"
    except (ValueError, LookupError, TypeError):  # not the flights: any other file
        return text if len(text) <= 70 else text[:67] + "..."


def show_place(directory: Path, topic: logstore.Topic) -> None:
    print(f"\n  where      {directory.resolve()}")
    print(f"    {'partition':<16}{'records':>10}{'segments':>10}{'bytes in .log':>15}{'files':>7}")
    for log in topic.logs:
        path, count = Path(log.path), log.log_end_offset - log.log_start_offset
        sizes = f"{len(log.segments):>10}{log.size_bytes:>15,}{len(list(path.iterdir())):>7}"
        print(f"    {path.name:<16}{count:>10,}{sizes}")


def rate(count: int, started: float) -> str:
    seconds = perf_counter() - started
    return f"{count:,} records in {seconds * 1e3:.1f} ms: {count / seconds:,.0f} a second"


@contextmanager
def progress_bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show how far it is and the time left, if a person is watching; yields the way to say so."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=total)
        yield lambda done: progress.update(task, completed=done)


def run(chosen: argparse.Namespace) -> None:
    with logstore.open(chosen.dir) as broker:
        there = chosen.topic in broker.topics()
        if there and not chosen.fresh:
            print(f"  write      nothing: topic {chosen.topic!r} is there; --fresh starts over")
        else:
            if not chosen.file.is_file():
                raise InputError(f"{chosen.file}: no such file")
            with progress_bar(f"read {chosen.file.name}", chosen.file.stat().st_size) as show:
                rows = read_rows(chosen.file, chosen.key, chosen.timestamp, show)
            if there:
                broker.delete_topic(chosen.topic)
            store(broker, chosen.topic, rows)
        topic = broker.topic(chosen.topic)
        if not any(log.size_bytes for log in topic.logs):
            raise InputError(f"topic {chosen.topic!r} is empty; --fresh starts over")
        replay(topic, chosen.day, chosen.find.encode() if chosen.find else None)
        show_place(chosen.dir, topic)


def main() -> int:
    parser = argparse.ArgumentParser(description="Put a CSV file into a log and replay it.")
    add = parser.add_argument
    add("file", nargs="?", type=Path, default=SHIPPED, help=".csv or .csv.gz; default: flights")
    add("--key", default="tailnum", metavar="COLUMN", help="default: tailnum")
    add("--timestamp", metavar="COLUMN", help="ISO 8601 or ms; default: time_hour + minute")
    add("--topic", default="flights", help="default: flights")
    add("--dir", type=Path, default=Path("quickstart-data"), help="default: quickstart-data")
    add("--day", type=date.fromisoformat, help="replay this day (UTC); default: a middle one")
    add("--find", metavar="KEY", help="replay this key; default: the day's most frequent")
    add("--fresh", action="store_true", help="delete the topic first")
    try:
        run(parser.parse_args())
    except KeyboardInterrupt:
        print("\nstopped; a topic being written was removed again", file=sys.stderr)
        return 130
    except (InputError, OSError, logstore.LogstoreError) as error:
        print(f"quickstart.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
