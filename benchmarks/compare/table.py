"""Results as an aligned table for people and as JSON for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TextIO

from benchmarks.compare.targets import verdicts

if TYPE_CHECKING:
    from collections.abc import Iterable

    from benchmarks.compare.runner import Row, WorkResult

__all__ = ["as_json", "duration", "rate", "show", "three_digits"]

HEADINGS = ("", "who", "per second", "each", "cpu each", "spread", "logstore is")
AMOUNT_HEADINGS = ("", "who", "{}", "", "", "spread", "logstore is")
STYLES = {"logstore": "bold green", "peer": "", "limit": "dim"}


def rate(per_second: float) -> str:
    """Three significant digits with a unit: ``2.51 M``."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k"), (1, "")):
        if per_second >= size:
            return f"{three_digits(per_second / size)}{unit}"
    return f"{per_second:.3g}"


def duration(seconds: float) -> str:
    """Three significant digits with a unit: ``398 ns``."""
    for size, unit in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= size:
            return f"{three_digits(seconds / size)} {unit}"
    return f"{three_digits(seconds * 1e9)} ns"


def three_digits(number: float) -> str:
    """Three significant digits, as far as a table needs them."""
    if number < 0.1:
        return f"{number:.2g}"
    digits = 2 if number < 10 else 1 if number < 100 else 0
    return f"{number:,.{digits}f}"


def _headings(result: WorkResult) -> tuple[str, ...]:
    unit = result.work.amount
    return tuple(heading.format(unit) for heading in AMOUNT_HEADINGS) if unit else HEADINGS


def _cells(result: WorkResult, row: Row) -> tuple[str, ...]:
    kind = row.contestant.kind
    if not row.values:
        return (kind, row.contestant.name, row.reason, "", "", "", "")
    reference = result.reference
    ratio = ""
    if reference.values:
        ratio = "-" if row is reference else f"{three_digits(reference.ratio_to(row))} x"
    if result.work.amount:
        figures = (three_digits(row.median), "", "")
    else:
        figures = (rate(row.median), duration(1 / row.median), duration(row.cpu_median))
    return (kind, row.contestant.name, *figures, f"{row.spread:.0%}", ratio)


def _title(result: WorkResult) -> str:
    size = f", values of {result.value_bytes:,} bytes" if result.work.each_size else ""
    return f"{result.work.title}{size}"


def show(result: WorkResult, out: TextIO) -> None:
    """Write one work's table to `out`: with rich on a terminal that has it, else in plain text."""
    if out.isatty():
        try:
            return _show_rich(result, out)
        except ImportError:
            pass
    return _show_plain(result, out)


def _show_plain(result: WorkResult, out: TextIO) -> None:
    lines = [_headings(result), *(_cells(result, row) for row in result.rows)]
    measured = [cells for cells, row in zip(lines[1:], result.rows, strict=True) if row.values]
    widths = [max(len(cells[column]) for cells in [lines[0], *measured]) for column in range(len(HEADINGS))]
    widths[0] = max(len(cells[0]) for cells in lines)
    widths[1] = max(len(cells[1]) for cells in lines)
    print(f"\n{result.work.name}: {_title(result)}", file=out)
    for cells in lines:
        left = f"  {cells[0]:<{widths[0]}}  {cells[1]:<{widths[1]}}"
        if cells[5]:
            right = "".join(f"  {cell:>{width}}" for cell, width in zip(cells[2:], widths[2:], strict=True) if width)
        else:
            right = f"  {cells[2]}"
        print((left + right).rstrip(), file=out)
    for verdict in verdicts(result):
        print(f"  [{verdict.contestant}] {verdict.text}", file=out)


def _show_rich(result: WorkResult, out: TextIO) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(
        title=f"[bold]{result.work.name}[/]: {_title(result)}",
        title_justify="left",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    headings = _headings(result)
    for heading in headings[:2]:
        table.add_column(heading, no_wrap=True)
    for heading in headings[2:]:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in result.rows:
        if row.values:
            table.add_row(*map(escape, _cells(result, row)), style=STYLES[row.contestant.kind])
    console = Console(file=out, highlight=False)
    console.print()
    console.print(table)
    for row in result.rows:
        if not row.values:
            said = f"{row.contestant.kind:<8}  {row.contestant.name}  {row.reason}"
            console.print(escape(said), style="yellow")
    colours = {True: "green", False: "red", None: "yellow"}
    for verdict in verdicts(result):
        console.print(f"  {escape(f'[{verdict.contestant}] {verdict.text}')}", style=colours[verdict.reached])


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
                "amount": result.work.amount or None,
                "value_bytes": result.value_bytes,
                "each_size": result.work.each_size,
                "rows": [_row_as_json(result, row) for row in result.rows],
                "targets": [
                    {
                        "contestant": verdict.contestant,
                        "wanted": verdict.wanted,
                        "met": verdict.met,
                        "met_by_processor": verdict.met_by_processor,
                        "reached": verdict.reached,
                    }
                    for verdict in verdicts(result)
                ],
            }
            for result in results
        ],
    }


def _row_as_json(result: WorkResult, row: Row) -> dict[str, Any]:
    facts: dict[str, Any] = {"name": row.contestant.name, "kind": row.contestant.kind}
    if not row.values:
        return {**facts, "not_measured": row.reason}
    facts |= {"median": row.median, "rounds": row.values, "spread": row.spread}
    if row.cpu_seconds:
        facts |= {"cpu_seconds": row.cpu_median, "cpu_seconds_rounds": row.cpu_seconds}
    if result.reference.values:
        facts["logstore_ratio"] = result.reference.ratio_to(row)
    return facts
