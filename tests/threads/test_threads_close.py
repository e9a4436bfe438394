"""Closing while others read, wait, append and hold views; signals in the middle of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

import logstore


def test_close_while_readers_iterate(tmp_path: Path) -> None:
    broker = logstore.open(tmp_path / "data", durability="appended")
    topic = broker.create_topic("t", segment_bytes=16384)
    topic.append_many([b"%d" % number * 20 for number in range(5000)])
    errors: list[BaseException] = []
    started = threading.Barrier(4)

    def read() -> None:
        started.wait()
        try:
            while True:
                for record in topic.read():
                    assert record.value == b"%d" % record.offset * 20
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    started.wait()
    time.sleep(0.05)
    broker.close()
    for thread in threads:
        thread.join(120)
    assert [type(error) for error in errors] == [logstore.ClosedError] * 3


def test_close_wakes_a_reader_that_waits(tmp_path: Path) -> None:
    broker = logstore.open(tmp_path / "data")
    topic = broker.create_topic("t")
    errors: list[BaseException] = []

    def follow() -> None:
        try:
            for _ in topic.read(follow=True):
                pass
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    time.sleep(0.1)
    begun = time.monotonic()
    broker.close()
    thread.join(120)
    assert not thread.is_alive()
    assert time.monotonic() - begun < 60
    assert [type(error) for error in errors] == [logstore.ClosedError]


@pytest.mark.fault(23, "views that outlive their log")
def test_views_outlive_the_log(tmp_path: Path) -> None:
    with logstore.open(tmp_path / "data") as broker:
        topic = broker.create_topic("t")
        topic.append_many([b"value %d" % number for number in range(1000)], keys=[b"k%d" % n for n in range(1000)])
        records = list(topic.read())
        batches = topic.partition(0).fetch(0)
        columns = list(topic.scan())
    broker.close()
    assert records[999].value == b"value 999"
    assert records[0].key == b"k0"
    assert [record.value for batch in batches for record in batch][500] == b"value 500"
    assert [value for batch in columns for value in batch.values()][7] == b"value 7"
    del records, batches, columns


@pytest.mark.fault(27, "many threads on one log")
def test_close_while_others_append(tmp_path: Path) -> None:
    """What was acknowledged before the close is there; the others are told."""
    broker = logstore.open(tmp_path / "data", durability="appended")
    log = broker.create_topic("t").partition(0)
    acknowledged: list[int] = []
    refused: list[BaseException] = []

    def write() -> None:
        try:
            while True:
                acknowledged.append(log.append(b"x"))
        except BaseException as error:
            refused.append(error)

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    broker.close()
    for thread in threads:
        thread.join(120)
    assert [type(error) for error in refused] == [logstore.ClosedError] * 3
    with logstore.open(tmp_path / "data") as broker:
        assert sorted(acknowledged) == [record.offset for record in broker.topic("t").read()]


@pytest.mark.fault(25, "signal or exception within a call")
def test_an_interrupt_ends_a_wait_at_once(tmp_path: Path) -> None:
    program = textwrap.dedent("""
        import sys, time, logstore
        broker = logstore.open(sys.argv[1])
        topic = broker.create_topic("t")
        print("waiting", flush=True)
        try:
            for record in topic.read(follow=True):
                pass
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        broker.close()
    """)
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "data")], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        time.sleep(0.2)
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "interrupted\n"
        assert time.monotonic() - begun < 30
        assert process.wait(120) == 0
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("level", ["flushed", "appended", "buffered"])
@pytest.mark.fault(25, "signal or exception within a call")
def test_a_signal_handler_that_raises_leaves_the_log_consistent(
    level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An exception that is raised in a destructor goes nowhere; pytest's own hook would fail where the next one hits it.
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: None)

    class Interrupted(Exception):
        pass

    armed = False

    def interrupt(number: int, frame: object) -> None:
        if armed:
            raise Interrupted

    acknowledged: dict[int, bytes] = {}
    interrupts = 0
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with logstore.open(tmp_path / "data", durability=level) as broker:
            topic = broker.create_topic("t", segment_bytes=4096)
            number = 0
            deadline = time.monotonic() + 2
            while interrupts < 150 and time.monotonic() < deadline:
                try:  # around all of it: where the machine is slow, the next one comes before the last one is dealt with
                    try:
                        # Again and again: an exception that is raised in a destructor goes nowhere.
                        signal.setitimer(signal.ITIMER_REAL, 0.0005 + interrupts % 7 * 0.0003, 0.01)
                        armed = True
                        while True:
                            number += 1
                            offset = topic.append(b"%d" % number)
                            acknowledged[offset] = b"%d" % number
                    except Interrupted:
                        armed = False
                        interrupts += 1
                except Interrupted:
                    armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert interrupts > 5
            log = topic.partition(0)
            assert log.is_writable
            topic.flush()
            values = {record.offset: record.value for record in log.read()}
            assert list(values) == list(range(log.log_end_offset))
            assert {offset: values[offset] for offset in acknowledged} == acknowledged
            numbers = [int(value) for value in values.values()]
            assert numbers == sorted(set(numbers)), "in order, each once"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    with logstore.open(tmp_path / "data") as broker:
        assert {record.offset: record.value for record in broker.topic("t").read()} == values
        assert not broker.recovery_reports
