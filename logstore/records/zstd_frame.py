"""Reading zstd streams within a limit.

A frame's content size is a claim, and it is usually absent, so a stream is measured first: block
headers give an upper bound of what each frame holds, and show a cut or trailing bytes, before the
library sees anything. The layout is that of RFC 8878; see ``docs/format/compression.md``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from logstore.records.damaged_stream import damaged_stream, over_limit

__all__ = ["decompress"]

_MAGIC = 0xFD2FB528
_SKIPPABLE_MAGIC = 0x184D2A50
_MAX_BLOCK_BYTES = 128 * 1024

_MAX_WINDOW_BYTES = 1 << 27
"""What zstd readers allow unless told otherwise, Kafka's among them."""

_IDLE_MAX = 4
_idle_decompressors: list[Any] = []

_SMALL_FRAME = bytes.fromhex("28b52ffd60")
_SMALL_FRAME_BYTES = 10
_LAST_COMPRESSED_BLOCK = 5
"""What we write for a batch of less than 64 KiB: two bytes of content size, and one block."""


class _Frame(NamedTuple):
    end: int
    bound_bytes: int
    """No more than this comes out."""
    content_bytes: int | None
    """What the header says comes out, if it does."""


def decompress(zstandard: Any, view: memoryview, limit_bytes: int) -> bytes:
    """Read one or more frames laid end to end; skippable frames hold nothing."""
    # A context serves one call at a time; one that failed is not used again.
    try:
        decompressor = _idle_decompressors.pop()
    except IndexError:
        decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)
    parts = []
    size = 0
    position = 0
    while position < len(view):
        frame = _measure(view, position)
        remaining = limit_bytes - size
        if frame.content_bytes is not None and frame.content_bytes > remaining:
            raise over_limit(limit_bytes, size + frame.content_bytes)
        if frame.bound_bytes:
            # One byte more than allowed, so that a full buffer is one over the limit.
            room = min(frame.bound_bytes, remaining) + 1
            try:
                part = decompressor.decompress(view[position : frame.end], max_output_size=room)
            except zstandard.ZstdError as error:
                if room <= frame.bound_bytes and "did not decompress full frame" in str(error):
                    raise over_limit(limit_bytes) from None
                raise damaged_stream(f"invalid zstd frame: {error}", position) from None
            size += len(part)
            if size > limit_bytes:
                raise over_limit(limit_bytes)
            parts.append(part)
        position = frame.end
    if len(_idle_decompressors) < _IDLE_MAX:
        _idle_decompressors.append(decompressor)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _measure(view: memoryview, start: int) -> _Frame:
    """Walk the block headers of the frame at `start`."""
    if start == 0 and view[:5] == _SMALL_FRAME and len(view) > _SMALL_FRAME_BYTES:
        claimed = 256 + int.from_bytes(view[5:7], "little")
        word = int.from_bytes(view[7:_SMALL_FRAME_BYTES], "little")
        block_bytes = len(view) - _SMALL_FRAME_BYTES
        if word == block_bytes << 3 | _LAST_COMPRESSED_BLOCK and block_bytes <= claimed:
            return _Frame(len(view), claimed, claimed)
    magic = _integer(view, start, 4)
    if magic & ~0xF == _SKIPPABLE_MAGIC:
        end = start + 8 + _integer(view, start + 4, 4)
        if end > len(view):
            raise _cut_short(start, end - start, len(view) - start)
        return _Frame(end, 0, None)
    if magic != _MAGIC:
        raise damaged_stream("zstd frame magic", start, f"{_MAGIC:08x}", f"{magic:08x}")
    descriptor = _integer(view, start + 4, 1)
    window_bytes, content_bytes, position = _read_header(view, start + 5, descriptor)
    largest_block = min(window_bytes, _MAX_BLOCK_BYTES)
    bound = 0
    last = 0
    while not last:
        header = _integer(view, position, 3)
        last, kind, size = header & 1, header >> 1 & 3, header >> 3
        if kind == 3:
            raise damaged_stream("zstd block of the reserved type", position)
        if size > largest_block:
            raise damaged_stream("zstd block size", position, f"at most {largest_block}", size)
        bound += largest_block if kind == 2 else size
        position += 3 + (1 if kind == 1 else size)
    if descriptor & 0x04:
        position += 4
    if position > len(view):
        raise _cut_short(start, position - start, len(view) - start)
    if content_bytes is not None and (content_bytes > bound or (not content_bytes and bound)):
        raise damaged_stream("zstd content size", start, f"at most {bound}", content_bytes)
    return _Frame(position, bound, content_bytes)


def _read_header(view: memoryview, position: int, descriptor: int) -> tuple[int, int | None, int]:
    """Return the window size, the content size if present, and the position of the first block."""
    if descriptor & 0x08:
        raise damaged_stream("zstd frame reserved bit", position - 1, 0, 1)
    single_segment = descriptor & 0x20
    window_bytes = 0
    if not single_segment:
        window = _integer(view, position, 1)
        window_bytes = (1 << 10 + (window >> 3)) // 8 * (8 + (window & 7))
        if window_bytes > _MAX_WINDOW_BYTES:
            raise damaged_stream(
                "zstd window", position, f"at most {_MAX_WINDOW_BYTES}", window_bytes
            )
        position += 1
    dictionary_width = (0, 1, 2, 4)[descriptor & 3]
    if dictionary_width and _integer(view, position, dictionary_width):
        raise damaged_stream("zstd frame that needs a dictionary", position)
    position += dictionary_width
    content_width = (1 if single_segment else 0, 2, 4, 8)[descriptor >> 6]
    content_bytes = None
    if content_width:
        content_bytes = _integer(view, position, content_width)
        if content_width == 2:
            content_bytes += 256
        position += content_width
    if single_segment:
        window_bytes = content_bytes or 0
    return window_bytes, content_bytes, position


def _integer(view: memoryview, position: int, width: int) -> int:
    if position + width > len(view):
        raise _cut_short(min(position, len(view)), width, max(0, len(view) - position))
    return int.from_bytes(view[position : position + width], "little")


def _cut_short(position: int, expected: int, actual: int) -> Exception:
    return damaged_stream("zstd stream is cut short", position, expected, actual)
