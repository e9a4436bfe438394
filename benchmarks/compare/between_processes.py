"""Waking a reader in another process: the time from before the append until that process holds the value.

Both processes read the same monotonic clock; the reader sends its time back through a pipe, which is also how the writer
knows that it may go on.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.compare.consuming import PAUSE_SECONDS, WAKE_UPS, median_of
from benchmarks.compare.subject import TOPIC, created
from benchmarks.sample import WrongResultError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.compare.measure import Measured, Place

STAMP = struct.Struct("=qq")
ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def _reader(*arguments: str, pass_fds: Sequence[int] = ()) -> Iterator[Callable[[], int]]:
    """A process that runs `main`; what is yielded waits for its next wake-up, and gives the time of it."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, *arguments],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
        pass_fds=pass_fds,
        bufsize=0,
    )
    assert process.stdout is not None
    pipe = process.stdout

    def next_stamp() -> int:
        data = pipe.read(STAMP.size)
        if data is None or len(data) != STAMP.size:
            raise WrongResultError("the process that waits has ended")
        stamp, was_right = STAMP.unpack(data)
        if not was_right:
            raise WrongResultError("the process that waits got another value")
        return int(stamp)

    try:
        next_stamp()  # it is there, and waits
        yield next_stamp
    finally:
        process.kill()
        process.wait()
        pipe.close()


def _woken(wakes: Callable[[], object], next_stamp: Callable[[], int]) -> Measured:
    taken_ns = []
    cpu_started_ns = time.process_time_ns()
    for _ in range(WAKE_UPS):
        time.sleep(PAUSE_SECONDS)
        started_ns = time.perf_counter_ns()
        wakes()
        taken_ns.append(next_stamp() - started_ns)
    return median_of(taken_ns, time.process_time_ns() - cpu_started_ns)


def wake(how: str) -> Callable[[Place], Any]:
    """topic.append, in the page cache, until another process's ``consumer`` or ``read`` that waited has the value."""

    @contextmanager
    def start(place: Place) -> Iterator[Callable[[], Measured]]:
        directory = place.kept / "log"
        broker, topic = created(directory, "appended")
        value = place.sample.values[0]
        topic.append(value)
        with broker, _reader(how, str(directory), value.hex()) as next_stamp:
            yield lambda: _woken(lambda: topic.append(value), next_stamp)

    return start


@contextmanager
def wake_eventfd(place: Place) -> Iterator[Callable[[], Measured]]:
    """os.eventfd_write until os.eventfd_read returns in another process."""
    descriptor = os.eventfd(0)
    try:
        with _reader("eventfd", str(descriptor), "", pass_fds=[descriptor]) as next_stamp:
            yield lambda: _woken(lambda: os.eventfd_write(descriptor, 1), next_stamp)
    finally:
        os.close(descriptor)


def main(how: str, where: str, value: str) -> None:
    """Wait, and write the time of each wake-up to standard output."""
    wanted = bytes.fromhex(value)
    wait = _waiting_on_eventfd(int(where)) if how == "eventfd" else _waiting_on_log(how, where, wanted)
    os.write(1, STAMP.pack(0, True))
    while True:
        was_right = wait()
        os.write(1, STAMP.pack(time.perf_counter_ns(), was_right))


def _waiting_on_eventfd(descriptor: int) -> Callable[[], bool]:
    return lambda: os.eventfd_read(descriptor) == 1


def _waiting_on_log(how: str, directory: str, wanted: bytes) -> Callable[[], bool]:
    import logstore

    broker = logstore.open(directory, read_only=True)
    if how == "consumer":
        records: Any = broker.consumer(TOPIC, auto_offset_reset="earliest")
    else:
        records = broker.topic(TOPIC).read(follow=True)
    next(records)
    return lambda: next(records).value == wanted


if __name__ == "__main__":
    main(*sys.argv[1:])
