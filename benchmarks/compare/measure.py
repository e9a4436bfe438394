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

    from benchmarks.compare.targets import Target
    from benchmarks.sample import Sample

__all__ = [
    "Contestant",
    "Measured",
    "NotMeasuredError",
    "Place",
    "Stopwatch",
    "Work",
]

Kind = Literal["logstore", "peer", "limit"]


class NotMeasuredError(Exception):
    """This contestant cannot run here; the message says why, and the table repeats it."""


@dataclass(frozen=True)
class Measured:
    """One round: how many operations, how long they took, and how long the processes computed.

    ``amount`` is what a work counts that is not about time: bytes, open files.
    """

    operations: int
    nanoseconds: int = 0
    cpu_nanoseconds: int = 0
    amount: float = 0.0


class Stopwatch(AbstractContextManager["Stopwatch"]):
    """Times a block, with Python's garbage collector off while it runs.

    Parameters
    ----------
    server_cpu : callable, optional
        Gives the processor time, in ns, of a server that works for this process, so that it is counted too.
    """

    def __init__(self, server_cpu: Callable[[], int] = lambda: 0) -> None:
        self.nanoseconds = 0
        self.cpu_nanoseconds = 0
        self._server_cpu = server_cpu

    def measured(self, operations: int) -> Measured:
        """The time of the block as a round of so many operations."""
        return Measured(operations, self.nanoseconds, self.cpu_nanoseconds)

    def __enter__(self) -> Self:
        gc.collect()
        gc.disable()
        self._cpu_started = time.process_time_ns() + self._server_cpu()
        self._started = time.perf_counter_ns()
        return self

    def __exit__(self, *exception: object) -> None:
        self.nanoseconds = time.perf_counter_ns() - self._started
        self.cpu_nanoseconds = time.process_time_ns() + self._server_cpu() - self._cpu_started
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
        The module it needs; empty for the standard library and for limits.
    distribution : str
        What to install for it, where that is not the module's name.
    records_max : int
        A slow one takes so many records of the work's at most: a rate needs no more, and the run stays short.
    """

    name: str
    kind: Kind
    start: Callable[[Place], AbstractContextManager[Callable[[], Measured]]]
    requires: str = ""
    distribution: str = ""
    records_max: int = 1 << 62

    def missing(self) -> str:
        """Why this contestant cannot run here, or nothing."""
        if self.requires and importlib.util.find_spec(self.requires) is None:
            return f"not measured: pip install {self.distribution or self.requires}"
        return ""


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
    amount : str
        For works that are not about time: the unit of what is measured, of which less is better.
    contestants : tuple of Contestant
        Logstore first: the first row is what every ratio is against.
    records : callable
        How many records of the run's `Sample` it takes.
    targets : tuple of Target
    rounds_max : int
        Where a round is long, at most so many.
    each_size : bool
        Runs once for each size of values; otherwise for the first alone.
    """

    name: str
    title: str
    unit: str
    contestants: tuple[Contestant, ...]
    records: Callable[[int], int] = lambda count: count
    targets: tuple[Target, ...] = ()
    rounds_max: int = 1000
    each_size: bool = False
    amount: str = ""


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
