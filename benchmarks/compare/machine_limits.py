"""The rows that nothing can beat: bare system calls and memory in C, and what Python costs."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.compare.measure import Measured, Place, Stopwatch
from benchmarks.limits import Bytes, empty_append, limits
from benchmarks.sample import WrongResultError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from benchmarks.sample import Sample

BATCH_HEADER_BYTES = 61
BLOCK_BYTES = 256 << 10
PAGE_BYTES = 4096


def _log_bytes(sample: Sample) -> bytes:
    """As many bytes as these records take in a log, less the batch headers."""
    part = b"".join(key + value for key, value in zip(sample.keys, sample.values, strict=True))
    wanted = len(sample) * sample.record_bytes
    return (part + part)[:wanted]


def _create(path: Path) -> int:
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
        data = Bytes(_log_bytes(place.sample))
        zeros = Bytes(len(data) if recycled else 1)
        c = limits()
        checksum = c.checksum(data)

        def one_round() -> Measured:
            path = place.fresh() / "limit"
            file = _create(path)
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
    data = Bytes(_log_bytes(place.sample))
    buffer = Bytes(BLOCK_BYTES)
    c = limits()
    checksum = c.checksum(data)

    def one_round() -> Measured:
        path = place.fresh() / "limit"
        file = _create(path)
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


def write_each(*, sync: bool, zero_filled: bool = False) -> Callable[[Place], Any]:
    """One pwrite a batch of one record, with an fdatasync each if `sync`.

    The file grows, or with `zero_filled` it has been written before.
    """

    @contextmanager
    def start(place: Place) -> Iterator[Callable[[], Measured]]:
        batch_bytes = BATCH_HEADER_BYTES + place.sample.record_bytes
        content = _log_bytes(place.sample) + bytes(BATCH_HEADER_BYTES * len(place.sample))
        data = Bytes(content)
        c = limits()
        checksum = c.checksum(data)

        def one_round() -> Measured:
            path = place.fresh() / "limit"
            file = _create(path)
            try:
                if zero_filled:
                    os.write(file, bytes(len(data)))
                    os.fsync(file)
                with Stopwatch() as watch:
                    c.write_each(file, data, batch_bytes, sync=sync)
            finally:
                os.close(file)
            _check_file(path, len(data), checksum)
            return watch.measured(len(place.sample))

        yield one_round

    return start


@contextmanager
def python_pwrite(place: Place) -> Iterator[Callable[[], Measured]]:
    """A loop in Python of os.pwrite, for reference."""
    batch_bytes = BATCH_HEADER_BYTES + place.sample.record_bytes
    batch = bytes(batch_bytes)
    count = len(place.sample)

    def one_round() -> Measured:
        path = place.fresh() / "limit"
        file = _create(path)
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


def read_file(*, checksum: bool) -> Callable[[Place], Any]:
    """The bytes of these records from the page cache through one reused buffer."""

    @contextmanager
    def start(place: Place) -> Iterator[Callable[[], Measured]]:
        data = Bytes(_log_bytes(place.sample))
        buffer = Bytes(BLOCK_BYTES)
        c = limits()
        wanted = c.checksum(data)
        file = _create(place.kept / "limit")
        c.write(file, data, BLOCK_BYTES)

        def one_round() -> Measured:
            with Stopwatch() as watch:
                found = c.read(file, len(data), buffer, checksum=checksum)
            if checksum and found != wanted:
                raise WrongResultError("limit: the CRC read is not the CRC written")
            return watch.measured(len(place.sample))

        try:
            yield one_round
        finally:
            os.close(file)

    return start


@contextmanager
def copy_memory(place: Place) -> Iterator[Callable[[], Measured]]:
    """The bytes of these records copied from memory to a reused buffer."""
    data = Bytes(_log_bytes(place.sample))
    buffer = Bytes(BLOCK_BYTES)
    c = limits()

    def one_round() -> Measured:
        with Stopwatch() as watch:
            c.copy(data, buffer)
        return watch.measured(len(place.sample))

    yield one_round


@contextmanager
def read_pages(place: Place) -> Iterator[Callable[[], Measured]]:
    """One pread of a page at each random record: what any look-up in a file must do at least."""
    sample = place.sample
    data = Bytes(_log_bytes(sample))
    buffer = Bytes(PAGE_BYTES)
    c = limits()
    file = _create(place.kept / "limit")
    c.write(file, data, BLOCK_BYTES)
    positions = [offset * sample.record_bytes for offset in sample.some_offsets()]
    read = c.read_at(file, positions, buffer)

    def one_round() -> Measured:
        with Stopwatch() as watch:
            read()
        return watch.measured(len(positions))

    try:
        yield one_round
    finally:
        os.close(file)
