"""What a repair of one log would do: which bytes stay, what can be put back, what is lost. Changes nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from logstore._native.record_batch import RecordBatch
from logstore._native.verification import SegmentVerifier
from logstore.errors import CorruptDataError, UnsupportedFormatError
from logstore.storage import layout
from logstore.storage.batch_walk import LogFile, PlacedBatch
from logstore.storage.checkpoint import Checkpoint, CheckpointFile
from logstore.storage.files import refusals
from logstore.storage.segment_digests import SegmentDigest, SegmentDigests
from logstore.storage.segment_verification import DamagedRange, FileFault, SegmentVerification
from logstore.storage.verification import PartitionVerification, verify_partition

__all__ = ["Insertion", "Piece", "RepairPlan", "RewrittenSegment", "plan_repair"]

INT64_MAX = 2**63 - 1
_MENDED_BYTES_MAX = 64 << 20


class Piece(NamedTuple):
    """Bytes of a file that stay as they are."""

    path: str
    position: int
    end_position: int


class Insertion(NamedTuple):
    """One batch that is put back: found elsewhere, or with a header field corrected that no CRC covers."""

    base_offset: int
    end_offset: int
    content: bytes
    origin: str


@dataclass
class RewrittenSegment:
    """A ``.log`` file that is written anew, in the order of its parts."""

    base_offset: int
    parts: list[Piece | Insertion] = field(default_factory=list)

    @property
    def size_bytes(self) -> int:
        return sum(
            len(part.content) if isinstance(part, Insertion) else part.end_position - part.position for part in self.parts
        )


@dataclass
class RepairPlan:
    """What is to be done about one partition.

    Attributes
    ----------
    verification : PartitionVerification
    lost : list[DamagedRange]
        What stays unreadable: reads skip exactly these offsets afterwards.
    accepted : list[DamagedRange]
        Sound records that are not those once written there, as far as the digests tell; they stay readable.
    restored : list[Insertion]
    segments : list[RewrittenSegment]
    set_aside : list[str]
        Files that leave the log altogether.
    indexes : list[int]
        Base offsets of the segments whose indexes are derived again.
    checkpoint : Checkpoint
        The one that is true afterwards.
    first_unflushed : int
        Base offset of the first segment that may not be on disk as a whole.
    """

    verification: PartitionVerification
    lost: list[DamagedRange] = field(default_factory=list)
    accepted: list[DamagedRange] = field(default_factory=list)
    restored: list[Insertion] = field(default_factory=list)
    segments: list[RewrittenSegment] = field(default_factory=list)
    set_aside: list[str] = field(default_factory=list)
    indexes: list[int] = field(default_factory=list)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    first_unflushed: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to repair."""
        return self.verification.is_sound

    @property
    def path(self) -> str:
        return self.verification.path

    @property
    def name(self) -> str:
        return f"{self.verification.topic}-{self.verification.partition}"

    @property
    def lost_offsets_count(self) -> int:
        return sum(found.end_offset - found.first_offset for found in self.lost)

    def as_json(self) -> dict[str, Any]:
        """The plan as the report has it."""
        return {
            "topic": self.verification.topic,
            "partition": self.verification.partition,
            "path": self.path,
            "log_start_offset": self.checkpoint.log_start_offset,
            "log_end_offset": self.checkpoint.log_end_offset,
            "lost_offsets": self.lost_offsets_count,
            "lost": [found._asdict() for found in self.lost],
            "accepted": [found._asdict() for found in self.accepted],
            "restored": [
                {"first_offset": part.base_offset, "end_offset": part.end_offset, "origin": part.origin}
                for part in self.restored
            ],
            "rewritten_segments": [segment.base_offset for segment in self.segments],
            "set_aside": self.set_aside,
            "rebuilt_indexes": self.indexes,
            "faults": [fault._asdict() for fault in self.verification.faults],
        }


