"""The process dies at its n-th file operation, for every n: before the call, and half-way through a write."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import shim
from ledger import check_promises, read_ledger
from operations import OPERATIONS

CHANGES = "cwstruma"  # all that changes something; see kill_at_call.c


def run_and_check(library: Path, work: Path, operation: str, calls: str, action: int) -> int:
    subprocess.run(
        [sys.executable, shim.HERE / "operations.py", "kill", operation, calls, str(action), work],
        env=shim.environment(library), check=True, stderr=subprocess.DEVNULL if operation == "recover" else None,
    )
    places = sorted(place for place in work.iterdir() if place.name.isdigit())
    for place in places:
        try:
            check_promises(place / "data", read_ledger(place / "ledger"))
        except Exception as error:
            error.add_note(f"{operation}, killed at call {int(place.name)} of those counted as {calls!r}")
            raise
    return len(places)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.fault(1, "kill -9 in an append")
@pytest.mark.fault(17, "crash in compaction, retention, roll, truncation, repair, backup, recovery, close")
def test_killed_before_every_call(operation: str, library: Path, work: Path) -> None:
    assert run_and_check(library, work, operation, CHANGES, shim.KILL) > 20


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.fault(1, "kill -9 in an append")
@pytest.mark.fault(17, "crash in compaction, retention, roll, truncation, repair, backup, recovery, close")
def test_killed_half_way_through_every_write(operation: str, library: Path, work: Path) -> None:
    assert run_and_check(library, work, operation, "w", shim.KILL_HALF_WAY) > 5
