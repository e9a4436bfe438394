"""One partition's log: whole batches in and out, look-ups by offset and by time."""

from __future__ import annotations

from typing import ClassVar

from benchmarks.open_topic import OpenTopic
from benchmarks.sample import WrongResultError, sample_records

RECORDS = 50_000
LOOK_UPS = 1_000


class _Stored:
    """A topic of one partition that holds the sample, in batches of so many bytes."""

    params: ClassVar = [[4096, 65_536]]
    param_names: ClassVar = ["batch_bytes"]

    def setup(self, batch_bytes: int) -> None:
        self.opened = OpenTopic(**{"logstore.batch.bytes": batch_bytes, "index.interval.bytes": batch_bytes // 4})
        self.topic, self.log = self.opened.topic, self.opened.log
        self.sample = sample_records(RECORDS)
        self.topic.append_many(self.sample.values, self.sample.keys, timestamps=self.sample.timestamps)
        if self.log.log_end_offset != RECORDS:
            raise WrongResultError(f"{self.log.log_end_offset} records stored of {RECORDS}")

    def teardown(self, batch_bytes: int) -> None:
        self.opened.close()


class WholeBatch(_Stored):
    """A batch as a leader takes it from a client, and batches as they go to another process."""

    def setup(self, batch_bytes: int) -> None:
        super().setup(batch_bytes)
        self.batch = bytes(self.log.fetch(0, 1)[0])

    def time_append_as_leader(self, batch_bytes: int) -> None:
        self.log.append_as_leader(self.batch)

    def time_fetch_all(self, batch_bytes: int) -> None:
        offset = 0
        while offset < RECORDS:
            offset = self.log.fetch(offset, 1 << 20)[-1].last_offset + 1


class LookUp(_Stored):
    """A thousand look-ups at random."""

    def setup(self, batch_bytes: int) -> None:
        super().setup(batch_bytes)
        self.offsets = self.sample.some_offsets(LOOK_UPS)
        self.timestamps = self.sample.some_timestamps(LOOK_UPS)
        for offset in self.offsets:
            if self.topic.get(offset).value != self.sample.values[offset]:
                raise WrongResultError(f"offset {offset} holds another record")

    def time_get(self, batch_bytes: int) -> None:
        get = self.topic.get
        for offset in self.offsets:
            get(offset)

    def time_by_offset(self, batch_bytes: int) -> None:
        read = self.topic.read
        for offset in self.offsets:
            next(read(offset, stop=offset + 1))

    def time_by_time(self, batch_bytes: int) -> None:
        look_up = self.topic.offset_for_timestamp
        for timestamp in self.timestamps:
            look_up(timestamp)
