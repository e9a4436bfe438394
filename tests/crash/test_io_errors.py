"""One file operation fails, for each of them in turn: what was acknowledged stays, the error says what happened, and what
can go on does."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest
import shim
from ledger import check_promises, read_ledger
from operations import OPERATIONS

CALLS = {"EIO": "cowpstruma", "ENOSPC": "cwtrma", "EMFILE": "co", "EINTR": "wpsta", "SHORT": "wp"}
# No space for good. (Cutting a file back needs none; where even that is refused, the log is closed for writing.)
CALLS_FOR_EVER = {**CALLS, "ENOSPC": "cwrma", "EDQUOT": "cwrma"}
MOST = (
    "append", "append_runs", "roll", "truncate", "advance", "retain", "compact", "erase", "commit_offsets", "recover",
    "recover_swap",
)  # fmt: skip
FOR_EVER = [(error, operation) for error in ("EIO", "ENOSPC") for operation in MOST]
FOR_EVER += [
    (error, operation)
    for error in ("EDQUOT", "EMFILE", "SHORT")
    for operation in ("append", "append_runs", "roll", "compact")
]
# Deleting and making topics opens many logs; their I/O is that of the other operations.
LOG_OPERATIONS = [name for name in OPERATIONS if not name.endswith("topics")]


def outcomes(library: Path, work: Path, operation: str, error: str, *, for_ever: bool = False) -> list[dict]:
    action = str(shim.SHORT) if error == "SHORT" else error
    how, calls = ("fail_for_ever", CALLS_FOR_EVER[error]) if for_ever else ("fail", CALLS[error])
    subprocess.run(
        [sys.executable, shim.HERE / "operations.py", how, operation, calls, action, work],
        env=shim.environment(library), check=True, stderr=subprocess.DEVNULL,
    )
    found = []
    for place in sorted(place for place in work.iterdir() if (place / "outcome").exists()):
        outcome = json.loads((place / "outcome").read_text())
        try:
            check_promises(place / "data", read_ledger(place / "ledger"))
        except Exception as failure:
            failure.add_note(f"{operation}, call {int(place.name)} of {CALLS[error]!r} failed with {error}: {outcome}")
            raise
        found.append(outcome)
    assert found
    return found


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.fault(7, "fsync fails")
@pytest.mark.fault(8, "a write fails, is cut short, is interrupted")
def test_an_input_output_error_loses_nothing(operation: str, library: Path, work: Path) -> None:
    for outcome in outcomes(library, work, operation, "EIO"):
        if "error" in outcome:
            # An index or a checkpoint that can't be read counts as missing, so not every error is seen.
            assert outcome["error"] == "StorageFailureError", outcome
            assert outcome["errno"] == errno.EIO, outcome
            assert "failed: Input/output error" in outcome["message"], outcome
        assert outcome.get("readable", True), outcome
        if outcome.get("writable") is False:
            assert outcome["appends_again"] is False
            assert "closed for writing" in outcome["refusal"]


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.fault(9, "disk full, no inodes, over quota")
def test_a_full_disk_is_said_and_passes(operation: str, library: Path, work: Path) -> None:
    for outcome in outcomes(library, work, operation, "ENOSPC"):
        if "error" in outcome:
            assert outcome["error"] == "DiskFullError", outcome
        assert outcome.get("readable", True), outcome
        if operation in ("append", "append_runs", "roll", "recover", "make_topics"):
            assert outcome.get("appends_again", True), outcome


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.fault(10, "too many open files")
def test_too_many_open_files_is_said_and_passes(operation: str, library: Path, work: Path) -> None:
    for outcome in outcomes(library, work, operation, "EMFILE"):
        if "error" in outcome:
            assert outcome["error"] == "StorageFailureError", outcome
            assert outcome["errno"] == errno.EMFILE, outcome
        assert outcome.get("readable", True), outcome
        if operation in ("append", "append_runs", "roll", "recover", "make_topics"):
            assert outcome.get("appends_again", True), outcome


@pytest.mark.parametrize("operation", LOG_OPERATIONS)
@pytest.mark.parametrize("error", ["EINTR", "SHORT"])
@pytest.mark.fault(8, "a write fails, is cut short, is interrupted")
def test_interrupted_and_short_calls_are_finished(operation: str, error: str, library: Path, work: Path) -> None:
    for outcome in outcomes(library, work, operation, error):
        assert "error" not in outcome, outcome


@pytest.mark.parametrize(("error", "operation"), FOR_EVER)
@pytest.mark.fault(8, "a write fails, is cut short, is interrupted")
@pytest.mark.fault(9, "disk full, no inodes, over quota")
@pytest.mark.fault(10, "too many open files")
def test_a_disk_that_goes_on_failing_loses_nothing(error: str, operation: str, library: Path, work: Path) -> None:
    """From one call on all fail, until the disk is sound again: `outcomes` holds the directory against the ledger."""
    expected = {"EIO": "StorageFailureError", "EMFILE": "StorageFailureError"}.get(error, "DiskFullError")
    for outcome in outcomes(library, work, operation, error, for_ever=True):
        if error == "SHORT":
            assert "error" not in outcome, outcome
        elif "error" in outcome:
            assert outcome["error"] == expected, outcome
        assert outcome.get("readable", True), outcome
        if error != "EIO" and operation in ("append", "append_runs", "roll", "recover"):
            assert outcome.get("appends_again", True), outcome


@pytest.mark.fault(7, "fsync fails")
@pytest.mark.parametrize("operation", ["append", "roll"])
def test_a_failed_fsync_closes_the_log_for_writing(operation: str, library: Path, work: Path) -> None:
    found = outcomes_of_syncs(library, work, operation)
    for outcome in found:
        if outcome.get("operation") == "sync" and "writable" in outcome:
            assert outcome["writable"] is False, outcome
    closed = [outcome for outcome in found if outcome.get("writable") is False]
    assert closed, "no fdatasync of the log itself was among them"
    for outcome in closed:
        assert outcome["appends_again"] is False
        assert outcome["readable"]


def outcomes_of_syncs(library: Path, work: Path, operation: str) -> list[dict]:
    subprocess.run(
        [sys.executable, shim.HERE / "operations.py", "fail", operation, "s", "EIO", work],
        env=shim.environment(library), check=True, stderr=subprocess.DEVNULL,
    )
    return [json.loads(path.read_text()) for path in work.glob("*/outcome")]
