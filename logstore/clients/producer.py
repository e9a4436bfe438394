"""Writing to topics in batches, with an acknowledgement for each record."""

from __future__ import annotations

import _thread
import os
import weakref
from time import monotonic
from typing import TYPE_CHECKING, Any, Self

from logstore.clients.producer_settings import ProducerSettings
from logstore.clients.transactions import TransactionalProducer
from logstore.errors import ClosedError, DeliveryFailedError, LogstoreError, RequestTimeoutError
from logstore.model import TopicPartition

if TYPE_CHECKING:
    from logstore.broker_api import BrokerApi

__all__ = ["Producer"]


class Producer(TransactionalProducer):
    """Sends records to topics, batched by partition. Made by `Broker.producer`; a context manager, also with ``async with``.

    Thread-safe. `send` takes a record and gives a future; the record is delivered when its batch is full (``batch_size``)
    or has lingered (``linger_ms``), or as soon as somebody asks for the outcome. What could not be delivered is never
    dropped in silence: its future has the error, and `flush` and `close` raise for records whose future nobody has asked.
    """

    def __init__(self, broker: BrokerApi, settings: ProducerSettings):
        super().__init__()
        self.settings = settings
        self.client_id = settings.client_id or "producer"
        self._ended = _thread.allocate_lock()
        self._configure(
            broker,
            clock=settings.clock,
            partitioner=settings.partitioner,
            on_delivery=settings.on_delivery,
            linger_ms=settings.linger_ms,
            batch_bytes=settings.batch_size,
            request_bytes_max=settings.max_request_size,
            buffer_bytes_max=settings.buffer_memory,
            max_block=settings.max_block,
            delivery_timeout_ms=int(settings.delivery_timeout * 1000),
            retry_backoff_ms=int(settings.retry_backoff * 1000),
            codec=settings.codec,
            codec_level=settings.codec_level,
            is_flushed=settings.is_flushed,
        )
        self._take_identity(broker)
        _open_producers.add(self)

    # ---- steps the compiled half asks for -----------------------------------------------------------

    def _start_sender(self) -> None:
        from logstore.clients.producer_sender import start_sender

        start_sender(self, self._ended)

    def _check_codec(self, codec: int, level: int | None) -> None:
        from logstore.records.codecs import compress

        compress(codec, b"", level)  # a package that is missing is better known before the first record is taken

    # ---- delivery -----------------------------------------------------------------------------------

    def flush(self, timeout: float | None = None) -> None:
        """Returns once everything sent so far is acknowledged at its level, and its callbacks have been called.

        Parameters
        ----------
        timeout : float, optional
            Seconds; without, as long as it takes (``delivery_timeout`` ends it).

        Raises
        ------
        DeliveryFailedError
            Records were not delivered, now or since the last flush, and nobody has asked their futures; it names how many,
            where, and the first error.
        RequestTimeoutError
            Not everything is acknowledged after ``timeout``; it stays queued.
        ClosedError

        Notes
        -----
        Thread-safe. Ctrl-C interrupts it at once; what is not delivered stays queued.
        """
        self._check_open()
        self._deliver_all(timeout)
        self._raise_failures()

    def _check_open(self) -> None:
        if self._state == "forked":
            raise ClosedError("this producer belongs to the parent process; open a broker and a producer in the child")
        if self._state == "closed":
            raise ClosedError("the producer is closed; make another one with broker.producer()")

    def _deliver_all(self, timeout: float | None) -> None:
        deadline = None if timeout is None else monotonic() + timeout
        for batch in self._hand_over_all():
            batch._wait(None if deadline is None else max(deadline - monotonic(), 0.0))
        self._wait_for_callbacks(None if deadline is None else max(deadline - monotonic(), 0.0))

    def _raise_failures(self) -> None:
        counts, first = self._take_failures()
        if counts:
            places = {TopicPartition(*place): count for place, count in counts.items()}
            raise DeliveryFailedError(places, first) from first

    # ---- the end ------------------------------------------------------------------------------------

    def close(self, timeout: float | None = None) -> None:
        """Delivers everything and ends. Idempotent.

        Parameters
        ----------
        timeout : float, optional
            Seconds after which what is left is given up; without, ``delivery_timeout`` decides.

        Raises
        ------
        DeliveryFailedError
            Records were not delivered, and nobody has asked their futures; it names how many, where, and the first error.

        Notes
        -----
        Interrupted by Ctrl-C, it can be called again; closing the broker does so, too, also at the interpreter's exit.
        """
        if self._state in ("closed", "forked"):
            return
        self._close_to_senders("closing")
        self._abort_if_open()
        try:
            self._deliver_all(timeout)
        except RequestTimeoutError:
            self._give_up(_given_up(timeout))
        self._finish()
        self._raise_failures()

    def _finish(self) -> None:
        """Ends the thread. Everything is settled."""
        self._close_to_senders("closed")
        _open_producers.discard(self)
        self._stop_sender()
        if not self._is_sender():
            with self._ended:
                pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_state", "closed") in ("open", "closing"):
            import warnings

            warnings.warn(f"unclosed {self!r}; it is closed now", ResourceWarning, source=self, stacklevel=2)
            self.close()

    # ---- asyncio ------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._never_block()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()

    async def drain(self) -> None:
        """`flush` for tasks: returns once everything sent so far is acknowledged. The event loop goes on meanwhile.

        Raises
        ------
        As `flush`.
        """
        self._check_open()
        await self._settle_all()
        self._raise_failures()

    async def _settle_all(self) -> None:
        for batch in self._hand_over_all():
            if not batch._is_complete:
                await batch._completion()
        self._run_callbacks()

    async def aclose(self) -> None:
        """`close` for tasks. Cancelled, it can be called again.

        Raises
        ------
        As `close`.
        """
        if self._state in ("closed", "forked"):
            return
        self._close_to_senders("closing")
        await self._abort_if_open_async()
        await self._settle_all()
        self._finish()
        self._raise_failures()

    def __repr__(self) -> str:
        return f"Producer(client_id={self.client_id!r}, {self._state})"

    def __reduce__(self) -> Any:
        raise TypeError("a Producer belongs to its broker and can't be pickled; pass the directory and the topic")

    def _forked(self) -> None:
        self._ended = _thread.allocate_lock()
        self._forget(ClosedError("the record belongs to the parent process, which delivers it"))


def _given_up(timeout: float | None) -> LogstoreError:
    return RequestTimeoutError(
        f"not acknowledged when the producer was closed with a timeout of {timeout} s, and given up; whether a record that "
        "was being written then is in the log is unknown"
    )


_open_producers: weakref.WeakSet[Producer] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for producer in list(_open_producers):
        producer._forked()
    _open_producers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
