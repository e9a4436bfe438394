"""The size of a log: appending to it, looking up in it. ``LOGSTORE_GROWTH_MIB=1,1024,51200`` for more than the default."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import ClassVar

from benchmarks.compare.growing import in_child

SIZES_MIB = [int(size) for size in os.environ.get("LOGSTORE_GROWTH_MIB", "1,64").split(",")]


Found = dict[tuple[str, int], float]


class Sizes:
    """A log of one partition that holds so much."""

    params: ClassVar = [SIZES_MIB]
    param_names: ClassVar = ["mib"]
    timeout = 3600

    def setup_cache(self) -> Found:
        found: Found = {}
        for mib in SIZES_MIB:
            with tempfile.TemporaryDirectory(prefix="benchmark-", dir=".") as directory:
                in_child("fill", Path(directory), mib)
                for what in ("append", "look-up"):
                    measured = in_child(what, Path(directory), mib)
                    found[what, mib] = measured["ns"] / measured["operations"]
        return found

    setup_cache.timeout = 3600

    def track_append(self, found: Found, mib: int) -> float:
        return found["append", mib]

    def track_look_up(self, found: Found, mib: int) -> float:
        return found["look-up", mib]

    track_append.unit = track_look_up.unit = "ns"
