"""Waking a reader ahead of what it waits for: a courtesy that is never taken for a notification, and never costs one."""

from __future__ import annotations

import gc
import random
import threading
import time

import pytest

import logstore
from logstore._native.wakeup import Wakeup


def test_what_is_announced_is_no_notification():
    wakeup = Wakeup()
    assert wakeup._announce()
    assert not wakeup.is_set
    assert not wakeup.wait(0)
    assert not wakeup.wait(0.01)
    assert not wakeup.clear()


def test_nobody_waits_who_is_notified_already():
    wakeup = Wakeup()
    wakeup.notify()
    assert not wakeup._announce()
    assert wakeup.wait(0)
    assert wakeup._announce()


def test_a_sleeper_sleeps_on_where_nothing_comes():
    wakeup = Wakeup()
    outcome = []

    def sleep():
        started = time.monotonic()
        outcome.append(wakeup.wait(0.3))
        outcome.append(time.monotonic() - started)

    sleeper = threading.Thread(target=sleep)
    sleeper.start()
    while sleeper.is_alive():
        wakeup._announce()
        time.sleep(0.005)
    sleeper.join()
    assert outcome[0] is False
    assert outcome[1] >= 0.3


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_announced_or_not_no_notification_is_lost(seed):
    """Announcements that come true at once, late, or never; each notification has to arrive, and nothing else."""
    rounds = 1500
    wakeup = Wakeup()
    taken = threading.Semaphore(0)
    failures = []
    notified = 0
    choose = random.Random(seed)

    def sleep():
        for number in range(rounds):
            if not wakeup.wait(120):
                failures.append(("lost", number))
            elif notified <= number:
                failures.append(("made up", number))
            taken.release()

    sleeper = threading.Thread(target=sleep)
    sleeper.start()
    for number in range(rounds):
        for _ in range(choose.randrange(3)):
            wakeup._announce()
            if choose.random() < 0.3:
                time.sleep(choose.choice((0, 0.00002, 0.0001)))
        notified = number + 1
        wakeup.notify()
        if choose.random() < 0.2:
            wakeup._announce()
        assert taken.acquire(timeout=120), number
    sleeper.join()
    assert not failures


def test_an_announcement_outlives_nobody():
    for notify in (False, True):
        wakeup = Wakeup()
        sleeper = threading.Thread(target=wakeup.wait, args=(0.02,))
        sleeper.start()
        while sleeper.is_alive():
            wakeup._announce()
        if notify:
            wakeup.notify()
        del wakeup
        gc.collect()


def test_several_readers_all_get_it(tmp_path):
    """One of them is woken early, the others by the notification."""
    rounds = 200
    with logstore.open(tmp_path / "data", durability="appended") as broker:
        orders = broker.create_topic("orders")
        seen = [threading.Semaphore(0) for _ in range(3)]
        values = [[], [], []]

        def read(which):
            with broker.consumer("orders", consumer_timeout=120) as consumer:
                for _ in range(rounds):
                    values[which].append(next(consumer).value)
                    seen[which].release()

        readers = [threading.Thread(target=read, args=(which,)) for which in range(3)]
        for reader in readers:
            reader.start()
        for number in range(rounds):
            orders.append(b"%d" % number)
            assert all(each.acquire(timeout=120) for each in seen)
        for reader in readers:
            reader.join(120)
    assert values == [[b"%d" % number for number in range(rounds)]] * 3
