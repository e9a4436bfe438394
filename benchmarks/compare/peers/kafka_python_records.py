"""kafka-python's record batches, in Python with a compiled CRC-32C: the same format, without a log around it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.compare import subject
from benchmarks.compare.measure import Measured, Place, Stopwatch
from benchmarks.sample import WrongResultError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

BATCH_BYTES = 64 << 10
MAGIC = 2


@contextmanager
def append_buffered(place: Place) -> Iterator[Callable[[], Measured]]:
    """One builder call a record; each full batch is built (header, CRC) and written to a file."""
    from kafka.record.memory_records import MemoryRecordsBuilder

    sample = place.sample
    timestamp = sample.timestamps[0]

    def one_round() -> Measured:
        path = place.fresh() / "records"
        with open(path, "wb", buffering=0) as file, Stopwatch() as watch:
            builder = MemoryRecordsBuilder(MAGIC, 0, BATCH_BYTES)
            append = builder.append
            for value, key in zip(sample.values, sample.keys, strict=True):
                if append(timestamp, key, value) is None:  # the batch is full
                    builder.close()
                    file.write(builder.buffer())
                    builder = MemoryRecordsBuilder(MAGIC, 0, BATCH_BYTES)
                    append = builder.append
                    append(timestamp, key, value)
            builder.close()
            file.write(builder.buffer())
        pairs = ((record.key, record.value) for batch in _batches([path]) for record in batch)
        sample.check(pairs, source="kafka-python")
        return watch.measured(len(sample))

    yield one_round


@contextmanager
def iterate(place: Place) -> Iterator[Callable[[], Measured]]:
    """Its reader over the segment files that logstore wrote, CRC checked; key and value of each record."""
    sample = place.sample
    paths = subject.write_segments(place.kept / "log", sample)
    pairs = ((record.key, record.value) for batch in _batches(paths) for record in batch)
    sample.check(pairs, source="kafka-python")

    def one_round() -> Measured:
        count = 0
        with Stopwatch() as watch:
            for batch in _batches(paths):
                for record in batch:
                    record.key  # noqa: B018
                    record.value  # noqa: B018
                    count += 1
        if count != len(sample):
            raise WrongResultError(f"kafka-python: {count} records of {len(sample)}")
        return watch.measured(count)

    yield one_round


def _batches(paths: Iterable[Path]) -> Iterator[Any]:
    from kafka.record import MemoryRecords

    for path in paths:
        records = MemoryRecords(path.read_bytes())
        while (batch := records.next_batch()) is not None:
            if not batch.validate_crc():
                raise WrongResultError(f"kafka-python: a batch of {path.name} fails its CRC")
            yield batch
