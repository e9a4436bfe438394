"""Logs share descriptors: however many partitions there are, so many active segments are open at a time."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import subprocess
import sys

import pytest
from manual_scheduler import ManualScheduler

from logstore._native.segment import limit_open_files, open_files_count
from logstore.errors import CorruptDataError, OffsetOutOfRangeError, StorageFailureError
from logstore.storage.config import TopicConfig
from logstore.storage.directory_lock import DirectoryLock
from logstore.storage.log import Log

pytestmark = pytest.mark.skipif(
    not os.path.isdir("/proc/self/fd"), reason="NOT TESTED: descriptors that logs share; this system has no /proc"
)

UNSYNCED_MAX = 6


@pytest.fixture
def two_open_files(tmp_path):
    """And none of those that other tests have left behind: they are closed, as the only one there may be is needed."""
    before = limit_open_files(1, 1)
    Log(tmp_path / "others" / "orders-0", scheduler=ManualScheduler()).close()
    gc.collect()
    limit_open_files(2, UNSYNCED_MAX)
    yield
    limit_open_files(*before)


@pytest.fixture
def logs(tmp_path, two_open_files):
    """Eight of one data directory, which flush when they are told to."""
    lock = DirectoryLock(str(tmp_path))
    scheduler = ManualScheduler()
    opened = [
        Log(tmp_path / f"orders-{i}", TopicConfig(retention=-1), durability="appended", lock=lock, scheduler=scheduler)
        for i in range(8)
    ]
    yield opened
    for log in opened:
        with contextlib.suppress(StorageFailureError):
            log.close()
    lock.release()


def descriptors_of(log):
    """Those that the process has open of a log's active segment."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}") == log.segments[-1].path:
                found.append(int(name))
    return found


def values(log, start="earliest"):
    return [record.value for record in log.read(start)]


def test_logs_that_are_flushed_share_descriptors(logs):
    assert sum(map(len, map(descriptors_of, logs))) <= 2
    for number in range(3):
        for i, log in enumerate(logs):
            log.append(b"%d-%d" % (number, i), durability="flushed")
    assert sum(map(len, map(descriptors_of, logs))) <= open_files_count() <= 2
    for i, log in enumerate(logs):
        assert values(log) == [b"%d-%d" % (number, i) for number in range(3)]
        assert log.flushed_offset == 3


def test_logs_that_wait_for_the_disk_stay_open_up_to_a_limit(logs):
    for log in logs[:UNSYNCED_MAX]:
        log.append(b"x")
    assert all(len(descriptors_of(log)) == 1 for log in logs[:UNSYNCED_MAX])
    for log in logs:
        log.append(b"y")
    assert open_files_count() <= UNSYNCED_MAX
    for log in logs:
        log.flush()
    assert open_files_count() <= 2
    assert [values(log) for log in logs] == [[b"x", b"y"]] * UNSYNCED_MAX + [[b"y"]] * 2


def test_logs_opened_again_share_descriptors_too(logs, tmp_path):
    for log in logs:
        log.append_many([b"a", b"b"])
        log.close()
    again = [Log(log.path, read_only=True) for log in logs]
    del logs[:]
    assert open_files_count() <= 2
    assert [values(log) for log in again] == [[b"a", b"b"]] * 8
    for log in again:
        log.close()


@pytest.fixture
def broken(logs):
    """The first of them, closed for the others to be opened by an fsync that failed: a device that can't be synced stands in
    for a disk that fails."""
    logs[0].append(b"x")
    device = os.open("/dev/null", os.O_RDWR)
    os.dup2(device, descriptors_of(logs[0])[0], inheritable=False)
    os.close(device)
    for log in logs[1:]:
        for _ in range(2):
            log.append(b"y")
    assert not descriptors_of(logs[0])
    return logs[0]


def test_a_failed_fsync_before_a_file_is_closed_closes_its_log(logs, broken):
    with pytest.raises(StorageFailureError, match="sync failed"):
        broken.flush()
    assert not broken.is_writable
    with pytest.raises(StorageFailureError, match="closed for writing"):
        broken.append(b"z")
    for log in logs[1:]:
        log.flush()
        assert log.is_writable


def test_the_append_after_it_is_told_as_well(broken):
    with pytest.raises(StorageFailureError, match="sync failed"):
        broken.append(b"z")
    assert not broken.is_writable


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_is_gone_is_named(logs, replaced):
    victim = logs[0]
    victim.append(b"x", durability="flushed")
    for log in logs[1:]:
        log.append(b"y")
    assert not descriptors_of(victim)
    path = victim.segments[-1].path
    os.rename(path, path + ".elsewhere")
    if replaced:
        with open(path, "wb") as other:
            other.write(b"something else")
    reason = "another file stands in the place of this one" if replaced else "the file is gone"
    with pytest.raises(CorruptDataError, match=reason):
        victim.append(b"z")
    with pytest.raises(CorruptDataError, match=reason):
        values(victim)
    for log in logs[1:]:
        assert values(log) == [b"y"]
    os.replace(path + ".elsewhere", path)
    assert values(victim) == [b"x"]


