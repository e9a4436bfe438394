"""Expiry by a header of each record: how far a log has expired from its start, read without the GIL."""

from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t
from libc.string cimport memcmp
from logstore._native.core cimport (
    LS_ATTRIBUTE_CONTROL,
    LS_END,
    LS_OK,
    ls_batch_header,
    ls_fault,
    ls_record,
    ls_record_header,
    ls_record_header_next,
    ls_record_iterator,
    ls_record_iterator_init,
    ls_record_iterator_next,
    ls_status,
)
from logstore._native.log_cursor cimport LogCursor
from logstore._native.record_batch cimport RecordBatch, raise_in_batch

# Of a record that never expires: it has no such header, or one that says nothing.
cdef int64_t NEVER = INT64_MAX


def first_unexpired(LogCursor cursor not None, bytes name not None, int64_t now_ms):
    """Reads on until a record has not expired.

    Parameters
    ----------
    cursor : LogCursor
    name : bytes
        The header's name; of several, a record's last one counts. Its value is text: milliseconds since 1970, or a whole
        number with a unit (``90s``, ``7d``) from the record's timestamp on. Anything else never expires.
    now_ms : int

    Returns
    -------
    tuple[int, int]
        The record's offset, or where the log ends; and when it expires, -1 for never.

    Raises
    ------
    CorruptDataError, OffsetOutOfRangeError
    """
    cdef int64_t start = cursor.next_offset
    cdef int64_t offset = -1
    cdef int64_t expires_ms = NEVER
    cdef const uint8_t *wanted = name
    cdef int32_t wanted_bytes = <int32_t>len(name)
    cdef RecordBatch batch
    cdef ls_fault fault
    cdef ls_status status
    while True:
        batch = cursor.next_batch()
        if batch is None:
            return cursor.next_offset, -1
        if batch.header.records_count == 0 or batch.header.attributes & LS_ATTRIBUTE_CONTROL:
            continue
        batch.open_payload()
        with nogil:
            status = scan_batch(&batch.header, batch.payload, batch.payload_end, wanted, wanted_bytes, start, now_ms,
                                &offset, &expires_ms, &fault)
        if status == LS_OK:
            return offset, -1 if expires_ms == NEVER else expires_ms
        if status != LS_END:
            raise_in_batch(batch, &fault)


cdef ls_status scan_batch(const ls_batch_header *header, const uint8_t *payload, const uint8_t *payload_end,
                          const uint8_t *name, int32_t name_bytes, int64_t start, int64_t now_ms, int64_t *offset,
                          int64_t *expires_ms, ls_fault *fault) noexcept nogil:
    """LS_OK: a record that has not expired; LS_END: none in this batch."""
    cdef ls_record_iterator iterator
    cdef ls_record record
    cdef ls_status status
    ls_record_iterator_init(&iterator, header, payload, payload_end)
    while True:
        status = ls_record_iterator_next(&iterator, &record, fault)
        if status != LS_OK:
            return status
        if record.offset < start:
            continue
        expires_ms[0] = expiry_of(&record, name, name_bytes, fault)
        if expires_ms[0] > now_ms:
            offset[0] = record.offset
            return LS_OK


cdef int64_t expiry_of(const ls_record *record, const uint8_t *name, int32_t name_bytes, ls_fault *fault) noexcept nogil:
    cdef const uint8_t *at = record.headers
    cdef const uint8_t *end = record.headers + record.headers_bytes
    cdef ls_record_header header
    cdef int64_t found = NEVER
    cdef int32_t _
    for _ in range(record.headers_count):
        if ls_record_header_next(&at, end, &header, fault) != LS_OK:
            return NEVER  # the record was parsed, so its headers are whole
        if header.key_bytes == name_bytes and memcmp(header.key, name, name_bytes) == 0:
            found = read_expiry(header.value, header.value_bytes, record.timestamp)
    return found


cdef int64_t read_expiry(const uint8_t *text, int32_t text_bytes, int64_t timestamp) noexcept nogil:
    cdef int64_t number = 0
    cdef int64_t scale
    cdef uint8_t zero = b"0"
    cdef int32_t i = 0
    while i < text_bytes and b"0" <= text[i] <= b"9":
        if i >= 18:
            return NEVER
        number = number * 10 + (text[i] - zero)
        i += 1
    if i <= 0:
        return NEVER
    if i == text_bytes:
        return number
    scale = unit_ms(text + i, text_bytes - i)
    if scale == 0 or timestamp < 0 or number > (NEVER - 1 - timestamp) // scale:
        return NEVER
    return timestamp + number * scale


cdef int64_t unit_ms(const uint8_t *text, int32_t text_bytes) noexcept nogil:
    """Milliseconds of a unit; 0 for none."""
    if text_bytes == 2 and text[0] == b"m" and text[1] == b"s":
        return 1
    if text_bytes != 1:
        return 0
    if text[0] == b"s":
        return 1_000
    if text[0] == b"m":
        return 60_000
    if text[0] == b"h":
        return 3_600_000
    if text[0] == b"d":
        return 86_400_000
    if text[0] == b"w":
        return 604_800_000
    return 0
