"""What a log answers producers with an id: duplicates, gaps, epochs, transactions; and what it remembers of them."""

from __future__ import annotations

import os
import shutil

import pytest
from golden_vectors import vector_bytes
from made_batches import START_MS, produced
from manual_scheduler import ManualScheduler

from logstore._native.record_batch import RecordBatch
from logstore.errors import (
    InvalidProducerEpochError,
    InvalidRequestError,
    InvalidTxnStateError,
    OutOfOrderSequenceError,
    ProducerFencedError,
    ReadOnlyError,
    TransactionCoordinatorFencedError,
)
from logstore.storage import producer_state
from logstore.storage.config import TopicConfig
from logstore.storage.log import Log
from logstore.storage.producer_state import NONE_OPEN, Plan, Producer, ProducerBatch
from logstore.storage.waiting import Waiter

SEQUENCE_MAX = 2**31 - 1


def values(log, isolation_level="read_committed", **arguments):
    return [record.value.rstrip(b"\0").decode() for record in log.read(isolation_level=isolation_level, **arguments)]


def column_values(log, start="earliest"):
    batches = log.scan(start, isolation_level="read_committed")
    return [value.rstrip(b"\0").decode() for batch in batches for value in batch.values()]


def snapshots(log):
    return sorted(int(name[:20]) for name in os.listdir(log.path) if name.endswith(".snapshot"))


# ---- sequences ------------------------------------------------------------------------------------


def test_a_repeated_batch_is_answered_with_its_first_offsets(open_log):
    log = open_log()
    sent = [produced(7, first, 3) for first in (0, 3, 6, 9, 12)]
    offsets = [log.append_as_leader(batch) for batch in sent]
    assert offsets == [range(first, first + 3) for first in (0, 3, 6, 9, 12)]
    assert [log.append_as_leader(batch) for batch in sent] == offsets
    assert [log.append_built(batch)[0] for batch in sent] == [0, 3, 6, 9, 12]
    assert log.log_end_offset == 15
    assert values(log) == [f"7/0/{sequence}" for sequence in range(15)]


def test_the_sixth_last_batch_is_out_of_order(open_log):
    log = open_log()
    for sequence in range(6):
        log.append_as_leader(produced(7, sequence))
    with pytest.raises(OutOfOrderSequenceError) as caught:
        log.append_as_leader(produced(7, 0))
    assert (caught.value.producer_id, caught.value.expected_sequence, caught.value.sequence) == (7, 6, 0)
    assert log.append_as_leader(produced(7, 1)) == range(1, 2)
    assert log.log_end_offset == 6


@pytest.mark.parametrize(
    ("sequence", "count"), [(4, 1), (7, 2), (0, 2), (1, 2), (2, 2)], ids=["gap", "far", "prefix", "middle", "overlap"]
)
def test_what_does_not_continue_or_repeat_is_refused(open_log, sequence, count):
    log = open_log()
    log.append_as_leader(produced(7, 0, 3))
    with pytest.raises(OutOfOrderSequenceError, match=f"sequence {sequence} to orders-0, where 3 comes next"):
        log.append_as_leader(produced(7, sequence, count))
    assert log.log_end_offset == 3
    log.append_as_leader(produced(7, 3))


def test_sequences_wrap_at_31_bits(open_log):
    log = open_log()
    log.append_as_leader(produced(7, SEQUENCE_MAX - 1))
    wrapped = produced(7, SEQUENCE_MAX, 3)
    assert log.append_as_leader(wrapped) == range(1, 4)
    assert log.append_as_leader(wrapped) == range(1, 4)
    assert values(log) == [f"7/0/{sequence}" for sequence in (SEQUENCE_MAX - 1, SEQUENCE_MAX, 0, 1)]
    with pytest.raises(OutOfOrderSequenceError):
        log.append_as_leader(produced(7, 3))
    log.append_as_leader(produced(7, 2))
    log.append_as_leader(produced(8, SEQUENCE_MAX))
    assert log.append_as_leader(produced(8, 0)) == range(6, 7)


