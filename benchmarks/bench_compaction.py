"""Compaction against copying the same bytes with their CRC checked, and appends beside it.

    python -m benchmarks.bench_compaction [RECORDS [KEYS]]
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


def copy_checked(source: str, target: str) -> None:
    """Reads a file, checks a CRC over every byte, and writes them elsewhere: what moving the bytes costs at least."""
    from logstore._native.checksum import crc32c

    with open(source, "rb", buffering=0) as file, open(target, "wb", buffering=0) as out:
        buffer = bytearray(CHUNK_BYTES)
        crc = 0
        while size := file.readinto(buffer):
            view = memoryview(buffer)[:size]
            crc ^= crc32c(view)
            out.write(view)
    if not crc:
        raise WrongResultError("the CRC of all chunks is 0")


def append_rate(log: Any, seconds: float, while_alive: threading.Thread | None = None) -> float:
    """Records a second, in calls of 100."""
    values, keys = [b"x" * 100] * 100, [b"key-%08d" % number for number in range(100)]
    started = time.perf_counter()
    count = 0
    while time.perf_counter() - started < seconds and (while_alive is None or while_alive.is_alive()):
        log.append_many(values, keys)
        count += 100
    return count / (time.perf_counter() - started)


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


def main(records: int, keys: int) -> None:
    """Prints one table; both sides in the same run."""
    rounds = 3
    copies, compactions, beside = [], [], []
    report = None
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix="bench-compaction-", dir=".") as directory:
            log = make_log(directory, records, keys)
            source = log.segments[0].path
            size = sum(segment.size_bytes for segment in log.segments)
            for _ in range(2):
                started = time.perf_counter()
                for index, segment in enumerate(log.segments[:-1]):
                    copy_checked(segment.path, os.path.join(directory, f"copy-{index}"))
                copies.append(time.perf_counter() - started)
                for index in range(len(log.segments) - 1):
                    os.unlink(os.path.join(directory, f"copy-{index}"))
            started = time.perf_counter()
            report = log.compact()
            compactions.append(time.perf_counter() - started)
            log.close()
            del source
    with tempfile.TemporaryDirectory(prefix="bench-compaction-", dir=".") as directory:
        log = make_log(directory, records, keys)
        alone = append_rate(log, 1.0)
        for _ in range(2):
            log.roll()
            thread = threading.Thread(target=log.compact)
            thread.start()
            beside.append(append_rate(log, 5.0, thread))
            thread.join()
        alone = statistics.median([alone, append_rate(log, 1.0), append_rate(log, 1.0)])
        log.close()
    assert report is not None
    copy, compaction = min(copies), min(compactions)
    print(f"{records} records, {keys} keys, {size / 1e6:.0f} MB; the best of {rounds} rounds")
    print(f"copy with CRC, no sync   {copy:.3f} s   {size / copy / 1e6:7.0f} MB/s")
    print(f"compaction, synced       {compaction:.3f} s   {size / compaction / 1e6:7.0f} MB/s   {copy / compaction:.0%} of it")
    print(f"memory of the map        {report.memory_bytes / 1e6:.1f} MB, {report.memory_bytes / report.keys_count:.1f} bytes a key")
    print(f"appends                  {alone:,.0f}/s alone, beside a compaction {statistics.median(beside):,.0f}/s "
          f"({statistics.median(beside) / alone:.0%})")


if __name__ == "__main__":
    given = [int(argument) for argument in sys.argv[1:]]
    main(given[0] if given else 5 * RECORDS, given[1] if len(given) > 1 else (given[0] if given else 5 * RECORDS) // RECORDS_PER_KEY)
