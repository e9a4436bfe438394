"""Threads that append to one topic, in the page cache."""

from __future__ import annotations

import threading
from typing import ClassVar

from benchmarks.open_topic import OpenTopic
from benchmarks.sample import WrongResultError

RECORDS_EACH = 2_000


class Threads:
    """2,000 records a thread, to a partition of its own or all to one."""

    params: ClassVar = [[1, 2, 4, 8], ["one partition", "a partition each"]]
    param_names: ClassVar = ["threads", "where"]

    def setup(self, threads: int, where: str) -> None:
        self.opened = OpenTopic(partitions=8)

    def teardown(self, threads: int, where: str) -> None:
        self.opened.close()

    def time_append(self, threads: int, where: str) -> None:
        def write(partition: int) -> None:
            append = self.opened.topic.append
            for _ in range(RECORDS_EACH):
                append(b"x" * 100, partition=partition)

        before = sum(log.log_end_offset for log in self.opened.topic.logs)
        writers = [
            threading.Thread(target=write, args=(number if where == "a partition each" else 0,)) for number in range(threads)
        ]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        if sum(log.log_end_offset for log in self.opened.topic.logs) != before + threads * RECORDS_EACH:
            raise WrongResultError("a thread's records are missing")
