"""A small, slow codec of record batches: the oracle of the format tests.

It shares nothing with the library: plain Python, one function a rule, in the order in which
``docs/format`` states the rules. Nothing here is fast, and nothing is clever. Anything that breaks
a rule is a `FormatError`. The other files of a log are in `reference_files`.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

HEADER_BYTES = 61
LENGTH_OVERHEAD_BYTES = 12
CRC_START = 21
HEADER = struct.Struct(">qiibIhiqqqhii")
assert HEADER.size == HEADER_BYTES

CODEC_MASK = 0x07
LOG_APPEND_TIME = 0x08
TRANSACTIONAL = 0x10
CONTROL = 0x20
DELETE_HORIZON = 0x40

INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1

CONTROL_TYPES = (
    "ABORT",
    "COMMIT",
    "LEADER_CHANGE",
    "SNAPSHOT_HEADER",
    "SNAPSHOT_FOOTER",
    "KRAFT_VERSION",
    "KRAFT_VOTERS",
)

Transform = Callable[[bytes], bytes]


class FormatError(ValueError):
    """The bytes break a rule of the format."""


# --- CRC-32C ----------------------------------------------------------------------------------


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_CRC_TABLE = _crc_table()


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli), a byte at a time."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


# --- varints ----------------------------------------------------------------------------------


def encode_varint(value: int) -> bytes:
    """Zigzag, then groups of seven bits, lowest first. Serves 32 and 64 bits."""
    unsigned = 2 * value if value >= 0 else -2 * value - 1
    out = bytearray()
    while unsigned > 0x7F:
        out.append(unsigned & 0x7F | 0x80)
        unsigned >>= 7
    out.append(unsigned)
    return bytes(out)


class Reader:
    """A cursor that never runs past its end."""

    def __init__(self, data: bytes, position: int = 0, end: int | None = None) -> None:
        self.data = data
        self.position = position
        self.end = len(data) if end is None else end

    @property
    def remaining(self) -> int:
        return self.end - self.position

    def take(self, count: int) -> bytes:
        if not 0 <= count <= self.remaining:
            raise FormatError(f"{count} bytes wanted, {self.remaining} left")
        self.position += count
        return self.data[self.position - count : self.position]

    def varint(self) -> int:
        return self._varint(32, 5)

    def varlong(self) -> int:
        return self._varint(64, 10)

    def _varint(self, bits: int, longest: int) -> int:
        unsigned = 0
        for index in range(longest):
            byte = self.take(1)[0]
            unsigned |= (byte & 0x7F) << 7 * index
            if byte < 0x80:
                break
        else:
            raise FormatError(f"varint longer than {longest} bytes")
        unsigned &= (1 << bits) - 1  # what the last byte holds beyond the type is dropped
        return unsigned >> 1 if unsigned % 2 == 0 else -(unsigned >> 1) - 1

    def nullable_bytes(self) -> bytes | None:
        length = self.varint()
        return None if length < 0 else self.take(length)


# --- records ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class StoredRecord:
    """A record as it stands in a payload: deltas, not offsets and timestamps."""

    offset_delta: int
    timestamp_delta: int
    key: bytes | None = None
    value: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    attributes: int = 0


class ReadRecord(NamedTuple):
    """A record as a reader gets it."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


def encode_record(record: StoredRecord) -> bytes:
    def sized(data: bytes | None) -> bytes:
        return encode_varint(-1) if data is None else encode_varint(len(data)) + data

    body = struct.pack(">B", record.attributes)
    body += encode_varint(record.timestamp_delta) + encode_varint(record.offset_delta)
    body += sized(record.key) + sized(record.value)
    body += encode_varint(len(record.headers))
    for name, value in record.headers:
        body += sized(name.encode()) + sized(value)
    return encode_varint(len(body)) + body


