"""``logstore compact``: which topics compaction would take, why it does not, and having it done."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from logstore.cli.exit_codes import CHECK_FAILED, STORAGE
from logstore.cli.invocation import Command, CommandGroup, Invocation, group_options, pass_invocation, topic_of
from logstore.cli.output import Table, format_count, format_time, say, write_json
from logstore.cli.progress import Progress
from logstore.quantities import format_bytes, format_ms
from logstore.storage.compaction_explained import bytes_until_due, explain_compaction

if TYPE_CHECKING:
    import logstore
    from logstore.storage.compaction import CompactionProgress
    from logstore.storage.compaction_plan import CompactionPlan
    from logstore.storage.log import Log

__all__ = ["command"]

topics_argument = click.argument("topics", metavar="[TOPIC]...", nargs=-1)


@click.group("compact", cls=CommandGroup, invoke_without_command=True)
@group_options
@click.pass_context
def command(ctx: click.Context) -> None:
    """What compaction does, and why it does not. Without a command: plan.

    Of each key in a topic with cleanup.policy=compact, only the last record stays. Looking works beside a process that
    has the directory open; `run` needs to be the one writer.
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(plan)


@command.command("plan", cls=Command)
@topics_argument
@click.option("--check", is_flag=True, help="Exit with 1 where something is due.")
@pass_invocation
def plan(invocation: Invocation, topics: tuple[str, ...] = (), check: bool = False) -> None:
    """Show what is due, what waits, and for what. Changes nothing."""
    now_ms = time.time_ns() // 1_000_000
    with invocation.open_for_reading() as broker:
        pairs = _plans(broker, topics)
        if invocation.json:
            write_json(*({**_place(log), **one._asdict(), "why": explain_compaction(one, log.config, now_ms)}
                         for log, one in pairs))  # fmt: skip
        elif not pairs:
            say("no topic is compacted; `logstore retention set TOPIC --policy compact` makes one so")
        else:
            _show_plans(pairs, now_ms)
    if check and any(one.is_due for _, one in pairs):
        raise click.exceptions.Exit(CHECK_FAILED)


@command.command("status", cls=Command)
@topics_argument
@pass_invocation
def status(invocation: Invocation, topics: tuple[str, ...]) -> None:
    """Show how far each topic was compacted, and how much of it that is."""
    with invocation.open_for_reading() as broker:
        table = Table("topic", "partition>", "start>", "compacted to>", "end>", "segments>", "size>", "clean>")
        pairs = _plans(broker, topics)
        for log, one in pairs:
            size_bytes = log.size_bytes
            share = one.clean_bytes / size_bytes if size_bytes else 1.0
            if invocation.json:
                write_json({
                    **_place(log), "log_start_offset": log.log_start_offset, "log_end_offset": log.log_end_offset,
                    "compacted_to_offset": one.first_dirty_offset, "segments": len(log.segments),
                    "size_bytes": size_bytes, "clean_bytes": one.clean_bytes,
                })  # fmt: skip
            table.add(
                log.topic, str(log.partition), str(log.log_start_offset), str(one.first_dirty_offset),
                str(log.log_end_offset), format_count(len(log.segments)), format_bytes(size_bytes), f"{share:.0%}",
            )  # fmt: skip
        if not invocation.json:
            if pairs:
                table.show()
            else:
                say("no topic is compacted; `logstore retention set TOPIC --policy compact` makes one so")


