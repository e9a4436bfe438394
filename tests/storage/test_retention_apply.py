"""Carrying a plan out: what goes is what was planned, durably, and readers are told."""

from __future__ import annotations

import os
import shutil
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from manual_scheduler import ManualScheduler

from logstore.errors import OffsetOutOfRangeError, ReadOnlyError
from logstore.storage import recovery, segment_deletion
from logstore.storage.config import TopicConfig
from logstore.storage.log import Log
from logstore.storage.retention import RetentionPolicy, retention_plan
from logstore.storage.segment_deletion import log_facts

NOW_MS = 1_700_000_000_000
SECOND_MS = 1000


def fill(log: Log, count: int = 40, first: int = 0) -> None:
    for number in range(first, first + count):
        log.append(b"%04d" % number + bytes(96), timestamp=NOW_MS + number * SECOND_MS)


def plan_of(log: Log, now_ms: int, **group_offsets: int):
    return retention_plan(log_facts(log, group_offsets), RetentionPolicy.of(log.config), now_ms)


def names(log: Log, pattern: str) -> list[str]:
    return sorted(name for name in os.listdir(log.path) if name.endswith(pattern))


def offsets(log: Log) -> list[int]:
    return [record.offset for record in log.read()]


@pytest.fixture
def clock():
    return lambda: NOW_MS + 60 * SECOND_MS


def test_the_plan_is_what_happens(open_log, clock):
    log = open_log(segment_bytes=1024, retention_ms=20 * SECOND_MS, clock=clock)
    fill(log)
    plan = plan_of(log, NOW_MS + 40 * SECOND_MS)
    assert 0 < plan.going_count < len(log.segments)
    size_before = log.size_bytes
    done = log.apply_retention(plan, now_ms=NOW_MS + 40 * SECOND_MS)
    assert done == plan
    assert log.log_start_offset == plan.log_start_offset
    assert offsets(log) == list(range(plan.log_start_offset, 40))
    assert size_before - log.size_bytes == plan.bytes_freed
    assert not plan_of(log, NOW_MS + 40 * SECOND_MS).changes_anything


def test_everything_goes_and_offsets_go_on(open_log, clock):
    log = open_log(segment_bytes=1024, retention_ms=1, clock=clock)
    fill(log)
    plan = plan_of(log, NOW_MS + 100 * SECOND_MS)
    assert plan.rolls_active
    assert log.apply_retention(plan, now_ms=NOW_MS + 100 * SECOND_MS) == plan
    assert (log.log_start_offset, log.log_end_offset, log.size_bytes) == (40, 40, 0)
    assert log.append(b"next", timestamp=NOW_MS) == 40
    log.close()
    again = open_log(segment_bytes=1024, clock=clock)
    assert offsets(again) == [40]
    assert not again.recovery_report.cut_bytes


def test_records_appended_after_the_plan_are_safe(open_log, clock):
    log = open_log(segment_bytes=1024, retention_ms=1, clock=clock)
    fill(log)
    now_ms = NOW_MS + 45 * SECOND_MS
    plan = plan_of(log, now_ms)
    assert plan.rolls_active
    log.append(b"young", timestamp=now_ms + 10 * SECOND_MS)
    done = log.apply_retention(plan, now_ms=now_ms)
    assert not done.rolls_active
    assert offsets(log)[-1] == 40
    assert done.going_count == plan.going_count - 1


def test_what_grows_after_the_plan_waits_for_the_next_one(open_log, clock):
    log = open_log(segment_bytes=1024, retention_bytes=2048, retention_ms=-1, clock=clock)
    fill(log)
    plan = plan_of(log, NOW_MS)
    fill(log, 40, 40)
    done = log.apply_retention(plan, now_ms=NOW_MS)
    assert done.log_start_offset == plan.log_start_offset == log.log_start_offset
    assert plan_of(log, NOW_MS).going_count > 0


def test_settings_changed_after_the_plan_count(open_log, clock):
    log = open_log(segment_bytes=1024, retention_ms=1, clock=clock)
    fill(log)
    plan = plan_of(log, NOW_MS + 50 * SECOND_MS)
    log.reconfigure(TopicConfig(segment_bytes=1024, retention_ms=-1))
    done = log.apply_retention(plan, now_ms=NOW_MS + 50 * SECOND_MS)
    assert not done.changes_anything
    assert len(offsets(log)) == 40


def test_a_group_that_went_back_after_the_plan_counts(open_log, clock):
    log = open_log(segment_bytes=1024, retention_ms=1, logstore_retention_groups="billing", clock=clock)
    fill(log)
    now_ms = NOW_MS + 50 * SECOND_MS
    plan = plan_of(log, now_ms, billing=40)
    assert plan.going_count
    done = log.apply_retention(plan, now_ms=now_ms, group_offsets=lambda: {"billing": 0})
    assert not done.changes_anything
    assert len(offsets(log)) == 40


