"""Groups of consumers in threads and tasks of their own, by the real clock."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import warnings
from collections import Counter

import pytest

import logstore
from logstore.errors import CommitFailedError

# Seconds. The broker's least session timeout is lowered for these tests.
TIMES = {"session_timeout": 0.4, "heartbeat_interval": 0.05}


@pytest.fixture
def broker(tmp_path):
    with logstore.open(tmp_path / "data", durability="appended", group_min_session_timeout_ms=100) as opened:
        opened.create_topic("t", partitions=6)
        yield opened


def until(condition, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


class Done:
    """What was handed to whom; thread-safe."""

    def __init__(self) -> None:
        self.times: Counter[tuple[int, int]] = Counter()
        self.last: dict[tuple[str, int], int] = {}
        self.lock = threading.Lock()

    def take(self, name: str, record) -> None:
        with self.lock:
            self.times[record.partition, record.offset] += 1
            # In order within a partition, unless it has been somebody else's in between and begins anew.
            self.last[name, record.partition] = record.offset

    def has_all(self, broker) -> bool:
        with self.lock:
            return all(
                self.times[number, offset]
                for number in range(6)
                for offset in range(broker.partition_offsets("t", number)[1])
            )


def append(broker, count: int) -> None:
    topic = broker.topic("t")
    for number in range(count):
        topic.append(b"%d" % number, key=b"%d" % number)


def members(broker, group="g") -> int:
    return len(broker.describe_group(group).members)


@pytest.mark.parametrize("strategy", ["cooperative-sticky", "range"])
@pytest.mark.parametrize("end", ["closed", "thread ends", "collected", "stops polling"])
def test_a_replica_ends_and_the_others_take_over(broker, strategy, end):
    done, leave, stop = Done(), threading.Event(), threading.Event()
    kept, failures = [], []
    # Who is slow on a busy machine must not count as dead where nobody is.
    times = {"max_poll_interval": 60} if end == "closed" else {"max_poll_interval": 0.7, **TIMES}

    def replica(name: str) -> None:
        try:
            consumer = broker.consumer(
                "t", group="g", client_id=name, partition_assignment_strategy=strategy, **times
            )
            while not stop.is_set():
                for record in consumer.poll(0.05):
                    done.take(name, record)
                if name == "r0" and leave.is_set():
                    break
            if name == "r0" and end == "thread ends":
                kept.append(consumer)
                return
            if name == "r0" and end == "stops polling":
                until(stop.is_set)
            if name == "r0" and end == "collected":
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ResourceWarning)
                    del consumer
                    gc.collect()
                return
            consumer.close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=replica, args=(f"r{number}",)) for number in range(3)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: members(broker) == 3 or failures)
        append(broker, 300)
        until(lambda: done.has_all(broker) or failures)
        leave.set()
        append(broker, 300)
        until(lambda: members(broker) == 2 or failures)
        append(broker, 300)
        until(lambda: done.has_all(broker) or failures)
    finally:
        stop.set()
        for thread in threads:
            thread.join(120)
        for consumer in kept:
            consumer.close()
    assert not failures, failures
    assert not any(thread.is_alive() for thread in threads)
    if end == "closed":
        assert set(done.times.values()) == {1}, "nobody died, so nothing came twice"
    assert members(broker) == 0
    committed = broker.coordinator.committed_offsets("g")
    assert {place.partition: entry.offset for place, entry in committed.items()} == {
        number: broker.partition_offsets("t", number)[1] for number in range(6)
    }


def test_tasks_share_a_group(broker):
    done = Done()

    async def replica(name: str, leaves_after: int | None = None) -> None:
        count = 0
        async with broker.consumer("t", group="g", client_id=name, **TIMES) as consumer:
            async for record in consumer:
                done.take(name, record)
                count += 1
                if count == leaves_after:
                    return

    async def main() -> None:
        tasks = [
            asyncio.create_task(replica("a", leaves_after=50)),
            asyncio.create_task(replica("b")),
            asyncio.create_task(replica("c")),
        ]
        for _ in range(10):
            append(broker, 60)
            await asyncio.sleep(0.02)
        async with asyncio.timeout(20):
            while not done.has_all(broker):
                await asyncio.sleep(0.01)
        assert tasks[0].done()
        for task in tasks[1:]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())
    assert members(broker) == 0
    assert {name for name, _ in done.last} == {"a", "b", "c"}


def test_who_waits_for_records_is_no_dead_member(broker):
    """Waiting in a poll, or in an iteration, for longer than max_poll_interval: the timer nudges, and it sleeps on."""
    with broker.consumer("t", group="g", max_poll_interval=0.5, **TIMES) as consumer:
        consumer.poll()
        generation = broker.coordinator.describe_group("g").generation
        threading.Timer(0.9, append, (broker, 1)).start()
        assert len(consumer.poll(5.0)) == 1
        threading.Timer(0.9, append, (broker, 1)).start()
        assert next(iter(consumer)).value == b"0"
        consumer.commit()
        assert broker.coordinator.describe_group("g").generation == generation


def test_a_rebalance_reaches_a_sleeping_member_at_once(broker):
    """By the coordinator's word, not by the next heartbeat."""
    slow = {"session_timeout": 600, "heartbeat_interval": 200}
    with broker.consumer("t", group="g", **slow) as first:
        first.poll()
        assert len(first.assignment()) == 6
        polled = threading.Thread(target=first.poll, args=(120.0,))
        polled.start()
        began = time.monotonic()
        with broker.consumer("t", group="g", **slow) as second:
            while len(second.assignment()) != 3:
                second.poll(0.01)
            assert time.monotonic() - began < 60
            for number in range(6):
                broker.topic("t").partition(number).append(b"x")
            polled.join(120)
            assert len(first.assignment()) == 3


def test_a_slow_handler_loses_its_place_and_is_told(broker):
    with broker.consumer("t", group="g", max_poll_interval=1, **TIMES) as slow:
        append(broker, 10)
        assert slow.poll()
        until(lambda: members(broker) == 0)
        with pytest.raises(CommitFailedError, match="max_poll_interval"):
            slow.commit()
        found = set()
        while len(found) < 10:  # it joins again, and nothing was lost
            found.update((record.partition, record.offset) for record in slow.poll(120))
        slow.commit()


def test_many_groups_in_many_threads(broker):
    """Eight threads join, read, and leave groups of two at the same time; each group is handed everything, once."""
    append(broker, 200)
    found: list[list[int]] = [[] for _ in range(8)]
    failures = []

    def count(group: int) -> int:
        return sum(found[2 * group]) + sum(found[2 * group + 1])

    def read(number: int) -> None:
        try:
            end = time.monotonic() + 120
            for stay in (200, 200, 1):
                with broker.consumer("t", group=f"g{number // 2}") as consumer:
                    for _ in range(10):
                        found[number].append(len(consumer.poll(0.01, max_records=stay)))
                    while stay == 1 and count(number // 2) < 200 and time.monotonic() < end:
                        found[number].append(len(consumer.poll(0.01)))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not failures, failures
    assert [count(group) for group in range(4)] == [200] * 4
    assert broker.coordinator.list_groups(["Stable"]) == []
