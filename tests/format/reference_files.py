"""A small, slow codec of the files beside a segment: indexes, checkpoints, partition.metadata.

The companion of `reference_codec`, and as independent of the library.
"""

from __future__ import annotations

import base64
import re
import struct
from typing import TYPE_CHECKING, NamedTuple

from reference_codec import INT32_MAX, INT64_MAX, FormatError, Header, crc32c

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# --- indexes ----------------------------------------------------------------------------------


class OffsetEntry(NamedTuple):
    offset: int
    position: int


class TimeEntry(NamedTuple):
    timestamp: int
    offset: int


def encode_offset_index(entries: Iterable[OffsetEntry], base_offset: int) -> bytes:
    return b"".join(struct.pack(">ii", offset - base_offset, at) for offset, at in entries)


def decode_offset_index(data: bytes, base_offset: int, log_bytes: int) -> list[OffsetEntry]:
    if len(data) % 8:
        raise FormatError("size is no multiple of 8")
    entries = []
    previous = OffsetEntry(base_offset - 1, -1)
    for relative, position in struct.iter_unpack(">ii", data):
        entry = OffsetEntry(base_offset + relative, position)
        if entry.offset <= previous.offset or not previous.position < position < log_bytes:
            raise FormatError(f"{entry} after {previous}")
        entries.append(entry)
        previous = entry
    return entries


def encode_time_index(entries: Iterable[TimeEntry], base_offset: int) -> bytes:
    return b"".join(struct.pack(">qi", time, offset - base_offset) for time, offset in entries)


def decode_time_index(data: bytes, base_offset: int, end_offset: int) -> list[TimeEntry]:
    if len(data) % 12:
        raise FormatError("size is no multiple of 12")
    entries = []
    previous = TimeEntry(-1, base_offset)
    for timestamp, relative in struct.iter_unpack(">qi", data):
        entry = TimeEntry(timestamp, base_offset + relative)
        if timestamp <= previous.timestamp or not previous.offset <= entry.offset < end_offset:
            raise FormatError(f"{entry} after {previous}")
        entries.append(entry)
        previous = entry
    return entries


def derive_indexes(
    batches: Iterable[tuple[int, Header]], base_offset: int, interval_bytes: int
) -> tuple[list[OffsetEntry], list[TimeEntry]]:
    """Derive the indexes of a closed segment from (position, header) of its batches."""
    offsets: list[OffsetEntry] = []
    times: list[TimeEntry] = []
    largest = TimeEntry(-1, base_offset)
    since_last_entry = 0
    for position, header in batches:
        if header.max_timestamp > largest.timestamp:
            largest = TimeEntry(header.max_timestamp, header.last_offset)
        if since_last_entry > interval_bytes:
            offsets.append(OffsetEntry(header.last_offset, position))
            add_time_entry(times, largest)
            since_last_entry = 0
        since_last_entry += header.size_bytes
    add_time_entry(times, largest)
    return offsets, times


def add_time_entry(entries: list[TimeEntry], entry: TimeEntry) -> None:
    """Append only what says something new."""
    if entry.timestamp > (entries[-1].timestamp if entries else -1):
        entries.append(entry)


def find_offset(entries: Sequence[OffsetEntry], base_offset: int, target: int) -> OffsetEntry:
    """Where a scan for `target` may start."""
    found = OffsetEntry(base_offset, 0)
    for entry in entries:
        if entry.offset <= target:
            found = entry
    return found


def find_timestamp(entries: Sequence[TimeEntry], base_offset: int, target: int) -> TimeEntry:
    """The largest entry whose timestamp is at most `target`."""
    found = TimeEntry(-1, base_offset)
    for entry in entries:
        if entry.timestamp <= target:
            found = entry
    return found


# --- producers --------------------------------------------------------------------------------


def decode_producer_snapshot(data: bytes) -> list[tuple[int, ...]]:
    """Entries as they stand: producer id, epoch, last sequence, last offset, offset delta, timestamp, .."""
    if len(data) < 10 or (len(data) - 10) % 46:
        raise FormatError("size is not 10 and a multiple of 46")
    version, crc, count = struct.unpack_from(">hIi", data)
    if version != 1 or crc != crc32c(data[6:]) or count != (len(data) - 10) // 46:
        raise FormatError(f"version {version}, CRC {crc:#x}, {count} entries")
    return list(struct.iter_unpack(">qhiqiqiq", data[10:]))


