"""What a record takes on the disk over its key and value, once the store is closed."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.compare import subject
from benchmarks.compare.measure import Measured, Place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.sample import Sample

BLOCK_BYTES = 512  # the unit of st_blocks, whatever the file system's


def taken_by(write: Callable[[Path, Sample], None]) -> Callable[[Place], Any]:
    """Blocks of all files that `write` leaves, less keys and values."""

    @contextmanager
    def start(place: Place) -> Iterator[Callable[[], Measured]]:
        sample = place.sample
        payload_bytes = sum(len(key) + len(value) for key, value in zip(sample.keys, sample.values, strict=True))

        def one_round() -> Measured:
            directory = place.fresh() / "store"
            directory.mkdir()
            write(directory, sample)
            taken = sum(path.stat().st_blocks for path in directory.rglob("*") if path.is_file()) * BLOCK_BYTES
            return Measured(len(sample), amount=taken - payload_bytes)

        yield one_round

    return start


def write_logstore(directory: Path, sample: Sample) -> None:
    """append_many, closed."""
    broker, _topic = subject.write_all(directory / "log", sample)
    broker.close()


def write_logstore_one_by_one(directory: Path, sample: Sample) -> None:
    """append, buffered, closed."""
    broker, topic = subject.created(directory / "log", "buffered")
    with broker:
        for value, key in zip(sample.values, sample.keys, strict=True):
            topic.append(value, key)
