"""``logstore.open-batch``: where records live that are acknowledged as ``appended`` and not in a segment yet
(docs/format/open-batch.md).

They are in the page cache, so they outlive their process; after another start of the system the file means nothing.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

from logstore.errors import CorruptDataError, DiskFullError
from logstore.model import RecoveryReport
from logstore.storage import layout
from logstore.storage.files import refusals

if TYPE_CHECKING:
    from logstore.storage.log import Log

__all__ = ["forget_open_batch", "open_batch_path", "read_open_batch", "restore_open_batch"]

# More than any such file has: the largest staged batch, and the block in front of it.
FILE_BYTES_MAX = 2 << 20


def open_batch_path(directory: str) -> str:
    """The file of a partition's directory."""
    return os.path.join(directory, layout.OPEN_BATCH_FILE)


def forget_open_batch(directory: str) -> None:
    """Removes the file, if there is one. That it can't be removed makes no difference to the log: what it holds is
    never taken for more than its offsets say."""
    with contextlib.suppress(OSError):
        os.unlink(open_batch_path(directory))


def read_open_batch(directory: str) -> bytes | None:
    """The file's bytes; None where there is none, or something else in its place.

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
            return file.read(FILE_BYTES_MAX)


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
