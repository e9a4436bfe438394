"""A log whose start had moved past all it holds, killed behind a roll: it opens as often as one likes."""

import os

import pytest

from logstore.storage.config import TopicConfig
from logstore.storage.log import Log

SETTINGS = TopicConfig(segment_bytes=1024)


def kill(log: Log) -> None:
    """Leaves the files as they are, as a killed process does."""
    log._forked()
    log._let_go()


@pytest.mark.fault(17, "crash in compaction, retention, roll, truncation, repair, backup, recovery, close")
def test_a_segment_removed_at_open_is_not_missed_at_the_next(tmp_path):
    path = tmp_path / "orders-0"
    with Log(path, SETTINGS, durability="appended") as log:
        log.append_many([b"x"] * 3)
        log.advance_log_start_offset(3)
    log = Log(path, SETTINGS, durability="appended")
    log.roll()
    kill(log)
    for _ in range(3):
        log = Log(path, SETTINGS, durability="appended")
        assert log.damage is None
        assert (log.log_start_offset, log.log_end_offset) == (3, 3)
        assert "00000000000000000000.log" not in os.listdir(path)
        kill(log)
    with Log(path, SETTINGS) as log:
        assert log.append(b"y") == 3
