"""Compressing and decompressing the payload of a batch."""

from __future__ import annotations

from typing import ClassVar

from benchmarks.micro.batches import build
from benchmarks.sample import WrongResultError


class Codec:
    """A thousand records of 100 bytes."""

    params: ClassVar = [["gzip", "snappy", "lz4", "zstd"]]
    param_names: ClassVar = ["codec"]

    def setup(self, codec: str) -> None:
        from logstore.records import codecs

        self.codecs = codecs
        self.codec = codecs.codec_id(codec)
        self.payload = bytes(build(100))[61:]
        self.packed = codecs.compress(self.codec, self.payload, None)
        if self.codecs.decompress(self.codec, self.packed, len(self.payload)) != self.payload:
            raise WrongResultError(f"{codec} does not give back what it was given")

    def time_compress(self, codec: str) -> None:
        self.codecs.compress(self.codec, self.payload, None)

    def time_decompress(self, codec: str) -> None:
        self.codecs.decompress(self.codec, self.packed, len(self.payload))

    def track_ratio(self, codec: str) -> float:
        return len(self.payload) / len(self.packed)

    track_ratio.unit = "times smaller"
