from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar, TypeVarTuple

from logstore._native.log_flusher import LogFlusher
from logstore._native.record_batch import RecordBatch
from logstore._native.segment import Segment
from logstore.model import BytesLike, Durability, Headers, Values

STATE_WRITABLE: int
STATE_READ_ONLY: int
STATE_FAILED: int
STATE_CLOSED: int
STATE_FORKED: int

_Arguments = TypeVarTuple("_Arguments")
_Result = TypeVar("_Result")

def durability_level(durability: str | None) -> int: ...

class LogAppender(LogFlusher):
    batches_count: int
    def append(
        self,
        value: BytesLike | None,
        key: BytesLike | None = None,
        *,
        headers: Headers | None = None,
        timestamp: int | None = None,
        durability: Durability | None = None,
        expected_offset: int | None = None,
    ) -> int: ...
    def append_many(
        self,
        values: Values,
        keys: Values | None = None,
        *,
        timestamps: Sequence[int] | object | None = None,
        headers: Headers | None = None,
        durability: Durability | None = None,
        expected_offset: int | None = None,
    ) -> range: ...
    @property
    def open_batch_records_count(self) -> int: ...
    @property
    def is_writable(self) -> bool: ...
    def _configure(
        self,
        *,
        level: int,
        codec: int,
        codec_level: int | None,
        segment_bytes: int,
        segment_ms: int,
        batch_bytes: int,
        message_bytes_max: int,
        timestamp_before_max_ms: int,
        timestamp_after_max_ms: int,
        flush_messages: int,
        flush_by_time: bool,
        append_time: bool,
        keys_required: bool,
        stages: bool,
        clock: Callable[[], int] | None,
    ) -> None: ...
    def _activate(
        self, active: Segment, next_offset: int, flushed_offset: int, leader_epoch: int, marked_clean: bool
    ) -> None: ...
    def _start_segment(self, segments: tuple[Segment, ...], active: Segment, aborted: list[Any]) -> None: ...
    def _replace_segments(self, old: tuple[int, ...], new: tuple[Segment, ...]) -> bool: ...
    has_producers: bool
    has_transactions: bool
    def _take_producers(self, state: Any, aborted: list[Any], has_producers: bool, has_transactions: bool) -> None: ...
    def _forget_producers(self, producer_ids: Iterable[int]) -> None: ...
    def _set_write_state(self, state: int) -> None: ...
    def _set_mark_due(self, size_bytes: int) -> None: ...
    def _lingered(self) -> None: ...
    def _flush_is_due(self) -> None: ...
    def _flush_was_scheduled(self, scheduled: bool) -> None: ...
    def _locked(self, step: Callable[[*_Arguments], _Result], *args: *_Arguments) -> _Result: ...
    def _stage_in(self, path: bytes, topic_id: bytes, boot_id: bytes) -> None: ...
    def _end_staging(self) -> None: ...
    def _end_staging_if_idle(self) -> bool: ...
    def _close_writing(self, state: int) -> None: ...
    def _restore_open_batch(self, content: bytes) -> int: ...
    def _append_built(self, batch: RecordBatch, level: int, expected_offset: int) -> tuple[int, int] | None: ...
    def _append_stamped(
        self,
        batch: bytearray,
        as_leader: bool,
        level: int,
        expected_offset: int = -1,
        source: RecordBatch | None = None,
    ) -> tuple[int, int]: ...
