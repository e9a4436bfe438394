# Walking the batches of one log.

from libc.stdint cimport int64_t, uint8_t
from logstore._native.aborted_transactions cimport AbortedTransactions
from logstore._native.core cimport ls_batch_header, ls_fault, ls_status
from logstore._native.log_state cimport LogState
from logstore._native.record_batch cimport Chunk, RecordBatch
from logstore._native.segment cimport Segment


# Where the next batch of a segment has to stand: what its CRC does not cover.
cdef struct BatchPlace:
    int64_t least_base_offset           # offsets rise
    int64_t end_offset_max              # and stay within their segment
    bint contiguous                     # and leave no gap


cdef ls_status check_place(const BatchPlace *place, const ls_batch_header *header, int64_t position,
                           ls_fault *fault) noexcept nogil

cdef object out_of_range(LogState log, int64_t offset)


# Reads whole chunks of a log and hands out validated batches that point into them. One thread at a time.
cdef class LogCursor:
    cdef readonly LogState log
    cdef readonly int64_t next_offset   # of the next record wanted
    cdef readonly int64_t stop_offset   # exclusive
    cdef readonly bint committed        # stops at the last stable offset, passes over aborted transactions
    cdef AbortedTransactions aborted    # those that overlap [.., aborted_until); None for none
    cdef int64_t aborted_until
    cdef Segment segment                # NULL-like None: locate first
    cdef Chunk chunk
    cdef Chunk spare_chunk              # the one before, to read into again
    cdef int64_t chunk_position         # of the chunk's first byte in the segment
    cdef Py_ssize_t at                  # next batch in the chunk
    cdef int64_t least_base_offset      # what the next batch's base offset must reach
    cdef int64_t end_offset             # what could be read when reach() last said True
    cdef int64_t seen_truncations
    cdef int64_t seen_replacements
    cdef Py_ssize_t chunk_bytes
    cdef Py_ssize_t next_chunk_bytes

    cdef RecordBatch fetch_batch(self)
    cdef bint reach(self) except -1
    cdef bint reach_chunk(self) except -1
    cdef bint relocate(self) except -1
    cdef int look_up_aborted(self, int64_t start_offset) except -1
    cdef bint end_of_log(self, int64_t log_end_offset) except -1
    cdef bint reach_whole(self, const ls_fault *torn, bint in_place) except -1
    cdef BatchPlace next_place(self)
    cdef int start_at(self, int64_t position, int64_t base_offset) except -1
    cdef Chunk fresh_chunk(self, Py_ssize_t capacity)
    cdef bint locate(self) except -1
    cdef Segment open_segment(self, Segment segment)
    cdef bint next_segment(self) except -1
    cdef bint fill(self, Py_ssize_t needed) except -1
    cdef int read_into(self, Chunk chunk, Py_ssize_t at, Py_ssize_t size) except -1
    cdef int check_truncation(self) except -1
