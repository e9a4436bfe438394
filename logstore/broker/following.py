"""In a broker that only reads: noticing what the process that writes has done, without looking for it."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from logstore.errors import ClosedError, LogstoreError, StorageFailureError
from logstore.storage.log import Log
from logstore.storage.waiting import DirectoryWatch, watch_directories

__all__ = ["Follower"]


class Follower:
    """One thread, asleep until files change that somebody waits for; then it has their logs, or the topics, look again.

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
        self._watch: DirectoryWatch | None = None
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def follow(self, log: Log) -> None:
        """Looks for records of one more log, as often as `unfollow` is called for it."""
        with self._lock:
            self._logs[log.path] = log
            self._add(log.path)
        log.refresh()  # whatever came before the watch

    def unfollow(self, log: Log) -> None:
        """Takes `follow` back."""
        with self._lock:
            if self._remove(log.path):
                del self._logs[log.path]

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

    def _run(self, watch: DirectoryWatch) -> None:
        while not self._is_closed:
            for directory, is_more in watch.wait().items():
                log = self._logs.get(directory)
                try:
                    if log is not None:
                        if is_more:
                            log.refresh()
                        else:
                            log.catch_up()
                    elif directory == self._path:
                        self._look_for_topics()
                except LogstoreError as error:
                    if not self._is_closed:
                        _logger().warning("%s: %s", directory, error)
        watch.close()

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
