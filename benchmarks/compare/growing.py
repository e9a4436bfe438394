"""The same work with more partitions and on longer logs, each in a process of its own: time, files, memory.

A child does the work and prints what it found, so that memory is that of one number of partitions alone.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.compare.measure import Measured, Place, Stopwatch
from benchmarks.sample import WrongResultError, sample_records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.sample import Sample

ROOT = Path(__file__).resolve().parents[2]
APPENDS = 40_000
LOOK_UPS = 5_000
WARM_UP_A_PARTITION = 20
TOPIC = "records"
SMALL_BATCHES = {"logstore.batch.bytes": 4096, "index.interval.bytes": 1024}
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def with_partitions(count: int, what: str) -> Callable[[Place], Any]:
    """``time``: each of 40,000 appends, the partitions in turn; ``files``: open at the end; ``mib``: resident then."""

    @contextmanager
    def start(place: Place) -> Iterator[Callable[[], Measured]]:
        def one_round() -> Measured:
            found = in_child("partitions", place.fresh(), count, place.sample.value_bytes)
            if what == "time":
                return Measured(APPENDS, found["ns"], found["cpu_ns"])
            return Measured(1, amount=found[what])

        yield one_round

    return start


def on_log_of(mib: int, what: str) -> Callable[[Place], Any]:
    """``append``: each of 40,000 appends to a log of this size; ``look-up``: by offset, anywhere in it."""

    @contextmanager
    def start(place: Place) -> Iterator[Callable[[], Measured]]:
        directory = place.kept / "log"
        in_child("fill", directory, mib, place.sample.value_bytes)

        def one_round() -> Measured:
            found = in_child(what, directory, mib, place.sample.value_bytes)
            return Measured(found["operations"], found["ns"], found["cpu_ns"])

        yield one_round
        shutil.rmtree(directory)

    return start


def in_child(what: str, directory: Path, number: int, value_bytes: int = 100) -> dict[str, Any]:
    """What a new process finds: ``partitions`` (so many), ``fill`` (so many MiB), then ``append`` or ``look-up``."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, "-m", __name__, what, str(directory), str(number), str(value_bytes)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise WrongResultError(f"the process that measures {what} failed:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES / (1 << 20)


def _partitions(directory: Path, count: int, sample: Sample) -> dict[str, Any]:
    import logstore

    with logstore.open(directory, durability="appended") as broker:
        topic = broker.create_topic(TOPIC, partitions=count, retention=-1)
        append = topic.append
        for number in range(WARM_UP_A_PARTITION * count):
            append(sample.values[number % len(sample)], partition=number % count)
        with Stopwatch() as watch:
            for number in range(APPENDS):
                append(sample.values[number % len(sample)], partition=number % count)
        found = {
            "ns": watch.nanoseconds,
            "cpu_ns": watch.cpu_nanoseconds,
            "files": len(os.listdir("/proc/self/fd")),
            "mib": _resident_mib(),
        }
        if sum(log.log_end_offset for log in topic.logs) != APPENDS + WARM_UP_A_PARTITION * count:
            raise WrongResultError("not all records are in their partitions")
    return found


def _fill(directory: Path, mib: int, sample: Sample) -> dict[str, Any]:
    import logstore

    with logstore.open(directory, durability="appended") as broker:
        topic = broker.create_topic(TOPIC, retention=-1, **SMALL_BATCHES)
        for _ in range(max(1, (mib << 20) // (len(sample) * sample.record_bytes))):
            topic.append_many(sample.values, sample.keys)
    return {}


def _append(directory: Path, sample: Sample) -> dict[str, Any]:
    import logstore

    with logstore.open(directory, durability="appended") as broker:
        topic = broker.topic(TOPIC)
        append = topic.append
        for value in sample.values[:1000]:
            append(value)
        before = topic.logs[0].log_end_offset
        with Stopwatch() as watch:
            for number in range(APPENDS):
                append(sample.values[number % len(sample)])
        if topic.logs[0].log_end_offset != before + APPENDS:
            raise WrongResultError("not all records are in the log")
        topic.logs[0].truncate_to(before - 1000)  # the next round finds the log as it was
    return {"operations": APPENDS, "ns": watch.nanoseconds, "cpu_ns": watch.cpu_nanoseconds}


def _look_up(directory: Path, sample: Sample) -> dict[str, Any]:
    import random

    import logstore

    with logstore.open(directory, read_only=True) as broker:
        topic = broker.topic(TOPIC)
        chance = random.Random(time.time_ns())
        end = len(sample) * (topic.logs[0].log_end_offset // len(sample))
        wanted = [chance.randrange(end) for _ in range(LOOK_UPS)]
        get = topic.get
        for offset in wanted:
            get(offset)  # pages and indexes are in memory then: the software is measured
        chance.shuffle(wanted)
        with Stopwatch() as watch:
            found = [get(offset).value for offset in wanted]
        if found != [sample.values[offset % len(sample)] for offset in wanted]:
            raise WrongResultError("an offset holds another record")
    return {"operations": LOOK_UPS, "ns": watch.nanoseconds, "cpu_ns": watch.cpu_nanoseconds}


def main(what: str, directory: str, number: str, value_bytes: str) -> None:
    """Do it, and print what was found as JSON."""
    sample = sample_records(10_000, int(value_bytes))
    where = Path(directory)
    if what == "partitions":
        found = _partitions(where, int(number), sample)
    elif what == "fill":
        found = _fill(where, int(number), sample)
    else:
        found = (_append if what == "append" else _look_up)(where, sample)
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
