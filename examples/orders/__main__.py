"""Runs the orders example: ``python -m examples.orders`` in the checkout, ``logstore demo`` once installed."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import logstore

from .check import ServiceCheck
from .scenario import Scenario
from .table import Lines, LiveTable


def main(arguments: list[str] | None = None) -> int:
    """Plays the scenario; 0 if every order was handled as promised, otherwise 1."""
    parser = argparse.ArgumentParser(prog="orders", description=__doc__)
    parser.add_argument("--rate", type=float, default=500.0, help="orders a second (500)")
    parser.add_argument("--seconds", type=float, default=15.0, help="how long orders are placed (15)")
    parser.add_argument("--seed", type=int, default=1, help="which orders (1)")
    parser.add_argument("--directory", type=Path, help="where to keep the data; a temporary directory if not given")
    parser.add_argument("--json", action="store_true", help="the outcome as JSON")
    options = parser.parse_args(arguments)
    return run(options.rate, options.seconds, options.seed, options.directory, as_json=options.json)


def run(rate: float, seconds: float, seed: int, directory: Path | None = None, *, as_json: bool = False) -> int:
    """Plays the scenario in a directory, and says how it went."""
    with tempfile.TemporaryDirectory(prefix="logstore-orders-") as temporary:
        place = Path(temporary) / "data" if directory is None else directory
        with logstore.open(place, group_min_session_timeout_ms="100ms") as broker:
            if "orders" in broker:
                print(f"{place} has a topic 'orders' already; give a new directory", file=sys.stderr)
                return 2
            with LiveTable() if sys.stderr.isatty() and not as_json else Lines() as show:
                scenario = Scenario(broker, rate, seconds, seed, show)
                checks = scenario.run()
            placed, failed = scenario.orders.placed, scenario.orders.failed
            if as_json:
                print(json.dumps(outcome(scenario, checks)))
            else:
                report(scenario, checks)
    return 0 if placed and not failed and all(check.passed for check in checks) else 1


def outcome(scenario: Scenario, checks: list[ServiceCheck]) -> dict[str, object]:
    """The outcome for machines."""
    return {
        "placed": scenario.orders.placed,
        "failed": scenario.orders.failed,
        "seconds": round(scenario.elapsed, 3),
        "revenue_cents": dict(scenario.revenue),
        "events": [{"at": round(when, 3), "what": what} for when, what in scenario.events],
        "services": [{**check._asdict(), "passed": check.passed} for check in checks],
    }


def report(scenario: Scenario, checks: list[ServiceCheck]) -> None:
    """The outcome for people."""
    print(f"\n{scenario.orders.placed:,} orders were placed, every one of them on disk.")
    for check in checks:
        where = ", ".join(f"{count:,} by {replica}" for replica, count in check.by_replica.items())
        if check.passed:
            again = f"; {check.repeated:,} of them twice" if check.repeated else ""
            print(f"  {check.service:<13} handled every order{again}, in order for each customer: {where}")
        else:
            print(
                f"  {check.service:<13} FAILED: {len(check.missing):,} never handled {check.missing[:5]}, "
                f"{len(check.out_of_order):,} out of order {check.out_of_order[:5]}: {where}"
            )
    partitions = {partition: count for check in checks[:1] for partition, count in check.by_partition.items()}
    print("  where         " + ", ".join(f"{count:,} in partition {number}" for number, count in partitions.items()))
    best = ", ".join(f"{item} {cents / 100:,.2f}" for item, cents in scenario.revenue.most_common(3))
    print(f"  analytics     read them all as columns; most was taken for {best}")


if __name__ == "__main__":
    sys.exit(main())
