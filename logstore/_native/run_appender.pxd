# Appending many records in one call.

from libc.stdint cimport int64_t, uint8_t
from logstore._native.batch_appender cimport BatchAppender
from logstore._native.core cimport ls_span
from logstore._native.spans cimport HeaderList


cdef class RunAppender(BatchAppender):
    cdef int64_t append_spans(self, const ls_span *keys, const ls_span *values, const int64_t *timestamps,
                              Py_ssize_t count, HeaderList headers, int level,
                              int64_t expected_offset=*) except -1
    cdef Py_ssize_t encode_spans(self, const ls_span *keys, const ls_span *values, const int64_t *timestamps,
                                 Py_ssize_t count, HeaderList headers) except -1
    cdef Py_ssize_t append_run(self, const ls_span *keys, const ls_span *values, const int64_t *timestamps,
                               Py_ssize_t count, bint is_flushed) except -1
    cdef Py_ssize_t write_run(self, uint8_t *buffer, int64_t capacity_bytes, const ls_span *keys, const ls_span *values,
                              const int64_t *timestamps, Py_ssize_t count, bint is_flushed) except -1
