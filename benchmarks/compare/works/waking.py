"""From an append to the hands of a reader that waits."""

from __future__ import annotations

from benchmarks.compare import between_processes, consuming
from benchmarks.compare.measure import Contestant, Work
from benchmarks.compare.targets import Target, times

__all__ = ["works"]

CONSUMER = "topic.append -> consumer"
READER = "topic.append -> topic.read(follow=True)"
EVENTFD = "Python: eventfd"


def works() -> list[Work]:
    """In a process, and between two."""
    return [
        Work(
            "wake-up",
            "Append a record, until a consumer that slept in another thread holds its value; the median of 300",
            "wake-ups",
            (
                Contestant(CONSUMER, "logstore", consuming.wake_consumer),
                Contestant(EVENTFD, "limit", consuming.wake_eventfd),
            ),
            targets=(Target(CONSUMER, times(1 / 1.5, EVENTFD)),),
        ),
        Work(
            "wake-up-process",
            "Append a record, until a reader that slept in another process holds its value; the median of 300",
            "wake-ups",
            (
                Contestant(READER, "logstore", between_processes.wake("read")),
                Contestant(CONSUMER, "logstore", between_processes.wake("consumer")),
                Contestant(EVENTFD, "limit", between_processes.wake_eventfd),
            ),
            targets=(Target(READER, times(1 / 2, EVENTFD)),),
        ),
    ]
