"""A producer and the life of its process: exit, Ctrl-C, kill, fork."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import logstore

SECONDS = 120


def run(text: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(text), *map(str, arguments)], text=True,
        capture_output=True, timeout=60, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip


def start(text: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(text), *map(str, arguments)], text=True, bufsize=1,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip


def values_of(path: Path) -> list[bytes]:
    with logstore.open(path) as broker:
        return [record.value for record in broker.topic("orders").read()]


@pytest.mark.parametrize("end", ["", "sys.exit(3)", "raise RuntimeError('mine')"])
@pytest.mark.parametrize("durability", ["appended", "flushed"])
@pytest.mark.fault(26, "end of the interpreter")
def test_the_end_of_the_program_delivers(tmp_path, end, durability):
    done = run(
        f"""
        import sys, logstore
        broker = logstore.open(sys.argv[1], durability="{durability}")
        broker.create_topic("orders")
        producer = broker.producer(linger_ms="1h")
        for number in range(100):
            producer.send("orders", b"%d" % number)
        {end}
        """,
        tmp_path / "data",
    )
    assert "ResourceWarning" not in done.stderr
    assert values_of(tmp_path / "data") == [b"%d" % number for number in range(100)]


BLOCKED = """
    import sys, threading, time, logstore
    from logstore.clients.producer import Producer
    from logstore.clients.producer_settings import producer_settings

    class SlowBroker:
        def __init__(self, broker):
            self.broker = broker
        def flush_partition(self, *place):
            if threading.current_thread() is not threading.main_thread():
                gate.wait()
            return self.broker.flush_partition(*place)
        def __getattr__(self, name):
            return getattr(self.broker, name)

    gate = threading.Event()
    broker = logstore.open(sys.argv[1])
    broker.create_topic("orders")
    producer = Producer(SlowBroker(broker), producer_settings({"linger_ms": 0, "buffer_memory": 5000}))
    future = producer.send("orders", b"first")
    taken = 1
    print("ready", flush=True)
    began = time.monotonic()
    try:
        BLOCKING_CALL
    except KeyboardInterrupt:
        print("interrupted", taken, flush=True)
    gate.set()
    producer.close()
    assert future.result().offset == 0
    broker.close()
"""


@pytest.mark.parametrize(
    "call",
    [
        "future.result(120)",
        "producer.flush(60)",
        "producer.close(60)",
        "while True: producer.send('orders', bytes(1000)); taken += 1",
    ],
)
@pytest.mark.fault(25, "signal or exception within a call")
def test_ctrl_c_in_a_blocking_call_returns_at_once_and_loses_nothing(tmp_path, call):
    process = start(BLOCKED.replace("BLOCKING_CALL", call), tmp_path / "data")
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        assert process.stdout.readline() == "ready\n"
        # Until it sleeps: the state in /proc says so.
        for _ in range(2000):
            if Path(f"/proc/{process.pid}/wchan").exists() and is_asleep(process.pid):
                break
        process.send_signal(signal.SIGINT)
        said, taken = process.stdout.readline().split()
        assert said == "interrupted"
        assert process.wait(SECONDS) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stdin.close()
    values = values_of(tmp_path / "data")
    assert values[0] == b"first"
    assert len(values) == int(taken)


def is_asleep(pid: int) -> bool:
    import time

    time.sleep(0.0005)
    states = []
    for _ in range(3):
        states.append(Path(f"/proc/{pid}/task/{pid}/stat").read_text().rpartition(")")[2].split()[0])
        time.sleep(0.002)
    return states == ["S"] * 3


@pytest.mark.fault(25, "signal or exception within a call")
def test_a_signal_handler_may_send(tmp_path):
    """It runs between any two steps of the thread that sends."""
    done = run(
        """
        import signal, sys, logstore
        with logstore.open(sys.argv[1], durability="appended") as broker:
            broker.create_topic("orders")
            handled = []
            with broker.producer(batch_size=300, linger_ms=1) as producer:
                def handler(number, frame):
                    handled.append(producer.send("orders", b"signal"))
                signal.signal(signal.SIGALRM, handler)
                signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
                count = 0
                while len(handled) < 200:
                    producer.send("orders", b"%d" % count)
                    count += 1
                signal.setitimer(signal.ITIMER_REAL, 0)
            assert all(future.done() for future in handled)
            values = [record.value for record in broker.topic("orders").read()]
            assert values.count(b"signal") == len(handled)
            assert [v for v in values if v != b"signal"] == [b"%d" % i for i in range(count)]
        """,
        tmp_path / "data",
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("durability", ["appended", "flushed"])
@pytest.mark.fault(1, "kill -9 in an append")
def test_what_was_acknowledged_survives_kill(tmp_path, durability):
    process = start(
        """
        import sys, logstore
        broker = logstore.open(sys.argv[1], durability=sys.argv[2])
        broker.create_topic("orders", segment_bytes="64KiB", compression_type="zstd")
        told = print
        def tell(error, metadata):
            assert error is None
            told(metadata.offset, flush=True)
        producer = broker.producer(on_delivery=tell, linger_ms=1, batch_size="2KiB")
        number = 0
        while True:
            producer.send("orders", b"%d" % number)
            number += 1
        """,
        tmp_path / "data", durability,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdin is not None
    acknowledged = [int(process.stdout.readline()) for _ in range(3000)]
    process.kill()
    process.wait()
    acknowledged += [int(line) for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    process.stdout.close()
    process.stdin.close()
    assert acknowledged == list(range(len(acknowledged))), "callbacks come in order"
    values = values_of(tmp_path / "data")
    assert len(values) >= len(acknowledged) - 1
    assert values == [b"%d" % number for number in range(len(values))]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="NOT TESTED: fork; this system has none")
@pytest.mark.fault(20, "fork after open")
def test_a_forked_child_has_no_producer(tmp_path):
    done = run(
        """
        import os, sys, logstore
        broker = logstore.open(sys.argv[1], durability="flushed")
        broker.create_topic("orders")
        producer = broker.producer(linger_ms="1h")
        future = producer.send("orders", b"parent's")
        producer.send("orders", b"x", partition=0)
        child = os.fork()
        if child == 0:
            errors = 0
            for step in (lambda: producer.send("orders", b"y"), future.result, producer.flush):
                try:
                    step()
                except logstore.ClosedError as error:
                    assert "parent" in str(error)
                    errors += 1
            producer.close()
            del producer, future
            os._exit(0 if errors == 3 else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert future.result().offset == 0
        broker.close()
        """,
        tmp_path / "data",
    )
    assert done.returncode == 0, done.stderr
    assert values_of(tmp_path / "data") == [b"parent's", b"x"]


def test_a_producer_costs_no_thread_and_no_import_until_it_is_used(tmp_path):
    done = run(
        """
        import sys, threading, logstore
        with logstore.open(sys.argv[1], durability="appended") as broker:
            broker.create_topic("orders")
            with broker.producer() as producer:
                producer.send("orders", b"x").result()
        heavy = {"numpy", "asyncio", "zstandard", "cramjam", "logging", "click"} & set(sys.modules)
        assert not heavy, heavy
        """,
        tmp_path / "data",
    )
    assert done.returncode == 0, done.stderr
