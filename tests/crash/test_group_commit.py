"""Writers that wait for the disk share its flushes."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import shim

WRITERS, APPENDS = 8, 50

PROGRAM = textwrap.dedent("""
    import sys, threading
    import logstore
    from shim import Shim
    folder, writers, appends = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    shim = Shim()
    with logstore.open(folder) as broker:
        log = broker.create_topic("t").partition(0)
        log.append(b"first")
        shim.arm(folder, "", 0, 0)
        def write():
            for _ in range(appends):
                offset = log.append(b"x" * 100)
                assert log.flushed_offset > offset
        threads = [threading.Thread(target=write) for _ in range(writers)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        print(shim.syncs)
""")


def syncs_of(library: Path, folder: Path, writers: int, appends: int) -> int:
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, folder, str(writers), str(appends)],
        env=shim.environment(library), check=True, capture_output=True, text=True,
    )
    return int(done.stdout)


def test_many_writers_take_fewer_flushes_than_appends(library: Path, tmp_path: Path) -> None:
    # On a real disk: where a flush costs nothing there is nothing to share.
    count = syncs_of(library, tmp_path / "many", WRITERS, APPENDS)
    print(f"{WRITERS} writers, {WRITERS * APPENDS} flushed appends: {count} flushes")
    assert count >= APPENDS, "each writer waits for its own records"
    if os.stat(tmp_path).st_dev != os.stat("/dev/shm").st_dev:
        assert count < WRITERS * APPENDS * 0.5


def test_one_writer_takes_one_flush_an_append(library: Path, tmp_path: Path) -> None:
    count = syncs_of(library, tmp_path / "one", 1, APPENDS)
    assert APPENDS <= count <= APPENDS + 2


def output_of(library: Path, program: str, folder: Path) -> str:
    return subprocess.run(
        [sys.executable, "-c", START + textwrap.dedent(program), folder], env=shim.environment(library), check=True,
        capture_output=True, text=True, timeout=60,
    ).stdout


START = textwrap.dedent("""
    import errno, sys, threading, time
    import logstore
    from shim import Shim
    folder, shim = sys.argv[1], Shim()
    broker = logstore.open(folder)
    log = broker.create_topic("t").partition(0)
    log.append(b"first")
    results = []

    def write():
        try:
            results.append(log.append(b"x" * 100))
        except Exception as error:
            results.append(type(error).__name__)

    def started(count):
        end = log.log_end_offset + count
        threads = [threading.Thread(target=write) for _ in range(count)]
        for thread in threads: thread.start()
        while log.log_end_offset < end: time.sleep(0.001)
        return threads
""")


def test_all_who_wait_share_one_flush(library: Path, work: Path) -> None:
    printed = output_of(library, """
        with log._flush_lock:
            threads = started(8)
            shim.arm(folder, "", 0, 0)
        for thread in threads: thread.join()
        print(sorted(results) == list(range(1, 9)), shim.syncs, log.flushed_offset)
    """, work / "data")
    assert printed.split() == ["True", "1", "9"]


def test_a_failed_flush_is_everybodys(library: Path, work: Path) -> None:
    printed = output_of(library, """
        with log._flush_lock:
            threads = started(8)
            shim.arm(folder, "s", 1, errno.EIO)
        for thread in threads: thread.join()
        print(*results, log.flushed_offset, log.is_writable, len(list(log.read())))
    """, work / "data")
    assert printed.split() == ["StorageFailureError"] * 8 + ["1", "False", "9"]


def test_an_appender_behind_a_roll_waits_for_both_segments(library: Path, work: Path) -> None:
    printed = output_of(library, """
        with log._flush_lock:
            threads = started(2)
            log.roll()
            threads += started(2)
            shim.arm(folder, "", 0, 0)
        for thread in threads: thread.join()
        print(shim.syncs >= 3, log.flushed_offset)  # both files, and the directory that names the new one
    """, work / "data")
    assert printed.split() == ["True", "5"]
