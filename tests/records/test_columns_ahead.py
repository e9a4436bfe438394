"""Long scans read and decode with two threads: what they hand out, and what they say of damage, is what one thread does."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from logstore._native.columns import ColumnCursor
from logstore._native.columns_ahead import scan_threads
from logstore.errors import ClosedError, LogstoreError, LogTruncatedError
from logstore.storage.config import TopicConfig
from logstore.storage.log import Log

COUNT = 14_000
ALONE_BYTES = 16 * 1024  # reads so small that no second thread is asked for
has_two_processors = len(os.sched_getaffinity(0)) > 1 if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1) > 1


def value_of(number: int) -> bytes:
    return b"%d," % number * (1 + number * 7 % 83)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    """About 3 MiB in one segment: batches of one record and of hundreds."""
    gc.collect()  # no thread of another test's scan
    assert scan_threads() == 0
    with Log(tmp_path / "orders-0", TopicConfig(), durability="appended") as log:
        number = 0
        while number < COUNT:
            size = 1 + number % 301
            log.append_many(
                [value_of(number + i) for i in range(size)], [b"key-%d" % i for i in range(size)],
                timestamps=[1000 + number + i for i in range(size)],
            )  # fmt: skip
            number += size
        assert log.segments[0].size_bytes > 3 << 20
        yield log
    assert scan_threads() == 0


Row = tuple[int, int, bytes | None, bytes | None]


def rows(cursor: ColumnCursor, used: list[int] | None = None) -> list[Row]:
    found: list[Row] = []
    for batch in cursor:
        if used is not None:
            used.append(scan_threads())
        found += zip(batch.offsets.tolist(), batch.timestamps.tolist(), batch.keys(), batch.values(), strict=True)
    return found


def ahead(log: Log, start: int = 0, stop: int | None = None) -> ColumnCursor:
    return ColumnCursor(log, start, stop)


def alone(log: Log, start: int = 0, stop: int | None = None) -> ColumnCursor:
    return ColumnCursor(log, start, stop, ALONE_BYTES)


def test_a_long_scan_has_a_thread_and_hands_out_the_same(log: Log) -> None:
    used: list[int] = []
    found = rows(ahead(log), used)
    assert found == rows(alone(log))
    assert [row[0] for row in found] == list(range(log.log_end_offset))
    assert [row[3] for row in found] == [value_of(number) for number in range(log.log_end_offset)]
    assert max(used) == has_two_processors
    assert scan_threads() == 0  # it ends with the scan


def test_a_short_scan_has_none(log: Log) -> None:
    used: list[int] = []
    rows(ahead(log, log.log_end_offset - 1500), used)
    assert max(used) == 0


@pytest.mark.parametrize("start", [0, 1, 777, 6_001])
def test_bounds_are_exact(log: Log, start: int) -> None:
    for stop in (start + 1, start + 2_999, 11_111, log.log_end_offset, log.log_end_offset + 5):
        found = rows(ahead(log, start, stop))
        assert found == rows(alone(log, start, stop))
        assert [row[0] for row in found] == list(range(start, min(stop, log.log_end_offset)))


def test_columns_stay_what_they_were(log: Log) -> None:
    batches = list(ahead(log))
    del log
    gc.collect()
    offsets = [offset for batch in batches for offset in batch.offsets.tolist()]
    assert offsets == list(range(len(offsets)))
    for batch in batches:
        assert batch.values() == [value_of(offset) for offset in batch.offsets.tolist()]


def outcome(cursor: ColumnCursor) -> tuple[list[Row], str]:
    found: list[Row] = []
    try:
        while (batch := cursor.next_columns()) is not None:
            found += zip(batch.offsets.tolist(), batch.timestamps.tolist(), batch.keys(), batch.values(), strict=True)
    except LogstoreError as error:
        return found, f"{type(error).__name__}: {error}"
    return found, ""


def test_damage_is_named_as_by_one_thread(log: Log) -> None:
    path = Path(log.segments[0].path)
    size = log.segments[0].size_bytes
    for at in range(100_003, size, size // 17):
        with path.open("r+b") as file:
            byte = os.pread(file.fileno(), 1, at)
            os.pwrite(file.fileno(), bytes([byte[0] ^ 0x20]), at)
        found = outcome(ahead(log))
        os.pwrite(descriptor := os.open(path, os.O_RDWR), bytes([byte[0] ^ 0x20]), at)
        expected = outcome(alone(log))
        os.pwrite(descriptor, byte, at)
        os.close(descriptor)
        assert found == expected
        assert "CorruptDataError" in found[1]


def test_a_truncation_within_a_scan(log: Log) -> None:
    end = log.log_end_offset
    cursor = ahead(log)
    found = [offset for _ in range(4) for offset in cursor.next_columns().offsets.tolist()]
    log.truncate_to(9_000)
    log.append_many([b"other"] * (end - 9_000))
    for batch in cursor:
        assert all(
            value == (value_of(offset) if offset < 9_000 else b"other")
            for offset, value in zip(batch.offsets.tolist(), batch.values(), strict=True)
        )
        found += batch.offsets.tolist()
    assert found == list(range(end))
    cursor = ahead(log)
    cursor.next_columns()
    seen = [cursor.next_columns() for _ in range(3)]
    log.truncate_to(5)
    with pytest.raises(LogTruncatedError):
        cursor.next_columns()
    assert seen[0].values()[0] == value_of(seen[0].offsets.tolist()[0])


def test_a_log_that_is_closed_within_a_scan(tmp_path: Path, log: Log) -> None:
    cursor = ahead(log)
    batches = [cursor.next_columns() for _ in range(5)]
    log.close()
    with pytest.raises(ClosedError):
        cursor.next_columns()
    assert batches[-1].values()[0] == value_of(batches[-1].offsets.tolist()[0])
    del cursor


def test_scans_that_are_left_alone_and_many_at_once(log: Log) -> None:
    cursors = [ahead(log) for _ in range(7)]
    found: list[list[int]] = [[] for _ in cursors]
    for _ in range(5):
        for cursor, offsets in zip(cursors, found, strict=True):
            offsets += cursor.next_columns().offsets.tolist()
    assert scan_threads() <= 4
    for cursor, offsets in zip(cursors[:3], found, strict=False):
        offsets += [row[0] for row in rows(cursor)]
        assert offsets == list(range(log.log_end_offset))
    del cursors, cursor
    gc.collect()
    assert scan_threads() == 0


def test_a_compressed_stretch_goes_one_by_one(tmp_path: Path) -> None:
    values = [value_of(number) for number in range(6_000)]
    for codec in ("uncompressed", "zstd", "uncompressed", "uncompressed"):
        with Log(tmp_path / "mixed-0", TopicConfig(compression_type=codec), durability="appended") as log:
            log.append_many(values)
    with Log(tmp_path / "mixed-0", TopicConfig(), durability="appended") as log:
        used: list[int] = []
        assert [row[3] for row in rows(ahead(log), used)] == values * 4
        assert max(used) == has_two_processors


@pytest.mark.skipif(not hasattr(os, "fork"), reason="NOT TESTED: a second thread after a fork; this system has no fork")
def test_a_forked_child_is_told_and_ends(log: Log) -> None:
    cursor = ahead(log)
    found = [offset for _ in range(4) for offset in cursor.next_columns().offsets.tolist()]
    child = os.fork()
    if child == 0:
        code = 1
        try:
            rest = [row[0] for row in rows(cursor)]
            code = 0 if rest == list(range(found[-1] + 1, log.log_end_offset)) else 2
        except ClosedError:
            code = 0
        finally:
            del cursor
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert found + [row[0] for row in rows(cursor)] == list(range(log.log_end_offset))


def test_a_cut_in_the_index_that_is_none(log: Log) -> None:
    """Damage in the file of the index costs a look, no more."""
    directory = Path(log.path)
    log.close()
    index = directory / f"{0:020d}.index"
    whole = index.read_bytes()
    for at in (20, len(whole) // 2, len(whole) - 3):
        damaged = bytearray(whole)
        damaged[at] ^= 3
        index.write_bytes(damaged)
        with Log(directory, TopicConfig(), durability="appended") as again:
            assert [row[0] for row in rows(ahead(again))] == list(range(again.log_end_offset))
