"""Several logs on disk at once: their flushes run side by side, so that the file system takes them in one go."""

from __future__ import annotations

import _thread
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from logstore.storage.log import Log

__all__ = ["flush_together"]

THREADS_MAX = 16


def flush_together(places: Iterable[tuple[Log, int]]) -> None:
    """Returns once the records of each of these logs below an offset are on disk.

    Parameters
    ----------
    places : iterable of (Log, int)

    Raises
    ------
    StorageFailureError, ClosedError
        Of the first log that failed; the others were tried all the same.

    Notes
    -----
    Thread-safe. One after the other, each flush of a file that has grown waits for a commit of the file system's journal of
    its own; side by side they share one. Ctrl-C interrupts the wait, not the flushes.
    """
    left = deque((log, offset) for log, offset in places if log.flushed_offset < offset)
    errors: list[BaseException] = []

    def work() -> None:
        while True:
            try:
                log, offset = left.popleft()
            except IndexError:
                return
            try:
                log.flush_until(offset)
            except Exception as error:
                errors.append(error)

    def work_and_tell(ended: _thread.LockType) -> None:
        try:
            work()
        finally:
            ended.release()

    waits = []
    for _ in range(min(len(left), THREADS_MAX) - 1):
        ended = _thread.allocate_lock()
        ended.acquire()
        try:
            _thread.start_new_thread(work_and_tell, (ended,))
        except RuntimeError:  # no more threads: this one does it all
            break
        waits.append(ended)
    work()
    for ended in waits:
        ended.acquire()
    if errors:
        raise errors[0]
