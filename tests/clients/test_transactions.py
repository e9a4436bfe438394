"""Transactions of producers: all or nothing, one producer at a time, and an end for those nobody ends."""

from __future__ import annotations

import shutil
import threading
import time

import pytest

import logstore
from logstore.broker.transaction_coordinator import TransactionCoordinator
from logstore.errors import (
    CommitFailedError,
    GroupError,
    InvalidProducerEpochError,
    InvalidRequestError,
    InvalidTransactionTimeoutError,
    InvalidTxnStateError,
    ProducerFencedError,
    TransactionAbortedError,
    TransactionalIdNotFoundError,
)

SECONDS = 120


@pytest.fixture
def broker(tmp_path):
    with logstore.open(tmp_path / "data", durability="appended") as broker:
        broker.create_topic("t", partitions=3)
        broker.create_topic("in")
        yield broker


def seen(broker, topic="t"):
    return sorted(record.value for record in broker.topic(topic).read(isolation_level="read_committed"))


def stored(broker, topic="t"):
    return sorted(record.value for record in broker.topic(topic).read())


def committed(broker, group="g"):
    return {place: entry.offset for place, entry in broker.coordinator.committed_offsets(group).items()}


def reopened(tmp_path, name="killed"):
    """The directory as a kill would leave it, opened."""
    shutil.copytree(tmp_path / "data", tmp_path / name)
    return logstore.open(tmp_path / name, durability="appended")


def test_a_transaction_is_seen_when_it_is_committed(broker):
    with broker.producer(transactional_id="x") as producer:
        with producer.transaction() as transaction:
            futures = [transaction.send("t", b"%d" % number, partition=number) for number in range(3)]
            transaction.send_offsets({("in", 0): 5}, "g")
            producer.flush()
            assert (seen(broker), stored(broker), committed(broker)) == ([], [b"0", b"1", b"2"], {})
        assert [future.result(SECONDS).partition for future in futures] == [0, 1, 2]
        assert seen(broker) == [b"0", b"1", b"2"]
        assert committed(broker) == {("in", 0): 5}


def test_one_that_raises_is_never_seen(broker):
    with broker.producer(transactional_id="x", linger_ms="1h") as producer:
        with pytest.raises(ZeroDivisionError), producer.transaction() as transaction:  # noqa: PT012
            appended = transaction.send("t", b"appended", partition=0)
            appended.result(SECONDS)
            waiting = transaction.send("t", b"waiting", partition=0)
            transaction.send_offsets({("in", 0): 5}, "g")
            raise ZeroDivisionError
        assert appended.result(SECONDS).offset == 0
        assert isinstance(waiting.exception(SECONDS), TransactionAbortedError)
        assert (seen(broker), stored(broker), committed(broker)) == ([], [b"appended"], {})
        with producer.transaction() as transaction:
            transaction.send("t", b"next", partition=0)
    assert seen(broker) == [b"next"]


def test_each_transaction_has_an_epoch_of_its_own(broker):
    with broker.producer(transactional_id="x", batch_size=0) as producer:
        producer.init_transactions()
        epochs = [producer.producer_epoch]
        for end in ("commit", "abort", "commit"):
            producer.begin_transaction()
            for number in range(2):
                producer.send("t", b"%d" % number, partition=1).result(SECONDS)
            getattr(producer, f"{end}_transaction")()
            epochs.append(producer.producer_epoch)
    assert epochs == [0, 1, 2, 3]
    cursor = broker.cursor("t", 1, 0)
    found = []
    while (batch := cursor.next_batch()) is not None:
        found.append((batch.is_control, batch.is_transactional, batch.producer_epoch, batch.base_sequence))
    data, marker = (False, True), (True, True)
    assert found == [
        (*data, 0, 0), (*data, 0, 1), (*marker, 1, -1), (*data, 1, 0), (*data, 1, 1), (*marker, 2, -1), (*data, 2, 0),
        (*data, 2, 1), (*marker, 3, -1),
    ]


def test_calls_out_of_turn_are_refused(broker):
    with broker.producer() as producer, pytest.raises(InvalidTxnStateError, match="transactional_id="):
        producer.begin_transaction()
    with broker.producer(transactional_id="x") as producer:
        with pytest.raises(InvalidTxnStateError, match="within a transaction"):
            producer.send("t", b"")
        for call in (producer.commit_transaction, producer.abort_transaction):
            with pytest.raises(InvalidTxnStateError, match="no transaction is open"):
                call()
        with pytest.raises(InvalidTxnStateError, match="no transaction is open"):
            producer.send_offsets_to_transaction({("in", 0): 1}, "g")
        producer.begin_transaction()
        with pytest.raises(InvalidTxnStateError, match="a transaction is open"):
            producer.begin_transaction()
        with pytest.raises(InvalidRequestError, match="a group is given by"):
            producer.send_offsets_to_transaction({("in", 0): 1}, 7)
        producer.commit_transaction()
    with broker.producer(transactional_id="y", transaction_timeout="1h") as producer:
        with pytest.raises(InvalidTransactionTimeoutError, match="900000"):
            producer.init_transactions()


