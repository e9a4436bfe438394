"""In a broker that only reads: noticing what the process that writes has done, without looking for it."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

from logstore._native.shared_wakeup import SharedWakeup
from logstore._native.wakeup import Waker
from logstore.errors import ClosedError, LogstoreError, StorageFailureError
from logstore.storage import layout
from logstore.storage.log import Log
from logstore.storage.waiting import DirectoryWatch, watch_directories

__all__ = ["Follower"]


class Follower:
    """One thread, asleep until files change that somebody waits for; then it has their logs, or the topics, look again.

    Consumers that sleep where the writer sees them look themselves at what it signals; they are *served*. A log that all who
    wait for it are served of is looked at here when something else is told of it.

    Thread-safe. The thread starts with the first waiter and ends with `close`.

    Parameters
    ----------
    path : str
        The data directory.
    look_for_topics : callable
        Called in the thread when the data directory has changed.
    """

    def __init__(self, path: str, look_for_topics: Callable[[], None]):
        self._path = path
        self._look_for_topics = look_for_topics
        self._lock = threading.Lock()
        self._logs: dict[str, Log] = {}
        self._waiters: Counter[str] = Counter()
        self._sleepers: weakref.WeakSet[SharedWakeup] = weakref.WeakSet()
        self._served: dict[str, weakref.WeakSet[SharedWakeup]] = {}
        self._watch: DirectoryWatch | None = None
        self._thread: threading.Thread | None = None
        self._is_closed = False

    @property
    def table_path(self) -> str:
        """Where the writer sees who sleeps."""
        return os.path.join(self._path, layout.WAITING_FILE)

    def follow(self, log: Log, waiter: object = None) -> None:
        """Looks for records of one more log, for a waiter of it, until `unfollow`."""
        with self._lock:
            self._logs[log.path] = log
            self._add(log.path)
            self._share_work(log.path)
        log.refresh()  # whatever came before the watch
        if isinstance(waiter, Waker):
            waiter._follow(log, self)

    def unfollow(self, log: Log, waiter: object = None) -> None:
        """Takes `follow` back."""
        if isinstance(waiter, Waker):
            waiter._unfollow(log)
        with self._lock:
            if self._remove(log.path):
                del self._logs[log.path]
            else:
                self._share_work(log.path)

    def serve(self, directory: str, sleeper: SharedWakeup, descriptor: int) -> None:
        """A waiter of this log sleeps in the table that is open as ``descriptor``, and looks itself, until `unserve`."""
        with self._lock:
            self._sleepers.add(sleeper)
            if not self._is_closed and self._watch is not None and self._watch.is_in(descriptor):
                self._served.setdefault(directory, weakref.WeakSet()).add(sleeper)
                self._share_work(directory)

    def unserve(self, directory: str, sleeper: SharedWakeup) -> None:
        """Takes `serve` back, if it was called."""
        with self._lock:
            if sleeper in self._served.get(directory, ()):
                self._served[directory].discard(sleeper)
                self._share_work(directory)

    def _share_work(self, directory: str) -> None:
        if self._watch is None:
            return
        if len(self._served.get(directory, ())) == self._waiters[directory]:
            self._watch.serve(directory)
        else:
            self._watch.unserve(directory)

    def _table_changed(self) -> None:
        """The places that sleepers have may be in a table that no writer looks at any more: they see for themselves."""
        with self._lock:
            for directory in self._served:
                self._served[directory].clear()
                self._share_work(directory)
            sleepers = list(self._sleepers)
        for sleeper in sleepers:
            sleeper._look_again()

    def follow_topics(self) -> None:
        """Looks for topics and partitions that come and go."""
        with self._lock:
            self._add(self._path)
        self._look_for_topics()

    def unfollow_topics(self) -> None:
        """Takes `follow_topics` back."""
        with self._lock:
            self._remove(self._path)

    def _add(self, directory: str) -> None:
        if self._is_closed:
            raise ClosedError(f"the broker of {self._path} is closed; open it again")
        if self._watch is None:
            self._watch = watch_directories([], self._path)
            self._thread = threading.Thread(target=self._run, args=[self._watch], name="logstore-follower", daemon=True)
            self._thread.start()
        self._waiters[directory] += 1
        if self._waiters[directory] == 1:
            try:
                self._watch.add(directory)
            except (OSError, StorageFailureError) as error:
                _logger().warning("%s can't be watched (%s): what comes is seen with the next read", directory, error)

    def _remove(self, directory: str) -> bool:
        if self._waiters[directory] == 0:
            return False
        self._waiters[directory] -= 1
        if self._waiters[directory] > 0:
            return False
        if self._watch is not None:
            self._watch.remove(directory)
        return True

    def look(self, log: Log, is_more: bool) -> None:
        """Has a log publish what its writer has done; ``is_more`` than append to its active segment. What can't be read is
        logged: whoever reads on finds it as well."""
        try:
            if is_more:
                log.refresh()
            else:
                log.catch_up()
        except LogstoreError as error:
            if not self._is_closed:
                _logger().warning("%s: %s", log.path, error)

    def _run(self, watch: DirectoryWatch) -> None:
        table_changes = 0
        while not self._is_closed:
            changes = watch.wait()
            if table_changes != watch.table_changes:
                table_changes = watch.table_changes
                self._table_changed()
            for directory, is_more in changes.items():
                log = self._logs.get(directory)
                if log is not None:
                    self.look(log, is_more)
                elif directory == self._path:
                    self._look_for_topics_again()
        watch.close()

    def _look_for_topics_again(self) -> None:
        try:
            self._look_for_topics()
        except LogstoreError as error:
            if not self._is_closed:
                _logger().warning("%s: %s", self._path, error)

    def close(self) -> None:
        """Ends the thread. Idempotent."""
        self._is_closed = True
        if self._watch is not None and self._thread is not None and self._thread is not threading.current_thread():
            with contextlib.suppress(OSError):
                self._watch.wake()
            self._thread.join()

    def forget(self) -> None:
        """In a forked child, where the thread does not exist."""
        self._is_closed = True
        self._lock = threading.Lock()
        self._thread = None


def _logger() -> Any:
    import logging

    return logging.getLogger("logstore.broker")
