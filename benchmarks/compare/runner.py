"""Runs works: every contestant once a round, in turn, so that a noisy minute hits all of them."""

from __future__ import annotations

import os
import shutil
import statistics
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.compare.measure import NotMeasuredError, Place
from benchmarks.limits import LimitsUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.compare.measure import Contestant, Measured, Work
    from benchmarks.sample import Sample

__all__ = ["Row", "WorkResult", "run_work"]

SYNC_ABOVE_BYTES = 64 << 20


@dataclass
class Row:
    """One contestant's rounds, none left out.

    Attributes
    ----------
    contestant : Contestant
    rates : list of float
        Operations a second, one per round.
    cpu_seconds : list of float
        Processor time of one operation in all threads, one per round.
    reason : str
        Why there are none.
    """

    contestant: Contestant
    rates: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    reason: str = ""

    @property
    def median(self) -> float:
        """Operations a second."""
        return statistics.median(self.rates) if self.rates else 0.0

    @property
    def cpu_median(self) -> float:
        """Seconds of processor time for one operation."""
        return statistics.median(self.cpu_seconds) if self.cpu_seconds else 0.0

    @property
    def spread(self) -> float:
        """How far the slowest and the fastest round lie apart, as a share of the median."""
        return (max(self.rates) - min(self.rates)) / self.median if self.rates else 0.0


@dataclass
class WorkResult:
    """A work and its rows in the order of its contestants, over values of `value_bytes`."""

    work: Work
    rows: list[Row]
    value_bytes: int

    def row(self, name: str) -> Row:
        """The row of the contestant called `name`."""
        return next(row for row in self.rows if row.contestant.name == name)

    @property
    def reference(self) -> Row:
        """The row that every ratio is against: the first that was measured of logstore's."""
        ours = [row for row in self.rows if row.contestant.kind == "logstore"]
        return next((row for row in ours if row.rates), ours[0])


def run_work(
    work: Work,
    sample: Sample,
    directory: Path,
    rounds: int,
    *,
    on_step: Callable[[str], None] = lambda step: None,
) -> WorkResult:
    """Measure everyone in `work`.

    Each round starts one contestant further on, so that nobody always follows the same neighbour. A
    contestant that cannot run is kept in the result with its reason; one that gives a wrong result
    ends the run.
    """
    rounds = min(rounds, work.rounds_max)
    part = sample.first(work.records(len(sample)))
    large = len(part) * part.record_bytes >= SYNC_ABOVE_BYTES
    rows = [Row(contestant, reason=contestant.missing()) for contestant in work.contestants]
    started: dict[int, Callable[[], Measured]] = {}
    places = [directory / f"{work.name}-{number}" for number in range(len(rows))]
    try:
        with ExitStack() as stack:
            for number, row in enumerate(rows):
                if row.reason:
                    continue
                on_step(f"{work.name}: preparing {row.contestant.name}")
                places[number].mkdir()
                try:
                    started[number] = stack.enter_context(row.contestant.start(Place(places[number], part)))
                except (NotMeasuredError, LimitsUnavailableError) as error:
                    row.reason = f"not measured: {error}"
            for turn in range(rounds):
                for step in range(len(rows)):
                    number = (turn + step) % len(rows)
                    if number not in started:
                        continue
                    name = rows[number].contestant.name
                    on_step(f"{work.name}: round {turn + 1} of {rounds}, {name}")
                    measured = started[number]()
                    operations = measured.operations
                    rows[number].rates.append(operations * 1e9 / measured.nanoseconds)
                    rows[number].cpu_seconds.append(measured.cpu_nanoseconds / 1e9 / operations)
                    if large:
                        os.sync()  # so that nobody pays for what the one before left dirty
    finally:
        for place in places:
            shutil.rmtree(place, ignore_errors=True)
    return WorkResult(work, rows, sample.value_bytes)
