"""What a reader process is told of a directory that another process writes, and what it looks at then."""

from __future__ import annotations

import sys

import pytest

from logstore.storage.log import Log
from logstore.storage.waiting import watch_directories

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: directory watches; inotify is Linux's")


@pytest.fixture
def pair(tmp_path):
    writer = Log(tmp_path / "t-0", durability="appended")
    writer.append(b"0")
    reader = Log(tmp_path / "t-0", read_only=True)
    watch = watch_directories([reader.path])
    yield writer, reader, watch
    watch.close()
    reader.close()
    writer.close()


def test_appends_change_nothing_but_a_log_file(pair):
    writer, reader, watch = pair
    writer.append(b"1")
    assert watch.wait(5) == {reader.path: False}
    assert watch.wait(0) == {}
    assert reader.log_end_offset == 1
    assert reader.catch_up()
    assert reader.log_end_offset == 2
    assert not reader.catch_up()


def test_whatever_else_changes_is_more(pair):
    writer, reader, watch = pair
    writer.append(b"1")
    writer.advance_log_start_offset(1)  # in the checkpoint
    assert watch.wait(5) == {reader.path: True}
    assert reader.refresh()
    assert (reader.log_start_offset, reader.log_end_offset) == (1, 2)


def test_a_log_that_was_cut_is_looked_at_as_a_whole(pair):
    writer, reader, _ = pair
    writer.append_many([b"1", b"2", b"3"])
    assert reader.catch_up()
    writer.truncate_to(1)
    assert reader.catch_up()
    assert reader.log_end_offset == 1
    writer.append(b"again")
    assert reader.catch_up()
    assert [record.value for record in reader.read()] == [b"0", b"again"]


def test_readers_of_committed_records_are_told_of_transactions_as_well(pair):
    writer, reader, _ = pair
    assert [record.value for record in reader.read(isolation_level="read_committed")] == [b"0"]
    writer.append(b"1")
    assert reader.catch_up()
    assert reader.last_stable_offset == 2


def test_a_wake_comes_without_a_change(pair):
    _, _, watch = pair
    watch.wake()
    assert watch.wait(5) == {}
