"""The scrub, stepped by hand: what it reads when, what it finds, and what it remembers."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

import logstore
from logstore.broker.scrub import Scrub
from logstore.model import TopicPartition
from logstore.storage.segment_digests import SegmentDigests

DAY_MS = 86_400_000


class Clock:
    def __init__(self) -> None:
        self.now_ms = 4_000_000_000_000  # long after every file of the test was written

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def broker(tmp_path):
    with logstore.open(tmp_path / "data", durability="appended", housekeeping=False) as opened:
        for name in ("a", "b"):
            topic = opened.create_topic(
                name, segment_bytes=1024, index_interval_bytes=100, logstore_open_batch_mapped=False)
            for number in range(60):
                topic.append(b"value-%d" % number)
            topic.flush()
        yield opened


@pytest.fixture
def scrub(broker, clock):
    made = Scrub(
        lambda: [log for name in broker.topics() for log in broker.topic(name).logs],
        bytes_per_second=1000, interval_ms=7 * DAY_MS, clock=clock,
    )  # fmt: skip
    yield made
    made.close()


def sealed_bytes(broker) -> int:
    return sum(
        segment.size_bytes for name in broker.topics() for segment in broker.topic(name).partition(0).segments[:-1]
    )


def verified(broker, name="a") -> dict[int, int]:
    return {
        base: digest.verified_ms
        for base, digest in SegmentDigests(broker.topic(name).partition(0).path).entries().items()
    }


def flip(path: str, position: int, mask: int = 1) -> None:
    data = bytearray(Path(path).read_bytes())
    data[position] ^= mask
    Path(path).write_bytes(data)


@pytest.mark.fault(34, "bits that rot unread")
def test_it_reads_all_sealed_segments_a_little_at_a_time(broker, scrub, clock):
    done = 0
    steps = 0
    while count := scrub.step(300):
        assert count < 300 + 2048
        done += count
        steps += 1
    assert steps > 10
    assert done == scrub.verified_bytes == sealed_bytes(broker)
    for name in broker.topics():
        assert set(verified(broker, name).values()) == {clock.now_ms}
    assert scrub.damages == {}
    # Each again when its time comes, and not before.
    assert scrub.next_due_ms() == clock.now_ms + 7 * DAY_MS
    clock.now_ms += 7 * DAY_MS - 1
    assert scrub.step(1 << 30) == 0
    clock.now_ms += 1
    assert scrub.step(1 << 30) == sealed_bytes(broker)


def test_what_was_just_written_waits(broker):
    import time

    scrub = Scrub(
        lambda: broker.topic("a").logs, bytes_per_second=1000, interval_ms=DAY_MS,
        clock=lambda: time.time_ns() // 1_000_000,
    )  # fmt: skip
    assert scrub.step(1 << 30) == 0


def test_it_remembers_over_a_restart(broker, scrub, clock, tmp_path):
    scrub.step(1 << 30)
    broker.close()
    with logstore.open(tmp_path / "data", housekeeping=False) as again:
        later = Scrub(lambda: again.topic("a").logs, bytes_per_second=1, interval_ms=7 * DAY_MS, clock=clock)
        assert later.step(1 << 30) == 0
        clock.now_ms += 8 * DAY_MS
        assert later.step(1 << 30) > 0


@pytest.mark.parametrize("where", ["record", "epoch", "index", "timeindex", "cut", "replaced"])
@pytest.mark.fault(34, "bits that rot unread")
def test_damage_is_said_once_and_kept(where, broker, scrub, clock, caplog):
    log = broker.topic("a").partition(0)
    segment, other = log.segments[0], log.segments[1]
    path = Path(segment.path)
    original = {suffix: path.with_suffix(suffix).read_bytes() for suffix in (".log", ".index", ".timeindex")}
    if where == "record":
        flip(segment.path, 70)
    elif where == "epoch":
        flip(segment.path, 15)
    elif where in ("index", "timeindex"):
        flip(str(path.with_suffix(f".{where}")), 3)
    elif where == "cut":
        path.write_bytes(original[".log"][: len(original[".log"]) // 2])
    else:
        path.write_bytes(Path(other.path).read_bytes())
    with caplog.at_level(logging.ERROR, "logstore.scrub"):
        scrub.step(1 << 30)
        clock.now_ms += 8 * DAY_MS
        scrub.step(1 << 30)
    assert len(caplog.records) == 1
    assert "logstore repair" in caplog.text
    (damage,) = scrub.damages[TopicPartition("a", 0)]
    assert damage.path == segment.path
    assert damage.summary
    assert verified(broker)[0] == 0
    assert verified(broker)[other.base_offset] > 0
    for suffix, content in original.items():
        path.with_suffix(suffix).write_bytes(content)
    clock.now_ms += 8 * DAY_MS
    scrub.step(1 << 30)
    assert scrub.damages == {}


def test_segments_that_go_while_it_reads_are_no_damage(broker, scrub, caplog):
    log = broker.topic("a").partition(0)
    assert scrub.step(200)
    with caplog.at_level(logging.ERROR, "logstore.scrub"):
        log.advance_log_start_offset(log.segments[-1].base_offset)
        for suffix in (".log", ".index", ".timeindex"):
            Path(log.path, "00000000000000000000").with_suffix(suffix).unlink(missing_ok=True)
        while scrub.step(1 << 20):
            pass
        log.truncate_to(log.log_start_offset)
        while scrub.step(1 << 20):
            pass
    assert caplog.records == []
    assert scrub.damages == {}


def test_digests_that_are_missing_are_taken(broker, scrub):
    log = broker.topic("a").partition(0)
    before = log._digests.entries()
    log._digests.forget_all()
    scrub.step(1 << 30)
    after = SegmentDigests(log.path).entries()
    assert {base: digest._replace(verified_ms=0) for base, digest in after.items()} == before


def test_it_runs_in_the_background_of_an_open_broker(tmp_path, monkeypatch):
    import threading

    stepped = threading.Event()
    monkeypatch.setattr(Scrub, "step", lambda self, budget: stepped.set() or 0)
    with logstore.open(tmp_path / "data", log_initial_task_delay_ms=0):
        assert stepped.wait(120)
    stepped.clear()
    with logstore.open(tmp_path / "data", log_initial_task_delay_ms=0, logstore_scrub_bytes_per_second=0) as broker:
        assert broker.scrub.next_due_ms() > 0
        assert not stepped.wait(0.1)
