"""Programs that go on appending while a real disk, a small tmpfs, is full: they resume by themselves once there is space."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import logstore
from logstore.errors import DiskFullError, LogstoreError

VALUE = bytes(range(256)) * 12


@pytest.fixture(params=["size=1m", "size=4m,nr_inodes=40"], ids=["no space", "no inodes"])
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "disk"
    path.mkdir()
    mount = shutil.which("mount")
    if mount is None:
        pytest.skip("NOT TESTED: programs on a full disk; there is no mount command")
    done = subprocess.run([mount, "-t", "tmpfs", "-o", request.param, "tmpfs", path], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"NOT TESTED: programs on a full disk; mounting a tmpfs: {done.stderr.strip()}")
    yield path
    subprocess.run(["umount", "-l", path], check=True)


class Filler:
    """What else is on the disk: it takes all space and all inodes, and can be told to go."""

    def __init__(self, disk: Path):
        self.place = disk / "others"
        self.place.mkdir()

    def fill(self) -> None:
        try:
            for number in range(1000):
                (self.place / str(number)).touch()
        except OSError:
            pass
        try:
            with open(self.place / "0", "ab", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
        except OSError:
            pass

    def free(self) -> None:
        shutil.rmtree(self.place)


def numbered(number: int) -> bytes:
    return b"%06d" % number + VALUE


def until_full(refused: threading.Event) -> None:
    assert refused.wait(120), "the disk never filled up"


@pytest.mark.parametrize("durability", ["appended", "flushed"])
def test_a_program_that_keeps_appending_resumes_by_itself(small_disk: Path, durability: str) -> None:
    with logstore.open(small_disk / "data", durability=durability) as broker:
        topic = broker.create_topic("t", config={"segment.bytes": 65_536, "segment.index.bytes": 4096})
        filler = Filler(small_disk)
        refused = threading.Event()
        done = threading.Event()
        acknowledged: dict[int, int] = {}  # offset -> number
        refusals = 0

        def program() -> None:
            nonlocal refusals
            number = 0
            while number < 150:
                try:
                    acknowledged[topic.append(numbered(number))] = number
                    number += 1
                    if number == 20:
                        filler.fill()
                except DiskFullError as error:
                    assert error.retriable
                    assert "Free space" in str(error)
                    refusals += 1
                    refused.set()
                    done.wait(0.01)

        writer = threading.Thread(target=program)
        writer.start()
        until_full(refused)
        seen = [record.value[:6] for record in topic.read(0)]
        assert seen == [b"%06d" % number for number in range(len(seen))], "readers go on"
        assert len(seen) >= 20
        filler.free()
        writer.join(120)
        assert not writer.is_alive()
        assert refusals > 0
        assert sorted(acknowledged.items()) == [(number, number) for number in range(150)]
        assert [record.value[:6] for record in topic.read(0)] == [b"%06d" % number for number in range(150)]
    with logstore.open(small_disk / "data") as broker:
        assert not broker.recovery_reports, "closed in good order"
        assert [record.value[:6] for record in broker.topic("t").read(0)] == [b"%06d" % number for number in range(150)]


def test_a_producer_waits_for_space(small_disk: Path) -> None:
    with logstore.open(small_disk / "data", durability="appended") as broker:
        topic = broker.create_topic("t", config={"segment.bytes": 65_536, "segment.index.bytes": 4096})
        filler = Filler(small_disk)
        with broker.producer(delivery_timeout=30, linger_ms=1) as producer:
            futures = [producer.send(topic.name, numbered(number)) for number in range(20)]
            producer.flush()
            filler.fill()
            futures += [producer.send(topic.name, numbered(number)) for number in range(20, 120)]
            time.sleep(0.1)
            assert not futures[-1].done()
            filler.free()
            producer.flush()
            assert [future.result(120).offset for future in futures] == list(range(120)), "once each, and in order"
        assert [record.value[:6] for record in topic.read(0)] == [b"%06d" % number for number in range(120)]


def test_a_producer_gives_up_at_its_delivery_timeout(small_disk: Path) -> None:
    with logstore.open(small_disk / "data", durability="appended") as broker:
        topic = broker.create_topic("t", config={"segment.bytes": 65_536, "segment.index.bytes": 4096})
        filler = Filler(small_disk)
        with broker.producer(delivery_timeout=0.3, linger_ms=1) as producer:
            filler.fill()
            futures = [producer.send(topic.name, numbered(number)) for number in range(100)]
            for future in futures:
                future.exception(120)
            lost = [number for number, future in enumerate(futures) if future.exception() is not None]
            assert lost
            assert lost == list(range(lost[0], 100)), "nothing overtakes what waits"
            assert all(isinstance(futures[number].exception(), LogstoreError) for number in lost)
            filler.free()
            again = producer.send(topic.name, b"after")
            producer.flush()
            assert again.result(120).offset == lost[0]
        kept = [record.value[:6] for record in topic.read(0)]
        assert kept == [*(b"%06d" % number for number in range(lost[0])), b"after"]
