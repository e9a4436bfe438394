"""``logstore info``: what is stored, partition by partition."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import click

from logstore.cli.invocation import Command, Invocation, pass_invocation, topic_argument, topic_of
from logstore.cli.output import Table, format_count, format_time, say, write_json
from logstore.errors import CorruptDataError
from logstore.quantities import format_bytes
from logstore.storage.segment_digests import SegmentDigests

if TYPE_CHECKING:
    import logstore
    from logstore.storage.log import Log

__all__ = ["command"]


@click.command("info", cls=Command)
@topic_argument(required=False)
@pass_invocation
def command(invocation: Invocation, topic: str | None) -> None:
    """Show, for every partition, its offsets, size, segments and time span (UTC)."""
    with invocation.open_for_reading() as broker:
        names = broker.topics() if topic is None else [topic_of(broker, topic).name]
        partitions = [facts for name in names for facts in _facts(broker.topic(name))]
        reports = {at: report for at, report in broker.recovery_reports.items() if at.topic in names}
        damages = {at: error for at, error in broker.damages.items() if at.topic in names}
        total = {
            "path": broker.path,
            "topics": len(names),
            "partitions": len(partitions),
            "offsets": sum(facts["offsets"] for facts in partitions),
            "size_bytes": sum(facts["size_bytes"] for facts in partitions),
        }
        if invocation.json:
            recovered = [
                {"topic": at.topic, "partition": at.partition, **report._asdict()} for at, report in reports.items()
            ]
            damaged = [
                {"topic": at.topic, "partition": at.partition, "damage": str(error)} for at, error in damages.items()
            ]
            total["housekeeping"] = broker.housekeeping.recorded()
            write_json({**total, "logs": partitions, "recovery_reports": recovered, "damages": damaged})
            return
        if not partitions:
            say(f"no topics in {broker.path}")
            return
        _show(partitions)
        click.echo(
            f"\n{broker.path}: {format_count(total['offsets'])} offsets, {format_bytes(total['size_bytes'])}, "
            f"in {len(names)} {'topic' if len(names) == 1 else 'topics'}"
        )
        click.echo(f"housekeeping: {_housekeeping(broker.housekeeping.recorded())}")
        for at, report in reports.items():
            say(f"{at.topic}-{at.partition}: {_recovery(report)}")
        for at, error in damages.items():
            say(f"{at.topic}-{at.partition}: damaged: {' '.join(str(error).split())}")


def _facts(topic: logstore.Topic) -> list[dict[str, Any]]:
    durability = topic.config["logstore.durability"] or "flushed"
    found = []
    for partition, log in enumerate(topic.logs):
        start, end = log.log_start_offset, log.log_end_offset
        segments = log.segments
        first = last = -1
        if end > start:
            with contextlib.suppress(CorruptDataError):
                opening = topic.offset_for_timestamp(0, partition)
                first = -1 if opening is None else opening.timestamp
            last = max(segment.max_timestamp for segment in segments)
        found.append(
            {
                "topic": topic.name,
                "partition": partition,
                "log_start_offset": start,
                "log_end_offset": end,
                "flushed_offset": log.flushed_offset,
                "offsets": end - start,
                "size_bytes": log.size_bytes,
                "segments": len(segments),
                "first_timestamp": first,
                "last_timestamp": last,
                "durability": durability,
                "verified_timestamp": _verified_ms(log),
                "path": log.path,
            }
        )
    return found


def _show(partitions: list[dict[str, Any]]) -> None:
    table = Table(
        "topic", "partition>", "start offset>", "end offset>", "offsets>", "size>", "segments>", "first time",
        "last time", "durability", "verified",
    )  # fmt: skip
    for facts in partitions:
        table.add(
            facts["topic"],
            str(facts["partition"]),
            str(facts["log_start_offset"]),
            str(facts["log_end_offset"]),
            format_count(facts["offsets"]),
            format_bytes(facts["size_bytes"]),
            str(facts["segments"]),
            format_time(facts["first_timestamp"], "seconds"),
            format_time(facts["last_timestamp"], "seconds"),
            facts["durability"],
            "never" if facts["verified_timestamp"] == 0 else format_time(facts["verified_timestamp"], "minutes"),
        )
    table.show()


def _verified_ms(log: Log) -> int:
    """Since when every sealed segment has been verified at least once; 0 where one never was, -1 for none."""
    known = SegmentDigests(log.path).entries()
    sealed = [known.get(segment.base_offset) for segment in log.segments[:-1]]
    return min((0 if digest is None else digest.verified_ms for digest in sealed), default=-1)


def _housekeeping(record: dict[str, Any] | None) -> str:
    """What was done last."""
    if record is None:
        return "never ran"
    times = [
        f"{task} last ran {'never' if record[name] < 0 else format_time(record[name], 'seconds')}"
        for task, name in (("retention", "last_retention_ms"), ("compaction", "last_compaction_ms"))
    ]
    lines = ["; ".join(times)]
    for result in record["results"][-3:]:
        place = result["topic"] + (f"-{result['partition']}" if result["partition"] >= 0 else "")
        failed = " failed" if result["failed"] else ""
        moment = format_time(result["started_ms"], "seconds")
        lines.append(f"{moment} {result['task']} of {place}{failed}: {result['summary']}")
    return "\n  ".join(lines)


def _recovery(report: Any) -> str:
    parts = []
    if report.cut_bytes:
        parts.append(
            f"an unfinished tail of {format_bytes(report.cut_bytes)} from offset {report.cut_offset} on was cut "
            f"({report.reason})" + (f", kept as {report.kept_as}" if report.kept_as else "")
        )
    if report.rebuilt_indexes:
        parts.append(f"{report.rebuilt_indexes} index files were missing or doubtful and were derived again")
    if report.scanned_bytes or report.spared_bytes:
        spared = f", {format_bytes(report.spared_bytes)} more were written since this boot" if report.spared_bytes else ""
        parts.append(f"not closed in good order, or being written: checked {format_bytes(report.scanned_bytes)}{spared}")
    return "; ".join(parts) or "recovered"
