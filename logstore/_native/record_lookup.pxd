# One record by its offset, and the batches that are kept for it.

from libc.stdint cimport int32_t, int64_t, uint32_t
from logstore._native.log_state cimport LogState
from logstore._native.record_batch cimport Record, RecordBatch
from logstore._native.segment cimport Segment


# Where a record of a batch with gaps starts.
cdef struct Mark:
    int32_t delta               # its offset delta
    uint32_t at                 # from the start of the payload


# A batch that a look-up has read and validated.
cdef class CachedBatch:
    cdef RecordBatch batch      # None once it had to make room
    cdef size_t slot
    cdef Py_ssize_t size_bytes
    # Where each record starts, made when the batch is looked into again: of a batch without gaps by the offset delta, of
    # another as marks.
    cdef uint32_t *starts
    cdef Mark *marks
    cdef int32_t marks_count
    cdef bint in_order          # by timestamp, where `starts` are known
    # The time index's entry for the batch just before this one, once that batch has borne it out: see timestamp_lookup.
    cdef int64_t entry_timestamp
    cdef int64_t entry_offset


# The record at an offset; None where the offset is of none: compacted away, or a marker.
cdef Record record_at(LogState log, int64_t offset)
# The batch of a segment that holds an offset, as it is kept, read if need be; None where it is not kept, or not sound.
cdef CachedBatch kept_batch(LogState log, Segment segment, int64_t offset)
cdef Record committed_record_at(LogState log, int64_t offset, object isolation_level)
