# Records gathered from columns, and the Arrow struct array made of them. None of it needs the interpreter.

from libc.stdint cimport int32_t, int64_t, uint8_t
from logstore._native.arrow_abi cimport ArrowArray
from logstore._native.core cimport ls_columns


cdef struct Buffer:
    uint8_t *data
    size_t size
    size_t capacity


# Strings of 32-bit offsets: one more than there are, the first 0.
cdef struct Strings:
    Buffer offsets
    Buffer bytes
    Buffer validity
    int64_t count
    int64_t null_count


# The record batch in the making.
cdef struct Gathered:
    int64_t rows
    Buffer partitions
    Buffer offsets
    Buffer timestamps
    Buffer timestamp_validity
    int64_t null_timestamps
    Strings keys
    Strings values
    Buffer headers_offsets
    int64_t headers_count
    Strings header_keys
    Strings header_values


# Room for what the record batch before took: the next one is much like it, and growing copies. False without memory.
cdef bint reserve_all_as(Gathered *gathered, const Gathered *last) noexcept nogil

# How many records from `first` on have keys, values and headers of no more than `room` bytes.
cdef size_t rows_within(const ls_columns *columns, const uint8_t *origin, const uint8_t *origin_end, size_t first,
                        size_t count, size_t room) noexcept nogil

# Copies the records [first, first + count) behind those gathered. 1; 0 without memory.
cdef int gather(Gathered *out, const ls_columns *columns, int32_t partition, const uint8_t *origin,
                const uint8_t *origin_end, size_t first, size_t count) except -1 nogil
cdef size_t gathered_bytes(const Gathered *out) noexcept nogil

# Makes the struct array of what was gathered; False without memory, and then `out` is to be released.
cdef bint give_all(ArrowArray *out, Gathered *gathered) noexcept nogil
cdef void free_gathered(Gathered *gathered) noexcept nogil
