"""Whether logstore reached what is asked of it, in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.compare.runner import WorkResult

__all__ = ["Verdict", "verdicts"]

STATED_FOR_VALUE_BYTES = 100  # absolute rates are asked for values of this size


@dataclass(frozen=True)
class Verdict:
    """One target and how it ended; `reached` is None when a row it needs was not measured."""

    text: str
    reached: bool | None


def verdicts(result: WorkResult) -> list[Verdict]:
    """One verdict a target of the work, as far as it is stated for values of this size."""
    found = []
    for target in result.work.targets:
        ours = result.row(target.contestant)
        wishes = []
        outcomes: list[bool] = []
        if target.per_second and result.value_bytes == STATED_FOR_VALUE_BYTES:
            wishes.append(f"{target.per_second / 1e6:g} M {result.work.unit}/s")
            outcomes.append(ours.median >= target.per_second)
        if target.times:
            wishes.append(f"{target.times:g} x [{target.of}]")
            other = result.row(target.of)
            if other.rates:
                outcomes.append(ours.median >= target.times * other.median)
        if not wishes:
            continue
        reached = any(outcomes) if ours.rates and outcomes else None
        said = {True: "reached", False: "missed", None: "not measured"}[reached]
        found.append(Verdict(f"target {' or '.join(wishes)}: {said}", reached))
    return found
