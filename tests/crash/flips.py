"""One bit of a file of `rich_directory` is flipped: the same answers, or a complaint; never another answer in silence.

Three answers are possible: ``harmless`` (everything as before), ``told`` (an error, or a damage that the broker names), and
``told by verify``: Kafka's format has places that no checksum covers and no neighbour contradicts, where only a comparison
with our digests tells. Those places are listed here, and in docs/durability.md.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import rich_directory
from rich_directory import Seen

from logstore.storage.verification import verify_partition

HEADER_OUTSIDE_CRC_BYTES = 17  # base offset, length, leader epoch, magic
GAPPED = ("k-0",)


class Flip(NamedTuple):
    """A file, relative to the directory; a byte, and a bit of it."""

    name: str
    position: int
    bit: int


def flips_of(pristine: Path, *, stride: int = 1, first: int = 0, bits: int = 1) -> Iterator[Flip]:
    """Every ``stride``-th byte of all files, of each file at least one; ``bits`` of each, another one from byte to byte."""
    counted = first
    for path in sorted(path for path in pristine.rglob("*") if path.is_file()):
        content = path.read_bytes()
        name = path.relative_to(pristine).as_posix()
        # The checkpoint's slots stand far apart, with nothing between.
        positions = [at for at in range(len(content)) if "logstore.checkpoint" not in name or content[at] or at % 4096 < 64]
        chosen = [at for number, at in enumerate(positions, counted) if number % stride == 0] or positions[:1]
        counted += len(positions)
        for at in chosen:
            for number in range(bits):
                yield Flip(name, at, (at + number) % 8)


class Flipped:
    """Where flips are tried, one after the other."""

    def __init__(self, work: Path):
        self.pristine = work / "pristine"
        self.folder = work / "flipped"
        rich_directory.make(self.pristine)
        shutil.copytree(self.pristine, self.folder)
        self.sound = rich_directory.look(self.folder, read_only=True)
        assert not self.sound.complaints
        assert self.sound.records
        assert self.sound.committed is not None

    def examine(self, flip: Flip, *, read_only: bool) -> str:
        """What it led to; raises AssertionError where it is a wrong answer that nobody was told of."""
        path = self.folder / flip.name
        original = path.read_bytes()
        content = bytearray(original)
        content[flip.position] ^= 1 << flip.bit
        path.write_bytes(content)
        try:
            seen = rich_directory.look(self.folder, read_only=read_only)
            wrong = rich_directory.what_is_wrong(self.sound, seen)
            if not wrong:
                return "told" if seen.complaints else "harmless"
            if _is_outside_of_all_checksums(self.pristine, flip):
                if any(flip.name in str(complaint) for complaint in seen.complaints):
                    return "told"  # if only behind the record whose offset was changed
                found = verify_partition(str(path.parent), deep=True)
                if any(flip.name.rsplit("/", 1)[1] in str(thing) for thing in (*found.damages, *found.faults)):
                    return "told by verify"
            raise AssertionError(f"{flip}, {'read-only' if read_only else 'writable'}: {wrong}")
        finally:
            if read_only:
                path.write_bytes(original)
            else:
                shutil.rmtree(self.folder)
                shutil.copytree(self.pristine, self.folder)


def _is_outside_of_all_checksums(pristine: Path, flip: Flip) -> bool:
    folder, name = flip.name.rsplit("/", 1)
    if folder not in GAPPED or not name.endswith(".log"):
        return False
    content = (pristine / flip.name).read_bytes()
    start = 0
    while start < len(content):
        if start <= flip.position < start + HEADER_OUTSIDE_CRC_BYTES:
            return True
        start += 12 + struct.unpack_from(">i", content, start + 8)[0]
    return False


__all__ = ["Flip", "Flipped", "Seen", "flips_of"]
