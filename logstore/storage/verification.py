"""Checking the files of one log without opening it: what is damaged, what is missing, what was put in its place.

Only reads, and works beside a process that writes. `verify_partition` is what the command line and the repair start from.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from logstore._native.verification import SegmentVerifier
from logstore.errors import CorruptDataError, LogstoreError, StorageFailureError, UnsupportedFormatError
from logstore.storage import layout
from logstore.storage.batch_walk import LogFile, PlacedBatch
from logstore.storage.checkpoint import Checkpoint, CheckpointFile
from logstore.storage.directory_lock import lock_owner
from logstore.storage.files import read_bytes, refusals
from logstore.storage.open_batch import left_batch, open_batch_path, read_open_batch
from logstore.storage.recovery import list_segments
from logstore.storage.segment_digests import SegmentDigest, SegmentDigests
from logstore.storage.segment_verification import DamagedRange, FileFault, SegmentVerification, verify_segment
from logstore.storage.text_checkpoints import read_rows, read_topic_id
from logstore.storage.transaction_verification import producer_faults

__all__ = ["PartitionVerification", "record_digests", "verify_partition"]

INT64_MAX = 2**63 - 1
_LOOKS = 3  # at what seems damaged while somebody writes


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
    strays : list[str]
        ``.log`` files that hold another segment than their name says; they are among the faults.
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
    strays: list[str] = field(default_factory=list)
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
    for base in [base for base in bases if base not in known]:
        if (reason := _why_stray(directory, base, bases, known)) is not None:
            bases.remove(base)
            found.strays.append(os.path.join(directory, layout.segment_file_name(base)))
            found.faults.append(FileFault(found.strays[-1], reason, "`logstore repair` puts that right"))
    done_bytes = 0
    for number, base in enumerate(bases):
        bound = bases[number + 1] if number + 1 < len(bases) else INT64_MAX
        path = os.path.join(directory, layout.segment_file_name(base))

        def report(here: int, before: int = done_bytes) -> None:
            if progress is not None:
                progress(before + here)

        segment = _verify_one(path, bound, deep=deep, checkpoint=checkpoint, digest=known.get(base), progress=report)
        for _ in range(_LOOKS):
            if segment is None or not segment.ranges:
                break
            # Was it damage, or a writer who cut, compacted or appended just then? What is damaged stays so.
            now = SegmentDigests(directory).get(base) if trust_ours else None
            fresh = (_read_checkpoint(directory, []) if trust_ours else None) or checkpoint
            if (now, fresh) == (known.get(base), checkpoint) and not _has_grown(segment):
                break
            known, checkpoint = {**known, base: now} if now is not None else _without(known, base), fresh
            segment = _verify_one(path, bound, deep=deep, checkpoint=checkpoint, digest=now, progress=report)
        if segment is None:
            continue  # what it held is judged below: retention or compaction may have taken it
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
    found.checkpoint = checkpoint
    _judge_log(found, known)
    found.ranges = [damage for damage in found.ranges if damage.position >= 0 or not _is_gone(directory, damage, bases)]
    _check_small_files(found)
    found.faults += _producer_faults(found, bases, trust_ours)
    return found


def _verify_one(
    path: str,
    bound: int,
    *,
    deep: bool,
    checkpoint: Checkpoint | None,
    digest: SegmentDigest | None,
    progress: Callable[[int], None],
) -> SegmentVerification | None:
    """One segment; None where its file is gone."""
    base = layout.segment_offset(os.path.basename(path)) or 0
    try:
        return verify_segment(
            path, bound, deep=deep, contiguous=checkpoint is not None and checkpoint.is_contiguous, digest=digest,
            trusted_bytes=_trusted_bytes(checkpoint, base, is_last=bound == INT64_MAX), progress=progress,
        )
    except StorageFailureError:
        if not os.path.exists(path):
            return None
        raise


def _has_grown(segment: SegmentVerification) -> bool:
    try:
        now = os.stat(segment.path)
    except FileNotFoundError:
        return True
    return (now.st_size, now.st_mtime_ns) != (segment.file_size_bytes, segment.modified_ns)


def _is_gone(directory: str, damage: DamagedRange, bases: list[int]) -> bool:
    """Whether what seems to be missing was deleted or truncated by a writer meanwhile. The checkpoint says so before any
    file goes."""
    state = _read_checkpoint(directory, [])
    if state is None:
        return False
    made_since = set(list_segments(directory)).difference(bases)
    return (
        damage.end_offset <= state.log_start_offset
        or damage.first_offset >= state.log_end_offset
        or any(damage.first_offset <= base < damage.end_offset for base in made_since)
    )


def _without(known: dict[int, SegmentDigest], base_offset: int) -> dict[int, SegmentDigest]:
    return {base: digest for base, digest in known.items() if base != base_offset}


def _why_stray(directory: str, base_offset: int, bases: list[int], known: dict[int, SegmentDigest]) -> str | None:
    """Why a file is not the segment that its name says, though another's content stands in it, whole."""
    path = os.path.join(directory, layout.segment_file_name(base_offset))
    head = read_bytes(path, 8) or b""
    content_offset = int.from_bytes(head, "big", signed=True)
    if len(head) < 8 or content_offset == base_offset:
        return None
    if content_offset in bases:
        original = os.path.join(directory, layout.segment_file_name(content_offset))
        if _begins_alike(path, original):
            return f"it is a copy of the segment at offset {content_offset}, under another name"
    elif content_offset in known:
        return f"it is the segment at offset {content_offset}, under another name"
    return None


