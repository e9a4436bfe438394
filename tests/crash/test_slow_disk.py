"""Each fdatasync takes a quarter of a second: who needs it waits, nobody else does."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import shim

PROGRAM = textwrap.dedent("""
    import sys, threading, time
    import logstore
    import shim

    delays = shim.Shim()
    with logstore.open(sys.argv[1], durability="appended") as broker:
        topic = broker.create_topic("t", flush_ms="1h")
        log = topic.partition(0)
        for number in range(100):
            log.append(b"%d" % number)
        log.flush()
        delays.arm(sys.argv[1], "s", 1, shim.DELAY, sticky=True)

        began = time.monotonic()
        acknowledged = []
        def wait_for_the_disk():
            offset = log.append(b"flushed", durability="flushed")
            assert log.flushed_offset > offset
            acknowledged.append(time.monotonic() - began)
        threads = [threading.Thread(target=wait_for_the_disk) for _ in range(8)]
        for thread in threads: thread.start()
        reads = appends = 0
        slowest = 0.0
        while not acknowledged:
            start = time.monotonic()
            assert next(log.read(50)).value == b"50"
            reads += 1
            log.append(b"meanwhile")
            appends += 1
            slowest = max(slowest, time.monotonic() - start)
        for thread in threads: thread.join()
        shared = time.monotonic() - began

        # A time limit says nothing about whether the record is there: it is, later.
        with broker.producer(acks="all") as producer:
            future = producer.send("t", b"in time or not")
            try:
                future.result(0.05)
                late = False
            except (TimeoutError, logstore.RequestTimeoutError):
                late = True
            offset = future.result(120).offset
        end = log.log_end_offset
        delays.disarm()
    with logstore.open(sys.argv[1]) as broker:
        values = [record.value for record in broker.topic("t").read()]
    assert len(values) == end and values[offset] == b"in time or not"
    assert values.count(b"flushed") == 8 and values.count(b"meanwhile") == appends
    print(reads, min(acknowledged), shared, slowest, late)
""")


@pytest.mark.fault(38, "a slow disk")
def test_nobody_waits_who_need_not(library: Path, work: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, work / "data"], env=shim.environment(library), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    reads, first, shared, slowest, late = done.stdout.split()
    assert int(reads) > 20
    assert float(first) >= 0.25, "acknowledged before the disk was done"
    assert float(shared) < 8 * 0.25, "eight that wait share fdatasyncs"
    assert float(slowest) < 0.25, "a reader or an append that needs no disk waited for it"
    assert late == "True"
