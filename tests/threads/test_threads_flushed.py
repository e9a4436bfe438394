"""Appends that wait for the disk: together, interrupted, while records are taken away."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import logstore
from logstore.storage.log import Log


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "t-0", durability="flushed")


def in_threads(count: int, step: Callable[[int], object]) -> list[threading.Thread]:
    threads = [threading.Thread(target=step, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    return threads


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_every_acknowledgement_is_true_and_every_record_there_once(log: Log) -> None:
    flushed: list[bool] = []

    def write(number: int) -> None:
        for turn in range(40):
            offset = log.append(b"%d %d" % (number, turn))
            flushed.append(log.flushed_offset > offset)

    with log:
        for thread in in_threads(8, write):
            thread.join()
        assert flushed == [True] * 320
        wanted = sorted(b"%d %d" % (number, turn) for number in range(8) for turn in range(40))
        assert sorted(record.value for record in log.read()) == wanted


def test_nobody_flushes_while_the_lock_is_held(log: Log) -> None:
    done: list[int] = []
    with log:
        with log._flush_lock:
            threads = in_threads(4, lambda _: done.append(log.append(b"x")))
            until(lambda: log.log_end_offset == 4)
            time.sleep(0.02)
            assert done == []
            assert log.flushed_offset == 0
        for thread in threads:
            thread.join(120)
        assert sorted(done) == [0, 1, 2, 3]
        assert log.flushed_offset == 4


def test_the_lock_has_its_turn_among_appenders(log: Log) -> None:
    stop = threading.Event()

    def write(_: int) -> None:
        while not stop.is_set():
            log.append(b"x")

    with log:
        threads = in_threads(3, write)
        for _ in range(50):
            with log._flush_lock:
                before = log.flushed_offset
                assert log.flushed_offset == before
        stop.set()
        for thread in threads:
            thread.join(120)
        assert log.flushed_offset == log.log_end_offset


def test_records_that_are_taken_away_were_not_flushed_for_those_that_follow(log: Log) -> None:
    with log:
        for _ in range(20):
            log.append(b"old")
        log.truncate_to(5)
        assert log.flushed_offset == 5
        with log._flush_lock:
            waiting = in_threads(1, lambda _: log.append(b"new"))
            until(lambda: log.log_end_offset == 6)
            assert log.flushed_offset == 5
        waiting[0].join(120)
        assert log.flushed_offset == 6


def test_truncating_and_rolling_among_appenders(log: Log) -> None:
    stop = threading.Event()
    errors: list[BaseException] = []

    def write(_: int) -> None:
        try:
            while not stop.is_set():
                log.append(b"x" * 50)
        except BaseException as error:
            errors.append(error)

    with log:
        threads = in_threads(4, write)
        for turn in range(20):
            if turn % 2:
                log.roll()
            else:
                log.truncate_to(max(log.log_end_offset - 3, 0))
            assert log.flushed_offset <= log.log_end_offset
        stop.set()
        for thread in threads:
            thread.join(120)
        assert errors == []
        assert log.flushed_offset == log.log_end_offset
        assert [record.offset for record in log.read()] == list(range(log.log_end_offset))


@pytest.mark.skipif(os.name != "posix", reason="NOT TESTED: signals to a thread are POSIX")
def test_ctrl_c_interrupts_who_waits_and_keeps_nobody_waiting(log: Log) -> None:
    with log:
        held, let_go = threading.Event(), threading.Event()

        def hold(_: int) -> None:
            with log._flush_lock:
                held.set()
                let_go.wait(120)

        def interrupt(_: int) -> None:
            until(lambda: log.log_end_offset == 2)
            time.sleep(0.02)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

        threads = in_threads(1, hold)
        held.wait(120)
        threads += in_threads(1, lambda _: log.append(b"another"))
        until(lambda: log.log_end_offset == 1)
        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # not what a library left there
        try:
            threads += in_threads(1, interrupt)
            with pytest.raises(KeyboardInterrupt):
                log.append(b"mine")
        finally:
            signal.signal(signal.SIGINT, before)
        assert log.flushed_offset == 0  # nobody has waited for the disk
        let_go.set()
        for thread in threads:
            thread.join(120)
        assert log.flushed_offset == 2
        assert log.append(b"next") == 2


@pytest.mark.skipif(os.name != "posix", reason="NOT TESTED: signals to a thread are POSIX")
def test_a_signal_handler_may_append_while_its_thread_waits(log: Log) -> None:
    offsets: list[int] = []

    def handle(_signal: int, _frame: object) -> None:
        let_go.set()
        offsets.append(log.append(b"from the handler"))

    with log:
        held, let_go = threading.Event(), threading.Event()

        def hold(_: int) -> None:
            with log._flush_lock:
                held.set()
                let_go.wait(120)

        before = signal.signal(signal.SIGUSR1, handle)
        try:
            threads = in_threads(1, hold)
            held.wait(120)

            def interrupt(_: int) -> None:
                until(lambda: log.log_end_offset == 1)
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

            threads += in_threads(1, interrupt)
            assert log.append(b"mine") == 0
        finally:
            signal.signal(signal.SIGUSR1, before)
            let_go.set()
        for thread in threads:
            thread.join(120)
        assert offsets == [1]
        assert log.flushed_offset == 2


@pytest.mark.fault(25, "signal or exception within a call")
def test_a_call_from_within_a_call_of_the_same_log_is_refused_instead_of_waiting_for_itself(log: Log) -> None:
    """As a signal handler makes it that comes in the middle of one."""
    refusals: list[str] = []

    def handle(_signal: int, _frame: object) -> None:
        headers = [("h", b"v")]
        for call in (
            lambda: log.append(b"x"), lambda: log.append(b"x", headers=headers), lambda: log.append_many([b"x"]), log.roll,
        ):
            with pytest.raises(logstore.InvalidRequestError, match="set a flag") as caught:
                call()
            refusals.append(str(caught.value))

    before = signal.signal(signal.SIGUSR1, handle)
    with log:
        try:
            log._locked(signal.raise_signal, signal.SIGUSR1)
        finally:
            signal.signal(signal.SIGUSR1, before)
        assert len(refusals) == 4
        assert log.append(b"y") == 0


@pytest.mark.parametrize("level", ["appended", "flushed"])
def test_a_finalizer_that_appends_is_served_or_refused_wherever_it_runs(level: str, tmp_path: Path) -> None:
    """Each allocation that the garbage collector sees may run one, in the middle of any call: it never waits for itself."""
    appended: list[int] = []
    this_thread = threading.get_ident()

    def collected(phase: str, _info: dict) -> None:
        if phase == "stop" and threading.get_ident() == this_thread:
            with contextlib.suppress(logstore.InvalidRequestError):
                appended.append(log.append(b"by the collector"))

    with logstore.open(tmp_path / "data", durability=level) as broker:
        log = broker.create_topic("t", flush_ms=1).partition(0)
        threshold = gc.get_threshold()
        gc.freeze()
        gc.callbacks.append(collected)
        gc.set_threshold(1, 100, 100)
        try:
            mine = []
            for number in range(200):
                mine.append({log.append(b"mine", b"key")})
                if number % 10 == 0:
                    gc.collect(0)  # interpreters differ in when they do so by themselves
        finally:
            gc.set_threshold(*threshold)
            gc.callbacks.remove(collected)
            gc.unfreeze()
        assert len(appended) > 10
        assert sorted([*appended, *set().union(*mine)]) == list(range(200 + len(appended)))
        assert [record.value for record in log.read()].count(b"mine") == 200


def test_closing_lets_everybody_go(tmp_path: Path) -> None:
    broker = logstore.open(tmp_path / "data")
    log = broker.create_topic("t").partition(0)
    outcomes: list[type] = []

    def write(_: int) -> None:
        try:
            while True:
                log.append(b"x")
        except logstore.LogstoreError as error:
            outcomes.append(type(error))

    threads = in_threads(6, write)
    until(lambda: log.flushed_offset > 20)
    broker.close()
    for thread in threads:
        thread.join(120)
    assert outcomes
    assert set(outcomes) <= {logstore.ClosedError, logstore.StorageFailureError}
    with logstore.open(tmp_path / "data") as again:
        assert not again.recovery_reports
