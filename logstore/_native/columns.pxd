# Records as columns.

from libc.stdint cimport int32_t, int64_t, uint8_t
from logstore._native.column_walk cimport ColumnMemory
from logstore._native.columns_ahead cimport ColumnsAhead
from logstore._native.log_cursor cimport LogCursor
from logstore._native.log_state cimport LogState
from logstore._native.record_batch cimport RecordBatch


# Records [first, first + count) of the columns, over the bytes that all starts count from. Immutable.
cdef class ColumnBatch:
    cdef readonly str topic
    cdef readonly int partition
    cdef readonly str path              # file the records came from, for errors
    cdef ColumnMemory memory
    cdef object owner                   # Chunk or decompressed payload; exports the buffer
    cdef const uint8_t *origin          # of that buffer
    cdef const uint8_t *origin_end
    cdef Py_ssize_t first
    cdef Py_ssize_t count
    cdef dict arrays

    cdef object column(self, str name, const void *start, str dtype)
    cdef Py_ssize_t index_of(self, object i) except -1


# Walks a log chunk by chunk and makes columns of what it reads. One thread at a time.
cdef class ColumnCursor:
    cdef LogState log
    cdef LogCursor cursor
    cdef ColumnMemory memory
    cdef ColumnMemory spare_memory
    cdef ColumnsAhead ahead

    cdef ColumnMemory fresh_memory(self)
    cdef ColumnBatch fetch_columns(self)
    cdef ColumnBatch fetch_ahead(self)
    cdef int decode_compressed(self, ColumnMemory memory, RecordBatch batch) except -1
