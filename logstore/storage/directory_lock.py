"""One writer a directory: an advisory lock on ``.lock`` that names its owner.

``flock`` is what keeps a second writer out, also within this process. A POSIX record lock is tried as well, because that
is what Apache Kafka takes on the same file.
"""

from __future__ import annotations

import contextlib
import os
import time

from logstore._native.waiting_readers import WaitingReaders
from logstore.errors import DataDirLockedError
from logstore.storage import layout
from logstore.storage.files import file_failure
from logstore.storage.waiting import open_waiting_readers

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["DirectoryLock", "lock_owner"]

# Directories that this process has locked, each file by device and inode. They are not tried: closing any descriptor of the
# file would end the POSIX lock on it.
_held: set[tuple[int, int]] = set()
# Somebody who asks who the owner is holds the lock for a moment.
_ATTEMPTS, _PAUSE_SECONDS = 4, 0.002


class DirectoryLock:
    """The lock, held from construction to `release`.

    Parameters
    ----------
    directory : str
        Must exist.

    Raises
    ------
    DataDirLockedError
        Somebody holds it; the message says who, as far as the file tells.
    StorageFailureError
    """

    _has_looked = False
    _readers: WaitingReaders | None = None

    def __init__(self, directory: str):
        self.path = os.path.join(directory, layout.LOCK_FILE)
        try:
            self._descriptor = os.open(
                self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0), 0o640
            )
        except OSError as error:
            raise file_failure(error, self.path, "open") from error
        try:
            self._take_patiently()
        except OSError:
            os.close(self._descriptor)
            self._descriptor = -1
            raise DataDirLockedError(
                f"{directory} is open for writing by {_owner(self.path)}; close it there, or open with read_only=True"
            ) from None
        owner = f"{os.getpid()} {int(time.time())} {_host()}\n"
        with contextlib.suppress(OSError):  # the lock holds without its owner's name, too
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, owner.encode(), 0)

    def _take_patiently(self) -> None:
        about = os.fstat(self._descriptor)
        self._file = about.st_dev, about.st_ino
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                self._take()
                _held.add(self._file)
                return
            except OSError:
                if self._file in _held or attempt == _ATTEMPTS:
                    raise
                time.sleep(_PAUSE_SECONDS)

    def _take(self) -> None:
        if fcntl is not None:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            import msvcrt

            # Far behind the owner's name, which stays readable.
            os.lseek(self._descriptor, 1 << 30, os.SEEK_SET)
            msvcrt.locking(self._descriptor, msvcrt.LK_NBLCK, 1)

    def waiting_readers(self) -> WaitingReaders | None:
        """Who waits in other processes for what is written here; None where that can't be known."""
        if not self._has_looked and self._descriptor >= 0:
            self._has_looked = True
            self._readers = open_waiting_readers(os.path.dirname(self.path))
        return self._readers

    def release(self) -> None:
        """Lets the directory go. Idempotent."""
        self._close_readers()
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, 0)
            _held.discard(self._file)
            os.close(self._descriptor)
            self._descriptor = -1

    def _close_readers(self) -> None:
        if self._readers is not None:
            self._readers.close()
            self._readers = None

    def forget(self) -> None:
        """In a forked child: closes the inherited descriptors, which leaves the parent's lock in place."""
        self._close_readers()
        if self._descriptor >= 0:
            _held.discard(self._file)
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1


def lock_owner(directory: str) -> str | None:
    """Who has a directory open for writing, as far as its lock tells; None for nobody. Changes nothing."""
    if fcntl is None:
        return None
    path = os.path.join(directory, layout.LOCK_FILE)
    with contextlib.suppress(OSError):
        about = os.stat(path)
        if (about.st_dev, about.st_ino) in _held:
            return _owner(path)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return _owner(path)
    finally:
        os.close(descriptor)
    return None


def _host() -> str:
    return os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", "this host")


def _owner(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            pid, since, host = file.read(4096).split()
        where = "this process" if int(pid) == os.getpid() else f"process {int(pid)}"
        moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(int(since)))
        return f"{where} on {host} since {moment}"
    except (OSError, ValueError, OverflowError):
        return "another process (perhaps Apache Kafka)"