def test_an_unknown_producer_may_start_anywhere_and_a_new_epoch_at_0(open_log):
    log = open_log()
    log.append_as_leader(produced(7, 41))
    with pytest.raises(OutOfOrderSequenceError, match="where 0 comes next"):
        log.append_as_leader(produced(7, 42, epoch=1))
    log.append_as_leader(produced(7, 0, epoch=1))
    with pytest.raises(InvalidProducerEpochError) as caught:
        log.append_as_leader(produced(7, 42))
    assert not isinstance(caught.value, ProducerFencedError)
    assert (caught.value.producer_epoch, caught.value.current_epoch) == (0, 1)
    with pytest.raises(ProducerFencedError):
        log.append_as_leader(produced(7, 42, transactional=True))
    assert log.log_end_offset == 2


def test_each_producer_counts_for_itself(open_log):
    log = open_log()
    for sequence in range(3):
        for producer_id in (1, 2, 2**63 - 1):
            log.append_as_leader(produced(producer_id, sequence))
    assert sorted(producer.last_sequence for producer in log.producers()) == [2, 2, 2]
    assert log.append_as_leader(produced(2, 0)) == range(1, 2)


def test_a_follower_takes_batches_as_they_are(open_log):
    log = open_log()
    log.append_as_follower(bytes(produced(7, 9, base_offset=0)))
    log.append_as_follower(bytes(produced(7, 4, base_offset=1)))
    log.append_as_follower(bytes(produced(7, 5, epoch=3, base_offset=2)))
    log.append_as_follower(bytes(produced(7, 6, epoch=1, base_offset=3)))
    (producer,) = log.producers()
    assert (producer.epoch, producer.batches) == (1, (ProducerBatch(6, 3, 0, START_MS),))
    log.append_as_leader(produced(7, 7, epoch=1))


def test_a_repeated_batch_waits_for_the_disk_as_the_first_did(open_log):
    log = open_log(durability="appended")
    batch = produced(7, 0)
    log.append_as_leader(batch)
    assert log.flushed_offset == 0
    log.append_as_leader(batch, durability="flushed")
    assert log.flushed_offset == 1


def test_logs_without_producer_ids_write_nothing_more(open_log):
    log = open_log(segment_bytes=1024)
    for _ in range(40):
        log.append(bytes(100))
    log.close()
    assert len(log.segments) > 2
    assert not snapshots(log)
    assert not log.has_producers


def test_names_of_fields_agree_with_those_the_appender_goes_by():
    assert Plan._fields == ("producer", "opens", "closes", "aborted", "first_unstable_offset", "repeats")
    assert Producer._fields == (
        "producer_id", "epoch", "coordinator_epoch", "last_timestamp", "transaction_offset", "batches",
    )  # fmt: skip
    assert ProducerBatch._fields == ("last_sequence", "last_offset", "offset_delta", "timestamp")


@pytest.mark.parametrize("first", [0, 2**31 - 4])
def test_what_the_appender_notes_of_a_batch_that_goes_on_is_what_the_state_plans(open_log, first):
    """The usual batch is planned where it is appended; replaying the log plans each by `ProducerState.plan_batch`."""
    log = open_log()
    sequence = first
    for number in range(12):
        count = 1 + number % 3
        log.append_as_leader(produced(7, sequence, count, timestamp=START_MS + number))
        sequence = (sequence + count) % 2**31
    state = producer_state.ProducerState("t-0")
    for batch in log.fetch(0):
        state.apply(state.plan_batch(
            7, 0, batch.base_sequence, batch.base_offset, batch.last_offset, batch.max_timestamp, False, True
        ))  # fmt: skip
    assert log._producer_state.producers == state.producers
    assert [type(batch) for batch in log._producer_state.producers[7].batches] == [ProducerBatch] * 5
    assert type(log._producer_state.producers[7]) is Producer


# ---- transactions ---------------------------------------------------------------------------------


def test_open_transactions_hold_the_last_stable_offset_back(open_log):
    log = open_log()
    log.append(b"a")
    log.append_as_leader(produced(1, 0, 2, transactional=True))
    log.append_as_leader(produced(2, 0, transactional=True, timestamp=START_MS + 5))
    log.append(b"b")
    assert (log.last_stable_offset, log.log_end_offset) == (1, 5)
    assert [tuple(one) for one in log.open_transactions()] == [(1, 0, 1, START_MS), (2, 0, 3, START_MS + 5)]
    assert values(log) == column_values(log) == ["a"]
    assert log.append_marker(1, 0, True) == 5
    assert log.last_stable_offset == 3
    assert values(log) == column_values(log) == ["a", "1/0/0", "1/0/1"]
    assert log.append_marker(2, 0, False) == 6
    assert log.last_stable_offset == log.log_end_offset == 7
    assert values(log) == column_values(log) == ["a", "1/0/0", "1/0/1", "b"]
    assert values(log, "read_uncommitted") == ["a", "1/0/0", "1/0/1", "2/0/0", "b"]
    assert not log.open_transactions()


