"""``logstore verify``: every file of a directory, checked without opening it."""

from __future__ import annotations

import os
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click

from logstore.cli.exit_codes import CHECK_FAILED
from logstore.cli.invocation import Command, Invocation, pass_invocation
from logstore.cli.output import format_count, format_counted, format_time, say, write_json
from logstore.cli.partition_targets import PartitionDirectory, partition_directories, targets_argument
from logstore.cli.progress import Progress
from logstore.errors import CorruptDataError, DataDirLockedError, StorageFailureError, UnsupportedFormatError
from logstore.quantities import format_bytes

if TYPE_CHECKING:
    from logstore.storage.segment_verification import DamagedRange, FileFault
    from logstore.storage.verification import PartitionVerification

__all__ = ["command", "range_text", "show_verification"]


@click.command("verify", cls=Command)
@targets_argument()
@click.option("--deep", is_flag=True, help="Read everything: every CRC. Else headers, digests and indexes alone.")
@click.option("-q", "--quiet", is_flag=True, help="Name damage only.")
@pass_invocation
def command(invocation: Invocation, targets: tuple[str, ...], deep: bool, quiet: bool) -> None:
    """Check all files of the directory, or of some topics; name every damaged range of offsets.

    Finds flipped bits, and files that are missing, cut, swapped or stale. Changes no data, and works beside a program that
    writes. With --deep, on a directory that no program has open for writing, it also notes when everything was verified,
    and takes digests of sealed segments that have none. The exit code is 1 if anything is damaged.
    """
    from logstore.storage.text_checkpoints import was_written_by_kafka
    from logstore.storage.verification import verify_partition

    directory = invocation.require_directory()
    places = partition_directories(directory, targets)
    trust_ours = not was_written_by_kafka(directory)
    total = sum(_log_bytes(place.path) for place in places)
    results: list[PartitionVerification] = []
    started = perf_counter()
    done = 0
    with Progress("verify", total if deep else None) as progress:
        for place in places:
            before = done
            results.append(
                verify_partition(
                    place.path, deep=deep, trust_ours=trust_ours,
                    progress=lambda here, before=before: progress.update(before + here),  # type: ignore[misc]
                )
            )  # fmt: skip
            done += results[-1].size_bytes
    seconds = perf_counter() - started
    faults = [] if targets else _directory_faults(directory, places)
    new_digests = _record(directory, results) if deep and trust_ours else 0
    for result in results:
        if invocation.json:
            write_json(_as_json(result))
        elif not (quiet and result.is_sound):
            show_verification(result)
    for fault in faults:
        if invocation.json:
            write_json({"path": fault.path, "sound": False, "reason": fault.reason, "advice": fault.advice})
        else:
            click.echo(f"{click.style('DAMAGED', fg='red')}  {fault.path}: {fault.reason}; {fault.advice}")
    is_sound = _summarize(results, faults, seconds, deep=deep, new_digests=new_digests)
    if not is_sound:
        raise click.exceptions.Exit(CHECK_FAILED)


def _log_bytes(path: str) -> int:
    with os.scandir(path) as entries:
        return sum(entry.stat(follow_symlinks=False).st_size for entry in entries if entry.name.endswith(".log"))


def _record(directory: str, results: list[PartitionVerification]) -> int:
    """Stores digests and the time; where another program has the directory, that is its own business (its scrub's)."""
    from logstore.storage.directory_lock import DirectoryLock
    from logstore.storage.verification import record_digests

    try:
        lock = DirectoryLock(directory)
    except (DataDirLockedError, StorageFailureError):
        return 0
    try:
        return sum(record_digests(result) for result in results)
    except StorageFailureError as error:
        say(f"note: the time of this verification could not be noted: {error}")
        return 0
    finally:
        lock.release()


def _directory_faults(directory: str, places: list[PartitionDirectory]) -> list[FileFault]:
    from logstore.broker.metadata import read_topics
    from logstore.storage.layout import METADATA_FILE
    from logstore.storage.segment_verification import FileFault

    path = os.path.join(directory, METADATA_FILE)
    try:
        topics = read_topics(directory)
    except (CorruptDataError, UnsupportedFormatError) as error:
        advice = "topics are found by their directories, but their settings are lost: restore the file from a backup"
        return [FileFault(path, " ".join(str(error).split()), advice)]
    there = {(place.topic, place.partition) for place in places}
    return [
        FileFault(os.path.join(directory, f"{name}-{number}"), "the partition's directory is missing",
                  "restore it from a backup")
        for name, topic in topics.items() if not topic.is_deleted
        for number in range(topic.partitions) if (name, number) not in there
    ]  # fmt: skip


