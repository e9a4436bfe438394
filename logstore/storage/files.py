"""The few file operations of the storage layer that do not go through a segment.

Each raises `StorageFailureError` (or `DiskFullError`) with path, operation and error number.
"""

from __future__ import annotations

import contextlib
import errno
import os
from types import TracebackType

from logstore.errors import DiskFullError, StorageFailureError

__all__ = [
    "file_failure",
    "make_directory",
    "read_bytes",
    "read_text",
    "refusals",
    "replace_file",
    "sync_directory",
    "write_at",
]

FILE_MODE = 0o640
DIRECTORY_MODE = 0o750
_READ_BYTES_MAX = 1 << 30
_FLAGS = os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


def file_failure(error: OSError, path: str, operation: str) -> StorageFailureError:
    """The logstore error for an operating system's refusal."""
    number = error.errno or 0
    if number in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError(path, operation, number)
    advice = ""
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        advice = "Check owner and permissions; a directory that can't be written opens with read_only=True."
    elif number in (errno.EMFILE, errno.ENFILE):
        advice = "Too many open files: raise the limit (ulimit -n)."
    return StorageFailureError(path, operation, number, advice)


class refusals:  # a class, as a generator costs several times as much
    """Turns an OSError inside into a `StorageFailureError` that names path and operation."""

    __slots__ = ("_operation", "_path")

    def __init__(self, path: str, operation: str):
        self._path = path
        self._operation = operation

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, OSError) and not isinstance(error, StorageFailureError):
            raise file_failure(error, self._path, self._operation) from error


def sync_directory(path: str) -> None:
    """fsync of a directory: makes the names in it durable."""
    with refusals(path, "open the directory"):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_DIRECTORY", 0))
    with refusals(path, "fsync of the directory"):
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def make_directory(path: str) -> None:
    """Creates a directory and makes its name durable; an existing one is fine."""
    with refusals(path, "mkdir"):
        try:
            os.mkdir(path, DIRECTORY_MODE)
        except FileExistsError:
            if not os.path.isdir(path):
                raise
            return
    sync_directory(os.path.dirname(path) or ".")


def replace_file(path: str, content: bytes) -> None:
    """Writes a whole file so that a crash leaves the old one or the new one: ``.tmp``, fdatasync, rename, fsync of the
    directory."""
    temporary = path + ".tmp"
    with refusals(path, "write"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, FILE_MODE)
        try:
            _write_all(descriptor, content, 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
    sync_directory(os.path.dirname(path))


def write_at(path: str, position: int, content: bytes, *, size: int | None = None, sync: bool = False) -> None:
    """Writes into a file at a position, creating it where needed; ``size`` cuts what stands behind."""
    with refusals(path, "write"):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | _FLAGS, FILE_MODE)
        try:
            _write_all(descriptor, content, position)
            if size is not None and os.fstat(descriptor).st_size > size:
                os.ftruncate(descriptor, size)
            if sync:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read_bytes(path: str, size: int | None = None) -> bytes | None:
    """A file's bytes, or its first ones; None where there is no file.

    Raises
    ------
    StorageFailureError
        It can't be read, or is a link or a directory.
    """
    with refusals(path, "read"):
        try:
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _FLAGS)
        except FileNotFoundError:
            return None
        try:
            left = os.fstat(descriptor).st_size if size is None else size
            content = os.read(descriptor, min(left, _READ_BYTES_MAX))
            if len(content) < left:
                with open(descriptor, "rb", closefd=False) as file:
                    content += file.read() if size is None else file.read(left - len(content))
            return content
        finally:
            os.close(descriptor)


def read_text(path: str) -> str | None:
    """A small text file; None where there is none.

    Raises
    ------
    StorageFailureError
        It can't be read, or is no regular file.
    """
    content = read_bytes(path)
    if content is None:
        return None
    text = content.decode("utf-8", "replace")
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _write_all(descriptor: int, content: bytes, position: int) -> None:
    view = memoryview(content)
    while view:
        written = os.pwrite(descriptor, view, position)
        view = view[written:]
        position += written
