"""Compaction with a second thread: what stays is the same, byte for byte."""

from __future__ import annotations

import random
import shutil

import pytest

from logstore.errors import CorruptDataError, InvalidRequestError
from logstore.storage.config import TopicConfig
from logstore.storage.log import Log

KEYS = 2000
SETTINGS = {"cleanup.policy": "compact", "flush.ms": 2**63 - 1, "segment.bytes": 1 << 20, "logstore.batch.bytes": 8192}


def some_log(path, records: int = 30_000, **settings) -> Log:
    """Some pieces a segment, some segments, and a compacted beginning."""
    log = Log(str(path), TopicConfig({**SETTINGS, **settings}), durability="appended", clock=lambda: 1_000_000)
    chance = random.Random(5)
    for start in range(0, records, 1000):
        log.append_many(
            [b"%087d" % number if number % 50 else None for number in range(start, start + 1000)],
            [b"key-%d" % chance.randrange(KEYS) for _ in range(1000)],
            timestamps=[1_000_000] * 1000,
        )
    log.flush()
    log.roll()
    return log


def reopened(path) -> Log:
    return Log(str(path), TopicConfig(SETTINGS), durability="appended", clock=lambda: 1_000_000)


def bytes_of(log: Log) -> list[bytes]:
    contents = []
    for segment in log.segments:
        with open(segment.path, "rb") as file:
            contents.append(file.read())
    return contents


@pytest.mark.parametrize("settings", [{}, {"compression.type": "gzip"}, {"index.interval.bytes": 1 << 30}])
def test_two_threads_keep_what_one_keeps(tmp_path, settings):
    if "compression.type" in settings:
        settings = {**settings, "segment.bytes": 64 << 10}
    some_log(tmp_path / "one" / "t-0", **settings).close()
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    found = []
    for name, threads in (("one", 1), ("two", 2)):
        log = reopened(tmp_path / name / "t-0")
        report = log.compact(threads=threads)
        assert report.outcome == "compacted"
        assert report.records_read == 30_000
        found.append((bytes_of(log), report._replace(plan=None, duration_s=0)))
        log.close()
    assert found[0] == found[1]


def test_damage_is_named_and_nothing_changes(tmp_path):
    log = some_log(tmp_path / "t-0")
    path = log.segments[1].path
    with open(path, "r+b") as file:
        file.seek(500_000)
        byte = file.read(1)
        file.seek(500_000)
        file.write(bytes([byte[0] ^ 1]))
    before = bytes_of(log)
    messages = []
    for threads in (1, 2):
        with pytest.raises(CorruptDataError) as error:
            log.compact(threads=threads)
        messages.append(str(error.value))
    assert messages[0] == messages[1]
    assert bytes_of(log) == before
    log.close()


def test_a_stop_ends_it_between_pieces(tmp_path):
    log = some_log(tmp_path / "t-0", records=3000)
    calls = iter([False, True])
    assert log.compact(stop=lambda: next(calls, True)).outcome == "stopped"
    assert log.compact().outcome == "compacted"
    log.close()


def test_no_thread_is_refused(tmp_path):
    log = some_log(tmp_path / "t-0", records=1000)
    with pytest.raises(InvalidRequestError, match="threads"):
        log.compact(threads=0)
    log.close()