def test_an_empty_transaction_writes_nothing(broker):
    with broker.producer(transactional_id="x") as producer:
        producer.init_transactions()
        ends = [log.log_end_offset for log in broker.logs()]
        with producer.transaction():
            pass
        assert [log.log_end_offset for log in broker.logs()] == ends


def test_a_producer_of_the_same_name_shuts_the_first_one_out(broker):
    with broker.producer(transactional_id="x") as first, broker.producer(transactional_id="x") as second:
        first.begin_transaction()
        first.send("t", b"lost", partition=0).result(SECONDS)
        second.init_transactions()
        assert broker.topic("t").partition(0).open_transactions() == []
        late = first.send("t", b"late", partition=0)
        assert isinstance(late.exception(SECONDS), ProducerFencedError)
        with pytest.raises(ProducerFencedError):
            first.send_offsets_to_transaction({("in", 0): 1}, "g")
        second.begin_transaction()
        second.send("t", b"kept", partition=0)
        with pytest.raises(ProducerFencedError):
            first.commit_transaction()
        with pytest.raises(ProducerFencedError):
            first.begin_transaction()
        second.commit_transaction()
    assert seen(broker) == [b"kept"]
    assert committed(broker) == {}


def test_a_late_end_never_touches_the_next_transaction(broker):
    coordinator = broker.transaction_coordinator
    with broker.producer(transactional_id="x") as producer:
        producer.begin_transaction()
        producer.send("t", b"a", partition=0)
        before = (producer.producer_id, producer.producer_epoch)
        producer.commit_transaction()
        after = (producer.producer_id, producer.producer_epoch)
        assert coordinator.end_transaction("x", *before, True) == after, "asked again, answered again"
        with pytest.raises(InvalidTxnStateError, match="committed already"):
            coordinator.end_transaction("x", *before, False)
        producer.begin_transaction()
        producer.send("t", b"b", partition=0).result(SECONDS)
        for commit in (True, False):
            with pytest.raises(ProducerFencedError):
                coordinator.end_transaction("x", *before, commit)
        assert seen(broker) == [b"a"]
        producer.abort_transaction()
        for commit in (True, False):
            with pytest.raises(ProducerFencedError):
                coordinator.end_transaction("x", *before, commit)
    assert seen(broker) == [b"a"]


class Clock:
    def __init__(self):
        self.now_ms = time.time_ns() // 1_000_000
        self.steps = []

    def schedule(self, delay_ms, step):
        self.steps.append((self.now_ms + delay_ms, step))

    def advance(self, ms):
        self.now_ms += ms
        due, self.steps = [s for s in self.steps if s[0] <= self.now_ms], [s for s in self.steps if s[0] > self.now_ms]
        for _, step in due:
            step()


@pytest.fixture
def clock(broker):
    clock = Clock()
    broker._transaction_coordinator = TransactionCoordinator(
        broker, wall_clock_ms=lambda: clock.now_ms, schedule=clock.schedule
    )
    return clock


def test_a_transaction_that_nobody_ends_is_aborted(broker, clock):
    with (
        broker.producer(transactional_id="x", transaction_timeout=5) as producer,
        broker.producer(transactional_id="y", transaction_timeout=60) as other,
    ):
        other.begin_transaction()
        other.send("t", b"other", partition=1).result(SECONDS)
        producer.begin_transaction()
        producer.send("t", b"late", partition=0).result(SECONDS)
        clock.advance(4_900)
        assert broker.topic("t").partition(0).open_transactions()
        clock.advance(200)
        assert not broker.topic("t").partition(0).open_transactions()
        assert isinstance(producer.send("t", b"later", partition=0).exception(SECONDS), InvalidProducerEpochError)
        with pytest.raises(InvalidProducerEpochError, match="5000 ms") as caught:
            producer.commit_transaction()
        assert not isinstance(caught.value, ProducerFencedError)
        producer.abort_transaction()
        with producer.transaction() as transaction:
            transaction.send("t", b"again", partition=0)
        other.commit_transaction()
    assert seen(broker) == [b"again", b"other"]


def test_ids_that_nobody_uses_are_forgotten(broker, clock, tmp_path):
    with broker.producer(transactional_id="x") as producer, producer.transaction() as transaction:
        transaction.send("t", b"a")
    assert [each.transactional_id for each in broker.transactions()] == ["x"]
    clock.advance(8 * 86_400_000)
    again = TransactionCoordinator(broker, wall_clock_ms=lambda: clock.now_ms, schedule=clock.schedule)
    assert again.list_transactions() == []


