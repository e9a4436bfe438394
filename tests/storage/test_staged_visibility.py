"""When processes that only read see what is staged: soon after the burst, whatever its writer does meanwhile, or dies."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from test_open_batch import FILE, NOW_MS, append, value_of

from logstore.storage.cache_mark import boot_id
from logstore.storage.config import TopicConfig
from logstore.storage.flush_scheduler import FlushScheduler
from logstore.storage.log import Log

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
