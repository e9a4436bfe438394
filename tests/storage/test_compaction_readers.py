"""Readers across a swap: they miss nothing, see nothing twice, and open files that have become others."""

from __future__ import annotations

import os
import threading

import pytest

from logstore.errors import OffsetOutOfRangeError
from logstore.storage import segment_swap
from logstore.storage.config import TopicConfig
from logstore.storage.log import Log

SETTINGS = {"cleanup_policy": "compact", "segment_bytes": 1 << 20, "index_interval_bytes": 100}


def fill(log, segments: int = 10, keys: int = 7) -> None:
    for number in range(segments):
        log.append_many([b"%d" % number] * keys, [b"key %d" % (key + number % 2) for key in range(keys)])
        log.append(b"unique", b"unique %d" % number)
        log.roll()


def rows(records):
    return [(record.offset, record.key, record.value) for record in records]


@pytest.mark.parametrize("taken", [0, 1, 8, 20, 50, 79])
def test_an_iterator_misses_nothing_that_stays(open_log, taken):
    log = open_log(**SETTINGS)
    fill(log)
    before = rows(log.read())
    reader = log.read()
    seen = [next(reader) for _ in range(taken)]
    log.compact()
    seen += list(reader)
    assert [row for row in rows(seen) if row in set(rows(log.read()))] == rows(log.read())
    assert set(rows(seen)) <= set(before)
    assert rows(seen) == sorted(rows(seen))


@pytest.mark.parametrize("taken", [1, 3])
def test_a_scan_misses_nothing_that_stays(open_log, taken):
    log = open_log(**SETTINGS)
    fill(log)
    scan = iter(log.scan())
    offsets = []
    for _ in range(taken):
        offsets += list(next(scan).offsets)
    log.compact()
    for batch in scan:
        offsets += list(batch.offsets)
    assert offsets == sorted(set(offsets))
    assert {record.offset for record in log.read()} <= set(offsets)


def test_a_reader_that_opens_a_segment_by_its_name_finds_the_right_one(open_log):
    """The tuple of segments was looked up before the swap, the files are opened after it."""
    log = open_log(**SETTINGS)
    fill(log)
    log.close()
    log = open_log(**SETTINGS)
    cursor = log.cursor(0)
    assert cursor.next_batch().base_offset == 0  # its segment is open, the others are not
    log.compact()
    seen = []
    while (batch := cursor.next_batch()) is not None:
        seen += [record.offset for record in batch]
    expected = [record.offset for record in log.read() if record.offset >= 8]
    assert [offset for offset in seen if offset in set(expected)] == expected


def test_a_position_that_vanished_is_still_one(open_log):
    log = open_log(**SETTINGS)
    fill(log)
    log.compact()
    left = [record.offset for record in log.read()]
    for offset in range(log.log_end_offset):
        assert next(iter(log.read(offset))).offset == min(known for known in left if known >= offset)
    with pytest.raises(OffsetOutOfRangeError):
        log.read(log.log_end_offset + 1)


def test_readers_run_beside_appends_and_compaction(open_log):
    log = open_log(**{**SETTINGS, "segment_bytes": 40_000})
    stop = threading.Event()
    failures = []

    def read():
        try:
            while not stop.is_set():
                last = -1
                for record in log.read():
                    assert record.offset > last
                    last = record.offset
                    assert record.value == b"%d" % record.offset * 10
        except BaseException as error:
            failures.append(error)

    def look_up():
        try:
            while not stop.is_set():
                for timestamp in range(0, log.log_end_offset, 37):
                    found = log.offset_for_timestamp(timestamp)
                    assert found is None or found.timestamp >= timestamp
        except BaseException as error:
            failures.append(error)

    def append():
        for number in range(6000):
            log.append(b"%d" % number * 10, b"%d" % (number % 50), timestamp=number)

    threads = [threading.Thread(target=work) for work in (append, read, read, look_up)]
    for thread in threads:
        thread.start()
    compacted = 0
    try:
        while threads[0].is_alive() and not failures:
            compacted += log.compact().outcome == "compacted"
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures
    assert compacted
    last = {record.key: record.offset for record in log.read()}
    assert sorted(last.values()) == list(range(log.log_end_offset - 50, log.log_end_offset))


# ---- other processes -------------------------------------------------------------------------------------


@pytest.fixture
def open_reader(tmp_path):
    readers = []

    def open_one():
        reader = Log(tmp_path / "orders-0", TopicConfig(**SETTINGS), read_only=True)
        readers.append(reader)
        return reader

    yield open_one
    for reader in readers:
        reader.close()


@pytest.mark.parametrize("refreshed", [True, False])
@pytest.mark.parametrize("taken", [0, 1, 8, 20, 50])
def test_a_reader_process_misses_nothing_that_stays(open_log, open_reader, taken, refreshed):
    log = open_log(**SETTINGS)
    fill(log)
    log.flush()
    reader = open_reader()
    records = reader.read()
    seen = [next(records) for _ in range(taken)]
    log.compact()
    if refreshed:
        reader.refresh()
    seen += list(records)
    left = rows(log.read())
    assert [row for row in rows(seen) if row in set(left)] == left
    assert rows(reader.read()) == left
    assert rows(seen) == sorted(rows(seen))


def test_a_reader_process_follows_through_many_compactions(open_log, open_reader):
    log = open_log(**{**SETTINGS, "segment_bytes": 2048})
    reader = open_reader() if os.path.isdir(log.path) else None
    assert reader is not None
    for number in range(12):
        for key in range(10):
            log.append(b"%d" % number, b"key %d" % key)
        log.roll()
        log.compact()
        reader.refresh()
        assert rows(reader.read()) == rows(log.read())


def test_a_reader_process_that_opens_in_the_middle_of_a_swap(open_log, open_reader, monkeypatch):
    log = open_log(**SETTINGS)
    fill(log)
    log.flush()
    before = rows(log.read())
    seen = []

    def sync_then_read(path):
        seen.append(rows(open_reader().read()))

    monkeypatch.setattr(segment_swap, "sync_directory", sync_then_read)
    log.compact()
    after = rows(log.read())
    assert len(seen) == 3
    assert all(found in (before, after) for found in seen)
    assert seen[-1] == after