def test_the_next_transaction_of_an_aborted_producer_is_seen(open_log):
    log = open_log()
    for sequence in range(6):
        log.append_as_leader(produced(1, sequence, transactional=True))
        log.append_marker(1, 0, sequence % 2 == 1)
    assert values(log) == column_values(log) == ["1/0/1", "1/0/3", "1/0/5"]
    for start in range(log.log_end_offset + 1):
        expected = [f"1/0/{offset // 2}" for offset in (2, 6, 10) if offset >= start]
        assert values(log, start=start) == column_values(log, start) == expected


def test_readers_that_follow_wake_when_a_transaction_ends(open_log):
    log = open_log()
    log.append_as_leader(produced(1, 0, transactional=True))
    with log.read(isolation_level="read_committed", follow=True, timeout=0.0) as reader:
        assert list(reader) == []
    waiter = Waiter([log])
    reader = log.read(isolation_level="read_committed", follow=True, timeout=5.0)
    log.append_marker(1, 0, True)
    assert waiter.wait(0.0)
    assert next(reader).value == b"1/0/0"
    reader.close()
    waiter.close()


def test_latest_is_the_last_stable_offset_for_committed_reads(open_log):
    log = open_log()
    log.append(b"a")
    log.append_as_leader(produced(1, 0, transactional=True))
    assert log.bounds("latest") == (2, None)
    assert log.bounds("latest", committed=True) == (1, None)
    reader = log.read("latest", isolation_level="read_committed", follow=True, timeout=0.0)
    log.append_marker(1, 0, True)
    assert [record.value for record in reader] == [b"1/0/0"]
    # Past the last stable offset, yet in the log: it is waited for.
    log.append_as_leader(produced(1, 1, 2, transactional=True))
    assert values(log, start=log.log_end_offset) == []


def test_cursors_pass_over_aborted_batches(open_log):
    log = open_log()
    log.append_as_leader(produced(1, 0, transactional=True))
    log.append_as_leader(produced(2, 0, transactional=True, codec=4))
    log.append_marker(1, 0, False)
    log.append_marker(2, 0, True)
    batches = list(log.cursor(0, isolation_level="read_committed"))
    assert [(batch.base_offset, batch.is_control) for batch in batches] == [(1, False), (2, True), (3, True)]
    assert [batch.base_offset for batch in log.cursor(0)] == [0, 1, 2, 3]
    with pytest.raises(InvalidRequestError, match="isolation_level"):
        log.cursor(0, isolation_level="committed")


def test_data_outside_of_the_transaction_is_refused_while_it_is_open(open_log):
    log = open_log()
    log.append_as_leader(produced(1, 0, transactional=True))
    with pytest.raises(InvalidTxnStateError, match="since offset 0"):
        log.append_as_leader(produced(1, 1))
    log.append_marker(1, 0, True)
    log.append_as_leader(produced(1, 1))
    assert log.last_stable_offset == 3


def test_a_marker_with_a_higher_epoch_shuts_the_old_producer_out(open_log):
    log = open_log()
    log.append_as_leader(produced(1, 0, transactional=True))
    log.append_marker(1, 1, False, 4)
    with pytest.raises(ProducerFencedError):
        log.append_as_leader(produced(1, 1, transactional=True))
    with pytest.raises(InvalidProducerEpochError):
        log.append_marker(1, 0, True, 4)
    with pytest.raises(TransactionCoordinatorFencedError):
        log.append_marker(1, 1, True, 3)
    with pytest.raises(OutOfOrderSequenceError):
        log.append_as_leader(produced(1, 1, epoch=1, transactional=True))
    log.append_as_leader(produced(1, 0, epoch=1, transactional=True))
    assert log.log_end_offset == 3
    assert values(log) == []


def test_a_late_marker_cannot_touch_the_next_transaction(open_log):
    log = open_log()
    log.append_as_leader(produced(1, 0, transactional=True))
    log.append_marker(1, 0, True)
    log.append_as_leader(produced(1, 0, epoch=1, transactional=True))
    with pytest.raises(InvalidProducerEpochError):
        log.append_marker(1, 0, True)
    assert log.last_stable_offset == 2


