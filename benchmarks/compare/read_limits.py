"""The rows that no reader can beat: bare reads and memory in C, and what Python needs to hold two objects a record."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.compare.machine_limits import BLOCK_BYTES, create_file, log_bytes
from benchmarks.compare.measure import Measured, Place, Stopwatch
from benchmarks.limits import Bytes, compiled_pairs, limits
from benchmarks.sample import WrongResultError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PAGE_BYTES = 4096
PASSES = 5


def read_file(*, checksum: bool) -> Callable[[Place], Any]:
    """The bytes of these records from the page cache through one reused buffer."""

    @contextmanager
    def start(place: Place) -> Iterator[Callable[[], Measured]]:
        data = Bytes(log_bytes(place.sample))
        buffer = Bytes(BLOCK_BYTES)
        c = limits()
        wanted = c.checksum(data)
        file = create_file(place.kept / "limit")
        c.write(file, data, BLOCK_BYTES)

        def one_round() -> Measured:
            with Stopwatch() as watch:
                for _ in range(PASSES):
                    found = c.read(file, len(data), buffer, checksum=checksum)
            if checksum and found != wanted:
                raise WrongResultError("limit: the CRC read is not the CRC written")
            return watch.measured(PASSES * len(place.sample))

        try:
            yield one_round
        finally:
            os.close(file)

    return start


@contextmanager
def copy_memory(place: Place) -> Iterator[Callable[[], Measured]]:
    """The bytes of these records copied from memory to a reused buffer."""
    data = Bytes(log_bytes(place.sample))
    buffer = Bytes(BLOCK_BYTES)
    c = limits()

    def one_round() -> Measured:
        with Stopwatch() as watch:
            for _ in range(PASSES):
                c.copy(data, buffer)
        return watch.measured(PASSES * len(place.sample))

    yield one_round


def read_blocks(block_bytes: int = PAGE_BYTES, *, checksum: bool = False) -> Callable[[Place], Any]:
    """One pread of a block at each random record, and its CRC-32C: what a look-up in a file must do at least."""

    @contextmanager
    def start(place: Place) -> Iterator[Callable[[], Measured]]:
        sample = place.sample
        data = Bytes(log_bytes(sample))
        buffer = Bytes(block_bytes)
        c = limits()
        file = create_file(place.kept / "limit")
        c.write(file, data, BLOCK_BYTES)
        last = max(0, len(data) - block_bytes)
        positions = [min(last, offset * sample.record_bytes) for offset in sample.some_offsets()]
        read = c.read_at(file, positions, buffer, checksum=checksum)

        def one_round() -> Measured:
            with Stopwatch() as watch:
                read()
            return watch.measured(len(positions))

        try:
            yield one_round
        finally:
            os.close(file)

    return start


@contextmanager
def iterate_pairs(place: Place) -> Iterator[Callable[[], Measured]]:
    """A loop in Python over a compiled iterator that does nothing but make the objects: a record, its key, its value."""
    sample = place.sample
    pairs = compiled_pairs()
    data = b"".join(key + value for key, value in zip(sample.keys, sample.values, strict=True))
    key_bytes = len(sample.keys[0])
    sample.check(
        ((pair.key, pair.value) for pair in pairs(data, key_bytes, sample.value_bytes)), source="limit: compiled iterator"
    )

    def one_round() -> Measured:
        count = 0
        with Stopwatch() as watch:
            for pair in pairs(data, key_bytes, sample.value_bytes):
                pair.key  # noqa: B018
                pair.value  # noqa: B018
                count += 1
        return watch.measured(count)

    yield one_round
