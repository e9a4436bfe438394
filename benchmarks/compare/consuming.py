"""logstore's consumer: reading through it, and waking up in it."""

from __future__ import annotations

import os
import statistics
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.compare.measure import Measured, Place, Stopwatch
from benchmarks.compare.subject import PASSES, TOPIC, created, write_all
from benchmarks.sample import WrongResultError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WAKE_UPS = 300
# Long enough for both threads to be asleep.
PAUSE_SECONDS = 0.0005


def _iterate(broker: Any) -> int:
    count = 0
    with broker.consumer(TOPIC, consumer_timeout=0) as consumer:
        for record in consumer:
            record.key  # noqa: B018
            record.value  # noqa: B018
            count += 1
    return count


def _poll(broker: Any) -> int:
    count = 0
    with broker.consumer(TOPIC) as consumer:
        while records := consumer.poll():
            for record in records:
                record.key  # noqa: B018
                record.value  # noqa: B018
                count += 1
    return count


def _columns(broker: Any) -> int:
    return sum(_columns_once(broker) for _ in range(PASSES))


def _columns_once(broker: Any) -> int:
    count = 0
    with broker.consumer(TOPIC) as consumer:
        while found := consumer.fetch_columns():
            for batch in found:
                _seen = (batch.timestamps, batch.key_starts, batch.key_bytes, batch.value_starts, batch.value_bytes)
                count += len(batch.offsets)
    return count


def _consumed(read: Callable[[Any], int], passes: int = 1) -> Callable[[Place], Any]:
    @contextmanager
    def start(place: Place) -> Iterator[Callable[[], Measured]]:
        sample = place.sample
        broker, _topic = write_all(place.kept / "log", sample)

        def one_round() -> Measured:
            with Stopwatch() as watch:
                count = read(broker)
            if count != passes * len(sample):
                raise WrongResultError(f"logstore's consumer: {count} records of {passes * len(sample)}")
            return watch.measured(count)

        with broker:
            with broker.consumer(TOPIC) as consumer:
                records = consumer.poll(max_records=len(sample))
            sample.check(((record.key, record.value) for record in records), source="logstore's consumer")
            yield one_round

    return start


iterate = _consumed(_iterate)
poll = _consumed(_poll)
columns = _consumed(_columns, PASSES)


def _woken(waits: Callable[[], object], wakes: Callable[[], object]) -> Measured:
    """The time from before each wake-up until the thread that slept has what it slept for; the median of many."""
    taken_ns: list[int] = []
    started_ns = 0
    done = threading.Semaphore(0)

    def sleep() -> None:
        for _ in range(WAKE_UPS):
            waits()
            taken_ns.append(time.perf_counter_ns() - started_ns)
            done.release()

    sleeper = threading.Thread(target=sleep)
    cpu_started_ns = time.process_time_ns()
    sleeper.start()
    for _ in range(WAKE_UPS):
        time.sleep(PAUSE_SECONDS)
        started_ns = time.perf_counter_ns()
        wakes()
        done.acquire()
    sleeper.join()
    return median_of(taken_ns, time.process_time_ns() - cpu_started_ns)


def median_of(taken_ns: list[int], cpu_ns: int) -> Measured:
    """A round whose figure is the median of these times: one late wake-up in a hundred is the scheduler's."""
    return Measured(len(taken_ns), round(statistics.median(taken_ns) * len(taken_ns)), cpu_ns)


@contextmanager
def wake_consumer(place: Place) -> Iterator[Callable[[], Measured]]:
    """From before topic.append, in the page cache, until a consumer that waited holds the value."""
    broker, topic = created(place.kept / "log", "appended")
    with broker, broker.consumer(TOPIC) as consumer:
        value = place.sample.values[0]
        yield lambda: _woken(lambda: next(consumer).value, lambda: topic.append(value))


@contextmanager
def wake_eventfd(place: Place) -> Iterator[Callable[[], Measured]]:
    """From before os.eventfd_write until os.eventfd_read returns in another thread."""
    descriptor = os.eventfd(0)
    try:
        yield lambda: _woken(lambda: os.eventfd_read(descriptor), lambda: os.eventfd_write(descriptor, 1))
    finally:
        os.close(descriptor)