def test_records_are_kept_exactly(open_log, clock):
    log = open_log(segment_bytes=1024, logstore_retention_records=13, retention_ms=-1, clock=clock)
    fill(log)
    log.apply_retention(plan_of(log, NOW_MS), now_ms=NOW_MS)
    assert offsets(log) == list(range(27, 40))
    log.close()
    assert offsets(open_log(segment_bytes=1024, clock=clock)) == list(range(27, 40))


def test_bytes_go_after_the_delay(open_log, clock):
    scheduler = ManualScheduler()
    log = open_log(segment_bytes=1024, retention_ms=1, file_delete_delay_ms=5000, clock=clock, scheduler=scheduler)
    fill(log)
    log.apply_retention(plan_of(log, NOW_MS + 50 * SECOND_MS), now_ms=NOW_MS + 50 * SECOND_MS)
    renamed = names(log, ".deleted")
    assert [name for name in renamed if name.endswith(".log.deleted")]
    pending = log._deleted_files.pending_bytes
    assert pending >= sum(os.path.getsize(os.path.join(log.path, name)) for name in renamed)
    scheduler.run(within_ms=4999)
    assert names(log, ".deleted") == renamed
    scheduler.run(within_ms=5000)
    assert names(log, ".deleted") == []
    assert log._deleted_files.pending_bytes == 0


def test_closing_frees_what_is_pending(open_log, clock):
    log = open_log(segment_bytes=1024, retention_ms=1, clock=clock)
    fill(log)
    log.apply_retention(plan_of(log, NOW_MS + 50 * SECOND_MS), now_ms=NOW_MS + 50 * SECOND_MS)
    assert names(log, ".deleted")
    log.close()
    assert names(log, ".deleted") == []


def test_after_mass_deletion_neither_closing_nor_opening_waits_for_all_files(open_log, clock, monkeypatch):
    log = open_log(segment_bytes=1024, retention_ms=1, clock=clock)
    fill(log)
    log.apply_retention(plan_of(log, NOW_MS + 50 * SECOND_MS), now_ms=NOW_MS + 50 * SECOND_MS)
    count = len(names(log, ".deleted"))
    monkeypatch.setattr(segment_deletion, "_UNLINKED_ON_CLOSE", 3)
    monkeypatch.setattr(recovery, "_DELETED_AT_ONCE", 2)
    kept = offsets(log)
    log.close()
    left = names(log, ".deleted")
    assert len(left) == count - 3 > 2
    with open_log(segment_bytes=1024, clock=clock, read_only=True) as reader:
        assert offsets(reader) == kept
    scheduler = ManualScheduler()
    again = open_log(segment_bytes=1024, clock=clock, scheduler=scheduler)
    assert names(again, ".deleted") == left[2:]
    assert again._deleted_files.pending_bytes > 0
    assert offsets(again) == kept
    scheduler.run(within_ms=0)
    assert names(again, ".deleted") == []
    assert offsets(again) == kept


def test_unlinking_in_the_background_ends_when_the_log_is_closed(open_log, clock, monkeypatch):
    scheduler = ManualScheduler()
    log = open_log(segment_bytes=1024, retention_ms=1, file_delete_delay_ms=5000, clock=clock, scheduler=scheduler)
    fill(log)
    log.apply_retention(plan_of(log, NOW_MS + 50 * SECOND_MS), now_ms=NOW_MS + 50 * SECOND_MS)
    count = len(names(log, ".deleted"))
    unlink = os.unlink

    def close_after_the_first(path):
        unlink(path)
        log.close()  # as from another thread

    monkeypatch.setattr(segment_deletion.os, "unlink", close_after_the_first)
    scheduler.run(within_ms=5000)
    assert not log.is_open
    assert len(names(log, ".deleted")) == count - 1


def test_what_a_crash_left_below_the_start_is_removed(open_log, clock, tmp_path):
    log = open_log(segment_bytes=1024, retention_ms=1, clock=clock, logstore_open_batch_mapped=False)
    fill(log)
    before = tmp_path / "before"
    shutil.copytree(log.path, before)
    log.advance_log_start_offset(25)
    crashed = tmp_path / "crashed"
    shutil.copytree(before, crashed / "orders-0")  # the names are as before, the checkpoint is the new one
    shutil.copy(os.path.join(log.path, "logstore.checkpoint"), crashed / "orders-0")
    with Log(crashed / "orders-0", TopicConfig(segment_bytes=1024)) as again:
        assert again.damage is None
        assert offsets(again) == list(range(25, 40))
        assert len(again.segments) == 1 or again.segments[1].base_offset > 25
        assert len(names(again, ".log")) == len(again.segments)


def test_readers_standing_in_deleted_data_are_told(open_log, clock):
    log = open_log(segment_bytes=1024, retention_ms=1, clock=clock)
    fill(log)
    standing, ahead = log.read(3), log.read(38)
    held = next(standing), next(ahead)
    log.advance_log_start_offset(30)
    with pytest.raises(OffsetOutOfRangeError) as caught:
        list(standing)
    assert caught.value.log_start_offset == 30
    assert [record.offset for record in ahead] == [39]
    log.close()
    assert [record.value[:4] for record in held] == [b"0003", b"0038"]


