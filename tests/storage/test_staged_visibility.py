"""When processes that only read see what is staged: soon after the burst, whatever its writer does meanwhile, or dies."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from manual_scheduler import ManualScheduler
from test_open_batch import FILE, NOW_MS, append, value_of

from logstore.storage.cache_mark import boot_id
from logstore.storage.config import TopicConfig
from logstore.storage.flush_scheduler import FlushScheduler
from logstore.storage.log import Log
from logstore.storage.waiting import DirectoryWatch, watch_directories

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or boot_id() is None, reason="NOT TESTED: mapped open batches need Linux"
)

# Nothing but the hand-over shows records to another process.
NEVER_FLUSHED = {"flush_ms": 2**63 - 1, "logstore_open_batch_mapped": True}


@contextmanager
def following(directory: str | Path, count: int) -> Iterator[Callable[[], list[bytes | None]]]:
    """A reader that waits for records; gives what it got of them once it has as many, or has waited for long."""
    got: list[bytes | None] = []
    with Log(directory, TopicConfig(), read_only=True) as reader:
        records = reader.read(follow=True, timeout=20)

        def follow() -> None:
            for record in records:
                got.append(record.value)
                if len(got) == count:
                    break

        thread = threading.Thread(target=follow)
        thread.start()

        def wait() -> list[bytes | None]:
            thread.join()
            return got

        yield wait
        thread.join()


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Callable[..., Log]]:
    opened: list[tuple[Log, FlushScheduler]] = []

    def open_one(**settings: object) -> Log:
        scheduler = FlushScheduler()
        config = TopicConfig({}, **{**NEVER_FLUSHED, **settings})
        log = Log(tmp_path / "orders-0", config, durability="appended", clock=lambda: NOW_MS, scheduler=scheduler)
        opened.append((log, scheduler))
        return log

    yield open_one
    for log, scheduler in opened:
        log.close()
        scheduler.close()


def expected(count: int) -> list[bytes]:
    return [value_of(number) for number in range(count)]


def test_a_burst_that_stops_is_seen_by_who_waits(writer):
    log = writer()
    with following(log.path, 60) as wait:
        append(log, 60)
        assert wait() == expected(60)


def test_a_scheduler_that_waits_for_a_disk_keeps_no_record_back(writer):
    log = writer()
    released = threading.Event()
    log._scheduler.schedule(0, lambda: released.wait(120) and None)
    with following(log.path, 60) as wait:
        append(log, 60)
        got = wait()
        released.set()
        assert got == expected(60)


def test_a_long_linger_of_buffered_records_keeps_no_staged_one_back(writer):
    log = writer(logstore_linger_ms=60_000)
    with following(log.path, 60) as wait:
        append(log, 40)
        log.append(value_of(40), durability="buffered")
        for number in range(41, 60):
            log.append(value_of(number))
        assert wait() == expected(60)


WRITER = textwrap.dedent("""
    import sys, time
    from logstore.storage.config import TopicConfig
    from logstore.storage.log import Log

    class Never:
        def schedule(self, delay_ms, step):
            pass
        schedule_urgent = schedule

    log = Log(sys.argv[1], TopicConfig({}, logstore_open_batch_mapped=True), durability="appended",
              clock=lambda: 1_700_000_000_000, scheduler=Never())
    for number in range(60):
        log.append(b"value %d " % number + b"." * (number % 90))
    assert log.staged
    print("staged", flush=True)
    time.sleep(60)
""")


def test_who_waits_is_woken_when_the_writer_is_killed(tmp_path):
    directory = tmp_path / "orders-0"
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, directory], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "staged\n"
        with Log(directory, read_only=True) as reader:
            assert reader.log_end_offset == 60
        (directory / FILE).rename(tmp_path / "aside")  # so that this reader begins without them
        with following(directory, 60) as wait:
            (tmp_path / "aside").rename(directory / FILE)
            process.kill()
            process.wait()
            assert wait() == expected(60)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_no_more_files_than_logs_may_have_at_a_time(tmp_path):
    scheduler = FlushScheduler()
    logs = [
        Log(tmp_path / str(number) / "orders-0", TopicConfig({}, **NEVER_FLUSHED), durability="appended",
            clock=lambda: NOW_MS, scheduler=scheduler)
        for number in range(40)
    ]
    for log in logs:
        append(log, 30)
    assert 0 < len(list(tmp_path.rglob(FILE))) <= 32
    for log in logs[:20]:
        log.close()
    append(logs[-1], 30)
    assert os.path.exists(os.path.join(logs[-1].path, FILE)), "those that are let go make room"
    for log in logs:
        assert [record.value for record in log.read()] == expected(log.log_end_offset) if log.is_open else True
        log.close()
    assert not list(tmp_path.rglob(FILE))
    scheduler.close()


def staged_by(directory: Path) -> subprocess.Popen[str]:
    """A process that has appended 60 records, of which the last ones are staged, and never hands over."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, directory], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "staged\n"
    process.stdout.close()
    return process


