"""Checking every byte of a directory, beside reading it with its CRC."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from benchmarks.compare import subject
from benchmarks.compare.measure import Measured, Place, Stopwatch
from benchmarks.compare.read_limits import PASSES
from benchmarks.sample import WrongResultError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def verify(place: Place) -> Iterator[Callable[[], Measured]]:
    """verify_partition, deep: structure, every CRC, every record, the indexes."""
    sample = place.sample
    broker, topic = subject.write_all(place.kept / "log", sample)
    broker.close()
    directory = str(place.kept / "log" / f"{subject.TOPIC}-0")
    del topic
    from logstore.storage.verification import verify_partition

    def one_round() -> Measured:
        with Stopwatch() as watch:
            for _ in range(PASSES):  # as often as the limit reads its file, which is in the processor's cache from then on
                found = verify_partition(directory, deep=True)
        if found.records_count != len(sample) or not found.is_sound:
            raise WrongResultError(f"verify found {found.records_count} records of {len(sample)}, or damage")
        return watch.measured(PASSES * len(sample))

    yield one_round
