"""What can happen to a log, by number: the table that tests are held against.

A test says which of them it shows with ``@pytest.mark.fault(number, "name")``; `test_fault_table.py` refuses a fault that no
test shows, a mark with another name, and tables in the documentation that say something else. After a change:

    python -m tests.crash --faults --write
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["FAULTS", "NOT_HERE_YET", "Fault", "Mark", "marks", "pages", "rewritten"]

TESTS = Path(__file__).parents[1]


class Fault(NamedTuple):
    """``answer``: what the log does about it."""

    name: str
    answer: str


FAULTS = {
    1: Fault("kill -9 in an append",
         "keeps every record acknowledged as `appended`; a torn last batch is cut, and said"),
    2: Fault("power loss", "keeps every record acknowledged as `flushed`; what is left is a prefix"),
    3: Fault("write torn at 512 or 4096 bytes", "the whole batch is gone, those before it are untouched"),
    4: Fault("writes on disk in another order",
         "cuts at the first hole; a later batch never comes back, also not after new appends"),
    5: Fault("a new or renamed file's name lost",
         "syncs the directory before the first acknowledgement and after each rename"),
    6: Fault("zeros or garbage behind what was synced", "never takes them for records"),
    7: Fault("fsync fails", "no retry: closes the log for writing, reads go on, the next open writes the tail again"),
    8: Fault("a write fails, is cut short, is interrupted",
         "goes on with what is left of it, or takes all of it back and says so"),
    9: Fault("disk full, no inodes, over quota",
         "`DiskFullError`, nothing of the append stays; goes on by itself once there is room"),
    10: Fault("too many open files", "an error that says so, nothing half made; goes on later"),
    11: Fault("a bit flipped in a record", "names file, position and offsets; reads around it; refuses to append"),
    12: Fault("a bit flipped where no CRC is", "structure and neighbours tell most; the segment's digest tells all"),
    13: Fault("lost, misplaced, stale or swapped blocks and files",
         "digest, base offset and order tell; nothing is taken for another"),
    14: Fault("index missing, damaged, stale", "makes it anew; slower, never another answer"),
    15: Fault("segment missing, cut or doubled", "names the offsets; a read over the gap raises; refuses to append"),
    16: Fault("checkpoint or metadata damaged", "derives them from the segments; deletes no record for them"),
    17: Fault("crash in compaction, retention, roll, truncation, repair, backup, recovery, close",
              "the state before or the one after; recovering twice changes nothing more"),
    18: Fault("compaction takes too much",
         "each key's last record stays, offsets and order too; tombstones for as long as they must"),
    19: Fault("two writers", "the second is refused, with the first one's process id"),
    20: Fault("fork after open", "the child's log is closed, the parent's goes on"),
    21: Fault("readers while segments are deleted or replaced",
         "what they hold stays; a position that is gone is a typed error"),
    22: Fault("readers at the end while it grows or is cut",
         "see published records only; after a truncation an error, never others in their place"),
    23: Fault("views that outlive their log", "the memory stays as long as anything points into it"),
    24: Fault("a file cut or unreadable under a reader", "an error; log files are never mapped, so no SIGBUS"),
    25: Fault("signal or exception within a call", "all of the append or nothing; locks are free; the next one works; a "
              "handler that calls into the middle of a call is served, or refused with an error, and never waits for "
              "itself"),
    26: Fault("end of the interpreter", "what was taken is written; no hang, no lost buffer, no noise"),
    27: Fault("many threads on one log", "nothing lost, doubled or out of order"),
    28: Fault("hostile lengths and counts", "refused before anything is allocated"),
    29: Fault("decompression bombs", "bounded memory, a typed error"),
    30: Fault("hostile topic names", "refused in one place, before a path is made"),
    31: Fault("link, FIFO, directory in a file's place", "an error at once; nothing is followed, nothing hangs"),
    32: Fault("no permission, read-only media", "a clear error; reading needs no write"),
    33: Fault("a clock that jumps, timestamps that lie",
         "offsets and order stay, look-ups by time agree with a search; a clock that goes back deletes nothing"),
    34: Fault("bits that rot unread", "`verify` and the scrub read everything, at a limited rate, and say when"),
    35: Fault("strangers' files", "left alone"),
    36: Fault("files of a newer version", "refused by name; untouched"),
    37: Fault("out of memory", "`MemoryError`, nothing has changed"),
    38: Fault("a slow disk", "those who need it wait, readers don't; memory is bounded"),
    42: Fault("producers sent twice, transactions cut short",
         "once each; all of a transaction or nothing, also after a restart"),
}  # fmt: skip

# For the day when there is a network: no test can show them yet.
NOT_HERE_YET = {
    39: "hostile frames",
    40: "floods and half-open connections",
    41: "authentication",
    43: "partitions of a cluster",
}


class Mark(NamedTuple):
    """A test that says which fault it shows."""

    path: str  # below tests/
    test: str
    number: int
    name: str


def marks() -> list[Mark]:
    """All marks, found by reading the tests, not by running them."""
    found = []
    for path in sorted(TESTS.rglob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        if "mark.fault(" in text:
            found += _marks_of(path.relative_to(TESTS).as_posix(), ast.parse(text))
    return found


def _marks_of(path: str, module: ast.Module) -> Iterator[Mark]:
    for node in ast.walk(module):
        where: list[ast.expr] = []
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name, where = node.name, node.decorator_list
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name, where = node.targets[0].id, [node.value]
        for expression in where:
            for call in ast.walk(expression):
                if isinstance(call, ast.Call) and ast.unparse(call.func) == "pytest.mark.fault":
                    number, said = (ast.literal_eval(argument) for argument in call.args)
                    yield Mark(path, name, number, said)


def table_of_tests() -> str:
    """For README.md: which tests show it."""
    by_number: dict[int, dict[str, list[str]]] = {number: {} for number in FAULTS}
    for mark in marks():
        by_number.setdefault(mark.number, {}).setdefault(mark.path, []).append(mark.test)
    lines = ["| | fault | shown by |", "| --- | --- | --- |"]
    for number, fault in FAULTS.items():
        shown = "; ".join(
            f"{path}: {', '.join(name.removeprefix('test_') for name in sorted(set(names)))}"
            for path, names in by_number[number].items()
        )
        lines.append(f"| {number} | {fault.name} | {shown} |")
    return "\n".join(lines)


def table_of_answers() -> str:
    """For docs/durability.md: what the log does."""
    lines = ["| | what happens | what the log does |", "| --- | --- | --- |"]
    lines += [f"| {number} | {fault.name} | {fault.answer} |" for number, fault in FAULTS.items()]
    return "\n".join(lines)


def pages() -> dict[Path, str]:
    """Each page that has one of the tables, and the table."""
    return {
        TESTS / "crash/README.md": table_of_tests(),
        TESTS.parent / "docs/durability.md": table_of_answers(),
    }


def rewritten(text: str, table: str) -> str:
    """The page with the table between its two markers."""
    before, rest = text.split("<!-- faults -->\n")
    _, after = rest.split("<!-- end of faults -->")
    return f"{before}<!-- faults -->\n{table}\n<!-- end of faults -->{after}"
