"""The command line of ``python -m tests.crash``."""

from __future__ import annotations

import argparse

import faults


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description="What is tested, and how often.")
    parser.add_argument("--faults", action="store_true", help="list the faults, and the tests that show them")
    parser.add_argument("--write", action="store_true", help="with --faults: bring the documentation's tables up to date")
    arguments = parser.parse_args()
    if arguments.write:
        for page, table in faults.pages().items():
            page.write_text(faults.rewritten(page.read_text(encoding="utf-8"), table), encoding="utf-8")
    elif arguments.faults:
        print(faults.table_of_tests())
    return 0
