"""The compiled loops of ``loops.c``."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from pathlib import Path

from benchmarks.limits import CORE, compile_c

__all__ = ["loops", "numbers"]


@lru_cache(maxsize=1)
def loops() -> ctypes.CDLL:
    """The functions of ``loops.c``, compiled on first use."""
    names = ("varint.c", "offset_index.c", "time_index.c", "status.c")
    sources = [Path(__file__).with_name("loops.c"), *(CORE / "src" / name for name in names)]
    library = ctypes.CDLL(str(compile_c("loops", sources, [CORE / "include", CORE / "src"])))
    for name in ("varint_write", "varint_size"):
        getattr(library, f"loop_{name}").restype = ctypes.c_size_t
    for name in ("varint_read", "offset_index_lookup", "time_index_lookup"):
        getattr(library, f"loop_{name}").restype = ctypes.c_int64
    for name in ("offset_index", "time_index"):
        getattr(library, f"loop_{name}").restype = ctypes.c_void_p
    return library


def numbers(values: list[int]) -> ctypes.Array[ctypes.c_int64]:
    """Numbers as C has them."""
    return (ctypes.c_int64 * len(values))(*values)
