"""``logstore.open-batch``: where records live that are acknowledged as ``appended`` and not in a segment yet
(docs/format/open-batch.md).

They are in the page cache, so they outlive their process; after another start of the system the file means nothing.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

from logstore._native.open_batch import sealed_open_batch
from logstore.errors import CorruptDataError, DiskFullError, LogstoreError
from logstore.model import RecoveryReport
from logstore.storage import layout
from logstore.storage.cache_mark import boot_id
from logstore.storage.directory_lock import lock_owner
from logstore.storage.files import refusals
from logstore.storage.text_checkpoints import read_topic_id

if TYPE_CHECKING:
    from logstore._native.segment import Segment
    from logstore.storage.log import Log
    from logstore.storage.recovery import OpenedLog

__all__ = [
    "LeftRecords",
    "forget_open_batch",
    "left_batch",
    "open_batch_path",
    "read_open_batch",
    "restore_open_batch",
]

# More than any such file has: the largest staged batch, and the block in front of it.
FILE_BYTES_MAX = 2 << 20
# Block and word; the block alone; and the word's place.
_HEAD_BYTES, _BLOCK_BYTES, _WORD_AT = 136, 68, 128
_BATCH_HEADER_BYTES = 61


def open_batch_path(directory: str) -> str:
    """The file of a partition's directory."""
    return os.path.join(directory, layout.OPEN_BATCH_FILE)


def forget_open_batch(directory: str) -> None:
    """Removes the file, if there is one. That it can't be removed makes no difference to the log: what it holds is
    never taken for more than its offsets say."""
    with contextlib.suppress(OSError):
        os.unlink(open_batch_path(directory))


def read_open_batch(directory: str, size: int = FILE_BYTES_MAX) -> bytes | None:
    """The file's bytes, up to a size; None where there is none, or something else in its place.

    Raises
    ------
    StorageFailureError
    """
    path = open_batch_path(directory)
    with refusals(path, "read"):
        try:
            if not stat.S_ISREG(os.lstat(path).st_mode):
                return None
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | getattr(os, "O_NOFOLLOW", 0))
        except FileNotFoundError:
            return None
        with open(descriptor, "rb") as file:
            return file.read(size)


def _acknowledged(content: bytes | None) -> bytes:
    """What tells the records of a file from those of any other time: its block and its word; empty for none."""
    head = (content or b"")[:_HEAD_BYTES]
    return head if any(head[_WORD_AT:]) else b""


def left_batch(
    directory: str, content: bytes, *, end_offset: int, leader_epoch: int, append_time: bool = False
) -> bytes | None:
    """The batch that a writer will make of its open batch; None where nothing follows on at ``end_offset``.

    Parameters
    ----------
    directory : str
    content : bytes
        Of the file, read before it was looked where the segments end. Its writer may be at work.
    end_offset : int
        Where they end.
    leader_epoch : int
    append_time : bool
        Whether records of the topic have the time of their append.

    Raises
    ------
    CorruptDataError
        The file is not what was stored.
    """
    run = boot_id()
    if run is None or not _acknowledged(content):
        return None
    try:
        topic_id = read_topic_id(directory)
    except CorruptDataError:
        topic_id = None
    if topic_id is None:
        return None
    try:
        return sealed_open_batch(
            content, open_batch_path(directory), topic_id.encode(), run,
            base_offset=end_offset, leader_epoch=leader_epoch, append_time=append_time,
        )  # fmt: skip
    except CorruptDataError:
        # Handed over, and another one begun, while it was read: the segments have it then.
        if read_open_batch(directory, _HEAD_BYTES) != content[:_HEAD_BYTES]:
            return None
        raise


