"""Physical limits in C, compiled when a run starts and called through ctypes."""

from __future__ import annotations

import atexit
import ctypes
import importlib.util
import os
import shlex
import shutil
import subprocess
import sysconfig
import tempfile
from functools import lru_cache
from importlib.machinery import ExtensionFileLoader
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["CORE", "Bytes", "LimitsUnavailableError", "compile_c", "compiled_pairs", "empty_append", "limits"]

HERE = Path(__file__).parent
CORE = HERE.parent.parent / "csrc"


class LimitsUnavailableError(Exception):
    """The limits cannot be compiled here; the message says why."""


class Limits:
    """The functions of ``limits.c``; each raises `OSError` with the errno it got."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        library.limit_checksum.restype = ctypes.c_uint32

    def write(self, file: int, data: Bytes, block_bytes: int) -> None:
        """Write `data` in writes of `block_bytes`."""
        self._call("limit_write", file, data.pointer, _size(data), _c_size(block_bytes))

    def copy_checksum_write(self, file: int, data: Bytes, buffer: Bytes) -> int:
        """Copy, checksum and write `data` in blocks the size of `buffer`; gives the CRC-32C."""
        crc = ctypes.c_uint32()
        self._call(
            "limit_copy_checksum_write",
            file,
            data.pointer,
            _size(data),
            buffer.pointer,
            _size(buffer),
            ctypes.byref(crc),
        )
        return crc.value

    def write_each(self, file: int, data: Bytes, record_bytes: int, *, sync: bool) -> None:
        """Write `data` in one call a record, with an fdatasync after each if `sync`."""
        count = len(data) // record_bytes
        self._call(
            "limit_write_each",
            file,
            data.pointer,
            _c_size(record_bytes),
            _c_size(count),
            int(sync),
        )

    def read(self, file: int, size_bytes: int, buffer: Bytes, *, checksum: bool) -> int:
        """Read a file through `buffer`; gives its CRC-32C, or 0 when not asked for."""
        crc = ctypes.c_uint32()
        self._call(
            "limit_read",
            file,
            _c_size(size_bytes),
            buffer.pointer,
            _size(buffer),
            ctypes.byref(crc) if checksum else None,
        )
        return crc.value

    def copy(self, data: Bytes, buffer: Bytes) -> None:
        """Copy `data` through `buffer` in memory."""
        self._call("limit_copy", data.pointer, _size(data), buffer.pointer, _size(buffer))

    def read_at(self, file: int, positions: list[int], buffer: Bytes, *, checksum: bool) -> Callable[[], None]:
        """A function that reads the size of `buffer` at each position, and computes its CRC-32C if asked to."""
        array = (ctypes.c_int64 * len(positions))(*positions)
        crc = ctypes.c_uint32()

        def read() -> None:
            self._call(
                "limit_read_at",
                file,
                array,
                _c_size(len(positions)),
                buffer.pointer,
                _size(buffer),
                ctypes.byref(crc) if checksum else None,
            )

        return read

    def checksum(self, data: Bytes) -> int:
        """CRC-32C of `data`."""
        return int(self._library.limit_checksum(data.pointer, _size(data)))

    def _call(self, name: str, *arguments: object) -> None:
        failure = getattr(self._library, name)(*arguments)
        if failure != 0:
            raise OSError(failure, f"{name}: {os.strerror(failure)}")


class Bytes:
    """Memory that C may read and write, touched once so that no page fault is timed."""

    def __init__(self, content: bytes | int) -> None:
        data = bytes(content) if isinstance(content, int) else content
        self._memory = ctypes.create_string_buffer(data, max(1, len(data)))
        self._length = len(data)
        self.pointer = ctypes.cast(self._memory, ctypes.c_void_p)

    def __len__(self) -> int:
        return self._length


_c_size = ctypes.c_size_t


def _size(data: Bytes) -> ctypes.c_size_t:
    return ctypes.c_size_t(len(data))


@lru_cache(maxsize=1)
def limits() -> Limits:
    """The limits, compiled on first use."""
    sources = [HERE / "limits.c", *sorted((CORE / "src").glob("crc32c*.c"))]
    includes = [CORE / "include", CORE / "src"]
    return Limits(ctypes.CDLL(str(compile_c("limits", sources, includes))))


def empty_append() -> Callable[..., int]:
    """The compiled ``append(value, key)`` that does nothing; also ``send(topic, value, key)``."""
    append: Callable[..., int] = _empty_call().Nothing().append
    return append


def compiled_pairs() -> Callable[[bytes, int, int], Iterable[Any]]:
    """A compiled iterator over ``data``, key and value by turns, that makes objects with ``key`` and ``value``."""
    pairs: Callable[[bytes, int, int], Iterable[Any]] = _empty_call().pairs
    return pairs


@lru_cache(maxsize=1)
def _empty_call() -> Any:
    headers = Path(sysconfig.get_path("include"))
    if not (headers / "Python.h").exists():
        raise LimitsUnavailableError("needs Python's C headers")
    path = compile_c("empty_call", [HERE / "empty_call.c"], [headers])
    loader = ExtensionFileLoader("empty_call", str(path))
    spec = importlib.util.spec_from_loader("empty_call", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def compile_c(name: str, sources: list[Path], includes: list[Path]) -> Path:
    """A shared library of these sources, which lasts as long as this process.

    Raises
    ------
    LimitsUnavailableError
        There is no compiler, or it refuses them.
    """
    compiler = shlex.split(os.environ.get("CC", "cc"))
    if shutil.which(compiler[0]) is None:
        raise LimitsUnavailableError(f"needs a C compiler ({compiler[0]} is not there)")
    path = _build_directory() / f"{name}.so"
    command = [*compiler, "-std=gnu11", "-O2", "-shared", "-fPIC", "-o", str(path)]
    if sysconfig.get_platform().startswith("macosx"):
        command += ["-undefined", "dynamic_lookup"]
    command += [f"-I{include}" for include in includes] + [str(source) for source in sources]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["no message"]
        raise LimitsUnavailableError(f"{name}.c does not compile here: {said[0]}")
    return path


@lru_cache(maxsize=1)
def _build_directory() -> Path:
    directory = Path(tempfile.mkdtemp(prefix="logstore-limits-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory
