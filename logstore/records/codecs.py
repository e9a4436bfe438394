"""The codecs of a record batch's payload: none, gzip, snappy, lz4 and zstd.

A batch names its codec in the low three bits of its attributes; everything after the header is then
one compressed stream (``docs/format/compression.md``). This module turns plain record bytes into
such a stream and back. Both directions are thread-safe and run without the GIL wherever the
compression library does. Between calls they keep only what is dear to make: idle contexts of zstd,
and room for a block of lz4.

`decompress` trusts nothing in the stream. Sizes that a header claims are compared with the limit,
and with what the bytes present could possibly yield, before anything is allocated. Whatever is
wrong with a stream, the error is `CorruptDataError`, never one of a compression library.
"""

from __future__ import annotations

import zlib
from importlib import import_module
from typing import Any, NoReturn, TypeAlias

from logstore.errors import InvalidConfigError, MissingDependencyError
from logstore.records.damaged_stream import damaged_stream, over_limit

__all__ = [
    "CODEC_NAMES",
    "GZIP",
    "LZ4",
    "NONE",
    "SNAPPY",
    "ZSTD",
    "BytesLike",
    "check_level",
    "codec_id",
    "codec_name",
    "compress",
    "decompress",
]

BytesLike: TypeAlias = bytes | bytearray | memoryview
"""Anything that exports a buffer will do; these are the types that a checker can name."""

NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)

CODEC_NAMES: tuple[str, ...] = ("none", "gzip", "snappy", "lz4", "zstd")
"""Codec names; the index of each is its id in the attributes of a batch."""

_IDLE_MAX = 4
_idle_compressors: dict[int, list[Any]] = {}
"""By level."""

_GZIP_WBITS = 16 + zlib.MAX_WBITS
_ZSTD_LEVELS = (-131072, 22)
_LZ4_LEVELS = (1, 17)


def codec_id(name: str) -> int:
    """Return the id of a codec as it stands in the attributes of a batch.

    Raises
    ------
    InvalidConfigError
        There is no codec of this name.
    """
    try:
        return CODEC_NAMES.index(name)
    except ValueError:
        raise InvalidConfigError(
            f"unknown codec {name!r}; choose one of {', '.join(CODEC_NAMES)}"
        ) from None


def codec_name(codec: int) -> str:
    """Return the name of a codec id that was read from a batch.

    Raises
    ------
    CorruptDataError
        No codec has this id: ids 5 to 7 are not assigned.
    """
    if not 0 <= codec < len(CODEC_NAMES):
        _unknown_codec(codec)
    return CODEC_NAMES[codec]


def check_level(codec: int, level: int | None) -> None:
    """Refuse a compression level that the codec does not have; None is every codec's default.

    Raises
    ------
    InvalidConfigError
        The level is out of range, or the codec has no levels, or there is no such codec.
    """
    if not 0 <= codec < len(CODEC_NAMES):
        raise InvalidConfigError(f"unknown codec id {codec}; the highest is {len(CODEC_NAMES) - 1}")
    if level is None:
        return
    name = CODEC_NAMES[codec]
    if codec in (NONE, SNAPPY):
        raise InvalidConfigError(f"codec {name} has no levels; leave the level out")
    if codec == GZIP:
        valid, levels = 1 <= level <= 9 or level == -1, "1 to 9, or -1 for zlib's default"
    else:
        low, high = _LZ4_LEVELS if codec == LZ4 else _ZSTD_LEVELS
        valid, levels = low <= level <= high, f"{low} to {high}"
    if not valid:
        raise InvalidConfigError(f"{name} level {level} is out of range; levels are {levels}")


def compress(codec: int, data: BytesLike, level: int | None = None) -> bytes:
    """Compress the records of one batch.

    Parameters
    ----------
    codec : int
        A codec id, see `codec_id`.
    data : bytes-like
        The concatenated records. A buffer that is not contiguous is copied first.
    level : int or None
        gzip 1 to 9, or -1 for zlib's own default; lz4 1 to 17, where 9 (Kafka's default) and 1 are
        the fast compressor, and 12 and above are one level; zstd -131072 to 22. None is the
        default: gzip 6, lz4 fast, zstd 3.

    Raises
    ------
    InvalidConfigError
        The codec or the level does not exist.
    MissingDependencyError
        The codec's package is not installed; the message says how to install it.
    """
    check_level(codec, level)
    view = _contiguous(data)
    if codec == NONE:
        return bytes(view)
    if codec == GZIP:
        return _compress_gzip(view, -1 if level is None else level)
    if codec == ZSTD:
        return _compress_zstd(view, 3 if level is None else level)
    if codec == SNAPPY:
        from logstore.records import snappy_stream

        return snappy_stream.compress(_import_cramjam("snappy"), view)
    from logstore.records import lz4_frame

    return lz4_frame.compress(_import_cramjam("lz4"), view, level)


def decompress(codec: int, data: BytesLike, limit_bytes: int) -> bytes:
    """Decompress the payload of one batch, to at most `limit_bytes`.

    Parameters
    ----------
    codec : int
        The codec id from the attributes of the batch.
    data : bytes-like
        The whole compressed stream and nothing else: bytes after its end are an error.
    limit_bytes : int
        More than this is refused before it is allocated.

    Raises
    ------
    CorruptDataError
        The stream is malformed or cut short, it holds more than `limit_bytes`, or the codec id is
        not assigned. ``path`` is ``"<memory>"``; ``position`` is a position in `data`, or -1.
    MissingDependencyError
        The codec's package is not installed; the message says how to install it.
    """
    if not 0 <= codec < len(CODEC_NAMES):
        _unknown_codec(codec)
    view = _contiguous(data)
    if codec == NONE:
        if len(view) > limit_bytes:
            raise over_limit(limit_bytes, len(view))
        return bytes(view)
    if not view:
        raise damaged_stream(f"empty {CODEC_NAMES[codec]} stream", 0)
    if codec == GZIP:
        return _decompress_gzip(view, limit_bytes)
    if codec == ZSTD:
        from logstore.records import zstd_frame

        return zstd_frame.decompress(_import_zstandard(), view, limit_bytes)
    if codec == SNAPPY:
        from logstore.records import snappy_stream

        return snappy_stream.decompress(_import_cramjam("snappy"), view, limit_bytes)
    from logstore.records import lz4_frame

    return lz4_frame.decompress(_import_cramjam("lz4"), view, limit_bytes)


def _compress_zstd(view: memoryview, level: int) -> bytes:
    # A context serves one call at a time; one that failed is not used again.
    zstandard = _import_zstandard()
    idle = _idle_compressors.setdefault(level, [])
    try:
        compressor = idle.pop()
    except IndexError:
        # The content size costs a few bytes and spares every reader a guess at what to allocate.
        compressor = zstandard.ZstdCompressor(level=level)
    compressed: bytes = compressor.compress(view)
    if len(idle) < _IDLE_MAX:
        idle.append(compressor)
    return compressed


def _compress_gzip(view: memoryview, level: int) -> bytes:
    compressor = zlib.compressobj(level, zlib.DEFLATED, _GZIP_WBITS)
    return compressor.compress(view) + compressor.flush()


def _decompress_gzip(view: memoryview, limit_bytes: int) -> bytes:
    """Decode one or more gzip members laid end to end."""
    parts = []
    size = 0
    position = 0
    while position < len(view):
        # zlib hands back a copy of what follows a member. The common stream is a single member and
        # is fed whole; further members are fed in growing pieces, or a megabyte of empty members
        # would be copied fifty thousand times.
        piece_bytes = len(view) if position == 0 else 512
        member = zlib.decompressobj(_GZIP_WBITS)
        start = position
        while not member.eof:
            piece = view[position : position + piece_bytes]
            if not piece:
                raise damaged_stream("gzip stream is cut short", position)
            try:
                part = member.decompress(piece, limit_bytes - size + 1)
            except zlib.error as error:
                raise damaged_stream(f"invalid gzip member: {error}", start) from None
            size += len(part)
            if size > limit_bytes:
                raise over_limit(limit_bytes)
            parts.append(part)
            position += len(piece) - len(member.unused_data)
            piece_bytes *= 2
    return b"".join(parts)


def _contiguous(data: BytesLike) -> memoryview:
    """View `data` as contiguous bytes; only a buffer with gaps is copied."""
    view = memoryview(data)
    if not view.c_contiguous:
        view = memoryview(view.tobytes())
    # A zero-length view of several dimensions cannot be cast; an empty one of bytes is the same.
    return view.cast("B") if view.nbytes else memoryview(b"")


def _unknown_codec(codec: int) -> NoReturn:
    raise damaged_stream("unknown codec id", -1, f"0 to {len(CODEC_NAMES) - 1}", codec)


def _import_zstandard() -> Any:
    return _import_package("zstandard", "zstd", "zstandard")


def _import_cramjam(extra: str) -> Any:
    return _import_package("cramjam", extra, f'"logstoredb[{extra}]"')


def _import_package(package: str, codec: str, requirement: str) -> Any:
    try:
        return import_module(package)
    except ImportError as error:
        raise MissingDependencyError(
            f"codec {codec} needs the package {package}; run: pip install {requirement}",
            name=package,
        ) from error