@command.command("run", cls=Command)
@topics_argument
@click.option("--all", "everything", is_flag=True, help="All topics that are compacted, due or not.")
@click.option("--roll", is_flag=True, help="Begin a new segment first, so that the records of the active one are in it.")
@click.option("--rate", metavar="SIZE", help="Read and write no more than this a second: 20MiB.")
@click.option("--memory", metavar="SIZE", help="For the keys; 32 bytes each [128MiB].")
@click.option("--dry-run", is_flag=True, help="The same as plan.")
@pass_invocation
def run(
    invocation: Invocation,
    topics: tuple[str, ...],
    everything: bool,
    roll: bool,
    rate: str | None,
    memory: str | None,
    dry_run: bool,
) -> None:
    """Compact now: the topics named, due or not; without names, those that are due.

    Ctrl-C stops between two reads; what is not finished is left as it was.
    """
    if dry_run:
        click.get_current_context().invoke(plan, topics=topics)
        return
    settings = {"log.cleaner.io.max.bytes.per.second": rate, "log.cleaner.dedupe.buffer.size": memory}
    with invocation.open_for_writing(housekeeping=False, owner_does="compaction", config=settings) as broker:
        for name in topics:
            if not topic_of(broker, name).config.is_compacted:
                raise click.UsageError(
                    f"{name} is not compacted: its cleanup.policy is {broker.topic(name).config['cleanup.policy']}. "
                    f"`logstore retention set {name} --policy compact` changes that."
                )
        if roll:
            for log, _ in broker.housekeeping.compaction_plans(list(topics) or None):
                log.roll()
        with _Bars() as bars:
            results = broker.housekeeping.run_now(
                list(topics) or None, tasks=("compaction",), compact_all=everything or bool(topics), progress=bars.moved
            )
    for result in results:
        if invocation.json:
            write_json(result._asdict())
        elif result.failed:
            say(f"{result.topic}-{result.partition}: {result.summary}")
        else:
            click.echo(f"{result.topic}-{result.partition}: {result.summary}")
    if not results and not invocation.json:
        say("nothing to compact; `logstore compact` shows why")
    if any(result.failed for result in results):
        raise click.exceptions.Exit(STORAGE)


class _Bars:
    """A progress bar for each log and round."""

    def __init__(self) -> None:
        self._at: tuple[str, int] | None = None
        self._bar: Progress | None = None

    def moved(self, log: Log, at: CompactionProgress) -> None:
        place = (log.path, at.round)
        if place != self._at:
            self._end()
            more = f", round {at.round}" if at.round > 1 else ""
            self._at, self._bar = place, Progress(f"{log.topic}-{log.partition}{more}", at.total_bytes)
        assert self._bar is not None
        self._bar.update(at.done_bytes)

    def _end(self) -> None:
        if self._bar is not None:
            self._bar.__exit__(None, None, None)

    def __enter__(self) -> _Bars:
        return self

    def __exit__(self, *error: object) -> None:
        self._end()


def _plans(broker: logstore.Broker, topics: tuple[str, ...]) -> list[tuple[Log, CompactionPlan]]:
    for name in topics:
        topic_of(broker, name)
    shown = set(broker.topics())
    pairs = broker.housekeeping.compaction_plans(list(topics) or None)
    return [(log, one) for log, one in pairs if topics or log.topic in shown]


def _place(log: Log) -> dict[str, Any]:
    return {"topic": log.topic, "partition": log.partition}


def _show_plans(pairs: list[tuple[Log, CompactionPlan]], now_ms: int) -> None:
    table = Table("topic", "partition>", "clean>", "dirty>", "not yet>", "dirty share>", "due at>", "due", "held back by")
    for log, one in pairs:
        table.add(
            log.topic, str(log.partition), format_bytes(one.clean_bytes), format_bytes(one.cleanable_bytes),
            format_bytes(one.uncleanable_bytes), f"{one.dirty_ratio:.0%}",
            f"{log.config['min.cleanable.dirty.ratio']:.0%}" if log.config.is_compacted else "-",
            _when(log, one, now_ms), one.held_back_by if one.uncleanable_bytes else "-",
        )  # fmt: skip
    table.show()
    due = [one for _, one in pairs if one.is_due]
    click.echo()
    if due:
        click.echo(
            f"{len(due)} due, {format_bytes(sum(one.clean_bytes + one.cleanable_bytes for one in due))} to read; "
            "`logstore compact run` does it now"
        )
    else:
        click.echo("nothing is due; `logstore retention explain TOPIC` says why")


def _when(log: Log, one: CompactionPlan, now_ms: int) -> str:
    if not log.config.is_compacted:
        return "never: cleanup.policy"
    if one.is_due:
        return f"now: {one.reason}"
    if not one.clean_bytes and not one.cleanable_bytes:
        if one.held_back_until_ms >= 0:
            return _moment(one.held_back_until_ms, now_ms)
        return f"no: {one.held_back_by}" if one.uncleanable_bytes else "no: empty"
    found = []
    more = bytes_until_due(one, log.config)
    if more:
        found.append(f"after {format_bytes(more)} more")
    if one.due_at_ms >= 0:
        found.append(_moment(one.due_at_ms, now_ms))
    return " or ".join(found) or "no"


def _moment(at_ms: int, now_ms: int) -> str:
    return f"{format_time(at_ms, 'seconds')} (in {format_ms(max(at_ms - now_ms, 0))})"
