# One record by its offset.

from libc.stdint cimport int32_t, int64_t, uint32_t
from logstore._native.log_state cimport LogState
from logstore._native.record_batch cimport Record, RecordBatch


# Where every second record of a batch starts.
cdef struct Mark:
    int32_t previous_delta      # offset delta of the record before it, -1 for none
    uint32_t at                 # from the start of the payload


# A batch that a look-up has read and validated.
cdef class CachedBatch:
    cdef RecordBatch batch      # None once it had to make room
    # What a look-up asks of the batch, here too, so that it waits for one object and not for two.
    cdef int64_t base_offset
    cdef int64_t last_offset
    cdef int64_t log_number     # which log, and in what state: another one makes this batch none of it
    cdef int64_t truncation_count
    cdef int64_t replacement_count
    cdef size_t payload         # its address
    cdef double offset_bytes    # what an offset takes of it, on average
    cdef Py_ssize_t size_bytes
    cdef Mark *marks            # made when the batch is looked into again
    cdef int32_t marks_count
    cdef bint used              # since it was last considered to make room

    cdef bint serves(self, LogState log, int64_t offset)


# The record at an offset; None where the offset is of none: compacted away, or a marker.
cdef Record record_at(LogState log, int64_t offset)
cdef Record committed_record_at(LogState log, int64_t offset, object isolation_level)
