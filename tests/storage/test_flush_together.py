"""Flushes of several logs side by side: all are through when it returns, and what one can't do keeps none from it."""

from __future__ import annotations

import _thread
import errno
import threading

import pytest

import logstore
from logstore.errors import StorageFailureError
from logstore.storage.flush_together import THREADS_MAX, flush_together


@pytest.fixture
def logs(tmp_path):
    with logstore.open(tmp_path / "data", durability="appended") as broker:
        logs = broker.create_topic("t", partitions=THREADS_MAX + 4).logs
        for log in logs:
            log.append(b"a")
        yield logs


def places(logs):
    return [(log, log.log_end_offset) for log in logs]


def test_all_are_flushed(logs):
    flush_together(places(logs))
    assert [log.flushed_offset for log in logs] == [1] * len(logs)
    flush_together([])


def test_they_run_side_by_side(logs, monkeypatch):
    together = threading.Barrier(3, timeout=10)  # which one after the other would never pass
    real = type(logs[0]).flush_until

    def flush_until(log, offset):
        together.wait()
        real(log, offset)

    monkeypatch.setattr(type(logs[0]), "flush_until", flush_until)
    flush_together(places(logs[:3]))
    assert [log.flushed_offset for log in logs[:4]] == [1, 1, 1, 0]


def test_what_is_on_disk_needs_no_thread(logs, monkeypatch):
    flush_together(places(logs[:2]))
    monkeypatch.setattr(_thread, "start_new_thread", None)
    flush_together(places(logs[:3]))
    assert logs[2].flushed_offset == 1


def test_one_that_fails_is_told_when_the_others_are_through(logs, monkeypatch):
    real = type(logs[0]).flush_until

    def flush_until(log, offset):
        if log.partition == 1:
            raise StorageFailureError(log.path, "fdatasync", errno.EIO)
        real(log, offset)

    monkeypatch.setattr(type(logs[0]), "flush_until", flush_until)
    with pytest.raises(StorageFailureError, match="t-1"):
        flush_together(places(logs))
    assert [log.flushed_offset for log in logs] == [1, 0, *[1] * (len(logs) - 2)]


def test_without_threads_one_does_it_all(logs, monkeypatch):
    def refuse(*arguments):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    flush_together(places(logs))
    assert [log.flushed_offset for log in logs] == [1] * len(logs)
