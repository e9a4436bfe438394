"""Cache marks: what a killed process leaves, opened in place and, as a copy where nothing may be spared, by a full scan."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from logstore.errors import CorruptDataError, UnsupportedFormatError
from logstore.storage import cache_mark, log_flushing
from logstore.storage.cache_mark import CacheMark, Identity
from logstore.storage.checkpoint import SLOT_BYTES, CheckpointFile
from logstore.storage.config import TopicConfig
from logstore.storage.log import Log
from logstore.storage.verification import verify_partition

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: cache marks; what they hang on is Linux's")

NEVER = {"flush.ms": 2**63 - 1}
SEEDS = int(os.environ.get("LOGSTORE_CRASH_MARK_SEEDS", "8"))
INTERVAL_BYTES = 8192


@pytest.fixture(autouse=True)
def frequent_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_flushing, "MARK_INTERVAL_BYTES", INTERVAL_BYTES)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    directory = tmp_path / "data" / "t-0"
    with Log(directory) as log:
        log.append(b"first")
    if cache_mark.identify(str(directory / f"{0:020}.log")) is None:
        pytest.skip("NOT TESTED: cache marks; the file system of the tests does not identify its files")
    return directory


def opened(directory: Path, **kind: object) -> Log:
    return Log(directory, TopicConfig(NEVER), durability="appended", **kind)  # type: ignore[arg-type]


def value_of(offset: int) -> bytes:
    return b"%d " % offset * 20


def append(log: Log, count: int) -> None:
    for _ in range(count):
        log.append(value_of(log.log_end_offset))


class Idle:
    """A scheduler that never comes to it: nothing is flushed behind a test's back."""

    def schedule(self, delay_ms: int, action: Callable[[], object]) -> None:
        pass

    schedule_urgent = schedule


def killed(directory: Path, work: Callable[[Log], None]) -> None:
    """Runs some work on the log in a process that dies by SIGKILL with it open."""
    child = os.fork()
    if child == 0:
        try:
            work(opened(directory, scheduler=Idle()))
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)


def by_full_scan(directory: Path, **kind: object) -> Log:
    """A copy, whose files are others: nothing is spared."""
    place = directory.parent.parent / "copy" / directory.name
    shutil.rmtree(place.parent, ignore_errors=True)
    shutil.copytree(directory, place)
    log = opened(place, **kind)
    assert log.recovery_report.spared_bytes == 0
    return log


def records(log: Log) -> list[tuple[int, bytes | None]]:
    return [(record.offset, record.value) for record in log.read(log.log_start_offset)]


def described(log: Log) -> object:
    return (
        log.log_start_offset, log.log_end_offset, log.flushed_offset, log.damage, records(log), log.producers(),
        [(s.base_offset, s.size_bytes, s.max_timestamp, s.offset_index_entries, s.time_index_entries) for s in log.segments],
        {key: value for key, value in log.segments[-1].state.items() if "digest" not in key},
    )


def test_what_the_page_cache_holds_is_not_scanned(directory: Path) -> None:
    killed(directory, lambda log: append(log, 2000))
    with by_full_scan(directory) as full, opened(directory) as log:
        report = log.recovery_report
        assert report.spared_bytes > 10 * INTERVAL_BYTES
        assert report.scanned_bytes < 2 * INTERVAL_BYTES
        assert report.spared_bytes + report.scanned_bytes == full.recovery_report.scanned_bytes
        assert described(log) == described(full)
        # Not scanned, and not on disk either, until it is flushed.
        assert log.flushed_offset == 1
        append(log, 3)
        log.flush()
        assert log.flushed_offset == 2004
    with opened(directory) as log:
        assert log.recovery_report.spared_bytes == 0
        assert records(log)[1:] == [(offset, value_of(offset)) for offset in range(1, 2004)]


def test_a_process_that_only_reads_is_spared_the_scan_as_well(directory: Path) -> None:
    killed(directory, lambda log: append(log, 1000))
    with opened(directory, read_only=True) as log:
        assert log.recovery_report.spared_bytes > INTERVAL_BYTES
        assert [value for _, value in records(log)][1:] == [value_of(offset) for offset in range(1, 1001)]


