"""persist-queue: its SQLite queue, with a serializer that leaves bytes as they are."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.compare.measure import Measured, Place, Stopwatch
from benchmarks.sample import KEY_BYTES, WrongResultError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from benchmarks.sample import Sample


class _AsItIs:
    @staticmethod
    def dumps(value: bytes) -> bytes:
        return value

    @staticmethod
    def loads(value: bytes) -> bytes:
        return value


def _open(directory: Path, *, flushed: bool) -> Any:
    """It commits each put, whatever ``auto_commit`` says, and SQLite then syncs. It has no setting against that; the
    connection underneath has."""
    import persistqueue

    queue = persistqueue.SQLiteQueue(str(directory), auto_commit=False, serializer=_AsItIs)
    if not flushed:
        queue._putter.execute("PRAGMA synchronous = OFF")
    return queue


def _items(sample: Sample) -> list[bytes]:
    return [key + value for key, value in zip(sample.keys, sample.values, strict=True)]


def _check(queue: Any, sample: Sample) -> None:
    items = [row["data"] for row in queue.queue()]
    sample.check(((item[:KEY_BYTES], item[KEY_BYTES:]) for item in items), source="persist-queue")


def append(*, flushed: bool) -> Callable[[Place], Any]:
    """One put a record, each committed: synced as it comes, or not."""

    @contextmanager
    def start(place: Place) -> Iterator[Callable[[], Measured]]:
        sample = place.sample
        items = _items(sample)

        def one_round() -> Measured:
            queue = _open(place.fresh(), flushed=flushed)
            put = queue.put
            with Stopwatch() as watch:
                for item in items:
                    put(item)
            _check(queue, sample)
            queue.close()
            return watch.measured(len(sample))

        yield one_round

    return start


@contextmanager
def iterate(place: Place) -> Iterator[Callable[[], Measured]]:
    """One get a record, none of them taken out for good; each sliced into key and value."""
    sample = place.sample
    queue = _open(place.kept, flushed=False)
    for item in _items(sample):
        queue.put(item)
    _check(queue, sample)
    queue.close()

    def one_round() -> Measured:
        queue = _open(place.kept, flushed=False)
        get = queue.get
        count = 0
        with Stopwatch() as watch:
            while not queue.empty():
                item = get(False)
                item[:KEY_BYTES]
                item[KEY_BYTES:]
                count += 1
        queue.close()
        if count != len(sample):
            raise WrongResultError(f"persist-queue: {count} records of {len(sample)}")
        return watch.measured(count)

    yield one_round
