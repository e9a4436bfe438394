"""``logstore topic trim``: remove the oldest records of a topic, now and for good."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import click

from logstore.cli.invocation import Command, Invocation, pass_invocation, topic_argument, topic_of
from logstore.cli.output import Table, confirm, format_count, say, write_json
from logstore.cli.positions import POSITION, check_partition
from logstore.errors import InvalidConfigError, InvalidRequestError, OffsetOutOfRangeError
from logstore.model import TopicPartition
from logstore.positions import Position, resolve_position
from logstore.quantities import format_bytes, ms_from
from logstore.storage.segment_deletion import log_facts

if TYPE_CHECKING:
    import logstore
    from logstore.storage.log import Log

__all__ = ["trim"]


class _Trim(NamedTuple):
    """What goes from one partition."""

    partition: int
    before: int
    after: int
    end: int
    bytes_freed: int
    unread: dict[str, int]


@click.command("trim", cls=Command)
@topic_argument()
@click.option("--before", type=POSITION, help="An offset (with -p where there are several partitions), a time, an age.")
@click.option("--keep-records", metavar="N", type=click.IntRange(0), help="All but the last N of each partition.")
@click.option("--keep-last", metavar="AGE", help="All that is older: 7d, 12h.")
@click.option("-p", "--partition", type=click.IntRange(0), help="One partition alone.")
@click.option("--dry-run", is_flag=True, help="Show what would go, and delete nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@pass_invocation
def trim(
    invocation: Invocation,
    topic: str,
    before: Position | None,
    keep_records: int | None,
    keep_last: str | None,
    partition: int | None,
    dry_run: bool,
    yes: bool,
) -> None:
    """Delete a topic's oldest records, whatever its settings say.

    The log then starts exactly there; disk space comes free a whole segment at a time.
    """
    if sum(option is not None for option in (before, keep_records, keep_last)) != 1:
        raise click.UsageError("Where to? Give one of --before, --keep-records and --keep-last.")
    if keep_last is not None:
        before = _age(keep_last)
    opened = (
        invocation.open_for_reading() if dry_run
        else invocation.open_for_writing(housekeeping=False, owner_does="trim")
    )
    with opened as broker:
        found = topic_of(broker, topic)
        if before is not None:
            check_partition(found, partition, before)
        logs = list(found.logs) if partition is None else [found.partition(partition)]
        if "delete" not in found.config["cleanup.policy"]:
            raise InvalidRequestError(
                f"{topic} is compacted, so each key keeps its last record; `logstore erase` removes one key, and "
                "`logstore retention set --policy compact,delete` lets old records go"
            )
        trims = [_judged(broker, log, _target(log, before, keep_records)) for log in logs]
        going = [one for one in trims if one.after > one.before]
        if going and not dry_run and not yes:
            _show(topic, going)
            confirm(f"Delete {_what(going)}?")
        if going and not dry_run:
            broker.delete_records(topic, {one.partition: one.after for one in going})
    if invocation.json:
        write_json(*({"topic": topic, **_json(one), "applied": not dry_run} for one in trims))
    elif not going:
        say(f"nothing to trim: {topic} has no records before that")
    elif dry_run:
        _show(topic, going)
        say(f"would delete {_what(going)}")
    else:
        say(f"deleted {_what(going)}")


def _age(text: str) -> Position:
    try:
        if ms_from(text, "--keep-last") < 0:
            raise click.UsageError(f"--keep-last takes an age such as 7d, not {text!r}.")
    except InvalidConfigError as error:
        raise click.UsageError(str(error)) from None
    converted: Position = POSITION.convert(f"-{text.strip()}", None, None)
    return converted


def _target(log: Log, before: Position | None, keep_records: int | None) -> int:
    """The first offset that stays."""
    if keep_records is not None:
        return max(log.log_end_offset - keep_records, log.log_start_offset)
    assert before is not None
    kind, number = resolve_position(before, "--before")
    if kind == "timestamp":
        hit = log.offset_for_timestamp(number)
        return log.log_end_offset if hit is None else hit.offset
    if kind == "offset" and number > log.log_end_offset:
        raise OffsetOutOfRangeError(
            f"{log.topic}-{log.partition} ends at offset {log.log_end_offset}; its start can't move to {number}",
            offset=number, log_start_offset=log.log_start_offset, log_end_offset=log.log_end_offset,
        )
    return {"earliest": log.log_start_offset, "latest": log.log_end_offset}.get(kind, max(number, log.log_start_offset))


def _judged(broker: logstore.Broker, log: Log, after: int) -> _Trim:
    segments = log_facts(log).segments[:-1]
    place = TopicPartition(log.topic, log.partition)
    unread = {}
    for listing in broker.groups():
        committed = broker.coordinator.committed_offsets(listing.group, [place]).get(place)
        if committed is not None and committed.offset < after:
            unread[listing.group] = after - max(committed.offset, log.log_start_offset)
    return _Trim(
        log.partition, log.log_start_offset, after, log.log_end_offset,
        sum(segment.size_bytes for segment in segments if segment.end_offset <= after),
        {group: count for group, count in unread.items() if count > 0},
    )


def _show(topic: str, going: list[_Trim]) -> None:
    table = Table("topic", "partition>", "start offset>", "new start>", "end offset>", "records>", "freed>", "not read by")
    for one in going:
        unread = ", ".join(f"{group} ({format_count(count)})" for group, count in one.unread.items())
        table.add(
            topic, str(one.partition), str(one.before), str(one.after), str(one.end), format_count(one.after - one.before),
            format_bytes(one.bytes_freed), unread,
        )  # fmt: skip
    table.show()


def _what(going: list[_Trim]) -> str:
    records = sum(one.after - one.before for one in going)
    freed = sum(one.bytes_freed for one in going)
    return f"{format_count(records)} {'record' if records == 1 else 'records'}, which frees {format_bytes(freed)}"


def _json(one: _Trim) -> dict[str, Any]:
    return {
        "partition": one.partition,
        "log_start_offset": one.before,
        "new_log_start_offset": one.after,
        "log_end_offset": one.end,
        "records": one.after - one.before,
        "bytes_freed": one.bytes_freed,
        "unread": one.unread,
    }
