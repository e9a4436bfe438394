# Appending records to one log.

from libc.stdint cimport int64_t
from logstore._native.batch_appender cimport BatchAppender
from logstore._native.core cimport ls_span
from logstore._native.spans cimport HeaderList


# The writer's half of a log, in layers: what all appends share (LogWriter), the open batch and its hand-over (LogBatcher),
# staged in a mapped file (LogStager), or collected for one flush (LogCollector); whole batches (BatchAppender), and records.
cdef class LogAppender(BatchAppender):
    cdef int64_t append_now(self, const ls_span *key, const ls_span *value) except -1
    cdef int64_t append_one(self, const ls_span *key, const ls_span *value, HeaderList headers,
                            int64_t timestamp, bint has_timestamp, int level,
                            int64_t expected_offset=*) except -1
    cdef int64_t append_spans(self, const ls_span *keys, const ls_span *values, const int64_t *timestamps,
                              Py_ssize_t count, HeaderList headers, int level,
                              int64_t expected_offset=*) except -1
