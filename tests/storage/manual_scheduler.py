"""A `FlushScheduler` whose steps run when a test says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class ManualScheduler:
    """Keeps steps with their delays; `run` runs those that are due within a delay."""

    def __init__(self) -> None:
        self.steps: list[tuple[float, Callable[[], None]]] = []

    def schedule(self, delay_ms: float, step: Callable[[], None]) -> None:
        self.steps.append((delay_ms, step))

    schedule_urgent = schedule

    def run(self, within_ms: float = float("inf")) -> int:
        due = [step for delay, step in self.steps if delay <= within_ms]
        self.steps = [(delay, step) for delay, step in self.steps if delay > within_ms]
        for step in due:
            step()
        return len(due)

    def close(self) -> None:
        self.steps = []

    def forget(self) -> None:
        self.steps = []
