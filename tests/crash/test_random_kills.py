"""SIGKILL at random moments, for real: ``LOGSTORE_CRASH_KILLS`` times (12 if unset)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import shim

KILLS = int(os.environ.get("LOGSTORE_CRASH_KILLS", "12"))
SEED = int(os.environ.get("LOGSTORE_CRASH_SEED", "1"))


@pytest.mark.fault(1, "kill -9 in an append")
@pytest.mark.fault(17, "crash in compaction, retention, roll, truncation, repair, backup, recovery, close")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="NOT TESTED: kills at random moments; this system has no fork")
def test_killed_at_random_moments(work: Path) -> None:
    done = subprocess.run(
        [sys.executable, shim.HERE / "random_kills.py", str(KILLS), "0", str(SEED), work],
        env=shim.environment(None), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, f"seed {SEED}: {done.stderr}"
    acknowledged = [int(line) for line in done.stdout.split()]
    assert len(acknowledged) == KILLS
    assert max(acknowledged) > 0, "no writer lived long enough to append"
