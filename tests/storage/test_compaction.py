"""Compaction of one log: what stays, what goes, and when."""

from __future__ import annotations

import os
import shutil

import pytest
from batch_writer import BatchWriter
from manual_scheduler import ManualScheduler
from reference_codec import decode_log

from logstore.errors import CorruptDataError, InvalidRequestError
from logstore.storage.cleaner_checkpoint import read_cleaner_offset, write_cleaner_offset

DAY_MS = 86_400_000


class Clock:
    def __init__(self, now_ms: int = 1_000_000):
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def open_compacted(open_log, clock):
    def open_one(**settings):
        arguments = {"cleanup_policy": "compact", "clock": clock, "segment_bytes": 4096, "index_interval_bytes": 200}
        return open_log(**{**arguments, **settings})

    return open_one


def rows(log) -> list[tuple[int, bytes | None, bytes | None]]:
    return [(record.offset, record.key, record.value) for record in log.read()]


def latest(records) -> dict[bytes, tuple[int, bytes | None]]:
    found = {}
    for offset, key, value in records:
        found[key] = (offset, value)
    return found


def fill(log, rounds: int = 5, keys: int = 20) -> None:
    for number in range(rounds):
        for key in range(keys):
            log.append(b"value %d of %d" % (number, key) + b"." * 60, b"key %d" % key)


def batches_on_disk(log):
    """Every batch of the sealed segments, by the independent decoder."""
    found = []
    for segment in log.segments[:-1]:
        with open(segment.path, "rb") as file:
            found += [batch for _, batch in decode_log(file.read(), segment.base_offset)]
    return found


def log_files(log) -> list[str]:
    return sorted(name for name in os.listdir(log.path) if name[:20].isdigit())


# ---- what stays ---------------------------------------------------------------------------------------


def test_the_last_record_of_each_key_stays(open_compacted):
    log = open_compacted()
    fill(log)
    log.roll()
    before = rows(log)
    report = log.compact()
    after = rows(log)
    assert report.outcome == "compacted"
    assert after == sorted((offset, key, value) for key, (offset, value) in latest(before).items())
    assert (report.records_read, report.records_kept, report.records_superseded) == (100, 20, 80)
    assert report.keys_count == 20
    assert report.bytes_after == log.size_bytes < report.bytes_before
    assert report.segments_after == len(log.segments) <= report.segments_before
    assert report.first_dirty_offset == 100
    assert log.log_start_offset == 0
    assert log.log_end_offset == 100


def test_offsets_timestamps_and_headers_stay(open_compacted, clock):
    log = open_compacted()
    for number in range(40):
        clock.now_ms += 1000
        log.append(b"v%d" % number, b"k%d" % (number % 3), headers=[("a", b"%d" % number), ("b", None)])
    log.roll()
    expected = [(r.offset, r.timestamp, r.key, r.value, r.headers) for r in log.read()][-3:]
    log.compact()
    assert [(r.offset, r.timestamp, r.key, r.value, r.headers) for r in log.read()] == expected


def test_the_active_segment_is_left_alone(open_compacted):
    log = open_compacted()
    fill(log)
    active = log.segments[-1].base_offset
    assert active < log.log_end_offset
    expected = [row for row in rows(log) if row[0] >= active]
    log.compact()
    assert [row for row in rows(log) if row[0] >= active] == expected
    assert log.compact().outcome == "nothing to compact"


def test_a_second_time_only_what_is_new_is_dirty(open_compacted):
    log = open_compacted()
    fill(log)
    log.roll()
    log.compact()
    log.append(b"newer", b"key 3")
    log.append(b"other", b"key 99")
    log.roll()
    log.flush()
    plan = log.compaction_plan()
    assert plan.first_dirty_offset == 100
    assert 0 < plan.cleanable_bytes < plan.clean_bytes
    log.compact()
    assert latest(rows(log))[b"key 3"] == (100, b"newer")
    assert len(rows(log)) == 21


