"""LMDB: offset -> key and value joined, integer keys, appended in order.

Offsets are packed and keys joined to values before the clock starts; where nothing is synced the
map is writable, which is faster: LMDB at its best.
"""

from __future__ import annotations

import struct
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.compare.measure import Measured, Place, Stopwatch
from benchmarks.sample import KEY_BYTES, WrongResultError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from benchmarks.sample import Sample

BIG = "<Q" if sys.byteorder == "little" else ">Q"
OFFSET = struct.Struct(BIG)
RECORDS_PER_TRANSACTION = 10_000


def _open(path: Path, size_bytes: int, *, sync: bool = False, writemap: bool = False) -> tuple[Any, Any]:
    import lmdb

    environment = lmdb.open(
        str(path),
        map_size=max(64 << 20, 4 * size_bytes),
        sync=sync,
        metasync=sync,
        writemap=writemap,
        max_dbs=2,
        lock=True,
    )
    return environment, environment.open_db(b"records", integerkey=True)


def _space(sample: Sample) -> int:
    return len(sample) * (sample.record_bytes + 64)


def _items(sample: Sample) -> list[tuple[bytes, bytes]]:
    joined = [key + value for key, value in zip(sample.keys, sample.values, strict=True)]
    return [(OFFSET.pack(offset), item) for offset, item in enumerate(joined)]


def _check(environment: Any, records: Any, sample: Sample) -> None:
    with environment.begin(db=records) as transaction:
        pairs = ((item[:KEY_BYTES], item[KEY_BYTES:]) for _offset, item in transaction.cursor())
        sample.check(pairs, source="LMDB")


@contextmanager
def append_buffered(place: Place) -> Iterator[Callable[[], Measured]]:
    """One put a record in one transaction without a sync: the unsafe best case."""
    sample = place.sample
    items = _items(sample)

    def one_round() -> Measured:
        environment, records = _open(place.fresh(), _space(sample), writemap=True)
        with environment:
            with Stopwatch() as watch, environment.begin(write=True, db=records) as transaction:
                put = transaction.put
                for offset, item in items:
                    put(offset, item, append=True)
            _check(environment, records, sample)
        return watch.measured(len(sample))

    yield one_round


@contextmanager
def append_appended(place: Place) -> Iterator[Callable[[], Measured]]:
    """One transaction a record without a sync: in the page cache when it returns."""
    yield _transaction_each(place, sync=False)


def append_flushed(records_per_batch: int) -> Callable[[Place], Any]:
    """One synced transaction after the other, of so many records each."""

    @contextmanager
    def start(place: Place) -> Iterator[Callable[[], Measured]]:
        if records_per_batch == 1:
            yield _transaction_each(place, sync=True)
        else:
            yield _transactions(place, records_per_batch)

    return start


def _transactions(place: Place, records_per_batch: int) -> Callable[[], Measured]:
    sample = place.sample
    items = _items(sample)
    parts = [items[at : at + records_per_batch] for at in range(0, len(items), records_per_batch)]

    def one_round() -> Measured:
        environment, records = _open(place.fresh(), _space(sample), sync=True)
        with environment:
            with Stopwatch() as watch:
                for part in parts:
                    with environment.begin(write=True, db=records) as transaction:
                        transaction.cursor().putmulti(part, append=True)
            _check(environment, records, sample)
        return watch.measured(len(sample))

    return one_round


def _transaction_each(place: Place, *, sync: bool) -> Callable[[], Measured]:
    sample = place.sample
    items = _items(sample)

    def one_round() -> Measured:
        environment, records = _open(place.fresh(), _space(sample), sync=sync, writemap=not sync)
        with environment:
            begin = environment.begin
            with Stopwatch() as watch:
                for offset, item in items:
                    with begin(write=True, db=records) as transaction:
                        transaction.put(offset, item, append=True)
            _check(environment, records, sample)
        return watch.measured(len(sample))

    return one_round


@contextmanager
def append_many(place: Place) -> Iterator[Callable[[], Measured]]:
    """Everything through cursor.putmulti in one transaction without a sync."""
    sample = place.sample
    items = _items(sample)

    def one_round() -> Measured:
        environment, records = _open(place.fresh(), _space(sample), writemap=True)
        with environment:
            with Stopwatch() as watch, environment.begin(write=True, db=records) as transaction:
                transaction.cursor().putmulti(items, append=True)
            _check(environment, records, sample)
        return watch.measured(len(sample))

    yield one_round


