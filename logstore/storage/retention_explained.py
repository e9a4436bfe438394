"""A retention plan in sentences: what goes and why, what stays and why, and what would change that. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import groupby

from logstore.quantities import format_bytes, format_ms
from logstore.storage.retention import (
    ACTIVE,
    BEFORE_START,
    NO_LIMIT,
    RetentionPlan,
    RetentionPolicy,
    SegmentFacts,
)

__all__ = ["explain_retention", "format_moment", "summary_of"]


def format_moment(timestamp_ms: int) -> str:
    """``2026-11-22 12:00:00 UTC``; past the year 9999 the number."""
    try:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=timestamp_ms)
    except OverflowError:
        return f"{timestamp_ms} ms"
    return f"{moment.isoformat(' ', 'seconds').removesuffix('+00:00')} UTC"


def summary_of(plan: RetentionPlan) -> str:
    """What a plan does, in half a line; for logs of what was done, and for tables."""
    if not plan.changes_anything:
        return "nothing goes"
    parts = []
    for reason, decisions in groupby(plan.going, key=lambda decision: decision.reason):
        group = list(decisions)
        parts.append(f"{_segments(len(group))} of {format_bytes(sum(one.segment.size_bytes for one in group))} by {reason}")
    if plan.start_reason:
        covered = max([plan.facts.log_start_offset, *(decision.segment.end_offset for decision in plan.going)])
        parts.append(f"{_records(plan.log_start_offset - covered)} by {plan.start_reason}")
    return ", ".join(parts) + f"; the log then starts at offset {plan.log_start_offset}"


def explain_retention(plan: RetentionPlan, now_ms: int) -> list[str]:
    """Why each part of a log goes or stays, and when or under what that changes; a sentence an item.

    Parameters
    ----------
    plan : RetentionPlan
    now_ms : int
    """
    facts, policy = plan.facts, plan.policy
    sentences = [
        f"It holds offsets {facts.log_start_offset} to {facts.log_end_offset} in {_segments(len(facts.segments))}, "
        f"{format_bytes(facts.size_bytes)} together.",
        _policy_sentence(policy),
    ]
    sentences += _what_goes(plan)
    stays = plan.first_that_stays
    if stays is not None and stays.reason not in ("cleanup.policy", NO_LIMIT):
        sentences.append(_why_the_first_stays(plan, policy, now_ms))
        sentences += _what_it_shields(plan, policy)
    sentences += [_future_sentence(segment, policy, now_ms) for segment in plan.future_segments]
    return sentences


def _policy_sentence(policy: RetentionPolicy) -> str:
    if not policy.deletes:
        return "cleanup.policy is compact, so retention deletes nothing; compaction keeps the last record of each key."
    limits = []
    if policy.retention_ms >= 0:
        limits.append(f"older than retention.ms = {format_ms(policy.retention_ms)}")
    if policy.retention_bytes >= 0:
        limits.append(f"beyond the newest retention.bytes = {format_bytes(policy.retention_bytes)}")
    if policy.retention_records >= 0:
        limits.append(f"before the last logstore.retention.records = {policy.retention_records:,}")
    if policy.expiry_header:
        limits.append(f"whose every record, and all before, has expired by its header {policy.expiry_header!r}")
    if policy.disk_free_percent > 0:
        limits.append(
            "that keep the disk from having logstore.retention.disk.free.percent = "
            f"{policy.disk_free_percent:g} % free (sealed ones, the oldest of all topics first)"
        )
    if not limits:
        return "No setting limits what it keeps: retention.ms and retention.bytes are -1, so nothing is ever deleted."
    sentence = f"Segments go that are {' or '.join(limits)}."
    if policy.groups:
        caps = []
        if policy.groups_max_bytes >= 0:
            caps.append(f"while the partition is within {format_bytes(policy.groups_max_bytes)}")
        if policy.groups_max_ms >= 0:
            caps.append(f"up to an age of {format_ms(policy.groups_max_ms)}")
        sentence += (
            f" What {_names(policy.groups)} {'has' if len(policy.groups) == 1 else 'have'} not read is held"
            f"{' ' + ' and '.join(caps) if caps else ', without limit'}."
        )
    return sentence


def _what_goes(plan: RetentionPlan) -> list[str]:
    sentences = []
    for reason, decisions in groupby(plan.going, key=lambda decision: decision.reason):
        group = [decision.segment for decision in decisions]
        size = format_bytes(sum(segment.size_bytes for segment in group))
        why = "it lies below the log start offset" if reason == BEFORE_START else f"because of {reason}"
        sentences.append(
            f"{_segments(len(group)).capitalize()} with offsets {group[0].base_offset} to {group[-1].end_offset} "
            f"({size}) {'goes' if len(group) == 1 else 'go'} at the next check, {why}."
        )
    if plan.rolls_active:
        sentences.append("The active segment is among them: a fresh one is started first, and offsets go on from there.")
    if plan.start_reason:
        sentences.append(
            f"The log then starts at offset {plan.log_start_offset}, inside a segment, because of {plan.start_reason}; the "
            "bytes before go with the rest of that segment."
        )
    return sentences


def _why_the_first_stays(plan: RetentionPlan, policy: RetentionPolicy, now_ms: int) -> str:
    decision = plan.first_that_stays
    assert decision is not None
    segment = decision.segment
    what = f"The segment at offset {segment.base_offset}"
    if plan.going_count == 0 and len(plan.decisions) > 1:
        what = f"The oldest segment (offsets {segment.base_offset} to {segment.end_offset})"
    reason = decision.reason
    if reason == ACTIVE:
        return f"{what} is the active one and empty, so it stays."
    if reason == "logstore.retention.groups":
        return _held_sentence(what, plan, policy, segment)
    limits = []
    if policy.retention_ms >= 0 and decision.due_ms is not None:
        timestamp = policy.timestamp_of(segment)
        source = "its newest record" if timestamp == segment.max_timestamp else "its last write"
        limits.append(
            f"{source} is of {format_moment(timestamp)}, so it goes on {format_moment(decision.due_ms)}, "
            f"in {format_ms(max(decision.due_ms - now_ms, 0))}"
        )
    if plan.growth_bytes is not None:
        limits.append(f"it goes when the partition has grown by {format_bytes(plan.growth_bytes)}")
    if plan.growth_offsets is not None:
        limits.append(f"it goes after {_records(plan.growth_offsets)} more")
    if policy.expiry_header:
        expiry_ms = plan.facts.next_expiry_ms
        when = f"on {format_moment(expiry_ms)}" if expiry_ms >= 0 else "never, by its header"
        limits.append(f"the record at offset {plan.facts.expired_before} expires {when}")
    if policy.disk_free_percent > 0:
        limits.append("it goes when the disk has less free than it should, unless it is the active one then")
    return f"{what} stays: {'; or '.join(limits) or 'nothing limits it'}."


def _held_sentence(what: str, plan: RetentionPlan, policy: RetentionPolicy, segment: SegmentFacts) -> str:
    positions = []
    for group in plan.held_by_groups:
        offset = plan.facts.group_offsets.get(group)
        positions.append(
            f"{group} has committed no offset here" if offset is None else f"{group} is at offset {offset}"
        )
    sentence = (
        f"{what} would go, but is held for {_names(plan.held_by_groups)}: {', '.join(positions)}. "
        f"It goes when they have read up to offset {segment.end_offset}"
    )
    if policy.groups_max_ms >= 0:
        sentence += f", or on {format_moment(policy.timestamp_of(segment) + policy.groups_max_ms + 1)}"
    if policy.groups_max_bytes >= 0:
        sentence += f", or when the partition is larger than {format_bytes(policy.groups_max_bytes)}"
    if policy.groups_max_ms < 0 and policy.groups_max_bytes < 0:
        sentence += (
            "; if a group is gone for good, take it out of logstore.retention.groups, or limit it with "
            "logstore.retention.groups.max.ms or .max.bytes"
        )
    return sentence + "."


def _what_it_shields(plan: RetentionPlan, policy: RetentionPolicy) -> list[str]:
    if not plan.shielded_bytes:
        return []
    return [
        f"It shields {format_bytes(plan.shielded_bytes)} behind it that are older than retention.ms "
        f"({format_ms(policy.retention_ms)}): segments go in order, the oldest first."
    ]


def _future_sentence(segment: SegmentFacts, policy: RetentionPolicy, now_ms: int) -> str:
    timestamp = policy.timestamp_of(segment)
    return (
        f"The segment at offset {segment.base_offset} holds a record with the timestamp {format_moment(timestamp)}, "
        f"{format_ms(timestamp - now_ms)} in the future, and keeps itself and all behind it until "
        f"{format_moment(timestamp + policy.retention_ms + 1)}. Set logstore.retention.cap.timestamps=true to count its age "
        f"from its last write ({format_moment(segment.modified_ms)}), or trim the topic; message.timestamp.after.max.ms "
        "keeps such records out."
    )


def _segments(count: int) -> str:
    return "1 segment" if count == 1 else f"{count:,} segments"


def _records(count: int) -> str:
    return "1 record" if count == 1 else f"{count:,} records"


def _names(names: tuple[str, ...]) -> str:
    kind = "group" if len(names) == 1 else "groups"
    return f"{kind} {', '.join(names)}"

