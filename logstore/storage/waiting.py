"""Waiting for records without polling: threads by a lock, other processes by the kernel's file notifications."""

from __future__ import annotations

import contextlib
import os
import select
import struct
import sys
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
    """A wake-up for changes in directories that another process writes. One thread waits; any thread may do the rest."""

    def add(self, directory: str) -> None: ...

    def remove(self, directory: str) -> None: ...

    def wait(self, timeout: float | None = None) -> dict[str, bool]:
        """Sleeps until something changes; the directories where it did, perhaps too many, each with whether more has
        changed there than what ``.log`` files hold. Empty after the timeout, and after `wake`."""

    def wake(self) -> None: ...

    def close(self) -> None: ...


class _InotifyWatch:
    """Linux: a descriptor that becomes readable when a file in a directory is written, made, renamed or deleted."""

    _MODIFY = 0x00000002
    _EVENTS = _MODIFY | 0x00000100 | 0x00000080 | 0x00000200  # modify, create, moved to, delete
    _OVERFLOW = 0x00004000
    _HEAD = struct.Struct("=iIII")  # watch, events, cookie, bytes of the name that follows

    def __init__(self) -> None:
        import ctypes

        self._library = ctypes.CDLL(None, use_errno=True)
        self._directories: dict[int, str] = {}
        self._descriptor: int = self._library.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        self._woken = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLIN)
        self._poll.register(self._woken, select.POLLIN)

    def add(self, directory: str) -> None:
        watch = self._library.inotify_add_watch(self._descriptor, os.fsencode(directory), self._EVENTS)
        if watch < 0:
            import ctypes

            raise OSError(ctypes.get_errno(), "inotify_add_watch", directory)
        self._directories[watch] = directory

    def remove(self, directory: str) -> None:
        for watch, name in list(self._directories.items()):
            if name == directory:
                del self._directories[watch]
                self._library.inotify_rm_watch(self._descriptor, watch)  # fails where the directory is gone

    def wait(self, timeout: float | None = None) -> dict[str, bool]:
        ready = [descriptor for descriptor, _ in self._poll.poll(None if timeout is None else max(timeout, 0.0) * 1000)]
        if self._woken in ready:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._woken)
        changed: dict[str, bool] = {}
        if self._descriptor not in ready:
            return changed
        with contextlib.suppress(BlockingIOError):
            events = os.read(self._descriptor, 65536)  # once: what is left, or comes meanwhile, is there for the next wait
            at = 0
            while at < len(events):
                watch, mask, _, name_bytes = self._HEAD.unpack_from(events, at)
                name_at = at + self._HEAD.size
                at = name_at + name_bytes
                if mask & self._OVERFLOW:
                    return dict.fromkeys(self._directories.values(), True)
                if (directory := self._directories.get(watch)) is not None:
                    is_more = mask != self._MODIFY or not events[name_at:at].rstrip(b"\0").endswith(b".log")
                    changed[directory] = is_more or changed.get(directory, False)
        return changed

    def wake(self) -> None:
        os.eventfd_write(self._woken, 1)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            os.close(self._woken)
            self._descriptor = -1


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
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            watch = _InotifyWatch()
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
