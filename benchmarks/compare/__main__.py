"""``python -m benchmarks.compare``: run the works, print the tables, keep the figures, draw them."""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.compare.machine import machine_facts
from benchmarks.compare.measure import file_system_of
from benchmarks.compare.progress import Progress
from benchmarks.compare.report import as_markdown, fill_in
from benchmarks.compare.runner import WorkResult, run_work, steps_of
from benchmarks.compare.table import as_json, show
from benchmarks.compare.works import FULL, QUICK, Sizes, all_works
from benchmarks.sample import KEY_BYTES, WrongResultError, sample_records

if TYPE_CHECKING:
    from benchmarks.compare.measure import Work

VALUE_BYTES = (100, 1000)
BYTES_OF_A_SMALL_RECORD = KEY_BYTES + 100


def main(arguments: list[str] | None = None) -> int:
    """Run; 0 when all was tried, 1 when a result was wrong, 2 for a wrong call."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.docs:
        options.json = options.json or options.docs / "performance.json"
        options.plot = options.plot or options.docs / "plots"
    if options.source:
        return _write(json.loads(options.source.read_text(encoding="utf-8")), options)
    works = _chosen(parser, options)
    if options.list:
        for work in works:
            print(f"{work.name:<28}{work.title}")
        return 0
    value_bytes = tuple(options.value_bytes or (VALUE_BYTES[:1] if options.quick else VALUE_BYTES))
    rounds = min(options.rounds, 2) if options.quick else options.rounds
    records = options.records or (QUICK if options.quick else FULL).records
    run = {"records": records, "rounds": rounds, "value_bytes": value_bytes, "quick": options.quick}
    machine = machine_facts(options.dir)
    _say_machine(machine, run)
    try:
        results = _run(works, options.dir, records, rounds, value_bytes)
    except WrongResultError as error:
        print(f"\nWRONG RESULT: {error}", file=sys.stderr)
        return 1
    machine["load_after"] = os.getloadavg()[0]
    return _write(as_json(results, machine, run), options)


def _run(works: list[Work], directory: Path, records: int, rounds: int, sizes: tuple[int, ...]) -> list[WorkResult]:
    turns = [(work, size) for work in works for size in (sizes if work.each_size else sizes[:1])]
    progress = Progress(sys.stderr, sum(steps_of(work, rounds) for work, _size in turns))
    results = []
    with tempfile.TemporaryDirectory(prefix="logstore-compare-", dir=directory) as scratch:
        for work, size in turns:
            count = max(1000, records * BYTES_OF_A_SMALL_RECORD // (KEY_BYTES + size))
            try:
                result = run_work(work, sample_records(count, size), Path(scratch), rounds, on_step=progress.step)
            except WrongResultError as error:
                raise WrongResultError(f"{work.name}: {error}") from error
            finally:
                progress.clear()
            progress.skip(sum(1 + min(rounds, work.rounds_max) for row in result.rows if not row.values))
            show(result, sys.stdout)
            sys.stdout.flush()
            results.append(result)
    return results


def _chosen(parser: argparse.ArgumentParser, options: argparse.Namespace) -> list[Work]:
    if options.rounds < 1 or min(options.value_bytes or [80]) < 80 or (options.records or 1) < 1:
        parser.error("--rounds and --records must be at least 1, --value-bytes at least 80")
    sizes = QUICK if options.quick else FULL
    works = all_works(Sizes(sizes.records, sizes.flushed_records, options.open_mib or sizes.open_mib, sizes.partitions))
    if options.only:
        wanted = [work for work in works if any(_is_meant(work.name, only) for only in options.only)]
        if not wanted:
            parser.error(f"no work is called {' or '.join(options.only)}; --list names them all")
        works = wanted
    if not options.dir.is_dir():
        parser.error(f"--dir: {options.dir} is not a directory")
    if file_system_of(options.dir) in ("tmpfs", "ramfs"):
        parser.error(f"{options.dir} is in memory, not on a disk; name another with --dir")
    return works


def _is_meant(name: str, only: str) -> bool:
    return fnmatch.fnmatchcase(name, only) or name.startswith(f"{only}-")


def _write(run: dict[str, Any], options: argparse.Namespace) -> int:
    if options.json:
        options.json.write_text(json.dumps(run, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if options.markdown:
        options.markdown.write_text(as_markdown(run), encoding="utf-8")
    plots: list[Path] = []
    if options.plot:
        from benchmarks.compare.plots import draw

        plots = draw(run, options.plot)
        print("".join(f"drawn: {path}\n" for path in plots), end="")
    if options.docs:
        fill_in(options.docs / "performance.md", run, plots)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare",
        description="logstore, its peers and the limits of this machine, side by side in one run.",
    )
    parser.add_argument("--quick", action="store_true", help="small and rough: does it all run?")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default: %(default)s")
    parser.add_argument("--records", type=int, metavar="N", help=f"default: {FULL.records:,} of 100 bytes")
    parser.add_argument(
        "--value-bytes", type=int, action="append", metavar="N", help="may be repeated; default: 100 and 1,000"
    )
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="one work, or all that begin so; may be repeated; * matches"
    )
    parser.add_argument(
        "--open-mib",
        type=int,
        action="append",
        metavar="N",
        help="how large the stores are that are opened and grown into; may be repeated; default: 64 and 1,024",
    )
    parser.add_argument("--dir", type=Path, default=Path(), metavar="DIR", help="where data goes; default: here")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round to FILE too")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write targets and ratios to FILE as tables")
    parser.add_argument("--plot", type=Path, metavar="DIR", help="draw SVGs into DIR (needs matplotlib)")
    parser.add_argument(
        "--docs", type=Path, metavar="DIR", help="all three for the docs: DIR/performance.json, .md and DIR/plots"
    )
    parser.add_argument(
        "--from", dest="source", type=Path, metavar="FILE", help="measure nothing: take what --json wrote to FILE"
    )
    parser.add_argument("--list", action="store_true", help="name the works and stop")
    return parser


def _say_machine(machine: dict[str, Any], run: dict[str, Any]) -> None:
    sizes = " and ".join(f"{size:,}" for size in run["value_bytes"])
    print(
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, "
        f"{machine['file_system'] or 'unknown file system'}, Python {machine['python']}\n"
        f"{run['records']:,} records of {KEY_BYTES} + 100 bytes, as many bytes for other sizes; values of {sizes} bytes; "
        f"median of {run['rounds']} rounds, one after the other in turn"
    )


if __name__ == "__main__":
    sys.exit(main())