def test_a_marker_without_a_transaction_is_kept_and_changes_little(open_log):
    log = open_log()
    assert log.append_marker(5, 2, False, 3) == 0
    (producer,) = log.producers()
    assert (producer.epoch, producer.coordinator_epoch, producer.batches) == (2, 3, ())
    assert log.last_stable_offset == 1
    log.close()
    assert not [name for name in os.listdir(log.path) if name.endswith(".txnindex")]
    with pytest.raises(InvalidRequestError):
        open_log().append_marker(-1, 0, True)


@pytest.mark.parametrize(("name", "commit"), [("control_commit", True), ("control_abort", False)])
def test_markers_are_the_bytes_of_the_golden_ones(tmp_path, name, commit):
    golden = RecordBatch.validated(vector_bytes(name))
    (record,) = golden
    with Log(tmp_path / "orders-0", durability="appended", clock=lambda: record.timestamp) as log:
        epoch = int.from_bytes(record.value[2:], "big")
        log.append_marker(golden.producer_id, golden.producer_epoch, commit, epoch)
        (marker,) = log.fetch(0)
    ours, theirs = bytearray(bytes(marker)), bytearray(bytes(golden))
    ours[:8], ours[12:16] = theirs[:8], theirs[12:16]  # where it stands, and the leader's epoch
    assert ours == theirs


# ---- remembering ----------------------------------------------------------------------------------


def filled(log):
    """Rolls, an open and an aborted transaction that reach over segments, idempotent data."""
    sequence = [0, 0, 0]
    for turn in range(12):
        log.append_as_leader(produced(1, sequence[0], 2, transactional=True, size=60))
        log.append_as_leader(produced(2, sequence[1], 1, size=100))
        sequence[0] += 2
        sequence[1] += 1
        if turn % 5 == 4:
            log.append_marker(1, 0, turn % 2 == 0)
        if turn == 7:
            log.append_as_leader(produced(3, 0, transactional=True))
    return sequence


def what_is_known(log):
    return (
        # A snapshot has one timestamp and one batch for each.
        sorted(
            producer._replace(batches=tuple(batch._replace(timestamp=-1) for batch in producer.batches[-1:]))
            for producer in log.producers()
        ),
        log.open_transactions(), log.last_stable_offset, values(log), column_values(log),
    )  # fmt: skip


@pytest.fixture
def clock():
    return lambda: START_MS + 1000


def test_all_is_remembered_over_a_close(open_log, clock):
    log = open_log(segment_bytes=1024, clock=clock)
    filled(log)
    assert len(log.segments) > 4
    before = what_is_known(log)
    assert before[1]
    log.close()
    assert log.log_end_offset in snapshots(log)
    assert {segment.base_offset for segment in log.segments[1:]} <= set(snapshots(log))
    again = open_log(segment_bytes=1024, clock=clock)
    assert what_is_known(again) == before
    again.append_as_leader(produced(1, 24, 2, transactional=True))


@pytest.mark.parametrize("lost", ["nothing", "snapshots", "newest", "garbage", "indexes", "snapshots and indexes"])
def test_all_is_remembered_after_a_kill_whatever_caches_are_gone(tmp_path, open_log, clock, lost):
    # Without a flush in the background, which may be writing snapshots when the one here has returned.
    log = open_log(segment_bytes=1024, clock=clock, scheduler=ManualScheduler())
    filled(log)
    log.flush()
    before = what_is_known(log)
    copy = tmp_path / "copy" / "orders-0"
    shutil.copytree(log.path, copy)
    paths = sorted(copy.glob("*.snapshot"))
    assert len(paths) > 3
    for path in paths if "snapshots" in lost else paths[-1:] if lost == "newest" else ():
        path.unlink()
    for path in paths[-2:] if lost == "garbage" else ():
        path.write_bytes(path.read_bytes()[:-1] + b"\1\1")
    for path in sorted(copy.glob("*.txnindex")) if "indexes" in lost else ():
        path.unlink()
    for read_only in (True, False, False):
        with Log(copy, TopicConfig(segment_bytes=1024), read_only=read_only, clock=clock) as again:
            assert what_is_known(again) == before
    for path in copy.glob("*.txnindex"):
        theirs = tmp_path / "orders-0" / path.name
        if theirs.exists():
            assert path.read_bytes() == theirs.read_bytes()


