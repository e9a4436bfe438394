"""The first record at or after a time: the time index, then a batch that is kept as those looked up by offset are."""

from libc.stdint cimport int64_t, uint32_t
from logstore._native.core cimport (
    LS_ATTRIBUTE_CONTROL,
    LS_OK,
    ls_batch_header,
    ls_batch_last_offset,
    ls_batch_location,
    ls_fault,
    ls_record,
    ls_record_iterator,
    ls_record_iterator_init,
    ls_record_iterator_next,
    ls_segment_locate,
    ls_segment_time_index,
    ls_time_index_lookup,
)
from logstore._native.log_state cimport LogState
from logstore._native.record_lookup cimport CachedBatch, kept_batch
from logstore._native.segment cimport Segment

from logstore.errors import CorruptDataError, StorageFailureError


# Batches looked into behind the one that the time index leads to: it has an entry every 4 KiB, and batches may be smaller.
cdef enum:
    BATCHES_MAX = 2


def find_timestamp(LogState log not None, int64_t timestamp):
    """The first record of a log at or after a time, where that is simple to say.

    That is where it is not far behind an entry of the time index. Where batches are much smaller than the distance of
    entries, and where anything is odd, the segment has to be walked.

    Parameters
    ----------
    log : LogState
    timestamp : int
        Milliseconds UTC.

    Returns
    -------
    tuple[int, int] or None
        Its offset and timestamp; None where that can't be said here.

    Raises
    ------
    CorruptDataError
        The batch can't be decompressed.
    ClosedError

    Notes
    -----
    Thread-safe.
    """
    cdef Segment segment
    log.check_readable()
    if log.staged:
        log.surface()
    try:
        segment = first_segment(log.segment_list, timestamp)
    except (CorruptDataError, StorageFailureError):
        return None
    return None if segment is None else first_of(log, segment, timestamp)


cdef Segment first_segment(tuple segments, int64_t timestamp):
    """The first one with a record at or after a time, open."""
    cdef Segment segment
    for segment in segments:
        if segment.latest_timestamp() >= timestamp:
            return segment.opened()
    return None


cdef tuple first_of(LogState log, Segment segment, int64_t timestamp):
    """The same of a segment's records."""
    cdef int64_t entry_timestamp, entry_offset, wanted_offset, first_offset
    cdef CachedBatch entry
    cdef CachedBatch first = None
    cdef const ls_batch_header *header
    cdef int _
    first_offset = max(log.log_start_offset, segment.base_offset)
    ls_time_index_lookup(ls_segment_time_index(segment.segment), timestamp, &entry_timestamp, &entry_offset)
    if entry_timestamp < 0 or entry_offset < first_offset:
        return None
    # The entry's batch is the first with this time; all batches before it are earlier.
    wanted_offset = entry_offset if entry_timestamp == timestamp else entry_offset + 1
    for _ in range(BATCHES_MAX):
        if wanted_offset >= log.end_offset:
            return None
        entry = kept_batch(log, segment, wanted_offset)
        if entry is None or entry.batch is None:
            return None
        header = &entry.batch.header
        if header.base_offset < first_offset or ls_batch_last_offset(header) >= log.end_offset:
            return None
        if entry_timestamp == timestamp:
            if ls_batch_last_offset(header) != entry_offset or header.max_timestamp != entry_timestamp:
                return None
            return first_in(entry, timestamp)
        if header.base_offset != wanted_offset:
            return None
        if first is None:
            first = entry
        if header.max_timestamp >= timestamp:
            break
        wanted_offset = ls_batch_last_offset(header) + 1
    else:
        return None
    if first.entry_timestamp != entry_timestamp or first.entry_offset != entry_offset:
        if not is_borne_out(segment, entry_timestamp, entry_offset):
            return None
        first.entry_timestamp = entry_timestamp
        first.entry_offset = entry_offset
    return first_in(entry, timestamp)


cdef bint is_borne_out(Segment segment, int64_t timestamp, int64_t offset):
    """Whether the batch that an entry of the time index speaks of is as it says: after a crash the file says anything."""
    cdef ls_batch_location location
    cdef ls_fault fault
    return (ls_segment_locate(segment.segment, offset, &location, &fault) == LS_OK
            and ls_batch_last_offset(&location.header) == offset and location.header.max_timestamp == timestamp)


cdef tuple first_in(CachedBatch entry, int64_t timestamp):
    """The first record of a batch at or after a time: offset and timestamp."""
    cdef ls_record_iterator all_records, records
    cdef ls_record record
    cdef ls_fault fault
    cdef Py_ssize_t low = -1
    cdef Py_ssize_t high, middle
    if entry.batch.header.attributes & LS_ATTRIBUTE_CONTROL:
        return None
    entry.batch.open_payload()
    ls_record_iterator_init(&all_records, &entry.batch.header, entry.batch.payload, entry.batch.payload_end)
    if entry.starts != NULL and entry.in_order:
        high = entry.batch.header.records_count  # records up to `low` are earlier, those from `high` on are not
        while high - low > 1:
            middle = (low + high) // 2
            go_to(&all_records, entry.starts, middle, &records)
            if ls_record_iterator_next(&records, &record, &fault) != LS_OK:
                return None
            if record.timestamp < timestamp:
                low = middle
            else:
                high = middle
        if high == entry.batch.header.records_count:
            return None
        go_to(&all_records, entry.starts, high, &all_records)
    while ls_record_iterator_next(&all_records, &record, &fault) == LS_OK:
        if record.timestamp >= timestamp:
            return record.offset, record.timestamp
    return None


cdef inline void go_to(const ls_record_iterator *first, const uint32_t *starts, Py_ssize_t number,
                       ls_record_iterator *out) noexcept:
    out[0] = first[0]
    out.at += starts[number]
    out.previous_delta = <int>number - 1
    out.remaining -= <int>number
