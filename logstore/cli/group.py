"""``logstore group``: consumer groups, how far behind they are, and moving them."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from logstore.cli.group_lag import lag_json, lag_table, watch_lag
from logstore.cli.invocation import Command, CommandGroup, Invocation, pass_invocation
from logstore.cli.output import Table, format_count, say, write_json
from logstore.cli.positions import POSITION
from logstore.errors import GroupIdNotFoundError, InvalidRequestError

if TYPE_CHECKING:
    import logstore
    from logstore.broker.group_admin import DescribedGroup, OffsetReset

__all__ = ["command"]


@click.group("group", cls=CommandGroup)
def command() -> None:
    """Consumer groups: who reads what, how far behind, and from where next.

    list, describe and lag work beside a program that has the directory open; seek and delete need to be the one writer.
    """


def _complete_group(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    invocation = ctx.ensure_object(Invocation)
    try:
        with invocation.open_for_reading() as broker:
            return [listing.group for listing in broker.groups() if listing.group.startswith(incomplete)]
    except Exception:  # completion has nobody to tell
        return []


group_argument = click.argument("group", metavar="GROUP", shell_complete=_complete_group)


def described(broker: logstore.Broker, group: str) -> DescribedGroup:
    """A group that exists.

    Raises
    ------
    GroupIdNotFoundError
    """
    found = broker.describe_group(group)
    if found.state == "Dead":
        import difflib

        near = difflib.get_close_matches(group, [listing.group for listing in broker.groups()], n=1)
        advice = f"did you mean {near[0]!r}?" if near else "`logstore group list` shows what there is"
        raise GroupIdNotFoundError(f"there is no group {group!r} in {broker.path}; {advice}")
    return found


# ---- looking --------------------------------------------------------------------------------------------


@command.command("list", cls=Command)
@pass_invocation
def list_groups(invocation: Invocation) -> None:
    """Show all groups: state, members, topics, and how far behind they are."""
    with invocation.open_for_reading() as broker:
        groups = [broker.describe_group(listing.group) for listing in broker.groups()]
    if invocation.json:
        write_json(*(_summary(group) for group in groups))
        return
    if not groups:
        say(f"no groups in {invocation.directory}")
        return
    table = Table("group", "state", "members>", "partitions>", "lag>", "topics")
    for group in groups:
        topics = sorted({partition.topic for partition in group.partitions})
        table.add(
            group.group,
            group.state,
            format_count(len(group.members)),
            format_count(len(group.partitions)),
            format_count(_total_lag(group)),
            ", ".join(topics[:5]) + (f" and {len(topics) - 5} more" if len(topics) > 5 else ""),
        )
    table.show()


def _total_lag(group: DescribedGroup) -> int:
    return sum(partition.lag or 0 for partition in group.partitions)


def _summary(group: DescribedGroup) -> dict[str, Any]:
    return {
        "group": group.group,
        "state": group.state,
        "protocol": group.protocol,
        "generation": group.generation,
        "members": len(group.members),
        "partitions": len(group.partitions),
        "lag": _total_lag(group),
    }


@command.command("describe", cls=Command)
@group_argument
@pass_invocation
def describe(invocation: Invocation, group: str) -> None:
    """Show a group's members, what each of them reads, and its committed offsets."""
    with invocation.open_for_reading() as broker:
        found = described(broker, group)
    if invocation.json:
        members = [
            {
                **member._asdict(),
                "partitions": None if member.partitions is None else [list(place) for place in member.partitions],
            }
            for member in found.members
        ]
        write_json({**_summary(found), "members": members, "partitions": lag_json(found.partitions)})
        return
    assignor = f", assignor {found.protocol}" if found.protocol else ""
    say(f"group {found.group}: {found.state}, generation {found.generation}{assignor}")
    if found.members:
        table = Table("member", "client", "host", "instance", "partitions")
        for member in found.members:
            owned = "?" if member.partitions is None else " ".join(f"{topic}-{at}" for topic, at in member.partitions)
            table.add(
                member.member_id, member.client_id, member.client_host, member.group_instance_id or "-", owned or "none"
            )
        table.show()
    if found.partitions:
        if found.members:
            click.echo()
        lag_table([found], with_group=False).show()


