"""Partitions: the time of an append, the files open, the memory; each number in a process of its own.

``LOGSTORE_GROWTH_PARTITIONS=1,10,100,1000`` for more than the default.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.compare.growing import APPENDS, in_child

PARTITIONS = [int(count) for count in os.environ.get("LOGSTORE_GROWTH_PARTITIONS", "1,10,100").split(",")]

Found = dict[int, dict[str, Any]]


class Partitions:
    """40,000 appends, the partitions in turn."""

    params: ClassVar = [PARTITIONS]
    param_names: ClassVar = ["partitions"]
    timeout = 600

    def setup_cache(self) -> Found:
        found = {}
        for count in PARTITIONS:
            with tempfile.TemporaryDirectory(prefix="benchmark-", dir=".") as directory:
                found[count] = in_child("partitions", Path(directory), count)
        return found

    setup_cache.timeout = 600

    def track_append(self, found: Found, partitions: int) -> float:
        return found[partitions]["ns"] / APPENDS

    def track_append_cpu(self, found: Found, partitions: int) -> float:
        return found[partitions]["cpu_ns"] / APPENDS

    def track_open_files(self, found: Found, partitions: int) -> float:
        return found[partitions]["files"]

    def track_memory(self, found: Found, partitions: int) -> float:
        return found[partitions]["mib"]

    track_append.unit = track_append_cpu.unit = "ns"
    track_open_files.unit = "files"
    track_memory.unit = "MiB"
