"""What may be compacted, and when it is due: facts in, plan out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logstore.storage.compaction_plan import CompactionFacts, SegmentExtent, compaction_plan, group_segments
from logstore.storage.config import TopicConfig

NOW = 1_000_000


def facts(*sizes: int, **changes) -> CompactionFacts:
    """Segments of ten offsets each, ten seconds apart; the last one is active."""
    segments = [
        SegmentExtent(10 * i, 10 * i + 10, size, NOW - 10_000 * (len(sizes) - i), NOW - 10_000 * (len(sizes) - i) - 5_000)
        for i, size in enumerate(sizes)
    ]
    end = 10 * len(sizes)
    return CompactionFacts(segments, 0, end, end, end)._replace(**changes)


def plan(given_facts, **settings):
    return compaction_plan(given_facts, TopicConfig(cleanup_policy="compact", **settings), NOW)


def test_everything_but_the_active_segment_is_dirty_at_first():
    made = plan(facts(100, 200, 300))
    assert (made.first_dirty_offset, made.first_uncleanable_offset, made.held_back_by) == (0, 20, "active segment")
    assert (made.clean_bytes, made.cleanable_bytes, made.uncleanable_bytes) == (0, 300, 300)
    assert (made.dirty_ratio, made.is_due, made.reason) == (1.0, True, "min.cleanable.dirty.ratio")


def test_the_dirty_ratio_decides_and_a_tie_is_not_enough():
    tied = facts(100, 100, 1, cleaner_offset=10)
    assert plan(tied).dirty_ratio == 0.5
    assert not plan(tied).is_due
    assert plan(tied).reason == "min.cleanable.dirty.ratio"
    assert plan(tied, min_cleanable_dirty_ratio=0.49).is_due


def test_the_oldest_dirty_record_decides_by_max_compaction_lag():
    given_facts = facts(1000, 100, 1, cleaner_offset=10)
    oldest = given_facts.segments[1].first_timestamp
    lag = NOW - oldest
    assert not plan(given_facts, max_compaction_lag_ms=lag).is_due
    assert plan(given_facts, max_compaction_lag_ms=lag).due_at_ms == NOW
    due = plan(given_facts, max_compaction_lag_ms=lag - 1)
    assert (due.is_due, due.reason) == (True, "max.compaction.lag.ms")


def test_an_open_transaction_and_what_is_not_flushed_hold_it_back():
    assert plan(facts(1, 1, 1, last_stable_offset=7))[1:3] == (7, "open transaction")
    assert plan(facts(1, 1, 1, flushed_offset=13))[1:3] == (13, "flushed offset")
    assert plan(facts(1, 1, 1, flushed_offset=25, last_stable_offset=25))[1:3] == (20, "active segment")


def test_young_segments_hold_it_back_until_they_are_old_enough():
    made = plan(facts(1, 1, 1, 1), min_compaction_lag_ms=35_000)
    assert made[1:4] == (10, "min.compaction.lag.ms", NOW - 30_000 + 35_000)


def test_a_start_in_the_middle_of_what_is_held_back_makes_nothing_cleanable():
    made = plan(facts(100, 100, 1, log_start_offset=5), min_compaction_lag_ms=100_000)
    assert made[:2] == (5, 5)
    assert (made.cleanable_bytes, made.uncleanable_bytes, made.is_due, made.reason) == (0, 201, False, "nothing to compact")


def test_a_topic_that_is_not_compacted_is_never_due():
    made = compaction_plan(facts(1, 1, 1), TopicConfig(), NOW)
    assert (made.is_due, made.reason, made.due_at_ms) == (False, "cleanup.policy", -1)


def test_nothing_to_compact():
    assert plan(facts(100)).reason == "nothing to compact"
    assert plan(facts(100, 100, cleaner_offset=10)).reason == "nothing to compact"
    assert plan(facts(0, 100)).reason == "nothing to compact"


@given(
    sizes=st.lists(st.integers(0, 1000), min_size=1, max_size=8),
    cleaner=st.none() | st.integers(-5, 100),
    start=st.integers(0, 80),
    stable=st.integers(0, 80),
    flushed=st.integers(0, 80),
    lag_ms=st.integers(0, 100_000),
    later_ms=st.integers(0, 100_000),
)
def test_bounds_hold_for_any_facts(sizes, cleaner, start, stable, flushed, lag_ms, later_ms):
    end = 10 * len(sizes)
    given_facts = facts(
        *sizes, cleaner_offset=cleaner, log_start_offset=min(start, end), last_stable_offset=min(stable, end),
        flushed_offset=min(flushed, end),
    )
    config = TopicConfig(cleanup_policy="compact", min_compaction_lag_ms=lag_ms)
    made = compaction_plan(given_facts, config, NOW)
    assert given_facts.log_start_offset <= made.first_dirty_offset <= made.first_uncleanable_offset
    if made.first_uncleanable_offset > made.first_dirty_offset:
        assert made.first_uncleanable_offset <= min(
            given_facts.segments[-1].base_offset, given_facts.last_stable_offset, given_facts.flushed_offset
        )
        for segment in given_facts.segments:
            if made.first_dirty_offset < segment.end_offset <= made.first_uncleanable_offset and lag_ms:
                assert segment.max_timestamp <= NOW - lag_ms
    assert made.clean_bytes + made.cleanable_bytes + made.uncleanable_bytes == sum(sizes)
    later = compaction_plan(given_facts, config, NOW + later_ms)
    assert later.first_uncleanable_offset >= made.first_uncleanable_offset, "time only sets more free"


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([60, 40, 1], [[0, 1], [2]]),
        ([60, 41, 59], [[0], [1, 2]]),
        ([200, 1], [[0], [1]]),
        ([100, 0, 0, 1], [[0, 1, 2], [3]]),
        ([], []),
    ],
)
def test_neighbours_are_grouped_while_they_fit(sizes, expected):
    rows = [(10 * i, 10 * i + 10, size, 8, 12) for i, size in enumerate(sizes)]
    assert group_segments(rows, 100, 1000) == expected


def test_groups_keep_to_the_indexes_and_to_31_bits_of_offsets():
    assert group_segments([(0, 10, 1, 600, 1), (10, 20, 1, 600, 1)], 100, 1000) == [[0], [1]]
    assert group_segments([(0, 10, 1, 1, 600), (10, 20, 1, 1, 600)], 100, 1000) == [[0], [1]]
    assert group_segments([(0, 10, 1, 1, 1), (10, 2**31, 1, 1, 1)], 100, 1000) == [[0, 1]]
    assert group_segments([(0, 10, 1, 1, 1), (10, 2**31 + 1, 0, 1, 1)], 100, 1000) == [[0], [1]]