def test_records_without_a_key_go(open_log, clock):
    log = open_log(clock=clock, cleanup_policy="delete")
    log.append(b"no key")
    log.append(b"value", b"key")
    log.append(b"no key either")
    log.close()
    log = open_log(clock=clock, cleanup_policy="compact")
    log.roll()
    report = log.compact()
    assert rows(log) == [(1, b"key", b"value")]
    assert report.records_without_key == 2


def test_an_empty_key_is_a_key(open_compacted):
    log = open_compacted()
    for number in range(3):
        log.append(b"%d" % number, b"")
    log.roll()
    log.compact()
    assert rows(log) == [(2, b"", b"2")]


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_a_batch_keeps_its_codec(open_compacted, codec):
    log = open_compacted(compression_type=codec, segment_bytes=1 << 20)
    log.append_many([b"x" * 200] * 100, [b"%d" % (number % 70) for number in range(100)])
    log.append_many([b"y" * 200] * 10, [b"%d" % number for number in range(10)])
    log.roll()
    codecs = {batch.codec for batch in log.fetch(0)}
    log.compact()
    assert {batch.codec for batch in log.fetch(0)} == codecs
    assert 0 not in codecs
    # Of the first batch 10 to 69 and, as keys 0 to 29 again, 70 to 99; the second has keys 0 to 9 once more.
    assert [offset for offset, _, _ in rows(log)] == [*range(30, 70), *range(80, 110)]


def test_batches_whose_records_all_stay_are_not_touched(open_compacted):
    log = open_compacted(segment_bytes=1 << 20)
    log.append_many([b"a"] * 10, [b"%d" % number for number in range(10)])
    log.append_many([b"b"] * 10, [b"%d" % number for number in range(10, 20)])
    log.append(b"c", b"0")
    log.roll()
    before = batches_on_disk(log)
    log.compact()
    after = batches_on_disk(log)
    assert after[1] == before[1]
    assert len(after[0].records()) == 9
    assert after[0].header.last_offset_delta == before[0].header.last_offset_delta == 9


# ---- when ---------------------------------------------------------------------------------------------


def test_young_records_wait_for_min_compaction_lag(open_compacted, clock):
    log = open_compacted(min_compaction_lag_ms=10_000)
    log.append(b"old", b"k")
    log.append(b"old, too", b"k")
    log.roll()
    clock.now_ms += 8_000
    log.append(b"young", b"k")
    log.roll()
    log.flush()
    clock.now_ms += 4_000
    plan = log.compaction_plan()
    assert (plan.first_uncleanable_offset, plan.held_back_by) == (2, "min.compaction.lag.ms")
    assert plan.held_back_until_ms == 1_000_000 + 8_000 + 10_000
    log.compact()
    assert [offset for offset, _, _ in rows(log)] == [1, 2]
    clock.now_ms = plan.held_back_until_ms
    log.compact()
    assert [offset for offset, _, _ in rows(log)] == [2]


def test_a_tombstone_stays_for_delete_retention_after_its_first_compaction(open_compacted, clock):
    log = open_compacted(delete_retention_ms=DAY_MS)
    log.append(b"value", b"k")
    log.append(None, b"k")
    log.append(b"other", b"o")
    log.roll()
    clock.now_ms += 10 * DAY_MS
    log.compact()
    assert rows(log) == [(1, b"k", None), (2, b"o", b"other")]
    [batch, _] = log.fetch(0)
    assert batch.has_delete_horizon
    assert batch.base_timestamp == clock.now_ms + DAY_MS
    assert [record.timestamp for record in batch] == [1_000_000]

    def compact_again():
        log.append(b"more", b"%d" % clock.now_ms)
        log.roll()
        return log.compact()

    clock.now_ms += DAY_MS - 1
    compact_again()
    assert (1, b"k", None) in rows(log)
    assert log.fetch(0)[0].base_timestamp == clock.now_ms + 1, "a later compaction does not put it off"
    clock.now_ms += 1
    assert compact_again().tombstones_expired == 1
    assert b"k" not in latest(rows(log))


