"""Consume, process, produce: a loop that survives being killed at any time without losing or repeating anything."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from logstore.errors import (
    GroupError,
    InvalidConfigError,
    InvalidProducerEpochError,
    InvalidRequestError,
    ProducerFencedError,
)
from logstore.model import Headers, TopicPartition

if TYPE_CHECKING:
    from logstore._native.record_batch import Record
    from logstore.clients.consumer import Consumer
    from logstore.clients.producer import Producer

__all__ = ["Output", "Processed", "process"]

POLL_SECONDS = 0.2
BACKOFF_SECONDS_MAX = 30.0


class Output(NamedTuple):
    """One record that a handler gives.

    Attributes
    ----------
    value, key : bytes or None
    headers : sequence of (str, bytes or None), optional
    topic : str, optional
        In place of ``to=``.
    partition : int, optional
    """

    value: bytes | None
    key: bytes | None = None
    headers: Headers | None = None
    topic: str | None = None
    partition: int | None = None


class Processed(NamedTuple):
    """What `process` has done, once it is committed.

    Attributes
    ----------
    records : int
        Read.
    outputs : int
        Written.
    retries : int
        Times a handler was called again.
    dead_letters : int
    transactions : int
    """

    records: int = 0
    outputs: int = 0
    retries: int = 0
    dead_letters: int = 0
    transactions: int = 0


class _Loop:
    """One call of `process`."""

    def __init__(
        self, handler: Callable[[Record], Any], to: str | None, retries: int, retry_backoff: float, dead_letter: str | None,
        stop: Any,
    ):  # fmt: skip
        self.handler = handler
        self.to = to
        self.retries = retries
        self.retry_backoff = retry_backoff
        self.dead_letter = dead_letter
        self.stop = stop
        self.done = Processed()

    def is_stopped(self, consumer: Consumer, is_idle: bool) -> bool:
        if self.stop is None:
            return False
        if self.stop == "end":
            return is_idle and bool(consumer.assignment()) and all(lag.records == 0 for lag in consumer.lag().values())
        return bool(self.stop.is_set() if hasattr(self.stop, "is_set") else self.stop())

    def handle(self, record: Record) -> tuple[list[Output], int, bool]:
        """What the handler makes of a record, how often it was called again, and whether it has given up."""
        attempt = 0
        while True:
            try:
                return [*_outputs(self.handler(record), record)], attempt, False
            except Exception as error:
                if attempt >= self.retries:
                    if self.dead_letter is None:
                        error.add_note(
                            f"raised by the handler for {record.topic}-{record.partition} at offset {record.offset}, "
                            f"{attempt + 1} times; nothing of its batch is committed"
                        )
                        raise
                    return [self._dead_letter(record, error, attempt + 1)], attempt, True
                self._pause(min(self.retry_backoff * 2**attempt, BACKOFF_SECONDS_MAX))
                attempt += 1

    def _pause(self, seconds: float) -> None:
        if isinstance(self.stop, threading.Event):
            self.stop.wait(seconds)
        else:
            time.sleep(seconds)

    def _dead_letter(self, record: Record, error: Exception, attempts: int) -> Output:
        headers = [
            *record.headers,
            ("error.type", type(error).__qualname__.encode()),
            ("error.message", str(error)[:1000].encode(errors="replace")),
            ("error.attempts", b"%d" % attempts),
            ("error.topic", record.topic.encode()),
            ("error.partition", b"%d" % record.partition),
            ("error.offset", b"%d" % record.offset),
        ]
        return Output(record.value, record.key, headers, self.dead_letter)

    def batch(self, producer: Producer, records: Iterable[Record]) -> Processed:
        """Handles records and sends what comes of them."""
        read = outputs = retries = dead = 0
        for record in records:
            made, again, is_dead = self.handle(record)
            read += 1
            retries += again
            dead += is_dead
            for output in made:
                topic = output.topic or self.to
                if topic is None:
                    raise InvalidRequestError("the handler gave a record, but process() has no to= topic to send it to")
                producer.send(topic, output.value, output.key, output.headers, output.partition)
                outputs += not is_dead
        return Processed(read, outputs, retries, dead, 1)

    def run(self, producer: Producer, consumer: Consumer, batch: int, exactly_once: bool) -> None:
        is_idle = False
        while not self.is_stopped(consumer, is_idle):
            records = consumer.poll(POLL_SECONDS, batch)
            is_idle = not records
            if is_idle:
                continue
            first: dict[TopicPartition, int] = {}
            for record in records:
                first.setdefault(TopicPartition(record.topic, record.partition), record.offset)
            try:
                if exactly_once:
                    with producer.transaction() as transaction:
                        counts = self.batch(producer, records)
                        transaction.send_offsets({place: consumer.position(place) for place in first}, consumer)
                else:
                    counts = self.batch(producer, records)
                    producer.flush()
                    consumer.commit({place: consumer.position(place) for place in first})
            except ProducerFencedError:
                raise
            except (GroupError, InvalidProducerEpochError):
                # Too slow: the group has given the partitions to others, or the transaction has timed out. It was taken
                # back; what is still assigned is read again.
                for place, offset in first.items():
                    with contextlib.suppress(InvalidRequestError):
                        consumer.seek(place, offset)
                continue
            self.done = Processed(*map(sum, zip(self.done, counts, strict=True)))


def process(
    broker: Any,
    topics: Iterable[str],
    handler: Callable[[Record], Any],
    *,
    to: str | None,
    group: str,
    transactional_id: str,
    exactly_once: bool,
    retries: int,
    retry_backoff: float,
    dead_letter: str | None,
    batch: int,
    stop: Any,
) -> Processed:
    """The loop behind `logstore.Broker.process`; see there."""
    if not callable(handler):
        raise InvalidConfigError(f"handler is called with each record, which {type(handler).__name__} can't be")
    for name, value, least in (("retries", retries, 0), ("batch", batch, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InvalidConfigError(f"{name} must be a whole number of at least {least}, not {value!r}")
    if not 0 <= retry_backoff < math.inf:
        raise InvalidConfigError(f"retry_backoff must be seconds, 0 or more, not {retry_backoff!r}")
    if not (stop is None or stop == "end" or callable(stop) or hasattr(stop, "is_set")):
        raise InvalidConfigError(f"stop must be a threading.Event, a callable or 'end', not {stop!r}")
    loop = _Loop(handler, to, retries, retry_backoff, dead_letter, stop)
    identity = {"transactional_id": transactional_id} if exactly_once else {}
    with (
        broker.producer(**identity) as producer,
        broker.consumer(
            *topics, group=group, enable_auto_commit=False, max_poll_records=batch, isolation_level="read_committed"
        ) as consumer,
    ):
        if exactly_once:
            producer.init_transactions()
        loop.run(producer, consumer, batch, exactly_once)
    return loop.done


def _outputs(made: Any, record: Record) -> Iterable[Output]:
    """What a handler may give: nothing, a value, a key and a value, a record, an `Output`, or any number of these."""
    if made is None:
        return
    if isinstance(made, Output):
        yield made
    elif isinstance(made, (bytes, bytearray, memoryview)):
        yield Output(bytes(made), record.key)
    elif isinstance(made, tuple) and len(made) == 2 and all(part is None or isinstance(part, bytes) for part in made):
        yield Output(made[1], made[0])
    elif hasattr(made, "value") and hasattr(made, "key") and hasattr(made, "headers"):
        yield Output(made.value, made.key, made.headers)
    elif isinstance(made, Iterable) and not isinstance(made, (str, dict)):
        for each in made:
            yield from _outputs(each, record)
    else:
        raise InvalidRequestError(
            f"a handler gives None, bytes, (key, value), a record, an Output, or several of them, not {type(made).__name__}"
        )
