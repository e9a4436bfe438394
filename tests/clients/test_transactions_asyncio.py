"""Transactions of tasks: as those of threads, and the event loop goes on while they end."""

from __future__ import annotations

import asyncio
import threading

import pytest

import logstore
from logstore.errors import InvalidTxnStateError, ProducerFencedError, TransactionAbortedError

SECONDS = 120


@pytest.fixture
def broker(tmp_path):
    with logstore.open(tmp_path / "data", durability="appended") as broker:
        broker.create_topic("t", partitions=2)
        broker.create_topic("in")
        yield broker


@pytest.fixture
def gate(broker, monkeypatch):
    """Holds the end of a transaction up, in whatever thread it runs, until it is opened."""

    class Gate:
        reached = threading.Event()
        opened = threading.Event()

    coordinator = broker.transaction_coordinator
    real = coordinator.end_transaction

    def end_transaction(*arguments):
        Gate.reached.set()
        assert Gate.opened.wait(SECONDS), "the event loop does not go on"
        return real(*arguments)

    monkeypatch.setattr(coordinator, "end_transaction", end_transaction)
    return Gate


def seen(broker):
    return sorted(record.value for record in broker.topic("t").read(isolation_level="read_committed"))


async def until(condition):
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it does not come to this")


def test_commit(broker):
    async def run():
        async with broker.producer(transactional_id="x") as producer:
            for number in range(3):
                async with producer.transaction() as transaction:
                    sent = transaction.send("t", b"%d" % number, partition=0)
                    transaction.send_offsets({("in", 0): number}, "g")
                assert (await sent).offset == 2 * number
        return producer.producer_epoch

    assert asyncio.run(run()) == 3
    assert seen(broker) == [b"0", b"1", b"2"]
    assert broker.coordinator.committed_offsets("g")["in", 0].offset == 2


def test_the_event_loop_goes_on_meanwhile(broker, gate):
    async def run():
        async with broker.producer(transactional_id="x") as producer:

            async def commit():
                async with producer.transaction() as transaction:
                    transaction.send("t", b"a", partition=0)

            task = asyncio.ensure_future(commit())
            await until(gate.reached.is_set)
            assert not task.done()
            assert seen(broker) == []
            with pytest.raises(InvalidTxnStateError):
                producer.send("t", b"late", partition=0)
            gate.opened.set()  # by the loop itself: were it blocked, nobody would
            await task

    asyncio.run(run())
    assert seen(broker) == [b"a"]


def test_a_block_that_raises_aborts(broker):
    async def run():
        async with broker.producer(transactional_id="x", linger_ms="1h") as producer:
            with pytest.raises(ZeroDivisionError):  # noqa: PT012
                async with producer.transaction() as transaction:
                    appended = transaction.send("t", b"a", partition=0)
                    await appended
                    waiting = transaction.send("t", b"b", partition=1)
                    raise ZeroDivisionError
            with pytest.raises(TransactionAbortedError):
                await waiting
            async with producer.transaction() as transaction:
                transaction.send("t", b"c", partition=0)

    asyncio.run(run())
    assert seen(broker) == [b"c"]


def test_a_task_that_is_cancelled_within_the_block_aborts(broker):
    async def run():
        async with broker.producer(transactional_id="x") as producer:

            async def work():
                async with producer.transaction() as transaction:
                    await transaction.send("t", b"a", partition=0)
                    await asyncio.sleep(3600)

            task = asyncio.ensure_future(work())
            await until(lambda: broker.topic("t").partition(0).log_end_offset == 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not producer.in_transaction

    asyncio.run(run())
    assert seen(broker) == []
    assert broker.topic("t").partition(0).open_transactions() == []


def test_a_commit_that_is_cancelled_goes_on_to_its_end(broker, gate):
    async def run():
        async with broker.producer(transactional_id="x") as producer:

            async def commit():
                async with producer.transaction() as transaction:
                    transaction.send("t", b"a", partition=0)

            task = asyncio.ensure_future(commit())
            await until(gate.reached.is_set)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            gate.opened.set()
            await until(lambda: not producer.in_transaction)
            async with producer.transaction() as transaction:
                transaction.send("t", b"b", partition=0)

    asyncio.run(run())
    assert seen(broker) == [b"a", b"b"]


def test_a_producer_that_was_shut_out_learns_of_it(broker):
    async def run():
        async with broker.producer(transactional_id="x") as first, broker.producer(transactional_id="x") as second:
            await first.init_transactions_async()
            with pytest.raises(ProducerFencedError):  # noqa: PT012
                async with first.transaction() as transaction:
                    await transaction.send("t", b"a", partition=0)
                    await second.init_transactions_async()
            async with second.transaction() as transaction:
                transaction.send("t", b"b", partition=0)

    asyncio.run(run())
    assert seen(broker) == [b"b"]


def test_closing_within_a_transaction_aborts_it_beside_the_loop(broker, gate):
    async def run():
        producer = broker.producer(transactional_id="x")
        await producer.init_transactions_async()
        producer.begin_transaction()
        await producer.send("t", b"a", partition=0)
        closing = asyncio.ensure_future(producer.aclose())
        await until(gate.reached.is_set)
        assert not closing.done()
        gate.opened.set()
        await closing

    asyncio.run(run())
    assert seen(broker) == []
    assert broker.topic("t").partition(0).open_transactions() == []
