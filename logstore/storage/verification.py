"""Checking the files of one log without opening it: what is damaged, what is missing, what was put in its place.

Only reads, and works beside a process that writes. `verify_partition` is what the command line, the scrub and the
repair start from.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from logstore._native.checksum import crc32c
from logstore._native.verification import SegmentVerifier
from logstore.errors import CorruptDataError, LogstoreError, StorageFailureError, UnsupportedFormatError
from logstore.storage import layout
from logstore.storage.batch_walk import Damage, LogFile, Passed, PlacedBatch
from logstore.storage.checkpoint import Checkpoint, CheckpointFile, damaged_slots
from logstore.storage.files import refusals
from logstore.storage.recovery import list_segments
from logstore.storage.segment_digests import SegmentDigest, SegmentDigests
from logstore.storage.text_checkpoints import read_rows, read_topic_id

__all__ = [
    "DamagedRange",
    "FileFault",
    "PartitionVerification",
    "SegmentVerification",
    "record_digests",
    "verify_partition",
    "verify_segment",
]

INT64_MAX = 2**63 - 1
STEP_BYTES = 8 << 20
# How often a deep check looks around for Ctrl-C and reports; headers alone go by faster.
_SHALLOW_STEP_BYTES = 256 << 20
_ENTRY_BYTES = {".index": 8, ".timeindex": 12}
_BASE_TIMESTAMP_AT = 27


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

    @property
    def is_sound(self) -> bool:
        return not self.faults and all(found.kind == "unfinished" for found in self.ranges)


@dataclass
class PartitionVerification:
    """What checking one partition gave.

    Attributes
    ----------
    ranges : list[DamagedRange]
        By offset; of segments, and of what is missing between them.
    faults : list[FileFault]
    checkpoint : Checkpoint or None
    digests : list[SegmentDigest]
        Of the sealed segments that are sound; with ``deep``, marked as verified. `record_digests` stores them.
    undigested_count : int
        Sealed segments for which nothing was known before.
    """

    path: str
    topic: str
    partition: int
    deep: bool
    log_start_offset: int = 0
    log_end_offset: int = 0
    checkpoint: Checkpoint | None = None
    segments: list[SegmentVerification] = field(default_factory=list)
    ranges: list[DamagedRange] = field(default_factory=list)
    faults: list[FileFault] = field(default_factory=list)
    digests: list[SegmentDigest] = field(default_factory=list)
    undigested_count: int = 0
    verified_ms: int = 0

    @property
    def size_bytes(self) -> int:
        return sum(segment.size_bytes for segment in self.segments)

    @property
    def records_count(self) -> int:
        return sum(segment.records_count for segment in self.segments)

    @property
    def damages(self) -> list[DamagedRange]:
        """The ranges less those a crash explains."""
        return [found for found in self.ranges if found.kind != "unfinished"]

    @property
    def is_sound(self) -> bool:
        return not self.faults and not self.damages


# ---- one segment ----------------------------------------------------------------------------------------


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
    if digest is not None and os.path.getsize(path) == digest.size_bytes:
        end_known = min(digest.end_offset, end_offset_max)
    verifier = SegmentVerifier(
        path, base_offset, end_known, contiguous=contiguous,
        offset_index=_without_padding(indexes[".index"], 8), time_index=_without_padding(indexes[".timeindex"], 12),
    )
    found = SegmentVerification(path, base_offset, end_offset_max, verifier.size_bytes, modified_ns=modified_ns)
    prefix = digest.size_bytes if digest is not None and digest.is_growing else 0
    found.is_digest_known = digest is not None and not (digest.is_growing and not is_active)
    if digest is not None:  # all it describes was on disk
        trusted_bytes = max(trusted_bytes, prefix) if prefix else INT64_MAX
    found.first_timestamp = _first_timestamp(path)
    step_bytes = STEP_BYTES if deep else _SHALLOW_STEP_BYTES
    states: deque[tuple[int, Passed]] = deque([(0, Passed(0, base_offset, -1))], maxlen=2)
    uncounted = [0, 0]
    at_prefix = b""
    while not verifier.is_done:
        left = prefix - verifier.position
        fault = verifier.step(min(step_bytes, left) if left > 0 else step_bytes, deep=deep)
        if prefix and verifier.position == prefix:
            at_prefix = verifier.digest
        if fault is not None:
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
    passed = start[1]
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
                passed = Passed(item.position, batch.last_offset + 1, batch.partition_leader_epoch)
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
            ranged = _range_of(item, found, timestamp, trusted_bytes, end_known)
            if pending is not None and pending.end_position == ranged.position and pending.kind == ranged.kind:
                pending = pending._replace(end_position=ranged.end_position, end_offset=ranged.end_offset)
            else:
                found.ranges += [] if pending is None else [pending]
                pending = ranged
        found.ranges += [] if pending is None else [pending]
        if file.size_bytes > verifier.size_bytes:  # a writer has completed its batch meanwhile
            found.size_bytes = file.size_bytes
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


def _first_timestamp(path: str) -> int:
    """Of the first record, as the first header says; -1 where there is none."""
    with refusals(path, "read"), open(path, "rb") as file:
        header = file.read(_BASE_TIMESTAMP_AT + 8)
    return int.from_bytes(header[_BASE_TIMESTAMP_AT:], "big", signed=True) if len(header) > _BASE_TIMESTAMP_AT + 7 else -1


def _read_index(path: str, suffix: str) -> bytes | None:
    index_path = path.removesuffix(".log") + suffix
    with refusals(index_path, "read"):
        try:
            descriptor = os.open(
                index_path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | getattr(os, "O_NOFOLLOW", 0)
            )
        except FileNotFoundError:
            return None
        with open(descriptor, "rb") as file:
            return file.read()


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


# ---- one partition --------------------------------------------------------------------------------------


def verify_partition(
    directory: str,
    *,
    deep: bool = True,
    trust_ours: bool = True,
    progress: Callable[[int], None] | None = None,
) -> PartitionVerification:
    """Check all files of a partition's directory.

    Parameters
    ----------
    directory : str
    deep : bool
        Read everything and check every CRC; else headers, digests and indexes alone.
    trust_ours : bool
        False where another engine has written the directory since: checkpoint and digests are not of it.
    progress : callable, optional
        Told how many bytes of ``.log`` files are done.

    Returns
    -------
    PartitionVerification

    Raises
    ------
    StorageFailureError
    """
    directory = os.path.abspath(directory)
    place = layout.split_partition_directory_name(os.path.basename(directory)) or (os.path.basename(directory), -1)
    found = PartitionVerification(directory, *place, deep=deep, verified_ms=time.time_ns() // 1_000_000)
    # The checkpoint first: an older lower bound is still one, whatever the writer does meanwhile.
    checkpoint = found.checkpoint = _read_checkpoint(directory, found.faults) if trust_ours else None
    digests = SegmentDigests(directory)
    known = digests.entries() if trust_ours else {}
    bases = list_segments(directory)
    done_bytes = 0
    for number, base in enumerate(bases):
        bound = bases[number + 1] if number + 1 < len(bases) else INT64_MAX
        path = os.path.join(directory, layout.segment_file_name(base))

        def report(here: int, before: int = done_bytes) -> None:
            if progress is not None:
                progress(before + here)

        try:
            segment = verify_segment(
                path, bound, deep=deep, contiguous=checkpoint is not None and checkpoint.is_contiguous,
                digest=known.get(base), progress=report,
                trusted_bytes=_trusted_bytes(checkpoint, base, is_last=bound == INT64_MAX),
            )
        except (StorageFailureError, CorruptDataError) as error:
            if not os.path.exists(path):
                continue  # what it held is judged below: retention or compaction may have taken it
            if isinstance(error, StorageFailureError):
                raise
            continue
        if segment.ranges and _has_changed(directory, base, known.get(base)):
            continue  # compacted or truncated while it was looked at
        if segment.ranges and bound == INT64_MAX and checkpoint is not None and checkpoint.is_clean:
            checkpoint = found.checkpoint = _read_checkpoint(directory, []) or checkpoint
            if not checkpoint.is_clean:  # a writer has begun since: it may have been in the middle of a batch
                segment = verify_segment(
                    path, bound, deep=deep, contiguous=checkpoint.is_contiguous, digest=known.get(base),
                    trusted_bytes=_trusted_bytes(checkpoint, base, is_last=True), progress=report,
                )
        if any(known.kind in ("damaged", "replaced") for known in segment.ranges):
            _recognize(segment, known)
        if bound == INT64_MAX and checkpoint is not None:
            segment.ranges = [_to_the_end(damage, checkpoint.flushed_offset) for damage in segment.ranges]
        done_bytes += segment.size_bytes
        found.segments.append(segment)
    if trust_ours and digests.damaged_at >= 0:
        found.faults.append(
            FileFault(digests.path, f"entry at byte {digests.damaged_at} is damaged; those before it do not count",
                      "no record is lost; `logstore verify --deep` on a closed directory takes digests anew")
        )  # fmt: skip
    _judge_log(found, known)
    _check_small_files(found)
    return found


def _to_the_end(damage: DamagedRange, flushed_offset: int) -> DamagedRange:
    """Damage with nothing sound behind it reaches as far as the log is known to have been on disk."""
    if damage.end_offset > damage.first_offset or damage.kind == "unfinished":
        return damage
    return damage._replace(end_offset=max(damage.first_offset, flushed_offset))


def record_digests(found: PartitionVerification) -> int:
    """Stores the digests of a deep verification. The directory's lock is held; what has changed since is left out.

    Returns
    -------
    int
        How many segments have one for the first time.

    Raises
    ------
    StorageFailureError
    """
    bases = set(list_segments(found.path))
    seen = {segment.base_offset: segment for segment in found.segments}
    recorded = []
    for digest in found.digests:
        segment = seen[digest.base_offset]
        with refusals(segment.path, "open"):
            now = os.stat(segment.path)
        unchanged = (now.st_size, now.st_mtime_ns) == (segment.size_bytes, segment.modified_ns)
        if unchanged and segment.end_offset_max in bases:
            recorded.append(digest)
    digests = SegmentDigests(found.path)
    known = digests.entries()
    digests.record(recorded, log_start_offset=found.log_start_offset)
    return sum(digest.base_offset not in known for digest in recorded)


def _trusted_bytes(checkpoint: Checkpoint | None, base_offset: int, *, is_last: bool) -> int:
    """Up to where nothing can be an unfinished write."""
    if checkpoint is None:
        return 0 if is_last else INT64_MAX
    if checkpoint.is_clean or base_offset < checkpoint.segment_base_offset:
        return INT64_MAX
    return checkpoint.position if base_offset == checkpoint.segment_base_offset else 0


def _read_checkpoint(directory: str, faults: list[FileFault]) -> Checkpoint | None:
    file = CheckpointFile(os.path.join(directory, layout.CHECKPOINT_FILE))
    state: Checkpoint | None = None
    try:
        state = file.read()
        damaged = damaged_slots(file.path)
    except (CorruptDataError, UnsupportedFormatError) as error:
        faults.append(FileFault(file.path, " ".join(str(error).split()), "open it with the version that wrote it"))
        return None
    if damaged:
        advice = (
            "the other slot counts, and the next checkpoint writes this one anew" if state is not None
            else "no record is lost; the next open scans the whole log, which `logstore repair` does now"
        )
        faults.append(FileFault(file.path, f"slot {' and '.join(map(str, damaged))} is damaged", advice))
    return state


def _has_changed(directory: str, base_offset: int, before: SegmentDigest | None) -> bool:
    after = SegmentDigests(directory).get(base_offset)
    if before is None or after == before:
        return False
    return after is None or after.digest != before.digest


def _recognize(segment: SegmentVerification, known: dict[int, SegmentDigest]) -> None:
    """Says where a file belongs that holds another segment."""
    with LogFile(segment.path, base_offset=0) as file:
        first = next(file.walk(), None)
    if not isinstance(first, PlacedBatch):
        return
    verifier = SegmentVerifier(segment.path, first.batch.base_offset, INT64_MAX)
    if verifier.step(verifier.size_bytes, deep=False) is not None:
        return
    digest = verifier.digest
    home = next((entry for entry in known.values() if entry.digest == digest), None)
    if home is not None and home.base_offset != segment.base_offset:
        text = f"the file is that of the segment at offset {home.base_offset}"
    elif first.batch.base_offset < segment.base_offset or first.batch.base_offset >= segment.end_offset_max:
        text = f"the file holds offsets {first.batch.base_offset} to {verifier.next_offset - 1}"
    else:
        return
    segment.ranges = [known._replace(reason=f"{known.reason}; {text}") for known in segment.ranges]


def _judge_log(found: PartitionVerification, known: dict[int, SegmentDigest]) -> None:
    """What can be seen from all segments together: what is missing between, before and behind them."""
    checkpoint = found.checkpoint or Checkpoint(is_contiguous=False)
    segments = found.segments
    first = segments[0].base_offset if segments else checkpoint.log_end_offset
    found.log_start_offset = max(checkpoint.log_start_offset, 0 if found.checkpoint else first)
    for segment in segments:
        found.ranges += segment.ranges
        found.faults += segment.faults
        if segment.end_offset_max < INT64_MAX:
            found.undigested_count += not segment.is_digest_known
            if segment.digest is not None and segment.is_sound:
                stamp = found.verified_ms if found.deep else segment.digest.verified_ms
                found.digests.append(segment.digest._replace(verified_ms=stamp))
    found.ranges += _missing_ranges(found, known, checkpoint)
    found.ranges.sort(key=lambda damage: (damage.first_offset, damage.end_offset))
    ends = [segment.next_offset for segment in segments] + [damage.end_offset for damage in found.ranges]
    found.log_end_offset = max([checkpoint.log_end_offset, checkpoint.flushed_offset, *ends])


def _missing_ranges(
    found: PartitionVerification, known: dict[int, SegmentDigest], checkpoint: Checkpoint
) -> Iterator[DamagedRange]:
    segments = found.segments
    bases = {segment.base_offset for segment in segments}
    covered = found.log_start_offset
    gone = [entry for base, entry in known.items() if base not in bases and entry.end_offset > covered]
    previous_timestamp = -1
    for segment in [*segments, None]:
        ahead = [entry for entry in gone if entry.base_offset >= covered]
        if segment is None:
            end = max([checkpoint.flushed_offset, *(entry.end_offset for entry in ahead)])
        else:
            end = segment.base_offset
        sealed = sorted(entry for entry in ahead if entry.base_offset < end)
        if covered < end and (checkpoint.is_contiguous or segment is None or sealed):
            at_end = segment is None and bool(segments) and not sealed
            missing = layout.segment_file_name(sealed[0].base_offset if sealed else covered)
            yield DamagedRange(
                segments[-1].path if at_end else os.path.join(found.path, missing), -1, -1,
                covered if checkpoint.is_contiguous or not sealed else sealed[0].base_offset, end, previous_timestamp,
                max([-1 if segment is None else segment.first_timestamp, *(entry.max_timestamp for entry in sealed)]),
                "flushed records are missing at the end" if at_end else "a segment file of this log is missing",
                end if at_end else None, covered if at_end else None, "missing",
            )  # fmt: skip
        if segment is not None:
            covered = max([covered, segment.next_offset, *(damage.end_offset for damage in segment.ranges)])
            previous_timestamp = max(previous_timestamp, segment.max_timestamp)


def _check_small_files(found: PartitionVerification) -> None:
    epochs = os.path.join(found.path, layout.LEADER_EPOCH_FILE)
    try:
        previous = (-1, -1)
        for row in read_rows(epochs, 2):
            entry = int(row[0]), int(row[1])
            if entry[0] <= previous[0] or entry[1] <= previous[1]:
                raise CorruptDataError(epochs, -1, "epochs and offsets must rise")
            previous = entry
    except (LogstoreError, ValueError) as error:
        if isinstance(error, StorageFailureError):
            raise
        reason = error.reason if isinstance(error, CorruptDataError) else "an entry is not two numbers"
        found.faults.append(FileFault(epochs, reason, "no record is lost; the next open writes it from the batches"))
    path = os.path.join(found.path, layout.PARTITION_METADATA_FILE)
    try:
        if read_topic_id(found.path) is None:
            found.faults.append(FileFault(path, "the file is missing", "the next open writes it anew"))
    except CorruptDataError as error:
        found.faults.append(FileFault(path, error.reason, "no record is lost; the next open writes it anew"))