def test_many_rounds_where_the_keys_do_not_fit(open_compacted):
    log = open_compacted()
    fill(log, rounds=4, keys=50)
    log.roll()
    expected = latest(rows(log))
    report = log.compact(memory_bytes=32 * 20)
    assert report.rounds > 5
    assert report.memory_bytes <= 32 * 20 + 1024  # and a bit for each offset
    assert latest(rows(log)) == expected
    assert report.first_dirty_offset == 200


@pytest.mark.parametrize("keys", [1_000, 7_000, 30_000])
def test_memory_stays_under_40_bytes_a_key(open_compacted, keys):
    log = open_compacted(segment_bytes=1 << 30, segment_ms=2**62)
    for number in range(10):
        log.append_many([b"value %d" % number] * keys, [b"key %d" % key for key in range(keys)])
    log.roll()
    report = log.compact()
    assert (report.keys_count, report.records_kept) == (keys, keys)
    assert report.memory_bytes < 40 * keys


def test_what_would_lose_records_is_refused(open_log):
    log = open_log(cleanup_policy="delete")
    log.append(b"a", b"k")
    log.roll()
    with pytest.raises(InvalidRequestError, match=r"set cleanup\.policy=compact first"):
        log.compact()
    with pytest.raises(InvalidRequestError):
        log.compact(memory_bytes=0)


def test_stopping_keeps_what_was(open_compacted):
    log = open_compacted()
    fill(log)
    log.roll()
    before = rows(log)
    files = log_files(log)
    assert log.compact(stop=lambda: True).outcome == "stopped"
    assert rows(log) == before
    assert log_files(log) == files
    assert read_cleaner_offset(log.path, "orders", 0) is None
    assert log.compact().outcome == "compacted"


def test_progress_rises_to_the_end(open_compacted):
    log = open_compacted()
    fill(log)
    log.roll()
    seen = []
    log.compact(progress=seen.append)
    assert [step.done_bytes for step in seen] == sorted(step.done_bytes for step in seen)
    assert seen[-1].done_bytes == seen[-1].total_bytes
    assert {step.pass_name for step in seen} == {"map", "rewrite"}


def test_throttling_takes_its_time(open_compacted):
    log = open_compacted()
    fill(log, rounds=10)
    log.roll()
    report = log.compact(bytes_per_second=200_000)
    assert report.duration_s > 0.8 * (report.bytes_read + report.bytes_written) / 200_000 > 0.1


# ---- files ---------------------------------------------------------------------------------------------


def test_it_is_there_after_opening_again(open_compacted):
    log = open_compacted()
    fill(log)
    log.roll()
    log.compact()
    expected = rows(log)
    log.close()
    assert not [name for name in os.listdir(log.path) if name.endswith((".deleted", ".cleaned", ".swap"))]
    log = open_compacted()
    assert rows(log) == expected
    assert log.damage is None
    assert read_cleaner_offset(log.path, "orders", 0) == 100
    for offset in range(101):
        assert [row[0] for row in rows_from(log, offset)] == [row[0] for row in expected if row[0] >= offset]
    assert log.append(b"next", b"k") == 100


def rows_from(log, offset):
    return [(record.offset, record.key, record.value) for record in log.read(offset)]


def test_indexes_lead_to_each_record_left(open_compacted, clock):
    log = open_compacted(segment_bytes=1 << 20)
    for number in range(500):
        clock.now_ms += 10
        log.append(b"%d" % number * 20, b"%d" % (number * 7 % 300))
    log.roll()
    log.compact()
    assert len(log.segments[0].offset_index_entries) > 5
    assert not log.segments[0].doubtful_index
    for record in list(log.read()):
        found = log.offset_for_timestamp(record.timestamp)
        assert found is not None
        assert found.offset == record.offset


