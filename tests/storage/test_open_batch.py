"""The open batch in a mapped file: seen at once, handed over when it is looked at, found again after a kill.

A copy of the directory of an open log is what a killed process leaves: both show the page cache.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from manual_scheduler import ManualScheduler
from test_full_disk import fill, small_disk  # noqa: F401

from logstore.errors import DiskFullError, StorageFailureError
from logstore.storage.cache_mark import boot_id
from logstore.storage.config import TopicConfig
from logstore.storage.log import Log
from logstore.storage.verification import verify_partition

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or boot_id() is None, reason="NOT TESTED: mapped open batches need Linux"
)

NOW_MS = 1_700_000_000_000
FILE = "logstore.open-batch"


def value_of(number: int) -> bytes:
    return b"value %d " % number + b"." * (number % 90)


@pytest.fixture
def burst(open_log):
    """Opens a log with 60 records appended, of which the last ones are staged."""

    def open_and_append(*, count: int = 60, **settings: object) -> Log:
        settings.setdefault("logstore_open_batch_mapped", True)
        log = open_log(clock=lambda: NOW_MS, scheduler=ManualScheduler(), **settings)
        append(log, count)
        return log

    return open_and_append


def append(log: Log, count: int, start: int | None = None) -> None:
    start = log.log_end_offset if start is None else start
    for number in range(start, start + count):
        assert log.append(value_of(number), b"key %d" % number) == number


def killed(log: Log, to: Path) -> Path:
    """The log's directory as its process would leave it if it were killed now."""
    place = to / os.path.basename(log.path)
    shutil.copytree(log.path, place)
    return place


def not_of_its_log(burst, tmp_path: Path, change: str) -> tuple[Path, int]:
    """What a killed process left, its file now another topic's, or of this place in an earlier log; and how many records are
    in the segments. Other changes are the caller's."""
    log = burst()
    handed_over = log.end_offset
    place = killed(log, tmp_path / "killed")
    if change == "another topic":
        metadata = place / "partition.metadata"
        metadata.write_text(metadata.read_text()[:-22] + "A" * 22)
    elif change == "another place":
        stale = (place / FILE).read_bytes()
        shutil.rmtree(place)
        append(log, 1, 60)
        log.flush("appended")
        place = killed(log, tmp_path / "again")
        (place / FILE).write_bytes(stale)
        handed_over = 61
    return place, handed_over


def check(directory: Path, count: int) -> None:
    """Twice: what the first open has taken over must not come again."""
    for _ in range(2):
        with Log(directory, TopicConfig(), durability="appended") as log:
            assert log.damage is None
            assert [(record.offset, record.value, record.key) for record in log.read()] == [
                (number, value_of(number), b"key %d" % number) for number in range(count)
            ]
            assert log.log_end_offset == count
        assert not (directory / FILE).exists()
        assert not list(directory.glob("*.torn"))


def test_a_burst_is_in_the_file_and_found_again_after_a_kill(burst, tmp_path):
    log = burst()
    assert log.staged
    assert log.end_offset < 60
    check(killed(log, tmp_path / "killed"), 60)


@pytest.mark.parametrize("records_per_ms", [0.2, 1, 8])
def test_records_that_come_slower_go_straight_to_the_segment(open_log, records_per_ms):
    now = [float(NOW_MS)]
    log = open_log(clock=lambda: int(now[0]), scheduler=ManualScheduler())
    for number in range(100):
        now[0] += 1 / records_per_ms
        log.append(value_of(number))
        assert log.end_offset == number + 1
    assert not os.path.exists(os.path.join(log.path, FILE))


def test_a_burst_ends_where_they_come_slower(open_log):
    now = [float(NOW_MS)]
    log = open_log(clock=lambda: int(now[0]), scheduler=ManualScheduler())
    staged = []
    for per_ms in (20, 10, 4, 20):
        for _ in range(20 * per_ms):
            now[0] += 1 / per_ms
            log.append(b"")
            staged.append(log.staged)
        at = len(staged) - 10 * per_ms
        assert all(staged[at:]) if per_ms > 8 else not any(staged[at:]), per_ms


