from collections.abc import Callable, Sequence

from logstore._native.run_appender import RunAppender
from logstore.model import BytesLike, Durability, Headers, Values

class LogAppender(RunAppender):
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
