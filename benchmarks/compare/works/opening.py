"""Opening a store and learning where it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.compare.measure import Contestant, Work
from benchmarks.compare.opening import opened
from benchmarks.compare.targets import Target, within

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["works"]

OPEN = "logstore.open"
LARGE_MIB = 64  # a larger one is written for each round: there are few


def works(open_mib: Sequence[int]) -> list[Work]:
    """After a clean close, and after SIGKILL with nothing flushed."""
    return [_opening(mib, killed=killed) for killed in (False, True) for mib in open_mib]


def _opening(mib: int, *, killed: bool) -> Work:
    after = "after SIGKILL with nothing flushed" if killed else "after a clean close"
    size_bytes = mib << 20
    return Work(
        f"open-{'killed' if killed else 'clean'}-{mib}-mib",
        f"Open a store of {mib:,} MiB and learn its end, {after}",
        "opens",
        (
            Contestant(OPEN, "logstore", opened("logstore", size_bytes, killed=killed)),
            Contestant("LMDB", "peer", opened("lmdb", size_bytes, killed=killed), "lmdb"),
            Contestant("SQLite", "peer", opened("sqlite", size_bytes, killed=killed)),
        ),
        targets=(Target(OPEN, within(0.020)),) if killed and mib >= 1024 else (),
        rounds_max=3 if killed and mib > LARGE_MIB else 1000,
    )