def test_every_acknowledged_record_survives_wherever_the_process_dies(open_log, tmp_path):
    log = open_log(clock=lambda: NOW_MS, scheduler=ManualScheduler(), logstore_batch_bytes=1500,
                   logstore_open_batch_mapped=True)
    for number in range(60):
        log.append(value_of(number), b"key %d" % number)
        if number < 12 or number % 2:
            continue
        check(killed(log, tmp_path / str(number)), number + 1)


def test_a_handed_over_batch_whose_file_was_not_reset_does_not_come_twice(burst, tmp_path):
    log = burst()
    before = Path(log.path, FILE).read_bytes()
    assert log.log_end_offset == 60
    assert not log.staged
    place = killed(log, tmp_path / "killed")
    (place / FILE).write_bytes(before)
    check(place, 60)


@pytest.mark.parametrize("look", [
    lambda log: log.log_end_offset == 60,
    lambda log: len(list(log.read())) == 60,
    lambda log: [record.offset for record in log.read(59)] == [59],
    lambda log: sum(batch.records_count for batch in log.cursor(0)) == 60,
    lambda log: log.fetch(59)[-1].last_offset == 59,
    lambda log: sum(len(batch) for batch in log.scan()) == 60,
    lambda log: log.segments[-1].next_offset == 60,
    lambda log: log.offset_for_timestamp(NOW_MS).offset == 0 and log.end_offset == 60,
    lambda log: log.last_stable_offset == 60,
    lambda log: log.bounds("latest")[0] == 60,
    lambda log: log.flush() or log.flushed_offset == 60,
    lambda log: log.flush("appended") or log.end_offset == 60,
    lambda log: log.flush_until(60) or log.flushed_offset == 60,
    lambda log: log.roll() or log.segments[-1].base_offset == 60,
    lambda log: log.append(b"", durability="flushed") == 60 and log.flushed_offset == 61,
    lambda log: log.append_many([b"", b""]) == range(60, 62) and log.end_offset == 62,
    lambda log: log.advance_log_start_offset(60) or log.log_start_offset == 60,
    lambda log: log.compaction_plan() is not None and log.end_offset == 60,
    lambda log: log.size_bytes > 0 and log.end_offset == 60,
], ids=range(19))
def test_whoever_looks_at_the_end_sees_what_was_appended(burst, look):
    log = burst()
    assert log.staged
    assert look(log)
    assert not log.staged
    append(log, 50)
    assert len(list(log.read())) == log.log_end_offset - log.log_start_offset


def test_a_reader_behind_the_end_does_not_disturb_the_burst(burst):
    log = burst()
    reader = iter(log.cursor(0))
    assert next(reader).base_offset == 0
    assert log.staged


def test_a_waiting_reader_gets_each_record_at_once(burst):
    log = burst()

    class Waiter:
        ends: list[int] = []

        def notify(self) -> None:
            self.ends.append(log.end_offset)

    waiter = Waiter()
    log.add_waiter(waiter)
    append(log, 3, 60)
    log.remove_waiter(waiter)
    assert waiter.ends == [61, 62, 63]


def test_buffered_records_before_an_appended_one_are_acknowledged_with_it(burst, tmp_path):
    log = burst()
    log.append(value_of(60), b"key 60", durability="buffered")
    check(killed(log, tmp_path / "1"), 60)
    append(log, 1, 61)
    log.append(b"lost", durability="buffered")
    check(killed(log, tmp_path / "2"), 62)


def test_a_record_larger_than_the_file_goes_to_the_segment(burst, tmp_path):
    log = burst(logstore_batch_bytes=2000)
    assert log.staged
    large = b"x" * 9000
    assert log.append(large) == 60
    assert log.end_offset == 61
    append(log, 30, 61)
    assert log.staged
    with Log(killed(log, tmp_path / "killed"), TopicConfig()) as again:
        assert [record.value for record in again.read()] == [
            large if number == 60 else value_of(number) for number in range(91)]