def test_truncation_takes_the_cleaner_offset_back(open_compacted):
    log = open_compacted()
    fill(log)
    log.roll()
    log.compact()
    log.truncate_to(50)
    assert read_cleaner_offset(log.path, "orders", 0) == 50
    log.append(b"a", b"key 3")
    log.append(b"b", b"key 3")
    log.roll()
    log.compact()
    assert [row for row in rows(log) if row[1] == b"key 3"] == [(log.log_end_offset - 1, b"key 3", b"b")]


def test_a_cleaner_offset_outside_of_the_log_is_not_believed(open_compacted):
    log = open_compacted()
    fill(log)
    log.roll()
    write_cleaner_offset(log.path, "orders", 0, 1 << 40)
    assert log.compaction_plan().first_dirty_offset == 0
    log.advance_log_start_offset(30)
    write_cleaner_offset(log.path, "orders", 0, 10)
    assert log.compaction_plan().first_dirty_offset == 30


def test_damage_is_reported_and_nothing_is_lost(open_compacted):
    log = open_compacted()
    fill(log)
    log.roll()
    before = rows(log)
    target = log.segments[2]
    with open(target.path, "r+b") as file:
        file.seek(190)
        byte = file.read(1)
        file.seek(190)
        file.write(bytes([byte[0] ^ 4]))
    with pytest.raises(CorruptDataError, match="CRC does not match") as caught:
        log.compact()
    assert caught.value.path == target.path
    with open(target.path, "r+b") as file:
        file.seek(190)
        file.write(byte)
    assert rows(log) == before
    assert not [name for name in os.listdir(log.path) if name.endswith((".cleaned", ".swap"))]
    log.compact()
    assert latest(rows(log)) == latest(before)


# ---- producers and transactions -------------------------------------------------------------------------


def test_aborted_records_go_and_their_marker_later(open_compacted, clock):
    log = open_compacted(delete_retention_ms=DAY_MS)
    writer = BatchWriter(log)
    writer.data(7, 0, [(b"k", b"committed")])  # 0
    writer.marker(7, 0, commit=True)  # 1
    writer.data(7, 0, [(b"k", b"aborted"), (b"j", b"aborted")])  # 2, 3
    writer.data(8, 0, [(b"j", b"committed")])  # 4
    writer.marker(7, 0, commit=False)  # 5
    writer.marker(8, 0, commit=True)  # 6
    writer.data(7, 0, [(b"z", b"last")])  # 7
    writer.marker(7, 0, commit=True)  # 8
    log.roll()
    report = log.compact()
    assert rows(log)[:3] == [(0, b"k", b"committed"), (4, b"j", b"committed"), (7, b"z", b"last")]
    assert report.records_aborted == 2
    kinds = [(batch.base_offset, batch.is_control, batch.has_delete_horizon) for batch in batches_of(log)]
    # The data were seen in this round, so the marker stays as it is.
    assert (5, True, False) in kinds

    def compact_again():
        log.append(b"more", b"%d" % clock.now_ms)
        log.roll()
        return log.compact()

    clock.now_ms += 1
    compact_again()
    horizons = [batch.base_offset for batch in batches_of(log) if batch.has_delete_horizon]
    assert horizons == [5]
    clock.now_ms += DAY_MS
    assert compact_again().markers_dropped == 1
    assert 5 not in [batch.base_offset for batch in batches_of(log)]
    assert {1, 6, 8} <= {batch.base_offset for batch in batches_of(log)}, "markers of data that are there stay"


def batches_of(log):
    found = []
    cursor = log.cursor(log.log_start_offset)
    while (batch := cursor.next_batch()) is not None:
        found.append(batch)
    return found