class LeftRecords:
    """In a process that only reads: the records of an open batch, shown behind those of the last segment.

    Parameters
    ----------
    directory : str
        The partition's.
    trust : bool
        False where another engine has written the directory since.

    Notes
    -----
    For one thread at a time. Nothing is written.
    """

    def __init__(self, directory: str, *, trust: bool):
        self._directory = directory
        self._trust = trust
        self._has_looked = False
        self._content: bytes | None = None
        self._head = b""
        self._segment_path = ""  # of the segment that goes on with them; empty for none
        self._position = 0
        self.base_offset = -1  # of the first of them
        self._covered = b""  # what its file has there

    @property
    def are_shown(self) -> bool:
        """Whether a segment goes on with some."""
        return bool(self._segment_path)

    def stored_bytes(self, segment: Segment) -> int:
        """How many bytes of a segment its file holds."""
        return self._position if segment.path == self._segment_path else segment.size_bytes

    def look(self) -> None:
        """Before the segments are opened: what is handed over from here on is found in them."""
        # Where its writer lives, readers follow the segments: what was shown at the first look is there by the next one.
        wanted = self._trust and (not self._has_looked or self._is_left())
        self._has_looked = True
        self._segment_path = ""
        self._content = read_open_batch(self._directory) if wanted else None
        self._head = _acknowledged(self._content)

    def follow_on(self, opened: OpenedLog, *, leader_epoch: int, append_time: bool) -> None:
        """Has the last segment go on with the records that `look` has found, if they follow on.

        Raises
        ------
        StorageFailureError
        """
        content, self._content = self._content, None
        if content is None or not self._head or opened.damage is not None or not opened.segments:
            return
        segment = opened.segments[-1]
        position, end_offset = segment.size_bytes, opened.log_end_offset
        covered = _bytes_at(segment.path, position)
        try:
            batch = left_batch(
                self._directory, content, end_offset=end_offset, leader_epoch=leader_epoch, append_time=append_time
            )
        except CorruptDataError as error:
            if not opened.report.cut_bytes:
                opened.report = opened.report._replace(
                    path=open_batch_path(self._directory), cut_offset=end_offset, cut_bytes=len(content),
                    reason=error.reason,
                )
            return
        if batch is None:
            return
        try:
            segment.extend(batch)
        except LogstoreError:  # no room in a segment of 2 GiB: whoever writes the log rolls first
            return
        opened.log_end_offset = segment.next_offset
        self._segment_path, self._position, self._covered = segment.path, position, covered
        self.base_offset = end_offset

    def has_changed(self) -> bool:
        """Whether the log is to be opened again: records that were shown so are in the segment by now, or a process has
        died and left some.

        Raises
        ------
        StorageFailureError
        """
        if not self._trust:
            return False
        head = _acknowledged(read_open_batch(self._directory, _HEAD_BYTES))
        if not self._segment_path:
            return bool(head) and head != self._head and self._is_left()
        if head[:_BLOCK_BYTES] != self._head[:_BLOCK_BYTES]:
            return True
        if _bytes_at(self._segment_path, self._position) != self._covered:
            return True
        return head != self._head and self._is_left()

    def _is_left(self) -> bool:
        """Whether the writer is gone."""
        return lock_owner(os.path.dirname(self._directory)) is None


def _bytes_at(path: str, position: int) -> bytes:
    """As many bytes of a segment's file as a batch's header has; fewer where it ends."""
    with refusals(path, "read"), contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        file.seek(position)
        return file.read(_BATCH_HEADER_BYTES)
    return b""


def restore_open_batch(log: Log, *, trust: bool) -> RecoveryReport | None:
    """When a log is opened for writing: has the records in its segment that a process left in the open batch when it
    was killed.

    Parameters
    ----------
    log : Log
        Ready to be written.
    trust : bool
        False where another engine has written the directory since.

    Returns
    -------
    RecoveryReport or None
        What was found that is not what was stored; the bytes are kept beside it.

    Raises
    ------
    StorageFailureError
    """
    path = open_batch_path(log.path)
    content = read_open_batch(log.path)
    if content is None:
        return None
    report = None
    if trust:
        try:
            if log._restore_open_batch(content):
                with contextlib.suppress(DiskFullError):  # they stay in the file, and are tried again
                    log._locked(_nothing)
                return None
        except CorruptDataError as error:
            kept_as = path + ".torn"
            with refusals(path, "rename"):
                os.replace(path, kept_as)
            report = RecoveryReport(
                path=path, cut_offset=log.end_offset, cut_bytes=len(content), reason=error.reason, kept_as=kept_as
            )
    forget_open_batch(log.path)
    return report


def _nothing() -> None:
    """Handing over is what is wanted."""
