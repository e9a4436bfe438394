from collections.abc import Callable

from logstore._native.producer_delivery import ProducerDelivery
from logstore._native.record_future import RecordFuture
from logstore.model import BytesLike, Headers, RecordMetadata

class ProducerCore(ProducerDelivery):
    def send(
        self,
        topic: str,
        value: BytesLike | None = None,
        key: BytesLike | None = None,
        headers: Headers | None = None,
        partition: int | None = None,
        timestamp: int | None = None,
        *,
        on_delivery: Callable[[BaseException | None, RecordMetadata | None], object] | None = None,
        expected_offset: int | None = None,
    ) -> RecordFuture: ...
