"""Whether time, memory and open files stay what they are with more partitions and longer logs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.compare import growing
from benchmarks.compare.measure import Contestant, Work
from benchmarks.compare.targets import Target, times

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["works"]

FLAT = 0.8  # of the rate on one partition, or on the smallest log


def works(partitions: Sequence[int], log_mib: Sequence[int]) -> list[Work]:
    """The first row is the smallest: the others are to be no worse."""
    return [
        _partitions("time", "Append one record a call to partitions in turn, appended", "", partitions),
        _partitions("mib", "Memory resident at the end of it, the interpreter included", "MiB", partitions),
        _partitions("files", "Files open at the end of it", "files", partitions),
        _log("append", "Append one record a call to a log of this size, appended", "records", log_mib),
        _log("look-up", "Find one record by its offset in a log of this size, at random", "look-ups", log_mib),
    ]


def _partitions(what: str, title: str, amount: str, partitions: Sequence[int]) -> Work:
    names = [f"{count:,} partition{'s' if count > 1 else ''}" for count in partitions]
    return Work(
        f"grow-partitions-{what}",
        title,
        "records",
        tuple(
            Contestant(name, "logstore", growing.with_partitions(count, what))
            for name, count in zip(names, partitions, strict=True)
        ),
        targets=(Target(names[-1], times(FLAT, names[0])),) if len(names) > 1 else (),
        amount=amount,
        rounds_max=3,
    )


def _log(what: str, title: str, unit: str, log_mib: Sequence[int]) -> Work:
    sizes = sorted({1, *log_mib})
    names = [f"log of {mib:,} MiB" for mib in sizes]
    # A log of 1 MiB is in the processor's caches: look-ups are held against the next size.
    base = names[1] if what == "look-up" and len(names) > 2 else names[0]
    return Work(
        f"grow-log-{what}",
        title,
        unit,
        tuple(
            Contestant(name, "logstore", growing.on_log_of(mib, what))
            for name, mib in zip(names, sizes, strict=True)
        ),
        targets=(Target(names[-1], times(FLAT, base)),) if base != names[-1] else (),
        rounds_max=3,
    )
