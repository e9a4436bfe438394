"""Waiting: no wake-up is lost, no processor time goes by, Ctrl-C returns at once, and event loops stay free."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

import logstore
from logstore import ClosedError, InvalidRequestError
from logstore._native.wakeup import Wakeup


@pytest.fixture
def broker(tmp_path):
    with logstore.open(tmp_path / "data", durability="appended") as opened:
        yield opened


@pytest.fixture
def orders(broker):
    return broker.create_topic("orders", partitions=2)


def test_a_notification_is_kept_until_it_is_waited_for():
    wakeup = Wakeup()
    assert not wakeup.wait(0)
    wakeup.notify()
    wakeup.notify()
    assert wakeup.wait()
    assert not wakeup.wait(0.001)
    wakeup.notify()
    assert wakeup.clear()
    assert not wakeup.clear()
    assert not wakeup.wait(0)


def test_a_listener_hears_of_what_came_before():
    wakeup = Wakeup()
    heard = []
    wakeup.notify()
    wakeup.listen(lambda: heard.append("before"))
    wakeup.notify()
    assert heard == ["before"]
    wakeup.clear()
    wakeup.notify()
    assert heard == ["before"] * 2
    wakeup.listen(None)
    wakeup.clear()
    wakeup.notify()
    assert len(heard) == 2


def test_a_wait_ends_in_time():
    started = time.monotonic()
    assert not Wakeup().wait(0.05)
    assert 0.05 <= time.monotonic() - started < 5


@pytest.mark.parametrize("how", ["iterate", "poll", "fetch", "columns"])
def test_no_wake_up_is_lost(broker, orders, how):
    """Each side waits for the other, record by record: a single lost wake-up would hang it."""
    rounds = 1500
    seen = threading.Semaphore(0)

    def append():
        for number in range(rounds):
            orders.append(b"%d" % number, partition=number % 2)
            assert seen.acquire(timeout=120), number

    with broker.consumer("orders", consumer_timeout=120) as consumer:
        appender = threading.Thread(target=append)
        appender.start()
        for number in range(rounds):
            if how == "iterate":
                value = next(consumer).value
            elif how == "poll":
                value = consumer.poll(timeout=120)[0].value
            elif how == "fetch":
                value = next(iter(consumer.fetch(timeout=120)[0])).value
            else:
                value = consumer.fetch_columns(timeout=120)[0].value(0)
            assert int(value) == number
            seen.release()
        appender.join()


def test_what_was_cut_off_meanwhile_is_not_handed_out(broker, orders):
    """The batch that a writer keeps for those who wait is one of a log that may be cut since."""
    with broker.consumer("orders", consumer_timeout=0) as consumer:
        log = orders.partition(0)
        for number in range(20):
            orders.append(b"gone", partition=0)
            log.truncate_to(number)
            assert list(consumer) == []
            orders.append(b"kept", partition=0)
            assert [(record.offset, record.value) for record in consumer] == [(number, b"kept")]


@pytest.mark.parametrize("size", [100, 16_000, 17_000, 600_000])
def test_batches_of_any_size_come_to_one_who_waits(broker, size):
    topic = broker.create_topic("large", segment_bytes=1 << 20)
    with broker.consumer("large", consumer_timeout=0) as consumer:
        for number in range(6):
            topic.append(b"%d" % number * size)
            (record,) = consumer
            assert record.value == b"%d" % number * size


def test_many_appenders_and_one_consumer(broker, orders):
    count = 3000

    def append(partition):
        for number in range(count):
            orders.append(b"%d" % number, partition=partition)

    with broker.consumer("orders", consumer_timeout=120) as consumer:
        threads = [threading.Thread(target=append, args=[partition]) for partition in range(2)]
        for thread in threads:
            thread.start()
        expected = [0, 0]
        for _ in range(2 * count):
            record = next(consumer)
            assert record.offset == int(record.value) == expected[record.partition]
            expected[record.partition] += 1
        for thread in threads:
            thread.join()


def test_waiting_takes_no_processor_time(broker, orders):
    with broker.consumer("orders") as consumer:
        consumer.poll()
        before = time.thread_time()
        assert consumer.poll(timeout=0.4) == []
        assert time.thread_time() - before < 0.02


def test_a_paused_partition_does_not_keep_a_wait_awake(broker, orders):
    with broker.consumer("orders") as consumer:
        consumer.pause(("orders", 0))
        stop = threading.Event()

        def append():
            while not stop.wait(0.001):
                orders.append(b"x", partition=0)

        appender = threading.Thread(target=append)
        appender.start()
        before = time.thread_time()
        assert consumer.poll(timeout=0.3) == []
        assert time.thread_time() - before < 0.05
        stop.set()
        appender.join()
        consumer.resume(("orders", 0))
        assert consumer.poll(timeout=120)


CTRL_C = """
    import signal, sys, time, logstore
    with logstore.open(sys.argv[1]) as broker:
        broker.create_topic("orders", exist_ok=True)
        with broker.consumer("orders") as consumer:
            print("waiting", flush=True)
            try:
                {call}
            except KeyboardInterrupt:
                print(time.monotonic_ns(), flush=True)
            broker["orders"].append(b"after")
            print(consumer.poll(timeout=120)[0].value.decode(), flush=True)
