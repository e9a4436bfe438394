"""Rows of CSV and JSON lines files as records to append. A bad row becomes a `BadRow`; reading goes on behind it."""

from __future__ import annotations

import csv
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import BinaryIO, NamedTuple, TypeAlias

from logstore.cli.record_json import NewRecord, new_record_from_json

__all__ = [
    "BadRow",
    "Rows",
    "UnreadableFile",
    "csv_rows",
    "json_rows",
    "record_rows",
    "timestamp_reader",
]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,15})?")
_CELL_BYTES_MAX = 64 << 20


class BadRow(NamedTuple):
    """A row that can't become a record: the line it starts at, and why."""

    line: int
    reason: str


Rows: TypeAlias = Iterator[NewRecord | BadRow]
TimestampReader: TypeAlias = Callable[[str], int]


class UnreadableFile(Exception):
    """The file ends in the middle, is no gzip file, or lacks a column; the message says after which line."""


class _Lines:
    """Lines of a file as text, counted. A line that is no UTF-8 raises, and the next call gives the next line."""

    def __init__(self, file: BinaryIO):
        self._lines = iter(file)
        self.number = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self.next_bytes()
        return line.decode("utf-8-sig" if self.number == 1 else "utf-8")

    def next_bytes(self) -> bytes:
        try:
            line = next(self._lines)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise UnreadableFile(f"after line {self.number}: {error}") from None
        self.number += 1
        return line


def csv_rows(
    file: BinaryIO,
    key: str | None,
    timestamp: str | None,
    read_timestamp: TimestampReader,
    *,
    delimiter: str = ",",
    nulls: frozenset[str] = frozenset({""}),
    as_text: bool = False,
) -> Rows:
    """Each row of a CSV file as a JSON object of its cells, by the names in the first line.

    Cells that are plainly numbers become numbers (``007`` and ``1e5`` do not), unless ``as_text``; those in
    ``nulls`` become null.

    Raises
    ------
    UnreadableFile
    """
    csv.field_size_limit(_CELL_BYTES_MAX)
    lines = _Lines(file)
    reader = csv.reader(lines, strict=True, delimiter=delimiter)
    try:
        columns = next(reader, [])
    except (csv.Error, UnicodeDecodeError) as error:
        raise UnreadableFile(f"line 1: {_why(error)}") from None
    if not columns:
        raise UnreadableFile("line 1: no column names")
    doubles = sorted({name for name in columns if columns.count(name) > 1})
    if doubles:
        raise UnreadableFile(f"line 1: two columns are named {doubles[0]!r}")
    key_at = None if key is None else _column(columns, key)
    timestamp_at = None if timestamp is None else _column(columns, timestamp)

    @lru_cache(100_000)  # cells of a column repeat
    def cell_json(text: str) -> str:
        if text in nulls:
            return "null"
        if not as_text and _NUMBER.fullmatch(text) and text != "-0":
            return text
        return json.dumps(text, ensure_ascii=False)

    names = (json.dumps(name, ensure_ascii=False).replace("%", "%%") for name in columns)
    row_json = ("{" + ",".join(f"{name}:%s" for name in names) + "}").__mod__
    return _csv_records(
        reader,
        lines,
        len(columns),
        key_at,
        timestamp_at,
        read_timestamp,
        nulls,
        cell_json,
        row_json,
    )


def _csv_records(
    reader: Iterator[list[str]],
    lines: _Lines,
    columns_count: int,
    key_at: int | None,
    timestamp_at: int | None,
    read_timestamp: TimestampReader,
    nulls: frozenset[str],
    cell_json: Callable[[str], str],
    row_json: Callable[[tuple[str, ...]], str],
) -> Rows:
    while True:
        line = lines.number + 1
        try:
            cells = next(reader)
            if not cells:  # an empty line
                continue
            if len(cells) != columns_count:
                yield BadRow(line, f"{len(cells)} cells, but the first line has {columns_count} columns")
                continue
            key = None
            if key_at is not None and cells[key_at] not in nulls:
                key = cells[key_at].encode()
            timestamp = None if timestamp_at is None else read_timestamp(cells[timestamp_at])
            yield NewRecord(key, row_json(tuple(map(cell_json, cells))).encode(), timestamp)
        except StopIteration:
            return
        except (csv.Error, ValueError) as error:
            yield BadRow(line, _why(error))


