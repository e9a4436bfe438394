"""Builds ``kill_at_call.c`` and speaks to it where it is loaded."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
KILL, KILL_HALF_WAY, SHORT, DELAY = -1, -2, -3, -4
EXIT_KILLED = 42


def build(folder: Path) -> Path:
    """The compiled shim; skips the test, loudly, where there is no compiler or no Linux."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not sys.platform.startswith("linux") or compiler is None:
        pytest.skip("NOT TESTED: file operations that fail or kill; that needs Linux and a C compiler")
    library = folder / "kill_at_call.so"
    if not library.exists():
        subprocess.run(
            [compiler, "-O1", "-fPIC", "-shared", "-o", library, HERE / "kill_at_call.c", "-ldl", "-lpthread"], check=True
        )
    return library


def environment(library: Path | None) -> dict[str, str]:
    """For a process under the shim; None for one without it."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    if library is not None:
        environment["LD_PRELOAD"] = " ".join(filter(None, [os.environ.get("LD_PRELOAD"), str(library)]))
    return environment


class Shim:
    """In a process that was started under the shim."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)
        self._library.kill_at_call_disarm.restype = ctypes.c_long
        self._library.kill_at_call_syncs.restype = ctypes.c_long

    def arm(self, directory: str, calls: str, at: int, action: int, *, sticky: bool = False) -> None:
        self._library.kill_at_call_arm(
            os.fsencode(os.path.realpath(directory)), calls.encode(), ctypes.c_long(at), action, int(sticky)
        )

    def disarm(self) -> int:
        """How many calls were counted."""
        return int(self._library.kill_at_call_disarm())

    @property
    def syncs(self) -> int:
        """How many fsync and fdatasync calls there were since `arm`."""
        return int(self._library.kill_at_call_syncs())

    def record(self, directory: str, path: str) -> None:
        self._library.kill_at_call_record(os.fsencode(os.path.realpath(directory)), os.fsencode(path))

    def note(self, text: str) -> None:
        self._library.kill_at_call_note(text.encode())
