"""Results as an aligned table for people and as JSON for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TextIO

from benchmarks.compare.targets import verdicts

if TYPE_CHECKING:
    from collections.abc import Iterable

    from benchmarks.compare.runner import Row, WorkResult

__all__ = ["as_json", "as_markdown", "rate", "show"]

HEADINGS = ("", "who", "per second", "each", "cpu each", "spread", "logstore is")
STYLES = {"logstore": "bold green", "peer": "", "limit": "dim"}


def rate(per_second: float) -> str:
    """Three significant digits with a unit: ``2.51 M``."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k"), (1, "")):
        if per_second >= size:
            return f"{_three(per_second / size)}{unit}"
    return f"{per_second:.3g}"


def duration(seconds: float) -> str:
    """Three significant digits with a unit: ``398 ns``."""
    for size, unit in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= size:
            return f"{_three(seconds / size)} {unit}"
    return f"{_three(seconds * 1e9)} ns"


def _three(number: float) -> str:
    if number < 0.1:
        return f"{number:.2g}"
    digits = 2 if number < 10 else 1 if number < 100 else 0
    return f"{number:.{digits}f}"


def _cells(result: WorkResult, row: Row) -> tuple[str, ...]:
    kind = row.contestant.kind
    if not row.rates:
        return (kind, row.contestant.name, row.reason, "", "", "", "")
    reference = result.reference
    ratio = ""
    if reference.rates:
        ratio = "-" if row is reference else f"{_three(reference.median / row.median)} x"
    return (
        kind,
        row.contestant.name,
        rate(row.median),
        duration(1 / row.median),
        duration(row.cpu_median),
        f"{row.spread:.0%}",
        ratio,
    )


def show(result: WorkResult, out: TextIO) -> None:
    """Write one work's table to `out`: with rich on a terminal that has it, else in plain text."""
    if out.isatty():
        try:
            return _show_rich(result, out)
        except ImportError:
            pass
    return _show_plain(result, out)


def _show_plain(result: WorkResult, out: TextIO) -> None:
    lines = [HEADINGS, *(_cells(result, row) for row in result.rows)]
    measured = [cells for cells in lines if cells[3]]
    widths = [max(len(cells[column]) for cells in measured or lines) for column in range(len(HEADINGS))]
    widths[0] = max(len(cells[0]) for cells in lines)
    widths[1] = max(len(cells[1]) for cells in lines)
    print(f"\n{result.work.name}: {result.work.title}", file=out)
    for cells in lines:
        left = f"  {cells[0]:<{widths[0]}}  {cells[1]:<{widths[1]}}"
        if cells[3]:
            right = "".join(f"  {cell:>{width}}" for cell, width in zip(cells[2:], widths[2:], strict=True))
        else:
            right = f"  {cells[2]}"
        print((left + right).rstrip(), file=out)
    for verdict in verdicts(result):
        print(f"  {verdict.text}", file=out)


def _show_rich(result: WorkResult, out: TextIO) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(
        title=f"[bold]{result.work.name}[/]: {result.work.title}",
        title_justify="left",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    for heading in HEADINGS[:2]:
        table.add_column(heading, no_wrap=True)
    for heading in HEADINGS[2:]:
        table.add_column(heading, justify="right")
    for row in result.rows:
        if row.rates:
            style = STYLES[row.contestant.kind]
            table.add_row(*map(escape, _cells(result, row)), style=style)
    console = Console(file=out, highlight=False)
    console.print()
    console.print(table)
    for row in result.rows:
        if not row.rates:
            said = f"{row.contestant.kind:<8}  {row.contestant.name}  {row.reason}"
            console.print(escape(said), style="yellow")
    colours = {True: "green", False: "red", None: "yellow"}
    for verdict in verdicts(result):
        console.print(f"  {escape(verdict.text)}", style=colours[verdict.reached])


def as_markdown(results: Iterable[WorkResult]) -> str:
    """One table for all works, as ratios: what ``docs/performance.md`` shows."""
    lines = [
        "| work | logstore | beside | logstore is | by processor time | spread |",
        "| --- | --- | --- | ---: | ---: | ---: |",
    ]
    for result in results:
        reference = result.reference
        first = f"`{result.work.name}` | {reference.contestant.name}"
        for row in result.rows:
            if row is not reference and row.rates and reference.rates:
                clock = f"{_two(reference.median / row.median)} x"
                processor = f"{_two(row.cpu_median / reference.cpu_median)} x"
                spread = f"{max(row.spread, reference.spread):.0%}"
                name = row.contestant.name
                lines.append(f"| {first} | {name} | {clock} | {processor} | {spread} |")
                first = " | "
    return "\n".join(lines) + "\n"


def _two(number: float) -> str:
    if number < 0.1:
        return f"{number:.1g}"
    return f"{number:.2f}" if number < 1 else f"{number:.1f}" if number < 10 else f"{number:.0f}"


def as_json(results: Iterable[WorkResult], machine: dict[str, Any], run: dict[str, Any]) -> dict[str, Any]:
    """Everything measured, every round, with the facts about machine and run."""
    return {
        "machine": machine,
        "run": run,
        "works": [
            {
                "name": result.work.name,
                "title": result.work.title,
                "unit": result.work.unit,
                "rows": [_row_as_json(result, row) for row in result.rows],
                "targets": [{"text": verdict.text, "reached": verdict.reached} for verdict in verdicts(result)],
            }
            for result in results
        ],
    }


def _row_as_json(result: WorkResult, row: Row) -> dict[str, Any]:
    facts: dict[str, Any] = {"name": row.contestant.name, "kind": row.contestant.kind}
    if not row.rates:
        return {**facts, "not_measured": row.reason}
    facts |= {
        "per_second": row.median,
        "per_second_rounds": row.rates,
        "cpu_seconds": row.cpu_median,
        "cpu_seconds_rounds": row.cpu_seconds,
        "spread": row.spread,
    }
    if result.reference.rates:
        facts["logstore_ratio"] = result.reference.median / row.median
    return facts
