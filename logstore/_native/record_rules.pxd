# The rules that a topic sets for its records, as plain numbers: what runs once a record looks at them itself.

from libc.stdint cimport int64_t
from logstore._native.core cimport ls_span
from logstore._native.record_batch cimport RecordBatch
from logstore._native.spans cimport HeaderList


cdef struct RecordRules:
    int64_t message_bytes_max
    int64_t timestamp_before_max_ms     # INT64_MAX: any
    int64_t timestamp_after_max_ms
    bint append_time                    # records get the time of their append, whatever their own
    bint keys_required


cdef int check_record(const RecordRules *rules, str topic, const ls_span *key, const ls_span *value, HeaderList headers,
                      int64_t timestamp, int64_t now_ms) except -1
cdef int check_spans(const RecordRules *rules, str topic, const ls_span *keys, const ls_span *values,
                     const int64_t *timestamps, Py_ssize_t count, HeaderList headers, int64_t now_ms) except -1
cdef bint takes_unchecked(const RecordRules *rules, RecordBatch batch, int64_t now_ms)
