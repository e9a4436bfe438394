"""logstore itself, through the calls that its users make."""

from __future__ import annotations

import random
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.compare.measure import Measured, NotMeasuredError, Place, Stopwatch
from benchmarks.sample import SEED, WrongResultError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.sample import Sample

TOPIC = "records"
RECORDS_PER_CALL = 10_000
PASSES = 5  # over all records in one round, where one takes a few ms
NEVER = 2**63 - 1


def _logstore() -> Any:
    try:
        import logstore

        logstore.native_info()
    except (ImportError, AttributeError) as error:
        raise NotMeasuredError(f"logstore is not built here ({error})") from error
    return logstore


def created(directory: Path, durability: str, **settings: object) -> tuple[Any, Any]:
    broker = _logstore().open(directory, durability=durability)
    return broker, broker.create_topic(TOPIC, retention=-1, **settings)


def _started(directory: Path, durability: str, sample: Sample, **settings: object) -> tuple[Any, Any]:
    """A topic with one record, since the first write after opening marks the log as in use."""
    broker, topic = created(directory, durability, **settings)
    topic.append(sample.values[0], sample.keys[0])
    return broker, topic


def _check(topic: Any, sample: Sample) -> None:
    pairs = ((record.key, record.value) for record in topic.read())
    sample.check(pairs, source="logstore")


def append_one_by_one(durability: str, **settings: object) -> Callable[[Place], Any]:
    """topic.append a record; handed over to the operating system at the end, if not before."""

    @contextmanager
    def start(place: Place) -> Iterator[Callable[[], Measured]]:
        _logstore()
        sample = place.sample
        values, keys = sample.values[1:], sample.keys[1:]

        def one_round() -> Measured:
            broker, topic = _started(place.fresh(), durability, sample, **settings)
            with broker:
                append = topic.append
                with Stopwatch() as watch:
                    for value, key in zip(values, keys, strict=True):
                        append(value, key)
                    if durability == "buffered":
                        topic.flush("appended")
                _check(topic, sample)
            return watch.measured(len(values))

        yield one_round

    return start


def send_one_by_one(durability: str) -> Callable[[Place], Any]:
    """producer.send a record; at the end all are acknowledged at their level."""

    @contextmanager
    def start(place: Place) -> Iterator[Callable[[], Measured]]:
        _logstore()
        sample = place.sample
        values, keys = sample.values[1:], sample.keys[1:]

        def one_round() -> Measured:
            broker, topic = _started(place.fresh(), durability, sample)
            with broker, broker.producer() as producer:
                send = producer.send
                with Stopwatch() as watch:
                    for value, key in zip(values, keys, strict=True):
                        send(TOPIC, value, key)
                    producer.flush()
                _check(topic, sample)
            return watch.measured(len(values))

        yield one_round

    return start


def append_flushed_batches(records_per_batch: int) -> Callable[[Place], Any]:
    """topic.append_many of so many records a call, each call on disk when it returns."""

    @contextmanager
    def start(place: Place) -> Iterator[Callable[[], Measured]]:
        _logstore()
        sample = place.sample
        values, keys = sample.values[1:], sample.keys[1:]
        parts = [
            (values[at : at + records_per_batch], keys[at : at + records_per_batch])
            for at in range(0, len(values), records_per_batch)
        ]
        yield _append_parts(place, parts, "flushed")

    return start


def append_in_threads(threads: int) -> Callable[[Place], Any]:
    """topic.append from several threads at once, flushed: waiting writers share an fdatasync."""

    @contextmanager
    def start(place: Place) -> Iterator[Callable[[], Measured]]:
        _logstore()
        sample = place.sample

        def one_round() -> Measured:
            broker, topic = _started(place.fresh(), "flushed", sample)
            with broker:
                watch = _append_from(threads, topic, sample)
                wanted = sorted(zip(sample.keys, sample.values, strict=True))
                found = sorted((record.key, record.value) for record in topic.read())
                if found != wanted:
                    raise WrongResultError("logstore: the threads' records are not all there, once each")
            return watch.measured(len(sample) - 1)

        yield one_round

    return start