def test_a_kill_within_a_transaction_takes_it_back(broker, tmp_path):
    with broker.producer(transactional_id="x") as producer:
        with producer.transaction() as transaction:
            transaction.send("t", b"kept", partition=0)
            transaction.send_offsets({("in", 0): 1}, "g")
        producer.begin_transaction()
        for number in range(3):
            producer.send("t", b"%d" % number, partition=number).result(SECONDS)
        producer.send_offsets_to_transaction({("in", 0): 2}, "g")
        with reopened(tmp_path) as killed:
            assert seen(killed) == [b"kept"]
            assert committed(killed) == {("in", 0): 1}
            assert [log.open_transactions() for log in killed.logs()] == [[]] * len(list(killed.logs()))
            with killed.producer(transactional_id="x") as next_one, next_one.transaction() as transaction:
                transaction.send("t", b"next", partition=1)
            assert seen(killed) == [b"kept", b"next"]
        producer.commit_transaction()
    assert seen(broker) == [b"0", b"1", b"2", b"kept"]


def test_a_commit_that_was_decided_is_carried_out_after_a_kill(broker, tmp_path, monkeypatch):
    states = 0
    real = TransactionCoordinator._mark

    def mark(self, partition, *marker):
        nonlocal states
        shutil.copytree(tmp_path / "data", tmp_path / f"state{states}")
        states += 1
        real(self, partition, *marker)

    with broker.producer(transactional_id="x") as producer:
        with producer.transaction() as transaction:
            for number in range(3):
                transaction.send("t", b"%d" % number, partition=number)
            transaction.send_offsets({("in", 0): 7}, "g")
            producer.flush()
            monkeypatch.setattr(TransactionCoordinator, "_mark", mark)
        monkeypatch.undo()
    assert states == 4
    for number in range(states):
        with logstore.open(tmp_path / f"state{number}") as killed:
            assert seen(killed) == [b"0", b"1", b"2"]
            assert committed(killed) == {("in", 0): 7}
            assert [each.state for each in killed.transactions()] == ["CompleteCommit"]


def test_offsets_of_a_member_left_behind_are_refused(broker):
    broker.topic("in").append(b"1")
    with broker.producer(transactional_id="x") as producer, broker.consumer("in", group="g") as consumer:
        assert consumer.poll(SECONDS)
        producer.begin_transaction()
        metadata = consumer.group_metadata()
        producer.send_offsets_to_transaction({("in", 0): 1}, consumer)
        producer.commit_transaction()
        assert committed(broker) == {("in", 0): 1}
        producer.begin_transaction()
        producer.send("t", b"never")
        with pytest.raises(GroupError):
            producer.send_offsets_to_transaction({("in", 0): 9}, metadata._replace(generation=metadata.generation - 1))
        with pytest.raises(InvalidTxnStateError, match="only be aborted"):
            producer.commit_transaction()
        producer.abort_transaction()
    assert committed(broker) == {("in", 0): 1}
    assert seen(broker) == []
    assert issubclass(CommitFailedError, GroupError)


def test_groups_read_what_is_committed_unless_told_otherwise(broker):
    with broker.producer(transactional_id="x") as producer:
        with pytest.raises(ZeroDivisionError), producer.transaction() as transaction:  # noqa: PT012
            transaction.send("t", b"aborted", partition=0).result(SECONDS)
            raise ZeroDivisionError
        with producer.transaction() as transaction:
            transaction.send("t", b"committed", partition=0)
    with broker.consumer("t", group="one") as consumer:
        assert [record.value for record in consumer.poll(SECONDS)] == [b"committed"]
    with broker.consumer("t", group="two", isolation_level="read_uncommitted") as consumer:
        assert [record.value for record in consumer.poll(SECONDS)] == [b"aborted", b"committed"]
    with broker.consumer("t") as consumer:
        assert [record.value for record in consumer.poll(SECONDS)] == [b"aborted", b"committed"]


def test_closing_within_a_transaction_aborts_it(broker):
    producer = broker.producer(transactional_id="x")
    producer.begin_transaction()
    future = producer.send("t", b"a", partition=0)
    producer.close()
    assert isinstance(future.exception(SECONDS), TransactionAbortedError)
    assert seen(broker) == []
    assert broker.topic("t").partition(0).open_transactions() == []


def test_an_open_transaction_can_be_aborted_by_hand(broker):
    with pytest.raises(TransactionalIdNotFoundError, match="transaction list"):
        broker.describe_transaction("x")
    with broker.producer(transactional_id="x") as producer:
        producer.begin_transaction()
        producer.send("t", b"a", partition=2).result(SECONDS)
        described = broker.describe_transaction("x")
        assert (described.state, described.partitions) == ("Ongoing", (("t", 2),))
        assert [each.state for each in broker.transactions(states=["Ongoing"])] == ["Ongoing"]
        assert broker.abort_transaction("x")
        assert not broker.abort_transaction("x")
        with pytest.raises(ProducerFencedError):
            producer.commit_transaction()
    assert seen(broker) == []


def test_producers_commit_side_by_side(broker):
    def work(name):
        with broker.producer(transactional_id=name) as producer:
            for number in range(20):
                with producer.transaction() as transaction:
                    for partition in range(3):
                        transaction.send("t", f"{name}{number}".encode(), partition=partition)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert seen(broker) == sorted(f"{name}{number}".encode() for name in "abcd" for number in range(20) for _ in range(3))
