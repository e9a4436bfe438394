"""Clocks and timers that stand still until a test moves them."""

from __future__ import annotations

import heapq
import itertools
import time
from typing import TYPE_CHECKING

from logstore.broker.group_coordinator import GroupCoordinator

if TYPE_CHECKING:
    from collections.abc import Callable

    from logstore.broker import Broker


class VirtualTime:
    """One time for sessions, timestamps and timers; `advance` runs what falls due, at the time it falls due."""

    def __init__(self) -> None:
        self._start_ms = time.time_ns() // 1_000_000
        self._elapsed_ms = 0.0
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def clock_ms(self) -> float:
        """Monotonic."""
        return self._elapsed_ms

    def wall_clock_ms(self) -> int:
        """Since the epoch."""
        return self._start_ms + int(self._elapsed_ms)

    def schedule(self, delay_ms: float, step: Callable[[], None]) -> None:
        heapq.heappush(self._due, (self._elapsed_ms + delay_ms, next(self._order), step))

    def advance(self, ms: float) -> None:
        """Moves on, and runs the timers on the way."""
        end_ms = self._elapsed_ms + ms
        while self._due and self._due[0][0] <= end_ms:
            due_ms, _, step = heapq.heappop(self._due)
            self._elapsed_ms = max(self._elapsed_ms, due_ms)
            step()
        self._elapsed_ms = end_ms

    def coordinator(self, broker: Broker) -> GroupCoordinator:
        """Has a broker's groups live by this time."""
        self._due.clear()
        coordinator = GroupCoordinator(
            broker, clock_ms=self.clock_ms, wall_clock_ms=self.wall_clock_ms, schedule=self.schedule
        )
        broker._coordinator = coordinator
        return coordinator
