"""A log of thousands of segments stays within the descriptors a process has."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from logstore.storage import layout
from logstore.storage.recovery import _finish_interrupted

PROGRAM = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (400, 400))
from logstore.storage.config import TopicConfig
from logstore.storage.log import Log

config = TopicConfig(segment_bytes=1024, retention=-1)
log = Log(sys.argv[1], config, durability="appended")
for i in range(1200):
    log.append(b"v" * 700, timestamp=1_700_000_000_000 + i)
    if i % 100 == 0:
        log.flush()
assert len(log.segments) == 1200, len(log.segments)
written = len(os.listdir("/proc/self/fd"))
assert [record.offset for record in log.read()] == list(range(1200))
for i in (0, 599, 1199, 3, 1000):
    assert log.offset_for_timestamp(1_700_000_000_000 + i).offset == i
for i in range(1200):
    assert next(log.read(i)).offset == i
log.close()
log = Log(sys.argv[1], config, read_only=True)
for i in range(1199, -1, -1):
    assert next(log.read(i)).timestamp == 1_700_000_000_000 + i
assert sum(len(batch) for batch in log.scan()) == 1200
print(written, len(os.listdir("/proc/self/fd")))
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="NOT TESTED: this system has no /proc")
@pytest.mark.fault(10, "too many open files")
def test_a_log_of_more_segments_than_descriptors_is_written_and_read(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path / "orders-0"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    written, read = map(int, done.stdout.split())
    assert written < 150
    assert read < 300


def test_looking_for_what_a_crash_left_takes_time_in_proportion(tmp_path, monkeypatch):
    """An open of 10,000 segments took a minute, since each name was looked for in the list of all."""
    compared = 0

    class Name(str):
        __hash__ = str.__hash__
        __slots__ = ()

        def __eq__(self, other):
            nonlocal compared
            compared += 1
            return str.__eq__(self, other)

    names = [
        Name(layout.segment_file_name(base, suffix)) for base in range(500) for suffix in (".index", ".log", ".timeindex")
    ]
    monkeypatch.setattr(os, "listdir", lambda path: list(names))
    _finish_interrupted(str(tmp_path))
    assert compared < 5 * len(names)
