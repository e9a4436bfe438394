# Records of one or several logs, one after the other.

from libc.stdint cimport int64_t
from logstore._native.log_cursor cimport LogCursor
from logstore._native.record_batch cimport Record, RecordFeed


# One log's place in a read, and the record it hands out next.
cdef class Head:
    cdef LogCursor cursor
    cdef RecordFeed feed
    cdef Record ready       # taken, and not handed out yet; None otherwise

    cdef Record take(self)
    cdef bint advance(self) except -1
    cdef bint is_done(self)
    cdef int64_t position(self)
