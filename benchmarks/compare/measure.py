"""What a contestant is, where it works, and the clock that times it."""

from __future__ import annotations

import gc
import importlib.util
import os
import shutil
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.sample import Sample

__all__ = [
    "Contestant",
    "Measured",
    "NotMeasuredError",
    "Place",
    "Stopwatch",
    "Target",
    "Work",
]

Kind = Literal["logstore", "peer", "limit"]


class NotMeasuredError(Exception):
    """This contestant cannot run here; the message says why, and the table repeats it."""


@dataclass(frozen=True)
class Measured:
    """One round: how many operations, how long they took, and how long the process computed."""

    operations: int
    nanoseconds: int
    cpu_nanoseconds: int


class Stopwatch(AbstractContextManager["Stopwatch"]):
    """Times a block, with Python's garbage collector off while it runs."""

    def __init__(self) -> None:
        self.nanoseconds = 0
        self.cpu_nanoseconds = 0

    def measured(self, operations: int) -> Measured:
        """The time of the block as a round of so many operations."""
        return Measured(operations, self.nanoseconds, self.cpu_nanoseconds)

    def __enter__(self) -> Self:
        gc.collect()
        gc.disable()
        self._cpu_started = time.process_time_ns()
        self._started = time.perf_counter_ns()
        return self

    def __exit__(self, *exception: object) -> None:
        self.nanoseconds = time.perf_counter_ns() - self._started
        self.cpu_nanoseconds = time.process_time_ns() - self._cpu_started
        gc.enable()


@dataclass
class Place:
    """The directory of one contestant in one work, and the records it gets there.

    Attributes
    ----------
    kept : Path
        Lasts for all rounds: what a reading contestant wrote before the first.
    sample : Sample
    """

    kept: Path
    sample: Sample
    _round: int = field(default=0, init=False)

    def fresh(self) -> Path:
        """A new empty directory; what the rounds before left is deleted."""
        shutil.rmtree(self.kept / f"round-{self._round}", ignore_errors=True)
        self._round += 1
        directory = self.kept / f"round-{self._round}"
        directory.mkdir(parents=True)
        return directory


@dataclass(frozen=True)
class Contestant:
    """One way of doing one work.

    Attributes
    ----------
    name : str
        As the table shows it.
    kind : str
        ``"logstore"``, ``"peer"`` or ``"limit"``.
    start : callable
        Given a `Place`, a context manager: entering it prepares, untimed; what it yields is called
        once a round, checks its own result and gives a `Measured`.
    requires : str
        The distribution to install; empty for the standard library and for limits.
    """

    name: str
    kind: Kind
    start: Callable[[Place], AbstractContextManager[Callable[[], Measured]]]
    requires: str = ""

    def missing(self) -> str:
        """Why this contestant cannot run here, or nothing."""
        if self.requires and importlib.util.find_spec(self.requires) is None:
            return f"not measured: pip install {self.requires}"
        return ""


@dataclass(frozen=True)
class Target:
    """What is asked of logstore: an absolute rate, a share of another row, or either of them.

    Attributes
    ----------
    contestant : str
        The logstore row that is held to it.
    per_second : float
        At least so many operations a second; 0 for no absolute rate.
    times, of : float, str
        Or at least so many times the rate of the row `of`.
    """

    contestant: str
    per_second: float = 0
    times: float = 0
    of: str = ""


@dataclass(frozen=True)
class Work:
    """One thing to do, and everyone who does it.

    Attributes
    ----------
    name : str
        For ``--only``.
    title : str
        One line above the table.
    unit : str
        What is counted.
    contestants : tuple of Contestant
        Logstore first: the first row is what every ratio is against.
    records : callable
        How many records of the run's `Sample` it takes.
    targets : tuple of Target
    rounds_max : int
        Where a round is long, at most so many.
    """

    name: str
    title: str
    unit: str
    contestants: tuple[Contestant, ...]
    records: Callable[[int], int] = lambda count: count
    targets: tuple[Target, ...] = ()
    rounds_max: int = 1000


def file_system_of(path: Path) -> str:
    """The type of the file system that holds `path`; empty where that cannot be told."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8") as mounts:
            lines = [line.split() for line in mounts]
    except OSError:
        return ""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for fields in lines:
        if fields[2] == wanted:
            return fields[fields.index("-") + 1]
    return ""