def decode_transaction_index(data: bytes, base_offset: int) -> list[tuple[int, ...]]:
    """Producer id, first offset, last offset, last stable offset of each aborted transaction."""
    if len(data) % 34:
        raise FormatError("size is no multiple of 34")
    entries = []
    least = base_offset
    for version, *entry in struct.iter_unpack(">hqqqq", data):
        if version != 0 or entry[2] < least or not 0 <= entry[1] < entry[2]:
            raise FormatError(f"version {version}, {entry} where {least} is the least")
        entries.append(tuple(entry))
        least = entry[2] + 1
    return entries


# --- text files -------------------------------------------------------------------------------


def _encode_checkpoint(rows: Sequence[Sequence[object]]) -> bytes:
    lines = ["0", str(len(rows)), *(" ".join(map(str, row)) for row in rows)]
    return "".join(f"{line}\n" for line in lines).encode()


def _decode_checkpoint(data: bytes, fields: int) -> list[list[str]]:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise FormatError("not UTF-8") from error
    lines = text.split("\n")
    if lines[-1] == "":  # a last line need not end, but it usually does
        lines.pop()
    if not lines:
        return []
    if _number(lines[0], 0, INT32_MAX) != 0:
        raise FormatError(f"version {lines[0]}")
    if len(lines) == 1:
        return []
    rows = [line.split() for line in lines[2:]]
    if _number(lines[1], 0, INT32_MAX) != len(rows):
        raise FormatError(f"{lines[1]} entries announced, {len(rows)} there")
    if any(len(row) != fields for row in rows):
        raise FormatError(f"a line without {fields} fields")
    return rows


def _number(text: str, lowest: int, highest: int) -> int:
    if not re.fullmatch(r"[0-9]{1,19}", text, re.ASCII) or not lowest <= int(text) <= highest:
        raise FormatError(f"{text!r} is no number from {lowest} to {highest}")
    return int(text)


def encode_offset_checkpoint(offsets: dict[tuple[str, int], int]) -> bytes:
    """recovery-point-offset-checkpoint and its siblings: (topic, partition) -> offset."""
    return _encode_checkpoint([(*partition, offset) for partition, offset in offsets.items()])


def decode_offset_checkpoint(data: bytes) -> dict[tuple[str, int], int]:
    offsets: dict[tuple[str, int], int] = {}
    for topic, partition, offset in _decode_checkpoint(data, 3):
        name = (topic, _number(partition, 0, INT32_MAX))
        if name in offsets:
            raise FormatError(f"{name} is there twice")
        offsets[name] = _number(offset, 0, INT64_MAX)
    return offsets


def encode_leader_epochs(epochs: Sequence[tuple[int, int]]) -> bytes:
    """leader-epoch-checkpoint: (epoch, start offset), both rising."""
    return _encode_checkpoint(epochs)


def decode_leader_epochs(data: bytes) -> list[tuple[int, int]]:
    epochs: list[tuple[int, int]] = []
    for epoch, start in _decode_checkpoint(data, 2):
        entry = (_number(epoch, 0, INT32_MAX), _number(start, 0, INT64_MAX))
        if epochs and not (epochs[-1][0] < entry[0] and epochs[-1][1] < entry[1]):
            raise FormatError(f"{entry} after {epochs[-1]}")
        epochs.append(entry)
    return epochs


def encode_partition_metadata(topic_id: bytes) -> bytes:
    text = base64.urlsafe_b64encode(topic_id).rstrip(b"=").decode()
    return f"version: 0\ntopic_id: {text}".encode()


def decode_partition_metadata(data: bytes) -> bytes:
    """Return the 16 bytes of the topic's id."""
    match = re.fullmatch(rb"version: ([0-9]+)\ntopic_id: ([A-Za-z0-9_-]{22})\n?", data)
    if match is None:
        raise FormatError("not the two lines of a partition.metadata file")
    topic_id = base64.urlsafe_b64decode(match[2] + b"==")
    if not any(topic_id):
        raise FormatError("the topic id is zero")
    return topic_id