def test_a_cursor_that_looks_up_a_segment_just_deleted(open_log, clock):
    """It holds the old tuple of segments: the file is gone, and the offset with it."""
    log = open_log(segment_bytes=1024, clock=clock, logstore_open_batch_mapped=False)
    fill(log)
    log.close()
    log = open_log(segment_bytes=1024, clock=clock)  # sealed segments are opened when read
    segments = log.segments
    log.advance_log_start_offset(30)
    log._publish(segments=segments)
    with pytest.raises(OffsetOutOfRangeError):
        log.cursor(3).next_batch()
    assert log.cursor(30).next_batch().base_offset == 30
    assert log.offset_for_timestamp(NOW_MS + 31 * SECOND_MS).offset == 31
    log._publish(segments=tuple(segment for segment in segments if segment.next_offset > 30))


def test_the_disk_is_freed_as_planned(open_log, clock):
    log = open_log(segment_bytes=1024, retention_ms=-1, logstore_retention_disk_free_percent=10, clock=clock)
    fill(log)
    facts = log_facts(log)
    plan = retention_plan(facts, RetentionPolicy.of(log.config), NOW_MS, bytes_wanted=2000)
    assert 2000 <= plan.bytes_freed < 3100
    assert log.apply_retention(plan, now_ms=NOW_MS) == plan
    assert log.log_start_offset == plan.log_start_offset


def test_another_process_is_told(open_log, clock):
    log = open_log(segment_bytes=1024, clock=clock)
    fill(log)
    follower = open_log(segment_bytes=1024, read_only=True)
    at_the_start, in_the_middle = follower.read(0), follower.read(12)
    next(in_the_middle)
    log.advance_log_start_offset(30)
    log._deleted_files.unlink()
    with pytest.raises(OffsetOutOfRangeError) as caught:
        next(at_the_start)
    assert caught.value.log_start_offset == 30
    with pytest.raises(OffsetOutOfRangeError):
        list(in_the_middle)
    assert [record.offset for record in follower.read()] == list(range(30, 40))


def test_read_only_logs_refuse(open_log, clock):
    log = open_log(segment_bytes=1024, retention_ms=1, clock=clock)
    fill(log)
    follower = open_log(segment_bytes=1024, retention_ms=1, read_only=True)
    plan = plan_of(follower, NOW_MS + 50 * SECOND_MS)
    assert plan.going_count == plan_of(log, NOW_MS + 50 * SECOND_MS).going_count > 0
    with pytest.raises(ReadOnlyError):
        follower.apply_retention(plan, now_ms=NOW_MS + 50 * SECOND_MS)


@settings(max_examples=40, deadline=None)
@given(
    appends=st.lists(st.tuples(st.integers(1, 8), st.integers(-20, 20)), min_size=1, max_size=12),
    policy=st.fixed_dictionaries({}, optional={
        "retention.ms": st.integers(0, 60_000), "retention.bytes": st.integers(0, 5000),
        "logstore.retention.records": st.integers(0, 40), "logstore.retention.groups": st.just("a"),
    }),
    group=st.one_of(st.none(), st.integers(0, 60)),
    age=st.integers(0, 90),
)  # fmt: skip
def test_plan_and_outcome_agree_for_any_log(tmp_path_factory, appends, policy, group, age):
    folder = tmp_path_factory.mktemp("any")
    now_ms = NOW_MS + age * SECOND_MS
    config = TopicConfig({"segment.bytes": 1024, "retention.ms": -1, **policy})
    records = 0
    with Log(folder / "t-0", config, durability="appended", clock=lambda: NOW_MS) as log:
        for count, moved in appends:
            log.append_many([bytes(100)] * count, timestamps=[NOW_MS + moved * SECOND_MS] * count)
            records += count
        plan = plan_of(log, now_ms, a=group)
        kept_bytes = log.size_bytes - plan.bytes_freed
        done = log.apply_retention(plan, now_ms=now_ms)
        assert done == plan
        found = (log.log_start_offset, log.size_bytes, offsets(log))
        assert found == (plan.log_start_offset, kept_bytes, list(range(plan.log_start_offset, records)))
        assert not plan_of(log, now_ms, a=group).changes_anything
    with Log(folder / "t-0", config, durability="appended") as log:
        assert (log.log_start_offset, log.size_bytes, offsets(log)) == found
        assert not names(log, ".deleted")
    shutil.rmtree(folder)


def test_facts_of_many_segments_are_gathered_without_opening_them(open_log, clock):
    log = open_log(segment_bytes=1024, clock=clock)
    fill(log, 400)
    log.close()
    log = open_log(segment_bytes=1024, clock=clock)
    descriptors = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    facts = log_facts(log)
    if descriptors:
        assert len(os.listdir("/proc/self/fd")) == descriptors
    assert [segment.max_timestamp for segment in facts.segments] == [segment.max_timestamp for segment in log.segments]
    assert facts.size_bytes == log.size_bytes
    assert [segment.end_offset for segment in facts.segments[:-1]] == [segment.base_offset for segment in facts.segments[1:]]
    began = time.perf_counter()
    assert log_facts(log) == facts
    again = time.perf_counter() - began
    assert again < 0.05
