"""The first record at or after a time, by the time index and batches that are kept."""

from __future__ import annotations

import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from logstore._native.record_lookup import cache_bytes, set_cache_bytes_max
from logstore._native.timestamp_lookup import find_timestamp
from logstore.storage.config import TopicConfig
from logstore.storage.log import Log

BASE_MS = 1_700_000_000_000
ENTRY = struct.Struct(">qi")  # of a time index: timestamp, offset from the segment's base


def first_at_or_after(timestamps: list[int], timestamp: int, start_offset: int = 0) -> tuple[int, int] | None:
    return next(
        ((offset, found) for offset, found in enumerate(timestamps) if found >= timestamp and offset >= start_offset), None
    )


def check(log: Log, timestamps: list[int], start_offset: int = 0) -> int:
    """Asks for each time and those around it, and again; how many answers came without walking the segment."""
    wanted = sorted({near for timestamp in timestamps for near in (timestamp - 1, timestamp, timestamp + 1)})
    quick = 0
    for _ in range(2):
        for timestamp in wanted:
            expected = first_at_or_after(timestamps, timestamp, start_offset)
            assert log.offset_for_timestamp(timestamp) == expected, timestamp
            found = find_timestamp(log, timestamp)
            assert found is None or found == expected, timestamp
            quick += found is not None
    return quick


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(st.tuples(st.sampled_from([0, 0, 1, 3, -7]), st.integers(1, 400)), min_size=1, max_size=80),
    batch_bytes=st.sampled_from([300, 1000, 5000]),
    interval_bytes=st.sampled_from([0, 600, 4096]),
    segment_bytes=st.sampled_from([2000, 8000, 1 << 20]),
    calls=st.sampled_from([1, 3, 20]),
    start=st.integers(0, 40),
)
def test_answers_are_those_of_a_walk(tmp_path_factory, steps, batch_bytes, interval_bytes, segment_bytes, calls, start):
    path = tmp_path_factory.mktemp("log") / "t-0"
    config = TopicConfig(
        logstore_batch_bytes=batch_bytes, index_interval_bytes=interval_bytes, segment_bytes=segment_bytes,
    )  # fmt: skip
    timestamps = []
    now_ms = BASE_MS
    with Log(path, config, durability="appended") as log:
        for i in range(0, len(steps), calls):
            part = steps[i : i + calls]
            for step_ms, _ in part:
                now_ms += step_ms
                timestamps.append(now_ms)
            log.append_many([bytes(size) for _, size in part], timestamps=timestamps[i:])
        check(log, timestamps)
        log.advance_log_start_offset(min(start, len(timestamps)))
        check(log, timestamps, start)
    with Log(path, config, read_only=True) as log:
        check(log, timestamps, start)


def test_most_answers_come_from_kept_batches(open_log):
    log = open_log(logstore_batch_bytes=4096)
    timestamps = [BASE_MS + 10 * i for i in range(500)]
    log.append_many([b"x" * 100] * 500, timestamps=timestamps)
    before = cache_bytes()
    quick = check(log, timestamps)
    assert cache_bytes() > before
    assert quick > 2 * 1500 * 0.6  # not before the first entry, and not after the last record


@pytest.mark.parametrize("shift_ms", [-3000, -15, -1, 1, 15, 3000])
@pytest.mark.parametrize("shift_offset", [-1, 0, 1, 20])
def test_an_index_that_lies_is_found_out(open_log, tmp_path, shift_ms, shift_offset):
    """As far as a batch contradicts it: no entry is taken at its word."""
    settings = {"logstore_batch_bytes": 1000, "index_interval_bytes": 1000, "segment_bytes": 9000}
    timestamps = [BASE_MS + 10 * i for i in range(100)]
    log = open_log(**settings)
    log.append_many([b"x" * 100] * 100, timestamps=timestamps)
    log.close()
    for path in (tmp_path / "orders-0").glob("*.timeindex"):
        data = path.read_bytes()
        entries = [ENTRY.unpack_from(data, at) for at in range(0, len(data), ENTRY.size)]
        at = len(entries) // 2
        if at > 0:  # the file still rises, as it must
            timestamp, offset = entries[at]
            if entries[at - 1][0] < timestamp + shift_ms and entries[at - 1][1] < offset + shift_offset:
                entries[at] = (timestamp + shift_ms, offset + shift_offset)
        path.write_bytes(b"".join(ENTRY.pack(*entry) for entry in entries))
    log = open_log(**settings)
    for timestamp in timestamps:
        for _ in range(2):
            assert log.offset_for_timestamp(timestamp) == (timestamps.index(timestamp), timestamp)


def test_nothing_is_kept_where_there_is_no_room(open_log):
    log = open_log(logstore_batch_bytes=4096)
    timestamps = [BASE_MS + 10 * i for i in range(200)]
    log.append_many([b"x" * 100] * 200, timestamps=timestamps)
    before = set_cache_bytes_max(0)
    try:
        assert check(log, timestamps) == 0
    finally:
        set_cache_bytes_max(before)


def test_records_cut_off_are_not_found_any_more(open_log):
    log = open_log(logstore_batch_bytes=1000, index_interval_bytes=1000)
    timestamps = [BASE_MS + 10 * i for i in range(100)]
    log.append_many([b"x" * 100] * 100, timestamps=timestamps)
    check(log, timestamps)
    log.truncate_to(50)
    later = [BASE_MS + 10_000 + 10 * i for i in range(50)]
    log.append_many([b"y" * 100] * 50, timestamps=later)
    check(log, timestamps[:50] + later)
