"""The index files of a segment, read with distrust: what can't be used is made anew from the batches."""

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t
from logstore._native.core cimport (
    LS_BATCH_HEADER_BYTES,
    LS_BATCH_OVERHEAD_BYTES,
    LS_OFFSET_INDEX_ENTRY_BYTES,
    LS_OK,
    LS_TIME_INDEX_ENTRY_BYTES,
    ls_fault,
    ls_offset_index,
    ls_offset_index_count,
    ls_offset_index_entry,
    ls_offset_index_load,
    ls_offset_index_truncate_position,
    ls_segment,
    ls_segment_offset_index,
    ls_segment_time_index,
    ls_time_index,
    ls_time_index_count,
    ls_time_index_entry,
    ls_time_index_load,
    ls_time_index_truncate,
)
from logstore._native.faults cimport raise_fault

import os


cdef bytes read_whole(str path):
    """The bytes of an index file, or None where there is none to trust."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        with open(descriptor, "rb", closefd=False) as file:
            return file.read()
    except OSError:
        return None
    finally:
        os.close(descriptor)


cdef Py_ssize_t whole_entries(bytes data, Py_ssize_t entry_bytes):
    """Size without a cut-off entry and without the zeros of preallocation; the first entry may be zero."""
    cdef Py_ssize_t size = len(data) - len(data) % entry_bytes
    cdef bytes zero = b"\0" * entry_bytes
    while size > entry_bytes and data[size - entry_bytes:size] == zero:
        size -= entry_bytes
    if size == entry_bytes and data[:size] == zero:
        size = 0
    return size


cdef bint load_index_files(ls_segment *segment, str path, int64_t base_offset, int64_t trusted_bytes,
                           int64_t trusted_offset) except -1:
    cdef ls_offset_index *offset_index = ls_segment_offset_index(segment)
    cdef ls_time_index *time_index = ls_segment_time_index(segment)
    cdef ls_fault fault
    cdef const uint8_t[::1] view
    stem = path[:-len(".log")]
    offset_bytes = read_whole(stem + ".index")
    time_bytes = read_whole(stem + ".timeindex")
    if offset_bytes is None or time_bytes is None:
        return False
    if len(offset_bytes):
        # A crash leaves entries past the boundary, or preallocated zeros behind the last one.
        offset_bytes = offset_bytes[: whole_entries(offset_bytes, LS_OFFSET_INDEX_ENTRY_BYTES)]
    if len(offset_bytes):
        view = offset_bytes
        if ls_offset_index_load(offset_index, &view[0], view.shape[0], INT64_MAX, &fault) != LS_OK:
            return drop_indexes(segment, base_offset)
    ls_offset_index_truncate_position(offset_index, trusted_bytes)
    # (One entry of zeros is one: the first record's timestamp was 0.)
    if len(time_bytes) != LS_TIME_INDEX_ENTRY_BYTES and (
            len(time_bytes) != whole_entries(time_bytes, LS_TIME_INDEX_ENTRY_BYTES)):
        # Nothing tells a time index that lacks its last entries from a whole one, but a ragged end does.
        return drop_indexes(segment, base_offset)
    if len(time_bytes):
        view = time_bytes
        if ls_time_index_load(time_index, &view[0], view.shape[0], INT64_MAX, &fault) != LS_OK:
            return drop_indexes(segment, base_offset)
    ls_time_index_truncate(time_index, trusted_offset)
    return True


cdef bint drop_indexes(ls_segment *segment, int64_t base_offset):
    """Neither can be used without the other: a scan that begins at an entry of one would leave gaps in the other."""
    ls_offset_index_truncate_position(ls_segment_offset_index(segment), 0)
    ls_time_index_truncate(ls_segment_time_index(segment), base_offset)
    return False


cdef bint had_entries(str path, int64_t trusted_bytes, int32_t index_interval_bytes) except -1:
    cdef int64_t interval_bytes = max(index_interval_bytes, 4096)
    cdef int64_t position = 0
    cdef bytes head
    if trusted_bytes <= 2 * interval_bytes:
        return False
    with open(path, "rb") as file:
        head = file.read(interval_bytes + LS_BATCH_HEADER_BYTES)
    while position <= interval_bytes:
        if position + LS_BATCH_HEADER_BYTES > len(head):
            return True
        length = int.from_bytes(head[position + 8:position + 12], "big", signed=True)
        position += LS_BATCH_OVERHEAD_BYTES + max(0, length)
    return position < trusted_bytes


cdef object closing_timestamp(str path, int64_t base_offset, int64_t end_offset_max):
    try:
        descriptor = os.open(path[:-len(".log")] + ".timeindex",
                             os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        size = os.fstat(descriptor).st_size
        entries = os.pread(descriptor, 2 * LS_TIME_INDEX_ENTRY_BYTES, max(size - 2 * LS_TIME_INDEX_ENTRY_BYTES, 0))
    except OSError:
        return None
    finally:
        os.close(descriptor)
    if size == 0 or size % LS_TIME_INDEX_ENTRY_BYTES:
        return None
    last = len(entries) - LS_TIME_INDEX_ENTRY_BYTES
    timestamp = int.from_bytes(entries[last:last + 8], "big", signed=True)
    offset = base_offset + int.from_bytes(entries[last + 8:], "big", signed=True)
    before = int.from_bytes(entries[:8], "big", signed=True) if last > 0 else -1
    if timestamp <= before or not base_offset <= offset < end_offset_max:
        return None
    return timestamp


cdef int load_offset_bytes(ls_segment *segment, bytes data) except -1:
    cdef ls_fault fault
    if len(data) and ls_offset_index_load(ls_segment_offset_index(segment), <const uint8_t *>PyBytes_AS_STRING(data),
                                          len(data), INT64_MAX, &fault) != LS_OK:
        raise_fault(&fault, "<rebuilt index>")
    return 0


cdef int load_time_bytes(ls_segment *segment, bytes data) except -1:
    cdef ls_fault fault
    if len(data) and ls_time_index_load(ls_segment_time_index(segment), <const uint8_t *>PyBytes_AS_STRING(data),
                                        len(data), INT64_MAX, &fault) != LS_OK:
        raise_fault(&fault, "<rebuilt index>")
    return 0


cdef size_t offset_entries_below(ls_segment *segment, int64_t position):
    cdef ls_offset_index *index = ls_segment_offset_index(segment)
    cdef size_t low = 0
    cdef size_t high = ls_offset_index_count(index)
    cdef size_t middle
    cdef int64_t offset
    cdef int32_t found
    while low < high:
        middle = (low + high) // 2
        ls_offset_index_entry(index, middle, &offset, &found)
        if found < position:
            low = middle + 1
        else:
            high = middle
    return low


cdef size_t time_entries_below(ls_segment *segment, int64_t target_offset):
    cdef ls_time_index *index = ls_segment_time_index(segment)
    cdef size_t count = ls_time_index_count(index)
    cdef int64_t timestamp, offset
    while count > 0:
        ls_time_index_entry(index, count - 1, &timestamp, &offset)
        if offset < target_offset:
            break
        count -= 1
    return count