@pytest.mark.parametrize("settings", [
    {"logstore_open_batch_mapped": False}, {"flush_messages": 1000}, {"logstore_batch_bytes": "4MiB"}])
def test_where_it_is_switched_off_each_record_is_written(burst, settings):
    log = burst(**settings)
    assert log.end_offset == 60
    assert not os.path.exists(os.path.join(log.path, FILE))


def test_the_batch_is_compressed_when_it_is_handed_over(burst, tmp_path):
    log = burst(compression_type="gzip", count=100)
    copy = killed(log, tmp_path / "killed")
    assert [batch.codec for batch in log.cursor(0)][-1] != 0
    check(copy, 100)


def test_it_is_handed_over_soon_and_let_go_when_no_burst_comes(open_log):
    now = [NOW_MS]
    scheduler = ManualScheduler()
    log = open_log(clock=lambda: now[0], scheduler=scheduler, flush_ms=2**63 - 1, logstore_open_batch_mapped=True)
    append(log, 60)
    assert log.staged
    scheduler.run(within_ms=2)
    assert log.end_offset == 60
    append(log, 60, 60)
    scheduler.run(within_ms=1000)
    assert os.path.exists(os.path.join(log.path, FILE)), "it was used a moment ago"
    now[0] += 700
    scheduler.run(within_ms=1000)
    assert not os.path.exists(os.path.join(log.path, FILE))
    append(log, 60, 120)
    assert log.staged, "the next burst has one again"


def test_closing_leaves_no_file(burst):
    log = burst()
    path = Path(log.path)
    log.close()
    assert not (path / FILE).exists()
    check(path, 60)


def test_truncation_takes_the_file_away_first(burst, tmp_path):
    log = burst()
    stale = Path(log.path, FILE).read_bytes()
    first = log.end_offset
    log.truncate_to(first)
    assert not os.path.exists(os.path.join(log.path, FILE))
    assert log.log_end_offset == first
    append(log, 60 - first, first)
    check(killed(log, tmp_path / "killed"), 60)
    assert stale  # it would follow on: that is why it has to go durably, before anything is cut


@pytest.mark.parametrize(("records_per_ms", "is_staged"), [(10, False), (40, True)])
def test_a_hand_over_in_the_background_has_to_pay(open_log, records_per_ms, is_staged):
    now = [NOW_MS]
    scheduler = ManualScheduler()
    log = open_log(clock=lambda: now[0], scheduler=scheduler, flush_ms=2**63 - 1)
    staged = []
    for ms in range(40):
        now[0] += 1
        for _ in range(records_per_ms):
            log.append(b"")
            staged.append(log.staged)
        if ms % 2:
            scheduler.run(within_ms=2)
    assert any(staged[: 4 * records_per_ms]), "it begins with few"
    assert set(staged[-20 * records_per_ms :]) == {is_staged}
    now[0] += 700
    append(log, 60)
    assert log.staged, "and after a pause with few again"


@pytest.mark.parametrize("read_only", [True, False])
def test_after_a_power_cut_the_file_says_nothing_whatever_the_disk_has_there(burst, tmp_path, monkeypatch, read_only):
    log = burst()
    handed_over = log.end_offset
    content = Path(log.path, FILE).read_bytes()
    place = killed(log, tmp_path / "killed")
    for module in ("log", "open_batch"):
        monkeypatch.setattr(f"logstore.storage.{module}.boot_id", lambda: b"the next run of ")
    chance = random.Random(1)
    pages = range(0, len(content), 4096)
    cases = [bytes(4096), b"\xff" * 4096, chance.randbytes(4096)]
    states = [content[:at] + case + content[at + 4096 :] for at in pages for case in cases]
    states += [content[:at] + case[:512] + content[at + 512 :] for at in range(0, 8192, 512) for case in cases]
    states += [content, content[:5000], chance.randbytes(len(content)), content.replace(content[32:48], bytes(16))]
    for number, state in enumerate(states):
        opened = tmp_path / str(number) / "orders-0"
        shutil.copytree(place, opened)
        (opened / FILE).write_bytes(state)
        with Log(opened, TopicConfig(), durability="appended", read_only=read_only) as again:
            assert again.log_end_offset == handed_over
            assert again.recovery_report.cut_bytes == 0
            assert len(list(again.read())) == handed_over
        assert verify_partition(str(opened)).is_sound
        assert sorted(path.name for path in opened.glob("*open-batch*")) == [FILE] * read_only
        shutil.rmtree(opened)


