"""Which logs compaction takes next, and what one compaction comes to in half a line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from logstore.quantities import format_bytes

if TYPE_CHECKING:
    from logstore.storage.compaction import CompactionReport
    from logstore.storage.compaction_plan import CompactionPlan
    from logstore.storage.log import Log

__all__ = ["compaction_summary", "is_idle", "next_to_compact"]


def next_to_compact(plans: Iterable[tuple[Log, CompactionPlan]]) -> tuple[Log, CompactionPlan] | None:
    """Of the logs that are due the one with the largest share of uncompacted bytes, as Kafka has it; None for none."""
    due = [(log, plan) for log, plan in plans if plan.is_due]
    return max(due, key=lambda pair: pair[1].dirty_ratio, default=None)


def is_idle(log: Log, now_ms: int) -> bool:
    """Whether the active segment holds records and was not written for ``segment.ms`` (``max.compaction.lag.ms``, if that is
    less). An append would roll it; where none comes, its records would never be compacted."""
    active = log.segments[-1]
    size_bytes, _, modified_ms = active.facts()
    return size_bytes > 0 and now_ms - modified_ms > log.config.roll_ms


def compaction_summary(report: CompactionReport) -> str:
    """What was done; empty where nothing was."""
    if report.outcome == "nothing to compact":
        return ""
    freed = report.bytes_before - report.bytes_after
    parts = [
        f"{report.outcome} up to offset {report.first_dirty_offset}",
        f"kept {report.records_kept:,} of {report.records_read:,} records",
        f"freed {format_bytes(freed)} of {format_bytes(report.bytes_before)}",
    ]
    if report.tombstones_expired:
        parts.append(f"{report.tombstones_expired:,} tombstones expired")
    return ", ".join(parts) + f", in {report.duration_s:.1f} s"