def decode_record(reader: Reader) -> StoredRecord:
    length = reader.varint()
    if not 0 <= length <= reader.remaining:
        raise FormatError(f"record length {length}, {reader.remaining} bytes left")
    inner = Reader(reader.data, reader.position, reader.position + length)
    attributes = inner.take(1)[0]
    timestamp_delta = inner.varlong()
    offset_delta = inner.varint()
    key = inner.nullable_bytes()
    value = inner.nullable_bytes()
    count = inner.varint()
    if not 0 <= count <= inner.remaining:
        raise FormatError(f"header count {count}, {inner.remaining} bytes left in the record")
    headers = []
    for _ in range(count):
        name = inner.nullable_bytes()
        if name is None:
            raise FormatError("header without a name")
        headers.append((name.decode(errors="surrogateescape"), inner.nullable_bytes()))
    if inner.remaining:
        raise FormatError(f"{inner.remaining} bytes left in the record")
    reader.position = inner.end
    return StoredRecord(offset_delta, timestamp_delta, key, value, tuple(headers), attributes)


def decode_records(payload: bytes, count: int, last_offset_delta: int) -> list[StoredRecord]:
    """Decode an uncompressed payload."""
    reader = Reader(payload)
    records: list[StoredRecord] = []
    previous = -1
    for _ in range(count):
        record = decode_record(reader)
        if not previous < record.offset_delta <= last_offset_delta:
            raise FormatError(f"offset delta {record.offset_delta} after {previous}")
        previous = record.offset_delta
        records.append(record)
    if reader.remaining:
        raise FormatError(f"{reader.remaining} bytes after the last record")
    return records


# --- batches ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Header:
    """The 61 bytes; `batch_length` and `crc` are right only once a payload is known."""

    base_offset: int = 0
    batch_length: int = 0
    partition_leader_epoch: int = -1
    magic: int = 2
    crc: int = 0
    attributes: int = 0
    last_offset_delta: int = 0
    base_timestamp: int = -1
    max_timestamp: int = -1
    producer_id: int = -1
    producer_epoch: int = -1
    base_sequence: int = -1
    records_count: int = 0

    @property
    def codec(self) -> int:
        return self.attributes & CODEC_MASK

    @property
    def size_bytes(self) -> int:
        return LENGTH_OVERHEAD_BYTES + self.batch_length

    @property
    def last_offset(self) -> int:
        return self.base_offset + self.last_offset_delta

    def pack(self) -> bytes:
        return HEADER.pack(*vars(self).values())


@dataclass(frozen=True)
class Batch:
    """A whole batch, its payload as stored."""

    header: Header
    payload: bytes = b""

    def encode(self) -> bytes:
        """Lay the batch out, with the right length and CRC."""
        length = HEADER_BYTES - LENGTH_OVERHEAD_BYTES + len(self.payload)
        checked = replace(self.header, batch_length=length).pack()[CRC_START:] + self.payload
        return replace(self.header, batch_length=length, crc=crc32c(checked)).pack() + self.payload

    def stored_records(self, decompress: Transform | None = None) -> list[StoredRecord]:
        """Decode the records; `decompress` is needed for codecs 2 to 4."""
        header = self.header
        payload = self.payload
        if header.records_count == 0:
            return []
        if header.codec > 4:
            raise FormatError(f"codec {header.codec}")
        if header.codec:
            if decompress is not None:
                payload = decompress(payload)
            elif header.codec == 1:
                payload = zlib.decompress(payload, 31)
            else:
                raise NotImplementedError(f"no decompressor given for codec {header.codec}")
        return decode_records(payload, header.records_count, header.last_offset_delta)

    def records(self, decompress: Transform | None = None) -> list[ReadRecord]:
        """Decode the records as a reader gets them."""
        header = self.header
        append_time = header.attributes & LOG_APPEND_TIME
        return [
            ReadRecord(
                header.base_offset + record.offset_delta,
                header.max_timestamp
                if append_time
                else wrap64(header.base_timestamp + record.timestamp_delta),
                record.key,
                record.value,
                record.headers,
            )
            for record in self.stored_records(decompress)
        ]


def wrap64(value: int) -> int:
    """Wrap as 64-bit addition does."""
    return (value + 2**63) % 2**64 - 2**63