def _write_all(directory: Path, sample: Sample) -> tuple[Any, Any]:
    environment, records = _open(directory, _space(sample))
    with environment.begin(write=True, db=records) as transaction:
        transaction.cursor().putmulti(_items(sample), append=True)
    return environment, records


@contextmanager
def iterate(place: Place) -> Iterator[Callable[[], Measured]]:
    """A cursor over all items, key and value left joined."""
    with _iterated(place, touch=False) as one_round:
        yield one_round


@contextmanager
def iterate_touched(place: Place) -> Iterator[Callable[[], Measured]]:
    """The same, slicing each item into key and value."""
    with _iterated(place, touch=True) as one_round:
        yield one_round


@contextmanager
def _iterated(place: Place, *, touch: bool) -> Iterator[Callable[[], Measured]]:
    sample = place.sample
    environment, records = _write_all(place.kept, sample)

    def one_round() -> Measured:
        count = 0
        with environment.begin(db=records) as transaction, Stopwatch() as watch:
            if touch:
                for item in transaction.cursor().iternext(keys=False):
                    item[:KEY_BYTES]
                    item[KEY_BYTES:]
                    count += 1
            else:
                for _item in transaction.cursor().iternext(keys=False):
                    count += 1
        if count != len(sample):
            raise WrongResultError(f"LMDB: {count} records of {len(sample)}")
        return watch.measured(count)

    with environment:
        _check(environment, records, sample)
        yield one_round


@contextmanager
def look_up_offset(place: Place) -> Iterator[Callable[[], Measured]]:
    """One get a random offset, all in one read transaction."""
    sample = place.sample
    environment, records = _write_all(place.kept, sample)
    wanted = sample.some_offsets()
    packed = [OFFSET.pack(offset) for offset in wanted]

    def one_round() -> Measured:
        with environment.begin(db=records) as transaction:
            get = transaction.get
            with Stopwatch() as watch:
                found = [get(offset) for offset in packed]
        for offset, item in zip(wanted, found, strict=True):
            if item != sample.keys[offset] + sample.values[offset]:
                raise WrongResultError(f"LMDB: offset {offset} holds another record")
        return watch.measured(len(wanted))

    with environment:
        yield one_round


@contextmanager
def look_up_time(place: Place) -> Iterator[Callable[[], Measured]]:
    """A second database from time to first offset; set_range for each time."""
    sample = place.sample
    environment, _records = _write_all(place.kept, sample)
    times = environment.open_db(b"times", integerkey=True)
    with environment.begin(write=True, db=times) as transaction:
        for offset, timestamp in enumerate(sample.timestamps):
            transaction.put(OFFSET.pack(timestamp), OFFSET.pack(offset), overwrite=False)
    wanted = sample.some_timestamps()
    packed = [OFFSET.pack(timestamp) for timestamp in wanted]

    def one_round() -> Measured:
        with environment.begin(db=times) as transaction:
            cursor = transaction.cursor()
            found = []
            with Stopwatch() as watch:
                for start in packed:
                    cursor.set_range(start)
                    found.append(cursor.value())
        for timestamp, item in zip(wanted, found, strict=True):
            if OFFSET.unpack(item)[0] != sample.first_offset_at(timestamp):
                raise WrongResultError(f"LMDB: wrong offset for time {timestamp}")
        return watch.measured(len(wanted))

    with environment:
        yield one_round


def store_records(directory: Path, sample: Sample) -> None:
    """All records, closed, for measuring what is on disk then."""
    environment, _records = _write_all(directory, sample)
    environment.close()


def write_for_open(directory: Path, sample: Sample, count: int) -> Any:
    """Write `count` records, the sample over and over, 10,000 a transaction; leave it open."""
    environment, records = _open(directory, count * (sample.record_bytes + 64))
    joined = [key + value for key, value in zip(sample.keys, sample.values, strict=True)]
    for start in range(0, count, RECORDS_PER_TRANSACTION):
        offsets = range(start, min(count, start + RECORDS_PER_TRANSACTION))
        items = [(OFFSET.pack(offset), joined[offset % len(joined)]) for offset in offsets]
        with environment.begin(write=True, db=records) as transaction:
            transaction.cursor().putmulti(items, append=True)
    return environment


def open_and_count(directory: Path, space_bytes: int) -> tuple[Any, int]:
    """Open and ask for the number of records."""
    environment, records = _open(directory, space_bytes)
    with environment.begin(db=records) as transaction:
        return environment, transaction.stat(records)["entries"]
