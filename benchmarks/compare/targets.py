"""What is asked of logstore, whether it got there, and how near it came."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.compare.runner import Row, WorkResult

__all__ = ["PEERS", "Target", "Verdict", "Wish", "at_least", "at_most", "times", "verdicts", "within"]

PEERS = "the best peer"


@dataclass(frozen=True)
class Wish:
    """One thing asked: an absolute figure, or so many times the best of some rows."""

    said: str
    per_second: float = 0
    amount: float = 0
    times: float = 0
    of: tuple[str, ...] = ()

    def met(self, ours: Row, result: WorkResult, *, by_processor: bool = False) -> float | None:
        """How much of it was reached, 1 being all; None when a row that it needs was not measured.

        With `by_processor` of the time that the processes computed, which other work on the machine hardly changes.
        """
        if not ours.values or (by_processor and not ours.cpu_median):
            return None
        if self.per_second:
            return (1 / ours.cpu_median if by_processor else ours.median) / self.per_second
        if self.amount:
            return self.amount / ours.median if ours.median > 0 else 1.0
        others = [row for row in result.rows if self._is_meant(row) and row.values and row is not ours]
        ratios = [row.cpu_median / ours.cpu_median if by_processor else ours.ratio_to(row) for row in others]
        return min(ratios) / self.times if ratios else None

    def _is_meant(self, row: Row) -> bool:
        if self.of == (PEERS,):
            return row.contestant.kind == "peer"
        return row.contestant.name in self.of


def at_least(per_second: float, unit: str = "records") -> Wish:
    """So many a second."""
    return Wish(f"{per_second / 1e6:g} M {unit}/s", per_second=per_second)


def within(seconds: float) -> Wish:
    """Each in so many seconds."""
    said = f"{seconds * 1e3:g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:g} µs"
    return Wish(f"within {said}", per_second=1 / seconds)


def at_most(amount: float, unit: str) -> Wish:
    """No more than so much, in a work that measures an amount."""
    return Wish(f"at most {amount:g} {unit}", amount=amount)


def times(factor: float, *names: str, called: str = "") -> Wish:
    """At least so many times the best of the rows of these names, or with `PEERS` of all peers."""
    of = called or " or ".join(f"[{name}]" if name != PEERS else name for name in names)
    share = f"{factor:.0%} of" if factor < 1 else f"{factor:g} x"
    return Wish(f"{share} {of}", times=factor, of=names)


class Target:
    """What is asked of one row of logstore.

    Parameters
    ----------
    contestant : str
        The row that is held to it.
    *either : Wish or sequence of Wish
        One of them has to be met; of a sequence, all.
    value_bytes : int, optional
        Only stated for values of this size.
    """

    def __init__(self, contestant: str, *either: Wish | Sequence[Wish], value_bytes: int | None = None) -> None:
        self.contestant = contestant
        self.either = tuple((wishes,) if isinstance(wishes, Wish) else tuple(wishes) for wishes in either)
        self.value_bytes = value_bytes


@dataclass(frozen=True)
class Verdict:
    """One target and how it ended: `met` is the share reached, None when a row it needs was not measured.

    ``met_by_processor`` is the same by processor time: it means nothing where waiting is the work.
    """

    contestant: str
    wanted: str
    met: float | None
    met_by_processor: float | None

    @property
    def reached(self) -> bool | None:
        """Whether all of it was reached."""
        return None if self.met is None else self.met >= 1

    @property
    def text(self) -> str:
        """One line."""
        if self.met is None:
            return f"target {self.wanted}: not measured"
        ended = "reached" if self.reached else "missed"
        by_processor = f" ({self.met_by_processor:.0%} by processor time)" if self.met_by_processor else ""
        return f"target {self.wanted}: {ended}, at {self.met:.0%}{by_processor}"


def verdicts(result: WorkResult) -> list[Verdict]:
    """One verdict a target of the work, as far as it is stated for values of this size."""
    found = []
    for target in result.work.targets:
        if target.value_bytes not in (None, result.value_bytes):
            continue
        ours = result.row(target.contestant)
        wanted = " or ".join(" and ".join(wish.said for wish in wishes) for wishes in target.either)
        met, met_by_processor = (_met(target, ours, result, by_processor=by) for by in (False, True))
        found.append(Verdict(target.contestant, wanted, met, met_by_processor))
    return found


def _met(target: Target, ours: Row, result: WorkResult, *, by_processor: bool) -> float | None:
    shares = []
    for wishes in target.either:
        met = [wish.met(ours, result, by_processor=by_processor) for wish in wishes]
        known = [share for share in met if share is not None]
        if len(known) == len(met):
            shares.append(min(known))
    return max(shares, default=None)
