"""What a log does now and then: rolling, opening, recovering, flushing for many at once."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import ClassVar

from benchmarks.open_topic import OpenTopic
from benchmarks.sample import WrongResultError, sample_records

FLUSHED_RECORDS = 20
NEVER = 2**63 - 1


class Roll:
    """A new segment after each record."""

    number = 20
    repeat = (2, 5, 5.0)

    def setup(self) -> None:
        self.opened = OpenTopic()

    def teardown(self) -> None:
        self.opened.close()

    def time_roll(self) -> None:
        self.opened.topic.append(b"value")
        self.opened.log.roll()


class Open:
    """Opening after a clean close must not depend on the size."""

    params: ClassVar = [[1_000, 200_000]]
    param_names: ClassVar = ["records"]

    def setup(self, records: int) -> None:
        self.opened = OpenTopic()
        sample = sample_records(1_000)
        for _ in range(records // 1_000):
            self.opened.topic.append_many(sample.values, sample.keys)
        self.opened.reopen()

    def teardown(self, records: int) -> None:
        self.opened.close()

    def time_reopen(self, records: int) -> None:
        self.opened.reopen()
        if self.opened.log.log_end_offset != records:
            raise WrongResultError("opening lost or found records")


class Recover:
    """Opening a copy of the files of an open log, as a killed process leaves them: nothing was flushed."""

    params: ClassVar = [[1, 16]]
    param_names: ClassVar = ["mib"]
    number = 1
    repeat = (2, 5, 5.0)

    def setup(self, mib: int) -> None:
        import logstore

        self.open = logstore.open
        self.opened = OpenTopic(flush_ms=NEVER)
        sample = sample_records(8_000)
        for _ in range(mib):
            self.opened.topic.append_many(sample.values, sample.keys)
        self.records = mib * len(sample)
        self.copy = Path(self.opened.path) / "killed"
        shutil.copytree(self.opened.path, self.copy)

    def teardown(self, mib: int) -> None:
        self.opened.close()

    def time_open(self, mib: int) -> None:
        with self.open(self.copy) as broker:
            if broker.topic("records").logs[0].log_end_offset != self.records:
                raise WrongResultError("opening lost or found records")


class GroupCommit:
    """Threads that append flushed records at the same time, 20 each: who waits together shares an fdatasync."""

    params: ClassVar = [[1, 2, 4, 8]]
    param_names: ClassVar = ["threads"]

    def setup(self, threads: int) -> None:
        self.opened = OpenTopic("flushed")

    def teardown(self, threads: int) -> None:
        self.opened.close()

    def time_append(self, threads: int) -> None:
        def write() -> None:
            for _ in range(FLUSHED_RECORDS):
                self.opened.topic.append(b"x" * 100)

        before = self.opened.log.log_end_offset
        writers = [threading.Thread(target=write) for _ in range(threads)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        if self.opened.log.log_end_offset != before + threads * FLUSHED_RECORDS:
            raise WrongResultError("a thread's records are missing")