def _as_json(result: PartitionVerification) -> dict[str, Any]:
    return {
        "topic": result.topic,
        "partition": result.partition,
        "path": result.path,
        "sound": result.is_sound,
        "deep": result.deep,
        "log_start_offset": result.log_start_offset,
        "log_end_offset": result.log_end_offset,
        "segments": len(result.segments),
        "records": result.records_count,
        "size_bytes": result.size_bytes,
        "ranges": [found._asdict() for found in result.ranges],
        "faults": [fault._asdict() for fault in result.faults],
        "segments_without_digest": result.undigested_count,
    }


def show_verification(result: PartitionVerification) -> None:
    """One partition's lines, for people."""
    verdict = click.style("ok", fg="green") if result.is_sound else click.style("DAMAGED", fg="red")
    name = f"{result.topic}-{result.partition}"
    counts = "no records"
    if result.log_end_offset > result.log_start_offset:
        segments = "1 segment" if len(result.segments) == 1 else f"{format_count(len(result.segments))} segments"
        counts = (
            f"offsets {result.log_start_offset} to {result.log_end_offset - 1}, {segments}, "
            f"{format_bytes(result.size_bytes)}"
        )
    click.echo(f"{verdict}  {name}  {counts}")
    for found in result.ranges:
        click.echo(f"    {range_text(found)}")
    for fault in result.faults:
        click.echo(f"    {os.path.basename(fault.path)}: {fault.reason}; {fault.advice}")


def range_text(found: DamagedRange) -> str:
    """One damaged range, for people: offsets, time, place, reason."""
    if found.kind == "unfinished":
        size = format_bytes(found.end_position - found.position)
        return f"an unfinished write of {size} at the end of {os.path.basename(found.path)}; the next open cuts it off"
    count = found.end_offset - found.first_offset
    offsets = f"offsets {found.first_offset} to {found.end_offset - 1}" if count else f"offset {found.first_offset} on"
    place = os.path.basename(found.path)
    if found.end_position > found.position >= 0:
        place += f" bytes {found.position} to {found.end_position - 1}"
    elif found.position >= 0:
        place += f" byte {found.position}"
    times = ""
    if found.first_timestamp >= 0 or found.last_timestamp >= 0:
        first, last = (_time(found.first_timestamp, "the start"), _time(found.last_timestamp, "the end"))
        times = f", from about {first} to {last}" if first != last else f", from about {first}"
    reason = found.reason
    if found.expected is not None or found.actual is not None:
        reason += f" (expected {_value(reason, found.expected)}, found {_value(reason, found.actual)})"
    return f"{offsets}{times}: {place}: {reason}"


def _time(timestamp_ms: int, otherwise: str) -> str:
    return format_time(timestamp_ms, "seconds") if timestamp_ms >= 0 else otherwise


def _value(reason: str, value: int | str | None) -> str:
    return f"{value:08x}" if isinstance(value, int) and reason.startswith("CRC") else str(value)


def _summarize(
    results: list[PartitionVerification], faults: list[FileFault], seconds: float, *, deep: bool, new_digests: int
) -> bool:
    size = sum(result.size_bytes for result in results)
    damages = [found for result in results for found in result.damages]
    is_sound = not faults and all(result.is_sound for result in results)
    partitions = format_counted(len(results), "partition")
    how = f", {format_bytes(int(size / seconds))}/s" if deep and seconds > 0.05 else ""
    records = format_counted(sum(result.records_count for result in results), "record")
    if is_sound:
        verdict = click.style("all sound" if deep else "no damage seen", fg="green")
    else:
        lost = sum(found.end_offset - found.first_offset for found in damages)
        ranges = f"{format_counted(len(damages), 'damaged range')}, {format_counted(lost, 'offset')}"
        verdict = click.style(ranges if damages else "files damaged, no record", fg="red")
    say(f"{partitions}, {records}, {format_bytes(size)} in {seconds:.1f} s{how}: {verdict}")
    if is_sound and not deep:
        say("headers, digests and indexes were read; --deep reads every record as well")
    if damages:
        say("nothing was changed. `logstore repair` shows what it would do about it; a backup may have what is lost")
    if new_digests:
        say(f"took digests of {format_count(new_digests)} sealed segments that had none")
    return is_sound
