"""Varints, as the records of a batch use them: 10,000 in one call into C."""

from __future__ import annotations

import ctypes
import random
from typing import ClassVar

from benchmarks.micro.loops import loops, numbers
from benchmarks.sample import SEED, WrongResultError

COUNT = 10_000


class Varints:
    """Small ones are lengths and deltas, large ones timestamps."""

    params: ClassVar = [["1 byte", "2 bytes", "mixed"]]
    param_names: ClassVar = ["size"]

    def setup(self, size: str) -> None:
        chance = random.Random(SEED)
        highest = {"1 byte": [63], "2 bytes": [8191], "mixed": [63, 8191, 1 << 20, 1 << 40]}[size]
        values = [chance.randrange(chance.choice(highest)) for _ in range(COUNT)]
        self.values = numbers(values)
        self.count = ctypes.c_size_t(COUNT)
        self.encoded = ctypes.create_string_buffer(10 * COUNT)
        self.size = ctypes.c_size_t(loops().loop_varint_write(self.values, self.count, self.encoded))
        if loops().loop_varint_read(self.encoded, self.size, self.count) != sum(values):
            raise WrongResultError("varints do not come back as they went in")

    def time_write(self, size: str) -> None:
        loops().loop_varint_write(self.values, self.count, self.encoded)

    def time_read(self, size: str) -> None:
        loops().loop_varint_read(self.encoded, self.size, self.count)

    def time_size(self, size: str) -> None:
        loops().loop_varint_size(self.values, self.count)
