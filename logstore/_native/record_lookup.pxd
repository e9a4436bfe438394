# One record by its offset.

from libc.stdint cimport int32_t, int64_t, uint32_t
from logstore._native.log_state cimport LogState
from logstore._native.record_batch cimport Record, RecordBatch


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


# The record at an offset; None where the offset is of none: compacted away, or a marker.
cdef Record record_at(LogState log, int64_t offset)
cdef Record committed_record_at(LogState log, int64_t offset, object isolation_level)
