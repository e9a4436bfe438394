"""One partition's log: foreign batches in, raw batches out, look-ups, opening."""

from __future__ import annotations

import tempfile
from typing import Any, ClassVar

from benchmarks.sample import WrongResultError, sample_records

RECORDS = 50_000
LOOK_UPS = 1_000


class _Stored:
    """A directory with one topic of one partition that holds the sample."""

    def setup(self) -> None:
        import logstore

        self.directory = tempfile.TemporaryDirectory(prefix="bench-log-", dir=".")
        self.broker = logstore.open(self.directory.name, durability="appended")
        self.topic = self.broker.create_topic("records", retention=-1)
        self.sample = sample_records(RECORDS)
        self.topic.append_many(self.sample.values, self.sample.keys, timestamps=self.sample.timestamps)
        self.log = self.topic.logs[0]
        if self.log.log_end_offset != RECORDS:
            raise WrongResultError(f"{self.log.log_end_offset} records stored of {RECORDS}")

    def teardown(self) -> None:
        self.broker.close()
        self.directory.cleanup()


class Append(_Stored):
    """A whole batch as a leader takes it from a client."""

    def setup(self) -> None:
        super().setup()
        self.batch = bytes(self.log.fetch(0, 1)[0])

    def time_append_as_leader(self) -> None:
        self.log.append_as_leader(self.batch)


class Fetch(_Stored):
    """Raw batches, as they go to another process."""

    def time_fetch_all(self) -> None:
        offset = 0
        while batches := self.log.fetch(offset, 1 << 20):
            offset = batches[-1].last_offset + 1
        if offset != RECORDS:
            raise WrongResultError(f"the last offset fetched is {offset - 1}")

    def time_fetch_at_random(self) -> None:
        for offset in self.sample.some_offsets(LOOK_UPS):
            self.log.fetch(offset, 1)

    def time_offset_for_timestamp(self) -> None:
        look_up = self.topic.offset_for_timestamp
        for timestamp in self.sample.some_timestamps(LOOK_UPS):
            look_up(timestamp)


class Open:
    """Opening after a clean close must not depend on the size."""

    params: ClassVar = [[1_000, 200_000]]
    param_names: ClassVar = ["records"]
    directory: Any

    def setup(self, records: int) -> None:
        import logstore

        self.directory = tempfile.TemporaryDirectory(prefix="bench-open-", dir=".")
        self.open = logstore.open
        sample = sample_records(1_000)
        with self.open(self.directory.name, durability="appended") as broker:
            topic = broker.create_topic("records", retention=-1)
            for _ in range(records // 1_000):
                topic.append_many(sample.values, sample.keys)

    def teardown(self, records: int) -> None:
        self.directory.cleanup()

    def time_open(self, records: int) -> None:
        with self.open(self.directory.name) as broker:
            if broker.topic("records").logs[0].log_end_offset != records:
                raise WrongResultError("opening lost or found records")
