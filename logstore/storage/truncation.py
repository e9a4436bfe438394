"""Taking records away from the end of a log, so that a crash at any step leaves the old log or the new one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from logstore._native.log_cursor import LogCursor
from logstore._native.record_batch import Record, RecordBatch
from logstore._native.record_batch_builder import RecordBatchBuilder
from logstore.storage import layout
from logstore.storage.checkpoint import Checkpoint
from logstore.storage.files import replace_file
from logstore.storage.recovery import (
    TRUNCATE_SUFFIX,
    OpenedLog,
    SegmentSettings,
    finish_truncation,
    list_segments,
    open_segments,
)

if TYPE_CHECKING:
    from logstore.storage.log import Log

__all__ = ["before_truncation", "truncate_segments"]


def truncate_segments(
    log: Log, offset: int, checkpoint: Checkpoint, settings: SegmentSettings
) -> tuple[OpenedLog, Checkpoint]:
    """Truncates the files of a log to an offset below its end. The log's lock is held, no flush is under way.

    Steps: what is left of the batch that the offset lies in, or nothing, goes to ``<base>.log.truncate``, on disk; then
    the checkpoint is lowered; then readers are told; then files are cut and removed. From the first step on recovery
    carries the truncation through; before it, nothing has happened.

    Returns
    -------
    OpenedLog, Checkpoint
        The log as it is now; no segments where nothing is left.

    Raises
    ------
    StorageFailureError, CorruptDataError
    """
    segments = log.segments
    base_offset = offset
    left = b""
    position = 0
    if offset > log.log_start_offset:
        batch = LogCursor(log, offset).next_batch()
        if batch is not None and batch.base_offset < offset:
            base_offset = batch.base_offset
            left = _records_below(batch, offset)
            if batch.records_count <= batch.last_offset_delta:  # compacted: what is left may have gaps between batches
                checkpoint = checkpoint._replace(is_contiguous=False)
        floors = [segment for segment in segments if segment.base_offset < base_offset]
        if floors:
            found = floors[-1].locate(base_offset)
            position = floors[-1].size_bytes if found is None else found[0]
            if log.flushed_offset < base_offset:
                floors[-1].sync()
    elif segments[0].base_offset < offset:
        checkpoint = checkpoint._replace(is_contiguous=False)  # the whole batch goes, and its offsets stay unused
    settings = settings._replace(contiguous=settings.contiguous and checkpoint.is_contiguous)
    name = layout.segment_file_name(base_offset, ".log" + TRUNCATE_SUFFIX)
    replace_file(os.path.join(log.path, name), left)
    lowered = before_truncation(checkpoint, log.path, base_offset, bool(left), position)._replace(
        log_start_offset=min(log.log_start_offset, offset), log_end_offset=offset
    )
    log._checkpoint_file.replace(lowered)
    log._checkpoint = lowered
    # What stays of the batch can be read again when its file is in place.
    log._publish(
        log_end_offset=base_offset, log_start_offset=min(lowered.log_start_offset, base_offset), truncated=offset
    )
    finish_truncation(log.path, name)
    return open_segments(log.path, lowered, settings, writable=True), lowered


def before_truncation(
    checkpoint: Checkpoint, directory: str, base_offset: int, keeps_records: bool, position: int = 0
) -> Checkpoint:
    """A checkpoint that is true before, while and after the log is cut at a base offset.

    Parameters
    ----------
    checkpoint : Checkpoint
        The one of now.
    directory : str
    base_offset : int
    keeps_records : bool
        Whether something of the batch at the base offset stays.
    position : int
        Where the file is cut, if that is known.
    """
    floor = max((known for known in list_segments(directory) if known < base_offset), default=base_offset)
    lowered = checkpoint._replace(log_end_offset=base_offset, is_clean=False)
    if not keeps_records:
        lowered = lowered._replace(log_start_offset=min(checkpoint.log_start_offset, base_offset))
    if checkpoint.flushed_offset <= base_offset and checkpoint.segment_base_offset <= floor:
        return lowered
    if position > 0 and checkpoint.flushed_offset > base_offset:
        return lowered._replace(flushed_offset=base_offset, segment_base_offset=floor, position=position)
    return lowered._replace(
        flushed_offset=min(checkpoint.flushed_offset, floor), segment_base_offset=floor, position=0
    )


def _records_below(batch: RecordBatch, offset: int) -> bytes:
    """The batch without its records from an offset on; all else as it was.

    Compaction leaves gaps inside of a batch: what stands before and behind one becomes a batch of its own.
    """
    runs: list[list[Record]] = []
    for record in batch:
        if record.offset >= offset:
            break
        if not runs or record.offset != runs[-1][-1].offset + 1:
            runs.append([])
        runs[-1].append(record)
    return b"".join(bytes(_batch_of(run, batch)) for run in runs)


def _batch_of(records: list[Record], model: RecordBatch) -> RecordBatch:
    """Records with consecutive offsets as one batch with the codec and the producer of the one they come from."""
    builder = RecordBatchBuilder(model.size_bytes)
    for record in records:
        builder.append(record.value, record.key, headers=record.headers, timestamp=record.timestamp)
    skipped = records[0].offset - model.base_offset
    return builder.build(
        base_offset=records[0].offset,
        codec=model.codec,
        partition_leader_epoch=model.partition_leader_epoch,
        log_append_timestamp=model.max_timestamp if model.timestamp_type == "LogAppendTime" else None,
        transactional=model.is_transactional,
        control=model.is_control,
        producer_id=model.producer_id,
        producer_epoch=model.producer_epoch,
        base_sequence=(model.base_sequence + skipped) & 0x7FFFFFFF if model.base_sequence >= 0 else -1,
    )
