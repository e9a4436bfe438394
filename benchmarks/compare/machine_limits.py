"""The rows that no writer can beat: bare system calls in C, and what a call from Python costs."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from benchmarks.compare.measure import Measured, Place, Stopwatch
from benchmarks.limits import Bytes, empty_append, limits
from benchmarks.sample import WrongResultError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from benchmarks.sample import Sample

BATCH_HEADER_BYTES = 61
BLOCK_BYTES = 256 << 10
File = Literal["growing", "fallocated", "zero-filled", "recycled"]


def log_bytes(sample: Sample) -> bytes:
    """As many bytes as these records take in a log, less the batch headers."""
    part = b"".join(key + value for key, value in zip(sample.keys, sample.values, strict=True))
    wanted = len(sample) * sample.record_bytes
    return (part + part)[:wanted]


def create_file(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)


def _check_file(path: Path, size_bytes: int, checksum: int) -> None:
    data = path.read_bytes()
    if len(data) != size_bytes or limits().checksum(Bytes(data)) != checksum:
        raise WrongResultError(f"limit: {path.name} does not hold what was written")


def write_blocks(block_bytes: int, *, recycled: bool = False) -> Callable[[Place], Any]:
    """The bytes of these records into the page cache, in writes of `block_bytes`.

    The file grows, or with `recycled` it has been written before and its pages are in the cache.
    """

    @contextmanager
    def start(place: Place) -> Iterator[Callable[[], Measured]]:
        data = Bytes(log_bytes(place.sample))
        zeros = Bytes(len(data) if recycled else 1)
        c = limits()
        checksum = c.checksum(data)

        def one_round() -> Measured:
            path = place.fresh() / "limit"
            file = create_file(path)
            try:
                if recycled:
                    c.write(file, zeros, block_bytes)
                with Stopwatch() as watch:
                    c.write(file, data, block_bytes)
            finally:
                os.close(file)
            _check_file(path, len(data), checksum)
            return watch.measured(len(place.sample))

        yield one_round

    return start


@contextmanager
def copy_checksum_write(place: Place) -> Iterator[Callable[[], Measured]]:
    """The same with the two things a batch cannot do without: one copy and one CRC-32C."""
    data = Bytes(log_bytes(place.sample))
    buffer = Bytes(BLOCK_BYTES)
    c = limits()
    checksum = c.checksum(data)

    def one_round() -> Measured:
        path = place.fresh() / "limit"
        file = create_file(path)
        try:
            with Stopwatch() as watch:
                found = c.copy_checksum_write(file, data, buffer)
        finally:
            os.close(file)
        _check_file(path, len(data), checksum)
        if found != checksum:
            raise WrongResultError("limit: the CRC of the blocks is not that of the whole")
        return watch.measured(len(place.sample))

    yield one_round


@contextmanager
def empty_call(place: Place) -> Iterator[Callable[[], Measured]]:
    """A loop in Python over a compiled append(value, key) that does nothing."""
    sample = place.sample
    append = empty_append()

    def one_round() -> Measured:
        before = append(b"", b"")
        with Stopwatch() as watch:
            for value, key in zip(sample.values, sample.keys, strict=True):
                append(value, key)
        if append(b"", b"") != before + len(sample) + 1:
            raise WrongResultError("limit: a call was not counted")
        return watch.measured(len(sample))

    yield one_round


@contextmanager
def pwrite_each(place: Place) -> Iterator[Callable[[], Measured]]:
    """One pwrite a batch of one record, into a file that grows."""
    yield _batches(place, 1, "growing", sync=False)


def flushed_batches(records_per_batch: int, file: File) -> Callable[[Place], Any]:
    """One pwrite and one fdatasync a batch of so many records, into a file as described."""

    @contextmanager
    def start(place: Place) -> Iterator[Callable[[], Measured]]:
        yield _batches(place, records_per_batch, file, sync=True)

    return start


def _batches(place: Place, records_per_batch: int, kind: File, *, sync: bool) -> Callable[[], Measured]:
    sample = place.sample
    count = max(1, len(sample) // records_per_batch)
    batch_bytes = BATCH_HEADER_BYTES + records_per_batch * sample.record_bytes
    data = Bytes((log_bytes(sample) + bytes(count * batch_bytes))[: count * batch_bytes])
    c = limits()
    checksum = c.checksum(data)

    def one_round() -> Measured:
        path = place.fresh() / "limit"
        file = create_file(path)
        try:
            _prepare(file, len(data), kind)
            with Stopwatch() as watch:
                c.write_each(file, data, batch_bytes, sync=sync)
        finally:
            os.close(file)
        _check_file(path, len(data), checksum)
        return watch.measured(count * records_per_batch)

    return one_round


def _prepare(file: int, size_bytes: int, kind: File) -> None:
    """What happens to a file before the clock starts: its blocks are there, as extents not yet written, as zeros, or
    with other bytes in them."""
    if kind == "growing":
        return
    if kind == "fallocated":
        os.posix_fallocate(file, 0, size_bytes)
    else:
        content = bytes(size_bytes) if kind == "zero-filled" else b"\xa5" * size_bytes
        os.pwrite(file, content, 0)
    os.fsync(file)


@contextmanager
def python_pwrite(place: Place) -> Iterator[Callable[[], Measured]]:
    """A loop in Python of os.pwrite, for reference."""
    batch_bytes = BATCH_HEADER_BYTES + place.sample.record_bytes
    batch = bytes(batch_bytes)
    count = len(place.sample)

    def one_round() -> Measured:
        path = place.fresh() / "limit"
        file = create_file(path)
        pwrite = os.pwrite
        try:
            with Stopwatch() as watch:
                for position in range(0, count * batch_bytes, batch_bytes):
                    pwrite(file, batch, position)
        finally:
            os.close(file)
        _check_file(path, count * batch_bytes, limits().checksum(Bytes(batch * count)))
        return watch.measured(count)

    yield one_round
