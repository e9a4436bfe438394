"""Copying one log while it is written, and building it again from the copy.

What is copied of a segment is a whole number of batches, each with its CRC checked, and named by its digest: so a segment
that is in the backup already is not copied again, and nothing in a backup is ever overwritten.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from logstore._native.verification import SegmentVerifier
from logstore.errors import CorruptDataError, StorageFailureError
from logstore.storage import layout
from logstore.storage.checkpoint import Checkpoint, CheckpointFile
from logstore.storage.files import make_directory, read_text, refusals, replace_file, sync_directory, write_at
from logstore.storage.leader_epochs import LeaderEpochs
from logstore.storage.open_batch import left_batch, read_open_batch
from logstore.storage.recovery import list_segments
from logstore.storage.repair import rebuild_indexes
from logstore.storage.text_checkpoints import write_topic_id
from logstore.storage.verification import record_digests, verify_partition

__all__ = [
    "LogSnapshot",
    "StoredSegment",
    "copy_log",
    "manifest_of",
    "restore_log",
    "take_snapshot",
    "write_manifest",
]

INT64_MAX = 2**63 - 1
_STEP_BYTES = 8 << 20
_ATTEMPTS = 8
_SMALL_SUFFIXES = (".snapshot", ".txnindex")


class LogSnapshot(NamedTuple):
    """What a log held at one moment: its segments and how long their files were, and the file of its open batch."""

    path: str
    log_start_offset: int
    log_end_offset: int
    is_contiguous: bool
    sizes: dict[int, int]
    open_batch: bytes | None = None


class StoredSegment(NamedTuple):
    """A segment in a backup."""

    base_offset: int
    end_offset: int
    size_bytes: int
    digest: str

    @property
    def file_name(self) -> str:
        return f"{self.base_offset:020d}-{self.size_bytes}-{self.digest}.log"


def take_snapshot(directory: str) -> LogSnapshot:
    """Notes what there is to copy; records appended later are not part of it.

    Raises
    ------
    StorageFailureError
    """
    # What the checkpoint says was on disk before the files were looked at.
    checkpoint = CheckpointFile(os.path.join(directory, layout.CHECKPOINT_FILE)).read()
    open_batch = read_open_batch(directory)  # first: what is handed over from here on, the sizes cover
    sizes = {}
    for base in list_segments(directory):
        with contextlib.suppress(FileNotFoundError):
            sizes[base] = os.path.getsize(os.path.join(directory, layout.segment_file_name(base)))
    known = checkpoint or Checkpoint(is_contiguous=False)
    return LogSnapshot(directory, known.log_start_offset, known.log_end_offset, known.is_contiguous, sizes, open_batch)


def copy_log(
    snapshot: LogSnapshot, store: str, *, append_time: bool = False, progress: Callable[[int], None] | None = None
) -> tuple[dict[str, Any], int]:
    """Brings a log's copy in a backup up to a snapshot.

    Parameters
    ----------
    snapshot : LogSnapshot
    store : str
        The directory for this log's files in the backup.
    append_time : bool
        Whether records of the topic have the time of their append.
    progress : callable, optional
        Told how many bytes have been looked at, of the snapshot's.

    Returns
    -------
    dict, int
        What a manifest says of the log; and how many bytes were copied.

    Raises
    ------
    CorruptDataError
        The log is damaged: its copy would not be worth much.
    StorageFailureError
    """
    make_directory(store)
    failure: Exception | None = None
    copied_bytes = 0
    for _ in range(_ATTEMPTS):
        try:
            segments, copied = _copy_segments(snapshot, store, progress, append_time=append_time)
        except (FileNotFoundError, _ChangedError, CorruptDataError, StorageFailureError) as error:
            if isinstance(error, StorageFailureError) and error.errno != errno.ENOENT:
                raise
            if isinstance(error, CorruptDataError) and _is_as_it_was(snapshot):
                raise
            # Retention, compaction or a truncation came in between: what is copied by now stays good.
            failure, snapshot = error, take_snapshot(snapshot.path)
            continue
        copied_bytes += copied
        sync_directory(store)
        end_offset = max([snapshot.log_end_offset, *(segment.end_offset for segment in segments)])
        entry = {
            "log_start_offset": snapshot.log_start_offset,
            "log_end_offset": end_offset,
            "is_contiguous": snapshot.is_contiguous,
            "segments": [list(segment) for segment in segments],
            "files": _small_files(snapshot.path, end_offset),
        }
        return entry, copied_bytes
    raise StorageFailureError(
        snapshot.path, "backup", errno.EAGAIN,
        f"Its segments changed {_ATTEMPTS} times while they were copied ({failure}); try again.",
    )


def _is_as_it_was(snapshot: LogSnapshot) -> bool:
    return take_snapshot(snapshot.path)._replace(open_batch=None) == snapshot._replace(open_batch=None)


class _ChangedError(Exception):
    """A segment is not what it was when the copy began."""


def _copy_segments(
    snapshot: LogSnapshot, store: str, progress: Callable[[int], None] | None, *, append_time: bool
) -> tuple[list[StoredSegment], int]:
    segments: list[StoredSegment] = []
    done_bytes = copied_bytes = 0
    bases = sorted(snapshot.sizes)
    for number, base in enumerate(bases):
        bound = bases[number + 1] if number + 1 < len(bases) else INT64_MAX
        path = os.path.join(snapshot.path, layout.segment_file_name(base))
        size = snapshot.sizes[base]

        def report(here: int, before: int = done_bytes) -> None:
            if progress is not None:
                progress(before + here)

        there = _walk(path, base, bound, size, snapshot.is_contiguous, deep=False)
        staged = _staged_batch(snapshot, there, append_time=append_time) if bound == INT64_MAX else None
        if staged is not None or not os.path.exists(os.path.join(store, there.file_name)):
            copying = os.path.join(store, "copying")
            _copy_bytes(path, copying, there.size_bytes, report)
            copy = _walk(copying, base, bound, INT64_MAX, snapshot.is_contiguous, deep=True)
            # Once more from the source: whoever cut it meanwhile may have appended to it again.
            if not copy == there == _walk(path, base, bound, there.size_bytes, snapshot.is_contiguous, deep=False):
                raise _ChangedError(f"{path} has changed")
            if staged is not None:
                write_at(copying, there.size_bytes, staged, sync=True)
                there = copy = _walk(copying, base, bound, INT64_MAX, snapshot.is_contiguous, deep=True)
            with refusals(store, "rename"):
                os.replace(copying, os.path.join(store, copy.file_name))
            copied_bytes += copy.size_bytes
        if bound < INT64_MAX and there.size_bytes < size:
            raise CorruptDataError(
                path, there.size_bytes, "a sealed segment ends in an unfinished write", size, there.size_bytes
            )
        if segments and snapshot.is_contiguous and segments[-1].end_offset != base:
            raise CorruptDataError(path, -1, "records are missing before this segment", segments[-1].end_offset, base)
        segments.append(there)
        done_bytes += size
        report(size)
    now = take_snapshot(snapshot.path)
    if not set(snapshot.sizes) <= set(now.sizes):
        raise _ChangedError("segments were deleted")
    return segments, copied_bytes


def _staged_batch(snapshot: LogSnapshot, last: StoredSegment, *, append_time: bool) -> bytes | None:
    """What the open batch adds to the last segment: records that are acknowledged, and in no segment yet."""
    if snapshot.open_batch is None:
        return None
    leader_epoch = LeaderEpochs(snapshot.path).latest
    # A damaged file has nothing to add; the next open of the log says so.
    with contextlib.suppress(CorruptDataError):
        return None if leader_epoch < 0 else left_batch(
            snapshot.path, snapshot.open_batch, end_offset=last.end_offset, leader_epoch=leader_epoch,
            append_time=append_time,
        )
    return None


def _walk(path: str, base: int, bound: int, limit: int, contiguous: bool, *, deep: bool) -> StoredSegment:
    """What whole batches stand in the first bytes of a file. In the active segment an unfinished one may follow."""
    verifier = SegmentVerifier(path, base, bound, contiguous=contiguous, limit_bytes=limit)
    while not verifier.is_done:
        fault = verifier.step(_STEP_BYTES, deep=deep)
        if fault is None:
            continue
        if bound < INT64_MAX or not _is_unfinished(fault, verifier):
            reason, position, expected, actual = fault
            raise CorruptDataError(path, position, reason, expected, actual)
        break
    return StoredSegment(base, verifier.next_offset, verifier.position, verifier.digest.hex())


def _is_unfinished(fault: tuple[str, int, int, int], verifier: SegmentVerifier) -> bool:
    """Whether a write was under way there: the file ends inside the batch, or nothing but zeros is there yet."""
    if "cut off" in fault[0]:
        return True
    with refusals(verifier.path, "read"), open(verifier.path, "rb") as file:
        file.seek(verifier.position)
        return not file.read(_STEP_BYTES).strip(b"\0")


def _copy_bytes(source: str, target: str, size: int, report: Callable[[int], None]) -> None:
    with refusals(source, "copy"), open(source, "rb") as reader, open(target, "wb") as writer:
        left = size
        for piece in _pieces(reader.fileno(), writer.fileno(), size):
            left -= piece
            report(size - left)
        if left:
            raise _ChangedError(f"{source} has become shorter")
        os.fsync(writer.fileno())


def _pieces(reader: int, writer: int, size: int) -> Iterator[int]:
    """Copies within the kernel where it can, sharing blocks where the file system can."""
    try:
        while size > 0 and (copied := os.copy_file_range(reader, writer, min(size, _STEP_BYTES))):
            size -= copied
            yield copied
    except (AttributeError, OSError):  # another file system, or another system
        pass
    while size > 0 and (piece := os.read(reader, min(size, 1 << 20))):
        view = memoryview(piece)
        while view:
            view = view[os.write(writer, view) :]
        size -= len(piece)
        yield len(piece)


def _small_files(directory: str, end_offset: int) -> dict[str, str]:
    """Leader epochs, producers and aborted transactions: what costs a scan to derive again, or can't be."""
    found = {}
    with refusals(directory, "list"):
        names = sorted(os.listdir(directory))
    for name in names:
        stem, suffix = os.path.splitext(name)
        wanted = suffix in _SMALL_SUFFIXES and stem.isdigit() and int(stem) <= end_offset
        if name == layout.LEADER_EPOCH_FILE or wanted:
            with refusals(name, "read"), contextlib.suppress(FileNotFoundError):
                with open(os.path.join(directory, name), "rb") as file:
                    found[name] = base64.b64encode(file.read()).decode()
    return found


