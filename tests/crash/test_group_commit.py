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

    def queued(count):
        # As `started`, but nobody looks at the log's end, which would have the records written.
        waiting = log.open_batch_records_count + count
        threads = [threading.Thread(target=write) for _ in range(count)]
        for thread in threads: thread.start()
        while log.open_batch_records_count != waiting: time.sleep(0.001)
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


def test_records_that_wait_for_the_same_flush_are_written_as_one_batch(library: Path, work: Path) -> None:
    printed = output_of(library, """
        before = log.batches_count
        with log._flush_lock:
            threads = queued(8)
            shim.arm(folder, "w", 0, 0)
        for thread in threads: thread.join()
        print(shim.disarm(), log.batches_count - before, sorted(results) == list(range(1, 9)), log.flushed_offset)
        print(sorted(record.offset for record in log.read()) == list(range(9)))
    """, work / "data")
    assert printed.split() == ["1", "1", "True", "9", "True"]


def test_what_was_written_together_is_refused_together_by_a_full_disk(library: Path, work: Path) -> None:
    printed = output_of(library, """
        with log._flush_lock:
            threads = queued(8)
            shim.arm(folder, "w", 1, errno.ENOSPC)
        for thread in threads: thread.join()
        print(*results, log.open_batch_records_count, log.log_end_offset, log.append(b"again"))
        print(*(record.value for record in log.read()))
    """, work / "data")
    assert printed.split() == ["DiskFullError"] * 8 + ["0", "1", "1", "b'first'", "b'again'"]


def test_what_was_written_together_is_refused_together_for_good(library: Path, work: Path) -> None:
    printed = output_of(library, """
        with log._flush_lock:
            threads = queued(8)
            shim.arm(folder, "w", 1, errno.EIO)
        for thread in threads: thread.join()
        print(*results, log.is_writable, len(list(log.read())))
    """, work / "data")
    assert printed.split() == ["StorageFailureError"] * 8 + ["False", "1"]


def test_others_keep_their_place_behind_records_that_wait(library: Path, work: Path) -> None:
    printed = output_of(library, """
        for durability in "appended", "buffered":
            with log._flush_lock:
                threads = queued(2)
                print(log.append(b"one", durability=durability), *log.append_many([b"two", b"three"], durability=durability))
            for thread in threads: thread.join()
        log.flush()
        print(sorted(results), *(record.offset for record in log.read() if record.value in (b"one", b"two", b"three")))
    """, work / "data")
    assert printed.splitlines() == ["3 4 5", "8 9 10", "[1, 2, 6, 7] 3 4 5 8 9 10"]


def test_a_writer_that_is_interrupted_leaves_its_record_in_the_log(library: Path, work: Path) -> None:
    """Not in memory alone: nobody may be left to write it."""
    printed = output_of(library, """
        import signal
        signal.signal(signal.SIGINT, signal.default_int_handler)
        def interrupt():
            while not log.open_batch_records_count: time.sleep(0.001)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        with log._flush_lock:
            other = threading.Thread(target=interrupt)
            other.start()
            try:
                log.append(b"mine")
            except KeyboardInterrupt:
                print("interrupted", log.open_batch_records_count)
            other.join()
        print(log.flushed_offset, log.append(b"next"), log.flushed_offset)
    """, work / "data")
    assert printed.split() == ["interrupted", "0", "1", "2", "3"]
