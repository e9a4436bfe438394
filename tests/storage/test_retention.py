"""The pure plan: Kafka's rules, ours, and what no plan may do."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logstore.errors import InvalidConfigError
from logstore.storage.config import TopicConfig
from logstore.storage.retention import (
    DiskFacts,
    LogFacts,
    RetentionPlan,
    RetentionPolicy,
    SegmentFacts,
    plan_retention,
    plan_up_to,
    retention_plan,
)

NOW_MS = 1_800_000_000_000
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


def facts_of(*segments: tuple[int, int], start: int = 0, groups: dict | None = None, partition: int = 0) -> LogFacts:
    """Segments as ``(size_bytes, age_ms)``, ten offsets each; one of no bytes has no offsets."""
    found = []
    offset = 0
    for size_bytes, age_ms in segments:
        end = offset + (10 if size_bytes else 0)
        found.append(SegmentFacts(offset, end, size_bytes, NOW_MS - age_ms if size_bytes else -1, NOW_MS))
        offset = end
    return LogFacts("orders", partition, start, offset, tuple(found), groups or {})


def reasons(plan: RetentionPlan) -> list[str]:
    return [decision.reason for decision in plan.going]


# ---- Kafka's rules ---------------------------------------------------------------------------------


def test_time_takes_the_oldest_and_stops_at_the_first_that_is_young():
    plan = retention_plan(
        facts_of((100, 9 * DAY_MS), (100, 8 * DAY_MS), (100, DAY_MS), (100, 9 * DAY_MS), (100, 0)),
        RetentionPolicy(retention_ms=7 * DAY_MS), NOW_MS,
    )  # fmt: skip
    assert reasons(plan) == ["retention.ms", "retention.ms"]
    assert (plan.log_start_offset, plan.bytes_freed, plan.offsets_freed) == (20, 200, 20)
    stays = plan.decisions[2:]
    assert [decision.reason for decision in stays] == ["retention.ms", "an older segment stays", "retention.ms"]
    assert plan.shielded_bytes == 100
    assert plan.next_change_ms == NOW_MS + 6 * DAY_MS + 1
    assert [decision.due_ms for decision in stays] == [NOW_MS + 6 * DAY_MS + 1] * 2 + [NOW_MS + 7 * DAY_MS + 1]


def test_exactly_retention_ms_old_stays():
    policy = RetentionPolicy(retention_ms=DAY_MS)
    assert not retention_plan(facts_of((100, DAY_MS), (1, 0)), policy, NOW_MS).changes_anything
    assert retention_plan(facts_of((100, DAY_MS), (1, 0)), policy, NOW_MS + 1).going_count == 1


def test_size_keeps_at_least_what_it_says():
    for kept, going in [(300, 0), (250, 0), (200, 1), (150, 1), (100, 2), (1, 2), (0, 3)]:
        plan = retention_plan(facts_of((100, 0), (100, 0), (100, 0)), RetentionPolicy(retention_bytes=kept), NOW_MS)
        assert plan.going_count == going, kept
        assert set(reasons(plan)) <= {"retention.bytes"}
        assert plan.rolls_active is (going == 3)


def test_the_active_segment_goes_when_all_of_it_is_old_after_a_roll():
    plan = retention_plan(facts_of((100, 9 * DAY_MS), (100, 8 * DAY_MS)), RetentionPolicy(retention_ms=7 * DAY_MS), NOW_MS)
    assert plan.rolls_active
    assert plan.log_start_offset == plan.facts.log_end_offset == 20
    assert plan.first_that_stays is None


def test_an_empty_active_segment_stays():
    plan = retention_plan(facts_of((100, 9 * DAY_MS), (0, 0)), RetentionPolicy(retention_ms=0, retention_bytes=0), NOW_MS)
    assert plan.going_count == 1
    assert not plan.rolls_active
    assert plan.first_that_stays.reason == "active segment"


def test_a_segment_without_timestamps_is_as_old_as_its_file():
    old = SegmentFacts(0, 10, 100, -1, NOW_MS - 8 * DAY_MS)
    facts = LogFacts("orders", 0, 0, 11, (old, SegmentFacts(10, 11, 1, NOW_MS, NOW_MS)))
    assert retention_plan(facts, RetentionPolicy(retention_ms=7 * DAY_MS), NOW_MS).going_count == 1
    assert retention_plan(facts, RetentionPolicy(retention_ms=9 * DAY_MS), NOW_MS).going_count == 0


@pytest.mark.parametrize("deletes", [True, False])
def test_what_lies_below_the_log_start_goes_whatever_the_policy(deletes):
    plan = retention_plan(facts_of((100, 0), (100, 0), (100, 0), start=15), RetentionPolicy(deletes), NOW_MS)
    assert reasons(plan) == ["log start offset"]
    assert plan.log_start_offset == 15


def test_a_compacted_topic_keeps_everything_else():
    policy = RetentionPolicy.of(TopicConfig(cleanup_policy="compact", retention_ms=1))
    plan = retention_plan(facts_of((100, DAY_MS), (100, DAY_MS)), policy, NOW_MS)
    assert not plan.changes_anything
    assert {decision.reason for decision in plan.decisions} == {"cleanup.policy"}
    both = RetentionPolicy.of(TopicConfig(cleanup_policy="compact,delete", retention_ms=1))
    assert retention_plan(facts_of((100, DAY_MS), (100, DAY_MS)), both, NOW_MS).going_count == 2


# ---- a timestamp in the future -----------------------------------------------------------------------


@pytest.mark.fault(33, "a clock that jumps, timestamps that lie")
def test_a_far_future_timestamp_is_named_and_what_it_shields():
    facts = facts_of((100, -40 * DAY_MS), (100, 9 * DAY_MS), (100, 0))
    plan = retention_plan(facts, RetentionPolicy(retention_ms=7 * DAY_MS), NOW_MS)
    assert plan.going_count == 0
    assert plan.future_segments == (facts.segments[0],)
    assert plan.shielded_bytes == 100
    assert plan.next_change_ms == NOW_MS + 47 * DAY_MS + 1


def test_it_is_named_before_it_is_the_oldest():
    facts = facts_of((100, DAY_MS), (100, -40 * DAY_MS), (100, 0))
    assert retention_plan(facts, RetentionPolicy(retention_ms=7 * DAY_MS), NOW_MS).future_segments == (facts.segments[1],)


def test_a_clock_a_little_ahead_is_not_named():
    facts = facts_of((100, -60_000), (100, 0))
    assert retention_plan(facts, RetentionPolicy(retention_ms=7 * DAY_MS), NOW_MS).future_segments == ()


def test_capped_timestamps_count_as_the_last_write():
    facts = facts_of((100, -40 * DAY_MS), (100, 0))
    aged = facts._replace(segments=(facts.segments[0]._replace(modified_ms=NOW_MS - 8 * DAY_MS), facts.segments[1]))
    policy = RetentionPolicy(retention_ms=7 * DAY_MS, cap_timestamps=True)
    plan = retention_plan(aged, policy, NOW_MS)
    assert reasons(plan) == ["retention.ms"]
    assert plan.future_segments == ()
    # It never makes a segment older than its timestamps say.
    old_file = facts_of((100, DAY_MS), (100, 0))
    touched = old_file._replace(segments=(old_file.segments[0]._replace(modified_ms=NOW_MS), old_file.segments[1]))
    assert retention_plan(touched, policy, NOW_MS).decisions[0].due_ms == NOW_MS + 6 * DAY_MS + 1


# ---- ours ---------------------------------------------------------------------------------------------


def test_records_are_kept_exactly():
    for kept, start, going in [(30, 0, 0), (25, 5, 0), (20, 10, 1), (11, 19, 1), (10, 20, 2), (0, 30, 3)]:
        plan = retention_plan(facts_of((100, 0), (100, 0), (100, 0)), RetentionPolicy(retention_records=kept), NOW_MS)
        assert (plan.log_start_offset, plan.going_count) == (start, going), kept
        assert set(reasons(plan)) <= {"logstore.retention.records"}


def test_groups_hold_what_they_have_not_read():
    policy = RetentionPolicy(retention_ms=DAY_MS, groups=("billing", "audit"))
    segments = [(100, 5 * DAY_MS), (100, 4 * DAY_MS), (100, 3 * DAY_MS), (100, 0)]
    for offsets, going in [
        ({"billing": 40, "audit": 40}, 3),
        ({"billing": 40, "audit": 20}, 2),
        ({"billing": 19, "audit": 40}, 1),
        ({"billing": 40, "audit": None}, 0),
        ({"billing": 40}, 0),
    ]:
        plan = retention_plan(facts_of(*segments, groups=offsets), policy, NOW_MS)
        assert plan.going_count == going, offsets
    assert plan.first_that_stays.reason == "logstore.retention.groups"
    assert plan.held_by_groups == ("audit",)
    assert plan.next_change_ms is None  # time alone does not do it


def test_groups_hold_up_to_an_age():
    policy = RetentionPolicy(retention_ms=DAY_MS, groups=("billing",), groups_max_ms=4 * DAY_MS)
    plan = retention_plan(facts_of((100, 5 * DAY_MS), (100, 3 * DAY_MS), (100, 0)), policy, NOW_MS)
    assert plan.going_count == 1
    assert plan.next_change_ms == NOW_MS + DAY_MS + 1


def test_groups_hold_up_to_a_size():
    policy = RetentionPolicy(retention_bytes=0, groups=("billing",), groups_max_bytes=250)
    plan = retention_plan(facts_of((100, 0), (100, 0), (100, 0), (0, 0)), policy, NOW_MS)
    assert plan.going_count == 1


def test_groups_hold_records_too():
    policy = RetentionPolicy(retention_records=5, groups=("billing",))
    plan = retention_plan(facts_of((100, 0), (100, 0), groups={"billing": 13}), policy, NOW_MS)
    assert (plan.log_start_offset, plan.going_count) == (13, 1)


def test_the_disk_takes_the_oldest_sealed_segments_of_all_logs():
    policy = RetentionPolicy(disk_free_percent=20)
    first = facts_of((100, 9 * DAY_MS), (100, 7 * DAY_MS), (100, 0))
    second = facts_of((100, 8 * DAY_MS), (100, 6 * DAY_MS), (100, 0), partition=1)
    other = (facts_of((100, 99 * DAY_MS), (100, 0), partition=2), RetentionPolicy())
    pairs = [(first, policy), other, (second, policy)]
    for free, going in [
        (200, (0, 0)), (199, (1, 0)), (100, (1, 0)), (99, (1, 1)), (0, (1, 1)), (-100, (2, 1)), (-9999, (2, 2)),
    ]:  # fmt: skip
        plans = plan_retention(pairs, NOW_MS, DiskFacts(1000, free))
        assert (plans[0].going_count, plans[2].going_count) == going, free
        assert plans[1].going_count == 0
    assert set(reasons(plans[0])) == {"logstore.retention.disk.free.percent"}
    pending = plan_retention(pairs, NOW_MS, DiskFacts(1000, 100, pending_bytes=100))
    assert not any(plan.changes_anything for plan in pending)


def test_what_other_settings_free_counts_for_the_disk():
    policy = RetentionPolicy(retention_ms=5 * DAY_MS, disk_free_percent=10)
    plans = plan_retention([(facts_of((100, 9 * DAY_MS), (100, 1), (100, 0)), policy)], NOW_MS, DiskFacts(1000, 0))
    assert reasons(plans[0]) == ["retention.ms"]
    plans = plan_retention([(facts_of((100, 9 * DAY_MS), (100, 1), (100, 0)), policy)], NOW_MS, DiskFacts(1000, -50))
    assert reasons(plans[0]) == ["retention.ms", "logstore.retention.disk.free.percent"]


@pytest.mark.parametrize("value", [-1, 100, "full", True])
def test_wrong_percent(value):
    with pytest.raises(InvalidConfigError):
        TopicConfig({"logstore.retention.disk.free.percent": value})


def test_policy_from_settings():
    config = TopicConfig(
        {"logstore.retention.groups": " billing, audit,billing ", "logstore.retention.disk.free.percent": "12.5%",
         "logstore.retention.groups.max.ms": "30d"}
    )  # fmt: skip
    policy = RetentionPolicy.of(config)
    assert policy.groups == ("billing", "audit")
    assert policy.disk_free_percent == 12.5
    assert policy.groups_max_ms == 30 * DAY_MS


# ---- for any log and any policy ------------------------------------------------------------------------

AGES = st.integers(-3 * DAY_MS, 10 * DAY_MS)
SIZES = st.integers(1, 300)


@st.composite
def any_facts(draw) -> LogFacts:
    segments = []
    offset = draw(st.integers(0, 5))
    first = offset
    count = draw(st.integers(1, 6))
    for index in range(count):
        empty = index == count - 1 and draw(st.booleans())
        end = offset + (0 if empty else draw(st.integers(1, 10)))
        timestamp = -1 if empty or draw(st.integers(0, 9)) == 0 else NOW_MS - draw(AGES)
        segments.append(SegmentFacts(offset, end, 0 if empty else draw(SIZES), timestamp, NOW_MS - draw(AGES)))
        offset = end
    offsets = st.one_of(st.none(), st.integers(0, offset))
    start = draw(st.integers(first, offset))
    return LogFacts("orders", 0, start, offset, tuple(segments), {"a": draw(offsets), "b": draw(offsets)},
                    draw(st.integers(start, offset)), NOW_MS + draw(st.integers(-1, DAY_MS)))  # fmt: skip


LIMITS_MS = st.one_of(st.just(-1), st.integers(0, 10 * DAY_MS))
LIMITS_BYTES = st.one_of(st.just(-1), st.integers(0, 1500))
POLICIES = st.builds(
    RetentionPolicy, st.booleans(), LIMITS_MS, LIMITS_BYTES, st.one_of(st.just(-1), st.integers(0, 50)), st.just(0.0),
    st.sampled_from([(), ("a",), ("a", "b")]), LIMITS_BYTES, LIMITS_MS, st.booleans(), st.sampled_from(["", "expires"]),
)  # fmt: skip
WANTED = st.one_of(st.just(0), st.integers(0, 1500))


@given(any_facts(), POLICIES, WANTED)
def test_nothing_younger_or_more_protected_than_the_policy_allows_goes(facts, policy, wanted):
    plan = retention_plan(facts, policy, NOW_MS, bytes_wanted=wanted)
    segments = facts.segments
    assert [decision.segment for decision in plan.decisions] == list(segments)
    going = plan.going_count
    assert all(decision.goes == (index < going) for index, decision in enumerate(plan.decisions))
    assert facts.log_start_offset <= plan.log_start_offset <= facts.log_end_offset
    assert plan.bytes_freed == sum(segment.size_bytes for segment in segments[:going])
    left = facts.size_bytes
    freed = 0
    for index, decision in enumerate(plan.going):
        segment = decision.segment
        age_ms = NOW_MS - (segment.modified_ms if segment.max_timestamp < 0 else segment.max_timestamp)
        if policy.cap_timestamps and segment.max_timestamp >= 0:
            age_ms = NOW_MS - min(segment.modified_ms, segment.max_timestamp)
        if decision.reason == "log start offset":
            assert segment.end_offset <= facts.log_start_offset
        else:
            assert policy.deletes
            assert segment.size_bytes > 0 or index < len(segments) - 1
            assert {
                "retention.ms": lambda age=age_ms: age > policy.retention_ms >= 0,
                "retention.bytes": lambda size=segment.size_bytes, left=left: left - size >= policy.retention_bytes >= 0,
                "logstore.retention.records":
                    lambda end=segment.end_offset: facts.log_end_offset - end >= policy.retention_records >= 0,
                "logstore.expiry.header":
                    lambda end=segment.end_offset: policy.expiry_header and end <= facts.expired_before,
                "logstore.retention.disk.free.percent":
                    lambda at=index, freed=freed: freed < wanted and at < len(segments) - 1,
            }[decision.reason]()  # fmt: skip
            for group in policy.groups:
                offset = facts.group_offsets[group]
                # Below the start there is nothing left to read.
                has_read = max(facts.log_start_offset, offset or 0) >= segment.end_offset
                is_over = (policy.groups_max_bytes >= 0 and left > policy.groups_max_bytes) or (
                    policy.groups_max_ms >= 0 and age_ms > policy.groups_max_ms
                )
                assert has_read or is_over
            freed += segment.size_bytes
        left -= segment.size_bytes
    inside = [segment for segment in segments if segment.base_offset < plan.log_start_offset < segment.end_offset]
    assert bool(plan.start_reason) >= bool(plan.log_start_offset > facts.log_start_offset and inside)
    if plan.start_reason == "logstore.retention.records":
        assert facts.log_end_offset - plan.log_start_offset >= policy.retention_records >= 0
    elif plan.start_reason:
        assert policy.expiry_header
        assert plan.log_start_offset <= facts.expired_before
    assert plan.rolls_active == (going == len(segments))


@given(any_facts(), POLICIES, st.integers(0, 20 * DAY_MS))
def test_later_more_goes_never_less(facts, policy, later_ms):
    now = retention_plan(facts, policy, NOW_MS)
    later = retention_plan(facts, policy, NOW_MS + later_ms)
    assert later.going_count >= now.going_count
    assert later.log_start_offset >= now.log_start_offset


@given(any_facts(), POLICIES)
def test_due_times_are_when_the_plan_takes_the_segment(facts, policy):
    plan = retention_plan(facts, policy, NOW_MS)
    for decision in plan.decisions[plan.going_count :]:
        if decision.due_ms is None:
            continue
        assert decision.due_ms > NOW_MS
        at = plan.decisions.index(decision)
        assert retention_plan(facts, policy, decision.due_ms).going_count > at
    first = plan.first_that_stays
    only_time = policy._replace(retention_bytes=-1, retention_records=-1, groups_max_bytes=-1, expiry_header="")
    timed = retention_plan(facts, only_time, NOW_MS)
    if first is not None and timed.next_change_ms is not None:
        before = retention_plan(facts, only_time, timed.next_change_ms - 1)
        assert before.going_count == timed.going_count


@given(any_facts(), POLICIES)
def test_a_second_round_has_nothing_left_to_do(facts, policy):
    plan = retention_plan(facts, policy, NOW_MS)
    left = facts.segments[plan.going_count :] or (
        SegmentFacts(facts.log_end_offset, facts.log_end_offset, 0, -1, NOW_MS),
    )
    after = facts._replace(log_start_offset=plan.log_start_offset, segments=left)
    assert not retention_plan(after, policy, NOW_MS).changes_anything


@given(any_facts(), POLICIES, st.integers(0, 60))
def test_a_plan_cut_short_takes_no_more(facts, policy, offset):
    plan = retention_plan(facts, policy, NOW_MS)
    cut = plan_up_to(plan, min(offset, plan.log_start_offset))
    assert cut.going == plan.going[: cut.going_count]
    assert facts.log_start_offset <= cut.log_start_offset <= plan.log_start_offset
    assert all(decision.segment.end_offset <= cut.log_start_offset for decision in cut.going)


def test_ten_times_the_segments_do_not_take_a_hundred_times_as_long():
    policy = RetentionPolicy(retention_ms=5_000 * HOUR_MS, retention_bytes=8_000 << 20)
    seconds = {}
    for count in (1_000, 10_000):
        facts = facts_of(*[(1 << 20, (10_000 - index) * HOUR_MS) for index in range(count)])
        rounds = []
        for _ in range(5):
            began = time.process_time()
            plan = retention_plan(facts, policy, NOW_MS)
            rounds.append(time.process_time() - began)
        seconds[count] = min(rounds)
    assert plan.going_count == 5_000
    assert seconds[10_000] < 40 * seconds[1_000]
