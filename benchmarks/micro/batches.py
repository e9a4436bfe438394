"""One record batch in memory: building, validating, iterating."""

from __future__ import annotations

from typing import ClassVar

from benchmarks.sample import sample_records

RECORDS = 1_000


def build(value_bytes: int) -> object:
    """A batch of a thousand records of the sample."""
    from logstore._native.record_batch_builder import RecordBatchBuilder

    sample = sample_records(RECORDS, value_bytes)
    builder = RecordBatchBuilder()
    for value, key, timestamp in zip(sample.values, sample.keys, sample.timestamps, strict=True):
        builder.append(value, key, timestamp=timestamp)
    return builder.build()


class Batch:
    """A thousand records with keys of 16 bytes."""

    params: ClassVar = [[100, 1000]]
    param_names: ClassVar = ["value_bytes"]

    def setup(self, value_bytes: int) -> None:
        from logstore._native.record_batch import RecordBatch

        self.sample = sample_records(RECORDS, value_bytes)
        self.stored = bytes(build(value_bytes))
        self.validated = RecordBatch.validated
        self.sample.check(((record.key, record.value) for record in self.validated(self.stored)), source="a batch")

    def time_build(self, value_bytes: int) -> None:
        build(value_bytes)

    def time_validate(self, value_bytes: int) -> None:
        self.validated(self.stored)

    def time_iterate(self, value_bytes: int) -> None:
        for record in self.validated(self.stored):
            record.key  # noqa: B018
            record.value  # noqa: B018
