"""The loop of consuming, processing and producing: everything once, whatever happens to it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

import logstore
from logstore.clients.processing import Output
from logstore.errors import InvalidConfigError, InvalidRequestError

KILLS = int(os.environ.get("LOGSTORE_PROCESS_KILLS", "4"))


@pytest.fixture
def broker(tmp_path):
    with logstore.open(tmp_path / "data", durability="appended") as broker:
        source = broker.create_topic("in", partitions=2)
        broker.create_topic("out", partitions=2)
        broker.create_topic("dead")
        for number in range(20):
            source.append(b"%d" % number, key=b"k%d" % (number % 3), headers=[("trace", b"t")])
        yield broker


def read(broker, topic="out"):
    return list(broker.topic(topic).read(isolation_level="read_committed"))


def test_each_record_is_handled_once_and_goes_on_with_its_result(broker):
    def handler(record):
        number = int(record.value)
        if number % 4 == 0:
            return None
        if number % 4 == 1:
            return b"one"
        if number % 4 == 2:
            return (b"key", b"two")
        return [Output(b"three", b"a", partition=1), record]

    done = broker.process("in", handler, to="out", group="g", batch=7, stop="end")
    assert (done.records, done.outputs, done.retries, done.dead_letters) == (20, 20, 0, 0)
    assert done.transactions >= 3
    values = sorted(record.value for record in read(broker))
    assert values == sorted([b"one", b"two", b"three"] * 5 + [b"%d" % number for number in range(3, 20, 4)])
    assert broker.process("in", handler, to="out", group="g", stop="end").records == 0
    assert [each.transactional_id for each in broker.transactions()] == ["g.0"]


def test_a_handler_that_fails_is_tried_again_and_then_given_up(broker):
    calls = []

    def handler(record):
        calls.append(record.value)
        if record.value == b"5" or (record.value == b"6" and calls.count(b"6") == 1):
            raise ValueError("no fives")
        yield b"k", record.value

    done = broker.process("in", handler, to="out", group="g", retries=2, retry_backoff=0.001, dead_letter="dead", stop="end")
    assert (done.records, done.outputs, done.retries, done.dead_letters) == (20, 19, 3, 1)
    (dead,) = read(broker, "dead")
    assert (dead.key, dead.value) == (b"k2", b"5")
    headers = dict(dead.headers)
    assert headers["trace"] == b"t"
    assert (headers["error.type"], headers["error.message"], headers["error.attempts"]) == (b"ValueError", b"no fives", b"3")
    assert headers["error.topic"] == b"in"
    assert len(read(broker)) == 19


@pytest.mark.parametrize("exactly_once", [True, False])
def test_without_a_dead_letter_topic_the_error_ends_it_and_nothing_is_lost(broker, exactly_once):
    def handler(record):
        if record.value == b"5":
            raise ValueError("no fives")
        return record.value

    how = {"to": "out", "group": "g", "stop": "end", "exactly_once": exactly_once}
    with pytest.raises(ValueError, match="no fives") as caught:
        broker.process("in", handler, retries=0, **how)
    assert "nothing of its batch is committed" in caught.value.__notes__[0]
    assert broker.process("in", lambda record: record.value, **how).records == 20
    values = sorted(int(record.value) for record in read(broker))
    assert set(values) == set(range(20))
    assert (len(values) == 20) is exactly_once


def test_threads_share_the_work(broker):
    ended = threading.Event()
    results = []

    def work():
        results.append(broker.process("in", lambda record: record.value, to="out", group="g", batch=1, stop=ended))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 120
    while len(read(broker)) < 20 and time.monotonic() < deadline:
        time.sleep(0.01)
    ended.set()
    for thread in threads:
        thread.join(120)
    assert sorted(int(record.value) for record in read(broker)) == list(range(20))
    assert sum(result.records for result in results) == 20


def test_what_can_not_be_is_refused(broker):
    how = {"group": "g", "stop": "end"}
    with pytest.raises(InvalidConfigError, match="handler is called"):
        broker.process("in", None, **how)
    with pytest.raises(InvalidConfigError, match="batch must be"):
        broker.process("in", print, batch=0, **how)
    with pytest.raises(InvalidConfigError, match="stop must be"):
        broker.process("in", print, group="g", stop=1)
    with pytest.raises(InvalidRequestError, match="no to= topic"):
        broker.process("in", lambda record: b"x", retries=0, **how)
    with pytest.raises(InvalidRequestError, match="not int"):
        broker.process("in", lambda record: 1, to="out", retries=0, **how)


PROGRAM = textwrap.dedent("""
    import sys, logstore
    with logstore.open(sys.argv[1], durability="appended") as broker:
        print("open", flush=True)
        broker.process("in", lambda record: (b"new" + record.key, record.value + b"!"), to="out", group="g",
                       batch=3, stop="end")
        print("done", flush=True)
""")


def test_killed_again_and_again_it_writes_what_one_clean_run_writes(tmp_path):
    chance = random.Random(7)
    expected = {}
    with logstore.open(tmp_path / "data", durability="appended") as broker:
        source = broker.create_topic("in", partitions=2)
        broker.create_topic("out", partitions=1)
        for number in range(30 * KILLS):
            key = b"%d" % (number % 5)
            source.append(b"%d" % number, key=key)
            expected.setdefault(b"new" + key, []).append(b"%d!" % number)
    kills = 0
    while True:
        child = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, tmp_path / "data"], stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        with child:
            assert child.stdout.readline() == "open\n"
            if kills < KILLS:
                time.sleep(chance.uniform(0, 0.06))
                child.send_signal(signal.SIGKILL)
                kills += 1
            elif child.stdout.readline() == "done\n":
                break
            else:
                raise AssertionError("the last run did not end in good order")
    found = {}
    with logstore.open(tmp_path / "data", read_only=True) as broker:
        for record in read(broker):
            found.setdefault(record.key, []).append(record.value)
    assert found == expected
