"""LZ4 frames as Kafka writes them, and a reader as strict as Kafka's.

The frame is put together here, because library defaults do not fit: they link each block to the one
before, which Kafka's reader refuses. Blocks are independent, at most 64 KiB of input each, without
checksums; the batch has its own. The reference is ``docs/format/compression.md``.
"""

from __future__ import annotations

from typing import Any

from logstore.records.damaged_stream import damaged_stream, over_limit

__all__ = ["compress", "decompress"]

_MAGIC = b"\x04\x22\x4d\x18"
_END_MARK = bytes(4)
_BLOCK_BYTES = 64 * 1024
_STORED_RAW = 1 << 31
_FAST_LEVEL = 9

_VERSION_1 = 0x40
_INDEPENDENT_BLOCKS = 0x20
_BLOCK_CHECKSUM = 0x10
_CONTENT_SIZE = 0x08
_CONTENT_CHECKSUM = 0x04
_RESERVED_FLAGS = 0x03
_BLOCK_SIZE_CODES = {0x40: 1 << 16, 0x50: 1 << 18, 0x60: 1 << 20, 0x70: 1 << 22}

_IDLE_MAX = 4
_idle_scratch: list[bytearray] = []
"""Room for a block, that no call uses now: clearing 64 KiB takes as long as a tenth of a block."""

_MAX_EXPANSION = 255
"""One more byte of a match length stands for 255 bytes of output; nothing in LZ4 yields more."""


def compress(cramjam: Any, view: memoryview, level: int | None) -> bytes:
    """Write one frame; level None or 9 is the fast compressor, as in Kafka."""
    parts: list[Any] = [_HEADER]
    for start in range(0, len(view), _BLOCK_BYTES):
        chunk = view[start : start + _BLOCK_BYTES]
        block = None
        if level is not None and level != _FAST_LEVEL:
            block = _compress_at_level(cramjam, chunk, level)
        if block is None:
            block = cramjam.lz4.compress_block(chunk, store_size=False)
        if len(block) < len(chunk):
            parts += (len(block).to_bytes(4, "little"), block)
        else:
            parts += ((len(chunk) | _STORED_RAW).to_bytes(4, "little"), chunk)
    parts.append(_END_MARK)
    return b"".join(parts)


def _compress_at_level(cramjam: Any, chunk: memoryview, level: int) -> memoryview | None:
    """Return the chunk as one independent block, or None where the library cut it into several.

    Only the library's frame function takes a level. Since cramjam 2.14 a chunk is one block there,
    linked to nothing. Before, it was cut at 8 KiB, and blocks behind the first are of no use alone.
    """
    frame = memoryview(cramjam.lz4.compress(chunk, level=level))
    flags = frame[4]
    start = 19 if flags & _CONTENT_SIZE else 11
    word = int.from_bytes(frame[start - 4 : start], "little")
    end = start + (word & ~_STORED_RAW)
    next_word = end + (4 if flags & _BLOCK_CHECKSUM else 0)
    if frame[next_word : next_word + 4] != _END_MARK:
        return None
    return chunk if word & _STORED_RAW else frame[start:end]


