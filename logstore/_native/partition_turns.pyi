from collections.abc import Callable

from logstore._native.shared_wakeup import SharedWakeup
from logstore._native.wakeup import Waker
from logstore.model import TopicPartition

class PartitionReader(Waker):
    topic_partition: TopicPartition
    position: int
    committed_position: int
    is_paused: bool
    is_removed: bool

class PartitionTurns:
    _wakeup: SharedWakeup
    _attend_at: float
    _clock: Callable[[], float]
