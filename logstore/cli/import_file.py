"""``logstore import``: rows of CSV and JSON lines files."""

from __future__ import annotations

import contextlib
import gzip
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any, BinaryIO

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
from logstore.cli.produce import DURABILITIES, Appended, append_records
from logstore.cli.progress import Progress
from logstore.cli.record_json import NewRecord
from logstore.cli.settings import config_option, read_settings, retention_option
from logstore.cli.table_rows import (
    BadRow,
    Rows,
    UnreadableFile,
    csv_rows,
    json_rows,
    record_rows,
    timestamp_reader,
)

__all__ = ["command"]

_CHUNK_RECORDS = 10_000
_CHUNK_BYTES = 8 << 20
_BAD_ROWS_SHOWN = 10
_FORMATS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl"}


@click.command("import", cls=Command)
@topic_argument()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@click.option(
    "-f",
    "--format",
    "format_",
    type=click.Choice(["csv", "tsv", "jsonl", "records"]),
    help="Else by the file's name: .csv, .tsv, .jsonl, .ndjson, each also with .gz. records: what `logstore export` "
    "writes as JSON lines.",
)
@click.option("-k", "--key", metavar="COLUMN", help="The column (CSV) or field (JSON) that is the key.")
@click.option(
    "-t",
    "--timestamp",
    metavar="COLUMN",
    help="The one that is the timestamp; else the time of import.",
)
@click.option(
    "--timestamp-format",
    metavar="FORMAT",
    default="auto",
    show_default=True,
    help="auto: ISO 8601 or ms; iso, s, ms, us, ns; or a pattern such as '%d.%m.%Y %H:%M'. UTC if no zone is given.",
)
@click.option(
    "--null",
    metavar="TEXT",
    multiple=True,
    help="CSV: a cell of this text is null, as an empty one is.",
)
@click.option("--as-text", is_flag=True, help="CSV: keep numbers as text.")
@click.option("--skip-bad", is_flag=True, help="Leave out rows that can't be read, count and name them.")
@click.option("-p", "--partition", type=int, help="All into this one; else by key.")
@click.option("--create", is_flag=True, help="Create the topic if it is not there, with the options below.")
@click.option("--partitions", type=click.IntRange(1), help="With --create. [1]")
@config_option
@retention_option
@click.option(
    "--durability",
    type=DURABILITIES,
    help="What each chunk waits for. [appended, and everything flushed at the end]",
)
@pass_invocation
def command(
    invocation: Invocation,
    topic: str,
    file: Path,
    format_: str | None,
    key: str | None,
    timestamp: str | None,
    timestamp_format: str,
    null: tuple[str, ...],
    as_text: bool,
    skip_bad: bool,
    partition: int | None,
    create: bool,
    partitions: int | None,
    config: tuple[str, ...],
    retention: str | None,
    durability: Any,
) -> None:
    """Append the rows of FILE (- for standard input), each as a JSON object.

    CSV needs column names in its first line; JSON lines stay as they are. Rows go in chunks of up to 10,000:
    at a bad row, nothing of its chunk is appended, and the message says what was appended before.
    """
    format_ = format_ or _format_of(file)
    if (config or retention is not None or partitions is not None) and not create:
        raise click.UsageError("--partitions, --config and --retention are for a topic made by --create.")
    if format_ == "records" and (key is not None or timestamp is not None):
        raise click.UsageError("--format records: each line has its own key and timestamp.")
    if "%" not in timestamp_format and timestamp_format not in (
        "auto",
        "iso",
        "s",
        "ms",
        "us",
        "ns",
    ):
        raise click.UsageError(f"--timestamp-format {timestamp_format!r} is not auto, iso, s, ms, us, ns or a pattern.")
    settings = read_settings(config, retention)
    name = "standard input" if str(file) == "-" else str(file)
    appended = Appended(topic)
    bad = 0
    started = perf_counter()
    with contextlib.ExitStack() as stack:
        raw, total = _open(file, stack)
        unpacked: BinaryIO = gzip.GzipFile(fileobj=raw) if _is_gzip(raw) else raw  # type: ignore[assignment]
        rows = _rows(unpacked, format_, key, timestamp, timestamp_format, null, as_text, name)
        broker = stack.enter_context(invocation.open_for_writing(create=create))
        if create and topic not in broker.topics():
            broker.create_topic(topic, partitions or 1, settings)
            say(f"created topic {topic} with {partitions or 1} partition{'s' if (partitions or 1) > 1 else ''}")
        found = topic_of(broker, topic)
        check_partition(found, partition)
        try:
            with Progress(f"import {name}", total) as progress:
                for chunk in _chunks(rows, name, skip_bad):
                    append_records(found, chunk.records, partition, durability or "appended", appended)
                    bad += chunk.bad
                    progress.update(raw.tell() if total is not None else appended.count)
        except (InputError, KeyboardInterrupt):
            say(f"of the rows before, {format_count(appended.count) if appended.count else 'none'} were appended")
            raise
        finally:
            if durability is None and appended.count:
                found.flush()
    seconds = perf_counter() - started
    if invocation.json:
        write_json({**appended.as_json(), "bad_rows": bad, "seconds": round(seconds, 3)})
        return
    rate = appended.count / seconds if seconds > 0 else 0
    say(f"{appended}\n  in {seconds:.1f} s: {rate:,.0f} a second")
    if bad:
        say(f"  {format_count(bad)} bad rows left out")


