"""One record batch in memory: building, validating, iterating; and its codecs."""

from __future__ import annotations

from typing import ClassVar

from benchmarks.sample import WrongResultError, sample_records

RECORDS = 1_000


def _build(value_bytes: int, codec: int = 0) -> object:
    import logstore.records.codecs  # noqa: F401  hands the codecs to the core
    from logstore._native.record_batch import RecordBatchBuilder

    sample = sample_records(RECORDS, value_bytes)
    builder = RecordBatchBuilder()
    for value, key, timestamp in zip(sample.values, sample.keys, sample.timestamps, strict=True):
        builder.append(value, key, timestamp=timestamp)
    return builder.build(codec=codec)


class Batch:
    """A thousand records with keys of 16 bytes."""

    params: ClassVar = [[100, 1000]]
    param_names: ClassVar = ["value_bytes"]

    def setup(self, value_bytes: int) -> None:
        from logstore._native.record_batch import RecordBatch

        self.sample = sample_records(RECORDS, value_bytes)
        self.stored = bytes(_build(value_bytes))
        self.validated = RecordBatch.validated
        self.sample.check(((record.key, record.value) for record in self.validated(self.stored)), source="a batch")

    def time_build(self, value_bytes: int) -> None:
        _build(value_bytes)

    def time_validate(self, value_bytes: int) -> None:
        self.validated(self.stored)

    def time_iterate(self, value_bytes: int) -> None:
        for record in self.validated(self.stored):
            record.key  # noqa: B018
            record.value  # noqa: B018


class Codec:
    """Compressing and decompressing the payload of a thousand records of 100 bytes."""

    params: ClassVar = [["gzip", "snappy", "lz4", "zstd"]]
    param_names: ClassVar = ["codec"]

    def setup(self, codec: str) -> None:
        from logstore.records import codecs

        self.codecs = codecs
        self.codec = codecs.codec_id(codec)
        self.payload = bytes(_build(100))[61:]
        self.packed = codecs.compress(self.codec, self.payload, None)
        if self.codecs.decompress(self.codec, self.packed, len(self.payload)) != self.payload:
            raise WrongResultError(f"{codec} does not give back what it was given")

    def time_compress(self, codec: str) -> None:
        self.codecs.compress(self.codec, self.payload, None)

    def time_decompress(self, codec: str) -> None:
        self.codecs.decompress(self.codec, self.packed, len(self.payload))

    def track_ratio(self, codec: str) -> float:
        return len(self.payload) / len(self.packed)

    track_ratio.unit = "times smaller"
