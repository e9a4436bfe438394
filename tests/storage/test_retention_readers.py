"""Readers across deletion: what they hold stays whole, what they stand in is said to be gone, nothing else shows."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

import logstore
from logstore.errors import OffsetOutOfRangeError
from logstore.storage.retention import RetentionPolicy, retention_plan
from logstore.storage.segment_deletion import log_facts

NOW_MS = 1_700_000_000_000


def value_of(offset: int) -> bytes:
    return b"%06d" % offset + bytes([offset % 251]) * 200


def retain(log, kept_records: int) -> None:
    log.reconfigure(log.config.with_changes({"logstore.retention.records": kept_records, "retention.ms": -1}))
    plan = retention_plan(log_facts(log), RetentionPolicy.of(log.config), NOW_MS)
    log.apply_retention(plan, now_ms=NOW_MS)
    log._deleted_files.unlink()


@pytest.mark.fault(21, "readers while segments are deleted or replaced")
def test_what_readers_hold_outlives_the_files(open_log):
    log = open_log(segment_bytes=4096)
    for offset in range(200):
        log.append(value_of(offset))
    batches = log.fetch(0, max_bytes=1 << 20)
    records = [record for batch in batches for record in batch]
    reader = log.read(0)
    first = next(reader)
    columns = list(log.scan())
    retain(log, 10)
    assert not [name for name in os.listdir(log.path) if name.endswith(".deleted")]
    assert [bytes(record.value) for record in records] == [value_of(record.offset) for record in records]
    assert first.value == value_of(0)
    kept = [(int(offset), value) for batch in columns for offset, value in zip(batch.offsets, batch.values(), strict=True)]
    assert kept == [(offset, value_of(offset)) for offset in range(200)]
    log.close()
    assert [bytes(record.value) for record in records] == [value_of(record.offset) for record in records]


@pytest.mark.fault(21, "readers while segments are deleted or replaced")
def test_readers_in_step_with_deletion_never_see_a_wrong_byte(open_log):
    """Threads read from wherever the log starts while it is appended to and trimmed."""
    log = open_log(segment_bytes=4096)
    log.append(value_of(0))
    stop = threading.Event()
    wrong: list[object] = []
    told = [0]
    read = [0]

    def follow() -> None:
        while not stop.is_set():
            try:
                expected = None
                for record in log.read(max(log.log_start_offset - 3, 0)):
                    if expected is not None and record.offset != expected:
                        wrong.append((record.offset, expected))
                    expected = record.offset + 1
                    read[0] += 1
                    if record.value != value_of(record.offset):
                        wrong.append(record.offset)
            except OffsetOutOfRangeError as error:
                told[0] += 1
                if error.log_start_offset is None or error.log_start_offset > log.log_start_offset:
                    wrong.append(error)
            except Exception as error:
                wrong.append(error)
                return

    threads = [threading.Thread(target=follow) for _ in range(2)]
    for thread in threads:
        thread.start()
    for offset in range(1, 600):
        log.append(value_of(offset))
        if offset % 100 == 0:
            retain(log, 60)
    stop.set()
    for thread in threads:
        thread.join(120)
    assert not wrong
    assert read[0] > 100
    assert [record.offset for record in log.read()] == list(range(log.log_start_offset, 600))


READER = """
import sys
import logstore

with logstore.open(sys.argv[1], read_only=True) as broker:
    log = broker.topic("t").partition(0)
    told = expected = 0
    print("open", flush=True)
    while expected < int(sys.argv[2]):
        try:
            for record in log.read(expected, follow=True, timeout=10):
                assert record.offset == expected, (record.offset, expected)
                assert record.value == b"%06d" % record.offset + bytes([record.offset % 251]) * 200, record.offset
                expected += 1
                if expected % 50 == 0:
                    sys.stdin.readline()
                if expected == int(sys.argv[2]):
                    break
        except logstore.OffsetOutOfRangeError as error:
            assert error.log_start_offset > expected, (error, expected)
            expected = error.log_start_offset
            told += 1
    print("told", told, "end", expected, flush=True)
"""


@pytest.mark.fault(21, "readers while segments are deleted or replaced")
def test_a_reader_of_another_process_is_told_and_goes_on(tmp_path: Path):
    count = 1000
    with logstore.open(tmp_path / "data", durability="appended", housekeeping=False) as broker:
        topic = broker.create_topic("t", segment_bytes=4096)
        log = topic.partition(0)
        for offset in range(count // 2):
            topic.append(value_of(offset))
        with subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(READER), tmp_path / "data", str(count)], text=True, bufsize=1,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        ) as reader:  # fmt: skip
            try:
                assert reader.stdout.readline() == "open\n"
                for offset in range(count // 2, count):
                    topic.append(value_of(offset))
                    if offset % 100 == 0:
                        retain(log, 30)
                    if offset % 50 == 0:
                        reader.stdin.write("\n")
                reader.stdin.close()  # from here on it reads without waiting
                words = reader.stdout.readline().split()
            finally:
                reader.kill()
    assert words[0::2] == ["told", "end"]
    assert int(words[1]) >= 1
    assert int(words[3]) == count