def json_rows(file: BinaryIO, key: str | None, timestamp: str | None, read_timestamp: TimestampReader) -> Rows:
    """Each line of a JSON lines file as it stands; key and timestamp are fields of the object in it.

    Raises
    ------
    UnreadableFile
    """
    lines = _Lines(file)
    while True:
        try:
            text = next(lines).strip()
            if not text:
                continue
            fields = json.loads(text)
            key_bytes, timestamp_ms = None, None
            if key is not None or timestamp is not None:
                if not isinstance(fields, dict):
                    raise ValueError("not an object")
                if key is not None:
                    key_bytes = _json_key(_field(fields, key))
                if timestamp is not None:
                    timestamp_ms = read_timestamp(str(_field(fields, timestamp)))
            yield NewRecord(key_bytes, text.encode(), timestamp_ms)
        except StopIteration:
            return
        except RecursionError:
            yield BadRow(lines.number, "JSON is nested too deep")
        except ValueError as error:
            yield BadRow(lines.number, _why(error))


def record_rows(file: BinaryIO) -> Rows:
    """Lines as ``logstore export`` writes them: records with key, value, headers and timestamp.

    Raises
    ------
    UnreadableFile
    """
    lines = _Lines(file)
    while True:
        try:
            text = next(lines)
            if text.strip():
                yield new_record_from_json(text)
        except StopIteration:
            return
        except ValueError as error:
            yield BadRow(lines.number, _why(error))


def timestamp_reader(format_: str) -> TimestampReader:
    """What reads a timestamp: ``auto`` (ISO 8601 or ms), ``iso``, ``s``, ``ms``, ``us``, ``ns``, or a strptime pattern.

    Times are UTC unless they say otherwise. The function returned raises ValueError.
    """
    if "%" in format_:
        return lru_cache(10_000)(lambda text: _ms_of(datetime.strptime(text.strip(), format_), text))
    if format_ in ("auto", "iso"):
        numbers = format_ == "auto"

        @lru_cache(10_000)
        def read(text: str) -> int:
            if numbers and text.strip().isdecimal():
                return int(text)
            try:
                moment = datetime.fromisoformat(text.strip())
            except ValueError:
                wanted = "ISO 8601 time or milliseconds since 1970" if numbers else "ISO 8601 time"
                raise ValueError(f"timestamp {text!r} is no {wanted}; see --timestamp-format") from None
            return _ms_of(moment, text)

        return read
    numerator, denominator = {"s": (1000, 1), "ms": (1, 1), "us": (1, 1000), "ns": (1, 1_000_000)}[format_]

    def read_number(text: str) -> int:
        whole, _, fraction = text.strip().partition(".")
        if not whole.isdecimal() or (fraction and not fraction.isdecimal()):
            raise ValueError(f"timestamp {text!r} is no number of {format_} since 1970")
        scale: int = 10 ** len(fraction)
        return int(whole + fraction) * numerator // (denominator * scale)

    return read_number


def _ms_of(moment: datetime, text: str) -> int:
    since = ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH) // _MS
    if since < 0:
        raise ValueError(f"timestamp {text!r} is before 1970")
    return since


def _column(columns: list[str], name: str) -> int:
    if name not in columns:
        raise UnreadableFile(f"line 1: no column {name!r}; there are {', '.join(columns)}")
    return columns.index(name)


def _field(fields: dict[str, object], name: str) -> object:
    if name not in fields:
        raise ValueError(f"no field {name!r}; there are {', '.join(fields)}")
    return fields[name]


def _json_key(value: object) -> bytes | None:
    if value is None or isinstance(value, str):
        return None if value is None else value.encode()
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _why(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8: byte 0x{error.object[error.start]:02x} at column {error.start + 1}"
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg} at column {error.colno}"
    return str(error)
