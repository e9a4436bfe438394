"""A log that is flushed often keeps zeros ahead of its end: nobody takes them for records, or for damage."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from manual_scheduler import ManualScheduler

import logstore
from logstore.storage.backup import copy_log, take_snapshot
from logstore.storage.config import TopicConfig
from logstore.storage.log import Log
from logstore.storage.segment_deletion import log_facts
from logstore.storage.verification import verify_partition

FILLED_BYTES = 64 << 10
BURST = 12


def burst(log: Log, count: int = BURST) -> None:
    for _ in range(count):
        log.append(b"value-%d" % log.log_end_offset)


def active_bytes(log: Log) -> tuple[int, int]:
    """Of the active segment: its size, and its file's."""
    segment = log.segments[-1]
    return segment.size_bytes, os.path.getsize(segment.path)


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """What a writer leaves that is killed after a burst."""
    with Log(tmp_path / "running" / "t-0") as log:
        burst(log)
        size, file_size = active_bytes(log)
        assert (size < 2000, file_size) == (True, FILLED_BYTES)
        shutil.copytree(log.path, tmp_path / "t-0")
    return tmp_path / "t-0"


def log_file(directory: Path, base_offset: int = 0) -> Path:
    return directory / f"{base_offset:020d}.log"


def test_a_burst_fills_the_file_and_closing_cuts_it(tmp_path: Path) -> None:
    with Log(tmp_path / "t-0") as log:
        burst(log, 8)
        size, file_size = active_bytes(log)
        assert file_size == size
        burst(log)
        size, file_size = active_bytes(log)
        assert file_size == FILLED_BYTES
        assert bytes(file_size - size) == log_file(tmp_path / "t-0").read_bytes()[size:]
    assert log_file(tmp_path / "t-0").stat().st_size == size
    with Log(tmp_path / "t-0") as log:
        assert log.log_end_offset == 8 + BURST
        assert not log.recovery_report.scanned_bytes


@pytest.mark.parametrize(("config", "durability"), [({"preallocate": False}, "flushed"), ({}, "appended")])
def test_nothing_is_filled_where_it_is_not_wanted_or_does_not_pay(
    tmp_path: Path, config: dict[str, object], durability: logstore.model.Durability
) -> None:
    with Log(tmp_path / "t-0", TopicConfig(**config), durability=durability) as log:
        burst(log, 30)
        size, file_size = active_bytes(log)
        assert file_size == size


def test_a_log_that_idles_gives_the_zeros_back(tmp_path: Path) -> None:
    scheduler = ManualScheduler()
    with Log(tmp_path / "t-0", scheduler=scheduler) as log:
        burst(log)
        scheduler.run()
        burst(log, 1)
        scheduler.run()
        assert active_bytes(log)[1] == FILLED_BYTES
        scheduler.run()
        size, file_size = active_bytes(log)
        assert file_size == size
        burst(log, 3)
        size, file_size = active_bytes(log)
        assert file_size == size
        burst(log)
        assert active_bytes(log)[1] == FILLED_BYTES


def test_a_segment_is_cut_when_it_is_rolled_and_the_next_is_filled(tmp_path: Path) -> None:
    with Log(tmp_path / "t-0") as log:
        burst(log)
        size = log.segments[-1].size_bytes
        log.roll()
        assert log_file(tmp_path / "t-0").stat().st_size == size
        burst(log, 1)
        assert active_bytes(log)[1] == FILLED_BYTES
        log.truncate_to(BURST // 2)
        burst(log, 2)
        assert [record.offset for record in log.read()] == list(range(BURST // 2 + 2))


def test_a_killed_writers_zeros_are_the_end_and_no_loss(killed: Path) -> None:
    with Log(killed, read_only=True) as log:
        assert len(list(log.read())) == BURST
    with Log(killed) as log:
        assert log.log_end_offset == BURST
        assert (log.recovery_report.cut_bytes, log.recovery_report.reason, log.damage) == (0, "", None)
        size, file_size = active_bytes(log)
        assert file_size == size
        burst(log)
        assert [record.value for record in log.read()] == [b"value-%d" % number for number in range(2 * BURST)]
    assert not list(killed.glob("*.torn"))


def test_a_reader_beside_the_writer(tmp_path: Path) -> None:
    with Log(tmp_path / "t-0") as log:
        burst(log)
        with Log(tmp_path / "t-0", read_only=True) as reader:
            assert reader.log_end_offset == BURST
            assert not reader.refresh()
            burst(log)
            assert reader.refresh()
            log.roll()
            burst(log)
            reader.refresh()
            assert [record.value for record in reader.read()] == [b"value-%d" % number for number in range(3 * BURST)]


def test_verifying_and_copying_beside_the_writer(tmp_path: Path, killed: Path) -> None:
    for deep in (False, True):
        found = verify_partition(str(killed), deep=deep)
        assert (found.is_sound, found.ranges, found.records_count) == (True, [], BURST)
        assert found.segments[-1].size_bytes < 2000
    entry, copied_bytes = copy_log(take_snapshot(str(killed)), str(tmp_path / "store"))
    assert copied_bytes == found.segments[-1].size_bytes
    assert entry["log_end_offset"] == BURST


def test_sizes_are_those_of_records(tmp_path: Path) -> None:
    with Log(tmp_path / "t-0") as log:
        burst(log)
        facts = log_facts(log, now_ms=0)
        assert sum(segment.size_bytes for segment in facts.segments) == active_bytes(log)[0]


@pytest.mark.parametrize("at", [0, 1, 60, 600, 5000, FILLED_BYTES - 1])
def test_a_flipped_bit_in_the_zeros_loses_nothing(killed: Path, at: int) -> None:
    data = bytearray(log_file(killed).read_bytes())
    with Log(killed, read_only=True) as log:
        size = log.segments[-1].size_bytes
    data[min(size + at, len(data) - 1)] ^= 4
    log_file(killed).write_bytes(data)
    with Log(killed) as log:
        assert [record.value for record in log.read()] == [b"value-%d" % number for number in range(BURST)]
        burst(log)
    with Log(killed) as log:
        assert log.log_end_offset == 2 * BURST


def test_zeros_in_place_of_flushed_records_are_damage(tmp_path: Path) -> None:
    with Log(tmp_path / "t-0") as log:
        burst(log)
    path = log_file(tmp_path / "t-0")
    data = path.read_bytes()
    position = data.rindex(b"value-11") - 90  # in the last batch or the one before
    path.write_bytes(data[:position] + bytes(FILLED_BYTES - position))
    with Log(tmp_path / "t-0") as log:
        assert log.damage is not None
        with pytest.raises(logstore.CorruptDataError):
            log.append(b"never")


def test_zeros_before_a_later_segment_hide_no_missing_records(killed: Path) -> None:
    with Log(killed) as log:
        burst(log)
        log.roll()
        log.append(b"later", durability="appended")
        shutil.copytree(killed, killed.parent / "u-0")
    directory = killed.parent / "u-0"
    path = log_file(directory)
    data = path.read_bytes()
    path.write_bytes(data + bytes(1000))  # cut when it was rolled, which was not on disk yet
    with Log(directory, read_only=True) as log:
        assert len(list(log.read())) == 2 * BURST + 1
    with Log(directory) as log:
        assert (log.log_end_offset, log.recovery_report.cut_bytes) == (2 * BURST + 1, 0)
        assert path.stat().st_size == len(data)
