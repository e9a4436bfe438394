# Records of many batches as columns, where no GIL is needed.

from libc.stdint cimport int64_t, uint8_t
from logstore._native.aborted_transactions cimport AbortedRange
from logstore._native.core cimport ls_batch_header, ls_columns, ls_fault, ls_status
from logstore._native.log_cursor cimport BatchPlace


cdef enum:
    COLUMN_ROW_BYTES = 2 * 8 + 6 * 4    # two columns of 64 bits, six of 32


# The memory of one set of columns: a single allocation, column after column, that begins with the offsets.
cdef class ColumnMemory:
    cdef ls_columns columns


# Why a walk stopped.
cdef enum Stop:
    STOP_CHUNK_END
    STOP_LIMIT              # the next batch starts at or behind it
    STOP_COMPRESSED         # the next batch is sound, and has to be decompressed
    STOP_TORN               # the next batch goes on behind the chunk, or is cut off
    STOP_FAULT
    STOP_FAULT_IN_RECORDS   # its position counts from the start of the batch


cdef struct Walk:
    const uint8_t *origin
    const uint8_t *at
    const uint8_t *end
    int64_t position                    # of `at` in the file
    int64_t start_offset                # batches that end below it are passed over
    int64_t limit                       # exclusive
    BatchPlace place
    const AbortedRange *aborted         # batches of these are passed over
    size_t aborted_count
    ls_batch_header header              # of the batch the walk stopped at
    ls_fault fault


cdef Stop walk_chunk(Walk *walk, ls_columns *columns) noexcept nogil
cdef ls_status append_batch(ls_columns *columns, const ls_batch_header *header, const uint8_t *payload,
                            const uint8_t *payload_end, const uint8_t *origin, ls_fault *fault) noexcept nogil
cdef size_t lower_bound(const int64_t *offsets, size_t count, int64_t target) noexcept nogil
