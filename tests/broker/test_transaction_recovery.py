"""What a coordinator writes, when, and what it makes of what a crash or a full disk has left."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time

import pytest

import logstore
from logstore.broker.transaction_coordinator import TransactionCoordinator
from logstore.broker.transaction_state import MARKER_EPOCH_MAX, Status
from logstore.broker.transactions_topic import TransactionReplay, TransactionsTopic
from logstore.errors import ConcurrentTransactionsError, DiskFullError, InvalidTxnStateError, StorageFailureError
from logstore.storage.log import Log

SECONDS = 120


class Timer:
    """A clock and a scheduler that stand still until they are moved."""

    def __init__(self) -> None:
        self.now_ms = time.time_ns() // 1_000_000
        self.steps: list = []

    def schedule(self, delay_ms, step):
        self.steps.append((self.now_ms + delay_ms, step))

    def advance(self, ms):
        self.now_ms += ms
        due, self.steps = [s for s in self.steps if s[0] <= self.now_ms], [s for s in self.steps if s[0] > self.now_ms]
        for _, step in due:
            step()


@pytest.fixture
def timer():
    return Timer()


@pytest.fixture
def opened(timer):
    """Opens brokers whose coordinators go by the timer."""
    with contextlib.ExitStack() as stack:

        def open_broker(path, durability="appended"):
            broker = stack.enter_context(logstore.open(path, durability=durability))
            broker._transaction_coordinator = TransactionCoordinator(
                broker, wall_clock_ms=lambda: timer.now_ms, schedule=timer.schedule
            )
            broker.create_topic("t", partitions=3, exist_ok=True)
            broker.create_topic("in", exist_ok=True)
            return broker

        yield open_broker


def send(producer, value, partitions=range(3)):
    for partition in partitions:
        producer.send("t", value, partition=partition).result(SECONDS)


def commit(producer, value, partitions=range(3)):
    with producer.transaction():
        send(producer, value, partitions)


def seen(broker):
    return sorted(record.value for record in broker.topic("t").read(isolation_level="read_committed"))


def written(broker):
    """Status and epoch of each record of `__transaction_state`."""
    (log,) = broker.topic("__transaction_state").logs
    return [(value.status, value.producer_epoch) for _, value, _ in TransactionReplay(log).records() if value is not None]


def copied(tmp_path, name):
    shutil.copytree(tmp_path / "data", tmp_path / name)
    return tmp_path / name


def segment(directory, place):
    return directory / place / "00000000000000000000.log"


def test_a_short_transaction_leaves_one_record(opened, tmp_path, timer):
    broker = opened(tmp_path / "data")
    with broker.producer(transactional_id="x") as producer:
        producer.init_transactions()
        assert written(broker) == [(Status.EMPTY, 0)]
        for _ in range(2):
            commit(producer, b"a")
        assert written(broker) == [(Status.EMPTY, 0), (Status.PREPARE_COMMIT, 1), (Status.PREPARE_COMMIT, 2)]
        timer.advance(50)
        assert written(broker)[3:] == [(Status.COMPLETE_COMMIT, 2)]
        producer.begin_transaction()
        send(producer, b"b")
        timer.advance(50)
        assert written(broker)[4:] == [(Status.ONGOING, 2)]
        producer.abort_transaction()
        assert len(written(broker)) == 5, "an abort needs no record"
        timer.advance(50)
        assert written(broker)[5:] == [(Status.COMPLETE_ABORT, 3)]
        commit(producer, b"c")
    broker.close()
    with logstore.open(tmp_path / "data", read_only=True) as again:
        assert written(again)[-1] == (Status.COMPLETE_COMMIT, 4), "written at the close"


@pytest.mark.parametrize("level", ["broker", "topic", "neither"])
def test_a_commit_is_on_disk_with_all_that_it_speaks_of(opened, tmp_path, level):
    broker = opened(tmp_path / "data", "flushed" if level == "broker" else "appended")
    if level == "topic":
        broker.alter_topic("t", logstore_durability="flushed")
    with broker.producer(transactional_id="x") as producer:
        producer.init_transactions()
        producer.begin_transaction()
        send(producer, b"a")
        assert broker.topic("t").partition(1).flushed_offset == 0, "a future within a transaction waits for no flush"
        producer.send_offsets_to_transaction({("in", 0): 1}, "g")
        places = [
            (log, log.log_end_offset) for name in ("t", "__consumer_offsets", "__transaction_state")
            for log in broker.topic(name).logs
        ]
        producer.commit_transaction()
        (state,) = broker.topic("__transaction_state").logs
        places.append((state, 2))
        flushed = [log.flushed_offset >= end_offset for log, end_offset in places]
    assert all(flushed) is (level != "neither"), flushed


def test_a_decision_does_not_end_the_next_transaction(opened, tmp_path):
    broker = opened(tmp_path / "data")
    with broker.producer(transactional_id="x") as producer:
        commit(producer, b"first")
        producer.begin_transaction()
        send(producer, b"second", [0, 2])
        assert written(broker)[-1][0] is Status.PREPARE_COMMIT
        killed = copied(tmp_path, "killed")
        producer.abort_transaction()
    with logstore.open(killed) as broker:
        assert seen(broker) == [b"first"] * 3
        assert [each.state for each in broker.transactions()] == ["CompleteCommit"]
        with broker.producer(transactional_id="x") as producer:
            commit(producer, b"third")
        assert seen(broker) == [b"first"] * 3 + [b"third"] * 3


def kill_before_markers(broker, tmp_path, monkeypatch, producer):
    """The directory, with a commit decided and no marker written."""
    copies = []

    def mark(self, *arguments):
        if not copies:
            copies.append(copied(tmp_path, "decided"))
        real(self, *arguments)

    real = TransactionCoordinator._mark
    with monkeypatch.context() as patch:
        patch.setattr(TransactionCoordinator, "_mark", mark)
        producer.commit_transaction()
    return copies[0]


def test_markers_that_were_lost_are_written(opened, tmp_path, monkeypatch):
    broker = opened(tmp_path / "data")
    with broker.producer(transactional_id="x") as producer:
        producer.begin_transaction()
        send(producer, b"a")
        producer.send_offsets_to_transaction({("in", 0): 7}, "g")
        decided = kill_before_markers(broker, tmp_path, monkeypatch, producer)
    for _ in range(2):
        with logstore.open(decided) as again:
            assert seen(again) == [b"a"] * 3
            assert again.coordinator.committed_offsets("g")["in", 0].offset == 7
            ends = [log.log_end_offset for log in again.topic("t").logs]
            assert ends == [2, 2, 2], "one marker each, also when it is opened again"


@pytest.mark.fault(42, "producers sent twice, transactions cut short")
@pytest.mark.parametrize("lost", ["t-1", "__consumer_offsets-0"])
def test_a_decision_counts_if_all_of_the_transaction_is_there(opened, tmp_path, monkeypatch, lost):
    """As a power cut may leave it that comes between the flushes of a commit."""
    broker = opened(tmp_path / "data")
    with broker.producer(transactional_id="x") as producer:
        producer.begin_transaction()
        send(producer, b"a")
        producer.send_offsets_to_transaction({("in", 0): 7}, "g")
        decided = kill_before_markers(broker, tmp_path, monkeypatch, producer)
    os.truncate(segment(decided, lost), 0)
    with logstore.open(decided) as again:
        assert seen(again) == []
        assert again.coordinator.committed_offsets("g") == {}
        assert [each.state for each in again.transactions()] == ["CompleteAbort"]
        assert (Status.PREPARE_ABORT, 1) in written(again)
        (state,) = again.topic("__transaction_state").logs
        assert state.flushed_offset >= 3, "it must not count once the log has grown"
        for _ in range(3):
            again.topic("t").append(b"plain", partition=1)
        again_killed = shutil.copytree(decided, tmp_path / "again")
    with open(segment(again_killed, "t-0"), "r+b") as file:  # the power fails again: the marker was not on disk
        file.truncate(file.seek(0, 2) - 78)
    with logstore.open(again_killed) as third:
        assert seen(third) == [b"plain"] * 3
        assert third.topic("t").partition(0).open_transactions() == []


def test_what_does_not_count_is_not_carried_out_while_that_cannot_be_noted(opened, tmp_path, monkeypatch, caplog):
    broker = opened(tmp_path / "data")
    with broker.producer(transactional_id="x") as producer:
        producer.begin_transaction()
        send(producer, b"a")
        decided = kill_before_markers(broker, tmp_path, monkeypatch, producer)
    os.truncate(segment(decided, "t-1"), 0)
    with monkeypatch.context() as patch:

        def write(topic, *state):
            raise DiskFullError("__transaction_state-0", "write", errno.ENOSPC)

        patch.setattr(TransactionsTopic, "write", write)
        again = logstore.open(decided)
        assert "could not be ended yet" in caplog.text
        with again.producer(transactional_id="x") as producer, pytest.raises(DiskFullError):
            producer.init_transactions()
    with again:
        assert seen(again) == []
        with again.producer(transactional_id="x") as producer:
            commit(producer, b"b")
        assert seen(again) == [b"b"] * 3


class FullFor:
    """A disk that is full for markers of one partition."""

    def __init__(self, monkeypatch, partition):
        self.is_full = True
        self.partition = partition
        self.refused = 0
        self.real = Log.append_marker
        monkeypatch.setattr(Log, "append_marker", lambda log, *marker, **how: self.append_marker(log, *marker, **how))

    def append_marker(self, log, *marker, **how):
        if self.is_full and log.topic == "t" and log.partition == self.partition:
            self.refused += 1
            raise DiskFullError(log.path, "write", errno.ENOSPC)
        return self.real(log, *marker, **how)


def test_a_full_disk_at_a_marker(opened, tmp_path, monkeypatch, timer):
    broker = opened(tmp_path / "data")
    disk = FullFor(monkeypatch, 1)
    with broker.producer(transactional_id="x") as producer:
        commit(producer, b"a")
        assert seen(broker) == [b"a"] * 2, "it is committed, and one partition does not know yet"
        assert broker.describe_transaction("x").state == "PrepareCommit"
        producer.begin_transaction()
        future = producer.send("t", b"b", partition=0)
        with pytest.raises(TimeoutError):
            future.result(0.05)  # the next one waits
        refused = disk.refused
        timer.advance(1000)
        assert disk.refused > refused, "tried again"
        disk.is_full = False
        timer.advance(1000)
        assert seen(broker) == [b"a"] * 3
        assert future.result(SECONDS).partition == 0
        producer.commit_transaction()
    assert seen(broker) == [b"a"] * 3 + [b"b"]


def test_a_full_disk_while_a_crash_is_settled(opened, tmp_path, monkeypatch, caplog):
    broker = opened(tmp_path / "data")
    with broker.producer(transactional_id="x") as producer:
        producer.begin_transaction()
        send(producer, b"a")
        decided = kill_before_markers(broker, tmp_path, monkeypatch, producer)
    disk = FullFor(monkeypatch, 2)
    with logstore.open(decided) as again:
        assert "can be told yet" in caplog.text
        assert seen(again) == [b"a"] * 2
        with again.producer(transactional_id="x") as producer:
            with pytest.raises(ConcurrentTransactionsError):
                producer.init_transactions()
            disk.is_full = False
            commit(producer, b"b", [2])
        assert seen(again) == [b"a"] * 3 + [b"b"]


def test_a_full_disk_at_the_decision(opened, tmp_path, monkeypatch):
    broker = opened(tmp_path / "data")
    with broker.producer(transactional_id="x") as producer:
        producer.init_transactions()
        (state,) = broker.topic("__transaction_state").logs
        real = Log.append_built

        def append_built(log, *arguments, **how):
            if log is state:
                raise DiskFullError(log.path, "write", errno.ENOSPC)
            return real(log, *arguments, **how)

        producer.begin_transaction()
        send(producer, b"a")
        with monkeypatch.context() as patch:
            patch.setattr(Log, "append_built", append_built)
            for _ in range(2):
                with pytest.raises(DiskFullError):
                    producer.commit_transaction()
        assert seen(broker) == []
        producer.commit_transaction()
        assert seen(broker) == [b"a"] * 3


def test_a_flush_that_fails_leaves_it_to_the_next_start(opened, tmp_path, monkeypatch):
    broker = opened(tmp_path / "data", "flushed")
    with broker.producer(transactional_id="x") as producer:
        producer.begin_transaction()
        send(producer, b"a")
        real = Log.flush_until

        def flush_until(log, offset):
            if (log.topic, log.partition) == ("t", 1):
                raise StorageFailureError(log.path, "fdatasync", errno.EIO)
            real(log, offset)

        with monkeypatch.context() as patch:
            patch.setattr(Log, "flush_until", flush_until)
            with pytest.raises(StorageFailureError):
                producer.commit_transaction()
            assert seen(broker) == [], "nobody sees what may be gone"
            with pytest.raises(InvalidTxnStateError, match="the commit of this transaction has begun"):
                producer.abort_transaction()
        killed = copied(tmp_path, "killed")
        producer.commit_transaction()
        assert seen(broker) == [b"a"] * 3
    with logstore.open(killed) as again:
        assert seen(again) == [b"a"] * 3


def test_a_producer_id_that_is_used_up_is_followed_by_another(opened, tmp_path):
    broker = opened(tmp_path / "data")
    with broker.producer(transactional_id="x") as producer:
        producer.init_transactions()
        known = broker.transaction_coordinator._transactions["x"]
        known.producer_epoch = MARKER_EPOCH_MAX - 2
        producer._take_producer_id(known.producer_id, known.producer_epoch)
        first = producer.producer_id
        for number in range(3):
            commit(producer, b"%d" % number, [0])
        assert producer.producer_id > first
        producer.begin_transaction()
        send(producer, b"open", [0, 1])
        killed = copied(tmp_path, "killed")
        producer.commit_transaction()
    with logstore.open(killed) as again:
        assert seen(again) == [b"0", b"1", b"2"]
        assert [log.open_transactions() for log in again.topic("t").logs] == [[]] * 3
