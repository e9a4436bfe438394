"""What people see while it runs: a live table on a terminal, a line a second elsewhere."""

from __future__ import annotations

import sys
from time import monotonic
from typing import Any

from .scenario import SERVICES, Scenario

EVENTS_SHOWN = 8


class Rates:
    """Counts a second, over the last couple of seconds."""

    def __init__(self) -> None:
        self.seen: dict[str, list[tuple[float, int]]] = {}

    def of(self, name: str, count: int) -> float:
        now = monotonic()
        history = self.seen.setdefault(name, [])
        history.append((now, count))
        while history[0][0] < now - 2.0 and len(history) > 2:
            history.pop(0)
        span = now - history[0][0]
        return (count - history[0][1]) / span if span > 0 else 0.0


class LiveTable:
    """Redraws itself in place."""

    def __init__(self) -> None:
        from rich.live import Live

        self.rates = Rates()
        self.live = Live(refresh_per_second=8, transient=False)

    def __enter__(self) -> LiveTable:
        self.live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.live.stop()

    def __call__(self, scenario: Scenario) -> None:
        from rich.console import Group
        from rich.text import Text

        events = scenario.events[-EVENTS_SHOWN:]
        self.live.update(
            Group(
                self.services(scenario),
                *(Text(f"{when:6.1f} s  {event}", style="dim" if at < len(events) - 1 else "") for at, (when, event) in
                  enumerate(events)),
            )
        )

    def services(self, scenario: Scenario) -> Any:
        from rich import box
        from rich.table import Table

        placed = scenario.orders.placed
        table = Table(
            box=box.SIMPLE_HEAD,
            title=f"{placed:,} orders placed, {self.rates.of('orders', placed):,.0f} a second",
            title_justify="left",
        )
        table.add_column("service")
        table.add_column("replica")
        table.add_column("state")
        table.add_column("partitions")
        for heading in ("handled", "a second", "lag", "lag, s"):
            table.add_column(heading, justify="right")
        for service in SERVICES:
            lag = scenario.lag(service)
            for at, replica in enumerate(r for r in scenario.replicas if r.service == service):
                style = {"killed": "red", "stopped": "yellow"}.get(replica.state, "")
                table.add_row(
                    service if at == 0 else "",
                    replica.name,
                    replica.state,
                    " ".join(map(str, replica.owned)) or "-",
                    f"{replica.handled:,}",
                    f"{self.rates.of(replica.name, replica.handled):,.0f}",
                    f"{lag.records:,}" if at == 0 else "",
                    f"{lag.seconds:.1f}" if at == 0 else "",
                    style=style,
                )
        return table


class Lines:
    """One line a second, and one for each event, on standard error."""

    def __init__(self) -> None:
        self.due = 0.0
        self.told = 0

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def __call__(self, scenario: Scenario) -> None:
        for when, event in scenario.events[self.told :]:
            print(f"{when:6.1f} s  {event}", file=sys.stderr)
        self.told = len(scenario.events)
        if monotonic() < self.due:
            return
        self.due = monotonic() + 1.0
        parts = []
        for service in SERVICES:
            handled = sum(replica.handled for replica in scenario.replicas if replica.service == service)
            parts.append(f"{service} {handled:,} (lag {scenario.lag(service).records:,})")
        print(
            f"{scenario.elapsed:6.1f} s  orders {scenario.orders.placed:,}, handled: {', '.join(parts)}", file=sys.stderr
        )
