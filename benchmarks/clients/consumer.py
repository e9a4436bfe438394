"""A consumer through the calls that users make."""

from __future__ import annotations

import asyncio
import threading
from typing import ClassVar

from benchmarks.open_topic import OpenTopic
from benchmarks.sample import WrongResultError, sample_records

RECORDS = 50_000
WAKE_UPS = 200


class Consume:
    """Every record of a topic of several partitions, as records and as columns."""

    params: ClassVar = [[1, 3, 100]]
    param_names: ClassVar = ["partitions"]

    def setup(self, partitions: int) -> None:
        self.opened = OpenTopic(partitions=partitions)
        self.broker, topic = self.opened.broker, self.opened.topic
        sample = sample_records(RECORDS)
        topic.append_many(sample.values, sample.keys, timestamps=sample.timestamps)
        with self.broker.consumer("records", consumer_timeout=0) as consumer:
            found = sorted((record.key, record.value) for record in consumer)
        if found != sorted(zip(sample.keys, sample.values, strict=True)):
            raise WrongResultError("the consumer does not hand out what was appended")

    def teardown(self, partitions: int) -> None:
        self.opened.close()

    def time_iterate(self, partitions: int) -> None:
        with self.broker.consumer("records", consumer_timeout=0) as consumer:
            for record in consumer:
                record.key  # noqa: B018
                record.value  # noqa: B018

    def time_poll(self, partitions: int) -> None:
        with self.broker.consumer("records") as consumer:
            while consumer.poll():
                pass

    def time_fetch_columns(self, partitions: int) -> None:
        with self.broker.consumer("records") as consumer:
            while consumer.fetch_columns():
                pass

    def time_iterate_async(self, partitions: int) -> None:
        async def read() -> None:
            async with self.broker.consumer("records", consumer_timeout=0) as consumer:
                async for record in consumer:
                    record.key  # noqa: B018
                    record.value  # noqa: B018

        asyncio.run(read())


class WakeUp:
    """Appends, each of which a consumer in another thread waits for."""

    def setup(self) -> None:
        self.opened = OpenTopic()
        self.broker, self.topic = self.opened.broker, self.opened.topic

    def teardown(self) -> None:
        self.opened.close()

    def time_wake_up(self) -> None:
        seen = threading.Semaphore(0)
        with self.broker.consumer("records", auto_offset_reset="latest") as consumer:

            def read() -> None:
                for _ in range(WAKE_UPS):
                    next(consumer)
                    seen.release()

            reader = threading.Thread(target=read)
            reader.start()
            for _ in range(WAKE_UPS):
                self.topic.append(b"x" * 100)
                seen.acquire()
            reader.join()
