"""The command line of ``python -m tests.crash``: how long, what, and the table of counts at the end."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

import campaigns
import faults
import planted_bugs
import pytest

DESCRIPTION = """Does at length what the tests do in seconds, counts it, and holds every outcome against what was promised.
Without a choice: all but the planted bugs."""


class Run:
    """One campaign: what it counted, and the promises it found broken.

    Attributes
    ----------
    counts : Counter of label
    violations : list of str
        Each is a wrong answer that nobody was told of, or a record lost.
    not_tested : str
        Why it could not run here; empty if it could.
    """

    def __init__(self, name: str, seconds: float, seed: int, folder: Path, show) -> None:
        self.name, self.seconds, self.seed, self.folder = name, seconds, seed, folder
        self.counts: Counter[str] = Counter()
        self.violations: list[str] = []
        self.not_tested = ""
        self._show = show
        self._started = time.monotonic()

    @property
    def elapsed_seconds(self) -> float:
        return time.monotonic() - self._started

    @property
    def is_over(self) -> bool:
        return self.elapsed_seconds >= self.seconds

    def count(self, label: str, number: int = 1) -> None:
        self.counts[label] += number
        self._show(self)

    def broken(self, error: BaseException) -> None:
        """A promise is broken; the run goes on."""
        self.violations.append("".join(traceback.format_exception(error, limit=-3)).strip())


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=DESCRIPTION)
    for name, campaign in campaigns.CAMPAIGNS.items():
        parser.add_argument(f"--{name}", action="store_true", help=(campaign.__doc__ or "").split("\n")[0])
    parser.add_argument("--planted", action="store_true", help="Plant bugs in a copy of the checkout: are they caught?")
    parser.add_argument("--only", metavar="TEXT", default="", help="with --planted: the bugs with this in their names")
    parser.add_argument("--seconds", type=float, default=60, help="for each choice (60); a sweep may end before")
    parser.add_argument("--seed", type=int, default=1, help="what is chosen at random; a violation names it")
    parser.add_argument("--json", action="store_true", help="the counts as JSON on standard output")
    parser.add_argument("--faults", action="store_true", help="list the faults, and the tests that show them; nothing else")
    parser.add_argument("--write", action="store_true", help="bring the documentation's tables up to date; nothing else")
    arguments = parser.parse_args()
    if arguments.write:
        for page, table in faults.pages().items():
            page.write_text(faults.rewritten(page.read_text(encoding="utf-8"), table), encoding="utf-8")
        return 0
    if arguments.faults:
        print(faults.table_of_tests())
        return 0
    if arguments.planted:
        return planted_bugs.run(arguments.only, as_json=arguments.json)
    chosen = [name for name in campaigns.CAMPAIGNS if getattr(arguments, name.replace("-", "_"))]
    return _run(chosen or list(campaigns.CAMPAIGNS), arguments)


def _run(names: list[str], arguments: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    logging.disable(logging.CRITICAL)  # damage is what this is about
    runs: list[Run] = []
    columns = (TextColumn("{task.description:<10}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
               TextColumn("{task.fields[said]}"))  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as progress:
        for name in names:
            task = progress.add_task(name, total=arguments.seconds, said="")

            def show(run: Run, task=task) -> None:
                said = ", ".join(f"{count:,} {label}" for label, count in run.counts.items())
                progress.update(task, completed=min(run.elapsed_seconds, run.seconds), said=said)

            # In memory where there is some: what a power cut leaves is worked out, not tried on a disk.
            parent = "/dev/shm" if Path("/dev/shm").is_dir() else None
            with tempfile.TemporaryDirectory(prefix="logstore-crash-", dir=parent) as folder:
                run = Run(name, arguments.seconds, arguments.seed, Path(folder), show)
                runs.append(run)
                try:
                    campaigns.CAMPAIGNS[name](run)
                except pytest.skip.Exception as skipped:
                    run.not_tested = str(skipped)
                except Exception as error:
                    run.broken(error)
                run.seconds = round(run.elapsed_seconds, 1)
            progress.update(task, completed=arguments.seconds)
    return _tell(runs, arguments)


def _tell(runs: list[Run], arguments: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    wrong = sum(len(run.violations) for run in runs)
    if arguments.json:
        json.dump({
            "seed": arguments.seed,
            "violations": wrong,
            "runs": [
                {"name": run.name, "seconds": run.seconds, "counts": dict(run.counts), "violations": run.violations,
                 "not_tested": run.not_tested}
                for run in runs
            ],
        }, sys.stdout, indent=2)  # fmt: skip
        print()
    else:
        table = Table(box=None, pad_edge=False)
        for header, justify in (("", "left"), ("counted", "left"), ("number", "right"), ("seconds", "right")):
            table.add_column(header, justify=justify)
        for run in runs:
            if run.not_tested:
                table.add_row(run.name, run.not_tested, "", f"{run.seconds:.0f}")
            for number, (label, count) in enumerate(run.counts.items()):
                table.add_row("" if number else run.name, label, f"{count:,}", "" if number else f"{run.seconds:.0f}")
        table.add_row("all", "broken promises and silent wrong answers", f"{wrong:,}", "")
        Console().print(table)
    for run in runs:
        for text in run.violations[:5]:
            print(f"\n{run.name}, seed {run.seed}:\n{text}", file=sys.stderr)
    return 1 if wrong else 0
