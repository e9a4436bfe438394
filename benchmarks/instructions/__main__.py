"""``python -m benchmarks.instructions``: count, print, compare with what was counted before."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
REFERENCE = HERE / "reference.json"
TOLERANCE = 0.10
# Records that come slowly go another way: on a busy machine, which counts slowly, more of them do. At worst all: then
# it is the path named here that they may not exceed.
TIMED = {"append, appended": "append, appended, each written"}
CALLGRIND = ("--tool=callgrind", "--instr-atstart=no", "--quiet")
TRIGGER = re.compile(r"^desc: Trigger: Client Request: (.*) #\d+$", re.MULTILINE)
TOTAL = re.compile(r"^(?:totals|summary): (\d+)", re.MULTILINE)


class CannotCountError(Exception):
    """Instructions cannot be counted here; the message says why."""


def main(arguments: list[str] | None = None) -> int:
    """0 when all is within the tolerance or cannot be counted here, 1 where a path became slower."""
    options = _parser().parse_args(arguments)
    try:
        counted = _count(options.keep)
    except CannotCountError as error:
        print(f"NOT COUNTED: {error}")
        return 0
    found = {"environment": _environment(), "instructions": counted}
    known = _known(options.compare)
    slower = _show(counted, known, options.tolerance)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if slower:
        print(
            f"\nmore than {options.tolerance:.0%} above {options.compare}: {', '.join(slower)}\n"
            f"If that is meant: python -m benchmarks.instructions --json {options.compare}"
        )
    return 1 if slower else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.instructions",
        description="Instructions a record of the hot paths, counted by callgrind. Needs valgrind and a C compiler.",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the counts to FILE")
    parser.add_argument(
        "--compare",
        type=Path,
        nargs="?",
        const=REFERENCE,
        metavar="FILE",
        help="fail where a path takes more than FILE says; the counts kept here if FILE is left out",
    )
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, metavar="SHARE", help="default: %(default)s")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep callgrind's files there, for callgrind_annotate")
    return parser


def _count(keep: Path | None) -> dict[str, float]:
    """Instructions a record by path."""
    if shutil.which("valgrind") is None:
        raise CannotCountError("valgrind is not here (apt-get install valgrind)")
    with tempfile.TemporaryDirectory(prefix="logstore-instructions-") as scratch:
        directory = keep or Path(scratch)
        directory.mkdir(parents=True, exist_ok=True)
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        done = subprocess.run(
            [
                *("valgrind", *CALLGRIND, f"--callgrind-out-file={directory / 'callgrind.out'}"),
                *(sys.executable, "-m", "benchmarks.instructions.paths", scratch),
            ],
            env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "0"},
            capture_output=True,
            text=True,
            check=False,
        )
        if "valgrind/callgrind.h" in done.stderr:
            raise CannotCountError("valgrind's headers are not here")
        if done.returncode != 0:
            raise RuntimeError(f"the counted process failed:\n{done.stdout}{done.stderr}")
        records = {name: int(count) for count, name in (line.split("\t") for line in done.stdout.splitlines())}
        totals: dict[str, int] = {}
        for file in directory.glob("callgrind.out.*"):
            text = file.read_text(encoding="utf-8", errors="replace")
            trigger, total = TRIGGER.search(text), TOTAL.search(text)
            if trigger and total:
                name = trigger.group(1)
                totals[name] = min(int(total.group(1)), totals.get(name, sys.maxsize))
    if totals.keys() != records.keys():
        raise RuntimeError(f"callgrind counted {sorted(totals)} of {sorted(records)}")
    return {name: round(totals[name] / count, 1) for name, count in records.items()}


def _environment() -> dict[str, str]:
    """What counts depend on besides the code."""
    return {"python": ".".join(platform.python_version_tuple()[:2]), "machine": platform.machine()}


def _known(path: Path | None) -> dict[str, float]:
    if path is None:
        return {}
    stored = json.loads(path.read_text(encoding="utf-8"))
    if stored["environment"] != _environment():
        there = "Python {python} on {machine}".format(**stored["environment"])
        print(f"NOT COMPARED: {path} was counted with {there}")
        return {}
    known: dict[str, float] = stored["instructions"]
    return known


def _show(counted: dict[str, float], known: dict[str, float], tolerance: float) -> list[str]:
    """Print a line a path; give those that are above the tolerance."""
    width = max(map(len, counted))
    print(f"{'path':<{width}}  {'instructions a record':>21}" + (f"  {'before':>9}  {'change':>7}" if known else ""))
    slower = []
    for name, count in counted.items():
        line = f"{name:<{width}}  {count:>21,.0f}"
        if name in known:
            change = count / known[name] - 1
            line += f"  {known[name]:>9,.0f}  {change:>+7.1%}"
            if count > known.get(TIMED.get(name, name), known[name]) * (1 + tolerance):
                slower.append(name)
        print(line)
    return slower


if __name__ == "__main__":
    sys.exit(main())
