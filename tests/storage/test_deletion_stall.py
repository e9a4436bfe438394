"""Nobody waits for the names of deleted segments: neither who appends, nor who cuts the log or closes it meanwhile."""

from __future__ import annotations

import os
import threading

import pytest

from logstore.errors import ClosedError
from logstore.storage import segment_deletion
from logstore.storage.config import TopicConfig
from logstore.storage.log import Log

SETTINGS = TopicConfig(segment_bytes=1024, file_delete_delay_ms=60_000)


@pytest.fixture
def log(tmp_path):
    with Log(tmp_path / "orders-0", SETTINGS, durability="flushed") as log:
        for _ in range(6):
            log.append(b"x" * 900)
        assert len(log.segments) == 6
        yield log


@pytest.fixture
def at_the_first_name(monkeypatch):
    """Has a step done, in a thread of its own, after the first rename: it must end before the next one."""
    steps = []
    rename = os.replace

    def rename_and_step(*paths):
        rename(*paths)
        if steps and paths[0].endswith(".log"):
            done = threading.Thread(target=steps.pop(), daemon=True)
            done.start()
            done.join(120)
            assert not done.is_alive(), "it waits for the renames"

    monkeypatch.setattr(segment_deletion.os, "replace", rename_and_step)
    return steps.append


def logs_of(log):
    return sorted(name for name in os.listdir(log.path) if name.endswith(".log"))


def test_appends_are_flushed_while_segments_lose_their_names(log, at_the_first_name):
    at_the_first_name(lambda: log.append(b"meanwhile"))
    log.advance_log_start_offset(5)
    assert (log.log_start_offset, log.flushed_offset) == (5, 7)
    assert len(logs_of(log)) == len(log.segments)


def test_readers_know_the_start_before_any_name_goes(log, at_the_first_name):
    seen = []
    at_the_first_name(lambda: seen.append((log.log_start_offset, len(log.segments))))
    log.advance_log_start_offset(4)
    assert seen == [(4, 2)]


def test_a_log_that_is_cut_below_its_start_gets_no_file_of_before(log, monkeypatch):
    """Segments are gone, but for their names, when the log is cut to where one of them began."""
    with monkeypatch.context() as patch:
        patch.setattr(type(log._deleted_files), "take_names", lambda files, directory: [])
        log.advance_log_start_offset(4)
    assert len(logs_of(log)) == 6
    log.truncate_to(2)
    assert logs_of(log) == ["00000000000000000002.log"]
    assert log.append(b"again") == 2
    log.close()
    with Log(log.path, SETTINGS) as again:
        assert again.damage is None
        assert [(record.offset, record.value) for record in again.read()] == [(2, b"again")]


def test_what_could_not_be_renamed_goes_with_the_next_deletion(log, monkeypatch):
    from logstore.errors import StorageFailureError

    def refuse(*paths):
        raise PermissionError(13, "not now")

    with monkeypatch.context() as patch:
        patch.setattr(segment_deletion.os, "replace", refuse)
        with pytest.raises(StorageFailureError):
            log.advance_log_start_offset(3)
    assert log.log_start_offset == 3
    log.advance_log_start_offset(4)
    assert len(logs_of(log)) == 2


def test_a_close_waits_for_one_segment_alone(log, at_the_first_name, monkeypatch):
    closed = threading.Event()
    close = log._deleted_files.close

    def close_and_tell():
        close()
        closed.set()

    monkeypatch.setattr(log._deleted_files, "close", close_and_tell)
    rename = segment_deletion._rename_files
    threads = []

    def rename_one(*arguments):
        renamed = rename(*arguments)
        if not threads:
            threads.append(threading.Thread(target=log.close))
            threads[0].start()
            while log.is_open:
                threading.Event().wait(0.001)
        return renamed

    monkeypatch.setattr(segment_deletion, "_rename_files", rename_one)
    log.advance_log_start_offset(5)
    threads[0].join(120)
    assert closed.is_set()
    with pytest.raises(ClosedError):
        log.append(b"late")
    with Log(log.path, SETTINGS) as again:
        assert (again.log_start_offset, again.log_end_offset) == (5, 6)
        assert len(logs_of(again)) == 1
