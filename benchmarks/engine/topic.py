"""A topic through the calls that users make: appending one record and many, reading and scanning."""

from __future__ import annotations

from typing import ClassVar

from benchmarks.open_topic import OpenTopic
from benchmarks.sample import WrongResultError, sample_records

RECORDS = 50_000
FLUSHED_RECORDS = 50


class Append:
    """One record a call, at each durability."""

    params: ClassVar = [["buffered", "appended", "flushed"], [100, 1000]]
    param_names: ClassVar = ["durability", "value_bytes"]

    def setup(self, durability: str, value_bytes: int) -> None:
        self.opened = OpenTopic(durability)
        count = FLUSHED_RECORDS if durability == "flushed" else RECORDS // 10
        self.sample = sample_records(count, value_bytes)

    def teardown(self, durability: str, value_bytes: int) -> None:
        self.opened.close()

    def time_append(self, durability: str, value_bytes: int) -> None:
        append = self.opened.topic.append
        for value, key in zip(self.sample.values, self.sample.keys, strict=True):
            append(value, key)
        self.opened.topic.flush("appended")


class AppendMany:
    """10,000 records a call, from each kind of column."""

    params: ClassVar = [["list", "arrow", "numpy"], [1, 3], [100, 1000]]
    param_names: ClassVar = ["columns", "partitions", "value_bytes"]

    def setup(self, columns: str, partitions: int, value_bytes: int) -> None:
        self.opened = OpenTopic(partitions=partitions)
        sample = sample_records(10_000, value_bytes)
        self.values, self.keys = sample.values, sample.keys
        if columns == "arrow":
            import pyarrow as pa

            self.values, self.keys = (pa.array(column, pa.binary()) for column in (sample.values, sample.keys))
        elif columns == "numpy":
            import numpy as np

            self.values, self.keys = np.array(sample.values), np.array(sample.keys)

    def teardown(self, columns: str, partitions: int, value_bytes: int) -> None:
        self.opened.close()

    def time_append_many(self, columns: str, partitions: int, value_bytes: int) -> None:
        self.opened.topic.append_many(self.values, self.keys)


class Read:
    """Every record of a topic, as records and as columns."""

    params: ClassVar = [[1, 3], ["uncompressed", "zstd", "lz4"]]
    param_names: ClassVar = ["partitions", "compression"]

    def setup(self, partitions: int, compression: str) -> None:
        self.opened = OpenTopic(partitions=partitions, compression_type=compression)
        self.topic = self.opened.topic
        sample = sample_records(RECORDS)
        self.topic.append_many(sample.values, sample.keys, timestamps=sample.timestamps)
        found = sorted((record.key, record.value) for record in self.topic.read())
        if found != sorted(zip(sample.keys, sample.values, strict=True)):
            raise WrongResultError("the topic does not give back what was appended")

    def teardown(self, partitions: int, compression: str) -> None:
        self.opened.close()

    def time_read(self, partitions: int, compression: str) -> None:
        for record in self.topic.read():
            record.key  # noqa: B018
            record.value  # noqa: B018

    def time_scan(self, partitions: int, compression: str) -> None:
        if sum(len(batch) for batch in self.topic.scan()) != RECORDS:
            raise WrongResultError("the scan lost records")

    def peakmem_scan(self, partitions: int, compression: str) -> None:
        for _batch in self.topic.scan():
            pass
