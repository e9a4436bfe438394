"""CRC-32C: each implementation that this machine has, and the ``crc32c`` package as the bar."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

from benchmarks.sample import WrongResultError

IMPLEMENTATIONS = ["in use", "portable", "sse42", "pclmul128", "vpclmul256", "armv8", "armv8_pmull", "crc32c package"]


class Checksum:
    """One call over a buffer: a header, an index interval, a batch."""

    params: ClassVar = [IMPLEMENTATIONS, [61, 4096, 65_536]]
    param_names: ClassVar = ["implementation", "size_bytes"]

    def setup(self, implementation: str, size_bytes: int) -> None:
        from logstore._native.checksum import crc32c, crc32c_implementations, crc32c_with

        self.data = (bytes(range(256)) * (1 + size_bytes // 256))[:size_bytes]
        if implementation == "in use":
            self.checksum = crc32c
        elif implementation == "crc32c package":
            from crc32c import crc32c as package

            self.checksum = package
        elif implementation in crc32c_implementations():
            self.checksum = partial(crc32c_with, implementation)
        else:
            raise NotImplementedError(f"this processor has no {implementation}")  # asv's way to leave it out
        if self.checksum(b"123456789") != 0xE3069283:
            raise WrongResultError(f"{implementation} does not compute CRC-32C")

    def time_checksum(self, implementation: str, size_bytes: int) -> None:
        self.checksum(self.data)
