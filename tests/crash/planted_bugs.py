"""Bugs planted on purpose, each in a scratch copy of the checkout: does a test catch it?

    python -m tests.crash --planted [--only TEXT] [--json]

A bug is a change of a few words; what has to be compiled is compiled; then the tests run that should notice, until one does.
A change that does not apply any more is an error: the list has to follow the sources.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

__all__ = ["BUGS", "Bug", "run"]

ROOT = Path(__file__).parents[2]
HANGS_SECONDS = 600  # many times what any of these tests takes
POWER = "tests/crash/test_power_loss.py::test_a_power_cut_at_any_moment"
TRANSACTIONS = "tests/crash/test_transaction_power_loss.py"
SETTLED = "tests/broker/test_transaction_recovery.py"
KILL = "tests/crash/test_kill_at_call.py::test_killed_before_every_call"


class Bug(NamedTuple):
    """``before`` stands once in the file; ``tests`` are arguments of pytest."""

    name: str
    path: str
    before: str
    after: str
    tests: tuple[str, ...]


BUGS = [
    Bug("an fdatasync is skipped: flushes of the active segment", "logstore/_native/log_flusher.pyx",
        "        if ls_file_sync(ls_segment_log_file(active.segment), fault) != LS_OK:", "        if False:",
        (f"{POWER}[append]",)),
    Bug("an fdatasync is skipped: segments before the active one", "logstore/storage/log_flushing.py",
        "            segment.sync()\n        if self._new_names:",
        "            segment is segments[-1] and segment.sync()\n        if self._new_names:",
        (f"{POWER}[roll]", f"{POWER}[append]", "tests/storage/test_log_model.py")),
    Bug("a directory's fsync is dropped: new segments", "logstore/storage/log_flushing.py",
        "                sync_directory(self.path)\n            except BaseException:",
        "                pass\n            except BaseException:",
        (f"{POWER}[roll]",)),
    Bug("a directory's fsync is dropped: new topics", "logstore/storage/files.py",
        '    sync_directory(os.path.dirname(path) or ".")', "    return",
        (f"{POWER}[make_topics]",)),
    Bug("a directory's fsync is dropped: after renames to .swap", "logstore/storage/segment_swap.py",
        '            _rename(log.path, replacement, ".cleaned", ".swap")\n            sync_directory(log.path)',
        '            _rename(log.path, replacement, ".cleaned", ".swap")',
        (f"{POWER}[compact]", f"{POWER}[erase]")),
    Bug("two renames are swapped: the old segment goes before the new one is .swap", "logstore/storage/segment_swap.py",
        '            _rename(log.path, replacement, ".cleaned", ".swap")\n            sync_directory(log.path)',
        '            for base in old:\n                os.replace(replacement.path_of(base, ".log"), '
        'replacement.path_of(base, ".log.deleted"))\n'
        '            _rename(log.path, replacement, ".cleaned", ".swap")\n            sync_directory(log.path)',
        (f"{KILL}[compact]",)),
    Bug("a file is renamed before its content is on disk", "logstore/storage/files.py",
        "            _write_all(descriptor, content, 0)\n            os.fsync(descriptor)",
        "            _write_all(descriptor, content, 0)",
        (f"{POWER}[truncate]", f"{POWER}[make_topics]")),
    Bug("acknowledged before it is on disk", "logstore/storage/log_flushing.py",
        "        try:\n            self._sync_segments(segments)\n        except StorageFailureError as error:",
        "        self._set_flushed_offset(end_offset)\n        try:\n            pass\n"
        "        except StorageFailureError as error:",
        (f"{POWER}[append]", f"{POWER}[roll]", "tests/crash/test_slow_disk.py")),
    Bug("a torn tail is not cut", "logstore/storage/recovery.py",
        "        segment.truncate(scan.valid_bytes, scan.next_offset)\n        segment.sync()", "        pass",
        ("tests/crash/test_torn_tails.py",)),
    Bug("what was cut off is not kept", "logstore/storage/recovery.py",
        "            replace_file(kept_as, tail)", "            kept_as = ''",
        ("tests/storage/test_recovery.py", "tests/broker/test_broker.py")),
    Bug("a failed fsync is tried again: where nothing else is to do", "logstore/_native/log_flusher.pyx",
        "                if fault.status != LS_NO_DESCRIPTOR:", "                if False:",
        ("tests/crash/test_io_errors.py::test_a_failed_fsync_closes_the_log_for_writing",)),
    Bug("a failed fsync is tried again: of several segments", "logstore/storage/log_flushing.py",
        '            if error.operation not in ("open the directory", "open"):', "            if False:",
        ("tests/crash/test_io_errors.py::test_a_failed_fsync_closes_the_log_for_writing",)),
    Bug("the log start moves only after segments are gone", "logstore/storage/segment_deletion.py",
        "    log._checkpoint_file.replace(log._checkpoint)\n    log._publish(log_start_offset=offset)",
        "    log._publish(log_start_offset=offset)",
        (f"{POWER}[advance]", f"{KILL}[advance]")),
    Bug("the checkpoint is not lowered before a truncation", "logstore/storage/truncation.py",
        "    log._checkpoint_file.replace(lowered)\n", "",
        (f"{KILL}[truncate]", f"{POWER}[truncate]")),
    Bug("the mark of a close in good order stays while it is written", "logstore/storage/log_rolling.py",
        "        self._checkpoint = self._checkpoint._replace(is_clean=False)\n"
        "        self._checkpoint_file.write(self._checkpoint, sync=True)",
        "        self._checkpoint = self._checkpoint._replace(is_clean=False)",
        ("tests/storage/test_small_files.py",)),
    Bug("a second writer is let in", "logstore/storage/directory_lock.py",
        "            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)\n", "",
        ("tests/processes/test_processes.py",)),
    Bug("an interrupted roll leaves an empty segment", "logstore/storage/log_rolling.py",
        "                        os.unlink(path)\n            raise\n        self._set_mark_due(0)",
        "                        pass\n            raise\n        self._set_mark_due(0)",
        ("tests/crash/test_interrupted_steps.py",)),
    Bug("digests outlive a truncation", "logstore/storage/log.py",
        "        self._digests.forget_from(offset)", "        pass",
        ("tests/storage/test_digests.py",)),
    Bug("a CRC is not checked when a batch is read", "csrc/src/record_batch.c",
        "    if (crc != header.crc) {", "    if (crc != header.crc && position < 0) {",
        ("tests/crash/test_bit_flips.py::test_a_flipped_bit_in_every_byte",)),
    Bug("a transaction index is believed whatever its CRC", "logstore/storage/transaction_index.py",
        "        return known == found", "        return known is not None",
        ("tests/crash/test_everything_flipped.py", "tests/storage/test_transaction_index.py")),
    Bug("a CRC is not checked when a log is opened", "csrc/src/segment_recover.c",
        "    if (crc != batch->header.crc) {", "    if (crc != batch->header.crc && batch->position < 0) {",
        ("tests/crash/test_torn_tails.py",)),
    Bug("a short write counts as a whole one", "csrc/src/file_posix.c",
        "        if (n == 0) return fail_with_errno(fault, \"write\", position + (int64_t)done, EIO);\n"
        "        done += (size_t)n;",
        "        done = size;",
        ("tests/crash/test_io_errors.py::test_interrupted_and_short_calls_are_finished",)),
    Bug("links and FIFOs are followed", "csrc/src/file_posix.c",
        "    int flags = O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;", "    int flags = O_CLOEXEC;",
        ("tests/crash/test_odd_files.py -k link",)),
    Bug("a refused write leaves its bytes", "csrc/src/segment.c",
        "    segment->has_tail = segment->log->operations->truncate(segment->log, size, &ignored) != LS_OK;",
        "    ignored.status = LS_OK;\n    segment->has_tail = size < 0;",
        ("tests/storage/test_full_disk.py", "tests/crash/test_io_errors.py -k full_disk")),
    Bug("a commit is flushed without its records", "logstore/broker/ended_transactions.py",
        "flush_together([place, *places.values()])", "flush_together([place])",
        (f"{SETTLED} -k on_disk", TRANSACTIONS)),
    Bug("a commit counts without its records", "logstore/broker/stored_transactions.py",
        "            if log is not None and log.log_end_offset < end_offset:", "            if False:",
        (f"{SETTLED} -k counts", TRANSACTIONS)),
    Bug("a commit that did not count is forgotten in memory alone", "logstore/broker/stored_transactions.py",
        "                    self._revise(decision)", "                    decision.commit = False",
        (f"{SETTLED} -k counts",)),
    Bug("a commit ends the next transaction as well", "logstore/broker/stored_transactions.py",
        "                decision = decisions.get((producer_id, epoch + 1))",
        "                decision = decisions.get((producer_id, epoch + 1), decisions.get((producer_id, epoch)))",
        (f"{SETTLED} -k next_transaction", TRANSACTIONS)),
]  # fmt: skip


def run(only: str = "", *, as_json: bool = False) -> int:
    """Plants one after the other; 1 if one is not caught, or no longer applies."""
    bugs = [bug for bug in BUGS if only in bug.name]
    found = []
    with tempfile.TemporaryDirectory(prefix="logstore-planted-") as folder:
        copy = Path(folder) / "checkout"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", ".hypothesis", ".*_cache", "sanitizers"))
        needs_build = False
        for number, bug in enumerate(bugs, 1):
            path = copy / bug.path
            original = path.read_text()
            if original.count(bug.before) != 1:
                found.append((bug, "DOES NOT APPLY", 0.0))
                continue
            path.write_text(original.replace(bug.before, bug.after))
            started = time.monotonic()
            needs_build = needs_build or path.suffix != ".py"
            said = _build(copy) if needs_build else ""
            outcome = said or _caught_by(copy, bug)
            path.write_text(original)
            # What was compiled has the bug; the next one that needs no compiler must not have it.
            needs_build = path.suffix != ".py"
            found.append((bug, outcome, time.monotonic() - started))
            print(f"{number}/{len(bugs)}  {found[-1][2]:4.0f} s  {bug.name}: {outcome}", file=sys.stderr, flush=True)
    missed = [bug.name for bug, outcome, _ in found if not outcome.startswith("caught")]
    if as_json:
        rows = [{"bug": bug.name, "file": bug.path, "outcome": outcome} for bug, outcome, _ in found]
        json.dump(rows, sys.stdout, indent=2)
    else:
        width = max(len(bug.name) for bug in bugs)
        for bug, outcome, _ in found:
            print(f"{bug.name:<{width}}  {outcome}")
        print(f"{len(found) - len(missed)} of {len(found)} caught")
    return 1 if missed else 0


def _environment(copy: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}


def _build(copy: Path) -> str:
    """Compiles what has changed; empty, or why not."""
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=copy, env=_environment(copy),
        capture_output=True, text=True,
    )  # fmt: skip
    return "" if done.returncode == 0 else f"DOES NOT COMPILE: {done.stderr[-300:]}"


def _caught_by(copy: Path, bug: Bug) -> str:
    for tests in bug.tests:
        try:
            done = subprocess.run(
                [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--show-capture=no", *tests.split()],
                cwd=copy, env=_environment(copy), capture_output=True, text=True, timeout=HANGS_SECONDS,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"caught by a hang of {tests}"
        if done.returncode == 1:
            failed = re.search(r"^FAILED (.+?)(?: - |$)", done.stdout, re.MULTILINE)
            return f"caught by {failed[1] if failed else tests}"
        if done.returncode:
            return f"NO TESTS RAN: {tests}: {(done.stdout + done.stderr)[-300:]}"
    return "NOT CAUGHT"
