"""aiokafka's compiled record batches: the same format, without a log around it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.compare import subject
from benchmarks.compare.measure import Measured, NotMeasuredError, Place, Stopwatch
from benchmarks.sample import WrongResultError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from benchmarks.sample import Sample

BATCH_BYTES = 64 << 10
MAGIC = 2


def _compiled() -> Any:
    try:
        from aiokafka.record import _crecords
    except ImportError as error:
        raise NotMeasuredError("aiokafka is here without its compiled extension") from error
    return _crecords


@contextmanager
def append_buffered(place: Place) -> Iterator[Callable[[], Measured]]:
    """One builder call a record; each full batch is built (header, CRC) and written to a file."""
    sample = place.sample
    records = _compiled()

    def one_round() -> Measured:
        path = place.fresh() / "records"
        with open(path, "wb", buffering=0) as file, Stopwatch() as watch:
            _append_each(records, sample, file.write)
        sample.check(_pairs(records, [path]), source="aiokafka")
        return watch.measured(len(sample))

    yield one_round


def _append_each(records: Any, sample: Sample, write: Callable[[bytearray], int]) -> None:
    new = records.DefaultRecordBatchBuilder
    builder = new(MAGIC, 0, 0, -1, -1, -1, BATCH_BYTES)
    append = builder.append
    timestamp = sample.timestamps[0]
    headers: list[tuple[str, bytes | None]] = []
    offset = 0
    for value, key in zip(sample.values, sample.keys, strict=True):
        if append(offset, timestamp, key, value, headers) is None:  # the batch is full
            write(builder.build())
            builder = new(MAGIC, 0, 0, -1, -1, -1, BATCH_BYTES)
            append = builder.append
            offset = 0
            append(offset, timestamp, key, value, headers)
        offset += 1
    write(builder.build())


@contextmanager
def iterate(place: Place) -> Iterator[Callable[[], Measured]]:
    """Its reader over the segment files that logstore wrote, CRC checked, nothing touched."""
    yield _iterate(place, touch=False)


@contextmanager
def iterate_touched(place: Place) -> Iterator[Callable[[], Measured]]:
    """The same, taking each record's key and value."""
    yield _iterate(place, touch=True)


def _iterate(place: Place, *, touch: bool) -> Callable[[], Measured]:
    sample = place.sample
    records = _compiled()
    paths = _segments(records, place)
    sample.check(_pairs(records, paths), source="aiokafka")

    def one_round() -> Measured:
        count = 0
        with Stopwatch() as watch:
            for batch in _batches(records, paths):
                if touch:
                    for record in batch:
                        record.key  # noqa: B018
                        record.value  # noqa: B018
                        count += 1
                else:
                    for _record in batch:
                        count += 1
        if count != len(sample):
            raise WrongResultError(f"aiokafka: {count} records of {len(sample)}")
        return watch.measured(count)

    return one_round


def _segments(records: Any, place: Place) -> list[Path]:
    """logstore's files where logstore is there, else the same format by aiokafka's own hand."""
    try:
        return subject.write_segments(place.kept / "log", place.sample)
    except NotMeasuredError:
        path = place.kept / "records"
        with open(path, "wb", buffering=0) as file:
            _append_each(records, place.sample, file.write)
        return [path]


def _batches(records: Any, paths: Iterable[Path]) -> Iterator[Any]:
    for path in paths:
        memory = records.MemoryRecords(path.read_bytes())
        while (batch := memory.next_batch()) is not None:
            if not batch.validate_crc():
                raise WrongResultError(f"aiokafka: a batch of {path.name} fails its CRC")
            yield batch


def _pairs(records: Any, paths: Iterable[Path]) -> Iterator[tuple[bytes, bytes]]:
    for batch in _batches(records, paths):
        for record in batch:
            yield record.key, record.value
