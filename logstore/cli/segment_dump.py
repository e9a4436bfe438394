"""What ``logstore segment dump`` prints of one file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from logstore.cli.consume import printable
from logstore.cli.index_files import (
    read_leader_epochs,
    read_offset_index,
    read_time_index,
)
from logstore.cli.invocation import InputError
from logstore.cli.output import format_time
from logstore.cli.record_json import json_from_record
from logstore.errors import LogstoreError
from logstore.records.codecs import CODEC_NAMES
from logstore.storage.batch_walk import Damage, LogFile, PlacedBatch
from logstore.storage.layout import LEADER_EPOCH_FILE, segment_offset

__all__ = ["Line", "damage_json", "damage_text", "dump"]

Line = tuple[str, dict[str, Any]]
"""A line for people, and the same for machines."""


def dump(path: str, show_records: bool) -> Iterator[Line]:
    """The lines of a ``.log``, ``.index``, ``.timeindex`` or ``leader-epoch-checkpoint`` file.

    Raises
    ------
    InputError
        A file of another kind.
    StorageFailureError, CorruptDataError
    """
    name = os.path.basename(path)
    if name.endswith(".log"):
        return _log_lines(path, show_records)
    if name.endswith(".index"):
        return _offset_index_lines(path)
    if name.endswith(".timeindex"):
        return _time_index_lines(path)
    if name == LEADER_EPOCH_FILE:
        return _leader_epoch_lines(path)
    raise InputError(f"{path} is no .log, .index, .timeindex or {LEADER_EPOCH_FILE} file")


def _log_lines(path: str, show_records: bool) -> Iterator[Line]:
    yield (
        f"{'position':>10}  {'offsets':<21}  {'records':>7}  {'bytes':>8}  {'codec':<6}  "
        f"{'first time':<23}  {'last time':<23}  {'epoch':>5}  {'crc':<8}  flags",
        {},
    )
    with LogFile(path) as file:
        for found in file.walk():
            if isinstance(found, Damage):
                yield (
                    f"{found.position:>10}  DAMAGED: {damage_text(found)}",
                    {"damage": damage_json(found)},
                )
                continue
            yield _batch_text(found), _batch_json(found)
            if show_records:
                yield from _record_lines(found, path)


def _record_lines(placed: PlacedBatch, path: str) -> Iterator[Line]:
    try:
        for record in placed.batch:
            headers = "".join(f"  {printable(name.encode('utf-8', 'surrogateescape'))}={printable(value)}"
                              for name, value in record.headers)  # fmt: skip
            fields = json_from_record(record)
            del fields["partition"]  # a file alone does not tell
            yield (
                f"{'':>10}  {record.offset:<10}  {format_time(record.timestamp)}  {printable(record.key)}  "
                f"{printable(record.value)}{headers}",
                {"record": fields},
            )
    except LogstoreError as error:
        batch = placed.batch
        damage = Damage(
            path, placed.position, placed.position + batch.size_bytes, batch.base_offset, batch.last_offset + 1,
            " ".join(str(getattr(error, "reason", error)).split()),
        )  # fmt: skip
        yield f"{'':>10}  DAMAGED: {damage_text(damage)}", {"damage": damage_json(damage)}


def _codec(codec: int) -> str:
    return CODEC_NAMES[codec] if codec < len(CODEC_NAMES) else str(codec)


def _batch_text(placed: PlacedBatch) -> str:
    batch = placed.batch
    flags = []
    if batch.timestamp_type == "LogAppendTime":
        flags.append("append-time")
    if batch.is_control:
        flags.append("control")
    if batch.is_transactional:
        flags.append("transactional")
    if batch.has_delete_horizon:
        flags.append("delete-horizon")
    if batch.producer_id >= 0:
        flags.append(f"producer={batch.producer_id}/{batch.producer_epoch} sequence={batch.base_sequence}")
    offsets = f"{batch.base_offset} to {batch.last_offset}"
    return (
        f"{placed.position:>10}  {offsets:<21}  {batch.records_count:>7}  {batch.size_bytes:>8}  "
        f"{_codec(batch.codec):<6}  {format_time(batch.base_timestamp):<23}  {format_time(batch.max_timestamp):<23}  "
        f"{batch.partition_leader_epoch:>5}  {batch.crc:08x}  {' '.join(flags)}"
    ).rstrip()


def _batch_json(placed: PlacedBatch) -> dict[str, Any]:
    batch = placed.batch
    return {
        "position": placed.position,
        "base_offset": batch.base_offset,
        "last_offset": batch.last_offset,
        "records": batch.records_count,
        "size_bytes": batch.size_bytes,
        "codec": _codec(batch.codec),
        "base_timestamp": batch.base_timestamp,
        "max_timestamp": batch.max_timestamp,
        "timestamp_type": batch.timestamp_type,
        "partition_leader_epoch": batch.partition_leader_epoch,
        "producer_id": batch.producer_id,
        "producer_epoch": batch.producer_epoch,
        "base_sequence": batch.base_sequence,
        "control": batch.is_control,
        "transactional": batch.is_transactional,
        "delete_horizon": batch.has_delete_horizon,
        "magic": batch.magic,
        "crc": batch.crc,
    }


def damage_text(damage: Damage) -> str:
    """The range and what is wrong with it."""
    if damage.end_offset is None:
        offsets = f"offsets {damage.first_offset} and on"
    elif damage.end_offset == damage.first_offset:
        offsets = f"no offset missing before {damage.first_offset}"
    else:
        offsets = f"offsets {damage.first_offset} to {damage.end_offset - 1}"
    found = ""
    if damage.expected is not None or damage.actual is not None:
        # A CRC is written as eight hex digits, as in the line of its batch.
        form = "{:08x}".format if damage.reason.startswith("CRC") else str
        found = f" (expected {form(damage.expected)}, found {form(damage.actual)})"
    torn = "; an unfinished write, cut when the log is next opened for writing" if damage.torn else ""
    return f"{offsets}, bytes {damage.position} to {damage.end_position - 1}: {damage.reason}{found}{torn}"


def damage_json(damage: Damage) -> dict[str, Any]:
    """The same for machines; ends are exclusive."""
    return {
        "position": damage.position,
        "end_position": damage.end_position,
        "first_offset": damage.first_offset,
        "end_offset": damage.end_offset,
        "reason": damage.reason,
        "expected": damage.expected,
        "actual": damage.actual,
        "torn_tail": damage.torn,
    }


def _base_offset(path: str) -> int:
    """Of the segment that an index belongs to; 0 where the file has another name."""
    stem = os.path.basename(path).split(".")[0]
    return segment_offset(f"{stem}.log") or 0


def _offset_index_lines(path: str) -> Iterator[Line]:
    index, base = read_offset_index(path), _base_offset(path)
    yield f"{'entry':>8}  {'offset':>20}  {'position':>10}", {}
    for number, (relative, position) in enumerate(index.entries):
        offset = base + relative
        yield (
            f"{number:>8}  {offset:>20}  {position:>10}",
            {"entry": number, "offset": offset, "position": position},
        )
    yield from _index_end(index.padding, index.fault)


def _time_index_lines(path: str) -> Iterator[Line]:
    index, base = read_time_index(path), _base_offset(path)
    yield f"{'entry':>8}  {'time':<23}  {'timestamp':>14}  {'offset':>20}", {}
    for number, (timestamp, relative) in enumerate(index.entries):
        offset = base + relative
        yield (
            f"{number:>8}  {format_time(timestamp):<23}  {timestamp:>14}  {offset:>20}",
            {"entry": number, "timestamp": timestamp, "offset": offset},
        )
    yield from _index_end(index.padding, index.fault)


def _index_end(padding: int, fault: str) -> Iterator[Line]:
    if padding:
        yield (
            f"{'':>8}  {padding} entries of zeros, as Kafka preallocates them",
            {"padding_entries": padding},
        )
    if fault:
        yield f"{'':>8}  DAMAGED: {fault}", {"damage": {"reason": fault}}


def _leader_epoch_lines(path: str) -> Iterator[Line]:
    yield f"{'epoch':>8}  {'start offset':>20}", {}
    for epoch, start in read_leader_epochs(path):
        yield f"{epoch:>8}  {start:>20}", {"epoch": epoch, "start_offset": start}
