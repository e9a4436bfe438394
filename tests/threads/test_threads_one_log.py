"""Many writers and readers over one log and one topic: nothing lost, doubled, torn or out of order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import logstore

WRITERS, RECORDS = 6, 300
LEVELS = ("flushed", "appended", "buffered")


def run_all(*steps: Callable[[], object], timeout: float = 60) -> None:
    """Runs each in a thread; raises the first thread's exception."""
    failures: list[BaseException] = []

    def guarded(step: Callable[[], object]) -> None:
        try:
            step()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(step,), daemon=True) for step in steps]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + timeout
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0.1))
    if failures:
        raise failures[0]
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"


def value_of(writer: int, number: int) -> bytes:
    return b"%d/%d/" % (writer, number) + bytes([65 + number % 26]) * (number % 90)


def check_whole(values: list[bytes], writers: int, records: int) -> None:
    """All records of each writer, once, whole, in its order."""
    seen = [0] * writers
    for value in values:
        writer, number, _ = value.split(b"/")
        assert value == value_of(int(writer), int(number)), "torn"
        assert int(number) == seen[int(writer)], f"writer {int(writer)}: {int(number)} after {seen[int(writer)] - 1}"
        seen[int(writer)] += 1
    assert seen == [records] * writers


@pytest.fixture
def log(tmp_path: Path):
    with logstore.open(tmp_path / "data", durability="appended") as broker:
        yield broker.create_topic("t", segment_bytes=16384, index_interval_bytes=512).partition(0)


def write(log, writer: int, records: int = RECORDS) -> None:
    number = 0
    while number < records:
        level = LEVELS[(number + writer) % 3] if number % 20 == 0 else LEVELS[1 + number % 2]
        if number % 10 == 9:
            count = min(7, records - number)
            log.append_many([value_of(writer, number + i) for i in range(count)], durability=level)
            number += count
        else:
            log.append(value_of(writer, number), durability=level)
            number += 1


@pytest.mark.fault(22, "readers at the end while it grows or is cut")
@pytest.mark.fault(27, "many threads on one log")
def test_writers_of_all_levels_and_readers_that_follow(log) -> None:
    total = WRITERS * RECORDS
    followed: list[list[bytes]] = [[], []]

    def follow(into: list[bytes]) -> None:
        offset = -1
        with log.read(follow=True, timeout=20) as reader:
            for record in reader:
                assert record.offset == offset + 1
                offset = record.offset
                into.append(record.value)
                if offset == total - 1:
                    return

    def read_again_and_again() -> None:
        count = 0
        while count < total:
            offsets = [record.offset for record in log.read()]
            assert offsets == list(range(len(offsets)))
            assert len(offsets) >= count, "what was read once stays"
            count = len(offsets)

    def scan_again_and_again() -> None:
        rows = 0
        while rows < total:
            offsets: list[int] = []
            for batch in log.scan():
                offsets += batch.offsets.tolist()
            assert offsets == list(range(len(offsets)))
            rows = len(offsets)

    def look_up() -> None:
        while log.log_end_offset < total:
            if (found := log.offset_for_timestamp(1)) is not None:
                assert found.offset == 0

    def flush_at_the_end() -> None:
        while log.log_end_offset + log.open_batch_records_count < total:
            time.sleep(0.01)
        log.flush()

    run_all(
        *[lambda writer=writer: write(log, writer) for writer in range(WRITERS)],
        *[lambda into=into: follow(into) for into in followed],
        read_again_and_again, scan_again_and_again, look_up, flush_at_the_end,
    )
    check_whole([record.value for record in log.read()], WRITERS, RECORDS)
    for values in followed:
        check_whole(values, WRITERS, RECORDS)
    assert len(log.segments) > 3


@pytest.mark.fault(27, "many threads on one log")
def test_a_topic_of_many_partitions(tmp_path: Path) -> None:
    with logstore.open(tmp_path / "data", durability="appended") as broker:
        topic = broker.create_topic("t", partitions=3, segment_bytes=16384)

        def write_keyed(writer: int) -> None:
            for number in range(RECORDS):
                topic.append(value_of(writer, number), key=b"%d" % writer)

        def flush_now_and_then() -> None:
            for _ in range(20):
                broker.flush()

        run_all(*[lambda writer=writer: write_keyed(writer) for writer in range(WRITERS)], flush_now_and_then)
        check_whole([record.value for record in topic.read()], WRITERS, RECORDS)
        for log in topic.logs:
            assert len({record.key for record in log.read()}) <= WRITERS
    with logstore.open(tmp_path / "data") as broker:
        check_whole([record.value for record in broker.topic("t").read()], WRITERS, RECORDS)
        assert not broker.recovery_reports


@pytest.mark.fault(27, "many threads on one log")
def test_acknowledged_means_flushed_for_each_of_many(log) -> None:
    def write_flushed(writer: int) -> None:
        for number in range(40):
            offset = log.append(value_of(writer, number), durability="flushed")
            assert log.flushed_offset > offset

    run_all(*[lambda writer=writer: write_flushed(writer) for writer in range(WRITERS)])
    check_whole([record.value for record in log.read()], WRITERS, 40)


@pytest.mark.fault(22, "readers at the end while it grows or is cut")
def test_readers_while_the_log_is_truncated(log) -> None:
    """They see a record at its offset, or an error; never one that came later under the same offset."""
    stop = threading.Event()
    log.append_many([b"%d/0" % number for number in range(200)])

    def truncate() -> None:
        try:
            for turn in range(1, 40):
                log.truncate_to(100)
                log.append_many([b"%d/%d" % (100 + number, turn) for number in range(100)])
        finally:
            stop.set()

    def read() -> None:
        while not stop.is_set():
            turns: list[int] = []
            try:
                for position, record in enumerate(log.read()):
                    offset, turn = record.value.split(b"/")
                    assert record.offset == position == int(offset)
                    if position >= 100:
                        turns.append(int(turn))
            except logstore.OffsetOutOfRangeError:  # LogTruncatedError among them
                pass
            assert len(set(turns)) <= 1, f"records of several lives of the log: {set(turns)}"

    run_all(truncate, read, read)


@pytest.mark.fault(21, "readers while segments are deleted or replaced")
def test_readers_while_the_start_advances(log) -> None:
    stop = threading.Event()
    log.append_many([value_of(0, number) for number in range(3000)])
    assert len(log.segments) > 5

    def advance() -> None:
        try:
            for offset in range(0, 3000, 60):
                log.advance_log_start_offset(offset)
        finally:
            stop.set()

    def read() -> None:
        while not stop.is_set():
            try:
                for record in log.read():
                    assert record.value == value_of(0, record.offset)
            except logstore.OffsetOutOfRangeError as error:
                assert error.log_start_offset > 0

    run_all(advance, read, read)
    assert log.log_start_offset == 2940
