"""The thread behind a producer: batches that have lingered, retries, and flushes.

It holds its producer only while it works, so that a producer nobody holds can be collected, which delivers its records.
"""

from __future__ import annotations

import _thread
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from logstore.clients.producer import Producer

__all__ = ["start_sender"]


def start_sender(producer: Producer, ended: _thread.LockType) -> None:
    """Starts the thread, which holds ``ended`` while it lives."""
    # Not a threading.Thread: a signal handler that raises in its start() leaves it half made. Here it costs a second
    # thread at most, which waits until the first one ends.
    _thread.start_new_thread(_run, (weakref.ref(producer), producer._wake, ended))


def _run(reference: weakref.ref[Producer], wake: _thread.LockType, ended: _thread.LockType) -> None:
    with ended:
        while True:
            producer = reference()
            if producer is None or producer._sender_stops:
                return
            seconds = _turn(producer)
            del producer
            wake.acquire(True, -1 if seconds is None else min(max(seconds, 0.0), 1e6))


def _turn(producer: Producer) -> float | None:
    try:
        return producer._work()
    except Exception:
        # Not one of delivery, which the futures get: whatever it was, the other batches have to go on.
        import logging

        logging.getLogger("logstore.clients").exception("a producer's sender failed; it goes on")
        return 0.1
