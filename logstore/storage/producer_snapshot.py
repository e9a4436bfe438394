"""``<offset>.snapshot``: the producers of a log as they stood at an offset, in Kafka's format (log-format, 10.4)."""

from __future__ import annotations

import contextlib
import os
import re
import struct
from collections.abc import Iterable

from logstore._native.checksum import crc32c
from logstore.errors import CorruptDataError
from logstore.storage import layout
from logstore.storage.files import refusals, sync_directory, write_at
from logstore.storage.producer_state import Producer, ProducerBatch

__all__ = [
    "decode_snapshot",
    "encode_snapshot",
    "list_snapshots",
    "read_snapshot",
    "remove_snapshots",
    "snapshot_offsets",
    "snapshot_path",
    "write_snapshot",
]

VERSION = 1
_VERSION_AND_CRC = struct.Struct(">hI")
_COUNT = struct.Struct(">i")
_ENTRY = struct.Struct(">qhiqiqiq")
_NAME = re.compile(r"([0-9]{20})\.snapshot")


def encode_snapshot(producers: Iterable[Producer]) -> bytes:
    """The bytes of a snapshot file."""
    entries = []
    for producer in producers:
        last = producer.batches[-1] if producer.batches else ProducerBatch(-1, -1, 0, -1)
        entries.append(
            _ENTRY.pack(
                producer.producer_id, producer.epoch, last.last_sequence, last.last_offset, last.offset_delta,
                producer.last_timestamp, producer.coordinator_epoch, producer.transaction_offset,
            )
        )
    body = _COUNT.pack(len(entries)) + b"".join(entries)
    return _VERSION_AND_CRC.pack(VERSION, crc32c(body)) + body


def decode_snapshot(data: bytes, path: str = "<memory>") -> list[Producer]:
    """The producers in a snapshot; of each the last batch alone is known.

    Raises
    ------
    CorruptDataError
        Another version, a wrong size, CRC, or number. It can be removed: the log says the same.
    """
    advice = "It can be removed: an older one and the log say the same."
    head = _VERSION_AND_CRC.size + _COUNT.size
    if len(data) < head:
        raise CorruptDataError(path, 0, "producer snapshot is cut off", head, len(data), advice)
    version, crc = _VERSION_AND_CRC.unpack_from(data)
    if version != VERSION:
        raise CorruptDataError(path, 0, "producer snapshot's version", VERSION, version, advice)
    actual = crc32c(data[_VERSION_AND_CRC.size :])
    if actual != crc:
        raise CorruptDataError(path, 2, "producer snapshot's CRC does not match", crc, actual, advice)
    (count,) = _COUNT.unpack_from(data, _VERSION_AND_CRC.size)
    if count < 0 or len(data) != head + count * _ENTRY.size:
        raise CorruptDataError(path, _VERSION_AND_CRC.size, "producer snapshot's size", head + count * _ENTRY.size,
                               len(data), advice)
    producers = []
    for fields in _ENTRY.iter_unpack(data[head:]):
        producer_id, epoch, last_sequence, last_offset, delta, timestamp, coordinator_epoch, transaction_offset = fields
        if producer_id < 0 or delta < 0 or transaction_offset < -1:
            raise CorruptDataError(path, head, "producer snapshot holds an impossible producer", None, producer_id, advice)
        batches = (ProducerBatch(last_sequence, last_offset, delta, timestamp),) if last_offset >= 0 else ()
        producers.append(Producer(producer_id, epoch, coordinator_epoch, timestamp, transaction_offset, batches))
    return producers


def snapshot_path(directory: str, offset: int) -> str:
    return os.path.join(directory, layout.segment_file_name(offset, ".snapshot"))


def list_snapshots(directory: str) -> list[int]:
    """Offsets of the snapshots in a directory, ascending."""
    with refusals(directory, "list"):
        return snapshot_offsets(os.listdir(directory))


def snapshot_offsets(names: Iterable[str]) -> list[int]:
    """Offsets of the snapshots among the files of a directory, ascending."""
    return sorted(int(match.group(1)) for name in names if (match := _NAME.fullmatch(name)))


def read_snapshot(directory: str, offset: int) -> list[Producer]:
    """The producers of one snapshot.

    Raises
    ------
    CorruptDataError, StorageFailureError
    """
    path = snapshot_path(directory, offset)
    with refusals(path, "read"):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | getattr(os, "O_NOFOLLOW", 0))
        with open(descriptor, "rb") as file:
            return decode_snapshot(file.read(), path)


def write_snapshot(directory: str, offset: int, content: bytes, *, sync: bool = False) -> None:
    """Writes a snapshot. Unsynced it may be lost or torn by a power cut, which costs a longer replay and nothing else.

    Raises
    ------
    StorageFailureError
    """
    write_at(snapshot_path(directory, offset), 0, content, size=len(content), sync=sync)
    if sync:
        sync_directory(directory)


def remove_snapshots(directory: str, offsets: Iterable[int], *, sync: bool = False) -> None:
    """Removes snapshots; those that are gone are fine.

    Raises
    ------
    StorageFailureError
    """
    removed = False
    with refusals(directory, "remove producer snapshots"):
        for offset in offsets:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(snapshot_path(directory, offset))
                removed = True
    if removed and sync:
        sync_directory(directory)
