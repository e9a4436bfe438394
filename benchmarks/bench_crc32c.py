"""CRC-32C: ours, and the ``crc32c`` package as the bar."""

from __future__ import annotations

from typing import ClassVar

from benchmarks.sample import WrongResultError


class Checksum:
    """One call over a buffer: a one-record batch, an index interval, a big batch, a read block."""

    params: ClassVar = [["logstore", "crc32c package"], [61, 186, 4096, 65_536, 1 << 20]]
    param_names: ClassVar = ["implementation", "size_bytes"]

    def setup(self, implementation: str, size_bytes: int) -> None:
        self.data = bytes(range(256)) * (1 + size_bytes // 256)
        self.data = self.data[:size_bytes]
        if implementation == "logstore":
            from logstore._native.checksum import crc32c
        else:
            from crc32c import crc32c
        self.checksum = crc32c
        if self.checksum(b"123456789") != 0xE3069283:
            raise WrongResultError(f"{implementation} does not compute CRC-32C")

    def time_checksum(self, implementation: str, size_bytes: int) -> None:
        self.checksum(self.data)
