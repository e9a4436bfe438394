"""Writes a store in a process of its own, which then closes it, or dies by SIGKILL with it open."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.sample import sample_records

if TYPE_CHECKING:
    from benchmarks.compare.measure import Place

WRITERS = {
    "logstore": "benchmarks.compare.subject",
    "lmdb": "benchmarks.compare.peers.lmdb_store",
    "sqlite": "benchmarks.compare.peers.sqlite_store",
}
SAMPLE_RECORDS = 20_000
ROOT = Path(__file__).resolve().parents[2]


def write_in_child(store: str, place: Place, size_bytes: int, *, killed: bool) -> int:
    """Write about `size_bytes` into ``written`` below what `place` keeps; gives the count."""
    directory = place.kept / "written"
    directory.mkdir()
    value_bytes = place.sample.value_bytes
    count = max(1, size_bytes // place.sample.record_bytes)
    ending = "kill" if killed else "close"
    command = [sys.executable, "-m", __name__, store, str(directory), str(count), str(value_bytes)]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [*command, ending],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != (-signal.SIGKILL if killed else 0):
        raise RuntimeError(f"the process that writes {store} failed:\n{done.stderr}")
    return count


def main(store: str, directory: str, count: str, value_bytes: str, ending: str) -> None:
    """Write, then close or die."""
    sample = sample_records(SAMPLE_RECORDS, int(value_bytes))
    opened = importlib.import_module(WRITERS[store]).write_for_open(Path(directory), sample, int(count))
    if ending == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    opened.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