# ---- restoring ------------------------------------------------------------------------------------------


def restore_log(
    entry: dict[str, Any],
    store: str,
    directory: str,
    *,
    topic_id: str,
    index_interval_bytes: int = 4096,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Builds a log from its copy, and verifies every byte of it.

    Parameters
    ----------
    entry : dict
        What the manifest says of the log.
    store : str
        The directory of its files in the backup; they are copied, never linked: a log may cut its files.
    directory : str
        The new partition's; it must not exist.
    topic_id : str
    index_interval_bytes : int
        The topic's setting.
    progress : callable, optional
        Told how many bytes are done.

    Raises
    ------
    CorruptDataError
        The backup is damaged.
    StorageFailureError
    """
    make_directory(directory)
    segments = [StoredSegment(*fields) for fields in entry["segments"]]
    done_bytes = 0
    for number, segment in enumerate(segments):
        bound = segments[number + 1].base_offset if number + 1 < len(segments) else INT64_MAX
        source = os.path.join(store, segment.file_name)
        path = os.path.join(directory, layout.segment_file_name(segment.base_offset))

        def report(here: int, before: int = done_bytes) -> None:
            if progress is not None:
                progress(before + here)

        if not os.path.exists(source):
            raise CorruptDataError(
                source, -1, "a file of the backup is missing", advice="Restore an older backup (--at)."
            )
        try:
            _copy_bytes(source, path, segment.size_bytes, report)
        except _ChangedError as error:
            raise CorruptDataError(
                source, -1, "a file of the backup is too short", segment.size_bytes, os.path.getsize(source), ""
            ) from error
        found = _walk(path, segment.base_offset, bound, segment.size_bytes, entry["is_contiguous"], deep=True)
        if found != segment:
            raise CorruptDataError(
                source, -1, "a file of the backup is not what was backed up", segment.digest, found.digest,
                "Restore an older backup (--at), or other topics.",
            )
        done_bytes += segment.size_bytes
    for name, content in entry["files"].items():
        replace_file(os.path.join(directory, os.path.basename(name)), base64.b64decode(content))
    write_topic_id(directory, topic_id)
    last = segments[-1] if segments else StoredSegment(entry["log_end_offset"], entry["log_end_offset"], 0, "")
    rebuild_indexes(directory, [segment.base_offset for segment in segments], index_interval_bytes)
    CheckpointFile(os.path.join(directory, layout.CHECKPOINT_FILE)).replace(
        Checkpoint(
            log_start_offset=entry["log_start_offset"], flushed_offset=entry["log_end_offset"],
            segment_base_offset=last.base_offset, position=last.size_bytes, log_end_offset=entry["log_end_offset"],
            is_contiguous=entry["is_contiguous"],
        )
    )
    if segments:
        record_digests(verify_partition(directory))


def manifest_of(path: str) -> dict[str, Any]:
    """A manifest as it was written.

    Raises
    ------
    CorruptDataError, StorageFailureError
    """
    import json

    from logstore._native.checksum import crc32c

    text = read_text(path) or ""
    head, _, body = text.partition("\n")
    if head != f"logstore.backup 1 {crc32c(body.encode()):08x}":
        raise CorruptDataError(
            path, 0, "no whole manifest of a backup", f"logstore.backup 1 {crc32c(body.encode()):08x}", head[:40],
            "Choose another with --at.",
        )
    found: dict[str, Any] = json.loads(body)
    return found


def write_manifest(path: str, content: dict[str, Any]) -> None:
    """Writes a manifest, durably; from then on it is a backup."""
    import json

    from logstore._native.checksum import crc32c

    body = json.dumps(content, indent=1).encode() + b"\n"
    replace_file(path, f"logstore.backup 1 {crc32c(body):08x}\n".encode() + body)
