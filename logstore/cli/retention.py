"""``logstore retention``: see what goes and why before it does, have it done, and the settings behind it."""

from __future__ import annotations

import time
from itertools import groupby
from typing import TYPE_CHECKING, Any

import click

from logstore.cli.exit_codes import CHECK_FAILED, STORAGE
from logstore.cli.invocation import (
    Command,
    CommandGroup,
    Invocation,
    group_options,
    pass_invocation,
    topic_argument,
    topic_of,
)
from logstore.cli.output import Table, format_count, format_time, say, write_json
from logstore.cli.progress import Progress
from logstore.cli.retention_settings import set_settings, show
from logstore.quantities import format_bytes, format_ms
from logstore.storage.compaction_explained import explain_compaction
from logstore.storage.retention import RetentionPlan, SegmentDecision
from logstore.storage.retention_explained import explain_retention

if TYPE_CHECKING:
    import logstore
    from logstore.broker.housekeeping import HousekeepingResult

__all__ = ["command"]


@click.group("retention", cls=CommandGroup, invoke_without_command=True)
@group_options
@click.pass_context
def command(ctx: click.Context) -> None:
    """What retention deletes, when and why. Without a command: plan.

    Looking works beside a process that has the directory open; `set` and `run` need to be the one writer.
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(plan)


topics_argument = click.argument("topics", metavar="[TOPIC]...", nargs=-1)
at_option = click.option(
    "--at", "later", metavar="AGE", help="As if it were so much later: 1h, 30d. Records to come are not reckoned with."
)


@command.command("plan", cls=Command)
@topics_argument
@at_option
@click.option("--segments", "each", is_flag=True, help="A row for each segment; neighbours of one fate share a row else.")
@click.option("--check", is_flag=True, help="Exit with 1 where something would go.")
@pass_invocation
def plan(
    invocation: Invocation, topics: tuple[str, ...] = (), later: str | None = None, each: bool = False, check: bool = False
) -> None:
    """Show which segments the next round deletes, what stays, why, and when that changes. Changes nothing."""
    with invocation.open_for_reading() as broker:
        now_ms = _now_ms(later)
        plans = _plans(broker, topics, now_ms)
        if invocation.json:
            write_json(*map(_plan_json, plans))
        elif not plans:
            say(f"no topics in {broker.path}")
        else:
            _show_plans(plans, now_ms, each=each)
    if check and any(one.changes_anything for one in plans):
        raise click.exceptions.Exit(CHECK_FAILED)


@command.command("explain", cls=Command)
@topic_argument()
@click.option("-p", "--partition", type=click.IntRange(0), help="One partition alone.")
@at_option
@pass_invocation
def explain(invocation: Invocation, topic: str, partition: int | None, later: str | None) -> None:
    """Say in sentences why a topic's records are still there, why it is not compacted, and what would change that."""
    with invocation.open_for_reading() as broker:
        found = topic_of(broker, topic)
        if partition is not None:
            found.partition(partition)
        now_ms = _now_ms(later)
        for one in _plans(broker, (topic,), now_ms):
            if partition not in (None, one.partition):
                continue
            sentences = explain_retention(one, now_ms)
            if found.config.is_compacted:
                log = found.partition(one.partition)
                sentences += explain_compaction(log.compaction_plan(), log.config, now_ms)
            if invocation.json:
                write_json({"topic": one.topic, "partition": one.partition, "sentences": sentences})
                continue
            click.echo(click.style(f"{one.topic}-{one.partition}", bold=True))
            for sentence in sentences:
                click.echo(click.wrap_text(sentence, 110, "  ", "    "))


@command.command("run", cls=Command)
@topics_argument
@click.option("--dry-run", is_flag=True, help="The same as plan.")
@pass_invocation
def run(invocation: Invocation, topics: tuple[str, ...], dry_run: bool) -> None:
    """Delete now what the plan says goes, rather than at the next round of a program that has the directory open."""
    if dry_run:
        click.get_current_context().invoke(plan, topics=topics)
        return
    with invocation.open_for_writing(housekeeping=False, owner_does="retention") as broker:
        for name in topics:
            topic_of(broker, name)
        expected = sum(one.bytes_freed for one in _plans(broker, topics, _now_ms(None)))
        freed = 0
        with Progress("retention", expected) as progress:

            def note(result: HousekeepingResult) -> None:
                nonlocal freed
                freed += result.bytes_freed
                progress.update(freed)

            results = broker.housekeeping.run_now(list(topics) or None, tasks=("retention",), on_result=note)
    # Closed by now, so that the files are gone, not only their names.
    for result in results:
        if invocation.json:
            write_json(result._asdict())
        elif result.failed:
            say(f"{result.topic}-{result.partition}: {result.summary}")
        else:
            click.echo(f"{result.topic}-{result.partition}: {result.summary}")
    if not invocation.json:
        say(f"freed {format_bytes(freed)}" if results else "nothing had to go; `logstore retention` shows why")
    if any(result.failed for result in results):
        raise click.exceptions.Exit(STORAGE)


