"""Compaction of files that others wrote: what survives is known beforehand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from golden_vectors import SEGMENT, SEGMENT_BASE_OFFSET, vector_bytes
from reference_codec import decode_log

from logstore._native.compaction import Compactor, KeyOffsetMap
from logstore._native.record_batch import RecordBatch
from logstore._native.segment import Segment
from logstore.storage.config import TopicConfig
from logstore.storage.log import Log

DATA = Path(__file__).parent.parent / "data" / "kafka_broker_dir"


@pytest.fixture
def compacted(tmp_path):
    """Opens a partition's directory as a compacted log, rolls and compacts it."""
    logs = []

    def open_one(name, **settings):
        log = Log(tmp_path / name, TopicConfig(cleanup_policy="compact", **settings), durability="appended")
        logs.append(log)
        log.roll()
        return log, log.compact()

    yield open_one
    for log in logs:
        log.close()


def test_the_survivors_of_the_segment_fixture(tmp_path, compacted):
    survivors = json.loads((SEGMENT / "topic-a-0.compaction.json").read_text())["survivors"]
    (tmp_path / "topic-a-0").mkdir()
    name = f"{SEGMENT_BASE_OFFSET:020d}.log"
    shutil.copy(SEGMENT / "topic-a-0" / name, tmp_path / "topic-a-0" / name)
    log, report = compacted("topic-a-0")
    assert report.outcome == "compacted"
    assert [record.offset for record in log.read()] == survivors
    content = Path(log.segments[0].path).read_bytes()
    stored = [(b.header, b.records()) for _, b in decode_log(content, SEGMENT_BASE_OFFSET) if b.header.codec < 2]
    assert {record.offset for _, records in stored for record in records} <= set(survivors)


def test_what_the_real_cleaner_left_is_what_ours_leaves(tmp_path, compacted):
    """The broker's own cleaner had gone over all but the last segments: nothing of what it kept may go but what is now
    superseded, and nothing it dropped is needed."""
    shutil.copytree(DATA / "data" / "compacted-0", tmp_path / "compacted-0")
    shutil.copy(DATA / "data" / "cleaner-offset-checkpoint", tmp_path)
    expected = next(
        partition for partition in json.loads((DATA / "expected.json").read_text())["partitions"]
        if partition["topic"] == "compacted"
    )
    before = [(record["offset"], record["key"], record["value"]) for record in expected["records"]]
    log, report = compacted("compacted-0", delete_retention_ms=2**62)
    assert report.plan.first_dirty_offset == 200
    latest = {key: offset for offset, key, _ in before}
    found = [(r.offset, r.key.hex(), None if r.value is None else r.value.hex()) for r in log.read()]
    assert found == [row for row in before if latest[row[1]] == row[0]]


def test_transactions_of_a_real_broker(tmp_path, compacted):
    shutil.copytree(DATA / "data" / "transactions-0", tmp_path / "transactions-0")
    log = Log(tmp_path / "transactions-0", TopicConfig(cleanup_policy="compact"), durability="appended")
    committed = {r.offset: r.key for r in log.read(isolation_level="read_committed")}
    log.close()
    log, report = compacted("transactions-0")
    latest = {key: offset for offset, key in committed.items() if key is not None}
    assert [record.offset for record in log.read()] == sorted(latest.values())
    assert report.records_aborted > 0


@pytest.mark.parametrize("name", ["compacted_delete_horizon", "compacted_delete_horizon_append_time"])
def test_golden_horizons_expire_when_they_say(tmp_path, name):
    data = vector_bytes(name)
    batch = RecordBatch.validated(data)
    assert batch.has_delete_horizon
    tombstones = [record.offset for record in batch if record.value is None]
    assert tombstones
    source = tmp_path / "source"
    source.write_bytes(data)
    for now_ms, kept in ((batch.base_timestamp - 1, True), (batch.base_timestamp, False)):
        end = batch.last_offset + 1
        compactor = Compactor(
            KeyOffsetMap(1 << 16), first_dirty_offset=0, first_uncleanable_offset=end + 1, now_ms=now_ms,
            delete_retention_ms=1,
        )
        assert compactor.map_segment(str(source), len(data), 0, end)
        compactor.start_rewriting()
        target = tmp_path / f"{now_ms}.log"
        output = Segment.create(str(target), 0, index_interval_bytes=4096, index_bytes=1024)
        compactor.rewrite_segment(str(source), len(data), 0, end, output)
        written = [b for _, b in decode_log(target.read_bytes())]
        offsets = [record.offset for b in written for record in b.records()]
        assert (set(tombstones) <= set(offsets)) is kept
        timestamps = {record.offset: record.timestamp for record in batch}
        assert all(record.timestamp == timestamps[record.offset] for b in written for record in b.records())
