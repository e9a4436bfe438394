"""Compaction against copying the same bytes with their CRC checked, and appends beside it.

    python -m benchmarks.engine.compaction [RECORDS [KEYS]]
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import threading
import time
from typing import Any

from benchmarks.sample import WrongResultError

RECORDS = 400_000
RECORDS_PER_KEY = 10
VALUE_BYTES = 84  # with a key of 12 bytes and what the format adds, about 100
CHUNK_BYTES = 1 << 20
ROUNDS = 5
MEMORY_KEYS = (1_000, 10_000, 100_000, 200_000, 400_000)


def make_log(directory: str, records: int, keys: int, **settings: Any) -> Any:
    """A compacted log with one sealed segment that holds each key ``records / keys`` times, in no order."""
    import random

    from logstore.storage.config import TopicConfig
    from logstore.storage.log import Log

    chance = random.Random(20_261_122)
    config = TopicConfig({"cleanup.policy": "compact", "flush.ms": 2**63 - 1}, **settings)
    log = Log(os.path.join(directory, "t-0"), config, durability="appended")
    for start in range(0, records, 100_000):
        count = min(100_000, records - start)
        log.append_many(
            [b"%084d" % number for number in range(start, start + count)],
            [b"key-%08d" % chance.randrange(keys) for _ in range(count)],
        )
    log.flush()
    log.roll()
    return log


def copy_checked(source: str, target: str, *, sync: bool = False) -> float:
    """Seconds to read a file, check a CRC over every byte, and write them elsewhere: what moving the bytes costs at
    least."""
    from logstore._native.checksum import crc32c

    started = time.perf_counter()
    with open(source, "rb", buffering=0) as file, open(target, "wb", buffering=0) as out:
        buffer = bytearray(CHUNK_BYTES)
        crc = 0
        while size := file.readinto(buffer):
            view = memoryview(buffer)[:size]
            crc ^= crc32c(view)
            out.write(view)
        if sync:
            os.fdatasync(out.fileno())
    seconds = time.perf_counter() - started
    os.unlink(target)
    if not crc:
        raise WrongResultError("the CRC of all chunks is 0")
    return seconds


def append_rate(log: Any, seconds: float, while_alive: threading.Thread | None = None) -> float:
    """Records a second, in calls of 100, of the time that this thread was not kept waiting for a CPU: what else the
    machine is at does not count, a wait for a lock or the disk does."""
    values, keys = [b"x" * 100] * 100, [b"key-%08d" % number for number in range(100)]
    waited = waited_for_cpu()
    started = time.perf_counter()
    count = 0
    while time.perf_counter() - started < seconds and (while_alive is None or while_alive.is_alive()):
        log.append_many(values, keys)
        count += 100
    return count / (time.perf_counter() - started - (waited_for_cpu() - waited))


def waited_for_cpu() -> float:
    """Seconds that the calling thread was ready to run and did not; 0 where the system does not say."""
    try:
        with open(f"/proc/self/task/{threading.get_native_id()}/schedstat") as file:
            return int(file.read().split()[1]) / 1e9
    except OSError:
        return 0.0


class Compact:
    """The whole of `Log.compact`: two passes, indexes, syncs, the swap."""

    number = 1
    repeat = (3, 5, 30.0)

    def setup(self) -> None:
        self.directory = tempfile.TemporaryDirectory(prefix="bench-compaction-", dir=".")
        self.log = make_log(self.directory.name, RECORDS, RECORDS // RECORDS_PER_KEY)

    def teardown(self) -> None:
        self.log.close()
        self.directory.cleanup()

    def time_compact(self) -> None:
        report = self.log.compact()
        if report.outcome != "compacted" or report.records_read != RECORDS:
            raise WrongResultError(f"{report}")


def appends_beside(records: int, keys: int) -> float:
    """The rate of appends beside a compaction, as a share of that before and after it."""
    with tempfile.TemporaryDirectory(prefix="bench-compaction-", dir=".") as directory:
        log = make_log(directory, records, keys)
        append_rate(log, 0.1)  # the first ones are slower
        before = append_rate(log, 0.3)
        log.roll()
        thread = threading.Thread(target=log.compact, kwargs={"threads": 1})  # as housekeeping does it
        thread.start()
        beside = append_rate(log, 600.0, thread)
        thread.join()
        after = append_rate(log, 0.3)
        log.close()
    return 2 * beside / (before + after)


def bytes_a_key(keys: int) -> float:
    """Memory of the first pass, with all that goes with it."""
    with tempfile.TemporaryDirectory(prefix="bench-compaction-", dir=".") as directory:
        log = make_log(directory, 10 * keys, keys)
        report = log.compact()
        log.close()
    return float(report.memory_bytes / report.keys_count)


def main(records: int, keys: int) -> None:
    """Prints one table; all sides in the same run."""
    copies, synced_copies = [], []
    compactions: dict[int, list[float]] = {1: [], 2: []}
    report = None
    for threads in [1, 2] * ROUNDS:
        with tempfile.TemporaryDirectory(prefix="bench-compaction-", dir=".") as directory:
            log = make_log(directory, records, keys)
            size = sum(segment.size_bytes for segment in log.segments)
            sources = [segment.path for segment in log.segments[:-1]]
            target = os.path.join(directory, "copy")
            copies.append(sum(copy_checked(source, target) for source in sources))
            synced_copies.append(sum(copy_checked(source, target, sync=True) for source in sources))
            started = time.perf_counter()
            report = log.compact(threads=threads)
            compactions[threads].append(time.perf_counter() - started)
            log.close()
    beside = [appends_beside(records, keys) for _ in range(ROUNDS)]
    assert report is not None
    copy, synced, one, two = map(statistics.median, (copies, synced_copies, compactions[1], compactions[2]))
    print(f"{records} records, {keys} keys, {size / 1e6:.0f} MB; medians of {ROUNDS} rounds of each")
    for name, seconds in (
        ("copy, CRC checked", copy), ("the same, synced", synced), ("compaction, one thread", one), ("two threads", two),
    ):
        print(f"{name:22} {seconds:7.3f} s {size / seconds / 1e6:7.0f} MB/s")
    print(f"compaction at {copy / two:.0%} of a copy, {synced / two:.0%} of a synced one; with one thread at "
          f"{copy / one:.0%} and {synced / one:.0%}")
    print(f"memory {report.memory_bytes / 1e6:.1f} MB, {report.memory_bytes / report.keys_count:.1f} bytes a key")
    print(f"appends beside a compaction keep {statistics.median(beside):.0%} of their rate: "
          + ", ".join(f"{ratio:.0%}" for ratio in beside))
    print("bytes a key, 10 records each: "
          + ", ".join(f"{bytes_a_key(count):.1f} at {count:,}" for count in MEMORY_KEYS))


if __name__ == "__main__":
    given = [int(argument) for argument in sys.argv[1:]]
    total = given[0] if given else 5 * RECORDS
    main(total, given[1] if len(given) > 1 else total // RECORDS_PER_KEY)