def _rows(
    file: BinaryIO,
    format_: str,
    key: str | None,
    timestamp: str | None,
    timestamp_format: str,
    null: tuple[str, ...],
    as_text: bool,
    name: str,
) -> Rows:
    read_timestamp = timestamp_reader(timestamp_format)
    try:
        if format_ in ("csv", "tsv"):
            return csv_rows(
                file,
                key,
                timestamp,
                read_timestamp,
                delimiter="\t" if format_ == "tsv" else ",",
                nulls=frozenset({"", *null}),
                as_text=as_text,
            )
    except UnreadableFile as error:
        raise InputError(f"{name}, {error}") from None
    if format_ == "jsonl":
        return json_rows(file, key, timestamp, read_timestamp)
    return record_rows(file)


class _Chunk:
    def __init__(self) -> None:
        self.records: list[NewRecord] = []
        self.bad = 0
        self.size_bytes = 0


def _chunks(rows: Rows, name: str, skip_bad: bool) -> Iterator[_Chunk]:
    chunk = _Chunk()
    bad_shown = 0
    try:
        for row in rows:
            if isinstance(row, BadRow):
                if not skip_bad:
                    raise InputError(f"{name}, line {row.line}: {row.reason}")
                chunk.bad += 1
                bad_shown += 1
                if bad_shown <= _BAD_ROWS_SHOWN:
                    say(f"left out: {name}, line {row.line}: {row.reason}")
                elif bad_shown == _BAD_ROWS_SHOWN + 1:
                    say("left out: and more")
                continue
            chunk.records.append(row)
            chunk.size_bytes += len(row.value or b"")
            if len(chunk.records) >= _CHUNK_RECORDS or chunk.size_bytes >= _CHUNK_BYTES:
                yield chunk
                chunk = _Chunk()
    except UnreadableFile as error:
        raise InputError(f"{name}, {error}") from None
    yield chunk


def _format_of(file: Path) -> str:
    suffixes = [suffix.lower() for suffix in file.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    found = _FORMATS.get(suffixes[-1]) if suffixes else None
    if found is None:
        what = "standard input" if str(file) == "-" else file.name
        raise click.UsageError(f"What is in {what}? Give --format csv, tsv, jsonl or records.")
    return found


def _open(file: Path, stack: contextlib.ExitStack) -> tuple[BinaryIO, int | None]:
    if str(file) == "-":
        stdin: Any = sys.stdin.buffer
        return stdin if hasattr(stdin, "peek") else io.BufferedReader(stdin), None
    opened = stack.enter_context(file.open("rb"))
    size = file.stat().st_size
    return opened, size if size > 0 else None


def _is_gzip(file: Any) -> bool:
    return bool(file.peek(2)[:2] == b"\x1f\x8b")
