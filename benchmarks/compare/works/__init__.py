"""The works in the order of the table: what is done, by whom, what is asked of logstore. A file a kind of work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.compare.works import (
    appending,
    flushing,
    growth,
    looking_up,
    opening,
    reading,
    storing,
    transacting,
    waking,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.compare.measure import Work

__all__ = ["FULL", "QUICK", "Sizes", "all_works"]


@dataclass(frozen=True)
class Sizes:
    """How much a run does.

    Attributes
    ----------
    records : int
        Of 100 bytes.
    flushed_records : int
        Where each waits for the disk.
    open_mib : sequence of int
        How large the stores are that are opened, and the logs that are grown.
    partitions : sequence of int
    """

    records: int
    flushed_records: int
    open_mib: Sequence[int]
    partitions: Sequence[int]


FULL = Sizes(200_000, 500, (64, 1024), (1, 10, 100, 1000))
QUICK = Sizes(10_000, 40, (8,), (1, 100))


def all_works(sizes: Sizes = FULL) -> list[Work]:
    """Every work, at these sizes."""
    return [
        *appending.works(),
        *flushing.works(sizes.flushed_records),
        *reading.works(),
        *transacting.works(),
        *looking_up.works(),
        *waking.works(),
        *opening.works(sizes.open_mib),
        *storing.works(),
        *growth.works(sizes.partitions, sizes.open_mib),
    ]
