"""A producer through the calls that users make: how many, and how long one takes."""

from __future__ import annotations

from typing import ClassVar

from benchmarks.open_topic import OpenTopic
from benchmarks.sample import WrongResultError, sample_records

RECORDS = 20_000


class Send:
    """One record a call, until all are acknowledged."""

    params: ClassVar = [["appended", "flushed"], [1, 3], ["none", "zstd"]]
    param_names: ClassVar = ["durability", "partitions", "compression"]

    def setup(self, durability: str, partitions: int, compression: str) -> None:
        self.opened = OpenTopic(durability, partitions=partitions)
        self.producer = self.opened.broker.producer(compression_type=compression)
        self.sample = sample_records(RECORDS)
        self.time_send(durability, partitions, compression)
        if sum(log.log_end_offset for log in self.opened.topic.logs) != RECORDS:
            raise WrongResultError("the producer lost records")

    def teardown(self, durability: str, partitions: int, compression: str) -> None:
        self.opened.close()

    def time_send(self, durability: str, partitions: int, compression: str) -> None:
        send = self.producer.send
        for value, key in zip(self.sample.values, self.sample.keys, strict=True):
            send("records", value, key)
        self.producer.flush()


class Latency:
    """50 records one after the other, each acknowledged before the next."""

    params: ClassVar = [["appended", "flushed"]]
    param_names: ClassVar = ["durability"]

    def setup(self, durability: str) -> None:
        self.opened = OpenTopic(durability)
        self.producer = self.opened.broker.producer()

    def teardown(self, durability: str) -> None:
        self.opened.close()

    def time_result(self, durability: str) -> None:
        for _ in range(50):
            self.producer.send("records", b"value", b"key").result()
