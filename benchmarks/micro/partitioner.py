"""Choosing a partition, one call a key."""

from __future__ import annotations

from typing import ClassVar

from benchmarks.sample import sample_records

RECORDS = 1_000


class Partitioner:
    """A thousand keys of 16 bytes, 12 partitions."""

    params: ClassVar = [["murmur2", "crc32", "round_robin"]]
    param_names: ClassVar = ["partitioner"]

    def setup(self, partitioner: str) -> None:
        from logstore._native.partitioner import Partitioner

        self.keys = sample_records(RECORDS).keys
        self.choose = Partitioner(partitioner, 12).partition_for

    def time_partition_for(self, partitioner: str) -> None:
        choose = self.choose
        for key in self.keys:
            choose(key)
