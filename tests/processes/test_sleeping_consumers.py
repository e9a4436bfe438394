"""Consumers of a broker that only reads, asleep where the writer sees them: they are woken without anybody in between, and
whatever the writer does not signal reaches them all the same."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from running_programs import program, says

import logstore
from logstore import ClosedError, TopicPartition
from logstore.broker.following import Follower
from logstore.storage.directory_lock import DirectoryLock
from logstore.storage.waiting import watch_directories

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: waking readers by shared memory; Linux has it")

TABLE = "logstore.waiting"
# Nothing waits for so long but where something is wrong.
LONG = 30.0
# A flush may write the checkpoint, which is one more change.
NEVER = 2**63 - 1


class Table:
    """What docs/format/waiting.md says of a data directory's table."""

    def __init__(self, directory: str | os.PathLike[str]):
        self._path = Path(directory) / TABLE

    def waiting(self) -> dict[int, list[int]]:
        """The slots that wait, by bucket."""
        words = struct.unpack_from("=256I", self._path.read_bytes(), 1024)
        return {bucket: [slot for slot in range(32) if word >> slot & 1] for bucket, word in enumerate(words) if word}

    def asleep(self) -> int:
        content = self._path.read_bytes()
        slots = {slot for waiting in self.waiting().values() for slot in waiting}
        return sum(struct.unpack_from("=I", content, 4096 + 128 * slot)[0] == 1 for slot in slots)


def eventually(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + LONG
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Any]:
    with logstore.open(tmp_path / "data", durability="appended") as broker:
        broker.create_topic("t", partitions=3, segment_bytes=16384, flush_ms=NEVER)
        if not (tmp_path / "data" / TABLE).exists():
            pytest.skip("NOT TESTED: waking readers by shared memory; this file system may need space to overwrite")
        yield broker


@pytest.fixture
def reader(writer: Any) -> Iterator[Any]:
    with logstore.open(writer.path, read_only=True) as broker:
        yield broker


@pytest.fixture
def aside() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as threads:
        yield threads


def values(future: Future[Any]) -> list[bytes]:
    return [record.value for record in future.result(LONG)]


def take_places(writer: Any, consumer: Any, aside: ThreadPoolExecutor, partitions: int = 3) -> None:
    """Has a consumer of all partitions sleep in the table, alone: the follower has learned that the writer signals."""
    table = Table(writer.path)

    def is_alone() -> bool:
        for partition in range(partitions):
            asleep = aside.submit(consumer.poll, timeout=LONG)
            time.sleep(0.001)
            writer["t"].append(b"first", partition=partition)
            assert values(asleep) == [b"first"]
        waiting = table.waiting()
        return len(waiting) == partitions and all(len(slots) == 1 for slots in waiting.values())

    eventually(is_alone)


