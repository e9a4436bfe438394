"""What compaction would do to one log, and why, or why not: pure functions from facts to a plan (log-format, 7.1, 7.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from logstore.storage.config import TopicConfig

__all__ = ["CompactionFacts", "CompactionPlan", "SegmentExtent", "compaction_plan", "group_segments"]

INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1


class SegmentExtent(NamedTuple):
    """One segment, as far as compaction is concerned.

    Attributes
    ----------
    base_offset, end_offset : int
        Its offsets, ``[base, end)``: the end is the next segment's base, or the log end offset.
    size_bytes : int
    max_timestamp : int
        Largest timestamp in ms; -1 where it is not known or not asked for.
    first_timestamp : int
        Of its first batch, in ms; -1 likewise.
    """

    base_offset: int
    end_offset: int
    size_bytes: int
    max_timestamp: int = -1
    first_timestamp: int = -1


class CompactionFacts(NamedTuple):
    """What a plan is made from.

    Attributes
    ----------
    segments : sequence of SegmentExtent
        Ascending; the last one is active.
    log_start_offset, log_end_offset, flushed_offset : int
    last_stable_offset : int
        The first offset of the first open transaction, or the log end offset.
    cleaner_offset : int or None
        Where the last compaction ended; None where there was none.
    """

    segments: Sequence[SegmentExtent]
    log_start_offset: int
    log_end_offset: int
    flushed_offset: int
    last_stable_offset: int
    cleaner_offset: int | None = None


class CompactionPlan(NamedTuple):
    """Which part of a log can be compacted now, and whether it is due.

    Attributes
    ----------
    first_dirty_offset : int
        Everything below was compacted before.
    first_uncleanable_offset : int
        Nothing from here on may be touched yet.
    held_back_by : str
        What sets that end: ``"active segment"``, ``"open transaction"``, ``"flushed offset"`` or
        ``"min.compaction.lag.ms"``.
    held_back_until_ms : int
        When time alone moves that end; -1 where it does not.
    clean_bytes, cleanable_bytes, uncleanable_bytes : int
        Of whole segments: compacted before; can be compacted now; can't yet (the active one included).
    dirty_ratio : float
        ``cleanable / (clean + cleanable)``, what ``min.cleanable.dirty.ratio`` is held against.
    is_due : bool
        Whether housekeeping would compact now.
    reason : str
        The setting that makes it due, or that keeps it from being: ``"min.cleanable.dirty.ratio"``,
        ``"max.compaction.lag.ms"``, ``"cleanup.policy"``, or ``"nothing to compact"``.
    due_at_ms : int
        When ``max.compaction.lag.ms`` makes it due, if nothing does before; -1 where nothing is known to.
    """

    first_dirty_offset: int
    first_uncleanable_offset: int
    held_back_by: str
    held_back_until_ms: int
    clean_bytes: int
    cleanable_bytes: int
    uncleanable_bytes: int
    dirty_ratio: float
    is_due: bool
    reason: str
    due_at_ms: int


def compaction_plan(facts: CompactionFacts, config: TopicConfig, now_ms: int) -> CompactionPlan:
    """What compaction could do now, and whether it is due.

    Parameters
    ----------
    facts : CompactionFacts
    config : TopicConfig
    now_ms : int

    Returns
    -------
    CompactionPlan

    Notes
    -----
    Source: log-format, 7.1 and 7.2.
    """
    first_dirty = facts.cleaner_offset if facts.cleaner_offset is not None else facts.log_start_offset
    if not facts.log_start_offset <= first_dirty <= facts.log_end_offset:
        first_dirty = facts.log_start_offset
    end, held_back_by, until_ms = _first_uncleanable(facts, config, first_dirty, now_ms)
    clean = cleanable = uncleanable = 0
    oldest_dirty_ms = -1
    for index, segment in enumerate(facts.segments):
        is_active = index == len(facts.segments) - 1
        if segment.end_offset <= first_dirty and not is_active:
            clean += segment.size_bytes
        elif is_active or segment.base_offset >= end or end == first_dirty:  # a start in its middle makes nothing cleanable
            uncleanable += segment.size_bytes
        else:
            cleanable += segment.size_bytes
            if oldest_dirty_ms < 0:
                oldest_dirty_ms = segment.first_timestamp
    ratio = cleanable / (clean + cleanable) if cleanable else 0.0
    lag_ms = config["max.compaction.lag.ms"]
    due_at_ms = oldest_dirty_ms + lag_ms if cleanable and oldest_dirty_ms > 0 and lag_ms < INT64_MAX else -1
    is_due, reason = True, "min.cleanable.dirty.ratio"
    if not config.is_compacted:
        is_due, reason = False, "cleanup.policy"
    elif end <= first_dirty or not cleanable:
        is_due, reason = False, "nothing to compact"
    elif ratio <= config["min.cleanable.dirty.ratio"]:
        is_due = 0 <= due_at_ms < now_ms
        reason = "max.compaction.lag.ms" if is_due else "min.cleanable.dirty.ratio"
    return CompactionPlan(
        first_dirty, end, held_back_by, until_ms, clean, cleanable, uncleanable, ratio, is_due, reason,
        due_at_ms if config.is_compacted else -1,
    )


def _first_uncleanable(
    facts: CompactionFacts, config: TopicConfig, first_dirty: int, now_ms: int
) -> tuple[int, str, int]:
    active = facts.segments[-1].base_offset if facts.segments else facts.log_end_offset
    bounds = [(active, "active segment", -1)]
    if facts.last_stable_offset < active:
        bounds.append((facts.last_stable_offset, "open transaction", -1))
    if facts.flushed_offset < active:
        bounds.append((facts.flushed_offset, "flushed offset", -1))
    lag_ms = config["min.compaction.lag.ms"]
    if lag_ms > 0:
        for segment in facts.segments[:-1]:
            if segment.end_offset > first_dirty and segment.max_timestamp > now_ms - lag_ms:
                bounds.append((segment.base_offset, "min.compaction.lag.ms", segment.max_timestamp + lag_ms))
                break
    end, held_back_by, until_ms = min(bounds, key=lambda bound: bound[0])
    return max(end, first_dirty), held_back_by, until_ms


def group_segments(
    sizes: Sequence[tuple[int, int, int, int, int]], segment_bytes: int, index_bytes: int
) -> list[list[int]]:
    """Which segments become one: neighbours, as many as fit (log-format, 7.4).

    Parameters
    ----------
    sizes : sequence of (base offset, end offset, .log bytes, .index bytes, .timeindex bytes)
    segment_bytes, index_bytes : int
        ``segment.bytes`` and ``segment.index.bytes``.

    Returns
    -------
    list[list[int]]
        Positions in ``sizes``.
    """
    groups: list[list[int]] = []
    base = total = total_index = total_time = 0
    for position, (base_offset, end_offset, size, index_size, time_size) in enumerate(sizes):
        fits = (
            bool(groups)
            and end_offset - 1 - base <= INT32_MAX
            and (
                size == 0
                or (
                    total + size <= segment_bytes
                    and total_index + index_size <= index_bytes
                    and total_time + time_size <= index_bytes
                )
            )
        )
        if fits:
            groups[-1].append(position)
            total, total_index, total_time = total + size, total_index + index_size, total_time + time_size
        else:
            groups.append([position])
            base, total, total_index, total_time = base_offset, size, index_size, time_size
    return groups
