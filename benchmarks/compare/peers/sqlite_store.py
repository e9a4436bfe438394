"""SQLite in WAL mode: a table by offset."""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.compare.measure import Measured, Place, Stopwatch
from benchmarks.sample import WrongResultError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from benchmarks.sample import Sample

INSERT = "INSERT INTO records (offset, key, value) VALUES (?, ?, ?)"
SELECT_ALL = "SELECT key, value FROM records ORDER BY offset"
RECORDS_PER_TRANSACTION = 10_000


def _open(directory: Path, *, synchronous: str = "OFF") -> sqlite3.Connection:
    connection = sqlite3.connect(directory / "records.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    connection.execute("PRAGMA cache_size = -65536")
    connection.execute("CREATE TABLE IF NOT EXISTS records (offset INTEGER PRIMARY KEY, key BLOB, value BLOB)")
    return connection


def _rows(sample: Sample) -> Iterable[tuple[int, bytes, bytes]]:
    return zip(range(len(sample)), sample.keys, sample.values, strict=True)


def _check(connection: sqlite3.Connection, sample: Sample) -> None:
    sample.check(connection.execute(SELECT_ALL), source="SQLite")


@contextmanager
def append_buffered(place: Place) -> Iterator[Callable[[], Measured]]:
    """One execute a record in one transaction, synchronous=OFF."""
    sample = place.sample

    def one_round() -> Measured:
        with closing(_open(place.fresh())) as connection:
            execute = connection.execute
            with Stopwatch() as watch:
                execute("BEGIN")
                for row in _rows(sample):
                    execute(INSERT, row)
                execute("COMMIT")
            _check(connection, sample)
        return watch.measured(len(sample))

    yield one_round


@contextmanager
def append_many(place: Place) -> Iterator[Callable[[], Measured]]:
    """Everything through one prepared executemany in one transaction, synchronous=OFF."""
    sample = place.sample

    def one_round() -> Measured:
        with closing(_open(place.fresh())) as connection:
            with Stopwatch() as watch:
                connection.execute("BEGIN")
                connection.executemany(INSERT, _rows(sample))
                connection.execute("COMMIT")
            _check(connection, sample)
        return watch.measured(len(sample))

    yield one_round


@contextmanager
def append_appended(place: Place) -> Iterator[Callable[[], Measured]]:
    """One transaction a record, synchronous=OFF: in the page cache when it returns."""
    yield _transaction_each(place, synchronous="OFF")


def append_flushed(records_per_batch: int) -> Callable[[Place], Any]:
    """One transaction after the other, of so many records each, synchronous=FULL."""

    @contextmanager
    def start(place: Place) -> Iterator[Callable[[], Measured]]:
        if records_per_batch == 1:
            yield _transaction_each(place, synchronous="FULL")
        else:
            yield _transactions(place, records_per_batch)

    return start


def _transactions(place: Place, records_per_batch: int) -> Callable[[], Measured]:
    sample = place.sample
    rows = list(_rows(sample))
    parts = [rows[at : at + records_per_batch] for at in range(0, len(rows), records_per_batch)]

    def one_round() -> Measured:
        with closing(_open(place.fresh(), synchronous="FULL")) as connection:
            with Stopwatch() as watch:
                for part in parts:
                    connection.execute("BEGIN")
                    connection.executemany(INSERT, part)
                    connection.execute("COMMIT")
            _check(connection, sample)
        return watch.measured(len(sample))

    return one_round


def _transaction_each(place: Place, *, synchronous: str) -> Callable[[], Measured]:
    sample = place.sample

    def one_round() -> Measured:
        with closing(_open(place.fresh(), synchronous=synchronous)) as connection:
            execute = connection.execute
            with Stopwatch() as watch:
                for row in _rows(sample):
                    execute(INSERT, row)  # no transaction is open: each commits by itself
            _check(connection, sample)
        return watch.measured(len(sample))

    return one_round


def _write_all(directory: Path, sample: Sample) -> sqlite3.Connection:
    connection = _open(directory)
    connection.execute("BEGIN")
    connection.executemany(INSERT, _rows(sample))
    connection.execute("COMMIT")
    return connection


@contextmanager
def iterate(place: Place) -> Iterator[Callable[[], Measured]]:
    """One SELECT of key and value by offset; each row is a tuple of both."""
    sample = place.sample

    def one_round() -> Measured:
        count = 0
        with Stopwatch() as watch:
            for _row in connection.execute(SELECT_ALL):
                count += 1
        if count != len(sample):
            raise WrongResultError(f"SQLite: {count} records of {len(sample)}")
        return watch.measured(count)

    with closing(_write_all(place.kept, sample)) as connection:
        _check(connection, sample)
        yield one_round


@contextmanager
def look_up_offset(place: Place) -> Iterator[Callable[[], Measured]]:
    """One SELECT by primary key a random offset."""
    sample = place.sample
    wanted = sample.some_offsets()

    def one_round() -> Measured:
        execute = connection.execute
        query = "SELECT key, value FROM records WHERE offset = ?"
        with Stopwatch() as watch:
            found = [execute(query, (offset,)).fetchone() for offset in wanted]
        for offset, row in zip(wanted, found, strict=True):
            if row != (sample.keys[offset], sample.values[offset]):
                raise WrongResultError(f"SQLite: offset {offset} holds another record")
        return watch.measured(len(wanted))

    with closing(_write_all(place.kept, sample)) as connection:
        yield one_round


@contextmanager
def look_up_time(place: Place) -> Iterator[Callable[[], Measured]]:
    """A second table indexed by time; the first row at or after each time."""
    sample = place.sample
    wanted = sample.some_timestamps()

    def one_round() -> Measured:
        execute = connection.execute
        query = "SELECT offset FROM times WHERE timestamp >= ? ORDER BY timestamp, offset LIMIT 1"
        with Stopwatch() as watch:
            found = [execute(query, (timestamp,)).fetchone() for timestamp in wanted]
        for timestamp, row in zip(wanted, found, strict=True):
            if row != (sample.first_offset_at(timestamp),):
                raise WrongResultError(f"SQLite: wrong offset for time {timestamp}")
        return watch.measured(len(wanted))

    with closing(_open(place.kept)) as connection:
        connection.execute(
            "CREATE TABLE times (timestamp INTEGER, offset INTEGER, PRIMARY KEY (timestamp, offset)) WITHOUT ROWID"
        )
        connection.execute("BEGIN")
        connection.executemany(
            "INSERT INTO times VALUES (?, ?)",
            zip(sample.timestamps, range(len(sample)), strict=True),
        )
        connection.execute("COMMIT")
        yield one_round


def store_records(directory: Path, sample: Sample) -> None:
    """All records, closed, for measuring what is on disk then."""
    _write_all(directory, sample).close()


def write_for_open(directory: Path, sample: Sample, count: int) -> sqlite3.Connection:
    """Write `count` records, the sample over and over, 10,000 a transaction; leave it open."""
    connection = _open(directory)
    length = len(sample)
    for start in range(0, count, RECORDS_PER_TRANSACTION):
        offsets = range(start, min(count, start + RECORDS_PER_TRANSACTION))
        connection.execute("BEGIN")
        connection.executemany(
            INSERT,
            ((offset, sample.keys[offset % length], sample.values[offset % length]) for offset in offsets),
        )
        connection.execute("COMMIT")
    return connection


def open_and_count(directory: Path, _space_bytes: int) -> tuple[sqlite3.Connection, int]:
    """Open and ask for the last offset."""
    connection = sqlite3.connect(directory / "records.db", isolation_level=None)
    return connection, connection.execute("SELECT max(offset) + 1 FROM records").fetchone()[0]
