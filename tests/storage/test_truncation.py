"""Taking records away: inside of batches of every kind, and in front of readers."""

from __future__ import annotations

import pytest
from golden_vectors import GOOD, vector_bytes
from manual_scheduler import ManualScheduler

from logstore._native.record_batch import RecordBatch
from logstore.errors import (
    InvalidRequestError,
    LogTruncatedError,
    OffsetOutOfRangeError,
    ReadOnlyError,
)

ANY_TIME = 2**63 - 1


def rows(records):
    return [(r.offset, r.timestamp, r.key, r.value, r.headers) for r in records]


# Vectors with a few records whose offsets are a moderate span.
INSIDE = [
    name for name in GOOD
    if len(RecordBatch.validated(vector_bytes(name))) > 1
    and RecordBatch.validated(vector_bytes(name)).last_offset < 100
    and not name.startswith("rdk_")
]  # fmt: skip


@pytest.mark.parametrize("name", INSIDE)
def test_truncating_inside_of_a_batch_keeps_the_records_below(open_log, name, tmp_path):
    data = vector_bytes(name)
    batch = RecordBatch.validated(data)
    middle = (batch.base_offset + batch.last_offset + 1) // 2
    expected = [row for row in rows(batch) if row[0] < middle]
    log = open_log()
    log.append_as_follower(data)
    log.truncate_to(middle)
    assert (log.log_end_offset, log.flushed_offset) == (middle, middle)
    assert rows(log.read()) == expected
    for stored in log.fetch(0) if expected else []:
        assert stored.codec == batch.codec
        assert stored.producer_id == batch.producer_id
        assert stored.is_transactional == batch.is_transactional
        assert stored.partition_leader_epoch == batch.partition_leader_epoch
    assert log.append(b"next") == middle
    expected_after = [*(row[0] for row in expected), middle]
    assert [record.offset for record in log.read()] == expected_after
    log.close()
    assert [record.offset for record in open_log().read()] == expected_after


def test_truncating_at_and_behind_the_end_changes_nothing(open_log):
    log = open_log()
    log.append_many([b"a"] * 3)
    for offset in (3, 4, 1000):
        log.truncate_to(offset)
    assert log.log_end_offset == 3
    assert log.append(b"b") == 3


def test_truncating_everything(open_log):
    log = open_log()
    log.append_many([b"a"] * 3)
    log.truncate_to(0)
    assert list(log.read()) == []
    assert log.append(b"b") == 0


def test_truncating_below_the_start_leaves_an_empty_log_there(open_log):
    log = open_log()
    log.append_many([b"a"] * 9)
    log.advance_log_start_offset(5)
    log.truncate_to(2)
    assert (log.log_start_offset, log.log_end_offset) == (2, 2)
    assert log.append(b"b") == 2
    log.close()
    log = open_log()
    assert [record.offset for record in log.read()] == [2]


def test_buffered_records_are_truncated_too(open_log):
    log = open_log()
    log.append_many([b"a"] * 4, durability="buffered")
    log.truncate_to(2)
    assert [record.offset for record in log.read()] == [0, 1]
    assert log.append(b"b", durability="buffered") == 2


def test_a_reader_behind_the_new_end_is_told(open_log):
    log = open_log()
    for _ in range(6):
        log.append(b"a")
    reader = log.read(0)
    for _ in range(5):
        next(reader)
    log.truncate_to(2)
    with pytest.raises(LogTruncatedError) as caught:
        list(reader)
    assert caught.value.log_end_offset == 2
    assert isinstance(caught.value, OffsetOutOfRangeError)


def test_a_reader_below_the_new_end_goes_on_with_what_is_there_now(open_log):
    log = open_log()
    for _ in range(6):
        log.append(b"old")
    reader = log.read(0, follow=True, timeout=0)
    assert next(reader).offset == 0
    log.truncate_to(3)
    for _ in range(2):
        log.append(b"new")
    values = [record.value for record in reader]
    assert values == [b"old", b"old", b"new", b"new"]


def test_a_reader_before_the_new_start_is_told(open_log):
    log = open_log(segment_bytes=1024)
    for _ in range(40):
        log.append(bytes(100))
    reader = log.read(0)
    next(reader)
    log.advance_log_start_offset(30)
    with pytest.raises(OffsetOutOfRangeError) as caught:
        list(reader)
    assert caught.value.log_start_offset == 30
    assert not isinstance(caught.value, LogTruncatedError)


def test_segments_below_the_start_are_deleted(open_log, tmp_path):
    log = open_log(segment_bytes=1024)
    for _ in range(40):
        log.append(bytes(100))
    assert len(log.segments) > 3
    log.advance_log_start_offset(40)
    assert len(log.segments) == 1
    active = f"{log.segments[0].base_offset:020d}"
    assert {path.name for path in (tmp_path / "orders-0").glob("*.log")} == {f"{active}.log"}
    assert list((tmp_path / "orders-0").glob("*.log.deleted"))  # until file.delete.delay.ms has passed
    log.close()
    assert {path.stem for path in (tmp_path / "orders-0").glob("[0-9]*")} == {active}
    log = open_log(segment_bytes=1024)
    assert (log.log_start_offset, log.log_end_offset) == (40, 40)


@pytest.mark.parametrize("call", ["truncate_to", "advance_log_start_offset"])
def test_wrong_offsets(open_log, call):
    log = open_log()
    log.append(b"a")
    with pytest.raises((InvalidRequestError, OffsetOutOfRangeError)):
        getattr(log, call)(-1 if call == "truncate_to" else 2)
    assert rows(log.read())[0][0] == 0


def test_read_only_logs_keep_their_records(open_log):
    open_log().append(b"a")
    reader = open_log(read_only=True)
    for call in (reader.truncate_to, reader.advance_log_start_offset):
        with pytest.raises(ReadOnlyError):
            call(0)
    with pytest.raises(ReadOnlyError):
        reader.roll()


def test_nothing_is_missed_of_a_segment_that_was_sealed_just_before(open_log):
    log = open_log()
    log.append(b"a")
    log.roll()
    log.truncate_to(0)
    log.close()
    again = open_log()
    assert again.damage is None
    assert again.append(b"b") == 0


def test_a_flush_beside_an_append_spares_no_scan_of_what_it_does_not_vouch_for(open_log):
    """The batch is in the segment, and its end not published yet, when another thread flushes and saves the checkpoint; then
    the log is truncated to just there."""
    log = open_log(flush_ms=ANY_TIME, scheduler=ManualScheduler())
    log.append(b"sealed")
    log.roll()
    for number in range(1, 5):
        log.append(b"record %d" % number)
    position = log.segments[-1].size_bytes
    log.append(b"its end is not published yet")
    log._publish(log_end_offset=5)
    with log._flush_lock:
        log._sync()
    saved = log._checkpoint
    assert (saved.flushed_offset, saved.segment_base_offset, saved.position) == (5, 1, position)
    log._publish(log_end_offset=6)
    log.truncate_to(5)
    assert log.append(b"again") == 5
    assert [record.offset for record in log.read()] == list(range(6))
