"""``leader-epoch-checkpoint``: which leader epoch began at which offset (log-format, section 9.2)."""

from __future__ import annotations

import os
import threading

from logstore.errors import CorruptDataError
from logstore.storage import layout
from logstore.storage.text_checkpoints import read_rows, write_rows

__all__ = ["LeaderEpochs"]


class LeaderEpochs:
    """Epochs and their first offsets, both rising. Not thread-safe but for `write`: the log's lock is held.

    A damaged file is read as none: the batches carry their epochs, and recovery assigns them again.
    """

    __slots__ = ("_entries", "_writing", "path")

    def __init__(self, directory: str):
        self.path = os.path.join(directory, layout.LEADER_EPOCH_FILE)
        self._writing = threading.Lock()
        self._entries: list[tuple[int, int]] = []
        try:
            for epoch, start in read_rows(self.path, 2):
                if self._entries and (int(epoch) <= self._entries[-1][0] or int(start) <= self._entries[-1][1]):
                    raise CorruptDataError(self.path, -1, "epochs and offsets must rise")
                self._entries.append((int(epoch), int(start)))
        except (CorruptDataError, ValueError):
            self._entries = []

    @property
    def entries(self) -> list[tuple[int, int]]:
        """``(epoch, start offset)``, ascending."""
        return list(self._entries)

    @property
    def latest(self) -> int:
        """The latest epoch; -1 for none."""
        return self._entries[-1][0] if self._entries else -1

    def assign(self, epoch: int, start_offset: int) -> bool:
        """Notes that an epoch begins at an offset; True where that was news."""
        if epoch == self.latest and start_offset >= self._entries[-1][1]:
            return False
        kept = [entry for entry in self._entries if entry[0] < epoch and entry[1] < start_offset]
        self._entries = [*kept, (epoch, start_offset)]
        return True

    def truncate_from_end(self, offset: int) -> bool:
        """Drops epochs that begin at or after an offset; True where there were any."""
        kept = [entry for entry in self._entries if entry[1] < offset]
        changed = len(kept) != len(self._entries)
        self._entries = kept
        return changed

    def truncate_from_start(self, offset: int) -> bool:
        """Lets the first epoch begin at an offset; True where that changed something."""
        removed = [entry for entry in self._entries if entry[1] <= offset]
        if not removed:
            return False
        changed = [(removed[-1][0], offset), *self._entries[len(removed) :]]
        if changed == self._entries:
            return False
        self._entries = changed
        return True

    def clear(self) -> None:
        self._entries = []

    def write(self) -> None:
        """Replaces the file, durably."""
        with self._writing:
            write_rows(self.path, list(self._entries))
