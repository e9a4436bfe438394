"""Which segments of a log go, and why the others stay: a pure function from facts to a plan (log-format, section 6).

Applying a plan is separate (`logstore.storage.segment_deletion`), so that looking at one costs and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from logstore.storage.retention_facts import DiskFacts, LogFacts, RetentionPolicy, SegmentFacts

__all__ = [
    "DiskFacts",
    "LogFacts",
    "RetentionPlan",
    "RetentionPolicy",
    "SegmentDecision",
    "SegmentFacts",
    "bytes_for_the_disk",
    "disk_bytes_wanted",
    "plan_retention",
    "plan_up_to",
    "retention_plan",
]

# A clock may be a little ahead of ours; what is further in the future than this is named.
FUTURE_TOLERANCE_MS = 3_600_000

# Reasons that are no setting's name.
BEFORE_START = "log start offset"
ACTIVE = "active segment"
NO_LIMIT = "no limit"
BEHIND = "an older segment stays"


class SegmentDecision(NamedTuple):
    """What becomes of one segment.

    Attributes
    ----------
    segment : SegmentFacts
    goes : bool
    reason : str
        The setting because of which it goes or stays, or ``"log start offset"``, ``"active segment"`` (empty, so it stays),
        ``"no limit"`` (nothing would ever take it) or ``"an older segment stays"`` (it could go, but for that).
    due_ms : int or None
        When it goes by time if nothing else changes; None where time alone will not do it, or it goes now.
    """

    segment: SegmentFacts
    goes: bool
    reason: str
    due_ms: int | None = None


class RetentionPlan(NamedTuple):
    """What one round of retention does to one log.

    Attributes
    ----------
    topic : str
    partition : int
    facts : LogFacts
    policy : RetentionPolicy
        What it was made from.
    decisions : tuple[SegmentDecision, ...]
        One for each segment, in order; those that go come first.
    log_start_offset : int
        Where the log starts afterwards.
    start_reason : str
        The setting that has it start inside a segment; empty where it starts with one.
    rolls_active : bool
        Every segment goes: a fresh one is started first, since offsets are never used again.
    bytes_freed : int
        Of .log files.
    next_change_ms : int or None
        When the next segment is due by time.
    shielded_bytes : int
        Of segments older than ``retention.ms`` that an older segment before them keeps.
    future_segments : tuple[SegmentFacts, ...]
        Those whose largest timestamp lies more than an hour in the future: each keeps itself and all behind it until then.
    held_by_groups : tuple[str, ...]
        The groups that have yet to read the first segment that stays, where that is why it does.
    going_count : int
        How many segments go.
    """

    topic: str
    partition: int
    facts: LogFacts
    policy: RetentionPolicy
    decisions: tuple[SegmentDecision, ...]
    log_start_offset: int
    rolls_active: bool = False
    bytes_freed: int = 0
    next_change_ms: int | None = None
    shielded_bytes: int = 0
    future_segments: tuple[SegmentFacts, ...] = ()
    held_by_groups: tuple[str, ...] = ()
    going_count: int = 0
    start_reason: str = ""

    @property
    def going(self) -> tuple[SegmentDecision, ...]:
        """Decisions of the segments that go."""
        return self.decisions[: self.going_count]

    @property
    def first_that_stays(self) -> SegmentDecision | None:
        return self.decisions[self.going_count] if self.going_count < len(self.decisions) else None

    @property
    def growth_bytes(self) -> int | None:
        """By how much the log has to grow until ``retention.bytes`` takes the first segment that stays; None for never."""
        first = self.first_that_stays
        if not self.policy.deletes or self.policy.retention_bytes < 0 or first is None or not first.segment.size_bytes:
            return None
        left = self.facts.size_bytes - self.bytes_freed
        return max(self.policy.retention_bytes + first.segment.size_bytes - left, 0)

    @property
    def growth_offsets(self) -> int | None:
        """The same for ``logstore.retention.records``, in offsets."""
        first = self.first_that_stays
        if not self.policy.deletes or self.policy.retention_records < 0 or first is None:
            return None
        return max(self.policy.retention_records - (self.facts.log_end_offset - first.segment.end_offset), 0)

    @property
    def changes_anything(self) -> bool:
        return self.log_start_offset != self.facts.log_start_offset or self.going_count > 0

    @property
    def offsets_freed(self) -> int:
        """By how much the log start offset rises: as many records, where compaction has left no gaps."""
        return self.log_start_offset - self.facts.log_start_offset


def held_offset(facts: LogFacts, policy: RetentionPolicy, now_ms: int) -> int:
    """The first offset that is held for a group that has not read it; the log end offset where nothing is."""
    if not policy.groups:
        return facts.log_end_offset
    unread = min(facts.log_start_offset if (offset := facts.group_offsets.get(group)) is None else offset
                 for group in policy.groups)
    unread = max(unread, facts.log_start_offset)
    left_bytes = facts.size_bytes
    for segment in facts.segments:
        is_over = (policy.groups_max_bytes >= 0 and left_bytes > policy.groups_max_bytes) or (
            policy.groups_max_ms >= 0 and now_ms - policy.timestamp_of(segment) > policy.groups_max_ms
        )
        if segment.end_offset > unread and not is_over:
            return max(unread, segment.base_offset)
        left_bytes -= segment.size_bytes
    return facts.log_end_offset


def retention_plan(
    facts: LogFacts, policy: RetentionPolicy, now_ms: int, *, bytes_wanted: int = 0
) -> RetentionPlan:
    """What goes from one log now, and why the rest stays.

    Parameters
    ----------
    facts : LogFacts
    policy : RetentionPolicy
    now_ms : int
    bytes_wanted : int
        To free on the disk beyond what the other settings free; see `disk_bytes_wanted`. Sealed segments alone go for it.

    Returns
    -------
    RetentionPlan

    Notes
    -----
    Walks from the oldest segment and stops at the first that may not go, as Kafka does. The newest data are safe from a
    setting that asks for less than a segment: ``retention.bytes`` keeps at least so much. An empty active segment stays.
    """
    segments = facts.segments
    last = len(segments) - 1
    held_from = held_offset(facts, policy, now_ms)
    records_target = -1
    if policy.deletes and policy.retention_records >= 0:
        records_target = facts.log_end_offset - policy.retention_records
    expiry_target = facts.expired_before if policy.deletes and policy.expiry_header else -1
    excess = facts.size_bytes - policy.retention_bytes
    timestamp_of = policy.timestamp_of
    freed = 0
    decisions: list[SegmentDecision] = []
    stay = NO_LIMIT
    for index, segment in enumerate(segments):
        size = segment.size_bytes
        if index < last and segment.end_offset <= facts.log_start_offset:
            reason = BEFORE_START
        elif not policy.deletes:
            stay = "cleanup.policy"
            break
        elif index == last and size == 0:
            stay = ACTIVE
            break
        elif policy.retention_bytes >= 0 and excess - size >= 0:
            reason = "retention.bytes"
        elif 0 <= policy.retention_ms < now_ms - timestamp_of(segment):
            reason = "retention.ms"
        elif segment.end_offset <= records_target:
            reason = "logstore.retention.records"
        elif segment.end_offset <= expiry_target:
            reason = "logstore.expiry.header"
        elif freed < bytes_wanted and index < last:
            reason = "logstore.retention.disk.free.percent"
        else:
            stay = _why_it_stays(policy)
            break
        if reason != BEFORE_START:
            if segment.end_offset > held_from:
                stay = "logstore.retention.groups"
                break
            # What was below the log start offset is no part of what the disk was promised.
            freed += size
        excess -= size
        decisions.append(SegmentDecision(segment, True, reason))
    going = len(decisions)
    bytes_freed = sum(decision.segment.size_bytes for decision in decisions)
    start = max(facts.log_start_offset, segments[going - 1].end_offset if going else 0)
    start_reason = ""
    inside = min(max(records_target, expiry_target), held_from)
    if inside > start:
        start = inside
        start_reason = "logstore.retention.records" if records_target >= expiry_target else "logstore.expiry.header"
    next_change_ms, shielded_bytes = _judge_the_rest(facts, policy, now_ms, going, stay, held_from, decisions)
    if policy.expiry_header and facts.next_expiry_ms > now_ms and start == facts.expired_before < held_from:
        next_change_ms = min(facts.next_expiry_ms, next_change_ms or facts.next_expiry_ms)
    future: list[SegmentFacts] = []
    if policy.deletes and policy.retention_ms >= 0:
        limit = now_ms + FUTURE_TOLERANCE_MS
        future = [segment for segment in segments[going:] if timestamp_of(segment) > limit]
    return RetentionPlan(
        facts.topic, facts.partition, facts, policy, tuple(decisions), start,
        rolls_active=going > last >= 0,
        bytes_freed=bytes_freed,
        next_change_ms=next_change_ms,
        shielded_bytes=shielded_bytes,
        future_segments=tuple(future),
        held_by_groups=_holding_groups(facts, policy, segments[going]) if stay == "logstore.retention.groups" else (),
        going_count=going,
        start_reason=start_reason,
    )


def bytes_for_the_disk(plan: RetentionPlan) -> int:
    """The ``bytes_wanted`` that a plan was made with, as far as it got; 0 where the disk took nothing."""
    freed = wanted = 0
    for decision in plan.going:
        if decision.reason != BEFORE_START:
            freed += decision.segment.size_bytes
        if decision.reason == "logstore.retention.disk.free.percent":
            wanted = freed
    return wanted


def plan_up_to(plan: RetentionPlan, offset: int) -> RetentionPlan:
    """A plan that moves the log start offset no further than to an offset.

    Parameters
    ----------
    plan : RetentionPlan
    offset : int
        Below the plan's own log start offset.
    """
    going = [decision for decision in plan.going if decision.segment.end_offset <= offset]
    rest = [decision._replace(goes=False) for decision in plan.decisions[len(going) :]]
    return plan._replace(
        decisions=(*going, *rest),
        log_start_offset=max(offset, plan.facts.log_start_offset),
        rolls_active=plan.rolls_active and len(going) == len(plan.facts.segments),
        bytes_freed=sum(decision.segment.size_bytes for decision in going),
        going_count=len(going),
        start_reason=plan.start_reason if offset > (going[-1].segment.end_offset if going else 0) else "",
    )


def _why_it_stays(policy: RetentionPolicy) -> str:
    """The setting that would take the segment one day, and does not yet."""
    if policy.retention_ms >= 0:
        return "retention.ms"
    if policy.retention_bytes >= 0:
        return "retention.bytes"
    if policy.retention_records >= 0:
        return "logstore.retention.records"
    if policy.expiry_header:
        return "logstore.expiry.header"
    return "logstore.retention.disk.free.percent" if policy.disk_free_percent > 0 else NO_LIMIT


def _judge_the_rest(
    facts: LogFacts, policy: RetentionPolicy, now_ms: int, going: int, stay: str, held_from: int,
    decisions: list[SegmentDecision],
) -> tuple[int | None, int]:
    """Adds decisions for the segments that stay; the first one's due time, and bytes that it shields."""
    segments = facts.segments
    last = len(segments) - 1
    by_time = policy.deletes and policy.retention_ms >= 0
    due_ms = 0
    is_timed = by_time
    shielded_bytes = 0
    own = _why_it_stays(policy) if policy.deletes else "cleanup.policy"
    next_change_ms: int | None = None
    for index in range(going, len(segments)):
        segment = segments[index]
        reason = stay if index == going else own
        if index == last and segment.size_bytes == 0:
            decisions.append(SegmentDecision(segment, False, ACTIVE if policy.deletes else reason))
            continue
        if by_time:
            timestamp = policy.timestamp_of(segment)
            expires_ms = timestamp + policy.retention_ms + 1
            is_held = segment.end_offset > held_from
            if index > going and expires_ms <= now_ms:
                reason = "logstore.retention.groups" if is_held else BEHIND
                shielded_bytes += 0 if is_held else segment.size_bytes
            if is_held and policy.groups_max_ms < 0:
                is_timed = False
            elif is_held:
                expires_ms = max(expires_ms, timestamp + policy.groups_max_ms + 1)
            due_ms = max(due_ms, expires_ms)
        decisions.append(SegmentDecision(segment, False, reason, due_ms if is_timed else None))
        if index == going and is_timed:
            next_change_ms = due_ms
    return next_change_ms, shielded_bytes


