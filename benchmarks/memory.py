"""Resident memory while a large log is written and read: ``python -m benchmarks.memory --gib 10``.

Writes records of 16 + 1,000 bytes with ``append_many`` and ``append``, reads them record by record and as columns,
and prints the largest resident set seen in each step, and how far it is above that of the interpreter with its modules
loaded. Exit status 1 above the limit.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

RECORD_BYTES = 1016
CHUNK_COUNT = 10_000


def resident_mib() -> float:
    """Resident set now, in MiB; the largest ever where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return pages * resource.getpagesize() / 2**20


class Peak:
    """Watches the resident set from a thread of its own."""

    def __init__(self) -> None:
        self.mib = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            self.mib = max(self.mib, resident_mib())

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        self._thread.join()
        self.mib = max(self.mib, resident_mib())


def main() -> int:
    import logstore

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=float, default=1.0, help="how much to write (default 1)")
    parser.add_argument("--limit-mib", type=float, default=200.0, help="largest growth allowed (default 200)")
    parser.add_argument("--dir", default=".", help="where the data goes (default here)")
    arguments = parser.parse_args()
    count = int(arguments.gib * 2**30 / RECORD_BYTES)
    directory = tempfile.mkdtemp(prefix="logstore-memory-", dir=arguments.dir)
    values = [bytes([i % 251]) * (RECORD_BYTES - 16) for i in range(CHUNK_COUNT)]
    keys = [f"key-{i:012d}".encode() for i in range(CHUNK_COUNT)]
    highest = 0.0
    try:
        with logstore.open(directory, durability="appended") as broker:
            topic = broker.create_topic("memory", retention=-1)
            for batch in topic.scan():  # loads numpy before the first measurement
                len(batch)
            start_mib = resident_mib()
            print(f"start            {start_mib:8.1f} MiB resident")

            def write() -> None:
                for _ in range(count // CHUNK_COUNT):
                    topic.append_many(values, keys)

            def write_each() -> None:
                for i in range(min(count // 10, 500_000)):
                    topic.append(values[i % CHUNK_COUNT], keys[i % CHUNK_COUNT], durability="buffered")

            def read() -> None:
                assert sum(len(record.value) > 0 for record in topic.read()) >= count // CHUNK_COUNT * CHUNK_COUNT

            def scan() -> None:
                assert sum(int(batch.value_bytes.size) for batch in topic.scan()) > 0

            for name, step in (("append_many", write), ("append", write_each), ("read", read), ("scan", scan)):
                began = time.perf_counter()
                with Peak() as peak:
                    step()
                highest = max(highest, peak.mib - start_mib)
                print(
                    f"{name:<16} {peak.mib:8.1f} MiB resident, {peak.mib - start_mib:+7.1f}; log "
                    f"{topic.logs[0].size_bytes / 2**30:6.2f} GiB, {time.perf_counter() - began:6.1f} s"
                )
    finally:
        shutil.rmtree(directory)
    print(f"highest growth   {highest:8.1f} MiB, limit {arguments.limit_mib:.0f}")
    return highest > arguments.limit_mib


if __name__ == "__main__":
    sys.exit(main())
