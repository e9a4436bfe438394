"""The oracle of a log: a list of records, and what a reader may see of it."""

from __future__ import annotations

from bisect import bisect_left
from typing import NamedTuple

Headers = tuple[tuple[str, bytes | None], ...]


class Entry(NamedTuple):
    """One record, as it must come back."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


class LogModel:
    """Records from the start offset on. The last ones may be in the open batch, where no reader sees them."""

    def __init__(self, *, append_time: bool) -> None:
        self.entries: list[Entry] = []
        self.start_offset = 0
        self.end_offset = 0  # next to be assigned
        self.visible_end_offset = 0  # what readers see
        self.append_time = append_time

    def append(self, timestamp: int, key: bytes | None, value: bytes | None, headers: Headers) -> int:
        self.entries.append(Entry(self.end_offset, timestamp, key, value, headers))
        self.end_offset += 1
        return self.end_offset - 1

    def hand_over(self, log_end_offset: int, now_ms: int) -> None:
        """Takes note of what the log says is visible now."""
        if self.append_time:
            self.entries = [
                entry._replace(timestamp=now_ms) if self.visible_end_offset <= entry.offset < log_end_offset else entry
                for entry in self.entries
            ]
        self.visible_end_offset = log_end_offset

    def drop_open_batch(self) -> None:
        """A kill: what was not handed over is gone, and its offsets are assigned again."""
        self.cut(self.visible_end_offset)

    def cut(self, end_offset: int) -> None:
        self.entries = [entry for entry in self.entries if entry.offset < end_offset]
        self.end_offset = self.visible_end_offset = end_offset
        self.start_offset = min(self.start_offset, end_offset)

    def advance_start(self, offset: int) -> None:
        self.start_offset = max(self.start_offset, offset)
        self.entries = [entry for entry in self.entries if entry.offset >= self.start_offset]

    def visible(self, start: int | None = None, stop: int | None = None) -> list[Entry]:
        """Records in [start, stop) that a reader sees."""
        low = self._index(self.start_offset if start is None else start)
        stop = self.visible_end_offset if stop is None else min(stop, self.visible_end_offset)
        return self.entries[low : self._index(stop)]

    def _index(self, offset: int) -> int:
        return bisect_left(self.entries, offset, key=lambda entry: entry.offset)

    def first_at_or_after(self, timestamp: int) -> Entry | None:
        """log-format, 4.5: the smallest offset whose timestamp is at or after a time."""
        return next((entry for entry in self.visible() if entry.timestamp >= timestamp), None)