def _holding_groups(facts: LogFacts, policy: RetentionPolicy, segment: SegmentFacts) -> tuple[str, ...]:
    return tuple(
        group for group in policy.groups
        if (offset := facts.group_offsets.get(group)) is None or offset < segment.end_offset
    )


def disk_bytes_wanted(disk: DiskFacts, percent: float) -> int:
    """How much is to be freed so that this share of a disk is free; 0 where it is."""
    if percent <= 0:
        return 0
    return max(int(disk.total_bytes * percent / 100) - disk.free_bytes - disk.pending_bytes, 0)


def plan_retention(
    logs: Iterable[tuple[LogFacts, RetentionPolicy]], now_ms: int, disk: DiskFacts | None = None
) -> list[RetentionPlan]:
    """Plans for all logs of a disk, so that what ``logstore.retention.disk.free.percent`` asks for is freed once.

    Parameters
    ----------
    logs : iterable of (LogFacts, RetentionPolicy)
    now_ms : int
    disk : DiskFacts, optional
        Without, that setting does nothing.

    Returns
    -------
    list[RetentionPlan]
        In the order given. For the disk, the oldest segments go first, whichever log they are in.
    """
    pairs = list(logs)
    plans = [retention_plan(facts, policy, now_ms) for facts, policy in pairs]
    if disk is None:
        return plans
    asking = [at for at, (_, policy) in enumerate(pairs) if policy.deletes and policy.disk_free_percent > 0]
    if not asking:
        return plans
    import heapq

    freed = sum(plan.bytes_freed for plan in plans)
    extra = dict.fromkeys(asking, 0)
    held_from = {at: held_offset(*pairs[at], now_ms) for at in asking}
    oldest: list[tuple[int, int, int]] = []

    def offer(at: int, index: int) -> None:
        segments = pairs[at][0].segments
        if index < len(segments) - 1:
            heapq.heappush(oldest, (pairs[at][1].timestamp_of(segments[index]), at, index))

    for at in asking:
        offer(at, plans[at].going_count)
    while oldest:
        _, at, index = heapq.heappop(oldest)
        facts, policy = pairs[at]
        segment = facts.segments[index]
        if freed >= disk_bytes_wanted(disk, policy.disk_free_percent):
            continue
        if segment.end_offset > held_from[at]:
            continue
        freed += segment.size_bytes
        extra[at] = index + 1
        offer(at, index + 1)
    for at in asking:
        if extra[at]:
            facts, policy = pairs[at]
            # All that goes from this log, so that the walk gets as far as was decided, and no further.
            wanted = sum(
                segment.size_bytes for segment in facts.segments[: extra[at]]
                if segment.end_offset > facts.log_start_offset
            )
            plans[at] = retention_plan(facts, policy, now_ms, bytes_wanted=wanted)
    return plans
