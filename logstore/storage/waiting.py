"""Waiting for records without polling: threads by a lock, other processes by the kernel's file notifications."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from collections.abc import Iterable
from typing import Protocol

from logstore._native.log_state import LogState
from logstore._native.wakeup import Wakeup

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
    """A wake-up for changes in directories that another process writes."""

    def wait(self, timeout: float | None = None) -> bool: ...

    def close(self) -> None: ...


class _InotifyWatch:
    """Linux: one descriptor that becomes readable when a file in a directory is written, made or renamed."""

    _EVENTS = 0x00000002 | 0x00000100 | 0x00000080 | 0x00000200  # modify, create, moved to, delete

    def __init__(self, directories: Iterable[str]):
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        for directory in directories:
            if libc.inotify_add_watch(self._descriptor, os.fsencode(directory), self._EVENTS) < 0:
                number = ctypes.get_errno()
                self.close()
                raise OSError(number, "inotify_add_watch", directory)

    def wait(self, timeout: float | None = None) -> bool:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        if not poll.poll(None if timeout is None else max(timeout, 0.0) * 1000):
            return False
        with contextlib.suppress(BlockingIOError):
            while os.read(self._descriptor, 65536):
                pass
        return True

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class _IntervalWatch:
    """Where the kernel offers no notification: looks again every 50 ms."""

    _INTERVAL = 0.05

    def wait(self, timeout: float | None = None) -> bool:
        time.sleep(self._INTERVAL if timeout is None else min(self._INTERVAL, max(timeout, 0.0)))
        return timeout is None or timeout > self._INTERVAL

    def close(self) -> None:
        return


def watch_directories(directories: Iterable[str]) -> DirectoryWatch:
    """A watch over directories: by inotify on Linux, elsewhere (or where no watch is left) by looking every 50 ms."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            return _InotifyWatch(directories)
    return _IntervalWatch()