def plan_repair(
    directory: str, *, trust_ours: bool = True, progress: Callable[[int], None] | None = None
) -> RepairPlan:
    """Verifies a partition, deeply, and says what a repair would do. Nobody may be writing to it.

    Raises
    ------
    UnsupportedFormatError
        A newer version has written the checkpoint.
    StorageFailureError
    """
    CheckpointFile(os.path.join(directory, layout.CHECKPOINT_FILE)).read()
    verification = verify_partition(directory, trust_ours=trust_ours, progress=progress)
    plan = RepairPlan(verification)
    if plan.is_empty:
        return plan
    known = SegmentDigests(directory).entries() if trust_ours else {}
    old = verification.checkpoint
    pool = sorted(_strangers(verification, known), key=lambda part: part.base_offset)
    kept = {segment.base_offset: segment for segment in verification.segments}
    plan.set_aside += verification.strays
    for segment in verification.segments:
        if any(found.kind != "replaced" for found in segment.ranges):
            rewritten = _rewritten(plan, segment, pool, old)
            # A file that holds nothing of the segment it is named for goes, unless the log ends in it.
            if rewritten.parts or segment is verification.segments[-1]:
                plan.segments.append(rewritten)
            else:
                plan.set_aside.append(segment.path)
                del kept[segment.base_offset]
        elif old is not None and old.sync_failed and segment.base_offset >= old.segment_base_offset:
            # What the page cache shows may not be on disk: a copy is.
            plan.segments.append(RewrittenSegment(segment.base_offset, [Piece(segment.path, 0, segment.size_bytes)]))
        plan.accepted += [found for found in segment.ranges if found.kind == "replaced"]
    plan.segments += _from_strangers(plan, pool, kept)
    plan.lost.sort(key=lambda found: found.first_offset)
    _finish(plan, kept, old)
    return plan


def _rewritten(
    plan: RepairPlan, segment: SegmentVerification, pool: list[Insertion], old: Checkpoint | None
) -> RewrittenSegment:
    """The segment without what is damaged, and with what can be put back in its place."""
    rewritten = RewrittenSegment(segment.base_offset)
    position = 0
    for found in sorted(segment.ranges, key=lambda damage: damage.position):
        if found.position > position:
            rewritten.parts.append(Piece(segment.path, position, found.position))
        contiguous = old is not None and old.is_contiguous
        mended = _mended(segment, found, contiguous=contiguous)
        inserted = [mended] if mended is not None else list(_fitting(pool, found.first_offset, found.end_offset))
        rewritten.parts += inserted
        plan.restored += inserted
        if found.kind != "unfinished":
            plan.lost += _rest_of(found, inserted)
        position = max(position, found.end_position)
    if position < segment.size_bytes:
        rewritten.parts.append(Piece(segment.path, position, segment.size_bytes))
    return rewritten


def _mended(segment: SegmentVerification, found: DamagedRange, *, contiguous: bool) -> Insertion | None:
    """The batch of a damaged range, where its CRC shows that all but the first 17 bytes is right, and those follow
    from what stands around it."""
    size = found.end_position - found.position
    if not 61 <= size <= _MENDED_BYTES_MAX or found.end_offset <= found.first_offset:
        return None
    with refusals(segment.path, "read"), open(segment.path, "rb") as file:
        file.seek(found.position)
        content = bytearray(file.read(size + 17))
    behind = content[size:]
    stored_epoch = int.from_bytes(content[12:16], "big", signed=True)
    next_epoch = int.from_bytes(behind[12:16], "big", signed=True) if len(behind) >= 16 else INT64_MAX
    epoch = stored_epoch if found.leader_epoch <= stored_epoch <= next_epoch else max(found.leader_epoch, 0)
    stored_offset = int.from_bytes(content[:8], "big", signed=True)
    delta = int.from_bytes(content[23:27], "big", signed=True)
    base_offset = found.first_offset
    if not contiguous or base_offset + delta + 1 != found.end_offset:
        if not found.first_offset <= stored_offset <= found.end_offset - delta - 1:
            return None
        base_offset = stored_offset
    header = base_offset.to_bytes(8, "big") + (size - 12).to_bytes(4, "big") + epoch.to_bytes(4, "big", signed=True)
    content[:17] = header + b"\x02"
    try:
        batch = RecordBatch.validated(bytes(content[:size]))
    except (CorruptDataError, UnsupportedFormatError):
        return None
    if batch.size_bytes != size:
        return None
    return Insertion(
        base_offset, base_offset + delta + 1, bytes(content[:size]), "header corrected: its CRC shows that the rest is right"
    )


def _fitting(pool: list[Insertion], first_offset: int, end_offset: int) -> Iterator[Insertion]:
    for part in list(pool):
        if part.base_offset >= first_offset and part.end_offset <= end_offset:
            first_offset = part.end_offset
            pool.remove(part)
            yield part


