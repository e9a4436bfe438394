"""``logstore.open-batch``: where records live that are acknowledged as ``appended`` and not in a segment yet
(docs/format/open-batch.md).

They are in the page cache, so they outlive their process; after another start of the system the file means nothing.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING, Any

from logstore._native.open_batch import sealed_open_batch
from logstore._native.segment import Segment
from logstore.errors import CorruptDataError, DiskFullError
from logstore.model import RecoveryReport
from logstore.storage import layout
from logstore.storage.cache_mark import boot_id
from logstore.storage.files import refusals
from logstore.storage.text_checkpoints import read_topic_id

if TYPE_CHECKING:
    from logstore.storage.log import Log

__all__ = [
    "OpenBatchRecords",
    "forget_open_batch",
    "left_batch",
    "open_batch_path",
    "read_open_batch",
    "restore_open_batch",
]

# More than any such file has: the largest staged batch, and the block in front of it.
FILE_BYTES_MAX = 2 << 20
# Block and word, and the word's place.
_HEAD_BYTES, _WORD_AT = 136, 128
# How often a file is read that changes while it is.
_LOOKS = 3
_READ_FLAGS = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)


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
            descriptor = os.open(path, _READ_FLAGS)
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
    for _ in range(_LOOKS):
        try:
            return sealed_open_batch(
                content, open_batch_path(directory), topic_id.encode(), run,
                base_offset=end_offset, leader_epoch=leader_epoch, append_time=append_time,
            )  # fmt: skip
        except CorruptDataError:
            # Handed over, and another one begun, while it was read: the segments have it then.
            again = read_open_batch(directory) or b""
            if again[:_HEAD_BYTES] == content[:_HEAD_BYTES]:
                raise
            content = again
    return None


class OpenBatchRecords:
    """In a process that only reads: what stands acknowledged in an open batch, shown as a segment behind the last one,
    whether its writer lives or not.

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
        self._path = open_batch_path(directory)
        self._trust = trust
        self._head = b""  # of what is shown
        self.segment: Segment | None = None  # None: nothing is shown

    def are_there(self) -> bool:
        """Whether a look may find any. Readers ask before they sleep: without a file, which is the rule, one call."""
        if not self._trust or not os.access(self._path, os.F_OK):
            return False
        try:
            descriptor = os.open(self._path, _READ_FLAGS)
        except OSError:
            return False
        try:
            return any(os.pread(descriptor, _HEAD_BYTES - _WORD_AT, _WORD_AT))
        except OSError:
            return False
        finally:
            os.close(descriptor)

    def look(self) -> bytes | None:
        """The file's bytes, before it is looked where the segments end: what is handed over from here on is found in them.

        Raises
        ------
        StorageFailureError
        """
        content = read_open_batch(self._directory) if self._trust else None
        return content if _acknowledged(content) else None

    def show(self, content: bytes | None, end_offset: int, *, leader_epoch: int, append_time: bool,
             **settings: Any) -> Segment | None:
        """The segment to show, where records follow on behind the others; the same one as before where they are the same.

        Parameters
        ----------
        content : bytes, optional
            What `look` has found.
        end_offset : int
            Where the segments end.
        leader_epoch : int
        append_time : bool
            Whether records of the topic have the time of their append.
        **settings
            As of any segment.

        Raises
        ------
        CorruptDataError
            The file is not what was stored; nothing is shown.
        """
        before, self.segment = self.segment, None
        if content is None:
            return None
        head = _acknowledged(content)
        if before is not None and head == self._head and before.base_offset == end_offset:
            self.segment = before
            return before
        batch = left_batch(
            self._directory, content, end_offset=end_offset, leader_epoch=leader_epoch, append_time=append_time
        )
        if batch is not None:
            self.segment, self._head = Segment.in_memory(batch, self._path, end_offset, **settings), head
        return self.segment


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
