"""Files that are missing, cut, swapped, doubled, strangers, or no files at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from ledger import value_of
from test_bit_flips import COUNT, look, make

import logstore


def _segments(folder: Path) -> list[Path]:
    return sorted((folder / "t-0").glob("*.log"))


def _swap(one: Path, other: Path) -> None:
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def _replace_by_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _replace_by_link(path: Path) -> None:
    path.rename(path.with_suffix(".elsewhere"))
    path.symlink_to(path.with_suffix(".elsewhere"))


def _replace_by_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "first segment missing": lambda folder: _segments(folder)[0].unlink(),
    "middle segment missing": lambda folder: _segments(folder)[1].unlink(),
    "last segment missing": lambda folder: _segments(folder)[-1].unlink(),
    "middle segment cut": lambda folder: os.truncate(_segments(folder)[1], 1000),
    "first segment empty": lambda folder: os.truncate(_segments(folder)[0], 0),
    "last segment cut": lambda folder: os.truncate(_segments(folder)[-1], 100),
    "middle segment empty": lambda folder: os.truncate(_segments(folder)[1], 0),
    "segments swapped": lambda folder: _swap(*_segments(folder)[:2]),
    "segment copied over another": lambda folder: shutil.copy(_segments(folder)[0], _segments(folder)[1]),
    "segment doubled under a later name": lambda folder: shutil.copy(
        _segments(folder)[0], folder / "t-0" / "00000000000000000100.log"
    ),
    "directory emptied": lambda folder: [path.unlink() for path in (folder / "t-0").glob("0*")],
    "segment is a fifo": lambda folder: _replace_by_fifo(_segments(folder)[1]),
    "last segment is a fifo": lambda folder: _replace_by_fifo(_segments(folder)[-1]),
    "segment is a directory": lambda folder: _replace_by_directory(_segments(folder)[1]),
    "segment is a symbolic link": lambda folder: _replace_by_link(_segments(folder)[1]),
    "checkpoint is a fifo": lambda folder: _replace_by_fifo(folder / "t-0" / "logstore.checkpoint"),
    "checkpoint is a directory": lambda folder: _replace_by_directory(folder / "t-0" / "logstore.checkpoint"),
    "epochs are a fifo": lambda folder: _replace_by_fifo(folder / "t-0" / "leader-epoch-checkpoint"),
    "metadata are a fifo": lambda folder: _replace_by_fifo(folder / "t-0" / "partition.metadata"),
    "topics are a fifo": lambda folder: _replace_by_fifo(folder / "logstore.topics"),
    "lock is a fifo": lambda folder: _replace_by_fifo(folder / ".lock"),
}

HARMLESS: dict[str, Callable[[Path], object]] = {
    "checkpoint missing": lambda folder: (folder / "t-0" / "logstore.checkpoint").unlink(),
    "indexes missing": lambda folder: [path.unlink() for path in (folder / "t-0").glob("*index")],
    "an index is a fifo": lambda folder: _replace_by_fifo(_segments(folder)[0].with_suffix(".index")),
    "an index is empty": lambda folder: os.truncate(_segments(folder)[0].with_suffix(".timeindex"), 0),
    "an index has zeros behind": lambda folder: os.truncate(_segments(folder)[1].with_suffix(".index"), 800),
    "indexes swapped": lambda folder: _swap(*[path.with_suffix(".index") for path in _segments(folder)[:2]]),
    "metadata missing": lambda folder: (folder / "t-0" / "partition.metadata").unlink(),
    "epochs missing": lambda folder: (folder / "t-0" / "leader-epoch-checkpoint").unlink(),
    "topics missing": lambda folder: (folder / "logstore.topics").unlink(),
    "clean shutdown marker is a fifo": lambda folder: _replace_by_fifo(folder / ".kafka_cleanshutdown"),
    "clean shutdown marker is not text": lambda folder: (folder / ".kafka_cleanshutdown").write_bytes(b"\xff\xfe{"),
    "strangers": lambda folder: [
        (folder / "t-0" / name).write_bytes(b"x")
        for name in ("notes.txt", "1.log", "0000000000000000000a.log", "99999999999999999999.log", "1.log.truncate")
    ],
    "a stranger's directory": lambda folder: (folder / "not a topic").mkdir(),
    "leftovers of a replacement": lambda folder: (folder / "logstore.topics.tmp").write_bytes(b"half"),
}


@pytest.mark.parametrize("read_only", [True, False], ids=["read_only", "writable"])
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.timeout(20)
@pytest.mark.fault(13, "lost, misplaced, stale or swapped blocks and files")
@pytest.mark.fault(15, "segment missing, cut or doubled")
@pytest.mark.fault(31, "link, FIFO, directory in a file's place")
def test_what_is_missing_is_said(damage: str, read_only: bool, work: Path) -> None:
    folder = work / "data"
    make(folder)
    DAMAGES[damage](folder)
    found, errors = look(folder, read_only=read_only)
    for offset, value in found.items():
        assert value == value_of("w", offset)
    if damage == "segment is a symbolic link":
        assert errors, "a link was followed"
    if len(found) < COUNT:
        assert errors, f"{COUNT - len(found)} records are missing without a word"
    for error in errors:
        kinds = (logstore.CorruptDataError, logstore.StorageFailureError, logstore.OffsetOutOfRangeError)
        assert isinstance(error, kinds), error
        assert str(folder) in str(error) or isinstance(error, logstore.OffsetOutOfRangeError)


@pytest.mark.parametrize("read_only", [True, False], ids=["read_only", "writable"])
@pytest.mark.parametrize("change", HARMLESS)
@pytest.mark.timeout(20)
@pytest.mark.fault(14, "index missing, damaged, stale")
@pytest.mark.fault(16, "checkpoint or metadata damaged")
@pytest.mark.fault(31, "link, FIFO, directory in a file's place")
@pytest.mark.fault(35, "strangers' files")
def test_what_can_be_done_without_costs_nothing(change: str, read_only: bool, work: Path) -> None:
    folder = work / "data"
    make(folder)
    before = {path.name for path in (folder / "t-0").iterdir()}
    HARMLESS[change](folder)
    found, errors = look(folder, read_only=read_only)
    assert not errors
    assert found == {number: value_of("w", number) for number in range(COUNT)}
    if change == "strangers":
        assert len({path.name for path in (folder / "t-0").iterdir()} - before) == 5, "strangers are left alone"


@pytest.mark.fault(15, "segment missing, cut or doubled")
def test_a_partition_whose_directory_is_gone_is_not_made_anew_in_silence(work: Path) -> None:
    folder = work / "data"
    make(folder)
    shutil.rmtree(folder / "t-0")
    with logstore.open(folder) as broker:
        assert broker.damages
        with pytest.raises(logstore.CorruptDataError, match="missing"):
            broker.topic("t").append(b"x")
    with logstore.open(folder) as broker:
        assert broker.damages, "nor by the next open"


def test_deleted_and_made_again_a_topic_starts_anew(work: Path) -> None:
    """What Kafka's checkpoints say of the first topic is not said of the second."""
    folder = work / "data"
    make(folder)
    with logstore.open(folder) as broker:
        broker.topic("t").partition(0).advance_log_start_offset(10)
    crashed = work / "crashed"
    with logstore.open(folder) as broker:
        broker.delete_topic("t")
        topic = broker.create_topic("t")
        assert topic.append(b"first") == 0
        shutil.copytree(folder, crashed)
    with logstore.open(crashed) as broker:
        assert [record.value for record in broker.topic("t").read()] == [b"first"]
