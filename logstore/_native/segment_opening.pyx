"""Opening the active segment of an existing log: what is known of it is used, and the rest is scanned."""

from libc.stdint cimport INT64_MAX, int32_t, int64_t
from logstore._native.core cimport (
    LS_FILE_READ,
    LS_FILE_WRITE,
    ls_batch_last_offset,
    ls_batch_location,
    ls_offset_index,
    ls_offset_index_count,
    ls_offset_index_entry,
    ls_segment_offset_index,
    ls_segment_state,
    ls_segment_time_index,
    ls_time_index,
    ls_time_index_count,
    ls_time_index_entry,
    ls_time_index_truncate,
)
from logstore._native.segment cimport Segment, empty_state, make_segment

import os

from logstore.errors import CorruptDataError, UnsupportedFormatError


def reopen_segment(str path, int64_t base_offset, *, int32_t index_interval_bytes, int64_t index_bytes,
                   int64_t trusted_bytes, int64_t trusted_offset, bint writable, bint deep=True, bint contiguous=False):
    """Opens the active segment of an existing log: its index files are used up to ``trusted_bytes``, and the
    rest of the .log is scanned.

    Parameters
    ----------
    trusted_bytes : int
        Up to here, a batch boundary, the file is known to be sound and on disk; 0 if nothing is known.
    trusted_offset : int
        Next offset at that boundary.
    deep : bool
        Whether the scan verifies CRCs or structure alone.

    Returns
    -------
    tuple[Segment, SegmentScan]

    Raises
    ------
    StorageFailureError
        The file can't be opened or read.
    CorruptDataError
        The file is shorter than what was known to be on disk, or the trusted part does not start a batch.
    """
    cdef Segment made = make_segment(path, base_offset, INT64_MAX, index_interval_bytes, index_bytes, contiguous,
                                     writable)
    cdef ls_segment_state state
    cdef int64_t size = os.path.getsize(path)
    cdef int64_t position = 0
    cdef int64_t next_offset = base_offset
    cdef int64_t offset = 0
    cdef int32_t entry_position = 0
    cdef ls_offset_index *offset_index
    cdef ls_time_index *time_index
    cdef size_t count
    cdef int64_t timestamp = -1
    cdef int64_t timestamp_offset = -1
    if size < trusted_bytes:
        raise CorruptDataError(
            path, size, "the file is shorter than what was flushed", trusted_bytes, size,
            "Acknowledged records are gone from it: restore the file, or open read_only=True to read the rest.",
        )
    empty_state(&state, base_offset)
    if trusted_bytes > 0:
        state.size_bytes = trusted_bytes
        state.next_offset = trusted_offset
    made.open_file(LS_FILE_WRITE if writable else LS_FILE_READ, &state)
    if trusted_bytes > 0:
        made.load_indexes(trusted_bytes, trusted_offset)
        offset_index = ls_segment_offset_index(made.segment)
        time_index = ls_segment_time_index(made.segment)
        count = ls_offset_index_count(offset_index)
        if count > 0:
            # The scan starts at the last batch with an entry: what the entries after it would say about
            # timestamps is only known from the batches.
            ls_offset_index_entry(offset_index, count - 1, &offset, &entry_position)
            position = entry_position
            if count > 1:
                ls_offset_index_entry(offset_index, count - 2, &next_offset, &entry_position)
                next_offset += 1
        if ls_time_index_count(time_index) > 0:
            ls_time_index_entry(time_index, ls_time_index_count(time_index) - 1, &timestamp, &timestamp_offset)
            if timestamp_offset >= next_offset and position > 0:
                ls_time_index_truncate(time_index, next_offset)
    scan = scan_from(made, position, next_offset, trusted_bytes, deep)
    if contiguous and position > 0 and not made.doubtful_index and not holds(made, offset, position):
        # The batch at the last entry has another offset than the entry says; no CRC covers it.
        made.doubtful_index = True
        scan = made.recover(0, base_offset, deep=deep)
    return made, scan


def resume_segment(str path, int64_t base_offset, *, int32_t index_interval_bytes, int64_t index_bytes,
                   int64_t size_bytes, int64_t next_offset, int64_t max_timestamp, int64_t max_timestamp_offset,
                   int64_t first_batch_max_timestamp, int32_t last_leader_epoch, size_t offset_entries,
                   size_t time_entries, bint writable, bint contiguous=False):
    """Opens the active segment of an existing log where all is known of its first part: the rest alone is scanned.

    Parameters
    ----------
    size_bytes, next_offset, max_timestamp, max_timestamp_offset, first_batch_max_timestamp, last_leader_epoch : int
        `state` at a batch boundary.
    offset_entries, time_entries : int
        Index entries that the files hold of that part.

    Returns
    -------
    tuple[Segment, SegmentScan] or None
        None where file or indexes do not bear it out.

    Raises
    ------
    StorageFailureError
        The file can't be opened or read.
    """
    cdef Segment made = make_segment(path, base_offset, INT64_MAX, index_interval_bytes, index_bytes, contiguous,
                                     writable)
    cdef ls_segment_state state
    empty_state(&state, base_offset)
    state.size_bytes = size_bytes
    state.next_offset = next_offset
    state.max_timestamp = max_timestamp
    state.max_timestamp_offset = max_timestamp_offset
    state.first_batch_max_timestamp = first_batch_max_timestamp
    state.last_leader_epoch = last_leader_epoch
    if os.path.getsize(path) < size_bytes:
        return None
    made.open_file(LS_FILE_WRITE if writable else LS_FILE_READ, &state)
    made.load_indexes(size_bytes, next_offset)
    # (The time index may have got one more since, for a timestamp below the boundary.)
    if made.doubtful_index or made.offset_entries_written != offset_entries or made.time_entries_written < time_entries:
        return None
    scan = made.recover(size_bytes, next_offset)
    # The batches on both sides of the boundary must meet there.
    last = made.locate(next_offset - 1)
    if last is None or last[0] + last[1] != size_bytes or last[3] != next_offset - 1:
        return None
    if scan.batches_count > 0:
        first = made.locate(next_offset)
        if first is None or first[0] != size_bytes or (contiguous and first[2] != next_offset):
            return None
    return made, scan


cdef bint holds(Segment segment, int64_t last_offset, int64_t position) except -1:
    cdef ls_batch_location location
    try:
        return (segment.locate_batch(last_offset, &location) and location.position == position
                and ls_batch_last_offset(&location.header) == last_offset)
    except (CorruptDataError, UnsupportedFormatError):  # the scan that follows says what is wrong
        return False


cdef object scan_from(Segment segment, int64_t position, int64_t next_offset, int64_t trusted_bytes, bint deep):
    """Scans from a batch boundary; a boundary that does not hold (a wrong index) costs a scan from 0."""
    scan = segment.recover(position, next_offset, deep=deep)
    if position > 0 and scan.valid_bytes < trusted_bytes:
        segment.doubtful_index = True
        scan = segment.recover(0, segment.base_offset, deep=deep)
    return scan
