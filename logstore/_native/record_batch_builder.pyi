from logstore._native.record_batch import RecordBatch
from logstore.model import BytesLike, Headers

class RecordBatchBuilder:
    def __init__(self, capacity_bytes: int = 4096): ...
    def __len__(self) -> int: ...
    @property
    def size_bytes(self) -> int: ...
    def append(
        self,
        value: BytesLike | None,
        key: BytesLike | None = None,
        *,
        headers: Headers | None = None,
        timestamp: int = -1,
    ) -> int: ...
    def build(
        self,
        *,
        base_offset: int = 0,
        codec: int = 0,
        level: int | None = None,
        partition_leader_epoch: int = -1,
        log_append_timestamp: int | None = None,
        transactional: bool = False,
        control: bool = False,
        producer_id: int = -1,
        producer_epoch: int = -1,
        base_sequence: int = -1,
        topic: str = "",
        partition: int = 0,
        with_keys: bool = False,
    ) -> RecordBatch: ...
