# Records of one or several logs, one after the other.

from libc.stdint cimport int64_t
from logstore._native.core cimport ls_record, ls_record_iterator
from logstore._native.log_cursor cimport LogCursor
from logstore._native.record_batch cimport RecordBatch


# One log's place in a read: the batch it stands in, and the record looked at next.
cdef class Head:
    cdef LogCursor cursor
    cdef RecordBatch batch
    cdef ls_record_iterator iterator
    cdef ls_record raw
    cdef int64_t start_offset
    cdef int64_t stop_offset
    cdef bint ready         # raw is a record not handed out yet

    cdef bint advance(self) except -1
    cdef bint is_done(self) except -1
