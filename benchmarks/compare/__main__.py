"""``python -m benchmarks.compare``: run the works, print the tables, keep the figures."""

from __future__ import annotations

import argparse
import fnmatch
import json
import sys
import tempfile
from pathlib import Path

from benchmarks.compare.machine import machine_facts
from benchmarks.compare.measure import file_system_of
from benchmarks.compare.runner import run_work
from benchmarks.compare.table import as_json, as_markdown, show
from benchmarks.compare.works import FLUSHED_RECORDS, all_works
from benchmarks.sample import KEY_BYTES, WrongResultError, sample_records

RECORDS = 200_000
QUICK_RECORDS = 20_000
QUICK_FLUSHED_RECORDS = 50
BYTES_OF_A_SMALL_RECORD = KEY_BYTES + 100


def main(arguments: list[str] | None = None) -> int:
    """Run; 0 when all was tried, 1 when a result was wrong, 2 for a wrong call."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.rounds < 1 or options.value_bytes < 80 or (options.records or 1) < 1:
        parser.error("--rounds and --records must be at least 1, --value-bytes at least 80")
    open_mib = options.open_mib or ([8] if options.quick else [64, 512])
    rounds = min(options.rounds, 2) if options.quick else options.rounds
    records = options.records or _default_records(options.value_bytes, quick=options.quick)
    works = all_works(open_mib, QUICK_FLUSHED_RECORDS if options.quick else FLUSHED_RECORDS)
    if options.list:
        for work in works:
            print(f"{work.name:<24}{work.title}")
        return 0
    if options.only:
        wanted = [work for work in works if any(_matches(work.name, only) for only in options.only)]
        if not wanted:
            parser.error(f"no work is called {' or '.join(options.only)}; --list names them all")
        works = wanted
    if not options.dir.is_dir():
        parser.error(f"--dir: {options.dir} is not a directory")
    if file_system_of(options.dir) in ("tmpfs", "ramfs"):
        parser.error(f"{options.dir} is in memory, not on a disk; name another with --dir")

    sample = sample_records(records, options.value_bytes)
    run = {"records": records, "rounds": rounds, "value_bytes": options.value_bytes}
    machine = machine_facts(options.dir)
    _say_machine(machine, run)
    progress = _progress if sys.stderr.isatty() else _silent
    results = []
    with tempfile.TemporaryDirectory(prefix="logstore-compare-", dir=options.dir) as directory:
        for work in works:
            try:
                result = run_work(work, sample, Path(directory), rounds, on_step=progress)
            except WrongResultError as error:
                progress("")
                print(f"{work.name}: WRONG RESULT: {error}", file=sys.stderr)
                return 1
            progress("")
            show(result, sys.stdout)
            sys.stdout.flush()
            results.append(result)
    if options.json:
        text = json.dumps(as_json(results, machine, run), indent=2, ensure_ascii=False)
        options.json.write_text(text + "\n", encoding="utf-8")
    if options.markdown:
        options.markdown.write_text(as_markdown(results), encoding="utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare",
        description="logstore, its peers and the limits of this machine, side by side in one run.",
    )
    parser.add_argument("--quick", action="store_true", help="small and rough: does it all run?")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default: %(default)s")
    parser.add_argument("--records", type=int, metavar="N", help=f"default: {RECORDS:,} of 100 bytes")
    parser.add_argument("--value-bytes", type=int, default=100, metavar="N", help="default: %(default)s")
    parser.add_argument("--only", action="append", metavar="NAME", help="one work; may be repeated, * matches")
    parser.add_argument(
        "--open-mib",
        type=int,
        action="append",
        metavar="N",
        help="sizes to open; default: 64 and 512",
    )
    parser.add_argument("--dir", type=Path, default=Path(), metavar="DIR", help="where data goes; default: here")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round to FILE too")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the ratios to FILE as a table")
    parser.add_argument("--list", action="store_true", help="name the works and stop")
    return parser


def _default_records(value_bytes: int, *, quick: bool) -> int:
    records = QUICK_RECORDS if quick else RECORDS
    return max(1000, records * BYTES_OF_A_SMALL_RECORD // (KEY_BYTES + value_bytes))


def _matches(name: str, only: str) -> bool:
    return name == only or fnmatch.fnmatchcase(name, only)


def _say_machine(machine: dict[str, object], run: dict[str, int]) -> None:
    print(
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, "
        f"{machine['file_system'] or 'unknown file system'}, Python {machine['python']}\n"
        f"{run['records']:,} records of {KEY_BYTES} + {run['value_bytes']} bytes, "
        f"median of {run['rounds']} rounds, one after the other in turn"
    )


def _progress(step: str) -> None:
    sys.stderr.write(f"\r\x1b[K{step}")
    sys.stderr.flush()


def _silent(step: str) -> None:
    pass


if __name__ == "__main__":
    sys.exit(main())
