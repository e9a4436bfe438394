"""The hot paths, each a loop over records; run by `benchmarks.instructions` in a process below callgrind."""

from __future__ import annotations

import ctypes
import gc
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.limits import compile_c, empty_append
from benchmarks.sample import WrongResultError, sample_records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["RECORDS", "main"]

RECORDS = 4_000
LOOK_UPS = 400
TURNS = 3  # the least of them counts: memory from the system costs now and then what it does not in the next turn
NEVER = 2**63 - 1
TOPIC = "records"
SMALL_BATCHES = {"logstore.batch.bytes": 4096, "index.interval.bytes": 1024}

Path_ = tuple[str, int, "Callable[[], object]"]


def _paths(directory: Path) -> Iterator[Path_]:
    """Each path: its name, its records, and what does it once."""
    import logstore

    sample = sample_records(RECORDS)
    pairs = list(zip(sample.values, sample.keys, strict=True))
    with logstore.open(directory, durability="appended") as broker:
        yield "empty compiled call", RECORDS, _each(empty_append(), pairs)
        for durability in ("buffered", "appended", "flushed"):
            topic = broker.create_topic(
                f"append-{durability}",
                retention=-1,
                flush_ms=NEVER,
                logstore_durability=durability,
            )
            part = pairs[: RECORDS // 10] if durability == "flushed" else pairs
            yield f"append, {durability}", len(part), _each(topic.append, part)
        topic = broker.create_topic("append-written", retention=-1, flush_ms=NEVER, logstore_open_batch_mapped=False)
        yield "append, appended, each written", RECORDS, _each(topic.append, pairs)
        topic = broker.create_topic("append-many", retention=-1, flush_ms=NEVER)
        yield "append_many, lists", RECORDS, lambda: topic.append_many(sample.values, sample.keys)
        yield "append_many, Arrow", RECORDS, _append_arrow(topic, sample)
        yield "send, appended", RECORDS, _send(broker, pairs)
        yield from _reading(broker, sample)


def _each(append: Callable[[bytes, bytes], object], pairs: list[tuple[bytes, bytes]]) -> Callable[[], None]:
    def call() -> None:
        for value, key in pairs:
            append(value, key)

    return call


def _append_arrow(topic: Any, sample: Any) -> Callable[[], object]:
    import pyarrow as pa

    values, keys = pa.array(sample.values, pa.binary()), pa.array(sample.keys, pa.binary())
    return lambda: topic.append_many(values, keys)


def _send(broker: Any, pairs: list[tuple[bytes, bytes]]) -> Callable[[], None]:
    broker.create_topic("send", retention=-1, flush_ms=NEVER)
    producer = broker.producer()
    send = producer.send

    def call() -> None:
        for value, key in pairs:
            send("send", value, key)
        producer.flush()

    return call


def _reading(broker: Any, sample: Any) -> Iterator[Path_]:
    topic = broker.create_topic(TOPIC, retention=-1, flush_ms=NEVER)
    topic.append_many(sample.values, sample.keys, timestamps=sample.timestamps)
    small = broker.create_topic("small-batches", retention=-1, flush_ms=NEVER, **SMALL_BATCHES)
    small.append_many(sample.values, sample.keys, timestamps=sample.timestamps)
    sample.check(((record.key, record.value) for record in topic.read()), source="logstore")

    def iterate(records: Any) -> None:
        for record in records:
            record.key  # noqa: B018
            record.value  # noqa: B018

    def consume() -> None:
        with broker.consumer(TOPIC, consumer_timeout=0) as consumer:
            iterate(consumer)

    def columns() -> None:
        if sum(len(batch.offsets) for batch in topic.scan()) != RECORDS:
            raise WrongResultError("the scan lost records")

    def look_up(where: Any) -> Callable[[], None]:
        offsets = sample.some_offsets(LOOK_UPS)

        def call() -> None:
            for offset in offsets:
                where.get(offset)

        return call

    def look_up_time() -> None:
        for timestamp in sample.some_timestamps(LOOK_UPS):
            topic.offset_for_timestamp(timestamp)

    yield "iterate, key and value", RECORDS, lambda: iterate(topic.read())
    yield "consumer, key and value", RECORDS, consume
    yield "columns", RECORDS, columns
    yield "look-up by offset, 4 KiB batches", LOOK_UPS, look_up(small)
    yield "look-up by offset, 64 KiB batches", LOOK_UPS, look_up(topic)
    yield "look-up by time", LOOK_UPS, look_up_time


def main(directory: str) -> None:
    """Every path once to warm up, then counted some times. Prints a number of records and a name a line."""
    marks = ctypes.CDLL(str(compile_c("marks", [Path(__file__).with_name("marks.c")], [])))
    with tempfile.TemporaryDirectory(prefix="log-", dir=directory) as place:
        for name, records, call in _paths(Path(place)):
            call()
            for turn in range(TURNS):
                gc.collect()
                gc.disable()
                marks.marks_begin()
                call()
                marks.marks_end(f"{name} #{turn}".encode())
                gc.enable()
            print(f"{records}\t{name}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
