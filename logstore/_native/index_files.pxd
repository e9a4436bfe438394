# What the index files of a segment say, and which of it holds.

from libc.stdint cimport int32_t, int64_t
from logstore._native.core cimport ls_segment


# Loads the entries below a trusted boundary; False, and none loaded, where they can't be used.
cdef bint load_index_files(ls_segment *segment, str path, int64_t base_offset, int64_t trusted_bytes,
                           int64_t trusted_offset) except -1

# Whether a batch begins so far behind the start that it got an entry; going by the lengths of those before it.
cdef bint had_entries(str path, int64_t trusted_bytes, int32_t index_interval_bytes) except -1

# Timestamp of the last entry of a sealed segment's time index file, without opening the segment; None where it can't be it.
cdef object closing_timestamp(str path, int64_t base_offset, int64_t end_offset_max)

# Entries as they stand in the files.
cdef int load_offset_bytes(ls_segment *segment, bytes data) except -1
cdef int load_time_bytes(ls_segment *segment, bytes data) except -1

# How many entries lie below a position, and below an offset.
cdef size_t offset_entries_below(ls_segment *segment, int64_t position)
cdef size_t time_entries_below(ls_segment *segment, int64_t target_offset)