def _append_from(threads: int, topic: Any, sample: Sample) -> Stopwatch:
    ready = threading.Barrier(threads + 1)
    failures: list[BaseException] = []

    def write(part: int) -> None:
        values, keys = sample.values[1 + part :: threads], sample.keys[1 + part :: threads]
        pairs = list(zip(values, keys, strict=True))
        ready.wait()
        try:
            for value, key in pairs:
                topic.append(value, key)
        except BaseException as error:
            failures.append(error)

    writers = [threading.Thread(target=write, args=(part,)) for part in range(threads)]
    for writer in writers:
        writer.start()
    with Stopwatch() as watch:
        ready.wait()
        for writer in writers:
            writer.join()
    if failures:
        raise failures[0]
    return watch


@contextmanager
def append_many(place: Place) -> Iterator[Callable[[], Measured]]:
    """topic.append_many of lists of 10,000 keys and values."""
    _logstore()
    sample = place.sample
    parts = [
        (sample.values[at : at + RECORDS_PER_CALL], sample.keys[at : at + RECORDS_PER_CALL])
        for at in range(1, len(sample), RECORDS_PER_CALL)
    ]
    yield _append_parts(place, parts, "appended")


@contextmanager
def append_many_arrow(place: Place) -> Iterator[Callable[[], Measured]]:
    """topic.append_many of Arrow arrays of 10,000 keys and values."""
    import pyarrow as pa

    _logstore()
    sample = place.sample
    parts = [
        (
            pa.array(sample.values[at : at + RECORDS_PER_CALL], pa.binary()),
            pa.array(sample.keys[at : at + RECORDS_PER_CALL], pa.binary()),
        )
        for at in range(1, len(sample), RECORDS_PER_CALL)
    ]
    yield _append_parts(place, parts, "appended")


@contextmanager
def append_many_numpy(place: Place) -> Iterator[Callable[[], Measured]]:
    """topic.append_many of numpy arrays of 10,000 keys and values of fixed size."""
    import numpy as np

    _logstore()
    sample = place.sample
    values, keys = np.array(sample.values), np.array(sample.keys)
    parts = [
        (values[at : at + RECORDS_PER_CALL], keys[at : at + RECORDS_PER_CALL])
        for at in range(1, len(sample), RECORDS_PER_CALL)
    ]
    yield _append_parts(place, parts, "appended")


def _append_parts(place: Place, parts: list[tuple[Any, Any]], durability: str) -> Callable[[], Measured]:
    sample = place.sample

    def one_round() -> Measured:
        broker, topic = _started(place.fresh(), durability, sample)
        with broker:
            with Stopwatch() as watch:
                for values, keys in parts:
                    topic.append_many(values, keys)
            _check(topic, sample)
        return watch.measured(len(sample) - 1)

    return one_round


def write_all(directory: Path, sample: Sample, **settings: object) -> tuple[Any, Any]:
    broker, topic = created(directory, "appended", **settings)
    for at in range(0, len(sample), RECORDS_PER_CALL):
        to = at + RECORDS_PER_CALL
        topic.append_many(sample.values[at:to], sample.keys[at:to], timestamps=sample.timestamps[at:to])
    return broker, topic


def write_segments(directory: Path, sample: Sample) -> list[Path]:
    """The segment files of a topic that holds `sample`, for readers of the same format."""
    broker, topic = write_all(directory, sample)
    with broker:
        return [Path(segment.path) for segment in topic.logs[0].segments]


def iterate(*, touch: bool) -> Callable[[Place], Any]:
    """topic.read over all records, taking each one's key and value or only counting."""

    @contextmanager
    def start(place: Place) -> Iterator[Callable[[], Measured]]:
        sample = place.sample
        broker, topic = write_all(place.kept / "log", sample)

        def one_round() -> Measured:
            count = 0
            with Stopwatch() as watch:
                if touch:
                    for record in topic.read():
                        record.key  # noqa: B018
                        record.value  # noqa: B018
                        count += 1
                else:
                    for _record in topic.read():
                        count += 1
            if count != len(sample):
                raise WrongResultError(f"logstore: {count} records of {len(sample)}")
            return watch.measured(count)

        with broker:
            _check(topic, sample)
            yield one_round

    return start


