"""The files beside the segments: checkpoint slots, leader epochs, text checkpoints, the lock."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from logstore._native.record_batch_builder import RecordBatchBuilder
from logstore.errors import (
    CorruptDataError,
    DataDirLockedError,
    InvalidRequestError,
    StorageFailureError,
    UnsupportedFormatError,
)
from logstore.storage import layout, text_checkpoints
from logstore.storage.checkpoint import SLOT_BYTES, Checkpoint, CheckpointFile
from logstore.storage.directory_lock import DirectoryLock
from logstore.storage.leader_epochs import LeaderEpochs
from logstore.storage.log import Log

# ---- logstore.checkpoint ----------------------------------------------------------------------


@pytest.fixture
def checkpoint_path(tmp_path):
    return str(tmp_path / "logstore.checkpoint")


def state(number):
    return Checkpoint(number, number + 1, number + 2, number + 3, number + 4, True, False, True)


def read(path):
    return CheckpointFile(path).read()


def test_newest_slot_counts(checkpoint_path):
    file = CheckpointFile(checkpoint_path)
    assert file.read() is None
    for number in range(5):
        file.write(state(number), sync=number % 2 == 0)
        assert read(checkpoint_path) == state(number)
    again = CheckpointFile(checkpoint_path)
    assert again.read() == state(4)
    again.write(state(5))
    assert read(checkpoint_path) == state(5)
    assert os.path.getsize(checkpoint_path) <= 2 * SLOT_BYTES


@pytest.mark.fault(16, "checkpoint or metadata damaged")
def test_a_torn_slot_leaves_the_other(checkpoint_path):
    file = CheckpointFile(checkpoint_path)
    file.write(state(1))
    file.write(state(2))
    whole = Path(checkpoint_path).read_bytes()
    newest = 0 if file._sequence % 2 == 0 else SLOT_BYTES
    for bit in range(0, 60 * 8, 5):
        damaged = bytearray(whole)
        damaged[newest + bit // 8] ^= 1 << bit % 8
        with open(checkpoint_path, "wb") as out:
            out.write(damaged)
        assert read(checkpoint_path) == state(1)


def test_what_replaces_a_state_is_in_both_slots(checkpoint_path):
    file = CheckpointFile(checkpoint_path)
    file.write(state(1))
    file.replace(state(2))
    whole = Path(checkpoint_path).read_bytes()
    for slot in range(2):
        damaged = bytearray(whole)
        damaged[slot * SLOT_BYTES + 9] ^= 1
        with open(checkpoint_path, "wb") as out:
            out.write(damaged)
        assert read(checkpoint_path) == state(2)


@pytest.mark.parametrize("data", [b"", b"x", bytes(100), bytes(2 * SLOT_BYTES), b"LSCP" * 3000])
@pytest.mark.fault(16, "checkpoint or metadata damaged")
def test_a_damaged_checkpoint_is_none(checkpoint_path, data):
    with open(checkpoint_path, "wb") as out:
        out.write(data)
    assert read(checkpoint_path) is None


@pytest.mark.fault(36, "files of a newer version")
def test_a_newer_checkpoint_is_refused(checkpoint_path):
    from logstore._native.checksum import crc32c

    CheckpointFile(checkpoint_path).write(state(1))
    with open(checkpoint_path, "r+b") as file:
        file.seek(SLOT_BYTES)
        body = bytearray(file.read(56))
        body[5] = 9
        file.seek(SLOT_BYTES)
        file.write(body + crc32c(bytes(body)).to_bytes(4, "big"))
    with pytest.raises(UnsupportedFormatError, match="version 9"):
        read(checkpoint_path)


def test_a_log_without_its_checkpoint_is_scanned(tmp_path):
    directory = tmp_path / "orders-0"
    with Log(directory, durability="appended") as log:
        log.append_many([b"a"] * 10)
        log.advance_log_start_offset(4)
    (directory / "logstore.checkpoint").unlink()
    with Log(directory) as log:
        assert log.recovery_report.scanned_bytes == log.size_bytes
        assert (log.log_start_offset, log.log_end_offset) == (0, 10)
        assert len(list(log.read())) == 10


@pytest.mark.fault(1, "kill -9 in an append")
def test_the_mark_of_a_close_in_good_order_goes_before_the_first_write(tmp_path):
    path = tmp_path / "orders-0"
    for _ in range(2):
        with Log(path, durability="appended") as log:
            assert CheckpointFile(str(path / "logstore.checkpoint")).read() in (None, log._checkpoint)
            log.append(b"x")
            killed = CheckpointFile(str(path / "logstore.checkpoint")).read()
            assert killed is None or not killed.is_clean
        assert CheckpointFile(str(path / "logstore.checkpoint")).read().is_clean


def test_a_log_shorter_than_its_checkpoint_is_not_written(tmp_path):
    directory = tmp_path / "orders-0"
    with Log(directory) as log:
        for _ in range(10):
            log.append(b"a")
    segment = directory / f"{0:020d}.log"
    os.truncate(segment, segment.stat().st_size // 2)
    with Log(directory) as log:
        assert isinstance(log.damage, CorruptDataError)
        assert log.damage.path == str(segment)
        with pytest.raises(CorruptDataError):
            log.append(b"a")
        read_back = []
        reader = log.read()
        with pytest.raises(CorruptDataError):
            read_back.extend(record.offset for record in reader)
        assert read_back == list(range(5))
    assert segment.stat().st_size > 0


def test_a_log_without_its_segments_is_not_begun_anew(tmp_path):
    directory = tmp_path / "orders-0"
    with Log(directory) as log:
        log.append(b"a")
    (directory / f"{0:020d}.log").unlink()
    with Log(directory) as log:
        assert "missing" in str(log.damage)
        with pytest.raises(CorruptDataError):
            log.append(b"a")


# ---- leader epochs ----------------------------------------------------------------------------


def test_leader_epochs(tmp_path):
    epochs = LeaderEpochs(str(tmp_path))
    assert (epochs.entries, epochs.latest) == ([], -1)
    assert epochs.assign(0, 0)
    assert not epochs.assign(0, 5)
    assert epochs.assign(3, 10)
    assert epochs.assign(7, 20)
    epochs.write()
    assert LeaderEpochs(str(tmp_path)).entries == [(0, 0), (3, 10), (7, 20)]
    assert epochs.truncate_from_end(20)
    assert not epochs.truncate_from_end(11)
    assert epochs.entries == [(0, 0), (3, 10)]
    assert epochs.truncate_from_start(4)
    assert epochs.entries == [(0, 4), (3, 10)]
    assert epochs.truncate_from_start(12)
    assert epochs.entries == [(3, 12)]
    assert not epochs.truncate_from_start(12)
    assert epochs.assign(9, 12)
    assert epochs.entries == [(9, 12)]


def test_epochs_never_fall(tmp_path):
    """Also where no record of the latest one is left: its batches still stand below the log start offset."""
    directory = tmp_path / "orders-0"
    builder = RecordBatchBuilder()
    for value in (b"a", b"b"):
        builder.append(value, timestamp=0)
    batch = builder.build(partition_leader_epoch=4)
    for how in ("truncate", "reopen", "both"):
        log = Log(directory, durability="appended")
        log.truncate_to(0)
        log.append_as_follower(batch)
        log.advance_log_start_offset(2)
        if how != "reopen":
            log.truncate_to(2)
        if how != "truncate":
            log.close()
            log = Log(directory, durability="appended")
        log.append(b"c")
        assert [record.value for record in log.read()] == [b"c"]
        assert log.fetch(2)[0].partition_leader_epoch >= 4
        log.close()
        with Log(directory) as again:
            assert again.damage is None
            again.truncate_to(0)


@pytest.mark.parametrize("text", ["", "0\n", "1\n1\n0 0\n", "0\n2\n0 0\n", "0\n1\n0\n", "0\n2\n5 0\n5 9\n",
                                  "0\n2\n1 5\n2 5\n", "0\n1\nx 0\n", "\xff\xfe"])  # fmt: skip
def test_damaged_leader_epochs_are_none(tmp_path, text):
    (tmp_path / "leader-epoch-checkpoint").write_bytes(text.encode("latin-1"))
    assert LeaderEpochs(str(tmp_path)).entries == []


# ---- text files -------------------------------------------------------------------------------


def test_offset_checkpoints(tmp_path):
    path = str(tmp_path / "recovery-point-offset-checkpoint")
    assert text_checkpoints.read_offsets(path) == {}
    offsets = {("b", 0): 5, ("a.b_c-d", 12): 2**62}
    text_checkpoints.write_offsets(path, offsets)
    assert text_checkpoints.read_offsets(path) == offsets
    with open(path) as file:
        assert file.read() == f"0\n2\na.b_c-d 12 {2**62}\nb 0 5\n"
    with open(path, "a") as file:
        file.write("c 0 1\n")
    assert text_checkpoints.read_offsets(path) == {}


def test_partition_metadata(tmp_path):
    directory = str(tmp_path)
    assert text_checkpoints.read_topic_id(directory) is None
    topic_id = text_checkpoints.new_topic_id()
    assert len(topic_id) == 22
    text_checkpoints.write_topic_id(directory, topic_id)
    assert text_checkpoints.read_topic_id(directory) == topic_id
    assert (tmp_path / "partition.metadata").read_bytes() == f"version: 0\ntopic_id: {topic_id}".encode()
    (tmp_path / "partition.metadata").write_text("version: 0\n")
    with pytest.raises(CorruptDataError):
        text_checkpoints.read_topic_id(directory)


# ---- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "A.b_c-1", "x" * 249, "...", "a-delete", "0", "-"])
def test_topic_names(name):
    assert layout.check_topic_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "x" * 250, "a/b", "a b", "\u00e4", "a\n", "a\0", "../x", None, 5])
@pytest.mark.fault(30, "hostile topic names")
def test_what_is_no_topic_name(name):
    with pytest.raises(InvalidRequestError, match="topic name"):
        layout.check_topic_name(name)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("orders-0", ("orders", 0)),
        ("a-b-12", ("a-b", 12)),
        ("a.b-delete-3", ("a.b-delete", 3)),
        ("orders", None),
        ("-0", None),
        ("orders-", None),
        ("orders-00", None),
        ("orders-x", None),
        ("orders-\u0661", None),
        ("orders-99999999999", None),
        ("orders-0.0123456789abcdef0123456789abcdef-delete", None),
        ("orders-0.0123456789abcdef0123456789abcdef-future", None),
        ("or ders-0", None),
    ],
)
def test_partition_directories(name, place):
    assert layout.split_partition_directory_name(name) == place


def test_segment_names():
    assert layout.segment_file_name(1234) == "00000000000000001234.log"
    assert layout.segment_offset("00000000000000001234.log") == 1234
    for name in ("1234.log", "00000000000000001234.index", "0000000000000000123\u0664.log",
                 "99999999999999999999.log", "00000000000000001234.log.deleted"):  # fmt: skip
        assert layout.segment_offset(name) is None


def test_a_logs_directory_has_a_partitions_name(tmp_path):
    with pytest.raises(InvalidRequestError, match="<topic>-<partition>"):
        Log(tmp_path / "orders")
    assert list(tmp_path.iterdir()) == []


# ---- the lock ---------------------------------------------------------------------------------


def test_second_writer_in_this_process_is_refused_by_name(tmp_path):
    lock = DirectoryLock(str(tmp_path))
    with pytest.raises(DataDirLockedError, match=r"by this process on .* since") as caught:
        DirectoryLock(str(tmp_path))
    assert "read_only=True" in str(caught.value)
    assert caught.value.retriable
    with pytest.raises(DataDirLockedError):
        Log(tmp_path / "orders-0")
    lock.release()
    lock.release()
    DirectoryLock(str(tmp_path)).release()


def test_a_refused_log_leaves_the_owners_lock(tmp_path):
    with Log(tmp_path / "orders-0") as log:
        with pytest.raises(DataDirLockedError):
            Log(tmp_path / "orders-1")
        assert log.append(b"a") == 0
        with pytest.raises(DataDirLockedError):
            Log(tmp_path / "orders-1")
    Log(tmp_path / "orders-1").close()


@pytest.mark.parametrize("text", ["", "garbage", "1 2 3 4", "99999999999999999999999 1 h", "-5 x y"])
def test_an_owner_that_left_no_name(tmp_path, text):
    lock = DirectoryLock(str(tmp_path))
    (tmp_path / ".lock").write_text(text)
    with pytest.raises(DataDirLockedError):
        DirectoryLock(str(tmp_path))
    lock.release()


@pytest.mark.fault(31, "link, FIFO, directory in a file's place")
def test_a_lock_that_is_no_file(tmp_path):
    (tmp_path / ".lock").mkdir()
    with pytest.raises(StorageFailureError):
        DirectoryLock(str(tmp_path))
