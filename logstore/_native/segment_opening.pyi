from logstore._native.segment import Segment, SegmentScan

def reopen_segment(
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
def resume_segment(
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
