"""``logstore repair`` and ``logstore index rebuild``: what to do about what ``logstore verify`` has found."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from logstore.cli.exit_codes import CHECK_FAILED
from logstore.cli.invocation import Command, CommandGroup, Invocation, pass_invocation
from logstore.cli.output import format_count, say, write_json
from logstore.cli.partition_targets import PartitionDirectory, partition_directories, targets_argument
from logstore.cli.progress import Progress
from logstore.errors import CorruptDataError, UnsupportedFormatError

if TYPE_CHECKING:
    from logstore.storage.repair_plan import RepairPlan

__all__ = ["command", "index_command"]

DEFAULT_INTERVAL_BYTES = 4096


@click.command("repair", cls=Command)
@targets_argument()
@click.option("-y", "--yes", is_flag=True, help="Carry the plan out without asking.")
@click.option("--dry-run", is_flag=True, help="Show the plan only; works beside a program that writes.")
@pass_invocation
def command(invocation: Invocation, targets: tuple[str, ...], yes: bool, dry_run: bool) -> None:
    """Make damaged partitions writable again, and say exactly what is lost.

    Reads everything first and shows a plan; nothing happens before you agree. Damaged bytes leave the log, sound batches
    that stand in the wrong place are put back, indexes and checkpoints are derived again. Every file that changes is kept
    as it was in the partition's logstore.evidence, with a report of what is lost, by offset and time.
    """
    from logstore.storage.repair import carry_out, finish_repair, plan_text
    from logstore.storage.repair_plan import plan_repair
    from logstore.storage.text_checkpoints import was_written_by_kafka

    directory = invocation.require_directory()
    places = partition_directories(directory, targets)
    trust_ours = not was_written_by_kafka(directory)
    with _locked(directory, needed=not dry_run):
        if not dry_run:
            for place in places:
                finish_repair(place.path)
        plans: list[RepairPlan] = []
        done = 0
        with Progress("verify", sum(_log_bytes(place.path) for place in places)) as progress:
            for place in places:
                before = done
                plans.append(
                    plan_repair(
                        place.path, trust_ours=trust_ours,
                        progress=lambda here, before=before: progress.update(before + here),  # type: ignore[misc]
                    )
                )  # fmt: skip
                done += plans[-1].verification.size_bytes
        plans = [plan for plan in plans if not plan.is_empty]
        if not plans:
            say("nothing to repair: all sound")
            return
        for plan in plans:
            if invocation.json:
                write_json(plan.as_json())
            else:
                click.echo(plan_text(plan))
        if dry_run or not (yes or _agrees(plans)):
            say("nothing was changed")
            raise click.exceptions.Exit(CHECK_FAILED)
        intervals = _index_intervals(directory)
        unsound = []
        for plan in plans:
            result = carry_out(
                plan, index_interval_bytes=intervals.get(plan.verification.topic, DEFAULT_INTERVAL_BYTES)
            )
            say(f"{plan.name}: repaired; report and originals in {result.evidence}")
            if not result.is_sound:
                unsound.append(plan.name)
        if unsound:
            say(f"still damaged: {', '.join(unsound)}; see `logstore verify --deep`")
            raise click.exceptions.Exit(CHECK_FAILED)


@click.group("index", cls=CommandGroup)
def index_command() -> None:
    """Derive index files again."""


@index_command.command("rebuild", cls=Command)
@targets_argument()
@pass_invocation
def rebuild(invocation: Invocation, targets: tuple[str, ...]) -> None:
    """Derive all .index and .timeindex files from the .log files.

    No record is touched. Indexes are checked when they are used, and made again where they don't hold; this does it for
    all of them at once, and for good.
    """
    from logstore.storage.recovery import list_segments
    from logstore.storage.repair import finish_repair, rebuild_indexes
    from logstore.storage.segment_digests import SegmentDigests

    directory = invocation.require_directory()
    places = partition_directories(directory, targets)
    intervals = _index_intervals(directory)
    count = 0
    with _locked(directory, needed=True), Progress("index rebuild", sum(_log_bytes(place.path) for place in places)) as bar:
        done = 0
        for place in places:
            finish_repair(place.path)
            for base in list_segments(place.path):
                digests = SegmentDigests(place.path)
                digests.forget([base])
                rebuild_indexes(place.path, [base], intervals.get(place.topic, DEFAULT_INTERVAL_BYTES))
                count += 1
                done += os.path.getsize(os.path.join(place.path, f"{base:020d}.log"))
                bar.update(done)
            _digest_again(place)
    say(f"derived the indexes of {format_count(count)} segments")


def _digest_again(place: PartitionDirectory) -> None:
    from logstore.storage.verification import record_digests, verify_partition

    record_digests(verify_partition(place.path, deep=False))


@contextmanager
def _locked(directory: str, *, needed: bool) -> Iterator[None]:
    from logstore.storage.directory_lock import DirectoryLock

    lock = DirectoryLock(directory) if needed else None
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def _agrees(plans: list[RepairPlan]) -> bool:
    """What the person at the terminal says; without a terminal nobody is asked, and the answer is no."""
    if not sys.stdin.isatty():
        say("there is no terminal to ask on: give --yes to carry this out")
        return False
    lost = sum(plan.lost_offsets_count for plan in plans)
    question = f"Repair, and give up {format_count(lost)} offsets?" if lost else "Repair?"
    return click.confirm(question, err=True)


def _index_intervals(directory: str) -> dict[str, int]:
    from logstore.broker.metadata import read_topics

    try:
        return {name: topic.config["index.interval.bytes"] for name, topic in read_topics(directory).items()}
    except (CorruptDataError, UnsupportedFormatError):
        return {}


def _log_bytes(path: str) -> int:
    with os.scandir(path) as entries:
        return sum(entry.stat(follow_symlinks=False).st_size for entry in entries if entry.name.endswith(".log"))