WITHOUT_LOCKED_MEMORY = """
import ctypes, os, resource, sys
from logstore.storage.config import TopicConfig
from logstore.storage.log import Log

class Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("process", ctypes.c_int)]

class Sets(ctypes.Structure):
    _fields_ = [("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32)]

CAP_IPC_LOCK = 14
libc, header, sets = ctypes.CDLL(None, use_errno=True), Header(0x20080522, 0), (Sets * 2)()
assert libc.capget(ctypes.byref(header), sets) == 0
sets[0].effective &= ~(1 << CAP_IPC_LOCK)
assert libc.capset(ctypes.byref(header), sets) == 0
resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
with Log(sys.argv[1], TopicConfig(), durability="appended", clock=lambda: 1_700_000_000_000) as log:
    for number in range(100):
        log.append(b"record")
        assert log.end_offset == number + 1
    assert not os.path.exists(os.path.join(log.path, "logstore.open-batch"))
    print(len(list(log.read())))
"""


@pytest.mark.skipif("LOGSTORE_SANITIZED" in os.environ, reason="NOT TESTED: the sanitizer's run-time has mlock do nothing")
def test_without_locked_memory_each_record_is_written(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_LOCKED_MEMORY, tmp_path / "orders-0"], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout == "100\n", done.stderr


def test_a_directory_that_is_deleted_in_a_burst_takes_nothing_with_it(burst):
    log = burst(name="a/orders-0")
    other = burst(name="b/orders-0")
    assert log.staged
    shutil.rmtree(log.path)
    append(log, 60, 60)
    assert [record.value for record in log.read()] == [value_of(number) for number in range(120)]
    append(other, 60, 60)
    assert len(list(other.read())) == 120
    with contextlib.suppress(StorageFailureError):
        log.close()


@pytest.mark.parametrize("change", ["another run", "another topic", "another place", "not trusted"])
def test_a_file_that_is_not_of_this_log_and_run_is_ignored(burst, tmp_path, monkeypatch, change):
    place, handed_over = not_of_its_log(burst, tmp_path, change)
    if change == "another run":
        monkeypatch.setattr("logstore.storage.log.boot_id", lambda: b"0123456789abcdef")
    with Log(place, TopicConfig(), trust_checkpoint=change != "not trusted") as again:
        assert len(list(again.read())) == handed_over
        assert again.log_end_offset == handed_over
        assert again.recovery_report.cut_bytes == 0
    assert not (place / FILE).exists()


def test_a_flipped_bit_in_every_byte_is_said(burst, tmp_path):
    log = burst(count=22)
    handed_over = log.end_offset
    assert handed_over < 22
    place = killed(log, tmp_path / "killed")
    content = (place / FILE).read_bytes()
    end = 4096 + int.from_bytes(content[128:132], "big")
    seen = {handed_over: 0, 22: 0}
    for at in [*range(0, 68, 5), 100, *range(128, 136), 4000, *range(4096, end, 29), end + 1]:
        damaged = bytearray(content)
        damaged[at] ^= 1 << at % 8
        (place / FILE).write_bytes(damaged)
        target = tmp_path / "opened" / "orders-0"
        shutil.copytree(place, target)
        with Log(target, TopicConfig(), durability="appended") as again:
            values = [record.value for record in again.read()]
            assert values == [value_of(number) for number in range(len(values))]
            seen[len(values)] += 1
            if len(values) < 22:
                assert again.recovery_report.cut_offset == handed_over
                assert os.path.getsize(again.recovery_report.kept_as) == len(content)
        shutil.rmtree(target)
    assert seen[22] == 3, "between the block, the word and the records, and behind them"
    assert seen[handed_over] > 25


