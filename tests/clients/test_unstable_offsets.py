"""A consumer of partitions whose offsets a transaction is about to commit: it waits for that alone."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

import logstore
from logstore.clients import consumer_fetching
from logstore.errors import UnstableOffsetCommitError

SECONDS = 120


@pytest.fixture
def broker(tmp_path):
    with logstore.open(tmp_path / "data", durability="appended") as broker:
        topic = broker.create_topic("in", partitions=2)
        for number in range(3):
            for partition in range(2):
                topic.append(b"%d/%d" % (partition, number), partition=partition)
        yield broker


@pytest.fixture
def producer(broker):
    with broker.producer(transactional_id="x") as producer:
        producer.begin_transaction()
        producer.send_offsets_to_transaction({("in", 0): 2}, "g")
        yield producer


def values(records):
    return [record.value for record in records]


def poll_until(consumer, count):
    found = []
    while len(found) < count:
        records = consumer.poll(SECONDS)
        assert records, found
        found += values(records)
    return found


@pytest.mark.parametrize(("end", "rest"), [("commit", [b"0/2"]), ("abort", [b"0/0", b"0/1", b"0/2"])])
def test_it_is_woken_when_the_transaction_ends(broker, producer, monkeypatch, end, rest):
    asked = []
    real = broker.coordinator.committed_offsets
    monkeypatch.setattr(
        broker.coordinator, "committed_offsets", lambda *given, **how: asked.append(given) or real(*given, **how)
    )
    with broker.consumer(group="g") as consumer:
        consumer.assign([("in", 0), ("in", 1)])
        assert poll_until(consumer, 3) == [b"1/0", b"1/1", b"1/2"], "the other partition is read meanwhile"
        assert consumer.poll(0.05) == []
        found = []
        thread = threading.Thread(target=lambda: found.append(values(consumer.poll(SECONDS))))
        thread.start()
        time.sleep(0.1)
        assert not found
        assert len(asked) < 12, "it sleeps meanwhile"
        began = time.monotonic()
        getattr(producer, f"{end}_transaction")()
        thread.join(SECONDS)
        assert found == [rest]
        assert time.monotonic() - began < SECONDS / 2


def test_a_member_of_a_group_waits_as_well(broker, producer):
    with broker.consumer("in", group="h") as consumer:
        producer.send_offsets_to_transaction({("in", 1): 3}, "h")
        assert poll_until(consumer, 3) == [b"0/0", b"0/1", b"0/2"]
        producer.commit_transaction()
        assert consumer.poll(0.1) == []
        assert consumer.position(("in", 1)) == 3


def test_who_asks_for_the_position_waits_for_it(broker, producer, monkeypatch):
    monkeypatch.setattr(consumer_fetching, "UNSTABLE_SECONDS_MAX", 0.05)
    with broker.consumer(group="g") as consumer:
        consumer.assign([("in", 0)])
        with pytest.raises(UnstableOffsetCommitError, match="commits an offset of in-0"):
            consumer.position(("in", 0))
        monkeypatch.setattr(consumer_fetching, "UNSTABLE_SECONDS_MAX", SECONDS)
        timer = threading.Timer(0.05, producer.commit_transaction)
        timer.start()
        assert consumer.position(("in", 0)) == 2
        timer.join()


def test_a_seek_needs_no_committed_offset(broker, producer):
    with broker.consumer(group="g") as consumer:
        consumer.assign([("in", 0)])
        assert consumer.poll(0.02) == []
        consumer.seek(("in", 0), 1)
        assert values(consumer.poll(SECONDS)) == [b"0/1", b"0/2"]


def test_readers_of_everything_do_not_wait(broker, producer):
    with broker.consumer(group="g", isolation_level="read_uncommitted") as consumer:
        consumer.assign([("in", 0)])
        assert values(consumer.poll(SECONDS)) == [b"0/0", b"0/1", b"0/2"]


def test_an_event_loop_goes_on_meanwhile(broker, producer):
    async def run():
        async with broker.consumer(group="g") as consumer:
            consumer.assign([("in", 0)])
            waiting = asyncio.ensure_future(consumer.poll_async(SECONDS))
            for _ in range(5):
                await asyncio.sleep(0.01)
            assert not waiting.done()
            producer.commit_transaction()
            return values(await waiting)

    assert asyncio.run(run()) == [b"0/2"]


def test_closing_the_broker_ends_the_wait(tmp_path):
    broker = logstore.open(tmp_path / "other", durability="appended")
    broker.create_topic("in")
    producer = broker.producer(transactional_id="x")
    producer.begin_transaction()
    producer.send_offsets_to_transaction({("in", 0): 0}, "g")
    consumer = broker.consumer(group="g")
    consumer.assign([("in", 0)])
    failures = []

    def poll():
        try:
            consumer.poll(SECONDS)
        except logstore.ClosedError as error:
            failures.append(error)

    thread = threading.Thread(target=poll)
    thread.start()
    time.sleep(0.05)
    broker.close()
    thread.join(SECONDS)
    assert len(failures) == 1
    consumer.close()
