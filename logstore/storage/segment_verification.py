"""Checking the files of one segment: every batch, the two indexes, and that it is the segment that was written there."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from logstore._native.checksum import crc32c
from logstore._native.verification import SegmentVerifier
from logstore.storage import layout
from logstore.storage.batch_walk import Damage, LogFile, Passed, PlacedBatch
from logstore.storage.files import read_bytes, refusals
from logstore.storage.segment_digests import SegmentDigest

__all__ = ["DamagedRange", "FileFault", "SegmentVerification", "verify_segment"]

INT64_MAX = 2**63 - 1
# How often a deep check looks around for Ctrl-C and reports; headers alone go by faster.
_DEEP_STEP_BYTES = 16 << 20
_SHALLOW_STEP_BYTES = 256 << 20
_ENTRY_BYTES = {".index": 8, ".timeindex": 12}


class DamagedRange(NamedTuple):
    """Offsets that can't be read, and why.

    Attributes
    ----------
    path : str
        The .log file.
    position, end_position : int
        The bytes there; both -1 where the file is missing.
    first_offset, end_offset : int
        ``[first, end)``.
    first_timestamp, last_timestamp : int
        The records are from about this time, by what stands around them, in ms; -1 where nothing tells.
    reason : str
    expected, actual : int, str or None
    kind : str
        ``"damaged"``: bytes are wrong. ``"missing"``: they are not there. ``"replaced"``: sound, but not what was sealed.
        ``"unfinished"``: what a write leaves that did not finish; the next open cuts it. No acknowledged record is in it.
    leader_epoch : int
        Of the batch before; -1 for none.
    """

    path: str
    position: int
    end_position: int
    first_offset: int
    end_offset: int
    first_timestamp: int
    last_timestamp: int
    reason: str
    expected: int | str | None = None
    actual: int | str | None = None
    kind: str = "damaged"
    leader_epoch: int = -1


class FileFault(NamedTuple):
    """What is wrong with a file beside the records, and what is to be done; no record depends on it."""

    path: str
    reason: str
    advice: str


@dataclass
class SegmentVerification:
    """What checking one segment gave."""

    path: str
    base_offset: int
    end_offset_max: int
    size_bytes: int = 0
    next_offset: int = 0
    batches_count: int = 0
    records_count: int = 0
    first_timestamp: int = -1
    max_timestamp: int = -1
    ranges: list[DamagedRange] = field(default_factory=list)
    faults: list[FileFault] = field(default_factory=list)
    digest: SegmentDigest | None = None
    is_digest_known: bool = False
    modified_ns: int = 0
    file_size_bytes: int = 0

    @property
    def is_sound(self) -> bool:
        return not self.faults and all(found.kind == "unfinished" for found in self.ranges)


def verify_segment(
    path: str,
    end_offset_max: int,
    *,
    deep: bool = True,
    contiguous: bool = False,
    digest: SegmentDigest | None = None,
    trusted_bytes: int = INT64_MAX,
    progress: Callable[[int], None] | None = None,
) -> SegmentVerification:
    """Check a ``.log`` file and the two indexes beside it.

    Parameters
    ----------
    path : str
    end_offset_max : int
        The next segment's base offset; 2**63 - 1 for the active one.
    deep : bool
        Read everything; else headers and indexes alone.
    contiguous : bool
        A gap between batches is damage.
    digest : SegmentDigest, optional
        What it held when it was sealed, or the log closed.
    trusted_bytes : int
        Behind this position an unfinished write is no damage.
    progress : callable, optional
        Told how many bytes are done.

    Returns
    -------
    SegmentVerification

    Raises
    ------
    StorageFailureError
    """
    base_offset = layout.segment_offset(os.path.basename(path)) or 0
    is_active = end_offset_max == INT64_MAX
    with refusals(path, "open"):
        modified_ns = os.stat(path).st_mtime_ns
    # Indexes lag behind the log: read first, they hold nothing of what is appended meanwhile.
    indexes = {suffix: _read_index(path, suffix) for suffix in _ENTRY_BYTES}
    end_known = end_offset_max
    with refusals(path, "open"):  # retention may take it at any moment
        if digest is not None and os.path.getsize(path) == digest.size_bytes:
            end_known = min(digest.end_offset, end_offset_max)
    verifier = SegmentVerifier(
        path, base_offset, end_known, contiguous=contiguous,
        offset_index=_without_padding(indexes[".index"], 8), time_index=_without_padding(indexes[".timeindex"], 12),
    )
    found = SegmentVerification(path, base_offset, end_offset_max, verifier.size_bytes, modified_ns=modified_ns)
    found.file_size_bytes = verifier.size_bytes
    prefix = digest.size_bytes if digest is not None and digest.is_growing else 0
    found.is_digest_known = digest is not None and not (digest.is_growing and not is_active)
    if digest is not None:  # all it describes was on disk
        trusted_bytes = max(trusted_bytes, prefix) if prefix else INT64_MAX
    found.first_timestamp = verifier.first_timestamp()
    step_bytes = _DEEP_STEP_BYTES if deep else _SHALLOW_STEP_BYTES
    states: deque[tuple[int, Passed]] = deque([(0, Passed(0, base_offset, -1))], maxlen=2)
    uncounted = [0, 0]
    at_prefix = b""
    while not verifier.is_done:
        left = prefix - verifier.position
        fault = verifier.step(min(step_bytes, left) if left > 0 else step_bytes, deep=deep)
        if prefix and verifier.position == prefix:
            at_prefix = verifier.digest
        if fault is not None and is_active and _is_filled_ahead(path, verifier.position):
            verifier.end_here()
            found.size_bytes = verifier.position
        elif fault is not None:
            _pass_damage(verifier, found, states[0], uncounted, trusted_bytes, end_known, contiguous)
            states.clear()
        states.append((verifier.position, Passed(verifier.position, verifier.next_offset, verifier.leader_epoch)))
        if progress is not None:
            progress(min(verifier.position, verifier.size_bytes))
    found.next_offset = verifier.next_offset
    found.batches_count = verifier.batches_count + uncounted[0]
    found.records_count = verifier.records_count + uncounted[1]
    found.max_timestamp = verifier.max_timestamp
    as_sealed = digest if digest is not None and not (digest.is_growing and found.size_bytes > prefix) else None
    _judge_indexes(found, verifier, indexes, as_sealed, is_active=is_active)
    if digest is not None:
        _compare_digest(found, at_prefix or verifier.digest, digest)
    if not is_active and not found.ranges:
        offset_index, time_index = indexes[".index"] or b"", indexes[".timeindex"] or b""
        found.digest = SegmentDigest(
            base_offset, found.next_offset, found.size_bytes, found.max_timestamp, verifier.digest,
            (len(offset_index), crc32c(offset_index)), (len(time_index), crc32c(time_index)),
            digest.verified_ms if digest is not None else 0,
        )
    return found


def _is_filled_ahead(path: str, position: int) -> bool:
    """Whether a file goes on with nothing but zeros: there are some ahead of the end of the segment that is written."""
    with refusals(path, "read"), open(path, "rb") as file:
        file.seek(position)
        while piece := file.read(1 << 20):
            if piece.count(0) != len(piece):
                return False
    return True


def _pass_damage(
    verifier: SegmentVerifier,
    found: SegmentVerification,
    start: tuple[int, Passed],
    uncounted: list[int],
    trusted_bytes: int,
    end_known: int,
    contiguous: bool,
) -> None:
    """From a batch that broke a rule to the next two that don't: which bytes are to blame is seen from both sides."""
    damaged_at = verifier.position
    timestamp = verifier.last_timestamp
    passed = before = start[1]
    last_placed = (-1, 0)
    pending: DamagedRange | None = None
    sound = 0
    with LogFile(
        found.path, base_offset=found.base_offset, end_offset_max=end_known, contiguous=contiguous,
        patient=trusted_bytes < INT64_MAX,
    ) as file:
        for item in file.walk(start[0], passed):
            if isinstance(item, PlacedBatch):
                batch = item.batch
                if pending is not None:
                    found.ranges.append(pending._replace(last_timestamp=batch.base_timestamp))
                    pending = None
                before, passed = passed, Passed(item.position, batch.last_offset + 1, batch.partition_leader_epoch)
                if item.position >= damaged_at:
                    uncounted[0] += 1
                    uncounted[1] += batch.records_count
                    timestamp = batch.max_timestamp
                    sound += 1
                last_placed = (item.position, batch.records_count)
                if sound >= 2 and item.position + batch.size_bytes < verifier.size_bytes:
                    verifier.skip_to(item.position + batch.size_bytes, passed.next_offset, passed.epoch, True)
                    return
                continue
            sound = 0
            if item.position == last_placed[0] and item.end_position > item.position:  # blamed by the one behind it
                uncounted[0] -= 1
                uncounted[1] -= last_placed[1]
                passed = before
            ranged = _range_of(item, found, timestamp, trusted_bytes, end_known)._replace(leader_epoch=passed.epoch)
            if pending is not None and pending.end_position == ranged.position and pending.kind == ranged.kind:
                pending = pending._replace(end_position=ranged.end_position, end_offset=ranged.end_offset)
            else:
                found.ranges += [] if pending is None else [pending]
                pending = ranged
        found.ranges += [] if pending is None else [pending]
        if file.size_bytes > verifier.size_bytes:  # a writer has completed its batch meanwhile
            found.size_bytes = found.file_size_bytes = file.size_bytes
    verifier.skip_to(verifier.size_bytes, passed.next_offset, passed.epoch, False)


