"""What a directory looks like after a kill or a loss of power, made from a copy of a live one."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from random import Random

SECTOR_BYTES = 512


class StoredBatch(NamedTuple):
    """One batch of a segment file, by its header."""

    position: int
    size_bytes: int
    base_offset: int
    last_offset: int


def copy_log(source: Path, target: Path) -> Path:
    """What a kill leaves: the files as they are now."""
    target.mkdir(parents=True)
    for path in source.iterdir():
        shutil.copy2(path, target / path.name)
    return target


def segment_paths(directory: Path) -> list[Path]:
    return sorted(directory.glob("[0-9]*.log"))


def stored_batches(path: Path) -> list[StoredBatch]:
    data = path.read_bytes()
    batches = []
    position = 0
    while position < len(data):
        base_offset, length = struct.unpack_from(">qi", data, position)
        delta = struct.unpack_from(">i", data, position + 23)[0]
        batches.append(StoredBatch(position, length + 12, base_offset, base_offset + delta))
        position += length + 12
    return batches


def flushed_position(path: Path, flushed_offset: int) -> int:
    """Up to where a segment file is known to be on disk."""
    return max(
        (batch.position + batch.size_bytes for batch in stored_batches(path)
         if batch.last_offset < flushed_offset),
        default=0,
    )  # fmt: skip


def lose_power(directory: Path, flushed_offset: int, random: Random, *, garbage: bool) -> set[str]:
    """Damages what was never flushed, as the loss of power may: from each segment file some end may be missing, and
    of what is left some sectors may never have been written (zeros), or, with ``garbage``, hold anything. Indexes and
    one slot of the checkpoint may be gone or wrong, whatever was flushed. Returns the names of the indexes damaged."""
    paths = segment_paths(directory)
    damaged = damage_caches(directory, random)
    if not (directory / "logstore.checkpoint").exists():
        # No power loss takes it away. Without it nobody knows whether records between two segments are
        # missing, or were compacted away: only the last segment may be short.
        paths = paths[-1:]
    for path in paths[1:]:
        if int(path.stem) > flushed_offset and random.random() < 0.2:
            path.unlink()  # nothing in it was acknowledged, so its name may never have got to the disk
    for path in [path for path in paths if path.exists()]:
        safe = flushed_position(path, flushed_offset)
        if path == paths[-1] or path.stat().st_size > safe:
            _damage_tail(path, safe, random, garbage=garbage)
    return damaged


def _damage_tail(path: Path, safe: int, random: Random, *, garbage: bool) -> None:
    data = bytearray(path.read_bytes())
    if len(data) > safe and random.random() < 0.6:
        del data[random.randint(safe, len(data)) :]
    first = safe // SECTOR_BYTES
    for sector in range(first, (len(data) + SECTOR_BYTES - 1) // SECTOR_BYTES):
        start, end = max(sector * SECTOR_BYTES, safe), min((sector + 1) * SECTOR_BYTES, len(data))
        chance = random.random()
        if chance < 0.15:
            data[start:end] = bytes(end - start)
        elif garbage and chance < 0.3:
            data[start:end] = random.randbytes(end - start)
    if random.random() < 0.2:
        data += bytes(random.choice([1, 60, 700]))  # the length got there before the data
    path.write_bytes(data)


def damage_caches(directory: Path, random: Random) -> set[str]:
    """Indexes are caches, and a slot of the checkpoint may be torn: none of it may cost a record."""
    indexes = sorted([*directory.glob("*.index"), *directory.glob("*.timeindex")])
    damaged = {path.name for path in indexes if _damage_file(path, random)}
    checkpoint = directory / "logstore.checkpoint"
    if checkpoint.exists():
        chance = random.random()
        if chance < 0.15:
            checkpoint.unlink()
        elif chance < 0.4:
            data = bytearray(checkpoint.read_bytes())
            slot = random.randrange(2) * 4096
            data[slot : slot + 16] = random.randbytes(16)
            checkpoint.write_bytes(data)
    return damaged


def _damage_file(path: Path, random: Random) -> bool:
    data = bytearray(path.read_bytes())
    chance = random.random()
    if chance < 0.2:
        path.unlink()
    elif path.suffix == ".timeindex":
        # A time index has nothing to check it by where whole entries are missing or wrong, which is why it is
        # synced before a checkpoint relies on it.
        if chance < 0.5:
            path.write_bytes(data + bytes(random.choice([4, 24, 240])))
    elif chance < 0.35:
        path.write_bytes(data[: random.randint(0, len(data))])
    elif chance < 0.5:
        path.write_bytes(data + bytes(random.choice([4, 24, 240])))
    elif chance < 0.65 and data:
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
        path.write_bytes(data)
    else:
        return False
    return True