def _rest_of(found: DamagedRange, inserted: Iterable[Insertion]) -> list[DamagedRange]:
    """A lost range without what is put back."""
    rest = []
    first_offset = found.first_offset
    for part in inserted:
        if part.base_offset > first_offset:
            rest.append(found._replace(first_offset=first_offset, end_offset=part.base_offset))
        first_offset = part.end_offset
    if first_offset < found.end_offset:
        rest.append(found._replace(first_offset=first_offset))
    return rest


def _strangers(verification: PartitionVerification, known: dict[int, SegmentDigest]) -> Iterator[Insertion]:
    """Sound batches that stand where they don't belong: in a file under another segment's name, or behind the next
    segment's base offset.

    One batch alone may have a flipped bit in its offset. Those that follow each other, or a file that a digest knows,
    are what they say.
    """
    digests = {entry.digest for entry in known.values()}
    places = [(path, 0, INT64_MAX) for path in verification.strays]
    for segment in verification.segments:
        places += [
            (segment.path, found.position, found.end_position) for found in segment.ranges if found.kind == "damaged"
        ]
    for path, position, end_position in places:
        run: list[Insertion] = []
        with LogFile(path, base_offset=0, patient=False) as file:
            for item in file.walk(position):
                if not isinstance(item, PlacedBatch) or item.position >= end_position:
                    break
                batch = item.batch
                if run and run[-1].end_offset != batch.base_offset:
                    yield from run if len(run) > 1 else []
                    run = []
                origin = f"found in {os.path.basename(path)} at byte {item.position}"
                run.append(Insertion(batch.base_offset, batch.last_offset + 1, bytes(batch), origin))
        if len(run) > 1 or (run and _whole_digest(path, run[0].base_offset) in digests):
            yield from run


def _whole_digest(path: str, base_offset: int) -> bytes | None:
    verifier = SegmentVerifier(path, base_offset, INT64_MAX)
    return verifier.digest if verifier.step(verifier.size_bytes, deep=False) is None else None


def _from_strangers(
    plan: RepairPlan, pool: list[Insertion], kept: dict[int, SegmentVerification]
) -> list[RewrittenSegment]:
    """New segments for what is missing with its file, as far as it stands elsewhere."""
    made = []
    of_segments = [found for segment in plan.verification.segments for found in segment.ranges]
    for found in plan.verification.ranges:
        if found in of_segments:
            continue
        inserted = list(_fitting(pool, found.first_offset, found.end_offset))
        plan.lost += _rest_of(found, inserted)
        plan.restored += inserted
        if inserted and inserted[0].base_offset not in kept:
            made.append(RewrittenSegment(inserted[0].base_offset, list(inserted)))
    return made


def _finish(plan: RepairPlan, kept: dict[int, SegmentVerification], old: Checkpoint | None) -> None:
    """Everything else that has to be true of the log as it will be."""
    verification = plan.verification
    end_offset = verification.log_end_offset
    sizes = {base: segment.size_bytes for base, segment in kept.items()}
    sizes.update((segment.base_offset, segment.size_bytes) for segment in plan.segments)
    if not sizes:
        plan.segments.append(RewrittenSegment(end_offset))
        sizes[end_offset] = 0
    first, last = min(sizes), max(sizes)
    known = old or Checkpoint(is_contiguous=False)
    has_gaps = bool(plan.lost or plan.accepted)
    plan.checkpoint = Checkpoint(
        log_start_offset=min(max(known.log_start_offset, first), end_offset),
        flushed_offset=end_offset,
        segment_base_offset=last,
        position=sizes[last],
        log_end_offset=end_offset,
        is_contiguous=known.is_contiguous and not has_gaps,
    )
    rewritten = {segment.base_offset for segment in plan.segments}
    faulty = {_segment_of(fault) for fault in verification.faults}
    plan.indexes = sorted(base for base in sizes if base in rewritten or base in faulty)
    small = {layout.LEADER_EPOCH_FILE, layout.PARTITION_METADATA_FILE, layout.DIGESTS_FILE}
    plan.set_aside += [
        fault.path for fault in verification.faults
        if os.path.basename(fault.path) in small and os.path.exists(fault.path)
    ]
    plan.first_unflushed = known.segment_base_offset


def _segment_of(fault: FileFault) -> int:
    stem, suffix = os.path.splitext(os.path.basename(fault.path))
    return int(stem) if suffix in (".index", ".timeindex") and stem.isdigit() else -1
