"""The rules that a topic sets for its records; what the format needs is checked where they are encoded."""

from libc.stdint cimport INT64_MAX, int64_t
from logstore._native.core cimport (
    LS_BATCH_HEADER_BYTES,
    ls_batch_size_bytes,
    ls_record_size_bytes_max,
    ls_span,
)
from logstore._native.record_batch cimport RecordBatch
from logstore._native.spans cimport HeaderList

from logstore.errors import InvalidRecordError, InvalidTimestampError, RecordTooLargeError


cdef int check_record(const RecordRules *rules, str topic, const ls_span *key, const ls_span *value, HeaderList headers,
                      int64_t timestamp, int64_t now_ms) except -1:
    """Refuses what a rule forbids. ``timestamp`` is the caller's, or ``now_ms``."""
    cdef int64_t size
    if rules.keys_required and key.size_bytes < 0:
        raise InvalidRecordError(
            f"{topic} is compacted, so every record needs a key (an empty one is fine); nothing was appended"
        )
    size = LS_BATCH_HEADER_BYTES + <int64_t>ls_record_size_bytes_max(
        key.size_bytes, value.size_bytes, headers.items if headers is not None else NULL,
        headers.count if headers is not None else 0)
    if size > rules.message_bytes_max:
        raise RecordTooLargeError(
            f"a record of about {size} bytes is over the limit of {rules.message_bytes_max} bytes of {topic}; "
            "raise max.message.bytes (and segment.bytes), or store a reference to the data"
        )
    if timestamp < -1:
        raise InvalidRecordError(f"a timestamp must be -1 or later, not {timestamp}")
    if timestamp >= 0 and not rules.append_time and (
        (rules.timestamp_before_max_ms != INT64_MAX and now_ms - timestamp > rules.timestamp_before_max_ms)
        or (rules.timestamp_after_max_ms != INT64_MAX and timestamp - now_ms > rules.timestamp_after_max_ms)
    ):
        raise InvalidTimestampError(
            f"timestamp {timestamp} is {timestamp - now_ms} ms from now; {topic} allows "
            f"{rules.timestamp_before_max_ms} ms before and {rules.timestamp_after_max_ms} ms after "
            "(message.timestamp.before.max.ms, message.timestamp.after.max.ms); is it in milliseconds?"
        )
    return 0


cdef int check_spans(const RecordRules *rules, str topic, const ls_span *keys, const ls_span *values,
                     const int64_t *timestamps, Py_ssize_t count, HeaderList headers, int64_t now_ms) except -1:
    """All records are judged before the first is appended."""
    cdef Py_ssize_t i
    cdef ls_span no_key
    cdef int64_t headers_bytes = 0
    cdef int64_t room
    cdef bint plain
    cdef Py_ssize_t doubtful = -1
    no_key.bytes = NULL
    no_key.size_bytes = -1
    if headers is not None:
        for i in range(headers.count):
            headers_bytes += headers.items[i].key_bytes + max(headers.items[i].value_bytes, 0) + 10
    # A record is plain when no rule can refuse it; the others are looked at one by one.
    room = rules.message_bytes_max - LS_BATCH_HEADER_BYTES - headers_bytes - 32
    plain = not rules.keys_required and (timestamps == NULL or (
        rules.append_time or (rules.timestamp_before_max_ms == INT64_MAX
                              and rules.timestamp_after_max_ms == INT64_MAX)))
    with nogil:
        for i in range(count):
            if (not plain or (timestamps != NULL and timestamps[i] < -1)
                    or <int64_t>values[i].size_bytes + (keys[i].size_bytes if keys != NULL else 0) > room):
                doubtful = i
                break
    if doubtful >= 0:
        for i in range(doubtful, count):
            try:
                check_record(rules, topic, &keys[i] if keys != NULL else &no_key, &values[i], headers,
                             timestamps[i] if timestamps != NULL else now_ms, now_ms)
            except Exception as error:
                error.add_note(f"This is record {i} of {count}; none was appended.")
                raise
    return 0


cdef bint takes_unchecked(const RecordRules *rules, RecordBatch batch, int64_t now_ms):
    """Whether no rule of the topic can refuse a batch, going by its header and by what its producer saw to."""
    if not batch.is_stampable or ls_batch_size_bytes(&batch.header) > rules.message_bytes_max:
        return False
    if rules.keys_required and batch.lacks_a_key:
        return False
    return rules.append_time or (
        rules.timestamp_before_max_ms == INT64_MAX
        and batch.header.max_timestamp - now_ms <= rules.timestamp_after_max_ms)
