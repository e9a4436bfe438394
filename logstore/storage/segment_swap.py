"""Putting rewritten segments in place of others: a crash at any step leaves the old ones or the new (log-format, 7.7).

1. The new files are written as ``.cleaned``, and synced.
2. They become ``.swap``, and the directory is synced: from here on recovery carries the swap through; before, it undoes it.
3. Readers get the new segments, by descriptors that are open already.
4. The old files become ``.deleted``, and the directory is synced.
5. ``.swap`` files get their final names, and the directory is synced. The old files are unlinked.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING

from logstore._native.checksum import crc32c
from logstore._native.segment import Segment
from logstore.errors import StorageFailureError
from logstore.storage import layout
from logstore.storage.files import refusals, sync_directory, write_at
from logstore.storage.segment_digests import digest_of

if TYPE_CHECKING:
    from logstore.storage.checkpoint import Checkpoint
    from logstore.storage.log import Log

__all__ = ["Replacement", "prepare_swaps", "remove_unfinished", "swap_segments"]

SUFFIXES = (".log", ".index", ".timeindex", ".txnindex")
_TRANSACTION_ENTRY = struct.Struct(">hqqqq")


class Replacement:
    """Segments being written to take the place of neighbours.

    Parameters
    ----------
    log : Log
    replaced : sequence of Segment
    end_offset : int
        Of the last one's offsets, exclusive.
    contiguous : bool
        Whether no offsets will be missing between batches.
    """

    def __init__(self, log: Log, replaced: Sequence[Segment], end_offset: int, *, contiguous: bool):
        self.log = log
        self.replaced = [segment.base_offset for segment in replaced]
        with refusals(replaced[-1].path, "stat"):
            self.mtime_ns = os.stat(replaced[-1].path).st_mtime_ns
        self.end_offset = end_offset
        self.truncation_count = log.truncation_count
        self.outputs: list[Segment] = []
        self.transaction_indexes: dict[int, tuple[int, int]] = {}  # size and CRC of each
        self._transaction_index = b""
        self._had_transaction_index = any(os.path.exists(self.path_of(base, ".txnindex")) for base in self.replaced)
        self._settings = log._segment_settings()._replace(contiguous=contiguous)

    def next_output(self, base_offset: int) -> Segment:
        """A new segment to write to; the one before is full."""
        segment = Segment.create(self.path_of(base_offset, ".log.cleaned"), base_offset, **self._settings.as_arguments())
        self.outputs.append(segment)
        return segment

    def path_of(self, base_offset: int, suffix: str) -> str:
        return os.path.join(self.log.path, layout.segment_file_name(base_offset, suffix))

    def keep_transaction_index(self) -> None:
        """The transaction index of what is replaced, as it is: for when no batch goes."""
        for base_offset in self.replaced:
            path = self.path_of(base_offset, ".txnindex")
            with refusals(path, "read"), contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
                self._transaction_index += file.read()

    def finish(self, aborted: Sequence[tuple[int, int, int, int]] = ()) -> None:
        """Writes the indexes, and syncs all files.

        Parameters
        ----------
        aborted : sequence of (producer id, first offset, marker's offset, last stable offset)
            For the transaction indexes.
        """
        ends = [*(segment.base_offset for segment in self.outputs[1:]), self.end_offset]
        for segment, end_offset in zip(self.outputs, ends, strict=True):
            segment.seal(end_offset)
            base = segment.base_offset
            for suffix, content in (
                (".index.cleaned", segment.encode_offset_index(0)),
                (".timeindex.cleaned", segment.encode_time_index(0)),
                (".txnindex.cleaned", self._transaction_index + b"".join(
                    _TRANSACTION_ENTRY.pack(0, *entry) for entry in aborted if base <= entry[2] < end_offset
                )),
            ):
                # Where there was one, an empty one says that nothing is left to look for.
                if content or not suffix.startswith(".txn") or self._had_transaction_index:
                    write_at(self.path_of(base, suffix), 0, content, size=len(content), sync=True)
                    if suffix.startswith(".txn"):
                        self.transaction_indexes[base] = len(content), crc32c(content)
            segment.sync()
            with contextlib.suppress(OSError):  # the age of data without timestamps
                os.utime(segment.path, ns=(self.mtime_ns, self.mtime_ns))


def prepare_swaps(log: Log, *, contiguous: bool) -> None:
    """Has the checkpoint rely on no segment that is about to be replaced, and on no offsets that are about to vanish.

    Raises
    ------
    StorageFailureError
    """
    with log._flush_lock:
        # Size before end offset before segments, as in every flush.
        active = log.segments[-1]
        position = active.size_bytes
        end_offset = log.end_offset
        log._sync()
        log._locked(_move_checkpoint, log, log._state_at(active.base_offset, position, end_offset), contiguous)


def _move_checkpoint(log: Log, state: Checkpoint, contiguous: bool) -> None:
    contiguous = contiguous and log._checkpoint.is_contiguous
    log._is_clean = False
    log._checkpoint = state._replace(is_contiguous=contiguous)
    log._checkpoint_file.replace(log._checkpoint)
    if not contiguous and log.contiguous:
        log._publish(contiguous=False)
        for segment in log.segments:
            segment.allow_gaps()


def swap_segments(log: Log, replacement: Replacement) -> bool:
    """Puts finished segments in place of those they replace.

    Returns
    -------
    bool
        False: those are no longer there, or the log was truncated or closed meanwhile; nothing has changed.

    Raises
    ------
    StorageFailureError
        Nothing has changed; or, where the log was closed for writing, opening it again finishes the swap.
    """
    old = tuple(replacement.replaced)
    with log._flush_lock:
        if not log.is_writable or log.truncation_count != replacement.truncation_count or not _are_there(log, old):
            return False
        new = [segment.base_offset for segment in replacement.outputs]
        if log.has_transactions:
            log._aborted.replace(old, new)
        log._digests.forget(old)  # of what these segments hold now
        with contextlib.suppress(StorageFailureError):
            log._digests.forget_transaction_indexes(old)
        try:
            _rename(log.path, replacement, ".cleaned", ".swap")
            sync_directory(log.path)
        except BaseException:
            _undo(log, replacement)
            raise
        try:
            for segment in replacement.outputs:
                segment.take_place(replacement.path_of(segment.base_offset, ".log"))
            log._replace_segments(old, tuple(replacement.outputs))
            log._aborted.forget(set(old) - set(new))
            deleted = _finish(log, replacement, old)
        except StorageFailureError as error:
            log._fail(error)
            raise
        except BaseException:
            # A signal's handler raises between any two steps: each can be repeated.
            try:
                log._replace_segments(old, tuple(replacement.outputs))
                _unlink(_finish(log, replacement, old))
            except BaseException as failure:
                log._fail(failure if isinstance(failure, StorageFailureError) else StorageFailureError(log.path, "swap", 4))
                raise
            raise
        with contextlib.suppress(StorageFailureError):
            digests = map(digest_of, replacement.outputs)
            log._digests.record([digest for digest in digests if digest is not None])
            for base_offset, about in replacement.transaction_indexes.items():
                log._digests.record_transaction_index(base_offset, *about)
        _let_go_of_descriptors(log, replacement)
    log._deleted_files.add(deleted, log.config["file.delete.delay.ms"])
    return True


def _are_there(log: Log, old: tuple[int, ...]) -> bool:
    bases = [segment.base_offset for segment in log.segments[:-1]]
    return old[0] in bases and tuple(bases[bases.index(old[0]) :][: len(old)]) == old


def _rename(directory: str, replacement: Replacement, before: str, after: str) -> None:
    # From the last on: recovery undoes every .swap at or above a .cleaned.
    for segment in reversed(replacement.outputs):
        for suffix in SUFFIXES:
            path = replacement.path_of(segment.base_offset, suffix)
            with refusals(path, "rename"), contextlib.suppress(FileNotFoundError):
                os.replace(path + before, path + after)


def _finish(log: Log, replacement: Replacement, old: tuple[int, ...]) -> list[str]:
    """Steps 4 and 5; gives the files to unlink."""
    deleted = []
    new = {segment.base_offset for segment in replacement.outputs}
    for base_offset in old:
        # At a second try: the new file has this name already.
        is_swapped = base_offset in new and not os.path.exists(replacement.path_of(base_offset, ".log.swap"))
        for suffix in (*SUFFIXES, ".snapshot"):
            if suffix == ".snapshot" and base_offset in new:
                continue  # the state before the segment is what it was
            if is_swapped:
                continue
            path = replacement.path_of(base_offset, suffix)
            with refusals(path, "rename"), contextlib.suppress(FileNotFoundError):
                os.replace(path, path + ".deleted")
            deleted.append(path + ".deleted")
    sync_directory(log.path)
    _rename(log.path, replacement, ".swap", "")
    sync_directory(log.path)
    return deleted


def _undo(log: Log, replacement: Replacement) -> None:
    """Before step 2 is done. A .log.swap goes last: while it is there, all of it can still be carried through."""
    with contextlib.suppress(OSError):
        for suffix in (*SUFFIXES[1:], ".log"):
            for segment in replacement.outputs:
                for kind in (".swap", ".cleaned"):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(replacement.path_of(segment.base_offset, suffix + kind))
            if suffix == SUFFIXES[-1]:
                sync_directory(log.path)


def _let_go_of_descriptors(log: Log, replacement: Replacement) -> None:
    """The new segments as ones that open when they are read; readers that have one keep it."""
    ends = [*(segment.base_offset for segment in replacement.outputs[1:]), replacement.end_offset]
    lazy = tuple(
        Segment.sealed(segment.path, segment.base_offset, end, **replacement._settings.as_arguments())
        for segment, end in zip(replacement.outputs, ends, strict=True)
    )
    log._replace_segments(tuple(segment.base_offset for segment in replacement.outputs), lazy)


def _unlink(paths: list[str]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            os.unlink(path)


def remove_unfinished(directory: str) -> None:
    """Removes what a compaction that ended early has left."""
    with contextlib.suppress(OSError):
        for name in os.listdir(directory):
            if name.endswith(".cleaned") and layout.segment_offset(name.split(".", 1)[0] + ".log") is not None:
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(directory, name))
