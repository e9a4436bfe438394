"""Snappy in the framing of Kafka's Java clients ("xerial"), and bare snappy blocks on reading.

A stream is a 16-byte header and blocks of 32 KiB of input, each a big-endian length and a raw
snappy block. Some clients write one raw block without header; readers take either. The reference
is ``docs/format/compression.md``.
"""

from __future__ import annotations

from typing import Any

from logstore.records.damaged_stream import damaged_stream, over_limit

__all__ = ["compress", "decompress"]

_MAGIC = b"\x82SNAPPY\x00"
_VERSION = (1).to_bytes(4, "big")
_HEADER = _MAGIC + _VERSION + _VERSION
_BLOCK_BYTES = 32 * 1024

_MAX_EXPANSION = 22
"""No snappy element yields more: the densest is a copy of 64 bytes, stored in 3."""


def compress(cramjam: Any, view: memoryview) -> bytes:
    """Write a xerial stream."""
    parts: list[Any] = [_HEADER]
    for start in range(0, len(view), _BLOCK_BYTES):
        block = cramjam.snappy.compress_raw(view[start : start + _BLOCK_BYTES])
        parts.append(len(block).to_bytes(4, "big"))
        parts.append(block)
    return b"".join(parts)


def decompress(cramjam: Any, view: memoryview, limit_bytes: int) -> bytes:
    """Read a xerial stream, several of them end to end, or one raw block."""
    if len(view) < len(_HEADER) or view[: len(_MAGIC)] != _MAGIC:
        _check_claim(view, 0, limit_bytes)
        return bytes(_decompress_block(cramjam, view, 0))
    parts = []
    size = 0
    position = _after_header(view, 0)
    while position < len(view):
        prefix = view[position : position + 4]
        if len(prefix) < 4:
            raise damaged_stream("snappy stream is cut short", position, 4, len(prefix))
        if prefix == _MAGIC[:4]:
            position = _after_header(view, position)
            continue
        # Unsigned, so a negative length is one that the stream cannot hold.
        length = int.from_bytes(prefix, "big")
        position += 4
        if not 0 < length <= len(view) - position:
            raise damaged_stream(
                "snappy block length", position - 4, f"1 to {len(view) - position}", length
            )
        block = view[position : position + length]
        size += _check_claim(block, position, limit_bytes - size, limit_bytes)
        parts.append(_decompress_block(cramjam, block, position))
        position += length
    return b"".join(parts)


def _after_header(view: memoryview, position: int) -> int:
    header = view[position : position + len(_HEADER)]
    if len(header) < len(_HEADER) or header[: len(_MAGIC)] != _MAGIC:
        raise damaged_stream("snappy stream header", position, _HEADER.hex(), header.hex())
    version = int.from_bytes(header[8:12], "big", signed=True)
    if version < 1:
        raise damaged_stream("snappy stream version", position + 8, "1 or above", version)
    return position + len(_HEADER)


def _check_claim(
    block: memoryview, position: int, remaining_bytes: int, limit_bytes: int | None = None
) -> int:
    """Return the decompressed size that a raw block claims, once it is allowed and possible."""
    claim = 0
    for index in range(5):
        if index == len(block):
            raise damaged_stream("snappy block is cut short", position + index)
        claim |= (block[index] & 0x7F) << (7 * index)
        if block[index] < 0x80:
            break
    else:
        raise damaged_stream("snappy block size runs past its 5 bytes", position)
    if claim > _MAX_EXPANSION * len(block):
        raise damaged_stream(
            "snappy block claims more than its bytes can hold",
            position,
            f"at most {_MAX_EXPANSION * len(block)}",
            claim,
        )
    if claim > remaining_bytes:
        raise over_limit(remaining_bytes if limit_bytes is None else limit_bytes)
    return claim


def _decompress_block(cramjam: Any, block: memoryview, position: int) -> Any:
    try:
        return cramjam.snappy.decompress_raw(block)
    except cramjam.DecompressionError as error:
        raise damaged_stream(f"invalid snappy block: {error}", position) from None
