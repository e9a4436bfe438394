"""A producer in an event loop: awaiting, batching across tasks, cancellation, a slow disk."""

from __future__ import annotations

import asyncio
import time
from itertools import chain

import pytest
from producer_brokers import GatedBroker, RefusingBroker

import logstore
from logstore.errors import DeliveryFailedError, StorageFailureError


@pytest.fixture(params=["appended", "flushed"])
def broker(tmp_path, request):
    with logstore.open(tmp_path / "data", durability=request.param) as broker:
        broker.create_topic("orders", partitions=2)
        yield broker


def run(main):
    return asyncio.run(asyncio.wait_for(main, 20))


def values_of(broker, partition=0):
    return [record.value for record in broker.topic("orders").read(partition=partition)]


def test_await_send(broker):
    async def main():
        async with broker.producer(linger_ms="1h") as producer:
            for number in range(5):
                metadata = await producer.send("orders", b"%d" % number, partition=0)
                assert metadata.offset == number
            future = producer.send("orders", b"5", partition=0)
            assert (await future, await future) == (future.result(), future.result())
        with pytest.raises(logstore.ClosedError):
            producer.send("orders", b"late")

    run(main())
    assert values_of(broker) == [b"0", b"1", b"2", b"3", b"4", b"5"]


def test_tasks_of_one_turn_share_a_batch(broker):
    between = RefusingBroker(broker)

    async def main():
        async with between.producer(linger_ms="1h") as producer:
            return await asyncio.gather(*(producer.send("orders", b"%d" % i, partition=i % 2) for i in range(100)))

    found = run(main())
    assert [metadata.offset for metadata in found] == [i // 2 for i in range(100)]
    assert len(between.produced) == 2


@pytest.mark.fault(38, "a slow disk")
def test_the_loop_goes_on_while_the_disk_works(broker):
    between = GatedBroker(broker, produce=False)

    async def main():
        async with between.producer(durability="flushed", buffer_memory=5000) as producer:
            sends = [asyncio.ensure_future(wait_for(producer.send("orders", bytes(1000), partition=0))) for _ in range(20)]
            for _ in range(50):
                await asyncio.sleep(0)
            assert await asyncio.to_thread(between.is_reached.wait, 10)
            began = time.monotonic()
            await asyncio.sleep(0.01)
            assert time.monotonic() - began < 5
            assert not any(task.done() for task in sends)
            between.gate.set()
            assert sorted([(await task).offset for task in sends]) == list(range(20))

    run(main())


async def wait_for(future):
    return await future


def test_cancelling_an_await_neither_loses_nor_doubles_the_record(broker):
    async def main():
        async with broker.producer(linger_ms="1h") as producer:
            future = producer.send("orders", b"0", partition=0)
            task = asyncio.ensure_future(wait_for(future))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await producer.send("orders", b"1", partition=0)).offset == 1
            assert (await future).offset == 0
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(wait_for(producer.send("orders", b"2", partition=0)), 0)

    run(main())
    assert values_of(broker) == [b"0", b"1", b"2"]


def test_drain_waits_for_everything_and_tells_failures(broker):
    between = RefusingBroker(broker)

    async def main():
        async with between.producer(linger_ms="1h") as producer:
            futures = [producer.send("orders", b"%d" % i, b"%d" % i) for i in range(100)]
            await producer.drain()
            assert all(future.done() for future in futures)
            between.errors = [StorageFailureError("/a", "write", 5)]
            lost = producer.send("orders", b"x", partition=0)
            with pytest.raises(DeliveryFailedError, match="orders-0: 1"):
                await producer.drain()
            with pytest.raises(StorageFailureError):
                await lost

    run(main())


def test_leaving_delivers_and_tells_failures(broker):
    between = RefusingBroker(broker)

    async def main():
        async with between.producer(linger_ms="1h") as producer:
            producer.send("orders", b"a", partition=0)
        between.errors = [StorageFailureError("/a", "write", 5)]
        with pytest.raises(DeliveryFailedError):
            async with between.producer(linger_ms="1h") as producer:
                producer.send("orders", b"b", partition=0)

    run(main())
    assert values_of(broker) == [b"a"]


def test_a_producer_of_threads_can_be_awaited_and_closed_twice(broker):
    async def main():
        producer = broker.producer(linger_ms="1h")
        assert (await producer.send("orders", b"a", partition=0)).offset == 0
        await producer.aclose()
        await producer.aclose()
        producer.close()

    run(main())


def test_a_loop_that_ended_with_a_record_unsent(broker):
    with broker.producer(linger_ms="1h") as producer:

        async def main():
            task = asyncio.ensure_future(wait_for(producer.send("orders", b"a", partition=0)))
            await asyncio.sleep(0)
            task.cancel()

        asyncio.run(main())
        asyncio.run(main())
    assert values_of(broker) == [b"a", b"a"]


def test_several_loops_in_threads(broker):
    async def main(producer):
        return [(await producer.send("orders", b"x", partition=0)).offset for _ in range(20)]

    async def together():
        with broker.producer() as producer:
            return await asyncio.gather(*(asyncio.to_thread(asyncio.run, main(producer)) for _ in range(3)))

    found = run(together())
    assert sorted(chain(*found)) == list(range(60))
    assert all(offsets == sorted(offsets) for offsets in found)
