"""``logstore segment``: list, dump, verify."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from time import perf_counter

import click

from logstore.cli.exit_codes import CHECK_FAILED, CORRUPT
from logstore.cli.invocation import (
    Command,
    CommandGroup,
    InputError,
    Invocation,
    pass_invocation,
    topic_argument,
    topic_of,
)
from logstore.cli.output import (
    Table,
    data_output,
    format_count,
    format_counted,
    format_time,
    json_line,
    say,
    write_json,
)
from logstore.cli.positions import check_partition
from logstore.cli.progress import Progress
from logstore.errors import UnknownTopicOrPartitionError
from logstore.quantities import format_bytes
from logstore.storage.layout import LEADER_EPOCH_FILE, split_partition_directory_name

__all__ = ["command"]


@click.group("segment", cls=CommandGroup)
def command() -> None:
    """List, dump and verify segment files."""


@command.command("list", cls=Command)
@topic_argument()
@click.option("-p", "--partition", type=int, help="Only this one; else all.")
@pass_invocation
def list_segments(invocation: Invocation, topic: str, partition: int | None) -> None:
    """List the segments of a topic: offsets, size, index entries, time span (UTC)."""
    table = Table(
        "partition>",
        "base offset>",
        "next offset>",
        "size>",
        "index>",
        "time index>",
        "first time",
        "last time",
    )
    with invocation.open_for_reading() as broker:
        found = topic_of(broker, topic)
        check_partition(found, partition)
        for number in range(found.partitions) if partition is None else [partition]:
            for segment in found.partition(number).segments:
                entries = len(segment.offset_index_entries)
                time_entries = len(segment.time_index_entries)
                if invocation.json:
                    write_json(
                        {
                            "topic": topic,
                            "partition": number,
                            "base_offset": segment.base_offset,
                            "next_offset": segment.next_offset,
                            "size_bytes": segment.size_bytes,
                            "index_entries": entries,
                            "time_index_entries": time_entries,
                            "first_timestamp": segment.first_timestamp,
                            "last_timestamp": segment.max_timestamp,
                            "path": segment.path,
                        }
                    )
                table.add(
                    str(number),
                    str(segment.base_offset),
                    str(segment.next_offset),
                    format_bytes(segment.size_bytes),
                    str(entries),
                    str(time_entries),
                    format_time(segment.first_timestamp, "seconds"),
                    format_time(segment.max_timestamp, "seconds"),
                )
    if not invocation.json:
        table.show()


@command.command("dump", cls=Command)
@click.argument(
    "files",
    nargs=-1,
    required=True,
    metavar="FILE...",
    type=click.Path(exists=True, dir_okay=False),
)
@click.option("-r", "--records", is_flag=True, help="The records of each batch, too.")
@pass_invocation
def dump(invocation: Invocation, files: tuple[str, ...], records: bool) -> None:
    """Print what is in a .log (a line a batch), .index, .timeindex or leader-epoch-checkpoint file.

    Reads the file alone; no directory is needed, and no broker is disturbed. Damage is shown in its place,
    and makes the exit code 6.
    """
    from logstore.cli.segment_dump import dump as dump_file

    damaged = False
    out = data_output()
    for path in files:
        if len(files) > 1 and not invocation.json:
            out.write(f"{path}:\n".encode())
        for text, fields in dump_file(path, records):
            damaged |= "damage" in fields
            if not invocation.json:
                out.write(text.encode() + b"\n")
            elif fields:
                out.write(json_line({"path": path, **fields} if len(files) > 1 else fields))
    out.flush()
    if damaged:
        raise click.exceptions.Exit(CORRUPT)


@command.command("verify", cls=Command)
@click.argument("targets", nargs=-1, required=True, metavar="TOPIC|FILE...")
@click.option("-p", "--partition", type=int, help="Of a topic, only this one.")
@click.option("-q", "--quiet", is_flag=True, help="Name damage only.")
@pass_invocation
def verify(invocation: Invocation, targets: tuple[str, ...], partition: int | None, quiet: bool) -> None:
    """Check every CRC, the structure, and that the indexes agree; name every damaged range.

    A target is a topic of the directory, a .log file, or a partition's directory. Only reads, and needs no
    broker: also for what no broker would open. The exit code is 1 if anything is damaged.
    """
    from logstore.cli.segment_verify import Verified, verify_file

    files = [file for target in targets for file in _files_of(invocation, target, partition)]
    total = sum(os.path.getsize(path) for path, _ in files)
    results: list[Verified] = []
    done = 0
    started = perf_counter()
    with Progress("verify", total) as progress:
        for path, end_offset_max in files:
            result = verify_file(path, end_offset_max, partial(_update, progress, done))
            done += os.path.getsize(path)
            progress.update(done)
            results.append(result)
    for result in results:
        if invocation.json:
            write_json(result.as_json())
        elif not result.is_sound or not quiet:
            _show(result)
    bad = sum(not result.is_sound for result in results)
    records = format_counted(sum(result.records for result in results), "record")
    sizes = format_bytes(sum(result.size_bytes for result in results))
    verdict = click.style(f"{bad} damaged", fg="red") if bad else click.style("all sound", fg="green")
    say(f"{format_counted(len(results), 'file')}, {records}, {sizes} in {perf_counter() - started:.1f} s: {verdict}")
    if bad:
        raise click.exceptions.Exit(CHECK_FAILED)


def _update(progress: Progress, before: int, here: int) -> None:
    progress.update(before + here)


def _show(result: object) -> None:
    from logstore.cli.segment_dump import damage_text
    from logstore.cli.segment_verify import Verified

    assert isinstance(result, Verified)
    verdict = click.style("ok", fg="green") if result.is_sound else click.style("DAMAGED", fg="red")
    counts = ""
    if result.batches:
        counts = (
            f"  offsets {result.base_offset} to {(result.next_offset or 0) - 1}, "
            f"{format_count(result.records)} records in {format_count(result.batches)} batches"
        )
    click.echo(f"{verdict}  {result.path}{counts}")
    for damage in result.damages:
        click.echo(f"    {damage_text(damage)}")
    for finding in result.findings:
        advice = "" if finding.path == result.path else "; it can be removed, and is then derived again"
        click.echo(f"    {os.path.basename(finding.path)}: {finding.reason}{advice}")
    for reason, batches in result.unopened.items():
        click.echo(f"    records of {batches} batches not looked into: {reason}")


def _files_of(invocation: Invocation, target: str, partition: int | None) -> Iterator[tuple[str, int]]:
    """The files to check for one target, and the bound of each one's offsets."""
    from logstore.cli.segment_verify import log_files_of

    directories = _partition_directories(invocation.directory, target)
    if directories:
        if partition is not None and partition not in directories:
            raise UnknownTopicOrPartitionError(
                f"topic {target!r} has no partition {partition}: they are {min(directories)} to {max(directories)}"
            )
        for number in sorted(directories):
            if partition in (None, number):
                yield from _files_in(directories[number])
    elif os.path.isdir(target):
        files = list(_files_in(target))
        if not files:
            raise InputError(f"{target} has no .log files; give a partition's directory, or -d DIR and a topic")
        yield from files
    elif os.path.exists(target):
        if not target.endswith(".log") and os.path.basename(target) != LEADER_EPOCH_FILE:
            raise InputError(f"{target} is no .log file; indexes are checked together with theirs")
        bounds = dict(log_files_of(os.path.dirname(target) or "."))
        yield (
            target,
            next(
                (bound for path, bound in bounds.items() if os.path.samefile(path, target)),
                2**63 - 1,
            ),
        )
    elif os.sep in target or target.endswith(".log"):
        raise InputError(f"{target}: no such file")
    else:
        directory = invocation.require_directory()
        raise UnknownTopicOrPartitionError(f"there is no topic {target!r} in {directory}, and no such file")


def _files_in(directory: str) -> Iterator[tuple[str, int]]:
    from logstore.cli.segment_verify import log_files_of

    yield from log_files_of(directory)
    epochs = os.path.join(directory, LEADER_EPOCH_FILE)
    if os.path.exists(epochs):
        yield epochs, 0


def _partition_directories(directory: str | None, topic: str) -> dict[int, str]:
    if directory is None or not os.path.isdir(directory):
        return {}
    found = {}
    for name in os.listdir(directory):
        split = split_partition_directory_name(name)
        if split is not None and split[0] == topic:
            found[split[1]] = os.path.join(directory, name)
    return found