def test_nothing_from_an_open_transaction_on_is_touched(open_compacted):
    log = open_compacted()
    writer = BatchWriter(log)
    writer.data(-1, -1, [(b"k", b"1"), (b"k", b"2")])  # 0, 1
    writer.data(7, 0, [(b"k", b"open")])  # 2
    writer.data(-1, -1, [(b"k", b"3"), (b"k", b"4")])  # 3, 4
    log.roll()
    log.compact()
    assert [offset for offset, _, _ in rows(log)] == [1, 2, 3, 4]
    writer.marker(7, 0, commit=False)  # 5
    log.roll()
    log.compact()
    assert [row for row in rows(log) if row[1] == b"k"] == [(4, b"k", b"4")]


def test_a_producers_last_batch_leaves_its_header(open_compacted):
    log = open_compacted()
    writer = BatchWriter(log)
    writer.data(7, 3, [(b"k", b"1"), (b"k", b"2")], transactional=False)
    writer.data(7, 3, [(b"k", b"3"), (b"k", b"4")], transactional=False)
    writer.data(-1, -1, [(b"k", b"5"), (b"l", b"6")])
    log.roll()
    log.compact()
    first, second = batches_of(log)
    assert (first.base_offset, first.last_offset, first.records_count, first.size_bytes) == (2, 3, 0, 61)
    assert (first.producer_id, first.producer_epoch, first.base_sequence) == (7, 3, 2)
    assert first.base_timestamp == -1
    assert [record.offset for record in second] == [4, 5]


def test_markers_of_another_kind_stay(open_compacted):
    log = open_compacted()
    writer = BatchWriter(log)
    writer.control(key=bytes([0, 0, 0, 2]), value=b"leader change")
    writer.data(-1, -1, [(b"k", b"1")])
    log.roll()
    log.compact()
    assert [batch.is_control for batch in batches_of(log)] == [True, False]


# ---- segments ------------------------------------------------------------------------------------------


def test_small_segments_become_one(open_compacted):
    log = open_compacted(segment_bytes=1 << 20)
    for number in range(12):
        log.append(b"%d" % number, b"k%d" % number)
        log.roll()
    log.compact()
    assert [segment.base_offset for segment in log.segments] == [0, 12]
    assert len(rows(log)) == 12


def test_the_last_batch_of_a_group_leaves_its_header(open_compacted):
    log = open_compacted(segment_bytes=1 << 20)
    for number in range(6):
        log.append(b"%d" % number, b"k")
        log.roll()
    log.append(b"newest", b"k")
    log.roll()
    log.append(b"other", b"o")
    log.roll()
    log.compact()
    assert [(batch.base_offset, batch.records_count) for batch in batches_of(log)] == [(6, 1), (7, 1)]


def deleted_files(log) -> list[str]:
    return sorted(name for name in os.listdir(log.path) if name.endswith(".deleted"))


@pytest.mark.parametrize("ends_by", ["delay", "close", "reopening", "another compaction"])
def test_replaced_segments_wait_for_file_delete_delay(open_compacted, tmp_path, ends_by):
    scheduler = ManualScheduler()
    log = open_compacted(scheduler=scheduler, file_delete_delay_ms=60_000)
    fill(log)
    log.roll()
    assert log.compact().outcome == "compacted"
    waiting = deleted_files(log)
    assert any(name.endswith(".log.deleted") for name in waiting)
    kept = rows(log)
    scheduler.run(within_ms=59_999)
    assert deleted_files(log) == waiting
    if ends_by == "delay":
        scheduler.run(within_ms=60_000)
        assert log._deleted_files.pending_bytes == 0
    elif ends_by == "close":
        log.close()
    elif ends_by == "reopening":
        shutil.copytree(log.path, tmp_path / "left-0")
        log.close()
        log = open_compacted(name="left-0")
        assert rows(log) == kept
    else:
        fill(log, rounds=1)
        log.roll()
        log.compact()
        sizes = [os.path.getsize(os.path.join(log.path, name)) for name in deleted_files(log)]
        assert log._deleted_files.pending_bytes == sum(sizes), "each name counts once"
        scheduler.run(within_ms=60_000)
    assert deleted_files(log) == []
