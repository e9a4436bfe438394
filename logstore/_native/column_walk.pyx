"""Batch after batch of a piece of a log into columns, without the GIL."""

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy
from logstore._native.aborted_transactions cimport is_aborted
from logstore._native.core cimport (
    LS_ATTRIBUTE_CONTROL,
    LS_BATCH_HEADER_BYTES,
    LS_CODEC_NONE,
    LS_NO_MEMORY,
    LS_OK,
    LS_TORN,
    ls_batch_codec,
    ls_batch_header,
    ls_batch_last_offset,
    ls_batch_size_bytes,
    ls_batch_validate,
    ls_columns,
    ls_columns_append,
    ls_fault,
    ls_record,
    ls_record_iterator,
    ls_record_iterator_init,
    ls_record_iterator_next,
    ls_status,
)
from logstore._native.log_cursor cimport check_place

cdef size_t FIRST_CAPACITY = 1024
# Length, attributes, two deltas, key length, value length, headers count: a byte each.
cdef int LEAST_RECORD_BYTES = 7


@cython.final
cdef class ColumnMemory:
    """Columns as plain memory; arrays keep it alive. Read-only to Python."""

    def __dealloc__(self):
        free(self.columns.offsets)

    def __getbuffer__(self, Py_buffer *view, int flags):
        PyBuffer_FillInfo(view, self, self.columns.offsets, <Py_ssize_t>(self.columns.capacity * COLUMN_ROW_BYTES), 1, flags)


cdef bint grow(ls_columns *old, size_t rows) noexcept nogil:
    """Room for `rows` more; False without memory."""
    cdef ls_columns grown
    cdef size_t capacity = old.capacity * 2
    cdef size_t count = old.count
    cdef uint8_t *data
    if capacity < FIRST_CAPACITY:
        capacity = FIRST_CAPACITY
    if capacity < count + rows:
        capacity = count + rows
    # No column a multiple of 4096 bytes from the next: written side by side, they would share the cache's sets.
    capacity = (capacity | 1023) + 145
    data = <uint8_t *>malloc(capacity * COLUMN_ROW_BYTES)
    if data == NULL:
        return False
    grown.capacity = capacity
    grown.count = count
    grown.offsets = <int64_t *>data
    grown.timestamps = grown.offsets + capacity
    grown.key_starts = <int32_t *>(grown.timestamps + capacity)
    grown.key_bytes = grown.key_starts + capacity
    grown.value_starts = grown.key_bytes + capacity
    grown.value_bytes = grown.value_starts + capacity
    grown.headers_starts = grown.value_bytes + capacity
    grown.headers_counts = grown.headers_starts + capacity
    if count > 0:
        memcpy(grown.offsets, old.offsets, count * 8)
        memcpy(grown.timestamps, old.timestamps, count * 8)
        memcpy(grown.key_starts, old.key_starts, count * 4)
        memcpy(grown.key_bytes, old.key_bytes, count * 4)
        memcpy(grown.value_starts, old.value_starts, count * 4)
        memcpy(grown.value_bytes, old.value_bytes, count * 4)
        memcpy(grown.headers_starts, old.headers_starts, count * 4)
        memcpy(grown.headers_counts, old.headers_counts, count * 4)
    free(old.offsets)
    old[0] = grown
    return True


cdef ls_status append_batch(ls_columns *columns, const ls_batch_header *header, const uint8_t *payload,
                            const uint8_t *payload_end, const uint8_t *origin, ls_fault *fault) noexcept nogil:
    """The records of one batch behind those in the columns, which grow as its records need: no more than its bytes
    can hold, whatever it claims."""
    cdef ls_record_iterator iterator
    cdef ls_record record
    cdef ls_status status
    cdef size_t room = columns.capacity - columns.count
    if header.records_count > 0 and <size_t>header.records_count > room:
        if header.records_count > (payload_end - payload) // LEAST_RECORD_BYTES:
            ls_record_iterator_init(&iterator, header, payload, payload_end)
            while True:
                status = ls_record_iterator_next(&iterator, &record, fault)
                if status != LS_OK:
                    return status
        if not grow(columns, header.records_count):
            fault.status = LS_NO_MEMORY
            fault.reason = "no memory for the columns of a batch"
            fault.position = -1
            return LS_NO_MEMORY
    return ls_columns_append(columns, header, payload, payload_end, origin, fault)


cdef size_t lower_bound(const int64_t *offsets, size_t count, int64_t target) noexcept nogil:
    cdef size_t low = 0
    cdef size_t middle
    while low < count:
        middle = (low + count) // 2
        if offsets[middle] < target:
            low = middle + 1
        else:
            count = middle
    return low


cdef Stop walk_chunk(Walk *walk, ls_columns *columns) noexcept nogil:
    """Validates batch after batch and appends their records; leaves `at` behind the last one it took."""
    cdef ls_status status
    cdef Py_ssize_t size_bytes
    while walk.at < walk.end:
        status = ls_batch_validate(walk.at, walk.end, walk.position, &walk.header, &walk.fault)
        if status == LS_OK:
            status = check_place(&walk.place, &walk.header, walk.position, &walk.fault)
        if status != LS_OK:
            return STOP_TORN if status == LS_TORN else STOP_FAULT
        if walk.header.base_offset >= walk.limit:
            return STOP_LIMIT
        size_bytes = <Py_ssize_t>ls_batch_size_bytes(&walk.header)
        if (ls_batch_last_offset(&walk.header) >= walk.start_offset
                and not walk.header.attributes & LS_ATTRIBUTE_CONTROL
                and not (walk.aborted_count and is_aborted(walk.aborted, walk.aborted_count, &walk.header))):
            if ls_batch_codec(&walk.header) != LS_CODEC_NONE and walk.header.records_count > 0:
                return STOP_COMPRESSED
            status = append_batch(columns, &walk.header, walk.at + LS_BATCH_HEADER_BYTES, walk.at + size_bytes,
                                  walk.origin, &walk.fault)
            if status != LS_OK:
                return STOP_FAULT_IN_RECORDS
        walk.place.least_base_offset = ls_batch_last_offset(&walk.header) + 1
        walk.at += size_bytes
        walk.position += size_bytes
    return STOP_CHUNK_END
