"""Opening after a loss: cases that random programs found, kept as they are."""

from __future__ import annotations

import os

import pytest
from crash_states import segment_paths, stored_batches
from manual_scheduler import ManualScheduler

from logstore.storage.config import TopicConfig
from logstore.storage.log import Log

CONFIG = TopicConfig(logstore_open_batch_mapped=False, segment_bytes=1024, index_interval_bytes=0)


def open_log(tmp_path, **arguments):
    return Log(tmp_path / "orders-0", CONFIG, durability="appended", **arguments)


def killed_after(tmp_path, steps):
    """The directory as it is when the process ends without closing its log."""
    directory = tmp_path / "first"
    log = open_log(directory, scheduler=ManualScheduler())
    steps(log)
    os.rename(directory / "orders-0", tmp_path / "orders-0")
    log._set_write_state(3)  # closed, with nothing more written
    log.close()
    return tmp_path / "orders-0"


def test_what_follows_missing_records_is_set_aside(tmp_path):
    def steps(log):
        for _ in range(30):
            log.append(bytes(100))

    directory = killed_after(tmp_path, steps)
    first, second = segment_paths(directory)[:2]
    last = stored_batches(first)[-1]
    os.truncate(first, last.position)  # whole batches are left, and the next file is whole, too
    with open_log(tmp_path) as log:
        assert log.damage is None
        assert "missing before the next segment" in log.recovery_report.reason
        assert [r.offset for r in log.read()] == list(range(last.base_offset))
        assert (directory / f"{second.name}.torn").exists()
        assert log.append(b"next") == last.base_offset
    with open_log(tmp_path) as log:
        assert log.recovery_report.cut_bytes == 0
        assert len(list(log.read())) == last.base_offset + 1


def test_offsets_below_the_log_start_are_not_missing(tmp_path):
    with open_log(tmp_path) as log:
        log.append_many([bytes(80)] * 25)
        log.advance_log_start_offset(15)
        log.truncate_to(1)
        log.append_many([b"a"] * 8)
        log.truncate_to(5)
        assert [record.offset for record in log.read()] == [1, 2, 3, 4]
    with open_log(tmp_path) as log:
        assert log.damage is None
        assert [record.offset for record in log.read()] == [1, 2, 3, 4]


@pytest.mark.parametrize("suffix", [".index", ".timeindex"])
@pytest.mark.parametrize("damage", ["missing", "cut off", "not rising"])
def test_a_rebuilt_index_is_written_when_the_log_is_closed(tmp_path, suffix, damage):
    with open_log(tmp_path) as log:
        for i in range(30):
            log.append(bytes(100), timestamp=i)
    before = {path: path.with_suffix(suffix).read_bytes() for path in segment_paths(tmp_path / "orders-0")}
    for path, data in before.items():
        file = path.with_suffix(suffix)
        if damage == "missing" or not data:
            file.unlink()
        elif damage == "cut off":
            file.write_bytes(data[:1])
        else:
            file.write_bytes(data + data[: len(data) // 2 or 12])
    with open_log(tmp_path) as log:
        for offset in range(30):
            assert log.fetch(offset, 1)[0].base_offset == offset
            assert log.offset_for_timestamp(offset) == (offset, offset)
    for path in list(before)[:-1]:
        if damage == "missing":
            assert path.with_suffix(suffix).read_bytes() == before[path], path.name


def test_a_log_with_gaps_stays_one_when_its_checkpoint_is_lost(tmp_path):
    from logstore._native.record_batch_builder import RecordBatchBuilder

    with open_log(tmp_path) as log:
        for base_offset in (0, 5, 9):
            builder = RecordBatchBuilder()
            builder.append(b"a", timestamp=0)
            log.append_as_follower(builder.build(base_offset=base_offset))
    (tmp_path / "orders-0" / "logstore.checkpoint").unlink()
    for _ in range(2):  # the second time with a checkpoint of its own
        with open_log(tmp_path) as log:
            assert [record.offset for record in log.read()][:3] == [0, 5, 9]
            log.append(b"more")


def test_buffered_records_are_lost_with_the_process_alone(tmp_path):
    def steps(log):
        log.append(b"a")
        log.append(b"b", durability="buffered")

    killed_after(tmp_path, steps)
    with open_log(tmp_path) as log:
        assert [record.value for record in log.read()] == [b"a"]
        assert log.append(b"c") == 1
