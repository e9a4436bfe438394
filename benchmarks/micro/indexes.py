"""Look-ups in the sparse indexes of a segment: 10,000 in one call into C."""

from __future__ import annotations

import ctypes
import random
from typing import ClassVar

from benchmarks.micro.loops import loops, numbers
from benchmarks.sample import SEED, WrongResultError

COUNT = 10_000
STEP = 32


class Index:
    """1 MiB and 1 GiB of log, with an entry every 4 KiB."""

    params: ClassVar = [["offset", "time"], [256, 262_144]]
    param_names: ClassVar = ["index", "entries"]

    def setup(self, index: str, entries: int) -> None:
        chance = random.Random(SEED)
        self.targets = numbers([chance.randrange(entries * STEP) for _ in range(COUNT)])
        self.count = ctypes.c_size_t(COUNT)
        make = getattr(loops(), f"loop_{index}_index")
        self.index = ctypes.c_void_p(make(ctypes.c_size_t(entries), ctypes.c_int64(STEP)))
        self.look_up = getattr(loops(), f"loop_{index}_index_lookup")
        if not self.index:
            raise WrongResultError("the index cannot be made")
        found = self.look_up(self.index, self.targets, self.count)
        unit = STEP if index == "offset" else 1
        if found != sum(target // STEP * unit for target in self.targets):
            raise WrongResultError("the index leads elsewhere")

    def teardown(self, index: str, entries: int) -> None:
        getattr(loops(), f"loop_{index}_index_free")(self.index)

    def time_look_up(self, index: str, entries: int) -> None:
        self.look_up(self.index, self.targets, self.count)
