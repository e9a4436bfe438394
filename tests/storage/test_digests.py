"""Digests of segments: what they are, how they are stored, and when a log takes and drops them."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from crash_states import segment_paths, stored_batches
from hypothesis import given, settings
from hypothesis import strategies as st
from manual_scheduler import ManualScheduler

from logstore._native.verification import SegmentVerifier
from logstore.errors import CorruptDataError
from logstore.storage.segment_digests import ENTRY_BYTES, SegmentDigest, SegmentDigests

if TYPE_CHECKING:
    from conftest import OpenLog

INT64_MAX = 2**63 - 1
MASK = 2**64 - 1


def murmur3(high: int, low: int, data: bytes) -> tuple[int, int]:
    """The arithmetic of docs/format/segment-digests.md, word by word."""

    def rotate(word: int, bits: int) -> int:
        return (word << bits | word >> (64 - bits)) & MASK

    def spread(word: int) -> int:
        for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
            word = (word ^ word >> 33) * factor & MASK
        return word ^ word >> 33

    first, second = 0x87C37B91114253D5, 0x4CF5AD432745937F
    padded = data + bytes(-len(data) % 16)
    for a, b in struct.iter_unpack(">QQ", padded):
        high ^= rotate(a * first & MASK, 31) * second & MASK
        high = ((rotate(high, 27) + low) * 5 + 0x52DCE729) & MASK
        low ^= rotate(b * second & MASK, 33) * first & MASK
        low = ((rotate(low, 31) + high) * 5 + 0x38495AB5) & MASK
    high, low = high ^ len(data), low ^ len(data)
    high = (high + low) & MASK
    low = (low + high) & MASK
    high, low = spread(high), spread(low)
    high = (high + low) & MASK
    return high, (low + high) & MASK


def digest_by_hand(path: Path) -> bytes:
    data = path.read_bytes()
    state = (0, 0)
    for batch in stored_batches(path):
        state = murmur3(*state, data[batch.position : batch.position + 61])
    return struct.pack(">QQ", *state)


def entry(base: int, *, digest: bytes = b"d" * 16, size: int = 100) -> SegmentDigest:
    return SegmentDigest(base, base + 10, size, 5, digest, (8, 1), (12, 2))


@settings(max_examples=25, deadline=None)
@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=12))
def test_a_digest_taken_while_appending_is_that_of_the_file(sizes: list[int], tmp_path_factory) -> None:
    from logstore.storage.config import TopicConfig
    from logstore.storage.log import Log

    with Log(tmp_path_factory.mktemp("d") / "t-0", TopicConfig(), durability="appended") as log:
        for size in sizes:
            log.append_many([b"x" * size] * size)
        (segment,) = log.segments
        path = Path(segment.path)
        assert segment.digest == digest_by_hand(path)
        verifier = SegmentVerifier(str(path), 0, INT64_MAX)
        while not verifier.is_done:
            assert verifier.step(1, deep=len(sizes) % 2 == 0) is None
        assert verifier.digest == digest_by_hand(path)
        assert (verifier.batches_count, verifier.records_count) == (len(sizes), sum(sizes))


def test_what_is_recorded_is_read_again(tmp_path: Path) -> None:
    digests = SegmentDigests(str(tmp_path))
    assert digests.entries() == {}
    digests.record([entry(0), entry(10)])
    digests.record([entry(10, digest=b"e" * 16)])
    again = SegmentDigests(str(tmp_path))
    assert again.entries() == {0: entry(0), 10: entry(10, digest=b"e" * 16)}
    assert again.get(20) is None
    again.forget_from(15)  # the second one ends at 20
    assert SegmentDigests(str(tmp_path)).entries() == {0: entry(0)}
    again.record([entry(10)])
    again.forget([0])
    assert SegmentDigests(str(tmp_path)).entries() == {10: entry(10)}
    again.forget_all()
    assert list(tmp_path.iterdir()) == []


def test_an_entry_cut_off_or_never_written_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "logstore.digests"
    SegmentDigests(str(tmp_path)).record([entry(0), entry(10)])
    whole = path.read_bytes()
    for tail in (whole[:50], bytes(ENTRY_BYTES), bytes(3 * ENTRY_BYTES + 5)):
        path.write_bytes(whole + tail)
        digests = SegmentDigests(str(tmp_path))
        assert digests.entries() == {0: entry(0), 10: entry(10)}
        assert digests.damaged_at == -1
        digests.record([entry(20)])
        assert set(SegmentDigests(str(tmp_path)).entries()) == {0, 10, 20}


def test_a_flipped_bit_never_makes_a_wrong_digest(tmp_path: Path) -> None:
    path = tmp_path / "logstore.digests"
    digests = SegmentDigests(str(tmp_path))
    digests.record([entry(0), entry(10)])
    digests.forget([0])
    digests.record([entry(20)])
    whole = path.read_bytes()
    for at in range(len(whole)):
        for bit in (at % 8, (at + 3) % 8):
            damaged = bytearray(whole)
            damaged[at] ^= 1 << bit
            path.write_bytes(damaged)
            found = SegmentDigests(str(tmp_path))
            entries = found.entries()
            assert found.damaged_at == at - at % ENTRY_BYTES
            # A forgotten one must not come back, whatever is damaged.
            assert 0 not in entries, (at, bit)
            assert all(known in (entry(10), entry(20)) for known in entries.values())
    found.record([entry(30)])
    assert SegmentDigests(str(tmp_path)).damaged_at == -1


def test_the_file_is_written_anew_when_most_of_it_is_old(tmp_path: Path) -> None:
    digests = SegmentDigests(str(tmp_path))
    for size in range(600):
        digests.record([entry(0, size=size), entry(10, size=size)], log_start_offset=12)
    assert (tmp_path / "logstore.digests").stat().st_size < 600 * ENTRY_BYTES
    assert SegmentDigests(str(tmp_path)).entries() == {0: entry(0, size=599), 10: entry(10, size=599)}


def test_nothing_is_recorded_of_what_was_forgotten_meanwhile(tmp_path: Path) -> None:
    digests = SegmentDigests(str(tmp_path))
    digests.record([entry(0)])
    generation = digests.generation
    digests.forget_from(5)
    digests.record([entry(0)], generation=generation)
    assert SegmentDigests(str(tmp_path)).entries() == {}


# With a scheduler moved by hand, who asks for a flush takes the digests: no thread is in the middle of it.


def fill(log, count: int = 60) -> None:
    for number in range(count):
        log.append(b"value-%d" % number, timestamp=1000 + number)


def check_all(directory: Path) -> dict[int, SegmentDigest]:
    found = SegmentDigests(str(directory)).entries()
    for digest in found.values():
        path = directory / f"{digest.base_offset:020d}.log"
        data = path.read_bytes()
        assert digest.size_bytes <= len(data)
        if not digest.is_growing:
            assert digest.digest == digest_by_hand(path)
            assert digest.size_bytes == len(data)
            assert digest.end_offset == stored_batches(path)[-1].last_offset + 1
            assert digest.offset_index[0] == path.with_suffix(".index").stat().st_size
    return found


def test_a_log_takes_digests_when_what_it_sealed_is_on_disk(open_log: OpenLog, tmp_path: Path) -> None:
    log = open_log(
        segment_bytes=2048, index_interval_bytes=200, logstore_open_batch_mapped=False, scheduler=ManualScheduler()
    )
    fill(log)
    log.flush()
    sealed = [segment.base_offset for segment in log.segments[:-1]]
    assert len(sealed) >= 2
    assert list(check_all(tmp_path / "orders-0")) == sealed
    log.close()
    found = check_all(tmp_path / "orders-0")
    assert list(found) == [segment.base_offset for segment in log.segments]
    assert [digest.is_growing for digest in found.values()] == [False] * len(sealed) + [True]


def test_a_segment_opened_again_has_its_digest_when_it_is_sealed(open_log: OpenLog, tmp_path: Path) -> None:
    log = open_log(index_interval_bytes=200, scheduler=ManualScheduler())
    fill(log)
    log.close()
    log = open_log(index_interval_bytes=200, scheduler=ManualScheduler())
    fill(log)
    log.roll()
    log.append(b"x", durability="flushed")
    assert log.segments[0].digest is None  # most of it was written in another session
    (digest,) = check_all(tmp_path / "orders-0").values()
    assert (digest.base_offset, digest.end_offset, digest.is_growing) == (0, 120, False)


def test_truncation_drops_digests_first(open_log: OpenLog, tmp_path: Path) -> None:
    log = open_log(segment_bytes=2048, index_interval_bytes=200, scheduler=ManualScheduler())
    fill(log)
    log.flush()
    second = log.segments[1].base_offset
    log.truncate_to(second + 3)
    assert list(check_all(tmp_path / "orders-0")) == [0]
    fill(log)
    log.close()
    check_all(tmp_path / "orders-0")


def test_what_a_digest_says_was_on_disk_is_never_cut_as_a_torn_tail(open_log: OpenLog, tmp_path: Path) -> None:
    log = open_log(segment_bytes=2048, index_interval_bytes=200)
    fill(log)
    log.close()
    path = segment_paths(tmp_path / "orders-0")[-1]
    whole = path.read_bytes()
    (tmp_path / "orders-0" / "logstore.checkpoint").unlink()  # nothing else says how long the log was
    shutil.copytree(tmp_path / "orders-0", tmp_path / "copies" / "orders-0")
    for cut in (len(whole) - 1, stored_batches(path)[-1].position):
        path.write_bytes(whole[:cut])
        log = open_log(segment_bytes=2048, index_interval_bytes=200)
        assert isinstance(log.damage, CorruptDataError)
        assert path.read_bytes() == whole[:cut]
        log.close()
        with pytest.raises(CorruptDataError):
            raise log.damage
    digests = tmp_path / "orders-0" / "logstore.digests"
    digests.unlink()
    path.write_bytes(whole[:-1])
    log = open_log(segment_bytes=2048, index_interval_bytes=200)
    assert log.damage is None
    assert log.recovery_report.cut_bytes


def test_compaction_drops_digests_first_and_takes_new_ones(open_log: OpenLog, tmp_path: Path) -> None:
    log = open_log(
        segment_bytes=2048, index_interval_bytes=200, cleanup_policy="compact", min_cleanable_dirty_ratio=0,
        scheduler=ManualScheduler(),
    )  # fmt: skip
    for number in range(200):
        log.append(b"value-%d" % number, key=b"key-%d" % (number % 5))
    log.flush()
    before = check_all(tmp_path / "orders-0")
    log.compact()
    after = check_all(tmp_path / "orders-0")
    assert after.keys() <= before.keys()
    assert sum(digest.size_bytes for digest in after.values()) < sum(digest.size_bytes for digest in before.values()) / 4
    log.close()
    check_all(tmp_path / "orders-0")
