# A segment with a Python lifetime.

from libc.stdint cimport int32_t, int64_t
from logstore._native.core cimport ls_batch_location, ls_segment, ls_segment_options, ls_segment_state


# Readers that hold a Segment hold its files: the descriptor closes when the last of them lets go.
cdef class Segment:
    cdef ls_segment *segment            # NULL until a sealed segment is first used
    cdef readonly str path              # of the .log file
    cdef readonly int64_t base_offset
    cdef readonly bint writable
    cdef readonly bint doubtful_index   # an index file was missing or wrong and was rebuilt in memory
    cdef readonly int64_t created_ms
    cdef ls_segment_options options
    cdef size_t offset_entries_written  # entries already in the index files
    cdef size_t time_entries_written
    cdef bint knows_facts               # what `facts` found, once it can't change any more
    cdef int64_t known_size_bytes
    cdef int64_t known_max_timestamp
    cdef int64_t known_modified_ms
    cdef bint counted                   # among the sealed segments that are open

    cdef void know_facts(self, int64_t size_bytes, int64_t max_timestamp, int64_t modified_ms) noexcept
    cdef int64_t latest_timestamp(self) except? -2
    cdef int ensure_open(self) except -1
    cdef Segment opened(self)
    cdef int open_file(self, int mode, const ls_segment_state *state) except -1
    cdef int load_indexes(self, int64_t trusted_bytes, int64_t trusted_offset) except -1
    cdef int rebuild_sealed(self, int64_t size_bytes) except -1
    cdef int locate_batch(self, int64_t offset, ls_batch_location *location) except -1


cdef Segment make_segment(str path, int64_t base_offset, int64_t end_offset_max, int32_t index_interval_bytes,
                          int64_t index_bytes, bint contiguous, bint writable)

# Of a segment without batches.
cdef void empty_state(ls_segment_state *state, int64_t base_offset)