def decompress(cramjam: Any, view: memoryview, limit_bytes: int) -> bytes:
    """Read one frame that ends where `view` ends."""
    flags, block_bytes, position = _read_header(view)
    checksum_bytes = 4 if flags & _BLOCK_CHECKSUM else 0
    try:
        scratch = _idle_scratch.pop()
    except IndexError:
        scratch = bytearray(_BLOCK_BYTES)
    parts = []
    size = 0
    while True:
        field = _take(view, position, 4, "lz4 frame is cut short before its end mark")
        word = int.from_bytes(field, "little")
        if word == 0:
            break
        length = word & ~_STORED_RAW
        if not 0 < length <= block_bytes:
            raise damaged_stream("lz4 block size", position, f"1 to {block_bytes}", length)
        stored = _take(view, position + 4, length + checksum_bytes, "lz4 block is cut short")
        block = stored[:length]
        if checksum_bytes:
            _check_block(cramjam, view, position, len(stored) + 4)
        part = block
        if not word & _STORED_RAW:
            room = min(block_bytes, _MAX_EXPANSION * length)
            if len(scratch) < room:
                scratch = bytearray(room)
            try:
                count = cramjam.lz4.decompress_block_into(block, scratch, output_len=room)
            except cramjam.DecompressionError:
                raise damaged_stream("invalid lz4 block", position + 4) from None
            part = memoryview(scratch)[:count]
        size += len(part)
        if size > limit_bytes:
            raise over_limit(limit_bytes)
        parts.append(part.tobytes())
        position += 4 + len(stored)
    position += 4
    if flags & _CONTENT_CHECKSUM:  # not verified, as in Kafka; the batch has its own checksum
        _take(view, position, 4, "lz4 content checksum is cut short")
        position += 4
    if position != len(view):
        raise damaged_stream("bytes after the lz4 frame", position, 0, len(view) - position)
    if len(_idle_scratch) < _IDLE_MAX and len(scratch) == _BLOCK_BYTES:
        _idle_scratch.append(scratch)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _read_header(view: memoryview) -> tuple[int, int, int]:
    """Return the flags, the largest block size and the position of the first block."""
    if view[: len(_HEADER)] == _HEADER:  # as Kafka and we write it
        return _HEADER[4], _BLOCK_BYTES, len(_HEADER)
    magic = _take(view, 0, 4, "lz4 frame header is cut short")
    if magic != _MAGIC:
        raise damaged_stream("lz4 frame magic", 0, _MAGIC.hex(), magic.hex())
    flags, block_descriptor = _take(view, 4, 2, "lz4 frame header is cut short")
    if flags & 0xC0 != _VERSION_1:
        raise damaged_stream("lz4 frame version", 4, 1, flags >> 6)
    if flags & _RESERVED_FLAGS:
        raise damaged_stream("lz4 frame reserved flags", 4, 0, flags & _RESERVED_FLAGS)
    if not flags & _INDEPENDENT_BLOCKS:
        raise damaged_stream("lz4 frame with linked blocks", 4)
    block_bytes = _BLOCK_SIZE_CODES.get(block_descriptor)
    if block_bytes is None:
        raise damaged_stream(
            "lz4 block descriptor", 5, "40, 50, 60 or 70", f"{block_descriptor:02x}"
        )
    end = 14 if flags & _CONTENT_SIZE else 6
    stored = _take(view, end, 1, "lz4 frame header is cut short")[0]
    computed = _header_checksum(bytes(view[4:end]))
    if stored != computed:
        raise damaged_stream("lz4 header checksum", end, computed, stored)
    return flags, block_bytes, end + 1


def _take(view: memoryview, position: int, count: int, reason: str) -> memoryview:
    taken = view[position : position + count]
    if len(taken) < count:
        raise damaged_stream(reason, position, count, len(taken))
    return taken


def _check_block(cramjam: Any, view: memoryview, position: int, count: int) -> None:
    """Verify a block's checksum: the library does, given the block in a frame of its own."""
    frame = b"".join((_HEADER_4_MIB_CHECKED, view[position : position + count], _END_MARK))
    length = count - 8
    room = bytearray(min(1 << 22, _MAX_EXPANSION * length))
    try:
        cramjam.lz4.decompress_into(frame, room)
    except cramjam.DecompressionError as error:
        raise damaged_stream(f"invalid lz4 block: {error}", position + 4) from None


def _header_checksum(descriptor: bytes) -> int:
    """Return the second byte of XXH32, seed 0, of a frame descriptor: 2 or 10 bytes.

    Below 16 bytes XXH32 has no striped part: whole words, then single bytes, then the avalanche.
    """
    mask = 0xFFFFFFFF
    value = (374761393 + len(descriptor)) & mask
    words = len(descriptor) // 4 * 4
    for start in range(0, words, 4):
        word = int.from_bytes(descriptor[start : start + 4], "little")
        value = (value + word * 3266489917) & mask
        value = ((value << 17 | value >> 15) * 668265263) & mask
    for byte in descriptor[words:]:
        value = (value + byte * 374761393) & mask
        value = ((value << 11 | value >> 21) * 2654435761) & mask
    value = ((value ^ value >> 15) * 2246822519) & mask
    value = ((value ^ value >> 13) * 3266489917) & mask
    return (value ^ value >> 16) >> 8 & 0xFF


def _header(flags: int, block_descriptor: int) -> bytes:
    descriptor = bytes((flags, block_descriptor))
    return _MAGIC + descriptor + bytes((_header_checksum(descriptor),))


_HEADER = _header(_VERSION_1 | _INDEPENDENT_BLOCKS, 0x40)
_HEADER_4_MIB_CHECKED = _header(_VERSION_1 | _INDEPENDENT_BLOCKS | _BLOCK_CHECKSUM, 0x70)
