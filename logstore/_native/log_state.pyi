from collections.abc import Sequence
from typing import Protocol

from logstore._native.segment import Segment
from logstore._native.waiting_readers import WaitingReaders

class Notified(Protocol):
    def notify(self) -> None: ...

class LogState:
    topic: str
    partition: int
    log_start_offset: int
    end_offset: int
    staged: bool
    truncation_count: int
    truncation_offsets: list[int]
    replacement_count: int
    contiguous: bool
    is_open: bool
    first_unstable_offset: int
    aborted_possible: bool
    @property
    def ends_in_memory(self) -> bool: ...
    @property
    def readable_segments(self) -> tuple[Segment, ...]: ...
    @property
    def segments(self) -> tuple[Segment, ...]: ...
    @property
    def log_end_offset(self) -> int: ...
    def add_waiter(self, waiter: Notified) -> None: ...
    def remove_waiter(self, waiter: Notified) -> None: ...
    def _signal_by(self, readers: WaitingReaders, directory: str) -> None: ...
    def _identify(self, topic: str, partition: int) -> None: ...
    def _publish(
        self,
        *,
        segments: tuple[Segment, ...] | None = None,
        log_start_offset: int | None = None,
        log_end_offset: int | None = None,
        contiguous: bool | None = None,
        truncated: int | None = None,
        is_open: bool | None = None,
        first_unstable_offset: int | None = None,
        aborted_possible: bool | None = None,
        replaced: bool = False,
        in_memory: Segment | None = None,
    ) -> None: ...
    def _has_replaced_segments(self) -> bool: ...
    def _aborted_between(
        self, start_offset: int, end_offset: int
    ) -> Sequence[tuple[int, int, int, int]]: ...
