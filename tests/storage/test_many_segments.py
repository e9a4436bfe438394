"""A log of thousands of segments stays within the descriptors a process has."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

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
def test_a_log_of_more_segments_than_descriptors_is_written_and_read(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path / "orders-0"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    written, read = map(int, done.stdout.split())
    assert written < 150
    assert read < 300
