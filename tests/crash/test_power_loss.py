"""A power cut at any moment of each operation: the states a disk may be in then, and what opening makes of them."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import shim
from ledger import Ledger, check_promises
from operations import OPERATIONS
from power_loss import POLICIES, Disk, read_calls, write_state

SEED = int(os.environ.get("LOGSTORE_CRASH_SEED", "1"))
STATES = int(os.environ.get("LOGSTORE_CRASH_STATES", "250"))  # an operation


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.fault(2, "power loss")
@pytest.mark.fault(3, "write torn at 512 or 4096 bytes")
@pytest.mark.fault(4, "writes on disk in another order")
@pytest.mark.fault(5, "a new or renamed file's name lost")
@pytest.mark.fault(17, "crash in compaction, retention, roll, truncation, repair, backup, recovery, close")
def test_a_power_cut_at_any_moment(operation: str, library: Path, work: Path) -> None:
    subprocess.run(
        [sys.executable, shim.HERE / "operations.py", "record", operation, work],
        env=shim.environment(library), check=True, stderr=subprocess.DEVNULL,
    )
    calls = read_calls(work / "calls")
    lines = (work / "ledger").read_text().splitlines()
    disk = Disk(work / "start")
    chance = random.Random(SEED)
    changes = sum(call.kind in "cwtrum" for call in calls)
    assert changes > 20
    per_call = max(STATES // changes, 1)
    seen: set[int] = set()
    for number, call in enumerate(calls):
        disk.take(call)
        if call.kind == "n":
            lines.append(call.content.decode())
        if call.kind not in "cwtrum":
            continue
        for description, state in disk.states(chance, per_call + len(POLICIES)):
            # Many policies come to the same state where nothing is pending.
            identity = zlib.crc32(repr((sorted(state.items()), lines)).encode())
            if identity in seen or len(seen) >= STATES + number * per_call:
                continue
            seen.add(identity)
            place = work / "state"
            write_state(place, state)
            try:
                check_promises(place, Ledger(lines))
            except BaseException as error:
                error.add_note(f"{operation}, seed {SEED}, cut after call {number} ({call[:5]}); {description}")
                raise
            shutil.rmtree(place)
    assert len(seen) > min(STATES, 250) / 5
    print(f"{operation}: {len(seen)} states")


def test_the_model_ends_where_the_directory_does(library: Path, work: Path) -> None:
    """The record is complete: replayed as a whole it gives the real directory."""
    subprocess.run(
        [sys.executable, shim.HERE / "operations.py", "record", "truncate", work],
        env=shim.environment(library), check=True,
    )
    disk = Disk(work / "start")
    for call in read_calls(work / "calls"):
        disk.take(call)
    for name, file in disk.names.items():
        path = Path(f"{work / 'data'}{name}")
        if file is None:
            assert path.is_dir()
        else:
            assert path.read_bytes() == file.versions()[-1], name
    assert len(disk.names) == 1 + sum(1 for _ in (work / "data").rglob("*"))
