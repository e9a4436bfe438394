"""Checking a log's files without opening it: every damage of the tables in docs/durability.md is named."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import pytest
from crash_states import segment_paths, stored_batches

from logstore._native.verification import SegmentVerifier
from logstore.storage.config import TopicConfig
from logstore.storage.log import Log
from logstore.storage.segment_digests import SegmentDigests
from logstore.storage.verification import PartitionVerification, record_digests, verify_partition

COUNT = 72
SETTINGS = {"segment_bytes": 1024, "index_interval_bytes": 100}
BASE_MS = 1_357_034_400_000


def make(parent: Path, *, count: int = COUNT, batch: int = 4) -> Path:
    with Log(parent / "t-0", TopicConfig(**SETTINGS), durability="appended") as log:
        for start in range(0, count, batch):
            log.append_many(
                [b"value-%d" % number for number in range(start, start + batch)],
                timestamps=[BASE_MS + number * 1000 for number in range(start, start + batch)],
            )
    return parent / "t-0"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return make(tmp_path)


def verify(directory: Path, *, deep: bool = True) -> PartitionVerification:
    return verify_partition(str(directory), deep=deep)


@pytest.mark.parametrize("deep", [True, False])
def test_a_sound_log(directory: Path, deep: bool) -> None:
    seen: list[int] = []
    found = verify_partition(str(directory), deep=deep, progress=seen.append)
    assert found.is_sound
    assert (found.ranges, found.faults, found.undigested_count) == ([], [], 0)
    assert (found.log_start_offset, found.log_end_offset, found.records_count) == (0, COUNT, COUNT)
    assert len(found.segments) == len(segment_paths(directory)) > 2
    assert found.size_bytes == sum(path.stat().st_size for path in segment_paths(directory)) == seen[-1]
    assert seen == sorted(seen)


def test_an_empty_log(tmp_path: Path) -> None:
    assert verify(make(tmp_path, count=0)).is_sound


NAMES = ["first.log", "last.log", "first.index", "last.index", "first.timeindex", "last.timeindex", "logstore.checkpoint",
         "logstore.digests"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.fault(11, "a bit flipped in a record")
@pytest.mark.fault(12, "a bit flipped where no CRC is")
def test_a_flipped_bit_in_every_byte_is_found(name: str, directory: Path) -> None:
    segments = segment_paths(directory)
    name = name.replace("first", segments[0].stem).replace("last", segments[-1].stem)
    path = directory / name
    original = path.read_bytes()
    assert original
    for at in range(len(original)):
        if name == "logstore.checkpoint" and at % 4096 >= 60:
            continue  # nothing is stored there
        damaged = bytearray(original)
        damaged[at] ^= 1 << (at * 5 % 8)
        path.write_bytes(damaged)
        found = verify(directory)
        assert not found.is_sound, f"byte {at} of {name}"
        if name.endswith(".log"):
            (damage,) = found.damages
            batch = next(b for b in stored_batches_of(original) if b[0] <= at < b[0] + b[1])
            if damage.kind == "replaced":  # of what no CRC covers, in a place that makes sense by itself
                assert 8 <= at - batch[0] < 17
            else:
                assert damage.first_offset == batch[2], f"byte {at}: {damage}"
                assert damage.end_offset == batch[3] + 1
                assert BASE_MS - 1 <= max(damage.first_timestamp, damage.last_timestamp) <= BASE_MS + COUNT * 1000
        else:
            assert found.damages == []
            assert [fault.path for fault in found.faults] == [str(path)]
    path.write_bytes(original)
    assert verify(directory).is_sound


def stored_batches_of(content: bytes) -> list[tuple[int, int, int, int]]:
    import tempfile

    with tempfile.NamedTemporaryFile(suffix=".log") as file:
        file.write(content)
        file.flush()
        return [tuple(batch) for batch in stored_batches(Path(file.name))]


@pytest.mark.fault(12, "a bit flipped where no CRC is")
def test_headers_alone_show_what_is_outside_of_the_crcs(directory: Path) -> None:
    """Without reading the records: the digest is over the headers."""
    path = segment_paths(directory)[1]
    original = path.read_bytes()
    batch = stored_batches(path)[1]
    for at in range(61):
        damaged = bytearray(original)
        damaged[batch.position + at] ^= 0x10
        path.write_bytes(damaged)
        assert not verify(directory, deep=False).is_sound, f"byte {at} of a header"
    damaged = bytearray(original)
    damaged[batch.position + 70] ^= 1
    path.write_bytes(damaged)
    assert verify(directory, deep=False).is_sound
    assert not verify(directory).is_sound


@pytest.mark.parametrize("number", [0, 1, -2, -1])
@pytest.mark.parametrize("deep", [True, False])
@pytest.mark.fault(15, "segment missing, cut or doubled")
def test_a_segment_cut_anywhere(number: int, deep: bool, directory: Path) -> None:
    path = segment_paths(directory)[number]
    original = path.read_bytes()
    batches = stored_batches(path)
    for size in range(0, len(original), 47):
        path.write_bytes(original[:size])
        found = verify(directory, deep=deep)
        lost = next(batch for batch in batches if batch.position + batch.size_bytes > size)
        assert {damage.first_offset for damage in found.damages} == {lost.base_offset}, size
        assert {damage.end_offset for damage in found.damages} == {batches[-1].last_offset + 1}, size


@pytest.mark.parametrize("number", [0, 1, -1])
@pytest.mark.fault(15, "segment missing, cut or doubled")
def test_a_missing_segment(number: int, directory: Path) -> None:
    path = segment_paths(directory)[number]
    batches = stored_batches(path)
    path.unlink()
    found = verify(directory, deep=False)
    (damage,) = found.damages
    assert (damage.first_offset, damage.end_offset) == (batches[0].base_offset, batches[-1].last_offset + 1)
    assert damage.kind == "missing"
    assert BASE_MS <= damage.last_timestamp <= BASE_MS + COUNT * 1000


def test_a_missing_segment_of_a_log_with_gaps(tmp_path: Path) -> None:
    """Where gaps are no damage, only the digests tell that there was a segment."""
    directory = make(tmp_path)
    from logstore.storage.checkpoint import CheckpointFile

    file = CheckpointFile(str(directory / "logstore.checkpoint"))
    state = file.read()
    assert state is not None
    file.replace(state._replace(is_contiguous=False))
    path = segment_paths(directory)[1]
    batches = stored_batches(path)
    assert verify(directory).is_sound
    path.unlink()
    (damage,) = verify(directory).damages
    assert (damage.first_offset, damage.end_offset) == (batches[0].base_offset, batches[-1].last_offset + 1)


@pytest.mark.fault(13, "lost, misplaced, stale or swapped blocks and files")
def test_swapped_doubled_and_stale_segments(directory: Path) -> None:
    first, second = segment_paths(directory)[:2]
    contents = first.read_bytes(), second.read_bytes()
    first.write_bytes(contents[1])
    second.write_bytes(contents[0])
    found = verify(directory, deep=False)
    assert {damage.first_offset for damage in found.damages} == {0, int(second.stem)}
    assert f"that of the segment at offset {int(second.stem)}" in found.damages[0].reason
    assert "that of the segment at offset 0" in found.damages[-1].reason
    second.write_bytes(contents[1])
    found = verify(directory, deep=False)
    assert [damage.first_offset for damage in found.damages] == [0]
    first.write_bytes(contents[0])
    assert verify(directory).is_sound
    # The same offsets, sizes and records, from another leader's time: sound by all that the format has.
    stale = bytearray(contents[0])
    for batch in stored_batches(first):
        stale[batch.position + 12 : batch.position + 16] = b"\0\0\0\1"
    first.write_bytes(stale)
    (damage,) = verify(directory, deep=False).damages
    assert (damage.kind, damage.first_offset, damage.end_offset) == ("replaced", 0, int(second.stem))


def test_an_unfinished_write_is_no_damage_but_is_named(tmp_path: Path) -> None:
    source = tmp_path / "running"
    log = Log(source / "t-0", TopicConfig(), durability="appended")
    for number in range(10):
        log.append(b"value-%d" % number)
    log.flush()
    shutil.copytree(source / "t-0", tmp_path / "t-0")
    log.close()
    path = segment_paths(tmp_path / "t-0")[0]
    whole = path.read_bytes()
    last = stored_batches(path)[-1]
    path.write_bytes(whole + whole[last.position : last.position + 40])
    found = verify(tmp_path / "t-0")
    assert found.is_sound
    (damage,) = found.ranges
    assert (damage.kind, damage.position) == ("unfinished", len(whole))
    # Below what was flushed nothing is unfinished.
    path.write_bytes(whole[:-5])
    with Log(source / "t-0", read_only=True) as read:
        assert read.log_end_offset == 10


def test_beside_a_writer(tmp_path: Path) -> None:
    log = Log(tmp_path / "t-0", TopicConfig(**SETTINGS), durability="appended")
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            log.append(b"value-%d" % number)
            number += 1
            if number % 300 == 0:
                log.advance_log_start_offset(log.log_end_offset - 50)
            if number % 500 == 0:
                log.truncate_to(log.log_end_offset - 1)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(25):
            found = verify(tmp_path / "t-0", deep=number % 2 == 0)
            assert found.damages == []
    finally:
        stop.set()
        writer.join()
        log.close()
    assert verify(tmp_path / "t-0").is_sound


def test_digests_that_are_missing_are_taken_by_a_deep_verification(directory: Path) -> None:
    before = SegmentDigests(str(directory)).entries()
    (directory / "logstore.digests").unlink()
    found = verify(directory)
    sealed = len(segment_paths(directory)) - 1
    assert found.is_sound
    assert found.undigested_count == sealed
    assert record_digests(found) == sealed
    after = SegmentDigests(str(directory)).entries()
    for base, digest in after.items():
        assert digest._replace(verified_ms=0) == before[base]
        assert digest.verified_ms == found.verified_ms > 0


def test_nothing_is_recorded_of_a_segment_that_has_changed_since(tmp_path: Path) -> None:
    directory = make(tmp_path, count=2 * COUNT)
    (directory / "logstore.digests").unlink()
    found = verify(directory)
    first, second = segment_paths(directory)[:2]
    os.utime(first, ns=(1, 1))
    second.write_bytes(second.read_bytes() + b"x")
    record_digests(found)
    entries = SegmentDigests(str(directory)).entries()
    assert entries
    assert 0 not in entries
    assert int(second.stem) not in entries


def test_missing_and_wrong_small_files(directory: Path) -> None:
    first = segment_paths(directory)[0]
    for path, content in [
        (first.with_suffix(".index"), None),
        (first.with_suffix(".timeindex"), b"123"),
        (directory / "leader-epoch-checkpoint", b"0\n2\n0 0\n0 5\n"),
        (directory / "partition.metadata", b"version: 0\ntopic_id: short"),
    ]:
        original = path.read_bytes()
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        found = verify(directory)
        assert [fault.path for fault in found.faults] == [str(path)]
        assert found.damages == []
        path.write_bytes(original)
    assert verify(directory).is_sound


def test_a_long_segment_is_checked_by_two_threads_and_damage_is_the_same(tmp_path: Path) -> None:
    with Log(tmp_path / "t-0", TopicConfig(), durability="appended") as log:
        for start in range(0, 6_000, 100):
            log.append_many([b"%06d" % number * 150 for number in range(start, start + 100)])
    (path,) = segment_paths(tmp_path / "t-0")
    index = path.with_suffix(".index").read_bytes()
    whole = path.read_bytes()
    assert len(whole) > 5 << 20
    assert len(index) > 50 * 8

    def walk(index: bytes) -> tuple[object, ...]:
        verifier = SegmentVerifier(str(path), 0, 2**63 - 1, offset_index=index, ahead_bytes_min=1 << 20)
        fault = None
        while fault is None and not verifier.is_done:
            fault = verifier.step(16 << 20)
        return fault, verifier.position, verifier.next_offset, verifier.records_count, verifier.digest

    sound = walk(index)
    assert sound == walk(b"")
    assert sound[0] is None
    for at in range(70, len(whole), 500_009):
        damaged = bytearray(whole)
        damaged[at] ^= 4
        path.write_bytes(damaged)
        found = walk(index)
        assert found == walk(b"")
        assert found[0] is not None
