from logstore._native.log_collector import LogCollector
from logstore._native.record_batch import RecordBatch

class BatchAppender(LogCollector):
    def _append_built(self, batch: RecordBatch, level: int, expected_offset: int) -> tuple[int, int] | None: ...
    def _append_stamped(
        self,
        batch: bytearray,
        as_leader: bool,
        level: int,
        expected_offset: int = -1,
        source: RecordBatch | None = None,
    ) -> tuple[int, int]: ...
