"""confluent-kafka (librdkafka) against the mock broker in its own process: no disk, no network but loopback."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.compare.measure import Measured, Place, Stopwatch
from benchmarks.sample import WrongResultError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

QUEUE_MESSAGES = 1_000_000
MESSAGES_PER_CALL = 10_000
BROKER_BYTES = 3 << 20  # of the 5 MiB that the mock broker keeps of a partition


def _producer() -> Any:
    import confluent_kafka

    return confluent_kafka.Producer(
        {
            "bootstrap.servers": "mock", "test.mock.num.brokers": 1, "acks": 1, "linger.ms": 5, "log_level": 0,
            "queue.buffering.max.messages": QUEUE_MESSAGES, "queue.buffering.max.kbytes": 1 << 20,
        }
    )  # fmt: skip


@contextmanager
def produce(place: Place) -> Iterator[Callable[[], Measured]]:
    """produce a record; flushed at the end, all of them acknowledged."""
    sample = place.sample

    def one_round() -> Measured:
        producer = _producer()
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


@contextmanager
def consume(place: Place) -> Iterator[Callable[[], Measured]]:
    """consume of 10,000 messages a call; key and value of each."""
    import confluent_kafka

    sample = place.sample.first(BROKER_BYTES // place.sample.record_bytes)
    producer = _producer()
    for value, key in zip(sample.values, sample.keys, strict=True):
        producer.produce("records", value, key)
    if producer.flush(60):
        raise WrongResultError("confluent-kafka: not all records are delivered")
    broker = next(iter(producer.list_topics(timeout=10).brokers.values()))
    assigned = [confluent_kafka.TopicPartition("records", partition, 0) for partition in _partitions(producer)]

    def one_round() -> Measured:
        consumer = confluent_kafka.Consumer(
            {"bootstrap.servers": f"{broker.host}:{broker.port}", "group.id": "none", "log_level": 0,
             "enable.auto.commit": False, "fetch.wait.max.ms": 10, "check.crcs": True}
        )  # fmt: skip
        found: list[tuple[bytes, bytes]] = []
        consumer.assign(assigned)
        consumer.consume(1, timeout=10)  # connected
        for partition in assigned:
            consumer.seek(partition)
        with Stopwatch() as watch:
            while len(found) < len(sample):
                # It waits for as many as it is asked for.
                messages = consumer.consume(min(MESSAGES_PER_CALL, len(sample) - len(found)), timeout=10)
                if not messages:
                    break
                found += [(message.key(), message.value()) for message in messages]
        consumer.close()
        if sorted(found) != sorted(zip(sample.keys, sample.values, strict=True)):
            raise WrongResultError(f"confluent-kafka: {len(found)} records of {len(sample)}, or other ones")
        return watch.measured(len(found))

    yield one_round


def _partitions(producer: Any) -> list[int]:
    return list(producer.list_topics("records", timeout=10).topics["records"].partitions)
