from collections.abc import Sequence

from logstore._native.log_appender import LogAppender
from logstore._native.record_batch import Record
from logstore.model import BytesLike, Durability, Headers, IsolationLevel, Values

class TopicAppender:
    name: str
    def _set_logs(self, name: str, logs: tuple[LogAppender, ...]) -> None: ...
    def append(
        self,
        value: BytesLike | None,
        key: BytesLike | None = None,
        *,
        headers: Headers | None = None,
        timestamp: int | None = None,
        partition: int | None = None,
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
        partition: int | None = None,
        durability: Durability | None = None,
        expected_offset: int | None = None,
    ) -> dict[int, range]: ...
    def get(
        self, offset: int, partition: int | None = None, *, isolation_level: IsolationLevel = "read_uncommitted"
    ) -> Record | None: ...
