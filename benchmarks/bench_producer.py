"""A producer through the calls that users make."""

from __future__ import annotations

import tempfile
from typing import ClassVar

from benchmarks.sample import WrongResultError, sample_records

RECORDS = 20_000


class Send:
    """One record a call, until all are acknowledged."""

    params: ClassVar = [["appended", "flushed"], [1, 3], [None, "zstd"]]
    param_names: ClassVar = ["durability", "partitions", "compression"]

    def setup(self, durability: str, partitions: int, compression: str | None) -> None:
        import logstore

        self.directory = tempfile.TemporaryDirectory(prefix="bench-producer-", dir=".")
        self.broker = logstore.open(self.directory.name, durability=durability)
        self.topic = self.broker.create_topic("records", partitions=partitions, retention=-1)
        self.producer = self.broker.producer(compression_type=compression)
        self.sample = sample_records(RECORDS)
        self.time_send(durability, partitions, compression)
        if sum(log.log_end_offset for log in self.topic.logs) != RECORDS:
            raise WrongResultError("the producer lost records")

    def teardown(self, durability: str, partitions: int, compression: str | None) -> None:
        self.broker.close()
        self.directory.cleanup()

    def time_send(self, durability: str, partitions: int, compression: str | None) -> None:
        send = self.producer.send
        for value, key in zip(self.sample.values, self.sample.keys, strict=True):
            send("records", value, key)
        self.producer.flush()


class SendAndWait:
    """One record after the other, each acknowledged before the next."""

    params: ClassVar = [["appended", "flushed"]]
    param_names: ClassVar = ["durability"]

    def setup(self, durability: str) -> None:
        import logstore

        self.directory = tempfile.TemporaryDirectory(prefix="bench-producer-", dir=".")
        self.broker = logstore.open(self.directory.name, durability=durability)
        self.broker.create_topic("records", retention=-1)
        self.producer = self.broker.producer()

    def teardown(self, durability: str) -> None:
        self.broker.close()
        self.directory.cleanup()

    def time_result(self, durability: str) -> None:
        for _ in range(50):
            self.producer.send("records", b"value", b"key").result()
