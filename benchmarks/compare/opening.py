"""Opening a store and learning its end, after a process closed it or died with it open.

Both happen in processes of their own: one writes and closes or is killed, the next opens what it left, in place (a copy
of the files is not what a kill leaves: its pages are other ones).
"""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.compare.measure import Measured, Place, Stopwatch
from benchmarks.sample import WrongResultError, sample_records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Each has write_for_open(directory, sample, count) and open_and_count(directory, space_bytes); both give what to close too.
STORES = {
    "logstore": "benchmarks.compare.subject",
    "lmdb": "benchmarks.compare.peers.lmdb_store",
    "sqlite": "benchmarks.compare.peers.sqlite_store",
}
SAMPLE_RECORDS = 20_000
SPACE_A_RECORD_BYTES = 64  # over its own bytes, for stores that want to know how large they may grow
ROOT = Path(__file__).resolve().parents[2]


def opened(store: str, size_bytes: int, *, killed: bool) -> Callable[[Place], Any]:
    """The time to open and to learn the end, of a store of about this size.

    Opening logstore after a kill may leave it better than it was, so it is written anew for each round; the others are
    opened again as the first kill left them.
    """

    @contextmanager
    def start(place: Place) -> Iterator[Callable[[], Measured]]:
        directory = place.kept / "store"
        record_bytes, value_bytes = place.sample.record_bytes, place.sample.value_bytes
        count = max(1, size_bytes // record_bytes)
        space_bytes = count * (record_bytes + SPACE_A_RECORD_BYTES)
        ending = "kill" if killed else "close"

        def write() -> None:
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir()
            _child("write", store, directory, count, value_bytes, ending)

        def one_round() -> Measured:
            if killed and store == "logstore":
                write()
            found, nanoseconds, cpu_nanoseconds = map(int, _child("open", store, directory, space_bytes, 0, ending).split())
            if found != count:
                raise WrongResultError(f"{store}: {found} records of {count} after opening")
            return Measured(1, nanoseconds, cpu_nanoseconds)

        if not (killed and store == "logstore"):
            write()
        yield one_round

    return start


def _child(what: str, store: str, directory: Path, number: int, value_bytes: int, ending: str) -> str:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, "-m", __name__, what, store, str(directory), str(number), str(value_bytes), ending],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != (-signal.SIGKILL if ending == "kill" else 0):
        raise WrongResultError(f"the process that was to {what} {store} failed:\n{done.stderr}")
    return done.stdout


def main(what: str, store: str, directory: str, number: str, value_bytes: str, ending: str) -> None:
    """Write so many records, or open and print the count and the time; then close or die."""
    module = importlib.import_module(STORES[store])
    if what == "write":
        sample = sample_records(SAMPLE_RECORDS, int(value_bytes))
        opened_store = module.write_for_open(Path(directory), sample, int(number))
    else:
        module.open_and_count(_small(module, Path(directory)), int(number))[0].close()  # all modules are loaded now
        with Stopwatch() as watch:
            opened_store, count = module.open_and_count(Path(directory), int(number))
        print(count, watch.nanoseconds, watch.cpu_nanoseconds, flush=True)
    if ending == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    opened_store.close()


def _small(module: Any, directory: Path) -> Path:
    """A store of one record beside the one to open."""
    small = directory.with_name("small")
    shutil.rmtree(small, ignore_errors=True)
    small.mkdir()
    module.write_for_open(small, sample_records(1), 1).close()
    return small


if __name__ == "__main__":
    main(*sys.argv[1:])
