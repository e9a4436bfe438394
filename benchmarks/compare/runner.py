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

__all__ = ["Row", "WorkResult", "run_work", "steps_of"]

SYNC_ABOVE_BYTES = 64 << 20


@dataclass
class Row:
    """One contestant's rounds, none left out.

    Attributes
    ----------
    contestant : Contestant
    values : list of float
        One per round: operations a second, or in a work that measures an amount, the amount.
    less_is_better : bool
        They are amounts.
    cpu_seconds : list of float
        Processor time of one operation in all threads, one per round.
    reason : str
        Why there are none.
    """

    contestant: Contestant
    values: list[float] = field(default_factory=list)
    less_is_better: bool = False
    cpu_seconds: list[float] = field(default_factory=list)
    reason: str = ""

    @property
    def median(self) -> float:
        """Operations a second, or the amount."""
        return statistics.median(self.values) if self.values else 0.0

    @property
    def cpu_median(self) -> float:
        """Seconds of processor time for one operation."""
        return statistics.median(self.cpu_seconds) if self.cpu_seconds else 0.0

    @property
    def spread(self) -> float:
        """How far the slowest and the fastest round lie apart, as a share of the median."""
        return (max(self.values) - min(self.values)) / self.median if self.values and self.median else 0.0

    def ratio_to(self, other: Row) -> float:
        """How many times as good as another row: as fast, or with so much less."""
        ours, theirs = (other.median, self.median) if self.less_is_better else (self.median, other.median)
        return ours / theirs if theirs else 1.0

    def take(self, measured: Measured) -> None:
        """One round more."""
        if self.less_is_better:
            self.values.append(measured.amount / measured.operations)
        else:
            self.values.append(measured.operations * 1e9 / max(1, measured.nanoseconds))
            self.cpu_seconds.append(measured.cpu_nanoseconds / 1e9 / measured.operations)


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
        return next((row for row in ours if row.values), ours[0])


def steps_of(work: Work, rounds: int) -> int:
    """How often `run_work` will report to `on_step`."""
    return len(work.contestants) * (1 + min(rounds, work.rounds_max))


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
    less = bool(work.amount)
    rows = [Row(contestant, less_is_better=less, reason=contestant.missing()) for contestant in work.contestants]
    started: dict[int, Callable[[], Measured]] = {}
    places = [directory / f"{work.name}-{number}" for number in range(len(rows))]
    try:
        with ExitStack() as stack:
            for number, row in enumerate(rows):
                if row.reason:
                    continue
                contestant = row.contestant
                on_step(f"{work.name}: preparing {contestant.name}")
                places[number].mkdir()
                place = Place(places[number], part.first(min(len(part), contestant.records_max)))
                try:
                    started[number] = stack.enter_context(contestant.start(place))
                except (NotMeasuredError, LimitsUnavailableError) as error:
                    row.reason = f"not measured: {error}"
            for turn in range(rounds):
                for step in range(len(rows)):
                    number = (turn + step) % len(rows)
                    if number not in started:
                        continue
                    on_step(f"{work.name}: round {turn + 1} of {rounds}, {rows[number].contestant.name}")
                    try:
                        rows[number].take(started[number]())
                    except NotMeasuredError as error:  # a server of another version, say, that is started in each round
                        rows[number] = Row(work.contestants[number], less_is_better=less, reason=f"not measured: {error}")
                        del started[number]
                    if large:
                        os.sync()  # so that nobody pays for what the one before left dirty
    finally:
        for place_directory in places:
            shutil.rmtree(place_directory, ignore_errors=True)
    return WorkResult(work, rows, sample.value_bytes)
