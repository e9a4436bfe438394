"""Arrow struct arrays of records, gathered from columns.

What is exported owns nothing but plain memory, so that any thread can release it without the interpreter.
"""

from libc.stdint cimport INT32_MAX, int32_t, int64_t, uint8_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memset
from logstore._native.arrow_abi cimport ArrowArray
from logstore._native.arrow_schema cimport FIELDS
from logstore._native.core cimport LS_OK, ls_columns, ls_fault, ls_record_header, ls_record_header_next
from logstore._native.faults cimport raise_fault


cdef extern from "Python.h":
    object PyUnicode_DecodeUTF8(const char *bytes, Py_ssize_t size, const char *errors)
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL


cdef bint reserve(Buffer *buffer, size_t more) noexcept nogil:
    cdef size_t capacity
    cdef uint8_t *data
    if more <= buffer.capacity - buffer.size:
        return True
    capacity = buffer.capacity + buffer.capacity // 2
    if capacity < buffer.size + more:
        capacity = buffer.size + more
    if capacity < 64:
        capacity = 64
    data = <uint8_t *>realloc(buffer.data, capacity)
    if data == NULL:
        return False
    buffer.data = data
    buffer.capacity = capacity
    return True


cdef bint reserve_bits(Buffer *buffer, int64_t bits) noexcept nogil:
    """Room for so many bits in all; new ones are 0."""
    cdef size_t size = <size_t>((bits + 7) // 8)
    if size <= buffer.size:
        return True
    if not reserve(buffer, size - buffer.size):
        return False
    memset(buffer.data + buffer.size, 0, size - buffer.size)
    buffer.size = size
    return True


cdef inline void set_bit(Buffer *buffer, int64_t i) noexcept nogil:
    buffer.data[i >> 3] |= <uint8_t>(1 << (i & 7))


cdef void set_bits(Buffer *buffer, int64_t first, int64_t count) noexcept nogil:
    cdef int64_t end = first + count
    while first < end and first & 7:
        set_bit(buffer, first)
        first += 1
    memset(buffer.data + (first >> 3), 0xff, <size_t>((end - first) >> 3))
    first += (end - first) & ~7
    while first < end:
        set_bit(buffer, first)
        first += 1


cdef bint start_offsets(Buffer *offsets, size_t more) noexcept nogil:
    """Room for so many offsets more, behind the first one."""
    if not reserve(offsets, (more + 1) * sizeof(int32_t)):
        return False
    if offsets.size == 0:
        (<int32_t *>offsets.data)[0] = 0
        offsets.size = sizeof(int32_t)
    return True


cdef bint gather_strings(Strings *out, const uint8_t *origin, const int32_t *starts, const int32_t *sizes,
                         size_t count) noexcept nogil:
    cdef size_t i
    cdef size_t total = 0
    cdef int64_t nulls = 0
    cdef int32_t end
    cdef int32_t *offsets
    cdef uint8_t *at
    for i in range(count):
        if sizes[i] < 0:
            nulls += 1
        else:
            total += <size_t>sizes[i]
    if total > INT32_MAX - out.bytes.size:
        return False
    if not start_offsets(&out.offsets, count) or not reserve(&out.bytes, total if total > 0 else 1):
        return False
    if not reserve_bits(&out.validity, out.count + <int64_t>count):
        return False
    offsets = <int32_t *>(out.offsets.data + out.offsets.size)
    end = <int32_t>out.bytes.size
    at = out.bytes.data
    for i in range(count):
        if sizes[i] > 0:
            memcpy(at + end, origin + starts[i], sizes[i])
            end += sizes[i]
        offsets[i] = end
    if nulls == 0:
        set_bits(&out.validity, out.count, <int64_t>count)
    else:
        for i in range(count):
            if sizes[i] >= 0:
                set_bit(&out.validity, out.count + <int64_t>i)
    out.offsets.size += count * sizeof(int32_t)
    out.bytes.size = <size_t>end
    out.count += <int64_t>count
    out.null_count += nulls
    return True


cdef bint gather_one(Strings *out, const uint8_t *bytes, int32_t size) noexcept nogil:
    cdef int32_t start = 0
    return gather_strings(out, bytes, &start, &size, 1)


cdef bint is_ascii(const uint8_t *bytes, int32_t size) noexcept nogil:
    cdef int32_t i
    for i in range(size):
        if bytes[i] >= 0x80:
            return False
    return True


cdef bint gather_text(Strings *out, const uint8_t *bytes, int32_t size) except? False with gil:
    """A header's key that is not plain ASCII: bytes that are not UTF-8 become U+FFFD, as Kafka itself reads them,
    since an Arrow reader may rely on UTF-8."""
    cdef Py_ssize_t text_bytes = 0
    cdef const char *text
    decoded = PyUnicode_DecodeUTF8(<const char *>bytes, size, "replace")
    text = PyUnicode_AsUTF8AndSize(decoded, &text_bytes)
    return gather_one(out, <const uint8_t *>text, <int32_t>text_bytes)


cdef int gather_headers(Gathered *out, const uint8_t *origin, const uint8_t *origin_end, const int32_t *starts,
                        const int32_t *counts, size_t count) except -1 nogil:
    """1; 0 without memory."""
    cdef size_t i
    cdef int32_t _
    cdef const uint8_t *at
    cdef ls_record_header header
    cdef ls_fault fault
    cdef int32_t *offsets
    cdef bint done
    if not start_offsets(&out.headers_offsets, count):
        return 0
    offsets = <int32_t *>(out.headers_offsets.data + out.headers_offsets.size)
    for i in range(count):
        at = origin + starts[i]
        for _ in range(counts[i]):
            if ls_record_header_next(&at, origin_end, &header, &fault) != LS_OK:
                with gil:
                    raise_fault(&fault, "<memory>")
            if is_ascii(header.key, header.key_bytes):
                done = gather_one(&out.header_keys, header.key, header.key_bytes)
            else:
                done = gather_text(&out.header_keys, header.key, header.key_bytes)
            if not done or not gather_one(&out.header_values, header.value, header.value_bytes):
                return 0
        out.headers_count += counts[i]
        offsets[i] = <int32_t>out.headers_count
    out.headers_offsets.size += count * sizeof(int32_t)
    return 1


cdef int gather(Gathered *out, const ls_columns *columns, int32_t partition, const uint8_t *origin,
                const uint8_t *origin_end, size_t first, size_t count) except -1 nogil:
    cdef size_t i
    cdef int32_t *partitions
    cdef const int64_t *timestamps = columns.timestamps + first
    cdef int64_t nulls = 0
    if not reserve(&out.partitions, count * sizeof(int32_t)) or not reserve(&out.offsets, count * sizeof(int64_t)):
        return 0
    if not reserve(&out.timestamps, count * sizeof(int64_t)):
        return 0
    if not reserve_bits(&out.timestamp_validity, out.rows + <int64_t>count):
        return 0
    partitions = <int32_t *>(out.partitions.data + out.partitions.size)
    for i in range(count):
        partitions[i] = partition
    memcpy(out.offsets.data + out.offsets.size, columns.offsets + first, count * sizeof(int64_t))
    memcpy(out.timestamps.data + out.timestamps.size, timestamps, count * sizeof(int64_t))
    for i in range(count):
        nulls += timestamps[i] == -1
    if nulls == 0:
        set_bits(&out.timestamp_validity, out.rows, <int64_t>count)
    else:
        for i in range(count):
            if timestamps[i] != -1:
                set_bit(&out.timestamp_validity, out.rows + <int64_t>i)
    out.null_timestamps += nulls
    out.partitions.size += count * sizeof(int32_t)
    out.offsets.size += count * sizeof(int64_t)
    out.timestamps.size += count * sizeof(int64_t)
    if not gather_strings(&out.keys, origin, columns.key_starts + first, columns.key_bytes + first, count):
        return 0
    if not gather_strings(&out.values, origin, columns.value_starts + first, columns.value_bytes + first, count):
        return 0
    if not gather_headers(out, origin, origin_end, columns.headers_starts + first, columns.headers_counts + first,
                          count):
        return 0
    out.rows += <int64_t>count
    return 1


cdef size_t gathered_bytes(const Gathered *out) noexcept nogil:
    return out.keys.bytes.size + out.values.bytes.size + out.header_keys.bytes.size + out.header_values.bytes.size


cdef size_t rows_within(const ls_columns *columns, const uint8_t *origin, const uint8_t *origin_end, size_t first,
                        size_t count, size_t room) noexcept nogil:
    cdef size_t i
    cdef size_t used = 0
    cdef int32_t _
    cdef const uint8_t *at
    cdef ls_record_header header
    cdef ls_fault fault
    if <size_t>(origin_end - origin) <= room:
        return count
    for i in range(first, first + count):
        if columns.key_bytes[i] > 0:
            used += <size_t>columns.key_bytes[i]
        if columns.value_bytes[i] > 0:
            used += <size_t>columns.value_bytes[i]
        at = origin + columns.headers_starts[i]
        for _ in range(columns.headers_counts[i]):
            if ls_record_header_next(&at, origin_end, &header, &fault) != LS_OK:
                break
        used += <size_t>(at - (origin + columns.headers_starts[i]))
        if used > room:
            return i - first
    return count


cdef bint reserve_as(Buffer *buffer, const Buffer *last) noexcept nogil:
    return last.size == 0 or reserve(buffer, last.size + last.size // 16)


cdef bint reserve_strings_as(Strings *strings, const Strings *last) noexcept nogil:
    return (reserve_as(&strings.offsets, &last.offsets) and reserve_as(&strings.bytes, &last.bytes)
            and reserve_as(&strings.validity, &last.validity))


cdef bint reserve_all_as(Gathered *gathered, const Gathered *last) noexcept nogil:
    return (reserve_as(&gathered.partitions, &last.partitions) and reserve_as(&gathered.offsets, &last.offsets)
            and reserve_as(&gathered.timestamps, &last.timestamps)
            and reserve_as(&gathered.timestamp_validity, &last.timestamp_validity)
            and reserve_as(&gathered.headers_offsets, &last.headers_offsets)
            and reserve_strings_as(&gathered.keys, &last.keys) and reserve_strings_as(&gathered.values, &last.values)
            and reserve_strings_as(&gathered.header_keys, &last.header_keys)
            and reserve_strings_as(&gathered.header_values, &last.header_values))


cdef void free_strings(Strings *strings) noexcept nogil:
    free(strings.offsets.data)
    free(strings.bytes.data)
    free(strings.validity.data)


cdef void free_gathered(Gathered *gathered) noexcept nogil:
    free(gathered.partitions.data)
    free(gathered.offsets.data)
    free(gathered.timestamps.data)
    free(gathered.timestamp_validity.data)
    free(gathered.headers_offsets.data)
    free_strings(&gathered.keys)
    free_strings(&gathered.values)
    free_strings(&gathered.header_keys)
    free_strings(&gathered.header_values)
    memset(gathered, 0, sizeof(Gathered))


# ---- arrays --------------------------------------------------------------------------------------

cdef void release_array(ArrowArray *array) noexcept nogil:
    """Each array owns its buffers alone: a consumer may move a child out and release it later."""
    cdef int64_t i
    for i in range(array.n_children):
        if array.children[i] != NULL:
            if array.children[i].release != NULL:
                array.children[i].release(array.children[i])
            free(array.children[i])
    free(array.children)
    for i in range(array.n_buffers):
        free(<void *>array.buffers[i])
    free(array.buffers)
    memset(array, 0, sizeof(ArrowArray))


cdef bint open_array(ArrowArray *out, int64_t length, int64_t buffers, int64_t children) noexcept nogil:
    """An array without nulls whose buffers and children are still to come; False without memory."""
    cdef int64_t i
    memset(out, 0, sizeof(ArrowArray))
    out.length = length
    out.release = release_array
    out.buffers = <const void **>calloc(buffers, sizeof(void *))
    if out.buffers == NULL:
        return False
    out.n_buffers = buffers
    if children == 0:
        return True
    out.children = <ArrowArray **>calloc(children, sizeof(ArrowArray *))
    if out.children == NULL:
        return False
    out.n_children = children
    for i in range(children):
        out.children[i] = <ArrowArray *>calloc(1, sizeof(ArrowArray))
        if out.children[i] == NULL:
            return False
    return True


cdef void give(ArrowArray *out, int64_t i, Buffer *buffer) noexcept nogil:
    """Hands a buffer over to an array."""
    out.buffers[i] = buffer.data
    memset(buffer, 0, sizeof(Buffer))


cdef void give_validity(ArrowArray *out, Buffer *validity, int64_t null_count) noexcept nogil:
    out.null_count = null_count
    if null_count > 0:
        give(out, 0, validity)


cdef bint give_strings(ArrowArray *out, Strings *strings) noexcept nogil:
    if not open_array(out, strings.count, 3, 0):
        return False
    # Some readers look at the offsets and bytes of an array without elements.
    if not start_offsets(&strings.offsets, 0) or not reserve(&strings.bytes, 1):
        return False
    give_validity(out, &strings.validity, strings.null_count)
    give(out, 1, &strings.offsets)
    give(out, 2, &strings.bytes)
    return True


cdef bint give_all(ArrowArray *out, Gathered *gathered) noexcept nogil:
    cdef ArrowArray *headers
    cdef ArrowArray *item
    if not open_array(out, gathered.rows, 1, FIELDS):
        return False
    if not open_array(out.children[0], gathered.rows, 2, 0) or not open_array(out.children[1], gathered.rows, 2, 0):
        return False
    if not open_array(out.children[2], gathered.rows, 2, 0):
        return False
    give(out.children[0], 1, &gathered.partitions)
    give(out.children[1], 1, &gathered.offsets)
    give_validity(out.children[2], &gathered.timestamp_validity, gathered.null_timestamps)
    give(out.children[2], 1, &gathered.timestamps)
    if not give_strings(out.children[3], &gathered.keys) or not give_strings(out.children[4], &gathered.values):
        return False
    headers = out.children[5]
    if not open_array(headers, gathered.rows, 2, 1):
        return False
    give(headers, 1, &gathered.headers_offsets)
    item = headers.children[0]
    if not open_array(item, gathered.headers_count, 1, 2):
        return False
    return (give_strings(item.children[0], &gathered.header_keys)
            and give_strings(item.children[1], &gathered.header_values))