@pytest.mark.fault(10, "too many open files")
def test_without_descriptors_an_append_is_refused_and_works_later(logs):
    for log in logs:
        log.append(b"x", durability="flushed")
    kept = next(log for log in logs if not descriptors_of(log))
    kept.append(b"y")  # not flushed: closing it is to flush it
    for log in logs:
        if log is not kept:
            log.append(b"y", durability="flushed")
    kept.flush()
    for log in logs:
        if log is not kept:
            log.append(b"z", durability="flushed")
    assert not descriptors_of(kept)
    while logs[0] is not kept or len(logs) > 1:  # no other has one that could be taken
        logs.pop(0 if logs[0] is not kept else 1).close()
    del log
    kept._scheduler.close()  # whose steps hold logs
    gc.collect()
    assert open_files_count() == 0
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 256), hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        with pytest.raises(StorageFailureError, match="Too many open files"):
            kept.append(b"refused")
        with pytest.raises(StorageFailureError, match="Too many open files"):
            values(kept)
        os.close(taken.pop())
        kept.append(b"z")
        kept.flush("appended")
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    kept.flush()
    assert values(kept) == [b"x", b"y", b"z"]
    assert kept.is_writable


def test_a_reader_whose_segment_is_deleted_is_told_so(logs):
    log = logs[0]
    log.append_many([b"a", b"b"])
    log.flush()
    reader = log.cursor(0)
    log.roll()
    log.append(b"c")
    log.flush()
    for other in logs[1:]:
        other.append(b"y", durability="flushed")
    log.advance_log_start_offset(2)
    with pytest.raises(OffsetOutOfRangeError):
        reader.next_batch()
    assert values(log) == [b"c"]


def test_a_truncated_log_goes_on(logs):
    log = logs[0]
    log.append(b"a")
    log.append(b"b")
    reader = log.cursor(0)
    reader.next_batch()
    for other in logs[1:]:
        other.append(b"y", durability="flushed")
    log.truncate_to(1)
    for other in logs[1:]:
        other.append(b"y", durability="flushed")
    log.append(b"c")
    assert values(log) == [b"a", b"c"]
    assert reader.next_batch().base_offset == 1


def test_a_reader_process_follows_with_few_descriptors(logs):
    readers = [Log(log.path, read_only=True) for log in logs]
    for number in range(3):
        for i, log in enumerate(logs):
            log.append(b"%d-%d" % (number, i))
        for i, reader in enumerate(readers):
            reader.refresh()
            assert values(reader, number) == [b"%d-%d" % (number, i)]
    assert sum(map(len, map(descriptors_of, readers))) <= UNSYNCED_MAX + 2
    for reader in readers:
        reader.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="NOT TESTED: this system can't fork")
def test_a_forked_child_has_descriptors_of_its_own(logs, tmp_path):
    for log in logs:
        log.append(b"x", durability="flushed")
    child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(BaseException):
            own = Log(tmp_path / "child" / "orders-0", scheduler=ManualScheduler())
            own.append(b"c", durability="flushed")
            status = 0 if open_files_count() == 1 and values(own) == [b"c"] else 2
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    for log in logs:
        log.append(b"y", durability="flushed")
        assert values(log) == [b"x", b"y"]


PROGRAM = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[3]),) * 2)
import logstore

partitions = int(sys.argv[2])
most = 0

def look():
    global most
    most = max(most, len(os.listdir("/proc/self/fd")))

with logstore.open(sys.argv[1], durability="appended") as broker:
    topic = broker.create_topic("orders", partitions=partitions, retention=-1)
    for number in range(3):
        for partition in range(partitions):
            topic.append(b"%d" % (partition + number), partition=partition)
        look()
    for partition in range(partitions):
        assert [record.value for record in topic.read(partition=partition)] == [
            b"%d" % (partition + number) for number in range(3)]
    look()
    topic.flush()
    look()
    settled = len(os.listdir("/proc/self/fd"))
for arguments in ({"read_only": True}, {}):
    with logstore.open(sys.argv[1], **arguments) as broker:
        topic = broker.topic("orders")
        assert sum(1 for _ in topic.read()) == 3 * partitions
        for partition in range(partitions):
            assert topic.get(1, partition).value == b"%d" % (partition + 1)
        look()
print(most, settled)
"""


@pytest.mark.fault(10, "too many open files")
def test_a_broker_has_more_partitions_than_descriptors(tmp_path):
    """``LOGSTORE_MANY_PARTITIONS=5000`` takes a limit of 1,024 descriptors."""
    partitions = int(os.environ.get("LOGSTORE_MANY_PARTITIONS", "150"))
    limit = max(64, partitions * 1024 // 5000)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path / "data", str(partitions), str(limit)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    most, settled = map(int, done.stdout.split())
    assert most < limit
    assert settled < limit // 4 + 24
