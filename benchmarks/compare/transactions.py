"""What numbering batches, transactions, and reading what is committed cost, beside the same work without."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.compare.measure import Measured, Place, Stopwatch
from benchmarks.compare.subject import TOPIC, created
from benchmarks.sample import WrongResultError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.sample import Sample

RECORDS_IN_TRANSACTION = 1000


def _check(topic: Any, sample: Sample) -> None:
    records = topic.read(isolation_level="read_committed")
    sample.check(((record.key, record.value) for record in records), source="logstore")


def _parts(sample: Sample) -> list[list[tuple[bytes, bytes]]]:
    pairs = list(zip(sample.values, sample.keys, strict=True))
    return [pairs[at : at + RECORDS_IN_TRANSACTION] for at in range(0, len(pairs), RECORDS_IN_TRANSACTION)]


def _send_all(producer: Any, pairs: list[tuple[bytes, bytes]]) -> None:
    send = producer.send
    for value, key in pairs:
        send(TOPIC, value, key)


def send(durability: str, *, in_parts: bool = False, **settings: object) -> Callable[[Place], Any]:
    """producer.send of all records; ``in_parts``: each 1,000 acknowledged before the next."""

    @contextmanager
    def start(place: Place) -> Iterator[Callable[[], Measured]]:
        sample = place.sample
        parts = _parts(sample)

        def one_round() -> Measured:
            broker, topic = created(place.fresh(), durability)
            with broker, broker.producer(**settings) as producer:
                with Stopwatch() as watch:
                    for pairs in parts:
                        _send_all(producer, pairs)
                        if in_parts:
                            producer.flush()
                    producer.flush()
                _check(topic, sample)
            return watch.measured(len(sample))

        yield one_round

    return start


def commit(durability: str) -> Callable[[Place], Any]:
    """producer.send of all records, each 1,000 as one transaction."""

    @contextmanager
    def start(place: Place) -> Iterator[Callable[[], Measured]]:
        sample = place.sample
        parts = _parts(sample)

        def one_round() -> Measured:
            broker, topic = created(place.fresh(), durability)
            with broker, broker.producer(transactional_id="writer") as producer:
                producer.init_transactions()
                with Stopwatch() as watch:
                    for pairs in parts:
                        with producer.transaction():
                            _send_all(producer, pairs)
                _check(topic, sample)
            return watch.measured(len(sample))

        yield one_round

    return start


def iterate(isolation_level: str, *, committed: bool) -> Callable[[Place], Any]:
    """topic.read of all records, each one's key and value taken; ``committed``: written in transactions of 1,000."""

    @contextmanager
    def start(place: Place) -> Iterator[Callable[[], Measured]]:
        sample = place.sample
        broker, topic = created(place.kept / "log", "appended")
        with broker.producer(transactional_id="writer" if committed else None) as producer:
            for pairs in _parts(sample):
                if committed:
                    with producer.transaction():
                        _send_all(producer, pairs)
                else:
                    _send_all(producer, pairs)
                    producer.flush()

        def one_round() -> Measured:
            count = 0
            with Stopwatch() as watch:
                for record in topic.read(isolation_level=isolation_level):
                    record.key  # noqa: B018
                    record.value  # noqa: B018
                    count += 1
            if count != len(sample):
                raise WrongResultError(f"logstore: {count} records of {len(sample)}")
            return watch.measured(count)

        with broker:
            _check(topic, sample)
            yield one_round

    return start
