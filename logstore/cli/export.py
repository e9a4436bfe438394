"""``logstore export``: records to JSON lines, CSV or Parquet."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from logstore.cli.invocation import Command, Invocation, pass_invocation, topic_argument, topic_of
from logstore.cli.output import data_output, format_count, json_line, say, write_json
from logstore.cli.positions import POSITION, check_partition
from logstore.cli.progress import Progress
from logstore.cli.record_json import json_from_record, record_line
from logstore.errors import MissingDependencyError
from logstore.quantities import format_bytes

if TYPE_CHECKING:
    import logstore

__all__ = ["command"]

_FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_REPORT_EVERY = 4096


@click.command("export", cls=Command)
@topic_argument()
@click.argument("file", required=False, type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@click.option(
    "--format",
    "format_",
    type=click.Choice(["jsonl", "csv", "parquet"]),
    help="Else by the file's name: .jsonl, .ndjson, .csv (each also with .gz), .parquet. [jsonl]",
)
@click.option(
    "--from",
    "start",
    type=POSITION,
    default="earliest",
    help="An offset, time, age, or 'earliest'.",
)
@click.option(
    "--to",
    "stop",
    type=POSITION,
    help="The same; records from there on are left out. [the end, as it is now]",
)
@click.option("-p", "--partition", type=int, help="Only this one; else all.")
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@pass_invocation
def command(
    invocation: Invocation,
    topic: str,
    file: Path | None,
    format_: str | None,
    start: Any,
    stop: Any,
    partition: int | None,
    force: bool,
) -> None:
    """Write records to FILE, or to standard output.

    FILE appears when it is complete: an export that is interrupted leaves nothing. JSON lines can be
    read back by `logstore import --format records`. Parquet needs pyarrow.
    """
    to_stdout = file is None or str(file) == "-"
    format_ = format_ or ("jsonl" if to_stdout else _format_of(file))
    if file is not None and not to_stdout and file.exists() and not force:
        raise click.UsageError(f"{file} is there already; --force replaces it.")
    if format_ == "parquet":
        _pyarrow()
        if to_stdout and sys.stdout.isatty():
            raise click.UsageError("Parquet is not for a terminal: name a FILE.")
    started = perf_counter()
    with invocation.open_for_reading() as broker:
        found = topic_of(broker, topic)
        check_partition(found, partition, *(bound for bound in (start, stop) if bound is not None))
        logs = found.logs if partition is None else [found.partition(partition)]
        bounds = [log.bounds(start, "latest" if stop is None else stop) for log in logs]
        total = sum(max((end or 0) - begin, 0) for begin, end in bounds)
        with (
            _target(None if to_stdout else file) as out,
            Progress(f"export {topic}", total, "records") as progress,
        ):
            if format_ == "parquet":
                count = _write_parquet(found, start, stop, partition, out, progress)
            else:
                records = iter(found.read(start, stop=stop, partition=partition))
                write = _write_json_lines if format_ == "jsonl" else _write_csv
                count = write(records, out, progress)
    if to_stdout:
        return
    assert file is not None
    seconds = perf_counter() - started
    size_bytes = file.stat().st_size
    if invocation.json:
        write_json(
            {
                "topic": topic,
                "file": str(file),
                "format": format_,
                "records": count,
                "size_bytes": size_bytes,
                "seconds": round(seconds, 3),
            }
        )
    else:
        say(f"{format_count(count)} records written to {file} ({format_bytes(size_bytes)}) in {seconds:.1f} s")


def _write_json_lines(records: Iterator[logstore.Record], out: BinaryIO, progress: Progress) -> int:
    count = 0
    for record in records:
        out.write(record_line(record))
        count += 1
        if count % _REPORT_EVERY == 0:
            progress.update(count)
    return count


def _write_csv(records: Iterator[logstore.Record], out: BinaryIO, progress: Progress) -> int:
    text = io.TextIOWrapper(out, "utf-8", errors="surrogateescape", newline="", write_through=False)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["partition", "offset", "timestamp", "key", "value", "headers"])
    count = 0
    for record in records:
        fields = json_from_record(record)
        headers = json_line(fields["headers"])[:-1].decode() if fields["headers"] else ""
        writer.writerow(
            [
                record.partition,
                record.offset,
                record.timestamp,
                _cell(fields["key"]),
                _cell(fields["value"]),
                headers,
            ]
        )
        count += 1
        if count % _REPORT_EVERY == 0:
            progress.update(count)
    text.flush()
    text.detach()
    return count


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json_line(value)[:-1].decode()


def _write_parquet(
    topic: logstore.Topic,
    start: Any,
    stop: Any,
    partition: int | None,
    out: BinaryIO,
    progress: Progress,
) -> int:
    arrow = _pyarrow()
    from pyarrow import parquet

    reader = arrow.RecordBatchReader.from_stream(topic.scan(start, stop=stop, partition=partition))
    count = 0
    with parquet.ParquetWriter(out, reader.schema, compression="zstd") as writer:
        for batch in reader:
            writer.write_batch(batch)
            count += batch.num_rows
            progress.update(count)
    return count


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError:
        raise MissingDependencyError(
            'Parquet needs the package pyarrow; run: pip install "logstoredb[arrow]"',
            name="pyarrow",
        ) from None
    return pyarrow


def _format_of(file: Path | None) -> str:
    assert file is not None
    suffixes = [suffix.lower() for suffix in file.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    found = _FORMATS.get(suffixes[-1]) if suffixes else None
    if found is None:
        raise click.UsageError(f"Which format is {file.name} to have? Give --format jsonl, csv or parquet.")
    return found


@contextlib.contextmanager
def _target(file: Path | None) -> Iterator[BinaryIO]:
    """Where to write: standard output, or a file that gets its name when it is complete."""
    if file is None:
        out = data_output()
        yield out
        out.flush()
        return
    unfinished = file.with_name(f".{file.name}.{os.getpid()}.unfinished")
    try:
        with unfinished.open("xb") as plain:
            if file.suffix.lower() == ".gz":
                with gzip.GzipFile(filename="", mode="wb", fileobj=plain, compresslevel=6) as packed:
                    yield packed  # type: ignore[misc]
            else:
                yield plain
            plain.flush()
            os.fsync(plain.fileno())
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)
