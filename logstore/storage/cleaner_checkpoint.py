"""``cleaner-offset-checkpoint``: how far each log was compacted, in Kafka's file (log-format, section 2.3)."""

from __future__ import annotations

import os
import threading

from logstore.storage import layout
from logstore.storage.text_checkpoints import read_offsets, write_offsets

__all__ = ["lower_cleaner_offset", "read_cleaner_offset", "write_cleaner_offset"]

# One file for all logs of a data directory, written whole. The directory's lock keeps other processes away.
_lock = threading.Lock()


def _path(log_directory: str) -> str:
    return os.path.join(os.path.dirname(log_directory), layout.CLEANER_OFFSET_FILE)


def read_cleaner_offset(log_directory: str, topic: str, partition: int) -> int | None:
    """Where a log's last compaction ended; None where there is nothing to go by."""
    return read_offsets(_path(log_directory)).get((topic, partition))


def write_cleaner_offset(log_directory: str, topic: str, partition: int, offset: int) -> None:
    """Notes where a compaction ended, durably.

    Raises
    ------
    StorageFailureError
    """
    path = _path(log_directory)
    with _lock:
        offsets = read_offsets(path)
        if offsets.get((topic, partition)) != offset:
            offsets[topic, partition] = offset
            write_offsets(path, offsets)


def lower_cleaner_offset(log_directory: str, topic: str, partition: int, offset: int) -> None:
    """Before records from an offset on are taken away: what takes their place was never compacted.

    Raises
    ------
    StorageFailureError
    """
    known = read_cleaner_offset(log_directory, topic, partition)
    if known is not None and known > offset:
        write_cleaner_offset(log_directory, topic, partition, offset)
