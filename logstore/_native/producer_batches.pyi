from collections.abc import Iterator
from typing import NamedTuple, final

from logstore._native.segment import Segment

class ProducerHeader(NamedTuple):
    base_offset: int
    last_offset: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    max_timestamp: int
    is_transactional: bool
    marker: int
    coordinator_epoch: int

@final
class ProducerBatches:
    def __init__(self, segment: Segment, start_offset: int, end_offset: int) -> None: ...
    def __iter__(self) -> Iterator[ProducerHeader]: ...
    def __next__(self) -> ProducerHeader: ...
