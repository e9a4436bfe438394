# What callers say of an append, as numbers.

from libc.stdint cimport int64_t


cdef enum Level:
    LEVEL_BUFFERED = 0
    LEVEL_APPENDED = 1
    LEVEL_FLUSHED = 2


cdef int level_of(object durability, int default) except -1
cdef int64_t timestamp_of(object timestamp) except? -1
cdef int64_t expected_of(object expected_offset) except? -2
cdef const int64_t[::1] timestamps_view(object timestamps, Py_ssize_t count)
