"""Aborted transactions, as readers of committed records look them up: once a batch, without the GIL."""

cimport cython
from libc.stdlib cimport free, malloc
from logstore._native.core cimport LS_ATTRIBUTE_CONTROL, LS_ATTRIBUTE_TRANSACTIONAL, ls_batch_header


cdef bint is_aborted(const AbortedRange *ranges, size_t count, const ls_batch_header *header) noexcept nogil:
    cdef size_t low = 0
    cdef size_t high = count
    cdef size_t middle
    if header.attributes & (LS_ATTRIBUTE_TRANSACTIONAL | LS_ATTRIBUTE_CONTROL) != LS_ATTRIBUTE_TRANSACTIONAL:
        return False
    # The last range at or before (producer id, offset): a producer's transactions follow one another.
    while low < high:
        middle = (low + high) // 2
        if ranges[middle].producer_id < header.producer_id or (
            ranges[middle].producer_id == header.producer_id and ranges[middle].first_offset <= header.base_offset
        ):
            low = middle + 1
        else:
            high = middle
    return (low > 0 and ranges[low - 1].producer_id == header.producer_id
            and header.base_offset < ranges[low - 1].last_offset)


@cython.final
cdef class AbortedTransactions:
    """Some aborted transactions. Immutable.

    Parameters
    ----------
    transactions : sequence of (int, int, int, ...)
        Producer id, first offset, last offset of each.
    """

    def __cinit__(self, transactions):
        cdef list ordered = sorted(transactions)
        cdef Py_ssize_t i
        self.ranges = <AbortedRange *>malloc(max(len(ordered), 1) * sizeof(AbortedRange))
        if self.ranges == NULL:
            raise MemoryError("no memory for a list of aborted transactions")
        for i in range(len(ordered)):
            entry = ordered[i]
            self.ranges[i].producer_id = entry[0]
            self.ranges[i].first_offset = entry[1]
            self.ranges[i].last_offset = entry[2]
        self.count = len(ordered)

    def __dealloc__(self):
        free(self.ranges)

    def __len__(self):
        return self.count

    cdef bint holds(self, const ls_batch_header *header) noexcept nogil:
        return is_aborted(self.ranges, self.count, header)
