"""A disk without space, for real: a small tmpfs. Needs the right to mount one."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from logstore.errors import DiskFullError
from logstore.storage.config import TopicConfig
from logstore.storage.log import Log


@pytest.fixture
def small_disk(tmp_path):
    path = tmp_path / "disk"
    path.mkdir()
    mount = shutil.which("mount")
    if mount is None:
        pytest.skip("NOT TESTED: appends on a full disk; there is no mount command")
    done = subprocess.run([mount, "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(path)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"NOT TESTED: appends on a full disk; mounting a tmpfs: {done.stderr.strip()}")
    yield path
    # Lazily: a traceback may still keep what it points to, and its files open.
    subprocess.run(["umount", "-l", str(path)], check=True)


def fill(path, leave_bytes=0):
    with open(path / "filler", "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
        file.truncate(max(file.tell() - leave_bytes, 0))


def append_without_end(log, value):
    while True:
        log.append(value)


@pytest.mark.parametrize("level", ["appended", "flushed"])
@pytest.mark.fault(9, "disk full, no inodes, over quota")
def test_a_full_disk_refuses_and_goes_on_when_there_is_space(small_disk, level):
    log = Log(small_disk / "orders-0", TopicConfig(), durability=level)
    log.append(b"before")
    fill(small_disk)
    with pytest.raises(DiskFullError, match="Free space") as caught:
        append_without_end(log, bytes(5000))
    assert caught.value.retriable
    end = log.log_end_offset
    size = log.size_bytes
    for _ in range(3):
        with pytest.raises(DiskFullError):
            log.append_many([bytes(5000)] * 3)
    assert (log.log_end_offset, log.size_bytes) == (end, size)
    assert len(list(log.read())) == end
    (small_disk / "filler").unlink()
    assert log.append(b"after") == end
    log.close()
    with Log(small_disk / "orders-0") as log:
        assert log.recovery_report.cut_bytes == 0
        assert [record.value for record in log.read()][-1] == b"after"


@pytest.mark.fault(9, "disk full, no inodes, over quota")
def test_buffered_records_wait_for_space(small_disk):
    config = TopicConfig(logstore_linger_ms="1h")
    log = Log(small_disk / "orders-0", config, durability="buffered")
    log.append(b"first", durability="flushed")
    fill(small_disk)
    for i in range(10):
        log.append(b"%d" % i * 2000)
    with pytest.raises(DiskFullError):
        log.flush()
    assert log.log_end_offset == 1
    (small_disk / "filler").unlink()
    log.flush()
    assert [record.value for record in log.read()] == [b"first", *(b"%d" % i * 2000 for i in range(10))]
    log.close()


@pytest.mark.fault(9, "disk full, no inodes, over quota")
def test_rolling_on_a_full_disk(small_disk):
    config = TopicConfig(segment_bytes=1024)
    log = Log(small_disk / "orders-0", config, durability="appended")
    fill(small_disk)
    with pytest.raises(DiskFullError):
        append_without_end(log, bytes(900))
    appended = log.log_end_offset
    (small_disk / "filler").unlink()
    for _ in range(5):
        log.append(bytes(900))
    log.close()
    with Log(small_disk / "orders-0", config) as log:
        assert [record.offset for record in log.read()] == list(range(appended + 5))


@pytest.mark.fault(9, "disk full, no inodes, over quota")
def test_closing_on_a_full_disk_keeps_everything(small_disk):
    log = Log(small_disk / "orders-0", TopicConfig(index_interval_bytes=0), durability="appended")
    log.append_many([bytes(100)] * 100)
    fill(small_disk)
    try:
        log.close()
    except DiskFullError:
        (small_disk / "filler").unlink()
    with Log(small_disk / "orders-0", read_only=True) as log:
        assert len(list(log.read())) == 100
