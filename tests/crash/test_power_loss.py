"""A power cut at any moment of each operation: the states a disk may be in then, and what opening makes of them."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import shim
from campaigns import nested_states
from ledger import Ledger, check_promises
from operations import OPERATIONS
from power_loss import Disk, moments, read_calls, write_state

from logstore.storage.cache_mark import boot_id

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
    chance = random.Random(SEED)
    if boot_id() is not None:
        is_mapped = any(call.path.endswith("/logstore.open-batch") for call in calls)
        assert is_mapped == (operation == "burst"), "short segments have none, but where it is asked for"
    changes = sum(call.kind in "cwtrum" for call in calls)
    assert changes > 20
    seen: set[bytes] = set()
    for moment in moments(work / "start", calls, lines, chance, max(STATES // changes, 1)):
        if moment.identity in seen or len(seen) >= 2 * STATES:
            continue
        seen.add(moment.identity)
        place = work / "state"
        write_state(place, moment.state)
        try:
            check_promises(place, Ledger(moment.lines))
        except BaseException as error:
            error.add_note(f"{operation}, seed {SEED}, {moment.description}")
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


@pytest.mark.parametrize("operation", ["append", "truncate", "compact", "retain"])
@pytest.mark.fault(17, "crash in compaction, retention, roll, truncation, repair, backup, recovery, close")
def test_a_power_cut_again_while_opening(operation: str, library: Path, work: Path) -> None:
    subprocess.run(
        [sys.executable, shim.HERE / "operations.py", "record", operation, work],
        env=shim.environment(library), check=True, stderr=subprocess.DEVNULL,
    )
    chance = random.Random(SEED)
    lines = (work / "ledger").read_text().splitlines()
    found = list(moments(work / "start", read_calls(work / "calls"), lines, chance, 1))
    count = 0
    for moment in chance.sample(found, max(STATES // 100, 1)):
        write_state(work / "nested-start", moment.state)
        try:
            count += sum(1 for _ in nested_states(work, library, moment.lines, chance))
        except BaseException as error:
            error.add_note(f"{operation}, seed {SEED}, {moment.description}")
            raise
        shutil.rmtree(work / "nested-start")
        shutil.rmtree(work / "nested")
    assert count > 3
    print(f"{operation}: {count} states in recovery")