def _range_of(
    damage: Damage, found: SegmentVerification, timestamp: int, trusted_bytes: int, end_known: int
) -> DamagedRange:
    is_last = damage.end_offset is None
    end_offset = damage.end_offset
    if end_offset is None:
        end_offset = end_known if end_known < INT64_MAX else damage.first_offset
    kind = "damaged" if damage.end_position > damage.position else "missing"
    if damage.torn and is_last and damage.position >= trusted_bytes:
        kind = "unfinished"
    return DamagedRange(
        damage.path, damage.position, damage.end_position, damage.first_offset, max(end_offset, damage.first_offset),
        timestamp, -1, damage.reason, damage.expected, damage.actual, kind,
    )


def _read_index(path: str, suffix: str) -> bytes | None:
    return read_bytes(path.removesuffix(".log") + suffix)


def _without_padding(content: bytes | None, entry_bytes: int) -> bytes:
    """Without the zeros that preallocation leaves behind the last entry; the first one may be of zeros."""
    if content is None:
        return b""
    used = -(-len(content.rstrip(b"\0")) // entry_bytes) * entry_bytes
    return content[: min(used, len(content) - len(content) % entry_bytes)]


def _judge_indexes(
    found: SegmentVerification,
    verifier: SegmentVerifier,
    indexes: dict[str, bytes | None],
    digest: SegmentDigest | None,
    *,
    is_active: bool,
) -> None:
    met = verifier.finish()
    for number, (suffix, content) in enumerate(indexes.items()):
        path = found.path.removesuffix(".log") + suffix
        reason = met[number]
        if is_active and "past the end" in reason:
            reason = ""  # a crash leaves entries for what it cut off
        if content is None and not is_active:
            reason = "the file is missing"
        elif content is not None and not reason and len(content) % _ENTRY_BYTES[suffix]:
            reason = f"{len(content)} bytes are no multiple of {_ENTRY_BYTES[suffix]}"
        elif content is not None and not reason and digest is not None:
            expected = digest.offset_index if number == 0 else digest.time_index
            actual = len(content), crc32c(content)
            if expected != actual:
                reason = (
                    f"it is not as it was written (expected {expected[0]} bytes with CRC {expected[1]:08x}, found "
                    f"{actual[0]} with {actual[1]:08x})"
                )
        if reason:
            found.faults.append(
                FileFault(path, reason, "no record is lost; `logstore index rebuild` derives it from the .log file")
            )


def _compare_digest(found: SegmentVerification, actual: bytes, digest: SegmentDigest) -> None:
    """That batches are sound does not say that they are those that were written here; the digest does."""
    if actual == digest.digest or any(known.kind != "missing" for known in found.ranges):
        return
    size = found.size_bytes
    if size < digest.size_bytes and found.next_offset < digest.end_offset:
        found.ranges.append(
            DamagedRange(
                found.path, size, size, found.next_offset, digest.end_offset, found.max_timestamp, digest.max_timestamp,
                "the file is shorter than it was on disk", digest.size_bytes, size, "missing",
            )
        )  # fmt: skip
    elif not found.ranges:
        found.ranges.append(
            DamagedRange(
                found.path, 0, size, found.base_offset, max(digest.end_offset, found.next_offset),
                found.first_timestamp, found.max_timestamp,
                "this is not the file that was written here: swapped, stale, or changed outside of the CRCs",
                digest.digest.hex(), actual.hex(), "replaced",
            )
        )  # fmt: skip