"""


@pytest.mark.parametrize(
    "call", ["consumer.poll(timeout=60)", "next(consumer)", "consumer.fetch(None)", "consumer.fetch_columns(60)"]
)
def test_ctrl_c_returns_at_once(tmp_path, call):
    program = textwrap.dedent(CTRL_C).replace("{call}", call)
    with subprocess.Popen(
        [sys.executable, "-c", program, tmp_path / "data"], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        time.sleep(0.2)
        sent = time.monotonic_ns()
        process.send_signal(signal.SIGINT)
        assert int(process.stdout.readline()) - sent < 1_000_000_000
        assert process.stdout.readline() == "after\n"
        assert process.wait(120) == 0


# ---- asyncio ----------------------------------------------------------------------------------------


def test_async_iteration_takes_everything_in_order(broker, orders):
    orders.append_many([b"%d" % number for number in range(5000)], partition=0)

    async def read():
        async with broker.consumer("orders", consumer_timeout=0) as consumer:
            return [record.offset async for record in consumer]

    assert asyncio.run(read()) == list(range(5000))


def test_an_event_loop_stays_free_while_a_consumer_waits(broker, orders):
    async def read():
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                ticks += 1
                if ticks == 5:
                    orders.append(b"late")
                await asyncio.sleep(0.005)

        ticking = asyncio.create_task(tick())
        async with broker.consumer("orders") as consumer:
            (record,) = await consumer.poll_async(timeout=120)
        ticking.cancel()
        return record.value, ticks

    value, ticks = asyncio.run(read())
    assert value == b"late"
    assert ticks >= 5


def test_an_event_loop_has_its_turn_while_records_are_there(broker, orders):
    orders.append_many([b"x" * 100] * 20_000)

    async def read():
        others = 0

        async def other():
            nonlocal others
            while True:
                others += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        async with broker.consumer("orders", consumer_timeout=0) as consumer:
            count = sum([1 async for _ in consumer])
        task.cancel()
        return count, others

    count, others = asyncio.run(read())
    assert count == 20_000
    assert others >= 10


def test_a_thread_wakes_an_event_loop(broker, orders):
    async def read():
        async with broker.consumer("orders") as consumer:
            for number in range(200):
                appender = threading.Thread(target=orders.append, args=[b"%d" % number])
                appender.start()
                record = await asyncio.wait_for(anext(consumer), 20)
                assert int(record.value) == number
                appender.join()

    asyncio.run(read())


async def one(consumer):
    return [await anext(consumer)]


async def several(consumer):
    return await consumer.poll_async()


@pytest.mark.parametrize("wait", [one, several])
def test_cancelling_a_wait_loses_nothing(broker, orders, wait):
    async def read():
        seen = []
        cancelled = 0
        async with broker.consumer("orders") as consumer:
            for number in range(100):
                waiting = asyncio.ensure_future(wait(consumer))
                for _ in range(number % 3):
                    await asyncio.sleep(0)
                orders.append(b"%d" % number)
                for _ in range(number % 2):
                    await asyncio.sleep(0)  # it is about to wake
                waiting.cancel()
                try:
                    seen += await waiting
                except asyncio.CancelledError:
                    cancelled += 1
            seen += consumer.poll()
        return seen, cancelled

    seen, cancelled = asyncio.run(read())
    assert sorted(int(record.value) for record in seen) == list(range(100))
    assert cancelled > 10


def test_a_timeout_of_zero_loses_nothing(broker, orders):
    async def read():
        orders.append(b"first")
        async with broker.consumer("orders") as consumer:
            try:
                return await asyncio.wait_for(anext(consumer), 0)
            except TimeoutError:
                return consumer.poll()[0]

    assert asyncio.run(read()).value == b"first"


def test_one_that_is_never_awaited_takes_nothing(broker, orders):
    orders.append(b"first")

    async def read():
        async with broker.consumer("orders") as consumer:
            anext(consumer)
            consumer.__anext__()
            return (await anext(consumer)).value

    assert asyncio.run(read()) == b"first"


def test_a_second_task_is_refused(broker, orders):
    async def read():
        async with broker.consumer("orders") as consumer:
            waiting = asyncio.create_task(consumer.poll_async())
            await asyncio.sleep(0)
            for call in (consumer.poll_async(), anext(consumer)):
                with pytest.raises(InvalidRequestError, match="one thread or task"):
                    await call
            consumer.seek_to_end()
            consumer.wakeup()
            return await waiting

    assert asyncio.run(read()) == []


def test_timeouts_and_wakeups_end_async_waits(broker, orders):
    async def read():
        async with broker.consumer("orders", consumer_timeout=0.02) as consumer:
            started = time.monotonic()
            assert await consumer.poll_async(timeout=0.02) == []
            assert await consumer.fetch_async(timeout=0.02) == []
            assert await consumer.fetch_columns_async(timeout=0.02) == []
            assert [record async for record in consumer] == []
            assert time.monotonic() - started >= 0.08
            asyncio.get_running_loop().call_later(0.02, consumer.wakeup)
            assert await consumer.poll_async() == []
            orders.append(b"1")
            assert [batch.records_count for batch in await consumer.fetch_async()] == [1]
            orders.append(b"2")
            assert [columns.values() for columns in await consumer.fetch_columns_async()] == [[b"2"]]

    asyncio.run(read())


def test_closing_the_broker_ends_async_waits(tmp_path):
    broker = logstore.open(tmp_path / "data")
    broker.create_topic("orders")

    async def read():
        async with broker.consumer("orders") as consumer:
            asyncio.get_running_loop().call_later(0.02, broker.close)
            with pytest.raises(ClosedError):
                await consumer.poll_async()

    asyncio.run(read())