@pytest.mark.parametrize("at", range(0, 45, 4))
def test_truncation_takes_back_what_was_known(tmp_path, open_log, clock, at):
    log = open_log(segment_bytes=1024, clock=clock)
    filled(log)
    log.truncate_to(at)
    known = what_is_known(log)
    log.close()
    assert all(offset <= at for offset in snapshots(log))
    with Log(log.path, clock=clock) as again:
        assert what_is_known(again) == known
    # A log that never held more knows the same.
    batches = b"".join(bytes(batch) for batch in open_log(clock=clock).cursor(0))
    with Log(tmp_path / "other" / "orders-0", clock=clock) as other:
        other.append_as_follower(batches) if batches else None
        assert what_is_known(other)[0] == known[0]
        assert what_is_known(other)[2:] == known[2:]


def test_what_is_known_outlives_the_records(open_log, clock):
    log = open_log(segment_bytes=1024, clock=clock)
    filled(log)
    before = what_is_known(log)
    log.advance_log_start_offset(log.log_end_offset)
    assert log.last_stable_offset == log.log_end_offset
    log.close()
    again = open_log(segment_bytes=1024, clock=clock)
    assert what_is_known(again)[0] == before[0]
    end_offset = again.log_end_offset
    assert again.append_as_leader(produced(2, 12)) == range(end_offset, end_offset + 1)
    with pytest.raises(OutOfOrderSequenceError):
        again.append_as_leader(produced(2, 99))


def test_idle_producers_are_forgotten_unless_a_transaction_is_open(open_log):
    now = [START_MS]
    log = open_log(clock=lambda: now[0])
    log.append_as_leader(produced(1, 0))
    log.append_as_leader(produced(2, 0, transactional=True))
    now[0] += 86_400_000 - 1
    log.expire_producers()
    assert len(log.producers()) == 2
    now[0] += 1
    log.expire_producers()
    assert [producer.producer_id for producer in log.producers()] == [2]
    log.append_as_leader(produced(1, 77, timestamp=now[0]))
    log.append_marker(2, 0, True)
    now[0] += 86_400_000
    log.roll()
    assert log.producers() == []
    log.close()
    assert open_log(clock=lambda: now[0]).producers() == []


def test_snapshots_between_segments_are_removed_when_a_newer_one_is_written(open_log, clock):
    for turn in range(4):
        log = open_log(clock=clock)
        log.append_as_leader(produced(1, turn))
        log.close()
        assert snapshots(log) == [turn + 1]


def test_another_process_reads_committed_records_as_they_are_decided(open_log):
    log = open_log(segment_bytes=1024)
    log.append(b"a")
    reader = open_log(read_only=True)
    assert values(reader) == ["a"]
    log.append_as_leader(produced(1, 0, 3, transactional=True, size=300))
    log.append_as_leader(produced(2, 0, 3, transactional=True, size=300))
    assert reader.refresh()
    assert values(reader) == ["a"]
    assert reader.last_stable_offset == 1
    log.append_marker(1, 0, False)
    log.append_marker(2, 0, True)
    assert reader.refresh()
    assert values(reader) == column_values(reader) == ["a", "2/0/0", "2/0/1", "2/0/2"]
    assert reader.last_stable_offset == log.last_stable_offset == 9
    with pytest.raises(ReadOnlyError):
        reader.append_marker(2, 0, True)
    log.truncate_to(5)
    reader.refresh()
    assert values(reader) == values(log) == ["a"]


def test_the_arrow_stream_is_of_committed_records_too(open_log):
    pyarrow = pytest.importorskip("pyarrow")
    log = open_log()
    log.append_as_leader(produced(1, 0, transactional=True))
    log.append_as_leader(produced(2, 0, transactional=True))
    log.append_marker(1, 0, False)
    log.append_marker(2, 0, True)
    table = pyarrow.table(log.scan(isolation_level="read_committed"))
    assert table["value"].to_pylist() == [b"2/0/0"]
    assert len(pyarrow.table(log.scan())) == 2


def test_nothing_is_undecided_without_transactions(open_log):
    log = open_log()
    assert log.first_unstable_offset == NONE_OPEN
    log.append(b"a")
    assert log.last_stable_offset == 1
    assert producer_state.sequence_after(SEQUENCE_MAX, 1) == 0
