# Aborted transactions, as readers of committed records look them up.

from libc.stdint cimport int64_t
from logstore._native.core cimport ls_batch_header


cdef struct AbortedRange:
    int64_t producer_id
    int64_t first_offset
    int64_t last_offset     # of the marker


# Whether a batch belongs to one of them; they are sorted by producer id and offset.
cdef bint is_aborted(const AbortedRange *ranges, size_t count, const ls_batch_header *header) noexcept nogil


cdef class AbortedTransactions:
    cdef AbortedRange *ranges
    cdef size_t count

    cdef bint holds(self, const ls_batch_header *header) noexcept nogil