def test_small_logs_have_no_mark(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    killed(directory, lambda log: append(log, 1000))
    assert (directory / "logstore.checkpoint").stat().st_size < 2 * SLOT_BYTES
    with opened(directory) as log:
        assert log.recovery_report.spared_bytes == 0


def test_after_a_boot_everything_is_scanned(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed(directory, lambda log: append(log, 1000))
    for boot in (b"\1" * 16, None):
        with monkeypatch.context() as patch:
            patch.setattr(cache_mark, "boot_id", lambda boot=boot: boot)
            with opened(directory, read_only=True) as log:
                assert log.recovery_report.spared_bytes == 0
                assert log.recovery_report.scanned_bytes > 10 * INTERVAL_BYTES
    with monkeypatch.context() as patch:
        patch.setattr(cache_mark, "boot_id", lambda: b"\1" * 16)
        killed(directory, lambda log: None)
    # The mark was of no use there, and is gone: it must not speak of what was written since.
    assert CheckpointFile(str(directory / "logstore.checkpoint")).read() is not None
    with opened(directory, read_only=True) as log:
        assert log.recovery_report.spared_bytes == 0


@pytest.mark.parametrize("field", Identity._fields)
def test_another_mount_or_file_is_another_cache(directory: Path, field: str) -> None:
    killed(directory, lambda log: append(log, 1000))
    path = directory / "logstore.checkpoint"
    file = CheckpointFile(str(path))
    file.read()
    assert file.mark is not None
    changed = b"\1" * 16 if field == "boot_id" else 7
    file.write_mark(file.mark._replace(identity=file.mark.identity._replace(**{field: changed})))
    with opened(directory) as log:
        assert log.recovery_report.spared_bytes == 0
        assert log.log_end_offset == 1001


def test_a_torn_last_batch_is_cut_all_the_same(directory: Path) -> None:
    def append_one_by_one(log: Log) -> None:
        log.reconfigure(log.config.with_changes(logstore_open_batch_mapped=False))
        append(log, 1000)

    killed(directory, append_one_by_one)
    path = directory / f"{0:020}.log"
    os.truncate(path, path.stat().st_size - 5)
    with by_full_scan(directory) as full, opened(directory) as log:
        assert log.recovery_report.spared_bytes > 0
        assert log.recovery_report.cut_bytes == full.recovery_report.cut_bytes > 0
        assert log.log_end_offset == 1000
        assert described(log) == described(full)


def flip(path: Path, position: int) -> None:
    with open(path, "r+b") as file:
        file.seek(position)
        byte = file.read(1)
        file.seek(position)
        file.write(bytes([byte[0] ^ 0x10]))


def test_damage_before_the_mark_is_named_by_who_reads_it(directory: Path) -> None:
    killed(directory, lambda log: append(log, 2000))
    with opened(directory, read_only=True) as log:
        places = [log.segments[0].locate(offset) for offset in range(2001)]
    struck = 1003
    flip(directory / f"{0:020}.log", places[struck][0] + 80)
    with opened(directory) as log:
        assert log.recovery_report.spared_bytes > 0
        assert log.damage is None
        with pytest.raises(CorruptDataError, match="CRC") as caught:
            records(log)
        assert str(caught.value.path).endswith(".log")
        assert [record.offset for record in log.read(struck + 1)] == list(range(struck + 1, 2001))
        append(log, 1)
    found = verify_partition(directory, deep=True)
    assert [(damage.first_offset, damage.end_offset) for damage in found.ranges] == [(struck, struck + 1)]


@pytest.mark.parametrize("where", ["the first batch", "the last batch before the mark"])
def test_a_sample_that_fails_has_everything_scanned(directory: Path, where: str) -> None:
    killed(directory, lambda log: append(log, 2000))
    file = CheckpointFile(str(directory / "logstore.checkpoint"))
    file.read()
    assert file.mark is not None
    with opened(directory, read_only=True) as log:
        place = log.segments[0].locate(1 if where == "the first batch" else file.mark.next_offset - 1)
    flip(directory / f"{0:020}.log", place[0] + 80)
    with by_full_scan(directory) as full, opened(directory) as log:
        assert log.recovery_report.spared_bytes == 0
        assert log.damage is not None
        assert log.damage.position == full.damage.position  # type: ignore[union-attr]


def change_index(name: str, change: Callable[[Path], None]) -> Callable[[Path], None]:
    return lambda directory: change(directory / f"{0:020}{name}")


def shorten(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 24 * 12)


def cut_before_the_mark(directory: Path) -> None:
    os.truncate(directory / f"{0:020}.log", 20_000)


def leave_a_hole(directory: Path) -> None:
    """In place, as some file systems do where data never reached the disk."""
    path = directory / f"{0:020}.log"
    data = path.read_bytes()
    with open(path, "r+b") as file:
        file.truncate(16384)
        file.seek(32768)
        file.write(data[32768:])


def damage_the_mark(directory: Path) -> None:
    flip(directory / "logstore.checkpoint", 2 * SLOT_BYTES + 70)


@pytest.mark.parametrize(
    "change",
    [
        change_index(".index", Path.unlink), change_index(".timeindex", Path.unlink), change_index(".index", shorten),
        cut_before_the_mark, leave_a_hole, damage_the_mark,
    ],
    ids=["no index", "no time index", "short index", "short file", "hole", "damaged mark"],
)  # fmt: skip
def test_in_doubt_everything_is_scanned(directory: Path, change: Callable[[Path], None]) -> None:
    killed(directory, lambda log: append(log, 2000))
    change(directory)
    with by_full_scan(directory) as full, opened(directory) as log:
        assert log.recovery_report.spared_bytes == 0
        assert described(log) == described(full)


def test_segments_that_were_rolled_are_not_scanned_either(directory: Path) -> None:
    def work(log: Log) -> None:
        for _ in range(4):
            append(log, 300)
            log.roll()
        append(log, 10)

    killed(directory, work)
    with by_full_scan(directory) as full, opened(directory) as log:
        assert log.recovery_report.spared_bytes > 300 * 80
        assert len(log.segments) == 5
        assert described(log) == described(full)
        append(log, 1)
        log.flush()
    with opened(directory) as log:
        assert log.recovery_report.scanned_bytes == 0
        assert log.log_end_offset == 1 + 1200 + 10 + 1
    assert verify_partition(directory, deep=True).is_sound


def test_names_that_a_killed_process_made_are_synced_before_anything_is_acknowledged(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed(directory, lambda log: log.roll())
    synced: list[str] = []
    monkeypatch.setattr(log_flushing, "sync_directory", synced.append)
    with opened(directory) as log:
        log.append(b"in the new segment", durability="flushed")
        assert synced == [str(directory)]


def test_what_a_truncation_takes_away_no_mark_speaks_of(directory: Path) -> None:
    def work(log: Log) -> None:
        append(log, 1000)
        log.truncate_to(500)
        for _ in range(100):
            log.append_many([b"other"] * 7)

    killed(directory, work)
    with by_full_scan(directory) as full, opened(directory) as log:
        assert described(log) == described(full)
        assert log.log_end_offset == 1200


class _Killed:
    """Dies before or half-way through the n-th write that Python makes: of marks, indexes, checkpoints."""

    def __init__(self, calls: int, chance: random.Random):
        self.left = calls
        self.halved = chance.random() < 0.5
        self.pwrite = os.pwrite

    def __call__(self, descriptor: int, data: bytes, position: int) -> int:
        self.left -= 1
        if self.left < 0:
            if self.halved:
                self.pwrite(descriptor, bytes(data)[: len(data) // 2], position)
            os.kill(os.getpid(), signal.SIGKILL)
        return self.pwrite(descriptor, data, position)


def random_work(seed: int) -> Callable[[Log], None]:
    chance = random.Random(seed)
    calls = chance.randrange(2, 60)

    def work(log: Log) -> None:
        os.pwrite = _Killed(calls, chance)  # type: ignore[assignment]
        sequence = log.producers()[0].last_sequence + 1 if log.producers() else 0
        for _ in range(chance.randrange(1, 40)):
            step = chance.random()
            if step < 0.55:
                append(log, chance.randrange(1, 120))
            elif step < 0.7:
                log.append_many([b"m" * chance.randrange(1, 400)] * chance.randrange(1, 60), timestamps=None)
            elif step < 0.78:
                log.roll()
            elif step < 0.84:
                log.flush()
            elif step < 0.88:
                log.truncate_to(chance.randrange(log.log_start_offset, log.log_end_offset + 1))
            elif step < 0.9:
                log.advance_log_start_offset(chance.randrange(log.log_start_offset, log.log_end_offset + 1))
            else:
                sequence = append_idempotent(log, sequence, chance.randrange(1, 9))

    return work


def append_idempotent(log: Log, sequence: int, count: int) -> int:
    from logstore._native.record_batch_builder import RecordBatchBuilder

    builder = RecordBatchBuilder(1024)
    for number in range(count):
        builder.append(b"idempotent %d" % number, None, timestamp=1_000)
    log.append_as_leader(bytearray(builder.build(producer_id=42, producer_epoch=0, base_sequence=sequence)))
    return sequence + count


@pytest.mark.parametrize("seed", range(SEEDS))
def test_opened_in_place_it_is_what_a_full_scan_finds(directory: Path, seed: int) -> None:
    for generation in range(3):
        killed(directory, random_work(seed * 10 + generation))
        # For writing, in place too, where the next generation does so: finishing a truncation is part of it.
        for kind in ({"read_only": True}, {})[: 1 + generation % 2]:
            with by_full_scan(directory, **kind) as full, opened(directory, **kind) as log:
                assert records(log) == records(full)
                assert (log.log_start_offset, log.log_end_offset) == (full.log_start_offset, full.log_end_offset)
                assert sorted(log.producers()) == sorted(full.producers())
                assert log.flushed_offset == full.flushed_offset


def lose(path: Path, start: int, chance: random.Random) -> None:
    """In the file itself, what the loss of power does to what was not flushed."""
    size = path.stat().st_size
    if chance.random() < 0.4:
        os.truncate(path, chance.randrange(start, size + 1))
    with open(path, "r+b") as file:
        for sector in range(start // 512 + 1, path.stat().st_size // 512):
            fate = chance.random()
            if fate < 0.02:
                file.seek(sector * 512)
                file.write(bytes(512) if fate < 0.014 else chance.randbytes(512))


@pytest.mark.parametrize("seed", range(SEEDS))
def test_data_lost_in_place_is_never_answered_wrongly(directory: Path, seed: int) -> None:
    """A power loss that looks like the same boot and mount: records as they were, or an error with a name."""
    chance = random.Random(seed)
    killed(directory, lambda log: append(log, 1500))
    lose(directory / f"{0:020}.log", 200, chance)
    with opened(directory) as log:
        if log.damage is None:
            log.append(value_of(log.log_end_offset))
            log.flush()
        offset = log.log_start_offset
        while offset < log.log_end_offset:
            try:
                for record in log.read(offset):
                    assert record.offset == offset
                    assert record.value == (value_of(offset) if offset else b"first")
                    offset += 1
                break
            except (CorruptDataError, UnsupportedFormatError):
                offset += 1


def test_a_mark_reads_back() -> None:
    identity = Identity(b"0123456789abcdef", 2**40, 7 << 32 | 1, 3, -4, 5, 6)
    mark = CacheMark(identity, 100, 8192, 200, -1, -1, -1, 2, 0, -1, True)
    assert CacheMark.decode(mark.encode()) == mark
    for position in range(len(mark.encode())):
        changed = bytearray(mark.encode())
        changed[position] ^= 1
        assert CacheMark.decode(bytes(changed)) is None
    assert CacheMark.decode(mark.encode()[:-1]) is None
