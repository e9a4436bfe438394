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
        assert count < WRITERS * APPENDS * 0.7


def test_one_writer_takes_one_flush_an_append(library: Path, tmp_path: Path) -> None:
    count = syncs_of(library, tmp_path / "one", 1, APPENDS)
    assert APPENDS <= count <= APPENDS + 2
