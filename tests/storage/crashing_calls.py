"""Ends a piece of Python, as a kill would, before its n-th call that changes something on disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

FUNCTIONS = ("open", "replace", "unlink", "link", "mkdir", "rmdir", "pwrite", "write", "copy_file_range", "fsync",
             "ftruncate", "rename")  # fmt: skip


class CrashError(BaseException):
    """The process is gone."""


@contextmanager
def crash_before(number: int) -> Iterator[None]:
    """Inside, the call of that number raises `CrashError`, and so does every one after it. Reads go on."""
    left = number

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **settings: Any) -> Any:
            nonlocal left
            if function is originals["open"] and not arguments[1] & (os.O_WRONLY | os.O_RDWR):
                return function(*arguments, **settings)
            left -= 1
            if left < 0:
                raise CrashError
            return function(*arguments, **settings)

        return call

    originals = {name: getattr(os, name) for name in FUNCTIONS}
    for name, function in originals.items():
        setattr(os, name, counted(function))
    try:
        yield
    finally:
        for name, function in originals.items():
            setattr(os, name, function)
