# What a producer's `send` gives: a future of one record, pointing into the fate of its batch.

from libc.stdint cimport int32_t, int64_t
from logstore._native.record_batch cimport RecordBatch


cdef enum BatchState:
    BATCH_OPEN = 0          # takes records
    BATCH_SEALED = 1        # waits for its partition's turn
    BATCH_APPENDED = 2      # in the log; not acknowledged yet
    BATCH_DONE = 3
    BATCH_FAILED = 4


# The fate that the records of one batch share. All of it changes under the GIL, in steps that run no
# Python code and allocate nothing that the garbage collector sees.
cdef class ProducerBatch:
    cdef readonly str topic
    cdef readonly int partition
    cdef object producer            # ProducerCore and PartitionQueue, until complete: what is done holds nothing
    cdef object queue
    cdef int state
    cdef RecordBatch records        # once sealed, until appended
    cdef bint is_compressed
    cdef int64_t expected_offset    # -1 for none
    cdef int64_t created_ms
    cdef int64_t buffered_bytes     # counted against buffer_memory
    cdef int32_t records_count
    cdef int32_t unobserved_count   # records whose failure nobody has asked for
    cdef int64_t base_offset
    cdef int64_t append_time        # -1 where records keep their own time
    cdef object error
    cdef object traceback
    cdef list waiters               # locks
    cdef list awaiting              # (loop, asyncio future)
    cdef list callbacks             # (RecordFuture, callable, whether it takes error and metadata)

    cdef bint is_complete(self)
    cdef int add_callbacks(self, list callbacks) except -1
    cdef list settle(self, object error)
    cdef int wake_tasks(self, list awaiting) except -1
    cdef int wait(self, object timeout) except -1
    cdef object completion(self)


cdef class RecordFuture:
    cdef ProducerBatch batch
    cdef int64_t timestamp
    cdef int32_t index
    cdef bint is_observed

    cdef object metadata(self)
    cdef object failure(self)


cdef int run_callback(RecordFuture future, object callback, bint takes_outcome) except -1
