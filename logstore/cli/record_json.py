"""Records as JSON: text where a key or value is UTF-8, ``{"base64": ...}`` where it is not, null where it is null."""

from __future__ import annotations

import base64
import binascii
import json
from json.encoder import encode_basestring as quoted
from typing import TYPE_CHECKING, Any, NamedTuple

from logstore.cli.output import json_line

if TYPE_CHECKING:
    import logstore

__all__ = ["NewRecord", "json_from_bytes", "json_from_record", "new_record_from_json", "record_line"]


class NewRecord(NamedTuple):
    """A record to append."""

    key: bytes | None
    value: bytes | None
    timestamp: int | None
    headers: tuple[tuple[str, bytes | None], ...] = ()


def json_from_bytes(data: bytes | None) -> str | dict[str, str] | None:
    """What stands for a key or value in JSON."""
    if data is None:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def json_from_record(record: logstore.Record) -> dict[str, Any]:
    """A record with all it has."""
    return {
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp,
        "key": json_from_bytes(record.key),
        "value": json_from_bytes(record.value),
        "headers": [[name, json_from_bytes(value)] for name, value in record.headers],
    }


def record_line(record: logstore.Record) -> bytes:
    """`json_from_record` as a line: the same bytes as of an encoder, in a third of its time."""
    try:
        return (
            f'{{"partition":{record.partition},"offset":{record.offset},"timestamp":{record.timestamp},'
            f'"key":{_text_json(record.key)},"value":{_text_json(record.value)},'
            f'"headers":{_headers_json(record.headers)}}}\n'
        ).encode()
    except UnicodeEncodeError:  # a header's name that is no UTF-8
        return json_line(json_from_record(record))


def _text_json(data: bytes | None) -> str:
    if data is None:
        return "null"
    try:
        return quoted(data.decode())
    except UnicodeDecodeError:
        return f'{{"base64":"{base64.b64encode(data).decode()}"}}'


def _headers_json(headers: list[tuple[str, bytes | None]]) -> str:
    if not headers:
        return "[]"
    return "[" + ",".join(f"[{quoted(name)},{_text_json(value)}]" for name, value in headers) + "]"


_FIELDS = frozenset({"topic", "partition", "offset", "timestamp", "key", "value", "headers"})


def new_record_from_json(line: bytes | str) -> NewRecord:
    """A record from a line of JSON, as `json_from_record` makes it; all but ``value`` may be missing.

    ``topic``, ``partition`` and ``offset`` are allowed, so that what was exported can be appended again, and ignored.
    ``headers`` may also be an object.

    Raises
    ------
    ValueError
        The message says what is wrong, without the place.
    """
    try:
        fields = json.loads(line)
    except RecursionError:
        raise ValueError("JSON is nested too deep") from None
    if not isinstance(fields, dict):
        raise ValueError('not an object such as {"key": "k", "value": "v"}')
    unknown = sorted(fields.keys() - _FIELDS)
    if unknown:
        raise ValueError(f"unknown field {unknown[0]!r}; fields are key, value, headers, timestamp")
    if "value" not in fields:
        raise ValueError('no field "value" (null is a tombstone)')
    timestamp = fields.get("timestamp")
    if timestamp is not None and (
        not isinstance(timestamp, int) or isinstance(timestamp, bool) or not -1 <= timestamp < 2**63
    ):
        raise ValueError(f"timestamp must be milliseconds since 1970, not {timestamp!r}")
    return NewRecord(
        _bytes_from(fields.get("key"), "key"),
        _bytes_from(fields["value"], "value"),
        timestamp,
        _headers_from(fields.get("headers")),
    )


def _bytes_from(value: Any, what: str) -> bytes | None:
    if value is None:
        return None
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{what} has half of a surrogate pair, which UTF-8 can't hold") from None
    if isinstance(value, dict) and list(value) == ["base64"] and isinstance(value["base64"], str):
        try:
            return base64.b64decode(value["base64"], validate=True)
        except binascii.Error as error:
            raise ValueError(f"{what} is no base64: {error}") from None
    raise ValueError(f'{what} must be a text, {{"base64": "..."}} or null, not {value!r:.60}')


def _headers_from(value: Any) -> tuple[tuple[str, bytes | None], ...]:
    if value is None:
        return ()
    pairs = list(value.items()) if isinstance(value, dict) else value
    if isinstance(pairs, list) and all(
        isinstance(pair, (list, tuple)) and len(pair) == 2 and isinstance(pair[0], str) for pair in pairs
    ):
        return tuple((name, _bytes_from(content, f"header {name!r}")) for name, content in pairs)
    raise ValueError("headers must be a list of [name, value] or an object")
