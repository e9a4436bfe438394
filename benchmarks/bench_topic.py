"""A topic through the calls that users make."""

from __future__ import annotations

import tempfile
from typing import ClassVar

from benchmarks.sample import WrongResultError, sample_records

RECORDS = 50_000
FLUSHED_RECORDS = 50


class Append:
    """One record a call, at each durability."""

    params: ClassVar = [["buffered", "appended", "flushed"]]
    param_names: ClassVar = ["durability"]

    def setup(self, durability: str) -> None:
        import logstore

        self.directory = tempfile.TemporaryDirectory(prefix="bench-topic-", dir=".")
        self.broker = logstore.open(self.directory.name, durability=durability)
        self.topic = self.broker.create_topic("records", retention=-1)
        self.sample = sample_records(FLUSHED_RECORDS if durability == "flushed" else RECORDS // 10)

    def teardown(self, durability: str) -> None:
        self.broker.close()
        self.directory.cleanup()

    def time_append(self, durability: str) -> None:
        append = self.topic.append
        for value, key in zip(self.sample.values, self.sample.keys, strict=True):
            append(value, key)
        self.topic.flush("appended")


class AppendMany:
    """10,000 records a call, from each kind of column."""

    params: ClassVar = [["list", "arrow"], [1, 3]]
    param_names: ClassVar = ["columns", "partitions"]

    def setup(self, columns: str, partitions: int) -> None:
        import logstore

        self.directory = tempfile.TemporaryDirectory(prefix="bench-topic-", dir=".")
        self.broker = logstore.open(self.directory.name, durability="appended")
        self.topic = self.broker.create_topic("records", partitions=partitions, retention=-1)
        sample = sample_records(10_000)
        self.values, self.keys = sample.values, sample.keys
        if columns == "arrow":
            import pyarrow as pa

            self.values = pa.array(sample.values, pa.binary())
            self.keys = pa.array(sample.keys, pa.binary())

    def teardown(self, columns: str, partitions: int) -> None:
        self.broker.close()
        self.directory.cleanup()

    def time_append_many(self, columns: str, partitions: int) -> None:
        self.topic.append_many(self.values, self.keys)


class Read:
    """Every record of a topic, as records and as columns."""

    params: ClassVar = [[1, 3]]
    param_names: ClassVar = ["partitions"]

    def setup(self, partitions: int) -> None:
        import logstore

        self.directory = tempfile.TemporaryDirectory(prefix="bench-topic-", dir=".")
        self.broker = logstore.open(self.directory.name, durability="appended")
        self.topic = self.broker.create_topic("records", partitions=partitions, retention=-1)
        sample = sample_records(RECORDS)
        self.topic.append_many(sample.values, sample.keys, timestamps=sample.timestamps)
        found = sorted((record.key, record.value) for record in self.topic.read())
        if found != sorted(zip(sample.keys, sample.values, strict=True)):
            raise WrongResultError("the topic does not give back what was appended")

    def teardown(self, partitions: int) -> None:
        self.broker.close()
        self.directory.cleanup()

    def time_read(self, partitions: int) -> None:
        for record in self.topic.read():
            record.key  # noqa: B018
            record.value  # noqa: B018

    def time_scan(self, partitions: int) -> None:
        if sum(len(batch) for batch in self.topic.scan()) != RECORDS:
            raise WrongResultError("the scan lost records")

    def peakmem_scan(self, partitions: int) -> None:
        for _batch in self.topic.scan():
            pass
