from logstore._native.log_state import LogState
from logstore._native.record_batch import RecordBatch

class LogCursor:
    log: LogState
    next_offset: int
    stop_offset: int
    committed: bool
    def __init__(
        self,
        log: LogState,
        start_offset: int,
        stop_offset: int | None = None,
        chunk_bytes: int = 0,
        committed: bool = False,
    ): ...
    def __iter__(self) -> LogCursor: ...
    def __next__(self) -> RecordBatch: ...
    def next_batch(self) -> RecordBatch | None: ...
    def skip_damage(self) -> tuple[int, int]: ...
