"""What a topic's settings ask of records: sizes, timestamps, keys, rolls; and what an acknowledgement waits for."""

from __future__ import annotations

import contextlib

import pytest
from manual_scheduler import ManualScheduler

from logstore._native.record_batch_builder import RecordBatchBuilder
from logstore.errors import (
    ClosedError,
    InvalidRecordError,
    InvalidRequestError,
    InvalidTimestampError,
    ReadOnlyError,
    RecordTooLargeError,
)

NOW_MS = 1_700_000_000_000
NEVER = 2**63 - 1


def batch_of(*records):
    builder = RecordBatchBuilder()
    for timestamp, key, value in records:
        builder.append(value, key, timestamp=timestamp)
    return bytes(builder.build())


# ---- sizes ------------------------------------------------------------------------------------


def test_largest_record(open_log):
    log = open_log(max_message_bytes=1000)
    taken = []
    for size in range(800, 1000):
        with contextlib.suppress(RecordTooLargeError):
            log.append(bytes(size))
            taken.append(size)
    assert taken == list(range(800, taken[-1] + 1))
    with pytest.raises(RecordTooLargeError, match=r"max\.message\.bytes"):
        log.append(bytes(taken[-1] + 1))
    assert all(batch.size_bytes <= 1000 for batch in log.fetch(0))
    assert 900 < taken[-1] < 1000 - 61


def test_too_large_records_refuse_the_whole_call(open_log):
    log = open_log(max_message_bytes=1000)
    with pytest.raises(RecordTooLargeError) as caught:
        log.append_many([b"a", bytes(2000), b"b"])
    assert "record 1 of 3" in caught.value.__notes__[0]
    with pytest.raises(RecordTooLargeError):
        log.append_as_leader(batch_of((NOW_MS, None, bytes(2000))))
    assert log.log_end_offset == 0


def test_many_records_become_batches_within_the_limits(open_log):
    log = open_log(logstore_batch_bytes=2000, segment_bytes=8192)
    log.append_many([bytes(100)] * 500)
    batches = log.fetch(0, 1 << 20)
    assert max(batch.size_bytes for batch in batches) <= 2000
    assert len(batches) < 500 * 120 // 1500
    assert all(segment.size_bytes <= 8192 for segment in log.segments)


def test_a_record_larger_than_a_batch_gets_one_of_its_own(open_log):
    log = open_log(logstore_batch_bytes=64)
    log.append_many([b"a", bytes(500), b"b"], durability="buffered")
    log.flush("appended")
    assert [record.value for record in log.read()] == [b"a", bytes(500), b"b"]


# ---- timestamps -------------------------------------------------------------------------------


