"""What a crash has left of putting rewritten segments in place of others (log-format, 5.2); `segment_swap` does it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from logstore._native.segment_opening import reopen_segment
from logstore.storage import layout
from logstore.storage.files import refusals

__all__ = ["InterruptedSwap", "file_number", "interrupted_swap", "visible_segments"]

_LISTINGS_MAX = 20


class InterruptedSwap(NamedTuple):
    """File names of a log's directory.

    Attributes
    ----------
    undone : list[str]
        Worthless: unfinished ``.cleaned`` files, and ``.swap`` files that belong to them.
    swaps : list[str]
        Whole ``.swap`` files, to be renamed.
    replaced : list[str]
        Files of the segments whose place they take.
    """

    undone: list[str]
    swaps: list[str]
    replaced: list[str]


def file_number(name: str) -> int:
    """The digits before a file name's first dot; -1 where there are none."""
    digits = name.split(".", 1)[0]
    return int(digits) if digits.isascii() and digits.isdigit() else -1


def interrupted_swap(directory: str, names: Sequence[str]) -> InterruptedSwap:
    """Judges the files that a directory holds; changes nothing.

    Raises
    ------
    StorageFailureError
        A ``.swap`` file can't be read.
    """
    undone = [name for name in names if name.endswith(".cleaned")]
    swaps = [name for name in names if name.endswith(".swap")]
    replaced: list[str] = []
    least_cleaned = min((file_number(name) for name in undone), default=None)
    if least_cleaned is not None:
        undone += [name for name in swaps if file_number(name) >= least_cleaned]
        swaps = [name for name in swaps if name not in undone]
    if swap_logs := [name for name in swaps if name.endswith(".log.swap")]:
        low = min(file_number(name) for name in swap_logs)
        high = max(_next_offset(os.path.join(directory, name), file_number(name)) for name in swap_logs)
        high = max(high, low + 1)  # of empty segments
        replaced = [
            name for name in names
            if name[:20].isdigit() and low <= file_number(name) < high
            and name.endswith((".log", ".index", ".timeindex", ".txnindex", ".snapshot"))
        ]
    return InterruptedSwap(undone, swaps, replaced)


def visible_segments(directory: str) -> dict[int, str]:
    """The .log files of a directory that somebody else writes, by base offset: also in the middle of a swap.

    Raises
    ------
    StorageFailureError
    """
    with refusals(directory, "list"):
        names = sorted(os.listdir(directory))
        for _ in range(_LISTINGS_MAX):
            # A listing is no snapshot: what is renamed meanwhile may be missed under both names.
            before, names = names, sorted(os.listdir(directory))
            if before == names:
                break
    files = {offset: name for name in names if (offset := layout.segment_offset(name)) is not None}
    if any(name.endswith(".log.swap") for name in names):
        try:
            swap = interrupted_swap(directory, names)
        except FileNotFoundError:
            return visible_segments(directory)  # it has its final name by now
        for name in swap.replaced:
            files.pop(file_number(name), None)
        files |= {file_number(name): name for name in swap.swaps if name.endswith(".log.swap")}
    return {offset: os.path.join(directory, files[offset]) for offset in sorted(files)}


def _next_offset(path: str, base_offset: int) -> int:
    """After the last batch of a file that is whole."""
    _, scan = reopen_segment(
        path, base_offset, index_interval_bytes=4096, index_bytes=10_485_760, trusted_bytes=0,
        trusted_offset=base_offset, writable=False, deep=False,
    )
    return scan.next_offset
