"""Waiting for records without polling: threads by a lock, other processes by memory shared with the writer, and by the
kernel's file notifications."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Iterable
from typing import Any, Protocol

from logstore._native.directory_watch import NotifiedWatch
from logstore._native.log_state import LogState
from logstore._native.waiting_readers import WaitingReaders, empty_table
from logstore._native.wakeup import Wakeup
from logstore.errors import CorruptDataError, LogstoreError, StorageFailureError, UnsupportedFormatError
from logstore.storage import layout
from logstore.storage.files import FILE_MODE

__all__ = ["DirectoryWatch", "Waiter", "open_waiting_readers", "watch_directories"]


class Waiter:
    """A wake-up that logs of this process are given; one thread waits."""

    __slots__ = ("_logs", "_wakeup")

    def __init__(self, logs: Iterable[LogState]):
        self._wakeup = Wakeup()
        self._logs = tuple(logs)
        for log in self._logs:
            log.add_waiter(self._wakeup)

    def wait(self, timeout: float | None = None) -> bool:
        """Sleeps until notified, or for ``timeout`` seconds; True where notified. Ctrl-C interrupts it at once."""
        return self._wakeup.wait(timeout)

    def close(self) -> None:
        for log in self._logs:
            log.remove_waiter(self._wakeup)


class DirectoryWatch(Protocol):
    """A wake-up for changes in directories that another process writes. One thread waits; any thread may do the rest."""

    table_changes: int  # rises when the watch comes into a writer's table, or leaves it

    def add(self, directory: str) -> None: ...

    def remove(self, directory: str) -> None: ...

    def is_in(self, descriptor: int) -> bool:
        """Whether it goes by the writer's table that is open as ``descriptor``."""

    def serve(self, directory: str) -> None:
        """All who wait for this log look themselves at what the writer signals in that table."""

    def unserve(self, directory: str) -> None:
        """Takes `serve` back."""

    def wait(self, timeout: float | None = None) -> dict[str, bool]:
        """Sleeps until something changes; the directories where it did, perhaps too many, each with whether more has
        changed there than what ``.log`` files hold. Empty after the timeout,
        after `wake`, after a signal, and at times for nothing."""

    def follow(self, logs: dict[str, Any], timeout: float | None = None) -> bool:
        """Sleeps until one of the logs that are watched has something new; False after the timeout, and once closed."""

    def wake(self) -> None: ...

    def close(self) -> None: ...


class _IntervalWatch:
    """Where the kernel offers no notification: looks again every 50 ms."""

    _INTERVAL = 0.05
    table_changes = 0  # it is in none

    def __init__(self) -> None:
        self._directories: set[str] = set()
        self._is_closed = False
        self._wakeup = Wakeup()

    def add(self, directory: str) -> None:
        self._directories = self._directories | {directory}

    def remove(self, directory: str) -> None:
        self._directories = self._directories - {directory}

    def is_in(self, descriptor: int) -> bool:
        return False

    def serve(self, directory: str) -> None:
        return

    def unserve(self, directory: str) -> None:
        return

    def wait(self, timeout: float | None = None) -> dict[str, bool]:
        woken = self._wakeup.wait(self._INTERVAL if timeout is None else min(self._INTERVAL, timeout))
        return {} if woken else dict.fromkeys(self._directories, True)

    def follow(self, logs: dict[str, Any], timeout: float | None = None) -> bool:
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while not self._is_closed:
            left = deadline - time.monotonic()
            changed = self.wait(None if left == math.inf else max(left, 0.0))
            found = [logs[directory].refresh() for directory in changed]
            if any(found):
                return True
            if left <= 0:
                break
        return False

    def wake(self) -> None:
        self._wakeup.notify()

    def close(self) -> None:
        self._is_closed = True
        self.wake()


def watch_directories(directories: Iterable[str], data_directory: str | None = None) -> DirectoryWatch:
    """A watch over directories: by inotify on Linux, elsewhere (or where no watch is left) by looking every 50 ms.

    Parameters
    ----------
    directories : iterable of str
    data_directory : str, optional
        Whose writer, if it can, signals its appends to the partitions' directories ahead of inotify.
    """
    directories = tuple(directories)
    with contextlib.suppress(UnsupportedFormatError, StorageFailureError):
        watch = NotifiedWatch(None if data_directory is None else os.path.join(data_directory, layout.WAITING_FILE))
        try:
            for directory in directories:
                watch.add(directory)
        except BaseException:
            watch.close()
            raise
        return watch
    interval = _IntervalWatch()
    for directory in directories:
        interval.add(directory)
    return interval


def open_waiting_readers(data_directory: str) -> WaitingReaders | None:
    """For the process that has a data directory open for writing: who waits for its records in others
    (docs/format/waiting.md). None where that can't be known; readers go by the kernel's notifications then."""
    path = os.path.join(data_directory, layout.WAITING_FILE)
    with contextlib.suppress(OSError, LogstoreError):
        if os.path.isfile(path) and not os.path.islink(path):
            try:
                return WaitingReaders(path)
            except CorruptDataError:
                pass  # made anew
        _write_table(path)
        try:
            return WaitingReaders(path)
        except LogstoreError:
            os.unlink(path)  # of no use on this system, or in this directory
    return None


def _write_table(path: str) -> None:
    """A new file, in one step: readers that have another one mapped keep it."""
    new_path = path + ".tmp"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new_path)
    descriptor = os.open(new_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    try:
        with open(descriptor, "wb") as file:
            file.write(empty_table())
        os.replace(new_path, path)
    except OSError:
        os.unlink(new_path)
        raise
