"""Taking records away from the end of a log, so that a crash at any step leaves the old log or the new one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from logstore._native.log_cursor import LogCursor
from logstore._native.record_batch import RecordBatch, RecordBatchBuilder
from logstore.storage import layout
from logstore.storage.checkpoint import Checkpoint
from logstore.storage.files import refusals, replace_file, sync_directory
from logstore.storage.recovery import (
    TRUNCATE_SUFFIX,
    OpenedLog,
    SegmentSettings,
    finish_truncation,
    open_segments,
    remove_segment_files,
)

if TYPE_CHECKING:
    from logstore.storage.log import Log

__all__ = ["truncate_segments"]


def truncate_segments(
    log: Log, offset: int, checkpoint: Checkpoint, settings: SegmentSettings
) -> tuple[OpenedLog, Checkpoint]:
    """Truncates the files of a log to an offset below its end. The log's lock is held, no flush is under way.

    Steps: where the offset lies inside a batch, what is left of that batch goes to ``<base>.log.truncate``, whole and on
    disk; then the checkpoint is lowered; then readers are told; then files are cut and removed. From the first
    step on recovery carries the truncation through; before it, nothing has happened.

    Returns
    -------
    OpenedLog, Checkpoint
        The log as it is now; no segments where nothing is left.

    Raises
    ------
    StorageFailureError, CorruptDataError
    """
    segments = log.segments
    log_start_offset = min(log.log_start_offset, offset)
    if offset <= segments[0].base_offset:
        lowered = checkpoint._replace(
            log_start_offset=offset, flushed_offset=offset, segment_base_offset=offset, position=0,
            log_end_offset=offset, is_clean=False,
        )
        log._checkpoint_file.write(lowered, sync=True)
        log._publish(log_end_offset=offset, log_start_offset=offset, truncated=True)
        for segment in reversed(segments):
            remove_segment_files(log.path, segment.base_offset)
        sync_directory(log.path)
        return OpenedLog(offset, offset), lowered
    batch = LogCursor(log, offset).next_batch()
    cut_inside = batch is not None and batch.base_offset < offset
    end_offset = batch.base_offset if cut_inside and batch is not None else offset
    floor = max((segment for segment in segments if segment.base_offset <= end_offset), key=lambda s: s.base_offset)
    found = floor.locate(end_offset)
    position = floor.size_bytes if found is None else found[0]
    lowered = checkpoint._replace(log_start_offset=log_start_offset, log_end_offset=offset, is_clean=False)
    if checkpoint.flushed_offset > end_offset or checkpoint.segment_base_offset > floor.base_offset:
        lowered = lowered._replace(
            flushed_offset=min(end_offset, checkpoint.flushed_offset), segment_base_offset=floor.base_offset,
            position=min(position, checkpoint.position) if checkpoint.segment_base_offset == floor.base_offset
            else position,
        )
    if log.flushed_offset < end_offset:
        floor.sync()
    if cut_inside and batch is not None:
        name = layout.segment_file_name(batch.base_offset, ".log" + TRUNCATE_SUFFIX)
        replace_file(os.path.join(log.path, name), bytes(_records_below(batch, offset)))
        if batch.base_offset == floor.base_offset:
            lowered = lowered._replace(position=0, flushed_offset=batch.base_offset)
    log._checkpoint_file.write(lowered, sync=True)
    log._publish(log_end_offset=offset, truncated=True)
    if cut_inside:
        finish_truncation(log.path, name)
    else:
        for segment in reversed(segments):
            if segment.base_offset > floor.base_offset:
                remove_segment_files(log.path, segment.base_offset)
        with refusals(floor.path, "truncate"):
            descriptor = os.open(floor.path, os.O_RDWR | os.O_CLOEXEC)
            try:
                os.ftruncate(descriptor, position)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        sync_directory(log.path)
    return open_segments(log.path, lowered, settings, writable=True), lowered


def _records_below(batch: RecordBatch, offset: int) -> RecordBatch:
    """The batch without its records from an offset on; all else as it was."""
    builder = RecordBatchBuilder(batch.size_bytes)
    for record in batch:
        if record.offset < offset:
            builder.append(record.value, record.key, headers=record.headers, timestamp=record.timestamp)
    return builder.build(
        base_offset=batch.base_offset,
        codec=batch.codec,
        partition_leader_epoch=batch.partition_leader_epoch,
        log_append_timestamp=batch.max_timestamp if batch.timestamp_type == "LogAppendTime" else None,
        transactional=batch.is_transactional,
        control=batch.is_control,
        producer_id=batch.producer_id,
        producer_epoch=batch.producer_epoch,
        base_sequence=batch.base_sequence,
    )
