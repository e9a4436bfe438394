"""The thread that runs what is due: in order, on time, whatever a step raises, and never in the way of closing."""

from __future__ import annotations

import threading
import time

from logstore.storage.flush_scheduler import FlushScheduler

SECONDS = 120


def test_steps_run_in_order_of_their_time_also_an_earlier_one_that_comes_later():
    scheduler = FlushScheduler()
    ran: list[str] = []
    done = threading.Event()
    scheduler.schedule(10_000_000, lambda: ran.append("never"))
    scheduler.schedule(60, lambda: (ran.append("late"), done.set()))
    scheduler.schedule(1, lambda: ran.append("early"))
    assert done.wait(SECONDS)
    scheduler.close()
    assert ran == ["early", "late"]


def test_steps_from_many_threads_all_run():
    scheduler = FlushScheduler()
    ran: list[int] = []
    done = threading.Semaphore(0)

    def schedule(number: int) -> None:
        for step in range(50):
            scheduler.schedule(step % 3, lambda: (ran.append(number), done.release()))

    threads = [threading.Thread(target=schedule, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for _ in range(200):
        assert done.acquire(timeout=SECONDS)
    scheduler.close()
    assert len(ran) == 200


def test_a_step_may_raise_want_for_memory_or_schedule_another():
    scheduler = FlushScheduler()
    done = threading.Event()

    def without_memory() -> None:
        raise MemoryError

    scheduler.schedule(0, without_memory)
    scheduler.schedule(0, lambda: 1 // 0)
    scheduler.schedule(0, lambda: scheduler.schedule(0, done.set))
    assert done.wait(SECONDS)
    scheduler.close()


def test_want_for_memory_between_steps_leaves_no_lock_held(monkeypatch):
    """Wherever the thread's own Python code can't be called, it goes on, and closing does not wait for it."""
    scheduler = FlushScheduler()
    failures = iter([True] * 20)
    seconds_left = scheduler._seconds_left

    def without_memory() -> float | None:
        if next(failures, False):
            raise MemoryError
        return seconds_left()

    monkeypatch.setattr(scheduler, "_seconds_left", without_memory)
    done = threading.Event()
    scheduler.schedule(0, done.set)
    assert done.wait(SECONDS)
    assert next(failures, None) is None
    scheduler.close()
    assert scheduler._lock.acquire(blocking=False)
    assert not scheduler._running.locked()


def test_closing_ends_the_thread_at_once_and_drops_what_is_not_due():
    scheduler = FlushScheduler()
    ran: list[int] = []
    scheduler.schedule(10_000_000, lambda: ran.append(1))
    began = time.monotonic()
    scheduler.close()
    scheduler.close()
    assert time.monotonic() - began < SECONDS
    scheduler.schedule(0, lambda: ran.append(2))
    assert not scheduler._running.locked()
    assert ran == []
