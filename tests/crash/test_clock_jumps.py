"""A clock that goes back, ahead, and back again while a log is written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from logstore.storage.config import TopicConfig
from logstore.storage.log import Log
from logstore.storage.retention import RetentionPolicy, retention_plan
from logstore.storage.segment_deletion import log_facts

NOW_MS = 1_700_000_000_000
DAY_MS = 86_400_000
JUMPS_MS = [0, -DAY_MS, DAY_MS, -400 * DAY_MS, 3_000 * DAY_MS, -3_000 * DAY_MS, 5, 0]
SETTINGS = TopicConfig(segment_bytes=1024, index_interval_bytes=100, retention_ms=7 * DAY_MS)


class Clock:
    def __init__(self) -> None:
        self.now_ms = NOW_MS

    def __call__(self) -> int:
        return self.now_ms


def filled(folder: Path, clock: Clock) -> tuple[Log, list[int]]:
    """Twelve records after each jump, more than a segment holds."""
    log = Log(folder / "t-0", SETTINGS, durability="appended", clock=clock)
    timestamps = []
    for jump in JUMPS_MS:
        clock.now_ms += jump
        for number in range(12):
            log.append(b"%d" % len(timestamps) + b"x" * 100)
            timestamps.append(clock.now_ms)
            clock.now_ms += number
    return log, timestamps


@pytest.mark.fault(33, "a clock that jumps, timestamps that lie")
def test_offsets_order_and_look_ups_stay_right(tmp_path: Path) -> None:
    clock = Clock()
    log, timestamps = filled(tmp_path, clock)
    for turn in range(2):
        found = [(record.offset, record.timestamp) for record in log.read()]
        assert found == list(enumerate(timestamps))
        assert len(log.segments) > 3
        for wanted in {*timestamps, min(timestamps) - 1, max(timestamps) + 1, NOW_MS + DAY_MS // 2}:
            # The first record that is not older, as a search of all of them finds it.
            expected = next((at for at, timestamp in enumerate(timestamps) if timestamp >= wanted), None)
            answer = log.offset_for_timestamp(wanted)
            assert (None if answer is None else answer.offset) == expected, wanted
            moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=wanted)
            first = next((record.offset for record in log.read(moment)), None)
            assert first == expected
        log.close()
        if turn == 0:
            log = Log(tmp_path / "t-0", SETTINGS, clock=clock)


@pytest.mark.fault(33, "a clock that jumps, timestamps that lie")
@pytest.mark.parametrize("jump_ms", [0, -30 * DAY_MS, -3_000 * DAY_MS])
def test_a_clock_that_goes_back_deletes_nothing(jump_ms: int, tmp_path: Path) -> None:
    clock = Clock()
    log = Log(tmp_path / "t-0", SETTINGS, durability="appended", clock=clock)
    for number in range(60):
        log.append(b"%d" % number + b"x" * 100)
    clock.now_ms += jump_ms
    plan = retention_plan(log_facts(log), RetentionPolicy.of(log.config), clock.now_ms)
    assert not plan.going_count
    log.apply_retention(plan, now_ms=clock.now_ms)
    assert len(list(log.read())) == 60
    log.close()


@pytest.mark.fault(33, "a clock that jumps, timestamps that lie")
def test_records_of_a_clock_that_ran_ahead_delay_deletion_of_no_older_segment(tmp_path: Path) -> None:
    """And however far ahead it is, the log goes on where it was."""
    clock = Clock()
    log, timestamps = filled(tmp_path, clock)
    clock.now_ms = NOW_MS + 20_000 * DAY_MS
    plan = retention_plan(log_facts(log), RetentionPolicy.of(log.config), clock.now_ms)
    log.apply_retention(plan, now_ms=clock.now_ms)
    assert log.log_start_offset == plan.log_start_offset
    assert log.log_end_offset == len(timestamps), "offsets are not used again"
    assert log.append(b"more") == len(timestamps)
    log.close()
    with Log(tmp_path / "t-0", SETTINGS, clock=clock) as log:
        assert log.log_end_offset == len(timestamps) + 1
        assert [record.offset for record in log.read()] == list(range(plan.log_start_offset, len(timestamps) + 1))
