"""A file of one's own: each record as two lengths, key and value, through Python's own file."""

from __future__ import annotations

import os
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.compare.measure import Measured, Place, Stopwatch
from benchmarks.sample import WrongResultError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from benchmarks.sample import Sample

LENGTHS = struct.Struct("<II")


@contextmanager
def append_buffered(place: Place) -> Iterator[Callable[[], Measured]]:
    """One buffered write a record, 256 KiB of buffer, handed over at the end."""
    sample = place.sample

    def one_round() -> Measured:
        path = place.fresh() / "records"
        pack = LENGTHS.pack
        with open(path, "wb", buffering=1 << 18) as file:
            write = file.write
            with Stopwatch() as watch:
                for value, key in zip(sample.values, sample.keys, strict=True):
                    write(pack(len(key), len(value)) + key + value)
                file.flush()
        sample.check(_pairs(path), source="plain file")
        return watch.measured(len(sample))

    yield one_round


@contextmanager
def append_appended(place: Place) -> Iterator[Callable[[], Measured]]:
    """One os.write a record."""
    yield _written_each(place, sync=False)


def append_flushed(records_per_batch: int) -> Callable[[Place], Any]:
    """One os.write and one fdatasync for so many records."""

    @contextmanager
    def start(place: Place) -> Iterator[Callable[[], Measured]]:
        if records_per_batch == 1:
            yield _written_each(place, sync=True)
        else:
            yield _written_batches(place, records_per_batch)

    return start


def _written_batches(place: Place, records_per_batch: int) -> Callable[[], Measured]:
    sample = place.sample
    pairs = list(zip(sample.keys, sample.values, strict=True))

    def one_round() -> Measured:
        path = place.fresh() / "records"
        pack = LENGTHS.pack
        flush = getattr(os, "fdatasync", os.fsync)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            with Stopwatch() as watch:
                for at in range(0, len(pairs), records_per_batch):
                    part = pairs[at : at + records_per_batch]
                    os.write(file, b"".join([pack(len(key), len(value)) + key + value for key, value in part]))
                    flush(file)
        finally:
            os.close(file)
        sample.check(_pairs(path), source="plain file")
        return watch.measured(len(sample))

    return one_round


def _written_each(place: Place, *, sync: bool) -> Callable[[], Measured]:
    sample = place.sample

    def one_round() -> Measured:
        path = place.fresh() / "records"
        pack = LENGTHS.pack
        write = os.write
        flush = getattr(os, "fdatasync", os.fsync)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            with Stopwatch() as watch:
                for value, key in zip(sample.values, sample.keys, strict=True):
                    write(file, pack(len(key), len(value)) + key + value)
                    if sync:
                        flush(file)
        finally:
            os.close(file)
        sample.check(_pairs(path), source="plain file")
        return watch.measured(len(sample))

    return one_round


@contextmanager
def iterate(place: Place) -> Iterator[Callable[[], Measured]]:
    """Read the file and unpack each record; key and value are made either way."""
    sample = place.sample
    path = place.kept / "records"
    _write_all(path, sample)
    sample.check(_pairs(path), source="plain file")

    def one_round() -> Measured:
        count = 0
        with Stopwatch() as watch:
            for _key, _value in _pairs(path):
                count += 1
        if count != len(sample):
            raise WrongResultError(f"plain file: {count} records of {len(sample)}")
        return watch.measured(count)

    yield one_round


def store_records(directory: Path, sample: Sample) -> None:
    """All records, for measuring what is on disk then."""
    _write_all(directory / "records", sample)


def _write_all(path: Path, sample: Sample) -> None:
    with open(path, "wb") as file:
        for key, value in zip(sample.keys, sample.values, strict=True):
            file.write(LENGTHS.pack(len(key), len(value)) + key + value)


def _pairs(path: Path) -> Iterator[tuple[bytes, bytes]]:
    with open(path, "rb") as file:
        data = file.read()
    unpack = LENGTHS.unpack_from
    at = 0
    end = len(data)
    while at < end:
        key_bytes, value_bytes = unpack(data, at)
        at += 8
        middle = at + key_bytes
        stop = middle + value_bytes
        yield data[at:middle], data[middle:stop]
        at = stop
