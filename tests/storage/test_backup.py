"""Backups: whole batches of a prefix, beside a writer; every byte verified when they come back."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
from crash_states import segment_paths, stored_batches
from crashing_calls import CrashError, crash_before

import logstore
from logstore.broker.backup import backup_directory, list_backups, restore_directory
from logstore.storage.verification import verify_partition

COUNT = 60
STRIDE = int(os.environ.get("LOGSTORE_BACKUP_STRIDE", "3"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    with logstore.open(tmp_path / "data", durability="appended") as broker:
        orders = broker.create_topic("orders", partitions=2, segment_bytes=1024, index_interval_bytes=100, retention="30d")
        for number in range(COUNT):
            orders.append(b"value-%d" % number, key=b"key-%d" % (number % 9), headers=[("n", b"%d" % number)])
        broker.create_topic("empty")
    return tmp_path / "data"


def content(path: Path, topic: str = "orders") -> list[tuple]:
    with logstore.open(path, read_only=True) as broker:
        return [
            (partition, record.offset, record.key, record.value, record.headers, record.timestamp)
            for partition in range(broker.topic(topic).partitions)
            for record in broker.topic(topic).read(partition=partition)
        ]


def check_sound(path: Path) -> None:
    for entry in path.iterdir():
        if entry.is_dir():
            assert verify_partition(str(entry)).is_sound


def test_there_and_back(source: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    made = backup_directory(str(source), str(tmp_path / "backup"), progress=lambda *done: seen.append(done))
    assert made.partitions == 3
    assert made.size_bytes == made.copied_bytes == sum(path.stat().st_size for path in source.rglob("*.log"))
    assert seen[-1][0] == seen[-1][1] == made.size_bytes
    restored = restore_directory(str(tmp_path / "backup"), str(tmp_path / "restored"))
    assert restored[1:4] == made[1:4]
    assert content(tmp_path / "restored") == content(source)
    check_sound(tmp_path / "restored")
    with logstore.open(tmp_path / "restored") as broker, logstore.open(source) as original:
        assert broker.topics() == ["empty", "orders"]
        topic = broker.topic("orders")
        assert topic.id == original.topic("orders").id
        assert topic.config == original.topic("orders").config
        assert broker.recovery_reports == {}
        assert broker.damages == {}
        end = topic.partition(0).log_end_offset
        assert topic.append(b"goes on", partition=0) == end
    assert (tmp_path / "restored" / "meta.properties").read_bytes() == (source / "meta.properties").read_bytes()


def test_only_what_is_new_is_copied(source: Path, tmp_path: Path) -> None:
    backup = str(tmp_path / "backup")
    backup_directory(str(source), backup)
    assert backup_directory(str(source), backup).copied_bytes == 0
    with logstore.open(source) as broker:
        broker.topic("orders").append(b"one more", partition=0)
    active = segment_paths(source / "orders-0")[-1]
    assert backup_directory(str(source), backup).copied_bytes == active.stat().st_size
    newest, oldest = list_backups(backup)[-1], list_backups(backup)[0]
    restore_directory(backup, str(tmp_path / "new"))
    restore_directory(backup, str(tmp_path / "old"), at=Path(oldest).name[:-9])
    assert len(content(tmp_path / "new")) == COUNT + 1
    assert len(content(tmp_path / "old")) == COUNT
    assert newest != oldest


def test_old_backups_go_and_take_along_what_only_they_had(source: Path, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    backup_directory(str(source), str(backup), keep=2)
    files = set(backup.rglob("*.log"))
    with logstore.open(source) as broker:
        log = broker.topic("orders").partition(0)
        log.advance_log_start_offset(log.log_end_offset)
        log.roll()
        log.advance_log_start_offset(log.log_end_offset)
    backup_directory(str(source), str(backup), keep=2)
    assert files <= set(backup.rglob("*.log"))
    backup_directory(str(source), str(backup), keep=2)
    assert len(list_backups(str(backup))) == 2
    assert not files <= set(backup.rglob("*.log"))
    restore_directory(str(backup), str(tmp_path / "restored"))
    assert content(tmp_path / "restored") == content(source)


def test_some_topics(source: Path, tmp_path: Path) -> None:
    backup_directory(str(source), str(tmp_path / "one"), ["orders"])
    with pytest.raises(logstore.UnknownTopicOrPartitionError, match="has no topic empty"):
        restore_directory(str(tmp_path / "one"), str(tmp_path / "restored"), ["empty"])
    backup_directory(str(source), str(tmp_path / "all"))
    restore_directory(str(tmp_path / "all"), str(tmp_path / "restored"), ["empty"])
    with logstore.open(tmp_path / "restored", read_only=True) as broker:
        assert broker.topics() == ["empty"]


@pytest.mark.parametrize(
    "attempt",
    [
        lambda source, backup, work: backup_directory(source, source + "/backup"),
        lambda source, backup, work: backup_directory(source, backup, ["nothing"]),
        lambda source, backup, work: backup_directory(source, backup, keep=0),
        lambda source, backup, work: restore_directory(work, work + "/restored"),
        lambda source, backup, work: restore_directory(backup, source),
        lambda source, backup, work: restore_directory(backup, work + "/restored", at="1999"),
    ],
)
def test_refusals(attempt: Callable[[str, str, str], object], source: Path, tmp_path: Path) -> None:
    backup_directory(str(source), str(tmp_path / "backup"))
    with pytest.raises(logstore.InvalidRequestError):
        attempt(str(source), str(tmp_path / "backup"), str(tmp_path))
    assert len(content(source)) == COUNT
    assert not (tmp_path / "restored").exists()


def test_beside_a_writer_the_copy_is_a_prefix(tmp_path: Path) -> None:
    broker = logstore.open(tmp_path / "data", durability="appended")
    topic = broker.create_topic("orders", partitions=2, segment_bytes=16384, index_interval_bytes=200)
    written: list[list[bytes]] = [[], []]
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            partition = number % 2
            value = b"value-%d" % number
            written[partition].append(value)
            assert topic.append(value, partition=partition) == len(written[partition]) - 1
            number += 1
            if number % 400 == 0:
                log = topic.partition(0)
                log.advance_log_start_offset(max(log.log_end_offset - 300, 0))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(4):
            before = [topic.partition(number).log_end_offset for number in range(2)]
            backup_directory(str(tmp_path / "data"), str(tmp_path / "backup"))
            target = tmp_path / "restored"
            restore_directory(str(tmp_path / "backup"), str(target))
            check_sound(target)
            with logstore.open(target, read_only=True) as restored:
                for number in range(2):
                    log = restored.topic("orders").partition(number)
                    assert log.log_end_offset >= before[number]
                    for record in log.read():
                        assert record.value == written[number][record.offset]
            shutil.rmtree(target)
    finally:
        stop.set()
        writer.join()
        broker.close()


def test_an_unfinished_write_is_not_copied(source: Path, tmp_path: Path) -> None:
    active = segment_paths(source / "orders-0")[-1]
    whole = active.read_bytes()
    last = stored_batches(active)[-1]
    batch = (last.last_offset + 1).to_bytes(8, "big") + whole[last.position + 8 :]
    for tail in (batch[:40], batch[:-1], bytes(3000)):
        active.write_bytes(whole + tail)
        shutil.rmtree(tmp_path / "backup", ignore_errors=True)
        shutil.rmtree(tmp_path / "restored", ignore_errors=True)
        backup_directory(str(source), str(tmp_path / "backup"))
        restore_directory(str(tmp_path / "backup"), str(tmp_path / "restored"))
        assert segment_paths(tmp_path / "restored" / "orders-0")[-1].read_bytes() == whole


@pytest.mark.parametrize("number", [0, -1])
def test_a_damaged_log_is_not_backed_up(number: int, source: Path, tmp_path: Path) -> None:
    backup_directory(str(source), str(tmp_path / "backup"))
    path = segment_paths(source / "orders-0")[number]
    data = bytearray(path.read_bytes())
    data[stored_batches(path)[0].position + 20] ^= 1
    path.write_bytes(data)
    with pytest.raises(logstore.CorruptDataError) as caught:
        backup_directory(str(source), str(tmp_path / "backup"))
    assert str(path) in str(caught.value) or "copying" in str(caught.value)
    assert len(list_backups(str(tmp_path / "backup"))) == 1
    restore_directory(str(tmp_path / "backup"), str(tmp_path / "restored"))
    assert len(content(tmp_path / "restored")) == COUNT


@pytest.mark.fault(11, "a bit flipped in a record")
def test_every_flipped_byte_of_a_backup_is_found(source: Path, tmp_path: Path) -> None:
    backup_directory(str(source), str(tmp_path / "backup"), ["orders"])
    files = [*sorted((tmp_path / "backup").rglob("*.log"))[:1], *sorted((tmp_path / "backup").rglob("*.manifest"))]
    for path in files:
        original = path.read_bytes()
        for at in range(0, len(original), 7):
            damaged = bytearray(original)
            damaged[at] ^= 1 << (at % 8)
            path.write_bytes(damaged)
            with pytest.raises(logstore.CorruptDataError):
                restore_directory(str(tmp_path / "backup"), str(tmp_path / "restored"))
            assert not (tmp_path / "restored").exists()
        for size in (0, len(original) // 2, len(original) - 1):
            path.write_bytes(original[:size])
            with pytest.raises(logstore.CorruptDataError):
                restore_directory(str(tmp_path / "backup"), str(tmp_path / "restored"))
        path.write_bytes(original)
    files[0].unlink()
    with pytest.raises(logstore.CorruptDataError, match="missing"):
        restore_directory(str(tmp_path / "backup"), str(tmp_path / "restored"))


def test_a_log_with_gaps_and_offsets_that_are_used_up(tmp_path: Path) -> None:
    with logstore.open(tmp_path / "data", durability="appended") as broker:
        topic = broker.create_topic("orders", segment_bytes=1024, cleanup_policy="compact", min_cleanable_dirty_ratio=0)
        for number in range(100):
            topic.append(b"value-%d" % number, key=b"key-%d" % (number % 3))
        log = topic.partition(0)
        log.roll()
        log.compact()
        end = log.log_end_offset
    backup_directory(str(tmp_path / "data"), str(tmp_path / "backup"))
    restore_directory(str(tmp_path / "backup"), str(tmp_path / "restored"))
    assert content(tmp_path / "restored") == content(tmp_path / "data")
    with logstore.open(tmp_path / "restored") as broker:
        assert broker.topic("orders").append(b"x", key=b"y") == end


def test_committed_offsets_come_along_and_are_never_ahead(source: Path, tmp_path: Path) -> None:
    with logstore.open(source) as broker:
        with broker.consumer("orders", group="billing", auto_offset_reset="earliest") as consumer:
            assert len(list(islice(consumer, 20))) == 20
            consumer.commit()
        broker.flush()
        backup_directory(str(source), str(tmp_path / "backup"))
    manifest = json.loads(Path(list_backups(str(tmp_path / "backup"))[0]).read_text().partition("\n")[2])
    assert manifest["partitions"][0]["topic"] == "__consumer_offsets"
    restore_directory(str(tmp_path / "backup"), str(tmp_path / "restored"))
    with logstore.open(tmp_path / "restored") as broker:
        with broker.consumer("orders", group="billing", auto_offset_reset="earliest") as consumer:
            assert len(list(islice(consumer, COUNT - 20))) == COUNT - 20
            assert not consumer.poll(0.1)


@pytest.mark.fault(17, "crash in compaction, retention, roll, truncation, repair, backup, recovery, close")
def test_a_crash_at_every_file_operation_of_a_backup(source: Path, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    backup_directory(str(source), str(backup), ["orders"], keep=1)
    before = content(source)
    with logstore.open(source) as broker:
        broker.topic("orders").append_many([b"more"] * 30)
    after = content(source)
    shutil.copytree(backup, tmp_path / "pristine")
    number = 0
    while True:
        try:
            with crash_before(number):
                backup_directory(str(source), str(backup), ["orders"], keep=1)
            break
        except CrashError:
            pass
        restore_directory(str(backup), str(tmp_path / "restored"))
        assert content(tmp_path / "restored") in (before, after)
        shutil.rmtree(tmp_path / "restored")
        backup_directory(str(source), str(backup), ["orders"], keep=1)  # the next one is whole, and clears up
        restore_directory(str(backup), str(tmp_path / "restored"))
        assert content(tmp_path / "restored") == after
        assert not list(backup.rglob("copying"))
        shutil.rmtree(tmp_path / "restored")
        shutil.rmtree(backup)
        shutil.copytree(tmp_path / "pristine", backup)
        number += STRIDE
    assert number > 12


@pytest.mark.fault(17, "crash in compaction, retention, roll, truncation, repair, backup, recovery, close")
def test_a_crash_at_every_file_operation_of_a_restore(source: Path, tmp_path: Path) -> None:
    backup_directory(str(source), str(tmp_path / "backup"))
    number = 0
    target = tmp_path / "restored"
    while True:
        try:
            with crash_before(number):
                restore_directory(str(tmp_path / "backup"), str(target))
            break
        except CrashError:
            pass
        if target.exists():  # it came as a whole
            assert content(target) == content(source)
            shutil.rmtree(target)
        number += 4 * STRIDE
    assert number > 40
    assert content(target) == content(source)
    assert not (tmp_path / "restored.restoring").exists()