@pytest.mark.parametrize("what", ["empty", "short", "garbage", "zeros", "folder", "pipe", "link", "huge"])
def test_something_else_in_its_place(burst, tmp_path, what):
    log = burst()
    place = killed(log, tmp_path / "killed")
    handed_over = log.end_offset
    path = place / FILE
    content = path.read_bytes()
    path.unlink()
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "link":
        (tmp_path / "elsewhere").write_bytes(content)
        path.symlink_to(tmp_path / "elsewhere")
    else:
        path.write_bytes({"empty": b"", "short": content[:4100], "garbage": os.urandom(9000), "zeros": bytes(9000),
                          "huge": content + bytes(3 << 20)}[what])
    expected = 60 if what == "huge" else handed_over
    with Log(place, TopicConfig(), durability="appended") as again:
        assert again.log_end_offset == expected
        assert bool(again.recovery_report.cut_bytes) == (what == "short")
        append(again, 60, expected)
        assert [record.value for record in again.read()] == [value_of(n) for n in range(expected + 60)]


def test_a_directory_for_reading_only_is_left_alone(burst, tmp_path):
    log = burst()
    place = killed(log, tmp_path / "killed")
    before = (place / FILE).read_bytes()
    with Log(place, TopicConfig(), read_only=True) as reader:
        assert len(list(reader.read())) <= 60
    assert (place / FILE).read_bytes() == before
    check(place, 60)


def test_a_full_disk_keeps_what_was_acknowledged(small_disk, tmp_path):  # noqa: F811
    scheduler = ManualScheduler()
    config = TopicConfig(logstore_batch_bytes=8192, logstore_open_batch_mapped=True)
    log = Log(small_disk / "orders-0", config, durability="appended", clock=lambda: NOW_MS, scheduler=scheduler)
    append(log, 60)
    assert log.staged
    fill(small_disk)
    before = log.open_batch_records_count
    with pytest.raises(DiskFullError):
        append(log, 10_000, 60)
    acknowledged = 60 + log.open_batch_records_count - before
    assert acknowledged > 60, "there is room in the file"
    assert log.log_end_offset < acknowledged, "readers go on with what is in the segment"
    check(killed(log, tmp_path / "killed"), acknowledged)
    with pytest.raises(DiskFullError):
        log.close()
    # A full disk when it is opened again: nothing is lost, nothing can be appended over it.
    log = Log(small_disk / "orders-0", TopicConfig(), durability="appended", scheduler=scheduler)
    with pytest.raises(DiskFullError):
        log.append(b"not now")
    (small_disk / "filler").unlink()
    append(log, 30, acknowledged)
    log.close()
    check(small_disk / "orders-0", acknowledged + 30)


def test_no_room_for_the_file_costs_nothing_but_speed(small_disk):  # noqa: F811
    log = Log(small_disk / "orders-0", TopicConfig(logstore_open_batch_mapped=True), durability="appended",
              clock=lambda: NOW_MS, scheduler=ManualScheduler())
    append(log, 1)
    fill(small_disk, leave_bytes=20_000)
    append(log, 60)
    assert not log.staged
    assert log.end_offset == 61
    assert not os.path.exists(os.path.join(log.path, FILE))
    log.close()


def test_a_forked_child_does_not_touch_it(burst, tmp_path):
    log = burst()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            assert log.end_offset < log.log_end_offset + 1
            log.close()
            del log
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert log.staged
    check(killed(log, tmp_path / "killed"), 60)
    append(log, 20, 60)
    assert len(list(log.read())) == 80
