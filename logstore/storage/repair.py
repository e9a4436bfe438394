"""Carrying a repair plan out, so that a crash at any step leaves the damaged log or the repaired one.

1. New files are written as ``.repaired``, and synced.
2. All that is about to change is linked into ``logstore.evidence/<time>/``, with a report of what is lost.
3. ``logstore.repair`` says what is to be done. From here on the repair is carried through, by the next open if need be.
4. Digests of what changes are forgotten; new files get their names; the others leave the log.
5. Indexes are derived again, the checkpoint is replaced, digests are taken, ``logstore.repair`` is removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from typing import Any, NamedTuple

from logstore._native.checksum import crc32c
from logstore._native.segment_opening import reopen_segment
from logstore.errors import CorruptDataError
from logstore.storage import layout
from logstore.storage.checkpoint import Checkpoint, CheckpointFile
from logstore.storage.files import make_directory, read_text, refusals, replace_file, sync_directory
from logstore.storage.recovery import list_segments, write_indexes
from logstore.storage.repair_plan import Insertion, RepairPlan, RewrittenSegment
from logstore.storage.segment_digests import SegmentDigests
from logstore.storage.segment_verification import DamagedRange
from logstore.storage.verification import record_digests, verify_partition

__all__ = [
    "EVIDENCE_DIRECTORY",
    "RepairResult",
    "carry_out",
    "finish_repair",
    "has_unfinished_repair",
    "plan_text",
    "rebuild_indexes",
]

EVIDENCE_DIRECTORY = "logstore.evidence"
NEW_SUFFIX = ".repaired"
_COPY_BYTES = 1 << 20
_INDEX_INTERVAL_BYTES = 4096
_INDEX_BYTES = 10_485_760


class RepairResult(NamedTuple):
    """What a repair has left.

    Attributes
    ----------
    evidence : str
        The directory with the files as they were, ``report.json`` and ``report.txt``.
    is_sound : bool
        Whether a deep verification afterwards found nothing.
    """

    evidence: str
    is_sound: bool


def has_unfinished_repair(directory: str) -> bool:
    """Whether a repair was cut short after its plan was fixed."""
    return os.path.exists(os.path.join(directory, layout.REPAIR_FILE))


def carry_out(plan: RepairPlan, *, index_interval_bytes: int = _INDEX_INTERVAL_BYTES) -> RepairResult:
    """Carries a plan out. The directory's lock is held, and no log is open.

    Parameters
    ----------
    plan : RepairPlan
    index_interval_bytes : int
        The topic's ``index.interval.bytes``.

    Raises
    ------
    StorageFailureError
        The log is as it was; or, where ``logstore.repair`` is there, the next open finishes the repair.
    """
    directory = plan.path
    _remove_leftovers(directory)
    for segment in plan.segments:
        _write_segment(directory, segment)
    rewritten = {os.path.join(directory, layout.segment_file_name(segment.base_offset)) for segment in plan.segments}
    changed = _changed_files(plan) | rewritten
    evidence = _make_evidence(directory, sorted(path for path in changed if os.path.exists(path)))
    sound = {segment.base_offset for segment in plan.verification.segments if segment.is_sound}
    kept = sound.difference(segment.base_offset for segment in plan.segments)
    report = {**plan.as_json(), "state": "begun", "evidence": evidence}
    journal = {
        "evidence": os.path.relpath(evidence, directory),
        "segments": [segment.base_offset for segment in plan.segments],
        "removed": sorted(os.path.basename(path) for path in changed - rewritten),
        "synced": [base for base in sorted(kept) if base >= plan.first_unflushed],
        "indexes": plan.indexes,
        "index_interval_bytes": index_interval_bytes,
        "forgotten": [base for base in SegmentDigests(directory).entries() if base not in kept],
        "checkpoint": plan.checkpoint._asdict(),
        "report": report,
    }
    _write_reports(evidence, report, plan_text(plan, evidence))
    sync_directory(directory)
    body = json.dumps(journal).encode()
    replace_file(os.path.join(directory, layout.REPAIR_FILE), b"%08x\n" % crc32c(body) + body)
    finish_repair(directory)
    return RepairResult(evidence, verify_partition(directory).is_sound)


def finish_repair(directory: str) -> None:
    """Steps 4 and 5, as ``logstore.repair`` has them. Each can be repeated.

    Raises
    ------
    CorruptDataError, StorageFailureError
    """
    path = os.path.join(directory, layout.REPAIR_FILE)
    text = read_text(path)
    if text is None:
        return
    head, _, body = text.partition("\n")
    if head != f"{crc32c(body.encode()):08x}":
        raise CorruptDataError(
            path, 0, "CRC does not match", head[:8], f"{crc32c(body.encode()):08x}",
            "A repair was under way. Files ending in .repaired are whole, the originals are in logstore.evidence: move this "
            "file away, and run `logstore repair` again.",
        )
    journal: dict[str, Any] = json.loads(body)
    SegmentDigests(directory).forget(journal["forgotten"])
    with refusals(directory, "repair"):
        for base in journal["segments"]:
            name = os.path.join(directory, layout.segment_file_name(base))
            with contextlib.suppress(FileNotFoundError):
                os.replace(name + NEW_SUFFIX, name)
        for name in journal["removed"]:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(directory, name))
    sync_directory(directory)
    rebuild_indexes(directory, journal["indexes"], journal["index_interval_bytes"])
    for base in journal["synced"]:  # the checkpoint is about to say that they are on disk
        _sync_file(os.path.join(directory, layout.segment_file_name(base)))
    checkpoint = CheckpointFile(os.path.join(directory, layout.CHECKPOINT_FILE))
    checkpoint.read()  # for its sequence
    checkpoint.replace(Checkpoint(**journal["checkpoint"]))
    record_digests(verify_partition(directory))
    report = {**journal["report"], "state": "done"}
    replace_file(os.path.join(directory, journal["evidence"], "report.json"), json.dumps(report, indent=1).encode() + b"\n")
    with refusals(path, "unlink"):
        os.unlink(path)
    sync_directory(directory)


def rebuild_indexes(
    directory: str, base_offsets: list[int], index_interval_bytes: int = _INDEX_INTERVAL_BYTES
) -> None:
    """Derives index files from the ``.log`` files and syncs them. Nobody may be writing to the log.

    Raises
    ------
    StorageFailureError
    """
    bases = list_segments(directory)
    for base in base_offsets:
        if base not in bases:
            continue
        path = os.path.join(directory, layout.segment_file_name(base))
        segment, scan = reopen_segment(
            path, base, index_interval_bytes=index_interval_bytes, index_bytes=_INDEX_BYTES, trusted_bytes=0,
            trusted_offset=base, writable=False, deep=False,
        )
        while scan.tail != "none" and scan.next_valid_position >= 0:
            scan = segment.recover(scan.next_valid_position, scan.next_offset, deep=False)
        segment.seal(2**63 - 1)
        write_indexes(segment, final=True, sync=True)
    sync_directory(directory)


# ---- steps ----------------------------------------------------------------------------------------------


def _remove_leftovers(directory: str) -> None:
    """Of a repair that never got as far as its journal."""
    with refusals(directory, "clean up after a crash"):
        for name in os.listdir(directory):
            if name.endswith(NEW_SUFFIX):
                os.unlink(os.path.join(directory, name))


def _write_segment(directory: str, segment: RewrittenSegment) -> None:
    path = os.path.join(directory, layout.segment_file_name(segment.base_offset)) + NEW_SUFFIX
    with refusals(path, "write"):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
        with open(descriptor, "wb") as target:
            for part in segment.parts:
                if isinstance(part, Insertion):
                    target.write(part.content)
                    continue
                with open(part.path, "rb") as source:
                    source.seek(part.position)
                    left = part.end_position - part.position
                    while left > 0 and (piece := source.read(min(_COPY_BYTES, left))):
                        target.write(piece)
                        left -= len(piece)
            target.flush()
            os.fsync(target.fileno())


def _changed_files(plan: RepairPlan) -> set[str]:
    """Files that leave: those set aside, and indexes that are made anew."""
    stems = [os.path.join(plan.path, layout.segment_file_name(base, "")) for base in plan.indexes]
    stems += [path.removesuffix(".log") for path in plan.set_aside if path.endswith(".log")]
    return {*plan.set_aside, *(stem + suffix for stem in stems for suffix in (".index", ".timeindex"))}


def _sync_file(path: str) -> None:
    with refusals(path, "sync"):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _make_evidence(directory: str, paths: list[str]) -> str:
    parent = os.path.join(directory, EVIDENCE_DIRECTORY)
    make_directory(parent)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    number = 0
    while os.path.exists(evidence := os.path.join(parent, f"{stamp}-{number}" if number else stamp)):
        number += 1
    make_directory(evidence)
    checkpoint = os.path.join(directory, layout.CHECKPOINT_FILE)
    with refusals(evidence, "keep the evidence"):
        for path in paths:
            target = os.path.join(evidence, os.path.basename(path))
            try:
                os.link(path, target)  # the file gets no other content any more, only another name
            except OSError:
                _copy(path, target)
        if os.path.exists(checkpoint):
            _copy(checkpoint, os.path.join(evidence, layout.CHECKPOINT_FILE))
    sync_directory(evidence)
    return evidence


def _copy(path: str, target: str) -> None:
    shutil.copyfile(path, target)
    _sync_file(target)


def _write_reports(evidence: str, report: dict[str, Any], text: str) -> None:
    replace_file(os.path.join(evidence, "report.json"), json.dumps(report, indent=1).encode() + b"\n")
    replace_file(os.path.join(evidence, "report.txt"), text.encode())


def plan_text(plan: RepairPlan, evidence: str = "") -> str:
    """A plan for people, line by line; with ``evidence`` it is the report of a repair."""
    done = bool(evidence)
    stamp = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    lines = [f"{plan.name}: repaired, {stamp}" if done else f"{plan.name}:"]
    if plan.lost:
        count = f"{plan.lost_offsets_count:,} offsets"
        lines.append(f"lost: {count}" if done else f"can't be brought back: {count}. Reads will skip just these:")
        lines += [f"  {_range_line(found)}" for found in plan.lost]
    else:
        lines.append("no record is lost")
    if plan.restored:
        lines.append("put back:")
        lines += [f"  offsets {part.base_offset} to {part.end_offset - 1}: {part.origin}" for part in plan.restored[:20]]
        lines += [f"  and {len(plan.restored) - 20} batches more"] if len(plan.restored) > 20 else []
    if plan.accepted:
        lines.append("sound, but not what was once written there; stays as it is, and a backup may have the original:")
        lines += [f"  {_range_line(found)}" for found in plan.accepted]
    if plan.segments:
        names = ", ".join(layout.segment_file_name(segment.base_offset) for segment in plan.segments)
        lines.append(f"written anew without what is damaged: {names}")
    if plan.set_aside:
        lines.append(f"set aside: {', '.join(map(os.path.basename, plan.set_aside))}")
    if plan.indexes:
        lines.append(f"indexes derived again: {', '.join(layout.segment_file_name(base, '') for base in plan.indexes)}")
    lines += [f"because of {os.path.basename(fault.path)}: {fault.reason}" for fault in plan.verification.faults]
    place = evidence or os.path.join(plan.path, EVIDENCE_DIRECTORY)
    lines.append(f"kept as it was: every file that changes, in {place}")
    return "\n".join(lines) + "\n"


def _range_line(found: DamagedRange) -> str:
    when = ""
    if max(found.first_timestamp, found.last_timestamp) >= 0:
        when = f", from about {_utc(found.first_timestamp)} to {_utc(found.last_timestamp)}"
    return (
        f"offsets {found.first_offset} to {found.end_offset - 1}{when}: {os.path.basename(found.path)}: {found.reason}"
    )


def _utc(timestamp_ms: int) -> str:
    if timestamp_ms < 0:
        return "an unknown time"
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(timestamp_ms / 1000))
    except (OverflowError, ValueError, OSError):
        return f"{timestamp_ms} ms"
