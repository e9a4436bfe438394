"""The lock of a log's writer: who finds it taken gets it later, each in turn, and nobody is forgotten."""

from __future__ import annotations

import sys
import threading
import time

import pytest

import logstore
from logstore.storage.config import TopicConfig
from logstore.storage.log import Log

THREADS = 6
RECORDS = 40
PATIENCE_S = 60  # a thread that nobody calls would sleep for ever


@pytest.fixture
def log(tmp_path):
    with Log(tmp_path / "orders-0", TopicConfig(logstore_linger_ms="1h"), durability="appended") as log:
        yield log


def in_threads(work, count=THREADS):
    """Starts them; `join_all` of what is returned fails where one has not come to its end."""
    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    return threads


def join_all(threads):
    deadline = time.monotonic() + PATIENCE_S
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0))
    assert not [thread.name for thread in threads if thread.is_alive()]


def test_all_who_wait_get_it_once_it_is_free(log):
    is_held, let_go = threading.Event(), threading.Event()
    offsets = []

    def hold(_):
        log._locked(lambda: (is_held.set(), let_go.wait(PATIENCE_S)))

    def append(number):
        for i in range(RECORDS):
            offsets.append(log.append(b"%d-%d" % (number, i), durability=("buffered", "appended")[number % 2]))

    holder = in_threads(hold, 1)
    assert is_held.wait(PATIENCE_S)
    waiting = in_threads(append)
    time.sleep(0.05)  # for most of them to arrive; the outcome is the same without
    assert offsets == []
    let_go.set()
    join_all(holder + waiting)
    assert sorted(offsets) == list(range(THREADS * RECORDS))


def test_nobody_is_forgotten_where_others_come_first(log):
    """Switches after each few instructions: those who were called find it taken again, and have to be called again."""
    inside = []
    done = []

    def work(number):
        for i in range(RECORDS):
            log._locked(step, number)
            log.append_many([b"%d-%d" % (number, i)] * 3)
        done.append(number)

    def step(number):
        inside.append(number)
        time.sleep(0)
        assert inside == [number]
        inside.clear()

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        join_all(in_threads(work))
    finally:
        sys.setswitchinterval(before)
    assert sorted(done) == list(range(THREADS))
    records = [record.value for record in log.read()]
    assert len(records) == THREADS * RECORDS * 3
    assert all(records[at] == records[at + 1] == records[at + 2] for at in range(0, len(records), 3))


def test_nobody_starves_where_others_never_stop(log):
    """Who writes lets go of the GIL just while it has the lock, so that others would find it taken each time they look."""
    ends = threading.Event()
    turns = []

    def write(number):
        while not ends.is_set():
            for _ in range(1000):
                log.append(b"%d" % number)

    def take_turns(_):
        for turn in range(50):
            log._locked(turns.append, turn)

    writers = in_threads(write, 3)
    try:
        join_all(in_threads(take_turns, 2))
    finally:
        ends.set()
        join_all(writers)
    assert sorted(turns) == sorted([*range(50)] * 2)


def test_it_is_free_after_an_error(log):
    with pytest.raises(ZeroDivisionError):
        log._locked(lambda: 1 // 0)
    with pytest.raises(TypeError):
        log._locked(lambda: len(1))
    thread = in_threads(lambda _: log.append(b"x"), 1)
    join_all(thread)
    assert log.log_end_offset == 1


def test_single_records_keep_out_of_a_batch_that_is_being_encoded(tmp_path):
    """`append_many` encodes with the lock, but without the GIL, into the batch that single `buffered` records join."""
    values = [b"%d" % i * 20 for i in range(20_000)]  # long enough for the other thread to come in
    settings = {"logstore_batch_bytes": 8 << 20, "max_message_bytes": 8 << 20, "logstore_linger_ms": "1h"}
    with logstore.open(tmp_path / "data", durability="buffered") as broker:
        topic = broker.create_topic("orders", **settings, flush_ms=2**63 - 1)
        ends = threading.Event()
        offsets, ranges = [], []

        def append(_):
            while not ends.is_set():
                offsets.extend([topic.append(b"single") for _ in range(100)])

        def append_many(_):
            try:
                for _ in range(5):
                    ranges.append(topic.append_many(values)[0])
            finally:
                ends.set()

        join_all(in_threads(append, 1) + in_threads(append_many, 1))
        topic.flush("appended")
        found = [record.value for record in topic.read()]
    assert len(found) == len(offsets) + sum(map(len, ranges))
    assert sorted(offsets) == [offset for offset, value in enumerate(found) if value == b"single"]
    for taken in ranges:
        assert found[taken.start:taken.stop] == values
