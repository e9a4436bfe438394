"""Calls that bring more than a batch holds: several batches in one write, which nobody can tell from one by one."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from manual_scheduler import ManualScheduler

import logstore
from logstore._native.segment import Segment
from logstore.storage.backup import copy_log, take_snapshot
from logstore.storage.config import TopicConfig
from logstore.storage.log import Log
from logstore.storage.verification import verify_partition

NOW_MS = 1_700_000_000_000
LARGE = [b"%06d" % number * 40 for number in range(1000)]  # 240 KB: four batches


def open_log(path: Path, scheduler: ManualScheduler | None = None, **config: object) -> Log:
    return Log(path, TopicConfig(**config), scheduler=scheduler, clock=lambda: NOW_MS)


def flush_large(log: Log) -> Segment:
    """So often that it is given blocks: the first flush is of the file's name as well, and two are asked for behind it."""
    for _ in range(4):
        log.append_many(LARGE)
    segment = log.segments[-1]
    if not segment.reserved_bytes:
        pytest.skip("NOT TESTED: blocks ahead of the end; this file system has none to give")
    return segment


def files_of(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(path.glob("*.log"))}


value_lists = st.lists(st.integers(0, 900).map(lambda size: bytes([size % 251]) * size), min_size=1, max_size=80)


@settings(max_examples=25, deadline=None)
@given(
    calls=st.lists(st.tuples(value_lists, st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=3),
    batch_bytes=st.sampled_from([64, 400, 3000, 65536]),
    segment_bytes=st.sampled_from([4000, 20_000, 1 << 30]),
    append_time=st.booleans(),
    segment_ms=st.sampled_from([50, 1 << 40]),
    level=st.sampled_from(["flushed", "appended"]),
)
def test_the_same_files_as_batch_by_batch(
    tmp_path_factory: pytest.TempPathFactory,
    calls: list[tuple[list[bytes], bool, bool, bool]],
    batch_bytes: int,
    segment_bytes: int,
    append_time: bool,
    segment_ms: int,
    level: str,
) -> None:
    """`buffered` calls write batch by batch; the others have to come to the same segments, byte for byte."""
    config = {
        "logstore_batch_bytes": batch_bytes, "segment_bytes": segment_bytes, "segment_ms": segment_ms,
        "index_interval_bytes": 500, "message_timestamp_type": "LogAppendTime" if append_time else "CreateTime",
    }  # fmt: skip
    folder = tmp_path_factory.mktemp("runs")
    with open_log(folder / "runs" / "t-0", **config) as runs, open_log(folder / "single" / "t-0", **config) as single:
        for values, has_keys, has_times, has_buffered in calls:
            keys = [value[:7] or None for value in values] if has_keys else None
            times = [NOW_MS + 13 * number for number in range(len(values))] if has_times else None
            for log, durability in ((runs, level), (single, "buffered")):
                if has_buffered:
                    log.append(b"before", durability="buffered")
                offsets = log.append_many(values, keys, timestamps=times, durability=durability)  # type: ignore[arg-type]
                log.flush()  # of a buffered call, the last batch
                assert offsets == range(log.log_end_offset - len(values), log.log_end_offset)
            assert runs.batches_count == single.batches_count
        assert files_of(folder / "runs" / "t-0") == files_of(folder / "single" / "t-0")
        assert [record.value for record in runs.read()] == [record.value for record in single.read()]
        last = runs.log_end_offset - 1
        assert runs.segments[-1].locate(last) == single.segments[-1].locate(last)
    shutil.rmtree(folder)


def test_large_flushes_are_given_blocks_and_give_them_back(tmp_path: Path) -> None:
    path = tmp_path / "t-0"
    with open_log(path) as log:
        segment = flush_large(log)
        about = os.stat(segment.path)
        assert about.st_size == segment.size_bytes
        assert about.st_blocks * 512 > about.st_size + (256 << 10)
        assert not segment.filled_bytes
    about = os.stat(segment.path)
    assert about.st_blocks * 512 < about.st_size + (256 << 10)


@pytest.mark.parametrize("how", ["roll", "idle", "preallocate", "small"])
def test_blocks_ahead_end_as_zeros_do(tmp_path: Path, how: str) -> None:
    scheduler = ManualScheduler()
    with open_log(tmp_path / "t-0", scheduler, preallocate=how != "preallocate") as log:
        if how == "preallocate":
            for _ in range(4):
                log.append_many(LARGE)
            assert not log.segments[-1].reserved_bytes
            return
        segment = flush_large(log)
        if how == "roll":
            log.roll()
        elif how == "small":
            log.append(b"small")
            assert segment.filled_bytes
            assert os.path.getsize(segment.path) == segment.size_bytes + segment.filled_bytes
            log.close()
        else:
            scheduler.run()
            scheduler.run()
            scheduler.run()
        assert not segment.reserved_bytes
        about = os.stat(segment.path)
        assert about.st_size == segment.size_bytes
        assert about.st_blocks * 512 < about.st_size + (256 << 10)


WRITER = """
import os, signal, sys
from logstore.storage.log import Log

log = Log(sys.argv[1])
for _ in range(4):
    log.append_many([b"%06d" % number * 40 for number in range(1000)])
if log.segments[-1].reserved_bytes:
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """What a writer leaves that is killed after large flushes."""
    path = tmp_path / "running" / "t-0"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    if not subprocess.run([sys.executable, "-c", WRITER, path], env=environment, check=False).returncode:
        pytest.skip("NOT TESTED: blocks ahead of the end; this file system has none to give")
    return path


def test_what_a_killed_writer_was_given_is_no_part_of_the_file(killed: Path, tmp_path: Path) -> None:
    file = killed / f"{0:020d}.log"
    about = os.stat(file)
    assert about.st_blocks * 512 > about.st_size + (256 << 10)
    for deep in (False, True):
        found = verify_partition(str(killed), deep=deep)
        assert (found.is_sound, found.records_count, found.segments[-1].size_bytes) == (True, 4000, about.st_size)
    assert copy_log(take_snapshot(str(killed)), str(tmp_path / "store"))[1] == about.st_size
    with Log(killed, read_only=True) as log:
        assert [record.value for record in log.read()] == LARGE * 4
    assert os.stat(file).st_blocks == about.st_blocks
    with Log(killed) as log:
        assert (log.log_end_offset, log.recovery_report.cut_bytes, log.damage) == (4000, 0, None)
        given_back = os.stat(file)
        assert given_back.st_size == about.st_size
        assert given_back.st_blocks * 512 < about.st_size + (256 << 10)
        log.append_many(LARGE)
        assert [record.value for record in log.read()] == LARGE * 5


def test_a_reader_beside_the_writer_sees_whole_calls(tmp_path: Path) -> None:
    with open_log(tmp_path / "t-0") as log:
        log.append(b"first")
        with Log(tmp_path / "t-0", read_only=True) as reader:
            for count in range(1, 4):
                log.append_many(LARGE)
                assert reader.refresh()
                assert reader.log_end_offset == 1 + count * len(LARGE)
            assert [record.value for record in reader.read()] == [b"first", *LARGE * 3]


def test_a_record_larger_than_a_batch_among_small_ones(tmp_path: Path) -> None:
    values = [b"a" * 100] * 30 + [b"large" * 400] + [b"b" * 100] * 30 + [b"large" * 500] * 2
    with open_log(tmp_path / "t-0", logstore_batch_bytes=1000) as log:
        assert log.append_many(values) == range(len(values))
        assert [record.value for record in log.read()] == values
    with open_log(tmp_path / "t-0") as log:
        assert log.log_end_offset == len(values)


def test_a_write_that_is_refused_half_way_is_taken_back(tmp_path: Path) -> None:
    """By the limit of a file's size."""
    resource = pytest.importorskip("resource")
    signal = pytest.importorskip("signal")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with open_log(tmp_path / "t-0", logstore_batch_bytes=1000) as log:
            log.append_many(LARGE[:20])
            size = log.size_bytes
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100_000, before[1]))
            with pytest.raises(logstore.StorageFailureError) as caught:
                log.append_many(LARGE)
            assert caught.value.errno == errno.EFBIG
            assert caught.value.__notes__ == ["0 of 1000 records were appended before it, from offset 20 on."]
            assert (log.log_end_offset, log.size_bytes) == (20, size)
            assert os.path.getsize(log.segments[-1].path) == size
            assert [record.value for record in log.read()] == LARGE[:20]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    with open_log(tmp_path / "t-0") as log:
        assert log.log_end_offset == 20
        log.append_many(LARGE)
        assert [record.value for record in log.read()] == LARGE[:20] + LARGE