def _begins_alike(path: str, original: str) -> bool:
    """Whether the shorter of two files is how the longer begins: one may have grown since it was copied."""
    with refusals(path, "read"), open(path, "rb") as file, open(original, "rb") as other:
        left = min(os.path.getsize(path), os.path.getsize(original))
        while left > 0:
            piece = file.read(min(1 << 20, left))
            if not piece or other.read(len(piece)) != piece:
                return False
            left -= len(piece)
    return True


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
    except (CorruptDataError, UnsupportedFormatError) as error:
        faults.append(FileFault(file.path, " ".join(str(error).split()), "open it with the version that wrote it"))
        return None
    if file.damaged_slots:
        advice = (
            "the other slot counts, and the next checkpoint writes this one anew" if state is not None
            else "no record is lost; the next open scans the whole log, which `logstore repair` does now"
        )
        faults.append(FileFault(file.path, f"slot {' and '.join(map(str, file.damaged_slots))} is damaged", advice))
    return state


def _recognize(segment: SegmentVerification, known: dict[int, SegmentDigest]) -> None:
    """Says where a file belongs that holds another segment."""
    with LogFile(segment.path, base_offset=0, patient=False) as file:
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
    before = -1
    for segment in segments:
        segment.ranges = [_since(damage, before) for damage in segment.ranges]
        before = max(before, segment.max_timestamp)
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


def _since(damage: DamagedRange, timestamp: int) -> DamagedRange:
    return damage if damage.first_timestamp >= 0 else damage._replace(first_timestamp=timestamp)


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
            flushed = checkpoint.flushed_offset if checkpoint.is_contiguous or _is_short(found, checkpoint) else 0
            end = max([flushed, *(entry.end_offset for entry in ahead)])
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


def _is_short(found: PartitionVerification, checkpoint: Checkpoint) -> bool:
    """Whether the file that was being written at the checkpoint lacks some of what was in it."""
    sizes = {segment.base_offset: segment.size_bytes for segment in found.segments}
    return sizes.get(checkpoint.segment_base_offset, 0) < checkpoint.position


def _producer_faults(found: PartitionVerification, bases: list[int], trust_ours: bool) -> list[FileFault]:
    """Those that are there at a second look as well: a writer may have truncated the log during the first."""
    faults: list[FileFault] | None = None
    is_contiguous = found.checkpoint is not None and found.checkpoint.is_contiguous
    for _ in range(2):
        seen = list(producer_faults(
            found.path, bases, found.log_end_offset, deep=found.deep, is_contiguous=is_contiguous, trust_ours=trust_ours,
        ))
        faults = seen if faults is None else [fault for fault in faults if fault in seen]
        if not faults:
            break
    return faults or []


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
        read_topic_id(found.path)
    except CorruptDataError as error:
        found.faults.append(FileFault(path, error.reason, "no record is lost; the next open writes it anew"))
    content = read_open_batch(found.path)
    if content is not None and lock_owner(os.path.dirname(found.path)) is None:
        try:
            left_batch(found.path, content, end_offset=found.log_end_offset, leader_epoch=0)
        except CorruptDataError as error:
            advice = "records acknowledged as `appended` are lost, none that was flushed; the next open keeps it as .torn"
            found.faults.append(FileFault(open_batch_path(found.path), error.reason, advice))
