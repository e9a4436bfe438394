"""A signal's handler that raises as any function of a step begins, one after the other (which is where the interpreter runs
handlers): the log goes on, and keeps what it had."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from logstore.errors import StorageFailureError
from logstore.storage.config import TopicConfig
from logstore.storage.log import Log

SETTINGS = {"segment_bytes": 4096, "index_interval_bytes": 100}
STORAGE = os.sep + os.path.join("logstore", "storage") + os.sep


class Interrupted(BaseException):
    """As KeyboardInterrupt: nobody expects it."""


class NoThread:
    """Background steps that never run: what is interrupted is the caller alone."""

    def schedule(self, delay_ms: float, step: Callable[[], None]) -> None: ...
    schedule_urgent = schedule
    def close(self) -> None: ...
    def forget(self) -> None: ...


def interrupted(step: Callable[[], object], at: int) -> bool:
    """Runs a step with `Interrupted` raised in the ``at``-th call within the storage layer; False if it has fewer."""
    calls = 0

    def trace(frame, event, argument):
        nonlocal calls
        if STORAGE in frame.f_code.co_filename:
            calls += 1
            if calls == at:
                raise Interrupted

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        step()
    except Interrupted:
        return True
    finally:
        sys.settrace(before)
    return calls >= at


STEPS: dict[str, Callable[[Log], object]] = {
    "roll": lambda log: log.roll(),
    "append that rolls": lambda log: log.append_many([b"rolls" * 300] * 2),
    "flush": lambda log: log.flush(),
    "move the start": lambda log: log.advance_log_start_offset(log.log_start_offset + 9),
    "truncate": lambda log: log.truncate_to(log.log_end_offset - 5),
}


def contents(log: Log) -> list[tuple[int, bytes | None]]:
    return [(record.offset, record.value) for record in log.read()]


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.fault(25, "signal or exception within a call")
def test_an_interrupt_in_any_call(name: str, work: Path) -> None:
    at = 0
    while True:
        at += 1
        folder = work / str(at)
        log = Log(
            folder / "t-0", TopicConfig(**SETTINGS), durability="appended",
            scheduler=NoThread(), deletion_scheduler=NoThread(),
        )  # fmt: skip
        log.append_many([b"%d" % number * 40 for number in range(25)])
        log.append(b"one")
        was = contents(log)
        is_interrupted = interrupted(lambda log=log: STEPS[name](log), at)
        found = contents(log)
        # Before or after; of records appended or removed by the step itself, all or nothing.
        assert found in (was, was[: len(found)], was[len(was) - len(found) :]) or found[: len(was)] == was, f"call {at}"
        try:
            offset = log.append(b"next")
        except StorageFailureError:
            assert not log.is_writable, f"call {at}"
            found = contents(log)
        else:
            assert offset == log.log_end_offset - 1
            log.append_many([b"more" * 100] * 5)
            found = contents(log)
            expected = range(log.log_start_offset, log.log_end_offset)
            assert [place for place, _ in found] == list(expected), f"call {at}"
            assert (offset, b"next") in found
        shutil.copytree(folder, killed := work / f"{at}.killed")
        log.close()
        for place in (folder, killed):
            with Log(place / "t-0", TopicConfig(**SETTINGS)) as log:
                assert log.damage is None, f"call {at}"
                kept = contents(log)
                # What was asked to go may go with the next open.
                asked = {"move the start": found[9:], "truncate": was[:-5]}.get(name)
                assert kept == found or (is_interrupted and kept == asked), f"call {at}, {place.name}"
            shutil.rmtree(place)
        if not is_interrupted:
            break
    assert at > 5
