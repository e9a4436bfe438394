"""One thread that hands over open batches when they have lingered, and flushes when ``flush.ms`` has passed.

It sleeps until the earliest deadline; with nothing due it sleeps without end. Durability never depends on it: what was
acknowledged as ``flushed`` is on disk before the acknowledgement.
"""

from __future__ import annotations

import _thread
import contextlib
import heapq
import itertools
import threading
import time
from collections.abc import Callable

__all__ = ["FlushScheduler"]


class FlushScheduler:
    """Runs callables at a time from now. Thread-safe; the thread starts with the first one.

    Steps that wait for no disk have a thread of their own, so that they need not wait for those that do.
    """

    def __init__(self, *, has_urgent: bool = True) -> None:
        self._urgent = FlushScheduler(has_urgent=False) if has_urgent else None
        self._lock = threading.RLock()  # a signal handler that appends may come in anywhere
        # Free while there is something to look at. Locks alone, whose methods need no memory: a Condition is Python code,
        # and without memory for a call of its __exit__ the lock would stay held, and whoever closes would wait for ever.
        self._signal = threading.Lock()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._has_thread = False
        self._running = threading.Lock()  # held by the thread while it lives
        self._thread_id = 0
        self._closed = False

    def schedule(self, delay_ms: float, step: Callable[[], None]) -> None:
        """Has ``step()`` called once, ``delay_ms`` from now. After `close` it is never called."""
        deadline = time.monotonic() + delay_ms / 1000
        with self._lock:
            if self._closed:
                return
            heapq.heappush(self._due, (deadline, next(self._order), step))
            if not self._has_thread:
                # Not a threading.Thread: a signal handler that raises in its start() leaves it half made. Here it costs
                # a second thread at most, which waits until the first one ends.
                _thread.start_new_thread(self._run, ())
                self._has_thread = True
            elif self._due[0][2] is step:
                self._wake()

    def schedule_urgent(self, delay_ms: float, step: Callable[[], None]) -> None:
        """As `schedule`, for a step that waits for no disk."""
        (self._urgent or self).schedule(delay_ms, step)

    def _seconds_left(self) -> float | None:
        if not self._due:
            return None
        return min(max(self._due[0][0] - time.monotonic(), 0), threading.TIMEOUT_MAX)

    def _run(self) -> None:
        with self._running:
            self._thread_id = threading.get_ident()
            self._run_steps()

    def _wake(self) -> None:
        """With the lock held."""
        if self._signal.locked():
            self._signal.release()

    def _run_steps(self) -> None:
        while not self._closed:
            try:
                self._run_next()
            except Exception as error:
                # The log that failed has noted it and will say so to its next caller; the other logs go on.
                with contextlib.suppress(MemoryError):
                    import logging

                    logging.getLogger("logstore.storage").error("a background flush failed: %s", error)

    def _run_next(self) -> None:
        step = None
        with self._lock:
            seconds = self._seconds_left()
            if seconds == 0 and not self._closed:
                step = heapq.heappop(self._due)[2]
        if step is not None:
            step()
        elif not self._closed:
            self._signal.acquire(timeout=-1 if seconds is None else seconds)

    def close(self) -> None:
        """Ends the thread; steps not yet due are dropped. Idempotent."""
        if self._urgent is not None:
            self._urgent.close()
        with self._lock:
            self._closed = True
            self._due.clear()
            self._wake()
        if self._thread_id != threading.get_ident():
            with self._running:  # until the thread has ended
                pass

    def forget(self) -> None:
        """In a forked child, where the thread does not exist."""
        if self._urgent is not None:
            self._urgent.forget()
        self._closed = True
        self._due = []
        self._running = threading.Lock()
        self._lock = threading.RLock()
        self._signal = threading.Lock()
