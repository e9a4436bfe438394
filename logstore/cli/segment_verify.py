"""Checks every byte of segment files, from the files alone."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import logstore.records  # noqa: F401 - hands the codecs to the batches
from logstore.cli.index_files import (
    OffsetIndexCheck,
    TimeIndexCheck,
    read_leader_epochs,
    read_offset_index,
    read_time_index,
)
from logstore.cli.segment_dump import damage_json
from logstore.errors import CorruptDataError, MissingDependencyError
from logstore.storage.batch_walk import Damage, LogFile, PlacedBatch
from logstore.storage.layout import LEADER_EPOCH_FILE, segment_file_name, segment_offset

__all__ = ["Finding", "Verified", "log_files_of", "verify_file"]

_REPORT_EVERY_BYTES = 1 << 20


@dataclass(frozen=True)
class Finding:
    """What is wrong with a file beside the log."""

    path: str
    reason: str


@dataclass
class Verified:
    """What checking one file gave."""

    path: str
    size_bytes: int = 0
    base_offset: int | None = None
    next_offset: int | None = None
    batches: int = 0
    records: int = 0
    damages: list[Damage] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    unopened: dict[str, int] = field(default_factory=dict)

    @property
    def is_sound(self) -> bool:
        return not self.damages and not self.findings

    def as_json(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "sound": self.is_sound,
            "size_bytes": self.size_bytes,
            "base_offset": self.base_offset,
            "next_offset": self.next_offset,
            "batches": self.batches,
            "records": self.records,
            "damages": [damage_json(damage) for damage in self.damages],
            "index_faults": [{"path": finding.path, "reason": finding.reason} for finding in self.findings],
            "unchecked_batches": self.unopened,
        }


def log_files_of(directory: str) -> list[tuple[str, int]]:
    """The segments of a partition directory: path, and the bound that the next one sets to its offsets."""
    bases = sorted(base for name in os.listdir(directory) if (base := segment_offset(name)) is not None)
    bounds = [*bases[1:], 2**63 - 1]
    return [
        (os.path.join(directory, segment_file_name(base)), bound) for base, bound in zip(bases, bounds, strict=False)
    ]


def verify_file(path: str, end_offset_max: int, report: Callable[[int], None]) -> Verified:
    """Check a ``.log`` file with the indexes beside it, or a ``leader-epoch-checkpoint``.

    Parameters
    ----------
    path : str
    end_offset_max : int
        The next segment's base offset.
    report : callable
        Told how many bytes are done.

    Raises
    ------
    StorageFailureError
    """
    if os.path.basename(path) == LEADER_EPOCH_FILE:
        return _verify_leader_epochs(path)
    result = Verified(path)
    with LogFile(path, end_offset_max=end_offset_max) as file:
        result.base_offset = result.next_offset = file.base_offset
        base = file.base_offset or 0
        stem = path.removesuffix(".log")
        offsets = times = None
        if file.base_offset is not None and os.path.exists(f"{stem}.index"):
            offsets = OffsetIndexCheck(read_offset_index(f"{stem}.index"), base)
        if file.base_offset is not None and os.path.exists(f"{stem}.timeindex"):
            times = TimeIndexCheck(read_time_index(f"{stem}.timeindex"), base)
        due = _REPORT_EVERY_BYTES
        for found in file.walk():
            if isinstance(found, Damage):
                result.damages.append(found)
                if offsets is not None:
                    offsets.skip(found.end_position)
                if times is not None:
                    times.skip()
                continue
            _count(result, found)
            if offsets is not None:
                offsets.batch(found)
            if times is not None:
                times.batch(found)
            if found.position >= due:
                report(found.position)
                due = found.position + _REPORT_EVERY_BYTES
        result.size_bytes = file.size_bytes
    if offsets is not None and (fault := offsets.end(result.size_bytes)):
        result.findings.append(Finding(f"{stem}.index", fault))
    if times is not None and (fault := times.end()):
        result.findings.append(Finding(f"{stem}.timeindex", fault))
    return result


def _count(result: Verified, placed: PlacedBatch) -> None:
    batch = placed.batch
    try:
        deque(batch, maxlen=0)  # decompresses and parses every record
    except MissingDependencyError as error:
        text = " ".join(str(error).split())
        result.unopened[text] = result.unopened.get(text, 0) + 1
    except CorruptDataError as error:
        end = placed.position + batch.size_bytes
        result.damages.append(
            Damage(
                result.path, placed.position, end, batch.base_offset, batch.last_offset + 1, error.reason,
                error.expected, error.actual,
            )
        )  # fmt: skip
    result.batches += 1
    result.records += batch.records_count
    if result.base_offset is None:
        result.base_offset = batch.base_offset
    result.next_offset = batch.last_offset + 1


def _verify_leader_epochs(path: str) -> Verified:
    result = Verified(path, size_bytes=os.path.getsize(path))
    try:
        read_leader_epochs(path)
    except CorruptDataError as error:
        found = f" (expected {error.expected}, found {error.actual})" if error.actual is not None else ""
        result.findings.append(Finding(path, f"{error.reason}{found}"))
    return result
