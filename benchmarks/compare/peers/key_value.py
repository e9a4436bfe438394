"""What ordered key-value stores have in common here: offset -> key and value joined.

Offsets are packed and keys joined to values before the clock starts. A store is a class with the few calls below; the
works are written once, so that no store is measured with more Python around it than another.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.compare.measure import Measured, Place, Stopwatch
from benchmarks.sample import KEY_BYTES, WrongResultError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from benchmarks.sample import Sample

OFFSET = struct.Struct(">Q")  # in this order, bytes sort as numbers do
RECORDS_PER_WRITE = 10_000


class Store(ABC):
    """One open store. `put` writes one item into the page cache."""

    name: str
    put: Callable[[bytes, bytes], Any]
    get: Callable[[bytes], bytes | None]

    @abstractmethod
    def __init__(self, directory: Path) -> None: ...

    @abstractmethod
    def batch(self) -> tuple[Callable[[bytes, bytes], Any], Callable[[], Any]]:
        """Two functions: one puts an item into a batch in memory, the other writes the batch into the page cache."""

    @abstractmethod
    def write(self, items: Iterable[tuple[bytes, bytes]], *, sync: bool) -> None:
        """One batch with all of them, on disk afterwards if `sync`."""

    @abstractmethod
    def values(self) -> Iterable[bytes]:
        """All values in order."""

    @abstractmethod
    def seek(self, key: bytes) -> bytes | None:
        """The value of the first key at or after this one."""

    @abstractmethod
    def settle(self) -> None:
        """Bring what was written into the shape that is read fastest."""

    @abstractmethod
    def close(self) -> None: ...


def items_of(sample: Sample) -> list[tuple[bytes, bytes]]:
    joined = [key + value for key, value in zip(sample.keys, sample.values, strict=True)]
    return [(OFFSET.pack(offset), item) for offset, item in enumerate(joined)]


def _check(store: Store, sample: Sample) -> None:
    sample.check(((item[:KEY_BYTES], item[KEY_BYTES:]) for item in store.values()), source=store.name)


Start = Any  # a context manager over a place, as measure.Contestant takes it


def _writing(open_store: type[Store], write: Callable[[Store, list[tuple[bytes, bytes]]], None]) -> Start:
    @contextmanager
    def start(place: Place) -> Iterator[Callable[[], Measured]]:
        sample = place.sample
        items = items_of(sample)

        def one_round() -> Measured:
            with closing(open_store(place.fresh())) as store:
                with Stopwatch() as watch:
                    write(store, items)
                _check(store, sample)
            return watch.measured(len(sample))

        yield one_round

    return start


def append_buffered(open_store: type[Store]) -> Start:
    """One call a record into a batch in memory, which is written every 10,000."""

    def write(store: Store, items: list[tuple[bytes, bytes]]) -> None:
        for start in range(0, len(items), RECORDS_PER_WRITE):
            put, commit = store.batch()
            for key, value in items[start : start + RECORDS_PER_WRITE]:
                put(key, value)
            commit()

    return _writing(open_store, write)


def append_appended(open_store: type[Store]) -> Start:
    """One put a record, each in the page cache when it returns."""

    def write(store: Store, items: list[tuple[bytes, bytes]]) -> None:
        put = store.put
        for key, value in items:
            put(key, value)

    return _writing(open_store, write)


def append_flushed(open_store: type[Store], records_per_batch: int) -> Start:
    """One synced batch of so many records after the other."""

    def write(store: Store, items: list[tuple[bytes, bytes]]) -> None:
        for start in range(0, len(items), records_per_batch):
            store.write(items[start : start + records_per_batch], sync=True)

    return _writing(open_store, write)


def append_many(open_store: type[Store]) -> Start:
    """Batches of 10,000 records, in the page cache."""

    def write(store: Store, items: list[tuple[bytes, bytes]]) -> None:
        for start in range(0, len(items), RECORDS_PER_WRITE):
            store.write(items[start : start + RECORDS_PER_WRITE], sync=False)

    return _writing(open_store, write)


def write_all(open_store: type[Store], directory: Path, sample: Sample) -> Store:
    """A store with all records, settled."""
    store = open_store(directory)
    items = items_of(sample)
    for start in range(0, len(items), RECORDS_PER_WRITE):
        store.write(items[start : start + RECORDS_PER_WRITE], sync=False)
    store.settle()
    _check(store, sample)
    return store


def iterate(open_store: type[Store]) -> Start:
    """All values in order, each sliced into key and value."""

    @contextmanager
    def start(place: Place) -> Iterator[Callable[[], Measured]]:
        sample = place.sample
        with closing(write_all(open_store, place.kept, sample)) as store:

            def one_round() -> Measured:
                count = 0
                with Stopwatch() as watch:
                    for item in store.values():
                        item[:KEY_BYTES]
                        item[KEY_BYTES:]
                        count += 1
                if count != len(sample):
                    raise WrongResultError(f"{store.name}: {count} records of {len(sample)}")
                return watch.measured(count)

            yield one_round

    return start


def look_up_offset(open_store: type[Store]) -> Start:
    """One get a random offset, packed before."""

    @contextmanager
    def start(place: Place) -> Iterator[Callable[[], Measured]]:
        sample = place.sample
        wanted = sample.some_offsets()
        packed = [OFFSET.pack(offset) for offset in wanted]
        with closing(write_all(open_store, place.kept, sample)) as store:

            def one_round() -> Measured:
                get = store.get
                with Stopwatch() as watch:
                    found = [get(offset) for offset in packed]
                _check_items(store.name, sample, wanted, found)
                return watch.measured(len(wanted))

            yield one_round

    return start


def _check_items(name: str, sample: Sample, wanted: Sequence[int], found: Sequence[bytes | None]) -> None:
    for offset, item in zip(wanted, found, strict=True):
        if item != sample.keys[offset] + sample.values[offset]:
            raise WrongResultError(f"{name}: offset {offset} holds another record")


def look_up_time(open_store: type[Store]) -> Start:
    """A store from time to first offset; a seek for each random time."""

    @contextmanager
    def start(place: Place) -> Iterator[Callable[[], Measured]]:
        sample = place.sample
        wanted = sample.some_timestamps()
        packed = [OFFSET.pack(timestamp) for timestamp in wanted]
        first: dict[int, int] = {}
        for offset, timestamp in enumerate(sample.timestamps):
            first.setdefault(timestamp, offset)
        with closing(open_store(place.kept)) as store:
            store.write([(OFFSET.pack(time), OFFSET.pack(offset)) for time, offset in first.items()], sync=False)
            store.settle()

            def one_round() -> Measured:
                seek = store.seek
                with Stopwatch() as watch:
                    found = [seek(timestamp) for timestamp in packed]
                for timestamp, item in zip(wanted, found, strict=True):
                    if item is None or OFFSET.unpack(item)[0] != sample.first_offset_at(timestamp):
                        raise WrongResultError(f"{store.name}: wrong offset for time {timestamp}")
                return watch.measured(len(wanted))

            yield one_round

    return start


def store_records(open_store: type[Store]) -> Callable[[Path, Sample], None]:
    """Writes all records and closes, for measuring what is on disk then."""

    def write(directory: Path, sample: Sample) -> None:
        write_all(open_store, directory, sample).close()

    return write
