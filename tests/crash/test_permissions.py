"""What a user may not read or write; and what others may, of what is made."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import logstore
from logstore.storage.segment_digests import SegmentDigests

NOBODY = 65534


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where another user can go: pytest's folders are closed to others."""
    with tempfile.TemporaryDirectory(prefix="logstore-permissions-") as name:
        os.chmod(name, 0o755)
        path = Path(name) / "data"
        with logstore.open(path) as broker:
            for topic in ("t", "u"):
                broker.create_topic(topic, segment_bytes=1024).append_many([b"x" * 100] * 30)
        yield path
        for place, _, _ in os.walk(path):
            os.chmod(place, 0o755)


def as_another_user(step: Callable[[], None]) -> str:
    """What a step raises there, in a forked child: type and text; empty for nothing."""
    assert SegmentDigests  # loaded here, where the child may not read our own files
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        text = ""
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            step()
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        finally:
            os.write(tell, text.encode())
            os._exit(0)
    os.close(tell)
    os.waitpid(child, 0)
    with open(told) as pipe:
        return pipe.read()


def open_to_others(folder: Path, file_mode: int, directory_mode: int) -> None:
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            os.chmod(os.path.join(place, name), file_mode)
        os.chmod(place, directory_mode)


@pytest.mark.fault(32, "no permission, read-only media")
def test_files_are_the_owners_and_the_groups(folder: Path) -> None:
    before = os.umask(0)
    try:
        with logstore.open(folder) as broker:
            broker.create_topic("made").append_many([b"x"] * 10)
            broker.topic("made").partition(0).roll()
    finally:
        os.umask(before)
    for path in (folder / "made-0").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o640, path
    assert stat.S_IMODE((folder / "made-0").stat().st_mode) == 0o750


@pytest.mark.skipif(not hasattr(os, "fork"), reason="NOT TESTED: another user's view; this system has no fork")
@pytest.mark.fault(32, "no permission, read-only media")
def test_what_may_not_be_written_can_be_read(folder: Path) -> None:
    open_to_others(folder, 0o444, 0o555)

    def read() -> None:
        with logstore.open(folder, read_only=True) as broker:
            assert len(list(broker.topic("t").read())) == 30

    assert as_another_user(read) == ""
    said = as_another_user(lambda: logstore.open(folder).close())
    assert said.startswith("StorageFailureError")
    assert "read_only=True" in said
    assert str(folder) in said


@pytest.mark.skipif(not hasattr(os, "fork"), reason="NOT TESTED: another user's view; this system has no fork")
@pytest.mark.fault(32, "no permission, read-only media")
def test_what_may_not_be_read_is_said_by_name(folder: Path) -> None:
    open_to_others(folder, 0o666, 0o777)
    closed = max((folder / "t-0").glob("*.log"))
    os.chmod(closed, 0)
    for read_only in (True, False):
        def read(read_only: bool = read_only) -> None:
            with logstore.open(folder, read_only=read_only) as broker:
                list(broker.topic("t").read())

        said = as_another_user(read)
        assert "Error" in said, "an unreadable segment was read, or passed over"
        assert closed.name in said, said
    os.chmod(closed, 0o666)
    os.chmod(folder, 0)
    said = as_another_user(lambda: logstore.open(folder, read_only=True).close())
    os.chmod(folder, 0o755)
    assert str(folder) in said
    assert said.startswith(("StorageFailureError", "InvalidRequestError"))
