"""Verification of what producers did: a flipped bit in any byte of a snapshot or transaction index is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from logstore._native.record_batch_builder import RecordBatchBuilder
from logstore.storage.config import TopicConfig
from logstore.storage.log import Log
from logstore.storage.verification import FileFault, verify_partition


def append(log: Log, producer_id: int, sequence: int, *, transactional: bool = True) -> None:
    builder = RecordBatchBuilder(256)
    builder.append(b"value", None, timestamp=1_000 + sequence)
    batch = builder.build(
        transactional=transactional, producer_id=producer_id, producer_epoch=0, base_sequence=sequence
    )
    log.append_as_leader(bytearray(batch), durability="appended")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Three segments with aborted and committed transactions of two producers, one of them across segments."""
    with Log(tmp_path / "t-0", TopicConfig(), durability="appended") as log:
        append(log, 7, 0)
        append(log, 8, 0)
        log.append_marker(7, 0, False)
        log.roll()
        append(log, 7, 1)
        log.append_marker(8, 0, False)
        log.append_marker(7, 0, True)
        log.roll()
        append(log, 9, 0, transactional=False)
        append(log, 7, 2)
        log.append_marker(7, 0, False)
    return tmp_path / "t-0"


def faults(directory: Path, *, deep: bool = True) -> list[FileFault]:
    found = verify_partition(str(directory), deep=deep)
    assert not found.ranges
    return found.faults


def test_sound_files_have_no_faults(directory: Path) -> None:
    assert len(list(directory.glob("*.txnindex"))) == 3
    assert len(list(directory.glob("*.snapshot"))) >= 2
    assert faults(directory) == []
    assert faults(directory, deep=False) == []


def test_beside_a_writer_nothing_is_missed(directory: Path) -> None:
    with Log(directory, TopicConfig(), durability="appended") as log:
        append(log, 7, 3)
        log.append_marker(7, 0, False)
        assert faults(directory) == []


@pytest.mark.parametrize("suffix", [".txnindex", ".snapshot"])
def test_every_flipped_bit_is_named(directory: Path, suffix: str) -> None:
    for path in directory.glob("*" + suffix):
        sound = path.read_bytes()
        for position in range(len(sound)):
            changed = bytearray(sound)
            changed[position] ^= 1 << position % 8
            path.write_bytes(changed)
            assert {fault.path for fault in faults(directory)} == {str(path)}, position
        path.write_bytes(sound)
    assert faults(directory) == []


def test_an_entry_that_is_missing_is_named(directory: Path) -> None:
    path = sorted(directory.glob("*.txnindex"))[0]
    path.write_bytes(b"")
    (fault,) = faults(directory)
    assert fault.path == str(path)
    assert "lacks the transaction aborted at offset 2" in fault.reason
    assert faults(directory, deep=False) == []
    path.unlink()
    path.with_suffix(".snapshot").unlink(missing_ok=True)
    with Log(directory, TopicConfig()) as log:  # as the advice says, it comes back
        assert [record.value for record in log.read(0, isolation_level="read_committed")].count(b"value") == 2


@pytest.mark.parametrize("deep", [True, False])
def test_a_cut_off_file_is_named(directory: Path, deep: bool) -> None:
    for path in [sorted(directory.glob("*.txnindex"))[-1], sorted(directory.glob("*.snapshot"))[-1]]:
        sound = path.read_bytes()
        path.write_bytes(sound[:-3])
        assert [fault.path for fault in faults(directory, deep=deep)] == [str(path)]
        path.write_bytes(sound)