@pytest.mark.fault(33, "a clock that jumps, timestamps that lie")
def test_timestamps_out_of_bounds_are_refused(open_log):
    log = open_log(
        message_timestamp_before_max_ms=1000, message_timestamp_after_max_ms=500,
        clock=lambda: NOW_MS,
    )  # fmt: skip
    for timestamp in (NOW_MS - 1001, NOW_MS + 501, 0, NOW_MS // 1000):
        with pytest.raises(InvalidTimestampError, match="milliseconds"):
            log.append(b"a", timestamp=timestamp)
        with pytest.raises(InvalidTimestampError):
            log.append_many([b"a", b"b"], timestamps=[NOW_MS, timestamp])
        with pytest.raises(InvalidTimestampError):
            log.append_as_leader(batch_of((NOW_MS, None, b"a"), (timestamp, None, b"b")))
    assert log.log_end_offset == 0
    for timestamp in (NOW_MS - 1000, NOW_MS + 500, -1):
        log.append(b"a", timestamp=timestamp)
        log.append_as_leader(batch_of((timestamp, None, b"a")))
    assert log.log_end_offset == 6


def test_an_hour_ahead_is_the_default_limit(open_log):
    log = open_log(clock=lambda: NOW_MS)
    log.append(b"a", timestamp=NOW_MS + 3_600_000)
    log.append(b"a", timestamp=0)
    with pytest.raises(InvalidTimestampError):
        log.append(b"a", timestamp=NOW_MS + 3_600_001)


def test_time_of_append(open_log):
    times = iter(range(NOW_MS, NOW_MS + 1000))
    log = open_log(message_timestamp_type="LogAppendTime", clock=lambda: next(times))
    log.append(b"a", timestamp=5)
    log.append_many([b"b", b"c"], timestamps=[NEVER, 7])
    log.append_as_leader(batch_of((5, None, b"d"), (9, None, b"e")))
    records = list(log.read())
    assert {record.timestamp_type for record in records} == {"LogAppendTime"}
    assert all(record.timestamp >= NOW_MS for record in records)
    assert [record.timestamp for record in records] == sorted(r.timestamp for r in records)
    assert records[1].timestamp == records[2].timestamp
    for offset, record in enumerate(records):
        found = log.offset_for_timestamp(record.timestamp)
        assert found.timestamp == record.timestamp
        assert found.offset <= offset


def test_the_largest_timestamp_of_a_clients_batch_is_computed(open_log):
    log = open_log(clock=lambda: NOW_MS)
    log.append_as_leader(batch_of((NOW_MS, None, b"a"), (NOW_MS - 9, None, b"b")))
    assert log.fetch(0)[0].max_timestamp == NOW_MS
    assert log.offset_for_timestamp(NOW_MS) == (0, NOW_MS)
    assert log.offset_for_timestamp(NOW_MS + 1) is None


# ---- keys -------------------------------------------------------------------------------------


def test_compacted_topics_need_keys(open_log):
    log = open_log(cleanup_policy="compact")
    for call in (
        lambda: log.append(b"a"),
        lambda: log.append_many([b"a"]),
        lambda: log.append_many([b"a", b"b"], [b"k", None]),
        lambda: log.append_as_leader(batch_of((NOW_MS, b"k", b"a"), (NOW_MS, None, b"b"))),
    ):
        with pytest.raises(InvalidRecordError, match="key"):
            call()
    assert log.append(b"a", b"") == 0
    assert log.append(None, b"k") == 1


# ---- rolls ------------------------------------------------------------------------------------


def test_rolls_by_the_records_time(open_log):
    log = open_log(segment_ms=1000, clock=lambda: NOW_MS)
    for timestamp in (NOW_MS - 5000, NOW_MS - 4000, NOW_MS - 3999, NOW_MS - 3000):
        log.append(b"a", timestamp=timestamp)
    assert [segment.base_offset for segment in log.segments] == [0, 2]


def test_rolls_where_an_index_is_full(open_log):
    log = open_log(segment_index_bytes=24, index_interval_bytes=0)
    for _ in range(20):
        log.append(bytes(50))
    assert len(log.segments) > 2
    log.close()
    for path in (log.path + f"/{segment.base_offset:020d}" for segment in log.segments):
        for suffix in (".index", ".timeindex"):
            with open(path + suffix, "rb") as file:
                assert len(file.read()) <= 24
    log = open_log(segment_index_bytes=24, index_interval_bytes=0)
    assert [record.offset for record in log.read()] == list(range(20))


def test_rolls_before_offsets_leave_the_range_of_an_index(open_log):
    log = open_log()
    log.append(b"a")
    builder = RecordBatchBuilder()
    builder.append(b"far", timestamp=NOW_MS)
    log.append_as_follower(builder.build(base_offset=2**31 + 5))
    assert [segment.base_offset for segment in log.segments] == [0, 2**31 + 5]
    assert [record.offset for record in log.read()] == [0, 2**31 + 5]
    assert log.append(b"next") == 2**31 + 6


def test_roll_on_request(open_log):
    log = open_log()
    log.roll()
    assert len(log.segments) == 1
    log.append(b"a")
    log.roll()
    log.roll()
    assert [segment.base_offset for segment in log.segments] == [0, 1]
    assert log.append(b"b") == 1


# ---- acknowledgements -------------------------------------------------------------------------


def test_levels(open_log):
    log = open_log(durability="flushed", scheduler=ManualScheduler())
    log.append(b"a")
    assert (log.log_end_offset, log.flushed_offset) == (1, 1)
    log.append(b"b", durability="appended")
    assert (log.log_end_offset, log.flushed_offset) == (2, 1)
    log.append(b"c", durability="buffered")
    assert (log.log_end_offset, log.flushed_offset) == (2, 1)
    assert [record.value for record in log.read()] == [b"a", b"b"]
    log.flush("buffered")
    assert log.log_end_offset == 2
    log.flush("appended")
    assert (log.log_end_offset, log.flushed_offset) == (3, 1)
    log.flush()
    assert log.flushed_offset == 3
    for call in (lambda: log.append(b"d", durability="fsync"), lambda: log.flush("fsync"),
                 lambda: log.append_many([b"d"], durability=2)):  # fmt: skip
        with pytest.raises(InvalidRequestError, match="durability"):
            call()


def test_the_topics_level_goes_before_the_brokers(open_log):
    log = open_log(durability="flushed", logstore_durability="appended", flush_ms=NEVER)
    log.append(b"a")
    assert (log.log_end_offset, log.flushed_offset) == (1, 0)
    log.append(b"a", durability="flushed")
    assert log.flushed_offset == 2


def test_buffered_records_are_handed_over_after_the_linger(open_log):
    scheduler = ManualScheduler()
    log = open_log(durability="buffered", logstore_linger_ms=7, scheduler=scheduler)
    log.append(b"a")
    log.append_many([b"b", b"c"])
    assert log.log_end_offset == 0
    assert [delay for delay, _ in scheduler.steps] == [7]
    scheduler.run(within_ms=7)
    assert log.log_end_offset == 3
    log.append(b"d")
    assert 7 in [delay for delay, _ in scheduler.steps]


def test_appended_records_are_flushed_after_flush_ms(open_log):
    scheduler = ManualScheduler()
    log = open_log(flush_ms=250, scheduler=scheduler)
    log.append(b"a")
    log.append(b"b")
    assert [delay for delay, _ in scheduler.steps] == [250]
    scheduler.run(within_ms=250)
    assert log.flushed_offset == 2
    log.append(b"c")
    assert [delay for delay, _ in scheduler.steps] == [250]


def test_background_steps_run_in_time(open_log):
    """With the real scheduler: well within the test's time limit, without another call."""
    import time

    log = open_log(durability="buffered", logstore_linger_ms=1, flush_ms=1)
    log.append(b"a")
    deadline = time.monotonic() + 120
    while log.flushed_offset < 1 and time.monotonic() < deadline:
        time.sleep(0.005)
    assert log.flushed_offset == 1


@pytest.mark.parametrize("level", ["buffered", "appended"])
def test_flush_messages(open_log, level):
    log = open_log(flush_messages=3, flush_ms=NEVER, scheduler=ManualScheduler())
    for i in range(1, 10):
        log.append(b"a", durability=level)
        log.flush("appended")
        assert log.flushed_offset == i // 3 * 3


def test_closed_logs_say_so(open_log):
    log = open_log()
    log.append(b"a")
    reader = log.read()
    log.close()
    log.close()
    for call in (lambda: log.append(b"a"), lambda: log.append_many([b"a"]), lambda: list(reader),
                 lambda: list(log.read())):  # fmt: skip
        with pytest.raises(ClosedError, match="open the broker again"):
            call()


def test_read_only_logs_take_nothing(open_log):
    open_log().append(b"a")
    log = open_log(read_only=True)
    for call in (lambda: log.append(b"a"), lambda: log.append_many([b"a"]),
                 lambda: log.append_as_leader(batch_of((NOW_MS, None, b"a")))):  # fmt: skip
        with pytest.raises(ReadOnlyError, match="read_only=True"):
            call()
    log.flush()
    assert [record.value for record in log.read()] == [b"a"]
