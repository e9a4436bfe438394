from collections.abc import Mapping
from typing import NamedTuple

class SegmentScan(NamedTuple):
    file_size_bytes: int
    valid_bytes: int
    next_offset: int
    batches_count: int
    tail: str
    reason: str
    position: int
    expected: int
    actual: int
    next_valid_position: int

def file_identity(path: str) -> tuple[int, int, int, int] | None: ...

class Segment:
    path: str
    base_offset: int
    writable: bool
    doubtful_index: bool
    created_ms: int
    @staticmethod
    def create(
        path: str, base_offset: int, *, index_interval_bytes: int, index_bytes: int, contiguous: bool = False
    ) -> Segment: ...
    @staticmethod
    def reopen(
        path: str,
        base_offset: int,
        *,
        index_interval_bytes: int,
        index_bytes: int,
        trusted_bytes: int,
        trusted_offset: int,
        writable: bool,
        deep: bool = True,
        contiguous: bool = False,
    ) -> tuple[Segment, SegmentScan]: ...
    @staticmethod
    def resume(
        path: str,
        base_offset: int,
        *,
        index_interval_bytes: int,
        index_bytes: int,
        size_bytes: int,
        next_offset: int,
        max_timestamp: int,
        max_timestamp_offset: int,
        first_batch_max_timestamp: int,
        last_leader_epoch: int,
        offset_entries: int,
        time_entries: int,
        writable: bool,
        contiguous: bool = False,
    ) -> tuple[Segment, SegmentScan] | None: ...
    @staticmethod
    def sealed(
        path: str,
        base_offset: int,
        end_offset_max: int,
        *,
        index_interval_bytes: int,
        index_bytes: int,
        contiguous: bool = False,
    ) -> Segment: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def next_offset(self) -> int: ...
    @property
    def max_timestamp(self) -> int: ...
    def facts(self) -> tuple[int, int, int]: ...
    @property
    def first_timestamp(self) -> int: ...
    @property
    def state(self) -> dict[str, int]: ...
    @property
    def digest(self) -> bytes | None: ...
    @property
    def offset_index_entries(self) -> list[tuple[int, int]]: ...
    @property
    def time_index_entries(self) -> list[tuple[int, int]]: ...
    def locate(self, offset: int) -> tuple[int, int, int, int] | None: ...
    def find_timestamp(self, timestamp: int, from_offset: int) -> tuple[int, int, int, int] | None: ...
    def read(self, position: int, size: int) -> bytes: ...
    def sync(self) -> None: ...
    def recover(self, position: int, next_offset: int, *, deep: bool = True) -> SegmentScan: ...
    def truncate(self, size_bytes: int, next_offset: int) -> None: ...
    def catch_up(self) -> int: ...
    def seal(self, end_offset_max: int) -> None: ...
    def take_place(self, path: str) -> None: ...
    def encode_offset_index(self, first: int) -> bytes: ...
    def encode_time_index(self, first: int) -> bytes: ...
    def allow_gaps(self) -> None: ...
    def unwritten_index_bytes(self) -> tuple[tuple[int, bytes], tuple[int, bytes]]: ...
    @property
    def index_entries_count(self) -> tuple[int, int]: ...
    def index_written(self, offset_bytes: int, time_bytes: int) -> None: ...

def learn_facts(segments: tuple[Segment, ...], directory: str, digests: Mapping[int, object]) -> None: ...
