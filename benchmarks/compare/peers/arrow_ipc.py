"""pyarrow: record batches in an Arrow IPC file, which has no CRC and no recovery."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.compare import subject
from benchmarks.compare.measure import Measured, Place, Stopwatch
from benchmarks.sample import WrongResultError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from benchmarks.sample import Sample

RECORDS_PER_BATCH = 10_000


def _schema() -> Any:
    import pyarrow as pa

    fields = [("timestamp", pa.int64()), ("key", pa.binary()), ("value", pa.binary())]
    return pa.schema(fields)


def _write(path: Path, sample: Sample) -> Stopwatch:
    """Write in batches of 10,000, timed from lists of bytes to the closed file."""
    import pyarrow as pa

    schema = _schema()
    parts = [
        (sample.timestamps[at:to], sample.keys[at:to], sample.values[at:to])
        for at in range(0, len(sample), RECORDS_PER_BATCH)
        for to in [at + RECORDS_PER_BATCH]
    ]
    watch = Stopwatch()
    with pa.OSFile(str(path), "wb") as file, watch, pa.ipc.new_file(file, schema) as writer:
        for part in parts:
            columns = zip(part, schema, strict=True)
            arrays = [pa.array(column, field.type) for column, field in columns]
            writer.write_batch(pa.record_batch(arrays, schema=schema))
    return watch


def _batches(path: Path) -> Iterator[Any]:
    import pyarrow as pa

    with pa.OSFile(str(path), "rb") as file:
        reader = pa.ipc.open_file(file)
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number)


def _pairs(path: Path) -> Iterator[tuple[bytes, bytes]]:
    for batch in _batches(path):
        yield from zip(batch.column(1).to_pylist(), batch.column(2).to_pylist(), strict=True)


@contextmanager
def append_many(place: Place) -> Iterator[Callable[[], Measured]]:
    """Lists of bytes into arrays, arrays into the file."""
    sample = place.sample

    def one_round() -> Measured:
        path = place.fresh() / "records.arrow"
        watch = _write(path, sample)
        sample.check(_pairs(path), source="pyarrow")
        return watch.measured(len(sample))

    yield one_round


@contextmanager
def iterate(place: Place) -> Iterator[Callable[[], Measured]]:
    """Keys and values of each batch as lists of bytes."""
    sample = place.sample
    path = place.kept / "records.arrow"
    _write(path, sample)
    sample.check(_pairs(path), source="pyarrow")

    def one_round() -> Measured:
        count = 0
        with Stopwatch() as watch:
            for _key, _value in _pairs(path):
                count += 1
        if count != len(sample):
            raise WrongResultError(f"pyarrow: {count} records of {len(sample)}")
        return watch.measured(count)

    yield one_round


@contextmanager
def columns(place: Place) -> Iterator[Callable[[], Measured]]:
    """Each batch read (not mapped) into memory; its offsets and timestamps seen as numpy arrays."""
    import numpy as np

    sample = place.sample
    path = place.kept / "records.arrow"
    _write(path, sample)
    sample.check(_pairs(path), source="pyarrow")

    def one_round() -> Measured:
        count = 0
        with Stopwatch() as watch:
            for _ in range(subject.PASSES):
                for batch in _batches(path):
                    count += len(batch.column(0).to_numpy())
                    seen = [
                        np.frombuffer(batch.column(column).buffers()[1], np.int32, len(batch) + 1) for column in (1, 2)
                    ]
        if count != subject.PASSES * len(sample) or {len(column) for column in seen} != {len(batch) + 1}:
            raise WrongResultError(f"pyarrow: columns of {count} records of {len(sample)}")
        return watch.measured(count)

    yield one_round


def store_records(directory: Path, sample: Sample) -> None:
    """All records, for measuring what is on disk then."""
    _write(directory / "records.arrow", sample)
