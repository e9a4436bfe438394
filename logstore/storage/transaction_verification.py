"""Checking the files that say what producers did: ``.snapshot`` and ``.txnindex``. Both are caches; the second has no
checksum but the one in `logstore.digests`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from logstore._native.checksum import crc32c
from logstore._native.producer_batches import ProducerBatches
from logstore._native.segment import Segment
from logstore.errors import CorruptDataError, StorageFailureError, UnsupportedFormatError
from logstore.storage import layout
from logstore.storage.files import read_bytes, refusals
from logstore.storage.log_producers import replay_plan
from logstore.storage.producer_snapshot import read_snapshot, snapshot_offsets, snapshot_path
from logstore.storage.producer_state import AbortedTransaction, ProducerState
from logstore.storage.segment_digests import SegmentDigests
from logstore.storage.segment_verification import FileFault
from logstore.storage.transaction_index import ENTRY_BYTES, decode_entries

__all__ = ["producer_faults"]

_SNAPSHOT_ADVICE = "no record is lost; delete it with the log closed: the next open replays the batches behind an older one"
_INDEX_ADVICE = "no record is lost; delete it with the log closed, and it is derived from the batches again"


def producer_faults(
    directory: str, bases: Sequence[int], end_offset: int, *, deep: bool, is_contiguous: bool,
    trust_ours: bool = True,
) -> Iterator[FileFault]:
    """What is wrong with a partition's snapshots and transaction indexes.

    Parameters
    ----------
    directory : str
    bases : sequence of int
        Base offsets of the segments, ascending.
    end_offset : int
        Where the sound part of the log ends.
    deep : bool
        Compare the indexes with the markers in the log, for which the headers of all batches are read.
    is_contiguous : bool
        Whether no batch was compacted away: otherwise an entry that is there may say more than the log.
    trust_ours : bool
        Whether our checksums are of what is there.

    Raises
    ------
    StorageFailureError
    """
    with refusals(directory, "list"):
        names = set(os.listdir(directory))
    snapshots = snapshot_offsets(names)
    for offset in snapshots:
        try:
            read_snapshot(directory, offset)
        except CorruptDataError as error:
            yield FileFault(snapshot_path(directory, offset), error.reason, _SNAPSHOT_ADVICE)
        except StorageFailureError:
            if os.path.exists(snapshot_path(directory, offset)):
                raise  # else a writer has put another in its place
    digests = SegmentDigests(directory) if trust_ours else None
    stored: dict[int, list[AbortedTransaction]] = {}
    for base, end in zip(bases, [*bases, 2**63 - 1][1:], strict=True):
        name = layout.segment_file_name(base, ".txnindex")
        path = os.path.join(directory, name)
        try:
            data = (read_bytes(path) if name in names else None) or b""
            known = digests.transaction_index(base) if digests is not None and data else None
            if known is not None and known[0] == len(data) and known[1] != crc32c(data):
                reason = f"it is not as it was written (expected CRC {known[1]:08x}, found {crc32c(data):08x})"
                raise CorruptDataError(path, -1, reason)
            entries = decode_entries(data, base, path)
        except CorruptDataError as error:
            yield FileFault(path, error.reason, _INDEX_ADVICE)
            continue
        beyond = [entry for entry in entries if entry.last_offset >= end]
        if beyond:
            yield FileFault(
                path, f"it gives a marker at offset {beyond[0].last_offset}, behind the segment's end", _INDEX_ADVICE
            )
            continue
        stored[base] = entries
    if deep and (snapshots or any(stored.values())):
        # Entries reach the file before a snapshot that relies on them.
        written_offset = max((offset for offset in snapshots if offset <= end_offset), default=0)
        yield from _compare(directory, bases, stored, end_offset, written_offset, is_contiguous)


def _compare(
    directory: str, bases: Sequence[int], stored: dict[int, list[AbortedTransaction]], end_offset: int, written_offset: int,
    is_contiguous: bool,
) -> Iterator[FileFault]:
    state = ProducerState(os.path.basename(directory))
    if bases and bases[0] > 0:
        try:
            state.restore(read_snapshot(directory, bases[0]))
        except (CorruptDataError, StorageFailureError):
            return  # what was open where the log begins is not known
    for base, end in zip(bases, [*bases[1:], end_offset], strict=True):
        if base not in stored:
            return  # what is open there is not known from here on
        path = os.path.join(directory, layout.segment_file_name(base))
        segment = Segment.sealed(path, base, max(end, base), index_interval_bytes=4096, index_bytes=10_485_760)
        derived = {}
        try:
            for header in ProducerBatches(segment, base, end) if end > base else ():
                plan = replay_plan(state, header)
                if plan is not None:
                    state.apply(plan)
                    if plan.aborted is not None:
                        derived[plan.aborted.last_offset] = plan.aborted
        except (CorruptDataError, UnsupportedFormatError):
            return  # damage, and named as such
        found = {entry.last_offset: entry for entry in stored[base]}
        index_path = os.path.join(directory, layout.segment_file_name(base, ".txnindex"))
        for offset in sorted(derived.keys() | found.keys()):
            entry, expected = found.get(offset), derived.get(offset)
            if expected is None and is_contiguous:
                yield FileFault(index_path, f"it gives an abort at offset {offset}, where there is none", _INDEX_ADVICE)
            elif entry is None and expected is not None and offset < written_offset:
                yield FileFault(index_path, f"it lacks the transaction aborted at offset {offset}", _INDEX_ADVICE)
            elif entry is not None and entry != expected and is_contiguous:
                number = stored[base].index(entry)
                yield FileFault(
                    index_path, f"entry {number}, at byte {number * ENTRY_BYTES}, is not what the log says", _INDEX_ADVICE
                )