command.add_command(show)
command.add_command(set_settings)


def _now_ms(later: str | None) -> int:
    from logstore.errors import InvalidConfigError
    from logstore.quantities import ms_from

    now_ms = time.time_ns() // 1_000_000
    if later is None:
        return now_ms
    try:
        return now_ms + max(ms_from(later, "--at"), 0)
    except InvalidConfigError as error:
        raise click.UsageError(str(error)) from None


def _plans(broker: logstore.Broker, topics: tuple[str, ...], now_ms: int) -> list[RetentionPlan]:
    for name in topics:
        topic_of(broker, name)
    shown = set(topics) or set(broker.topics())
    return [one for one in broker.housekeeping.retention_plans(now_ms=now_ms) if one.topic in shown]


def _show_plans(plans: list[RetentionPlan], now_ms: int, *, each: bool) -> None:
    table = Table("topic", "partition>", "offsets", "segments>", "size>", "what", "why", "when")
    for one in plans:
        for decisions in _runs(one, each=each):
            first, last = decisions[0], decisions[-1]
            table.add(
                one.topic,
                str(one.partition),
                f"{first.segment.base_offset}..{last.segment.end_offset}",
                format_count(len(decisions)),
                format_bytes(sum(decision.segment.size_bytes for decision in decisions)),
                "goes" if first.goes else "stays",
                _why(one, first),
                _when(one, first, now_ms),
            )
    table.show()
    going = [one for one in plans if one.changes_anything]
    due = min((one.next_change_ms for one in plans if one.next_change_ms is not None), default=None)
    click.echo()
    if going:
        count = sum(one.going_count for one in going)
        trimmed = sum(one.offsets_freed for one in going)
        click.echo(
            f"the next round frees {format_bytes(sum(one.bytes_freed for one in going))}: "
            f"{format_count(count)} {'segment' if count == 1 else 'segments'}, {format_count(trimmed)} offsets; "
            "`logstore retention run` does it now"
        )
    else:
        click.echo("nothing goes now")
    if due is not None:
        click.echo(f"the next change by time is due {_moment(due, now_ms)}")
    for one in plans:
        for segment in one.future_segments:
            say(
                f"{one.topic}-{one.partition}: a timestamp in the future, {format_time(segment.max_timestamp, 'seconds')}, "
                f"keeps the segment at offset {segment.base_offset} and all behind it; "
                f"`logstore retention explain {one.topic}` says more"
            )


def _runs(one: RetentionPlan, *, each: bool) -> list[list[SegmentDecision]]:
    """Neighbours that share what becomes of them and why."""
    if each:
        return [[decision] for decision in one.decisions]
    return [list(run) for _, run in groupby(one.decisions, key=lambda decision: (decision.goes, decision.reason))]


def _why(one: RetentionPlan, decision: SegmentDecision) -> str:
    if decision.reason == "logstore.retention.groups" and decision == one.first_that_stays:
        return f"{decision.reason}: {', '.join(one.held_by_groups)}"
    return decision.reason


def _when(one: RetentionPlan, decision: SegmentDecision, now_ms: int) -> str:
    if decision.goes:
        return "now"
    found = [] if decision.due_ms is None else [_moment(decision.due_ms, now_ms)]
    if decision == one.first_that_stays and not one.held_by_groups:
        if one.growth_bytes is not None:
            found.append(f"after {format_bytes(one.growth_bytes)} more")
        if one.growth_offsets is not None:
            found.append(f"after {format_count(one.growth_offsets)} records more")
    return " or ".join(found) or "-"


def _moment(at_ms: int, now_ms: int) -> str:
    return f"{format_time(at_ms, 'seconds')} (in {format_ms(max(at_ms - now_ms, 0))})"


def _plan_json(one: RetentionPlan) -> dict[str, Any]:
    return {
        "topic": one.topic,
        "partition": one.partition,
        "log_start_offset": one.facts.log_start_offset,
        "log_end_offset": one.facts.log_end_offset,
        "new_log_start_offset": one.log_start_offset,
        "size_bytes": one.facts.size_bytes,
        "bytes_freed": one.bytes_freed,
        "segments_freed": one.going_count,
        "rolls_active": one.rolls_active,
        "next_change_ms": one.next_change_ms,
        "next_change_after_bytes": one.growth_bytes,
        "next_change_after_records": one.growth_offsets,
        "shielded_bytes": one.shielded_bytes,
        "held_by_groups": list(one.held_by_groups),
        "future_segments": [segment.base_offset for segment in one.future_segments],
        "segments": [
            {
                **decision.segment._asdict(),
                "goes": decision.goes,
                "reason": decision.reason,
                "due_ms": decision.due_ms,
            }
            for decision in one.decisions
        ],
    }
