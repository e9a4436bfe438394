"""The segment fixture through `Log`: its index files byte for byte, its look-ups, its files beside."""

from __future__ import annotations

import json
import shutil

import pytest
from golden_vectors import SEGMENT, SEGMENT_BASE_OFFSET

from logstore._native.record_batch import batch_positions
from logstore.storage.config import TopicConfig
from logstore.storage.leader_epochs import LeaderEpochs
from logstore.storage.log import Log

PARTITION = SEGMENT / "topic-a-0"
STEM = f"{SEGMENT_BASE_OFFSET:020d}"
LOOKUPS = json.loads((SEGMENT / "topic-a-0.lookups.json").read_text())
INDEXES = {4096: PARTITION, 1024: SEGMENT / "interval-1024"}
DATA = (PARTITION / f"{STEM}.log").read_bytes()


def open_log(path, interval=4096, **arguments):
    return Log(
        path / "topic-a-0",
        TopicConfig({"index.interval.bytes": interval}),
        durability="appended",
        **arguments,
    )


def started_at_the_base(tmp_path, interval):
    """A log that begins where the fixture does: with an empty file of that name."""
    directory = tmp_path / "topic-a-0"
    directory.mkdir()
    (directory / f"{STEM}.log").touch()
    return open_log(tmp_path, interval)


@pytest.mark.parametrize("interval", INDEXES)
@pytest.mark.parametrize("batches_a_call", [1, 7, 300])
def test_follower_writes_the_index_files_byte_for_byte(tmp_path, interval, batches_a_call):
    places = list(batch_positions(DATA))
    with started_at_the_base(tmp_path, interval) as log:
        for first in range(0, len(places), batches_a_call):
            call = places[first : first + batches_a_call]
            end = call[-1][0] + call[-1][1]
            log.append_as_follower(DATA[call[0][0] : end])
        assert log.log_end_offset == LOOKUPS["log_end_offset"]
    check_files(tmp_path / "topic-a-0", interval)


def check_files(directory, interval):
    assert (directory / f"{STEM}.log").read_bytes() == DATA
    for suffix in ("index", "timeindex"):
        expected = (INDEXES[interval] / f"{STEM}.{suffix}").read_bytes()
        assert (directory / f"{STEM}.{suffix}").read_bytes() == expected


@pytest.mark.parametrize("interval", INDEXES)
def test_recovery_rebuilds_the_index_files_byte_for_byte(tmp_path, interval):
    directory = tmp_path / "topic-a-0"
    directory.mkdir()
    shutil.copy(PARTITION / f"{STEM}.log", directory)
    with open_log(tmp_path, interval) as log:
        assert log.recovery_report.scanned_bytes == len(DATA)
        assert log.recovery_report.cut_bytes == 0
    check_files(directory, interval)


@pytest.fixture
def log(tmp_path):
    shutil.copytree(PARTITION, tmp_path / "topic-a-0")
    with open_log(tmp_path, read_only=True) as log:
        yield log


def test_offsets_are_found_where_the_fixture_says(log):
    (segment,) = log.segments
    for offset, (position, size_bytes) in LOOKUPS["translate_offset"].items():
        found = segment.locate(int(offset))
        assert found[:2] == (position, size_bytes)
        assert found[2] <= int(offset) <= found[3]


def test_times_are_found_where_the_fixture_says(log):
    for timestamp, expected in LOOKUPS["offsets_for_times"].items():
        found = log.offset_for_timestamp(int(timestamp))
        assert found == (None if expected is None else tuple(expected))


def test_every_offset_is_found(log):
    for offset in range(log.log_start_offset, log.log_end_offset):
        batch = log.fetch(offset, 1)[0]
        assert batch.base_offset <= offset <= batch.last_offset


def test_leader_epochs_are_read_and_written_as_kafka_has_them(tmp_path):
    shutil.copy(PARTITION / "leader-epoch-checkpoint", tmp_path)
    expected = (tmp_path / "leader-epoch-checkpoint").read_bytes()
    epochs = LeaderEpochs(str(tmp_path))
    assert epochs.entries
    epochs.write()
    assert (tmp_path / "leader-epoch-checkpoint").read_bytes() == expected


def test_epochs_of_the_batches_are_kept(tmp_path):
    with started_at_the_base(tmp_path, 4096) as log:
        log.append_as_follower(DATA)
        expected = []
        for batch in log.fetch(SEGMENT_BASE_OFFSET, len(DATA)):
            if not expected or batch.partition_leader_epoch > expected[-1][0]:
                expected.append((batch.partition_leader_epoch, batch.base_offset))
    entries = LeaderEpochs(str(tmp_path / "topic-a-0")).entries
    assert entries[-len(expected) :] == expected or entries == expected
