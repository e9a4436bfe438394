from _thread import LockType
from collections.abc import Callable

from logstore._native.record_future import ProducerBatch, RecordFuture
from logstore.broker_api import BrokerApi
from logstore.model import BytesLike, Headers, RecordMetadata

class ProducerCore:
    _state: str
    _wake: LockType
    _sender_stops: bool
    _buffered_bytes: int
    def _configure(
        self,
        broker: BrokerApi,
        *,
        clock: Callable[[], int] | None,
        partitioner: str | Callable[[bytes | None, int], int],
        on_delivery: Callable[[BaseException | None, RecordMetadata | None], object] | None,
        linger_ms: int,
        batch_bytes: int,
        request_bytes_max: int,
        buffer_bytes_max: int,
        max_block: float,
        delivery_timeout_ms: int,
        retry_backoff_ms: int,
        codec: int | None,
        codec_level: int | None,
        is_flushed: bool | None,
    ) -> None: ...
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
    def _hand_over_all(self) -> list[ProducerBatch]: ...
    def _outstanding(self) -> list[ProducerBatch]: ...
    def _wait_for_callbacks(self, timeout: float | None) -> None: ...
    def _run_callbacks(self) -> None: ...
    def _never_block(self) -> None: ...
    def _is_sender(self) -> bool: ...
    def _work(self) -> float | None: ...
    def _close_to_senders(self, state: str) -> None: ...
    def _stop_sender(self) -> None: ...
    def _give_up(self, error: BaseException) -> None: ...
    def _take_failures(self) -> tuple[dict[tuple[str, int], int], BaseException | None]: ...
    def _forget(self, error: BaseException) -> None: ...