def build_batch(
    records: Sequence[tuple[int, bytes | None, bytes | None, Iterable[tuple[str, bytes | None]]]],
    *,
    codec: int = 0,
    compress: Transform | None = None,
    **fields: int,
) -> bytes:
    """Build a batch as a producer does, from (timestamp, key, value, headers); at least one."""
    base_timestamp = records[0][0]
    stored = [
        StoredRecord(delta, wrap64(timestamp - base_timestamp), key, value, tuple(headers))
        for delta, (timestamp, key, value, headers) in enumerate(records)
    ]
    payload = b"".join(map(encode_record, stored))
    header = Header(
        last_offset_delta=len(records) - 1,
        base_timestamp=base_timestamp,
        max_timestamp=max(record[0] for record in records),
        records_count=len(records),
    )
    header = replace(header, **fields)
    if codec:
        header = replace(header, attributes=header.attributes | codec)
        payload = compress(payload) if compress is not None else zlib.compress(payload, wbits=31)
    return Batch(header, payload).encode()


def decode_batch(data: bytes, position: int = 0) -> Batch:
    """Decode and check the batch at `position`; records and codec are not looked at."""
    if len(data) - position < LENGTH_OVERHEAD_BYTES:
        raise FormatError("fewer than 12 bytes left")
    length = struct.unpack_from(">i", data, position + 8)[0]
    if length < HEADER_BYTES - LENGTH_OVERHEAD_BYTES:
        raise FormatError(f"length {length} is below 49")
    if position + LENGTH_OVERHEAD_BYTES + length > len(data):
        raise FormatError("the batch is cut short")
    header = Header(*HEADER.unpack_from(data, position))
    if header.magic != 2:
        raise FormatError(f"magic {header.magic}")
    end = position + header.size_bytes
    crc = crc32c(data[position + CRC_START : end])
    if crc != header.crc:
        raise FormatError(f"CRC {crc:08x}, stored {header.crc:08x}")
    if header.base_offset < 0 or header.last_offset_delta < 0 or header.last_offset > INT64_MAX:
        raise FormatError(f"offsets {header.base_offset} to {header.last_offset}")
    if not 0 <= header.records_count <= header.last_offset_delta + 1:
        raise FormatError(f"records count {header.records_count}")
    return Batch(header, data[position + HEADER_BYTES : end])


def decode_log(data: bytes, base_offset: int = 0) -> Iterator[tuple[int, Batch]]:
    """Decode the batches of a segment file with their positions; the first bad one is an error."""
    position = 0
    next_offset = base_offset
    epoch = -1
    while position < len(data):
        batch = decode_batch(data, position)
        if batch.header.base_offset < next_offset:
            raise FormatError(f"base offset {batch.header.base_offset} is below {next_offset}")
        if batch.header.last_offset - base_offset > INT32_MAX:
            raise FormatError(f"last offset {batch.header.last_offset} is too far from the base")
        if -1 < batch.header.partition_leader_epoch < epoch:
            raise FormatError(f"epoch {batch.header.partition_leader_epoch} after {epoch}")
        epoch = max(epoch, batch.header.partition_leader_epoch)
        yield position, batch
        position += batch.header.size_bytes
        next_offset = batch.header.last_offset + 1


class ControlRecord(NamedTuple):
    """What a control record says; `coordinator_epoch` is -1 but for ABORT and COMMIT."""

    type: str
    coordinator_epoch: int = -1


def decode_control(record: StoredRecord | ReadRecord) -> ControlRecord:
    key = record.key or b""
    if len(key) < 4:
        raise FormatError(f"control key of {len(key)} bytes")
    version, number = struct.unpack_from(">hh", key)
    if version < 0:
        raise FormatError(f"control key version {version}")
    if not 0 <= number < len(CONTROL_TYPES):
        return ControlRecord(f"UNKNOWN({number})")
    if number > 1:
        return ControlRecord(CONTROL_TYPES[number])
    value = record.value or b""
    if len(value) < 6:
        raise FormatError(f"transaction marker of {len(value)} bytes")
    version, coordinator_epoch = struct.unpack_from(">hi", value)
    if version < 0:
        raise FormatError(f"transaction marker version {version}")
    return ControlRecord(CONTROL_TYPES[number], coordinator_epoch)
