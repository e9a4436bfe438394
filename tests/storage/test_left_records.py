"""What a killed process left in the open batch, as a process sees it that only reads: nothing is written for it.

A copy of the directory of an open log is what a killed process leaves: both show the page cache.
"""

from __future__ import annotations

import os
import shutil
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from manual_scheduler import ManualScheduler
from test_open_batch import FILE, NOW_MS, append, burst, killed, not_of_its_log, value_of  # noqa: F401

import logstore
from logstore.broker.backup import backup_directory, restore_directory
from logstore.errors import LogTruncatedError
from logstore.storage.cache_mark import boot_id
from logstore.storage.config import TopicConfig
from logstore.storage.erasure import count_key
from logstore.storage.log import Log
from logstore.storage.verification import verify_partition

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or boot_id() is None, reason="NOT TESTED: mapped open batches need Linux"
)


def listing(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def check_reads(log: Log, count: int) -> None:
    """All ways to read agree on the records 0 to count - 1."""
    assert log.damage is None
    assert log.log_end_offset == count
    expected = [value_of(number) for number in range(count)]
    assert [record.value for record in log.read()] == expected
    assert [value for batch in log.scan() for value in batch.values()] == expected
    assert log.fetch(count - 1)[-1].last_offset == count - 1
    assert [record.offset for record in log.read(count - 1)] == [count - 1]
    assert [record.offset for record in log.read(isolation_level="read_committed")] == list(range(count))
    found = log.offset_for_timestamp(NOW_MS)
    assert found is not None
    assert found.offset == 0


@pytest.mark.parametrize(
    "settings", [{}, {"index_interval_bytes": 0}, {"segment_bytes": 16_000, "logstore_batch_bytes": 1000}], ids=str)
def test_everything_acknowledged_is_seen_and_nothing_is_written(burst, tmp_path, settings):  # noqa: F811
    log = burst(**settings)
    assert log.staged
    place = killed(log, tmp_path / "killed")
    before = listing(place)
    for _ in range(2):
        with Log(place, TopicConfig(**settings), read_only=True) as reader:
            check_reads(reader, 60)
            assert reader.recovery_report.cut_bytes == 0
            assert not reader.refresh()
            check_reads(reader, 60)
    assert listing(place) == before


def test_the_first_records_of_a_log_are_seen(burst, tmp_path):  # noqa: F811
    log = burst()
    first = log.end_offset
    log.truncate_to(0)
    append(log, 60, 0)
    assert log.end_offset <= first
    place = killed(log, tmp_path / "killed")
    (place / "00000000000000000000.log").write_bytes(b"")
    content = bytearray((place / FILE).read_bytes())
    with Log(place, read_only=True) as reader:
        assert reader.log_end_offset == (60 if struct.unpack_from(">q", content, 48)[0] == 0 else 0)


@pytest.mark.parametrize("behind", ["torn batch", "zeros"])
def test_they_hide_what_stands_behind_the_segments_end(burst, tmp_path, behind):  # noqa: F811
    log = burst()
    place = killed(log, tmp_path / "killed")
    handed_over = log.end_offset
    assert log.log_end_offset == 60  # hands over
    segment = place / "00000000000000000000.log"
    whole = Path(log.path, segment.name).read_bytes()
    size = segment.stat().st_size
    segment.write_bytes(whole[: size + 300] if behind == "torn batch" else whole[:size] + bytes(70_000))
    assert handed_over < 60
    with Log(place, read_only=True) as reader:
        check_reads(reader, 60)
        assert not reader.refresh()
        check_reads(reader, 60)


def test_a_reader_goes_on_when_the_next_writer_takes_them_over(burst, tmp_path):  # noqa: F811
    place = killed(burst(), tmp_path / "killed")
    with Log(place, read_only=True) as reader:
        records = iter(reader.read(follow=True, timeout=5))
        columns = reader.column_cursor(0)
        cursor = reader.cursor(0)
        held = [next(records) for _ in range(60)]
        batches = list(cursor)
        assert batches[-1].last_offset == 59
        assert sum(len(batch) for batch in columns) == 60
        with Log(place, TopicConfig(compression_type="gzip"), durability="appended") as writer:
            assert not (place / FILE).exists()
            append(writer, 40, 60)
            assert [record.value for record in (next(records) for _ in range(40))] == [value_of(n) for n in range(60, 100)]
            check_reads(reader, 100)
            assert next(batch.base_offset for batch in cursor) == 60
            assert sum(len(batch) for batch in columns) == 40
        assert [record.value for record in held] == [value_of(number) for number in range(60)]


@pytest.mark.parametrize("look", ["refresh", "catch_up"])
def test_a_reader_that_was_there_before_sees_them_with_its_next_look(burst, tmp_path, look):  # noqa: F811
    log = burst()
    place = tmp_path / "killed" / "orders-0"
    shutil.copytree(log.path, place, ignore=shutil.ignore_patterns(FILE))
    with Log(place, read_only=True) as reader:
        handed_over = reader.log_end_offset
        assert handed_over < 60
        cursor = reader.cursor(0)
        assert sum(batch.records_count for batch in cursor) == handed_over
        assert not reader.catch_up()
        shutil.copy(Path(log.path, FILE), place / FILE)
        assert getattr(reader, look)()
        assert not getattr(reader, look)()
        assert [batch.base_offset for batch in cursor] == [handed_over]
        check_reads(reader, 60)


@pytest.mark.parametrize("look", ["refresh", "catch_up"])
def test_a_reader_of_a_living_writer_sees_what_is_acknowledged_with_each_look(burst, look):  # noqa: F811
    log = burst()
    with Log(log.path, read_only=True) as reader:
        check_reads(reader, 60)
        cursor, columns, records = reader.cursor(0), reader.column_cursor(0), iter(reader.read(follow=True, timeout=5))
        assert sum(batch.records_count for batch in cursor) == sum(len(batch) for batch in columns) == 60
        assert [next(records).offset for _ in range(60)] == list(range(60))
        for end in range(61, 70):
            append(log, 1, end - 1)
            assert log.staged, "nothing but reading"
            assert getattr(reader, look)()
            check_reads(reader, end)
            assert not getattr(reader, look)()
            assert [batch.last_offset for batch in cursor] == [end - 1]
            assert sum(len(batch) for batch in columns) == 1
            assert next(records).value == value_of(end - 1)
        assert log.log_end_offset == 69  # hands over
        getattr(reader, look)()
        assert reader.segments[-1].next_offset == 69
        check_reads(reader, 69)
        log.roll()
        append(log, 30, 69)
        assert log.staged
        assert getattr(reader, look)()
        check_reads(reader, 99)
        assert log.log_end_offset == 99
        append(log, 30, 99)
        assert log.staged, "the next batch, of which the reader has seen nothing in the file before"
        assert getattr(reader, look)()
        check_reads(reader, 129)
        assert [record.offset for record in (next(records) for _ in range(60))] == list(range(69, 129))
        assert cursor.next_batch().base_offset <= 69
        log.append(b"later", timestamp=NOW_MS + 5)
        assert log.staged
        assert getattr(reader, look)()
        assert reader.offset_for_timestamp(NOW_MS + 1) == (129, NOW_MS + 5)


def test_a_cursor_may_be_ahead_of_a_look_that_is_under_way(burst):  # noqa: F811
    """Another thread has found the batch in the segment, and not said so yet: it has more records than were staged."""
    log = burst()
    with Log(log.path, read_only=True) as reader:
        cursor, columns = reader.cursor(0), reader.column_cursor(0)
        staged_from = reader.segments[-1].next_offset
        assert 0 < staged_from < 60
        while cursor.next_batch().last_offset < staged_from - 1:
            pass
        append(log, 10, 60)
        log.flush("appended")
        reader.segments[-1].catch_up()
        assert cursor.next_batch().last_offset == 69
        assert cursor.next_batch() is None
        assert sum(len(batch) for batch in columns) >= 60
        assert reader.log_end_offset == 60
        assert reader.refresh()
        assert reader.log_end_offset == 70
        assert cursor.next_batch() is None
        append(log, 10, 70)
        log.flush("appended")
        assert reader.refresh()
        assert cursor.next_batch().base_offset == 70


def test_a_reader_whose_records_are_cut_learns_it(burst, tmp_path):  # noqa: F811
    place = killed(burst(), tmp_path / "killed")
    with Log(place, read_only=True) as reader:
        cursor = reader.cursor(0)
        assert sum(batch.records_count for batch in cursor) == 60
        with Log(place, durability="appended") as writer:
            writer.truncate_to(30)
            assert reader.refresh()
            assert reader.log_end_offset == 30
            with pytest.raises(LogTruncatedError):
                next(cursor)


def test_a_damaged_file_is_said_and_hides_nothing(burst, tmp_path):  # noqa: F811
    log = burst()
    handed_over = log.end_offset
    place = killed(log, tmp_path / "killed")
    content = bytearray((place / FILE).read_bytes())
    content[4100] ^= 1
    (place / FILE).write_bytes(content)
    with Log(place, read_only=True) as reader:
        check_reads(reader, handed_over)
        assert reader.recovery_report.path == str(place / FILE)
        assert reader.recovery_report.cut_offset == handed_over
        assert not reader.refresh()
    assert (place / FILE).read_bytes() == content


@pytest.mark.parametrize("change", ["another run", "another topic", "another place", "not trusted", "a folder"])
def test_what_is_not_of_this_log_and_run_is_not_shown(burst, tmp_path, monkeypatch, change):  # noqa: F811
    place, handed_over = not_of_its_log(burst, tmp_path, change)
    if change == "another run":
        monkeypatch.setattr("logstore.storage.open_batch.boot_id", lambda: b"0123456789abcdef")
    elif change == "a folder":
        (place / FILE).unlink()
        (place / FILE).mkdir()
    with Log(place, read_only=True, trust_checkpoint=change != "not trusted") as reader:
        check_reads(reader, handed_over)
        assert not reader.refresh()


def test_times_of_append_stay_the_same_when_they_are_taken_over(burst, tmp_path):  # noqa: F811
    log = burst(message_timestamp_type="LogAppendTime")
    log.append(value_of(60), b"key 60", timestamp=NOW_MS + 10**9)
    place = killed(log, tmp_path / "killed")
    config = TopicConfig(message_timestamp_type="LogAppendTime")
    seen = []
    for read_only in (True, False, True):
        with Log(place, config, read_only=read_only) as reader:
            seen.append([record.timestamp for record in reader.read()])
    assert seen == [[NOW_MS] * 61] * 3


@pytest.fixture
def left(tmp_path):
    """A data directory whose broker was killed with records of a topic in the open batch."""
    source = tmp_path / "source"
    with logstore.open(source) as broker:
        broker.create_topic("orders")
    config = TopicConfig(logstore_open_batch_mapped=True)
    log = Log(source / "orders-0", config, durability="appended", clock=lambda: NOW_MS, scheduler=ManualScheduler())
    append(log, 60)
    assert log.staged
    shutil.copytree(source, tmp_path / "data")
    log.close()
    return tmp_path / "data"


def test_a_broker_for_reading_shows_them(left):
    before = listing(left / "orders-0")
    with logstore.open(left, read_only=True) as broker:
        topic = broker.topic("orders")
        assert [record.value for record in topic.read()] == [value_of(number) for number in range(60)]
        assert topic.get(59).value == value_of(59)
        with broker.consumer("orders", auto_offset_reset="earliest") as consumer:
            assert [next(consumer).offset for _ in range(60)] == list(range(60))
        log = topic.partition(0)
        assert [count_key(log, b"key %d" % number) for number in (0, 58, 59, 60)] == [1, 1, 1, 0]
    assert listing(left / "orders-0") == before


def test_a_backup_has_them(left, tmp_path):
    backup = tmp_path / "backup"
    for name in ("restored", "again"):
        backup_directory(str(left), str(backup))
        restore_directory(str(backup), str(tmp_path / name))
        with logstore.open(tmp_path / name) as broker:
            assert [record.value for record in broker.topic("orders").read()] == [value_of(n) for n in range(60)]
            assert not broker.recovery_reports
    with logstore.open(left) as broker:
        assert broker.topic("orders").append(b"next") == 60
    backup_directory(str(left), str(backup))
    restore_directory(str(backup), str(tmp_path / "later"))
    with logstore.open(tmp_path / "later") as broker:
        assert len(list(broker.topic("orders").read())) == 61


def test_verify_names_a_damaged_file_and_no_other(left):
    place = left / "orders-0"
    assert verify_partition(str(place)).is_sound
    content = bytearray((place / FILE).read_bytes())
    content[4100] ^= 1
    (place / FILE).write_bytes(content)
    faults = verify_partition(str(place)).faults
    assert [fault.path for fault in faults] == [str(place / FILE)]


def test_what_is_erased_is_not_left_in_the_file(burst):  # noqa: F811
    log = burst()
    assert b"key 59" in Path(log.path, FILE).read_bytes()
    assert log.erase_key(b"key 59").records_erased == 1
    assert not [path for path in Path(log.path).iterdir() if b"key 59" in path.read_bytes()]


def test_readers_and_writers_side_by_side(burst, tmp_path):  # noqa: F811
    """Readers open and look again while a writer hands over, clears and begins: never less than before they opened."""
    log = burst(logstore_batch_bytes=2000)
    acknowledged = 60
    failures: list[str] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            least = acknowledged
            with Log(log.path, read_only=True) as reader:
                for _ in range(3):
                    records = [(record.offset, record.value) for record in reader.read()]
                    if records != [(number, value_of(number)) for number in range(len(records))] or len(records) < least:
                        failures.append(f"{len(records)} of {least}")
                    least = len(records)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(60, 1500):
        log.append(value_of(number), b"key %d" % number)
        acknowledged = number + 1
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert os.path.exists(os.path.join(log.path, FILE))


def test_threads_of_a_reader_look_and_read_while_a_writer_bursts(burst):  # noqa: F811
    """Each sees all there was when it began, in order and once, in whatever segment it stands by then."""
    log = burst(logstore_batch_bytes=1000, segment_bytes=40_000)
    acknowledged = 60
    failures: list[str] = []
    stop = threading.Event()

    def check(is_true: bool, what: str) -> None:
        if not is_true:
            failures.append(what)
            stop.set()

    with Log(log.path, TopicConfig(segment_bytes=40_000), read_only=True) as reader:

        def run(step: Callable[[], None]) -> Callable[[], None]:
            def again() -> None:
                try:
                    while not stop.is_set():
                        step()
                except BaseException as error:
                    check(False, repr(error))

            return again

        def look() -> None:
            least = acknowledged
            reader.refresh()
            check(reader.log_end_offset >= least, f"{reader.log_end_offset} of {least}")

        cursor, at = reader.cursor(0), 0

        def follow() -> None:
            nonlocal at
            while (batch := cursor.next_batch()) is not None:
                for record in batch:
                    if record.offset >= at:
                        check((record.offset, record.value) == (at, value_of(at)), f"{record.offset} after {at}")
                        at += 1

        def read_all() -> None:
            least = acknowledged
            offsets = [record.offset for record in reader.read()]
            check(offsets == list(range(len(offsets))) and len(offsets) >= least, f"{len(offsets)} of {least}")

        def scan() -> None:
            least = acknowledged
            count = sum(len(batch) for batch in reader.scan())
            check(count >= least, f"{count} of {least} columns")

        threads = [threading.Thread(target=run(step)) for step in (look, reader.catch_up, follow, read_all, scan)]
        for thread in threads:
            thread.start()
        try:
            for number in range(60, 8000):
                if stop.is_set():
                    break
                log.append(value_of(number), b"key %d" % number)
                acknowledged = number + 1
                if number % 150 == 0:
                    log.flush("appended")
                if number % 1000 == 0:
                    log.roll()
                if number % 20 == 0:
                    time.sleep(0)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert not failures
        reader.refresh()
        follow()
        assert at == acknowledged
