"""confluent-kafka's producer (librdkafka) against the mock broker in its own process: no disk, no network but loopback."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.compare.measure import Measured, NotMeasuredError, Place, Stopwatch
from benchmarks.sample import WrongResultError

if TYPE_CHECKING:
    from collections.abc import Iterator

QUEUE_MESSAGES = 1_000_000


@contextmanager
def produce(place: Place) -> Iterator[Any]:
    """produce a record; flushed at the end, all of them acknowledged."""
    try:
        import confluent_kafka
    except ImportError as error:
        raise NotMeasuredError("confluent-kafka is not installed") from error
    sample = place.sample

    def one_round() -> Measured:
        producer = confluent_kafka.Producer(
            {
                "bootstrap.servers": "mock", "test.mock.num.brokers": 1, "acks": 1, "linger.ms": 5, "log_level": 0,
                "queue.buffering.max.messages": QUEUE_MESSAGES, "queue.buffering.max.kbytes": 1 << 20,
            }
        )  # fmt: skip
        producer.produce("records", sample.values[0], sample.keys[0])
        producer.flush(30)  # connected, and the topic made
        send, poll = producer.produce, producer.poll
        with Stopwatch() as watch:
            for value, key in zip(sample.values, sample.keys, strict=True):
                try:
                    send("records", value, key)
                except BufferError:
                    poll(0.1)
                    send("records", value, key)
            left = producer.flush(60)
        if left:
            raise WrongResultError(f"confluent-kafka: {left} records of {len(sample)} are not delivered")
        return watch.measured(len(sample))

    yield one_round
