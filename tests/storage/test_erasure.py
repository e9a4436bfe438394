"""Erasing one key: gone from every file, everything else as it was."""

from __future__ import annotations

import os

import pytest
from batch_writer import BatchWriter

from logstore.errors import CorruptDataError, InvalidRequestError

SECRET = b"somebody's key"


def rows(log):
    return [(record.offset, record.timestamp, record.key, record.value, record.headers) for record in log.read()]


def fill(log):
    for number in range(30):
        log.append_many([b"a" * 30, b"b" * 30, None], [b"other", SECRET if number % 3 == 0 else b"third", b"last"])


@pytest.mark.parametrize("policy", ["delete", "compact"])
@pytest.mark.parametrize("codec", ["producer", "zstd"])
def test_every_record_of_the_key_is_gone_and_no_other(open_log, policy, codec):
    log = open_log(segment_bytes=1024, cleanup_policy=policy, compression_type=codec)
    fill(log)
    before = rows(log)
    contiguous = log.contiguous
    report = log.erase_key(SECRET)
    expected = [row for row in before if row[2] != SECRET]
    assert rows(log) == expected
    assert report.records_erased == len(before) - len(expected) == 10
    assert report.records_found == 0
    assert report.records_scanned == len(expected)
    assert report.up_to_offset == log.log_end_offset == 90
    assert report.segments_rewritten
    assert (log.log_start_offset, log.contiguous) == (0, contiguous)
    log.close()
    log = open_log(segment_bytes=1024, cleanup_policy=policy, compression_type=codec)
    assert rows(log) == expected
    assert log.recovery_report.rebuilt_indexes == 0


def test_no_file_holds_the_key_any_more(open_log, tmp_path):
    log = open_log(segment_bytes=1024, file_delete_delay_ms=60_000)
    fill(log)
    log.advance_log_start_offset(log.segments[2].base_offset)
    assert [name for name in os.listdir(log.path) if name.endswith(".deleted")]
    report = log.erase_key(SECRET)
    for folder, _, names in os.walk(tmp_path):
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:
                assert SECRET not in file.read(), name
    assert report.files_left == []
    assert not [name for name in os.listdir(log.path) if name.endswith(".deleted")]


def test_torn_tails_are_named(open_log):
    log = open_log()
    log.append(b"a", SECRET)
    torn = log.segments[-1].path + ".120.torn"
    with open(torn, "wb") as file:
        file.write(SECRET)
    assert log.erase_key(SECRET).files_left == [os.path.basename(torn)]


def test_what_is_appended_later_stays(open_log):
    log = open_log()
    log.append(b"a", SECRET)
    log.append(b"b", b"other", durability="buffered")
    log.append(b"c", SECRET, durability="buffered")
    assert log.erase_key(SECRET).records_erased == 2
    log.append(b"d", SECRET)
    assert [(record.offset, record.value) for record in log.read()] == [(1, b"b"), (3, b"d")]


def test_a_key_that_is_not_there_changes_nothing(open_log):
    log = open_log()
    fill(log)
    before = rows(log)
    with open(log.segments[0].path, "rb") as file:
        content = file.read()
    report = log.erase_key(b"nobody's")
    assert (report.records_erased, report.segments_rewritten, report.records_scanned) == (0, [], 90)
    with open(log.segments[0].path, "rb") as file:
        assert file.read() == content
    assert rows(log) == before


def test_sequences_and_open_transactions_stay(open_log):
    log = open_log(cleanup_policy="compact")
    writer = BatchWriter(log)
    writer.data(7, 0, [(SECRET, b"1")])
    writer.data(7, 0, [(SECRET, b"2"), (b"other", b"3")])
    report = log.erase_key(SECRET)
    assert report.records_erased == 2
    cursor = log.cursor(0)
    first, second = cursor.next_batch(), cursor.next_batch()
    assert (first.base_offset, first.last_offset, first.records_count, first.base_sequence) == (0, 0, 0, 0)
    assert first.is_transactional
    assert (second.base_offset, second.last_offset, second.records_count, second.base_sequence) == (1, 2, 1, 1)
    writer.marker(7, 0, commit=True)
    log.roll()
    log.compact()
    assert [(record.key, record.value) for record in log.read()][:1] == [(b"other", b"3")]


def test_damage_is_said_before_anything_changes(open_log):
    log = open_log(segment_bytes=1024)
    fill(log)
    log.roll()
    with open(log.segments[1].path, "r+b") as file:
        file.seek(100)
        file.write(b"\xff")
    with pytest.raises(CorruptDataError):
        log.erase_key(SECRET)
    assert SECRET in {record.key for record in log.read(stop=log.segments[1].base_offset)}


def test_a_key_is_bytes(open_log):
    log = open_log()
    with pytest.raises(InvalidRequestError, match="a key is bytes"):
        log.erase_key("text")
    log.append(b"empty key", b"")
    log.append(b"no key")
    assert log.erase_key(b"").records_erased == 1
    assert [record.value for record in log.read()] == [b"no key"]


def test_progress_reaches_the_end(open_log):
    log = open_log()
    fill(log)
    seen = []
    log.erase_key(SECRET, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1]
    assert seen == sorted(seen)
