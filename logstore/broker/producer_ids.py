"""Producer ids: never given twice, whatever happens (wire-protocol, section 11.2)."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

from logstore.storage import layout
from logstore.storage.files import read_text, replace_file

__all__ = ["ProducerIds"]

BLOCK = 1000


class ProducerIds:
    """Hands out producer ids, from blocks of 1,000 that are noted on disk before the first of them is used. Thread-safe.

    Parameters
    ----------
    path : str
        The data directory.
    highest_used : callable
        Gives the highest id that the logs know, or -1: another engine may have written them.
    """

    def __init__(self, path: str, highest_used: Callable[[], int]):
        self._path = os.path.join(path, layout.PRODUCER_IDS_FILE)
        self._highest_used = highest_used
        self._lock = threading.Lock()
        self._next = self._block_end = 0

    def take(self) -> int:
        """An id that nobody has had.

        Raises
        ------
        StorageFailureError
            The block could not be noted; no id was taken.
        """
        with self._lock:
            if self._next == self._block_end:
                first = max(self._noted(), self._highest_used() + 1) if self._block_end == 0 else self._block_end
                replace_file(self._path, f"0\n{first + BLOCK}\n".encode())
                self._next, self._block_end = first, first + BLOCK
            self._next += 1
            return self._next - 1

    def _noted(self) -> int:
        """Where the first block begins that nobody has taken."""
        text = read_text(self._path)
        if text is None:
            return 0
        lines = text.split()
        if len(lines) == 2 and lines[0] == "0" and lines[1].isdecimal() and int(lines[1]) < 2**62:
            return int(lines[1])
        _logger().warning("%s: unreadable; producer ids go on behind the highest that the logs know", self._path)
        return 0


def _logger() -> Any:
    import logging

    return logging.getLogger("logstore.transactions")