@command.command("lag", cls=Command)
@click.argument("groups", metavar="[GROUP]...", nargs=-1, shell_complete=_complete_group)
@click.option(
    "-w", "--watch", "seconds", type=click.FloatRange(min=0.1), is_flag=False, flag_value=2.0, metavar="[SECONDS]",
    help="Show it again and again, every 2 seconds if not said otherwise; Ctrl-C ends it.",
)  # fmt: skip
@pass_invocation
def lag(invocation: Invocation, groups: Sequence[str], seconds: float | None) -> None:
    """Show how far groups are behind, in records and in seconds: the age of the oldest record not read yet."""
    with invocation.open_for_reading() as broker:

        def look() -> list[DescribedGroup]:
            names = groups or [listing.group for listing in broker.groups()]
            return [described(broker, name) for name in names]

        if seconds is None:
            _show_lag(invocation, look())
        elif invocation.json or not sys.stdout.isatty():
            while True:
                _show_lag(invocation, look())
                sys.stdout.flush()
                time.sleep(seconds)
        else:
            watch_lag(look, seconds)


def _show_lag(invocation: Invocation, groups: list[DescribedGroup]) -> None:
    if invocation.json:
        write_json(
            *({"group": group.group, "lag": _total_lag(group), "partitions": lag_json(group.partitions)} for group in groups)
        )
    elif not groups:
        say(f"no groups in {invocation.directory}")
    else:
        lag_table(groups, with_group=True).show()


# ---- moving ---------------------------------------------------------------------------------------------


@command.command("seek", cls=Command)
@group_argument
@click.argument("places", metavar="[TOPIC[:PARTITION]]...", nargs=-1)
@click.option(
    "--to", type=POSITION, help="An offset, a time (2013-01-15T08:30Z), an age (-1h), 'earliest' or 'latest'."
)
@click.option("--by", "shift_by", type=int, metavar="N", help="Records forward; back where negative (--by=-100).")
@click.option("--dry-run", is_flag=True, help="Only show what would change.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@pass_invocation
def seek(
    invocation: Invocation, group: str, places: tuple[str, ...], to: Any, shift_by: int | None, dry_run: bool, yes: bool
) -> None:
    """Move a group's committed offsets, so that it reads again, or skips; all it has committed, or these topics.

    The group must have no members. One that does not exist is made, if topics are named.
    """
    if (to is None) == (shift_by is None):
        raise click.UsageError("Where to? Give --to POSITION or --by N, one of them.")
    wanted = [_place(text) for text in places] or None
    opened = invocation.open_for_reading() if dry_run else invocation.open_for_writing()
    with opened as broker:
        if wanted is None:
            described(broker, group)
        plan = broker.reset_offsets(group, wanted, to=to, shift_by=shift_by, dry_run=True)
        if not plan:
            raise InvalidRequestError(f"group {group!r} has no committed offsets; name the topics to seek in")
        if not invocation.json:
            _plan_table(plan).show()
        if not dry_run:
            if not yes and not invocation.json and sys.stdin.isatty():
                click.confirm(f"Move group {group!r} like this?", abort=True, err=True)
            broker.reset_offsets(group, wanted, to=to, shift_by=shift_by)
    if invocation.json:
        write_json(*({**reset._asdict(), "applied": not dry_run} for reset in plan))
    elif dry_run:
        say("nothing was changed: this was a dry run")


def _place(text: str) -> Any:
    topic, colon, number = text.rpartition(":")
    if not colon:
        return text
    if not number.isdigit():
        raise click.UsageError(f"{text!r} is neither a topic nor TOPIC:PARTITION.")
    return (topic, int(number))


def _plan_table(plan: list[OffsetReset]) -> Table:
    table = Table("topic", "partition>", "before>", "after>", "moves>", "note")
    for reset in plan:
        moved = "-" if reset.before is None else f"{reset.after - reset.before:+,}"
        note = "" if reset.asked_for == reset.after else f"{reset.asked_for} is outside of what the log holds"
        before = "-" if reset.before is None else str(reset.before)
        table.add(reset.topic, str(reset.partition), before, str(reset.after), moved, note)
    return table


@command.command("delete", cls=Command)
@group_argument
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@pass_invocation
def delete(invocation: Invocation, group: str, yes: bool) -> None:
    """Delete a group without members, and its committed offsets. Records are not touched."""
    with invocation.open_for_writing() as broker:
        found = described(broker, group)
        if not yes and sys.stdin.isatty():
            click.confirm(
                f"Delete group {group!r} and its offsets in {len(found.partitions)} partitions?", abort=True, err=True
            )
        broker.delete_group(group)
    if invocation.json:
        write_json({"group": group, "deleted": True})
    else:
        say(f"deleted group {group} and its offsets in {len(found.partitions)} partitions")