@pytest.mark.parametrize("is_stopped", [False, True], ids=["it does something else", "it is stopped"])
def test_whatever_a_writer_does_who_looks_sees_what_it_has_acknowledged(tmp_path, is_stopped):
    directory = tmp_path / "orders-0"
    segments = list(range(17))
    with Log(directory) as log:
        topic_id = log.topic_id
    with Log(directory, read_only=True) as reader:
        cursor, records = reader.cursor(0), reader.read(follow=True, timeout=20)
        process = staged_by(directory)
        try:
            if is_stopped:
                process.send_signal(signal.SIGSTOP)
            assert reader.bounds("latest") == (60, None)
            assert [record.value for record in reader.read()] == expected(60)
            assert sum(batch.records_count for batch in cursor) == 60
            assert [next(records).value for _ in range(60)] == expected(60)
            with Log(directory, read_only=True) as another:
                assert another.log_end_offset == 60
                assert [record.offset for record in another.read(59, follow=True, timeout=0)] == [59]
            assert len((directory / "00000000000000000000.log").read_bytes()) < 17 * 200
        finally:
            process.kill()
            process.wait()
        assert [record.value for record in reader.read()] == expected(60)
    with Log(directory) as log:
        assert log.topic_id == topic_id
        assert [record.offset for record in log.read()] == [*segments, *range(17, 60)]


def wait_beside(log: Log) -> DirectoryWatch:
    """What a reader in another process does that waits for records."""
    watch = watch_directories([log.path], os.path.dirname(log.path))
    while watch.wait(0.05):
        pass
    return watch


def test_who_waits_in_another_process_gets_each_record_at_once(writer):
    log = writer()
    append(log, 60)
    append(log, 30, 60)
    assert log.staged
    watch = wait_beside(log)
    with Log(log.path, TopicConfig(), read_only=True) as reader:
        for end in range(90, 150):
            append(log, 1, end)
            assert log.end_offset == end + 1
            assert watch.wait(20)
            assert reader.catch_up()
            assert reader.log_end_offset == end + 1
        watch.close()
        append(log, 1, 150)
        assert log.staged, "nobody waits any more"


WAITING = textwrap.dedent("""
    import os, sys
    from logstore.storage.waiting import watch_directories

    watch = watch_directories([sys.argv[1]], os.path.dirname(sys.argv[1]))
    watch.wait(0.05)
    print("waits", flush=True)
    while True:
        watch.wait()
""")


def test_who_was_killed_while_it_waited_does_not_keep_a_burst_slow(open_log):
    now = [NOW_MS]
    log = open_log(clock=lambda: now[0], scheduler=ManualScheduler(), **NEVER_FLUSHED)
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING, log.path], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "waits\n"
        append(log, 60)
        assert log.end_offset == 60, "it waits for each"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    append(log, 1, 60)
    now[0] += 1001
    append(log, 60, 61)
    assert log.staged


FOLLOWING = textwrap.dedent("""
    import os, random, sys
    from logstore.storage.log import Log

    chance = random.Random(int(sys.argv[2]))
    offset = 0
    with Log(sys.argv[1], read_only=True) as log:
        while True:
            records = log.read(offset, follow=True)
            for record in records:
                assert record.offset == offset, (record.offset, offset)
                offset += 1
                if record.value == b"answer":
                    os.write(1, b"%8d" % offset)
                if chance.random() < 0.1:
                    break
            records.close()
""")


@pytest.mark.parametrize("seed", [1, 2])
def test_no_record_is_kept_from_who_comes_to_wait_while_nobody_hands_over(tmp_path, seed):
    """The writer hands over for waiting readers alone, who come and go at any moment: each look sees all, and each sleep."""
    chance = random.Random(seed)

    class Never:
        def schedule(self, delay_ms: float, step: Callable[[], None]) -> None:
            pass

        schedule_urgent = schedule

    log = Log(tmp_path / "orders-0", TopicConfig({}, **NEVER_FLUSHED), durability="appended", clock=lambda: NOW_MS,
              scheduler=Never())  # type: ignore[arg-type]
    process = subprocess.Popen(
        [sys.executable, "-c", FOLLOWING, log.path, str(seed)], stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    try:
        end = 0
        for _ in range(60):
            for _ in range(chance.randrange(1, 60)):
                log.append(b"record")
            end = log.append(b"answer") + 1
            ready, _, _ = select.select([process.stdout], [], [], 30)
            assert ready, f"offset {end - 1} is not seen"
            assert int(os.read(process.stdout.fileno(), 8)) == end
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        log.close()
