"""Log files are read, never mapped: whatever happens to a file, a reader gets an error and no SIGBUS."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import shim

PROGRAM = textwrap.dedent("""
    import os, sys
    import logstore

    with logstore.open(sys.argv[1], durability="appended") as broker:
        topic = broker.create_topic("t", segment_bytes=65536, index_interval_bytes=256)
        topic.append_many([b"%d" % number + b"x" * 500 for number in range(600)])
        log = topic.partition(0)
        readers = [iter(log.read(start)) for start in range(0, 600, 10)]
        held = [next(reader) for reader in readers]
        scanned = list(log.scan())
        log.offset_for_timestamp(0)
        with open("/proc/self/maps") as file:
            mapped = [line for line in file if line.rstrip().endswith((".log", ".index", ".timeindex"))]
        for segment in log.segments:
            os.truncate(segment.path, 700)
        refused = 0
        for reader in readers:
            try:
                for record in reader:
                    assert record.value == b"%d" % record.offset + b"x" * 500
            except logstore.CorruptDataError:
                refused += 1
        assert all(record.value == b"%d" % record.offset + b"x" * 500 for record in held)
        assert [value for batch in scanned for value in batch.values()] == [b"%d" % n + b"x" * 500 for n in range(600)]
        print(len(mapped), refused)
""")


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="NOT TESTED: what is mapped; this system does not say")
@pytest.mark.fault(24, "a file cut or unreadable under a reader")
@pytest.mark.fault(23, "views that outlive their log")
def test_files_cut_under_their_readers(work: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, work / "data"], env=shim.environment(None), capture_output=True, text=True
    )
    assert done.returncode == 0, (done.returncode, done.stderr)
    mapped, refused = map(int, done.stdout.split())
    assert mapped == 0
    assert refused > 10
