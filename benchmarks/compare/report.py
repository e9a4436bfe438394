"""A run, as its JSON holds it, as the tables of ``docs/performance.md``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.compare.table import duration, rate, three_digits

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["as_markdown", "fill_in"]

BEGIN = "<!-- figures: written by `python -m benchmarks.compare --docs docs` -->"
END = "<!-- end of figures -->"


def as_markdown(run: dict[str, Any]) -> str:
    """Machine, targets and every ratio, as three blocks of Markdown."""
    return "\n".join([*_machine(run), "", *_targets(run), "", *_ratios(run), ""])


def fill_in(page: Path, run: dict[str, Any], plots: list[Path]) -> None:
    """Replace what stands between the two marks of `page` by the tables and the plots, which lie beside or below it.

    Raises
    ------
    ValueError
        The page has no such marks.
    """
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _old, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no place for figures: a line {BEGIN} and, further down, a line {END}")
    pictures = "".join(f"\n![{_caption(plot)}]({plot.relative_to(page.parent).as_posix()})\n" for plot in plots)
    page.write_text(f"{before}{begin}\n\n{as_markdown(run)}{pictures}\n{end}{after}", encoding="utf-8")


def _caption(plot: Path) -> str:
    return plot.stem.replace("beside-", "Everyone beside logstore: ").replace("-", " ")


def _machine(run: dict[str, Any]) -> list[str]:
    machine, facts = run["machine"], run["run"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items() if version)
    missing = sorted({f"{row['name']} ({row['not_measured']})" for _work, row in _rows(run) if "not_measured" in row})
    lines = [
        f"{machine['date'][:10]}, commit {machine['commit']}; {machine['processor']}, {machine['cores']} cores, "
        f"{machine['memory_gib']} GiB, {machine['file_system']}, {machine['system']}; Python {machine['python']}, "
        f"{versions}. {facts['records']:,} records of 16 + 100 bytes (as many bytes for other sizes), median of "
        f"{facts['rounds']} rounds; load before the run {machine['load_before']:.1f}.",
    ]
    return [*lines, "", f"Not measured: {'; '.join(missing)}."] if missing else lines


def _rows(run: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return [(work, row) for work in run["works"] for row in work["rows"]]


def _name(work: dict[str, Any]) -> str:
    return f"`{work['name']}`" + (f" {work['value_bytes']:,} B" if work["each_size"] else "")


def _figure(work: dict[str, Any], row: dict[str, Any]) -> str:
    if "median" not in row:
        return "not measured"
    if work["amount"]:
        return f"{three_digits(row['median'])} {work['amount']}"
    if row["median"] < 20_000 and work["unit"] != "records":
        return duration(1 / row["median"])
    return f"{rate(row['median'])} {work['unit']}/s"


def _targets(run: dict[str, Any]) -> list[str]:
    lines = [
        "| work | row | target | measured | of the target | by processor time |",
        "| --- | --- | --- | ---: | ---: | ---: |",
    ]
    for work in run["works"]:
        rows = {row["name"]: row for row in work["rows"]}
        for target in work["targets"]:
            met = target["met"]
            share = "not measured" if met is None else f"{met:.0%}" if met >= 1 else f"**{met:.0%}**, missed"
            figure = _figure(work, rows[target["contestant"]])
            by_processor = f"{target['met_by_processor']:.0%}" if target["met_by_processor"] else ""
            row = f"{_name(work)} | {target['contestant']} | {target['wanted']} | {figure} | {share} | {by_processor}"
            lines.append(f"| {row} |")
    return lines if len(lines) > 2 else []


def _ratios(run: dict[str, Any]) -> list[str]:
    lines = [
        "| work | logstore | beside | kind | logstore is | by processor time | spread |",
        "| --- | --- | --- | --- | ---: | ---: | ---: |",
    ]
    for work in run["works"]:
        measured = [row for row in work["rows"] if "median" in row]
        ours = next((row for row in measured if row["kind"] == "logstore"), None)
        if ours is None:
            continue
        first = f"{_name(work)} | {ours['name']}: {_figure(work, ours)}"
        for row in measured:
            if row is not ours:
                processor = f"{_two(row['cpu_seconds'] / ours['cpu_seconds'])} x" if ours.get("cpu_seconds") else ""
                spread = f"{max(row['spread'], ours['spread']):.0%}"
                ratio = f"{_two(row['logstore_ratio'])} x"
                lines.append(f"| {first} | {row['name']} | {row['kind']} | {ratio} | {processor} | {spread} |")
                first = " | "
        if first != " | ":
            lines.append(f"| {first} | | | | | {ours['spread']:.0%} |")
    return lines


def _two(number: float) -> str:
    if number < 0.1:
        return f"{number:.1g}"
    return f"{number:.2f}" if number < 1 else f"{number:.1f}" if number < 10 else f"{number:.0f}"
