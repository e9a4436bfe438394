"""One bit of every byte of every file: the right records, or the right error naming the file; never a wrong record."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from ledger import value_of

import logstore

COUNT = 40
# The bits taken are another one from byte to byte; all eight with LOGSTORE_CRASH_BITS=8.
BITS = int(os.environ.get("LOGSTORE_CRASH_BITS", "1"))


def make(folder: Path) -> None:
    with logstore.open(folder) as broker:
        topic = broker.create_topic("t", segment_bytes=2048, index_interval_bytes=256)
        for number in range(COUNT):
            topic.append(value_of("w", number), timestamp=1_000_000 + number)


def read_around(log) -> tuple[dict[int, bytes], list[logstore.LogstoreError]]:
    """All that can be read, each damage met on the way."""
    found: dict[int, bytes] = {}
    errors: list[logstore.LogstoreError] = []
    offset = log.log_start_offset
    while offset < log.log_end_offset:
        try:
            for record in log.read(offset):
                found[record.offset] = record.value
            break
        except logstore.LogstoreError as error:
            errors.append(error)
            offset = max([offset, *(known + 1 for known in found)]) + 1
    return found, errors


def look(folder: Path, *, read_only: bool) -> tuple[dict[int, bytes], list[logstore.LogstoreError]]:
    try:
        with logstore.open(folder, read_only=read_only) as broker:
            if "t" not in broker:
                return {}, []
            log = broker.topic("t").partition(0)
            found, errors = read_around(log)
            moment = 1_000_000 + COUNT // 2
            try:
                answer = log.offset_for_timestamp(moment)
                assert answer is None or answer.timestamp >= moment
            except logstore.LogstoreError as error:
                errors.append(error)
            return found, [*errors, *broker.damages.values()]
    except logstore.LogstoreError as error:
        return {}, [error]


def check(folder: Path, damaged: Path, *, is_cache: bool, read_only: bool) -> None:
    """``is_cache``: all records are there all the same, since the file can be made anew."""
    found, errors = look(folder, read_only=read_only)
    for offset, value in found.items():
        assert value == value_of("w", offset), f"wrong record at offset {offset}"
    if is_cache:
        assert len(found) == COUNT, errors
        assert not errors
    elif len(found) < COUNT:
        assert errors, f"{COUNT - len(found)} records are missing without a word"
        for error in errors:
            assert isinstance(error, logstore.CorruptDataError | logstore.UnsupportedFormatError), error
        assert any(str(damaged) in str(error) for error in errors), "the error names the file"


NAMES = ["00000000000000000000.log", "last.log", "00000000000000000000.index", "last.index", "last.timeindex",
         "00000000000000000000.timeindex", "logstore.checkpoint", "leader-epoch-checkpoint", "partition.metadata"]


@pytest.mark.parametrize("read_only", [True, False], ids=["read_only", "writable"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.fault(11, "a bit flipped in a record")
@pytest.mark.fault(14, "index missing, damaged, stale")
@pytest.mark.fault(16, "checkpoint or metadata damaged")
def test_a_flipped_bit_in_every_byte(name: str, read_only: bool, work: Path) -> None:
    folder = work / "data"
    make(folder)
    segments = sorted((folder / "t-0").glob("*.log"))
    assert len(segments) > 1
    path = folder / "t-0" / name.replace("last", segments[-1].stem)
    original = path.read_bytes()
    pristine = work / "pristine"
    shutil.copytree(folder, pristine)
    # The checkpoint's slots stand far apart, with nothing between.
    positions = [at for at in range(len(original)) if "checkpoint" not in name or original[at] or at % 4096 < 80]
    assert positions or not original
    for at in positions:
        for number in range(BITS):
            damaged = bytearray(original)
            damaged[at] ^= 1 << ((at + number) % 8)
            path.write_bytes(damaged)
            try:
                check(folder, path, is_cache=not name.endswith(".log"), read_only=read_only)
            except BaseException as error:
                error.add_note(f"bit {(at + number) % 8} of byte {at} of {name}")
                raise
            if not read_only:
                shutil.rmtree(folder)
                shutil.copytree(pristine, folder)


@pytest.mark.fault(16, "checkpoint or metadata damaged")
def test_a_flipped_bit_in_the_topics_file_keeps_the_records(work: Path) -> None:
    folder = work / "data"
    make(folder)
    path = folder / "logstore.topics"
    original = path.read_bytes()
    for at in range(len(original)):
        damaged = bytearray(original)
        damaged[at] ^= 1 << (at % 8)
        path.write_bytes(damaged)
        found, errors = look(folder, read_only=True)
        if errors:
            assert isinstance(errors[0], logstore.UnsupportedFormatError), errors
        else:
            assert len(found) == COUNT, f"byte {at}"
