"""A file system that has space, but no inode left: a tmpfs with few of them. Needs the right to mount one, for itself or in
a name space of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import shim

PROGRAM = textwrap.dedent("""
    import os, sys
    import logstore
    place = sys.argv[1]
    with logstore.open(place + "/data", durability="flushed") as broker:
        topic = broker.create_topic("t", segment_bytes=2048, index_interval_bytes=256)
        kept = [topic.append(b"%d" % number) for number in range(5)]
        taken = []
        try:
            while True:
                taken.append(f"{place}/taken{len(taken)}")
                open(taken[-1], "x").close()
        except OSError:
            taken.pop()
        assert len(taken) > 10, taken
        refused = 0
        for number in range(5, 80):
            try:
                offset = topic.append(b"%d" % number + b"x" * 200)
                kept.append(offset)
                assert offset == len(kept) - 1, "offsets go on without a gap"
            except logstore.DiskFullError as error:
                refused += 1
                assert error.retriable
        assert refused, "no roll was among them"
        try:
            broker.create_topic("u")
            raise AssertionError("a topic without an inode")
        except logstore.DiskFullError:
            pass
        assert "u" not in broker
        assert len(list(topic.read())) == len(kept), "readers go on"
        for path in taken:
            os.unlink(path)
        for _ in range(40):
            kept.append(topic.append(b"x" * 200))
        assert len(topic.partition(0).segments) > 2
        broker.create_topic("u").append(b"x")
    with logstore.open(place + "/data") as broker:
        assert [record.offset for record in broker.topic("t").read()] == kept == list(range(len(kept)))
        assert not broker.recovery_reports and not broker.damages
    print(refused)
""")


@pytest.mark.fault(9, "disk full, no inodes, over quota")
def test_no_inode_left_and_then_some(tmp_path: Path) -> None:
    place = tmp_path / "disk"
    place.mkdir()
    if shutil.which("mount") is None:
        pytest.skip("NOT TESTED: a disk without inodes; there is no mount command")
    inside = f'mount -t tmpfs -o nr_inodes=60,size=8m tmpfs "{place}" && exec "$0" -c "$1" "{place}"'
    enter = ["unshare", "--mount", "--user", "--map-root-user"] if shutil.which("unshare") else []
    done = subprocess.run(
        [*enter, "sh", "-c", inside, sys.executable, PROGRAM], env=shim.environment(None), capture_output=True, text=True
    )
    if not enter:
        subprocess.run(["umount", "-l", place], capture_output=True)
    if done.returncode and ("mount:" in done.stderr or "unshare:" in done.stderr):
        pytest.skip(f"NOT TESTED: a disk without inodes; mounting a tmpfs: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0