@contextmanager
def columns(place: Place) -> Iterator[Callable[[], Measured]]:
    """topic.scan: every column of every batch, CRC verified, as numpy arrays."""
    sample = place.sample
    broker, topic = write_all(place.kept / "log", sample)

    def one_round() -> Measured:
        count = 0
        with Stopwatch() as watch:
            for _ in range(PASSES):
                for batch in topic.scan():
                    seen = (
                        batch.timestamps,
                        batch.key_starts,
                        batch.key_bytes,
                        batch.value_starts,
                        batch.value_bytes,
                    )
                    count += len(batch.offsets)
        if count != PASSES * len(sample) or {len(column) for column in seen} != {len(batch)}:
            raise WrongResultError(f"logstore: columns of {count} records of {len(sample)}")
        return watch.measured(count)

    with broker:
        batches = list(topic.scan())
        pairs = (pair for batch in batches for pair in zip(batch.keys(), batch.values(), strict=True))
        sample.check(pairs, source="logstore columns")
        del batches
        yield one_round


def look_up_offset(batch_bytes: int, *, times: int = 1, by: str = "get") -> Callable[[Place], Any]:
    """One topic.get, or the first of a topic.read, a random offset.

    In batches of so many bytes, in a log that holds the records so many ``times``: batches once read are kept in memory up
    to a limit, which several times the records exceed.
    """

    @contextmanager
    def start(place: Place) -> Iterator[Callable[[], Measured]]:
        sample = place.sample
        settings = {"logstore.batch.bytes": batch_bytes, "index.interval.bytes": batch_bytes // 4}
        broker, topic = write_all(place.kept / "log", sample, **settings)
        for _ in range(times - 1):
            topic.append_many(sample.values, sample.keys)
        chance = random.Random(SEED)
        wanted = [offset + chance.randrange(times) * len(sample) for offset in sample.some_offsets()]

        def one_round() -> Measured:
            if by == "get":
                get = topic.get
                with Stopwatch() as watch:
                    found = [get(offset).value for offset in wanted]
            else:
                read = topic.read
                with Stopwatch() as watch:
                    found = [next(read(offset, stop=offset + 1)).value for offset in wanted]
            for offset, value in zip(wanted, found, strict=True):
                if value != sample.values[offset % len(sample)]:
                    raise WrongResultError(f"logstore: offset {offset} holds another record")
            return watch.measured(len(wanted))

        with broker:
            yield one_round

    return start


@contextmanager
def look_up_time(place: Place) -> Iterator[Callable[[], Measured]]:
    """topic.offset_for_timestamp for each random time."""
    sample = place.sample
    broker, topic = write_all(place.kept / "log", sample)
    wanted = sample.some_timestamps()

    def one_round() -> Measured:
        look_up = topic.offset_for_timestamp
        with Stopwatch() as watch:
            found = [look_up(timestamp) for timestamp in wanted]
        for timestamp, answer in zip(wanted, found, strict=True):
            if answer is None or answer.offset != sample.first_offset_at(timestamp):
                raise WrongResultError(f"logstore: wrong offset for time {timestamp}: {answer}")
        return watch.measured(len(wanted))

    with broker:
        yield one_round


def write_for_open(directory: Path, sample: Sample, count: int) -> Any:
    """Append `count` records, the sample over and over; leave it open with nothing flushed."""
    broker, topic = created(directory, "appended", flush_ms=NEVER)
    length = len(sample)
    for start in range(0, count, length):
        part = min(length, count - start)
        topic.append_many(sample.values[:part], sample.keys[:part])
    return broker


def open_and_count(directory: Path, _space_bytes: int) -> tuple[Any, int]:
    """logstore.open and the log end offset."""
    broker = _logstore().open(directory)
    return broker, broker.topic(TOPIC).logs[0].log_end_offset
