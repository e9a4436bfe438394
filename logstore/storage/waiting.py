"""Waiting for records without polling: threads by a lock, other processes by the kernel's file notifications."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Protocol

from logstore._native.directory_watch import NotifiedWatch
from logstore._native.log_state import LogState
from logstore._native.wakeup import Wakeup
from logstore.errors import StorageFailureError, UnsupportedFormatError

__all__ = ["DirectoryWatch", "Waiter", "watch_directories"]


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

    def add(self, directory: str) -> None: ...

    def remove(self, directory: str) -> None: ...

    def wait(self, timeout: float | None = None) -> dict[str, bool]:
        """Sleeps until something changes; the directories where it did, perhaps too many, each with whether more has
        changed there than what ``.log`` files hold. Empty after the timeout,
        after `wake`, and after a signal."""

    def wake(self) -> None: ...

    def close(self) -> None: ...


class _IntervalWatch:
    """Where the kernel offers no notification: looks again every 50 ms."""

    _INTERVAL = 0.05

    def __init__(self) -> None:
        self._directories: set[str] = set()
        self._wakeup = Wakeup()

    def add(self, directory: str) -> None:
        self._directories = self._directories | {directory}

    def remove(self, directory: str) -> None:
        self._directories = self._directories - {directory}

    def wait(self, timeout: float | None = None) -> dict[str, bool]:
        woken = self._wakeup.wait(self._INTERVAL if timeout is None else min(self._INTERVAL, timeout))
        return {} if woken else dict.fromkeys(self._directories, True)

    def wake(self) -> None:
        self._wakeup.notify()

    def close(self) -> None:
        return


def watch_directories(directories: Iterable[str]) -> DirectoryWatch:
    """A watch over directories: by inotify on Linux, elsewhere (or where no watch is left) by looking every 50 ms."""
    directories = tuple(directories)
    with contextlib.suppress(UnsupportedFormatError, StorageFailureError):
        watch = NotifiedWatch()
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
