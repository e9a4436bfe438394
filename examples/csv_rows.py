"""From a CSV file to rows ready to append: a timestamp, a key, and the row as JSON."""

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")
DECIMAL = re.compile(r"-?(0|[1-9][0-9]{0,8})\.[0-9]{1,6}")
encode_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


class InputError(Exception):
    """The file is not what it should be; the message says where."""


class Row(NamedTuple):
    timestamp: int
    key: bytes | None
    value: bytes


@lru_cache(100_000)  # the cells of a column repeat
def json_value(text: str) -> str | int | float | None:
    """Numbers as numbers, missing values as null, all else as text ("007" stays text)."""
    if INTEGER.fullmatch(text):
        return int(text)
    if DECIMAL.fullmatch(text):
        return float(text)
    return None if text in ("", "NA") else text


def milliseconds(text: str) -> int:
    """Read an ISO 8601 time (UTC unless it says otherwise) or milliseconds since 1970."""
    try:
        if text.isdecimal():
            moment = EPOCH + timedelta(milliseconds=int(text))
        else:
            moment = datetime.fromisoformat(text)
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        since = (moment - EPOCH) // timedelta(milliseconds=1)
    except (ValueError, OverflowError):
        since = -1
    if since < 0:
        raise InputError(f"{text!r} is no ISO 8601 time, nor milliseconds, since 1970")
    return since


def read_rows(
    path: Path, key_column: str, timestamp_column: str | None, show: Callable[[int], None]
) -> list[Row]:
    """Read all rows, in the order of their timestamps; `show` is told the bytes read so far."""
    # The flights have no column for the minute they should leave: it is time_hour + minute.
    time_column = timestamp_column or "time_hour"
    needed = [key_column, time_column] if timestamp_column else [key_column, time_column, "minute"]
    rows = []
    with path.open("rb") as file:
        unpacked = gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file
        reader = csv.DictReader(io.TextIOWrapper(unpacked, "utf-8-sig", newline=""), strict=True)
        try:
            columns = list(reader.fieldnames or [])
            for name in needed:
                if name not in columns:
                    known = ", ".join(columns) or "nothing"
                    raise InputError(
                        f"no column {name!r}; choose with --key and --timestamp from {known}"
                    )
            for row in reader:
                if None in row or None in row.values():
                    raise InputError(f"expected {len(columns)} columns, as in the first line")
                timestamp = milliseconds(row[time_column])
                if timestamp_column is None:
                    timestamp += int(row["minute"]) * 60_000
                record = {name: json_value(text) for name, text in row.items()}
                key = None if record[key_column] is None else row[key_column].encode()
                rows.append(Row(timestamp, key, encode_json(record).encode()))
                if len(rows) % 1000 == 0:
                    show(file.tell())
        except (UnicodeError, EOFError, OSError, zlib.error) as error:  # found while reading ahead
            raise InputError(f"{path}, after line {reader.line_num}: {error}") from error
        except (InputError, ValueError, csv.Error) as error:
            raise InputError(f"{path}, line {max(reader.line_num, 1)}: {error}") from error
    if not rows:
        raise InputError(f"{path}: no rows below the first line")
    rows.sort(key=lambda row: row.timestamp)
    return rows