def test_the_writer_wakes_it_alone(
    writer: Any, reader: Any, aside: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = []
    with reader.consumer("t", auto_offset_reset="latest") as consumer:
        take_places(writer, consumer, aside)
        look = Follower.look
        monkeypatch.setattr(Follower, "look", lambda *arguments: (looked.append(arguments), look(*arguments)))
        for number in range(30):
            asleep = aside.submit(consumer.poll, timeout=LONG)
            if number % 3 == 0:
                eventually(Table(writer.path).asleep)
            writer["t"].append(b"%d" % number, partition=number % 3)
            assert values(asleep) == [b"%d" % number]
    assert len(looked) <= 6  # what it was signalled before
    assert Table(writer.path).asleep() == 0


def test_rolls_and_new_start_offsets_are_seen(writer: Any, reader: Any, aside: ThreadPoolExecutor) -> None:
    with reader.consumer("t", auto_offset_reset="latest") as consumer:
        take_places(writer, consumer, aside)
        for number in range(60):
            asleep = aside.submit(consumer.poll, timeout=LONG)
            writer["t"].append(b"%03d" % number * 300, partition=1)
            assert values(asleep) == [b"%03d" % number * 300]
        assert len(writer["t"].partition(1).segments) > 2


def test_what_came_while_it_was_busy_is_there(writer: Any, reader: Any, aside: ThreadPoolExecutor) -> None:
    with reader.consumer("t", auto_offset_reset="latest") as consumer:
        take_places(writer, consumer, aside)
        for number in range(300):
            writer["t"].append(b"%d" % number, partition=number % 3)
        found: list[int] = []
        # In a burst, records are in the segment 2 ms after they were acknowledged; none of these polls waits.
        eventually(lambda: found.extend(int(record.value) for record in consumer.poll()) or len(found) >= 300)
        assert sorted(found) == list(range(300))


@pytest.mark.parametrize("how", ["wakeup", "timeout", "close", "topic"])
def test_a_wait_ends_at_once(writer: Any, reader: Any, aside: ThreadPoolExecutor, how: str) -> None:
    started = time.monotonic()
    with reader.consumer(auto_offset_reset="latest") as consumer:
        consumer.subscribe(pattern="t.*")
        take_places(writer, consumer, aside)
        asleep = aside.submit(consumer.poll, timeout=0.05 if how == "timeout" else LONG)
        if how != "timeout":
            eventually(Table(writer.path).asleep)
        if how == "wakeup":
            consumer.wakeup()
        elif how == "close":
            reader.close()
            with pytest.raises(ClosedError):
                asleep.result(LONG)
            return
        elif how == "topic":
            writer.create_topic("two").append(b"of another topic")
            assert values(asleep) == [b"of another topic"]
            assert TopicPartition("two", 0) in consumer.assignment()
            return
        assert asleep.result(LONG) == []
        assert time.monotonic() - started < LONG / 2


def test_in_an_event_loop(writer: Any, reader: Any, aside: ThreadPoolExecutor) -> None:
    async def polls(consumer: Any) -> None:
        for number in range(20):
            asleep = asyncio.ensure_future(consumer.poll_async(timeout=LONG))
            await asyncio.sleep(0.001 * (number % 3))
            writer["t"].append(b"%d" % number, partition=number % 3)
            assert [record.value for record in await asleep] == [b"%d" % number]

    with reader.consumer("t", auto_offset_reset="latest") as consumer:
        take_places(writer, consumer, aside)
        asyncio.run(polls(consumer))
        asleep = aside.submit(consumer.poll, timeout=LONG)  # from then on the follower tells it
        writer["t"].append(b"last", partition=0)
        assert values(asleep) == [b"last"]


def test_several_in_a_process(writer: Any, reader: Any, aside: ThreadPoolExecutor) -> None:
    def all_get(number: int, consumers: list[Any]) -> None:
        asleep = [aside.submit(consumer.poll, timeout=LONG) for consumer in consumers]
        writer["t"].append(b"%d" % number, partition=number % 3)
        assert [values(each) for each in asleep] == [[b"%d" % number]] * len(consumers)

    with contextlib.ExitStack() as stack:
        first, second, third = (stack.enter_context(reader.consumer("t", auto_offset_reset="latest")) for _ in range(3))
        for number in range(15):
            all_get(number, [first, second, third])
        second.close()
        for number in range(15, 30):
            all_get(number, [first, third])
        fourth = stack.enter_context(reader.consumer("t", auto_offset_reset="latest"))
        for number in range(30, 45):
            all_get(number, [first, third, fourth])
        first.unsubscribe()
        first.subscribe("t")
        first.seek_to_end()
        assert first.poll() == []
        for number in range(45, 60):
            all_get(number, [first, third, fourth])


def test_more_than_there_are_places(writer: Any, reader: Any, aside: ThreadPoolExecutor) -> None:
    paths = [writer["t"].partition(number).path for number in range(3)]
    watches = [watch_directories(paths, writer.path) for _ in range(32)]
    try:
        for watch in watches:
            watch.wait(0)
        with reader.consumer("t", auto_offset_reset="latest") as consumer:
            for number in range(10):
                asleep = aside.submit(consumer.poll, timeout=LONG)
                writer["t"].append(b"%d" % number, partition=number % 3)
                assert values(asleep) == [b"%d" % number]
    finally:
        for watch in watches:
            watch.close()


# ---- writers that come and go ---------------------------------------------------------------------------


def older_writer(monkeypatch: pytest.MonkeyPatch, path: str) -> Any:
    """One that knows nothing of who waits."""
    with monkeypatch.context() as patch:
        patch.setattr(DirectoryLock, "waiting_readers", lambda lock: None)
        return logstore.open(path, durability="appended")


def goes_on(broker: Any, consumer: Any, aside: ThreadPoolExecutor, tag: bytes) -> None:
    for number in range(12):
        asleep = aside.submit(consumer.poll, timeout=LONG)
        if number % 4 == 0:
            time.sleep(0.02)
        broker["t"].append(tag + b"%d" % number, partition=number % 3)
        assert values(asleep) == [tag + b"%d" % number]


def test_a_writer_that_does_not_signal_is_noticed(
    writer: Any, reader: Any, aside: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    with reader.consumer("t", auto_offset_reset="latest") as consumer:
        take_places(writer, consumer, aside)
        writer.close()
        with older_writer(monkeypatch, reader.path) as older:
            goes_on(older, consumer, aside, b"older")
        with logstore.open(reader.path, durability="appended") as newer:
            goes_on(newer, consumer, aside, b"newer")
            take_places(newer, consumer, aside)


def test_another_table_in_its_place(writer: Any, reader: Any, aside: ThreadPoolExecutor) -> None:
    with reader.consumer("t", auto_offset_reset="latest") as consumer:
        take_places(writer, consumer, aside)
        os.unlink(os.path.join(writer.path, TABLE))
        goes_on(writer, consumer, aside, b"same")
        writer.close()
        for number in range(2):
            with logstore.open(reader.path, durability="appended") as newer:
                goes_on(newer, consumer, aside, b"newer")
                take_places(newer, consumer, aside)
            if number == 0:
                os.unlink(os.path.join(reader.path, TABLE))


WRITER = """
    import sys, logstore
    broker = logstore.open(sys.argv[1], durability="appended")
    topic = broker.create_topic("t", partitions=3, exist_ok=True)
    print("open", flush=True)
    for number, line in enumerate(sys.stdin):
        topic.append(line.strip().encode(), partition=number % 3)
"""


def test_a_killed_writer_is_followed_by_one_that_does_not_signal(
    tmp_path: Path, aside: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    with program(WRITER, tmp_path) as process:
        assert says(process) == "open"
        with logstore.open(tmp_path, read_only=True) as reader, reader.consumer("t") as consumer:
            for number in range(30):
                asleep = aside.submit(consumer.poll, timeout=LONG)
                print(number, file=process.stdin)
                assert values(asleep) == [b"%d" % number]
            process.kill()
            process.wait()
            with older_writer(monkeypatch, reader.path) as older:
                goes_on(older, consumer, aside, b"older")


# ---- readers that come and go ---------------------------------------------------------------------------

READER = """
    import signal, sys, logstore
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin with it ignored
    with logstore.open(sys.argv[1], read_only=True) as broker, broker.consumer("t") as consumer:
        print("reads", flush=True)
        try:
            for record in consumer:
                print(record.partition, record.offset, record.value.decode(), flush=True)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
"""


def test_none_is_late_out_of_order_or_missing(writer: Any) -> None:
    """Each burst is waited for before the next one: whatever is missed is missed for good."""
    chance = random.Random(9)
    sent = [0, 0, 0]
    with program(READER, writer.path) as process:
        assert says(process) == "reads"
        for _ in range(700):
            expected = set()
            for _ in range(chance.choice([1, 1, 1, 2, 5])):
                partition = chance.randrange(3)
                value = "x" * chance.choice([1, 100, 3000])
                writer["t"].append(value.encode(), partition=partition)
                expected.add((partition, sent[partition], value))
                sent[partition] += 1
                if chance.random() < 0.2:
                    time.sleep(0.0003)
            seen = []
            for _ in expected:
                partition, offset, value = says(process).split()
                seen.append((int(partition), int(offset), value))
            assert set(seen) == expected
            for partition in range(3):
                offsets = [offset for number, offset, _ in seen if number == partition]
                assert offsets == sorted(offsets)


def test_a_killed_reader_leaves_its_place(writer: Any) -> None:
    for _ in range(3):
        with program(READER, writer.path) as process:
            assert says(process) == "reads"
            eventually(Table(writer.path).asleep)
            offset = writer["t"].append(b"to it", partition=0)
            lines = [says(process) for _ in range(offset + 1)]
            assert lines[-1] == f"0 {offset} to it"
        writer["t"].append(b"to nobody", partition=0)
        assert Table(writer.path).waiting()  # which costs a wake-up in vain
    path = writer.path
    writer.close()
    with logstore.open(path):
        assert not Table(path).waiting()


def test_ctrl_c_interrupts_the_wait(writer: Any) -> None:
    with program(READER, writer.path) as process:
        assert says(process) == "reads"
        writer["t"].append(b"1", partition=2)
        assert says(process) == "2 0 1"
        eventually(Table(writer.path).asleep)
        process.send_signal(signal.SIGINT)
        assert says(process) == "interrupted"


def test_a_forked_child_leaves_the_parents_place_alone(writer: Any, reader: Any, aside: ThreadPoolExecutor) -> None:
    with reader.consumer("t", auto_offset_reset="latest") as consumer:
        take_places(writer, consumer, aside)
        before = Table(writer.path).waiting()
        child = os.fork()
        if child == 0:  # pragma: no cover
            with contextlib.suppress(BaseException):
                for _ in range(5):
                    consumer.wakeup()
                    consumer.poll(timeout=0.02)
            with contextlib.suppress(BaseException):
                consumer.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert Table(writer.path).waiting() == before
        goes_on(writer, consumer, aside, b"parent")


def test_idle_waiting_takes_no_time(writer: Any, reader: Any, aside: ThreadPoolExecutor) -> None:
    with reader.consumer("t", auto_offset_reset="latest") as consumer:
        take_places(writer, consumer, aside)
        asleep = aside.submit(consumer.poll, timeout=LONG)
        eventually(Table(writer.path).asleep)
        started = time.process_time()
        threading.Event().wait(0.3)
        assert time.process_time() - started < 0.1
        writer["t"].append(b"x", partition=0)
        assert values(asleep) == [b"x"]
