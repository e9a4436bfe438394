# What readers and the writer of one log share.

from libc.stdint cimport int64_t, uint32_t
from logstore._native.core cimport ls_wake_table
from logstore._native.record_batch cimport Chunk
from logstore._native.waiting_readers cimport WaitingReaders

# Beyond this, reading a batch back costs little more than copying it, and writing it takes longer than waking up.
cdef enum:
    TAIL_BYTES_MAX = 16 * 1024


# The batch a writer has written last, while somebody waits for it: saves them reading it back.
cdef class LogTail:
    cdef object segment
    cdef int64_t position           # of the batch in that segment
    cdef int64_t truncation_count   # as it was then: what was cut off since is not there any more
    cdef Chunk chunk


# Published by the writer, loaded by readers, each by one assignment. Order of publication: the segment's
# size, then `segments`, then `end_offset`; readers load in the opposite order.
cdef class LogState:
    cdef readonly str topic
    cdef readonly int partition
    cdef tuple segment_list                     # of Segment, ascending; the last one is active
    cdef readonly int64_t log_start_offset
    cdef readonly int64_t end_offset            # records below it are in segments
    # Records are acknowledged as `appended` that are not in a segment yet: whoever looks at the end has them handed over
    # first, by `log_end_offset`. Set and taken back by the writer, taken back after the end is published.
    cdef readonly bint staged
    cdef readonly bint ends_in_memory           # the last one is of another process's open batch; see storage/open_batch.py
    # First offset of the oldest open transaction, INT64_MAX for none. Lowered before end_offset rises past it, raised
    # after: readers that load end_offset first find every transaction below both decided.
    cdef readonly int64_t first_unstable_offset
    cdef readonly bint aborted_possible         # some transaction was aborted, or that is not known
    cdef readonly int64_t truncation_count      # how often records were taken away from the end
    cdef readonly list truncation_offsets       # where the log ended after each
    cdef readonly int64_t replacement_count     # how often segments have taken the place of others
    cdef readonly bint contiguous               # no gaps between batches are legal here
    cdef readonly bint is_open
    cdef int64_t lookup_number                  # this log among those of which batches are cached; 0: none was looked up
    cdef bint looked_up_at_entry                # the last batch looked up stood just where the index says: the next may too
    cdef LogTail tail                           # None where nobody waited for the last batch, or it was large
    cdef tuple waiters                          # objects with notify(), each once; empty almost always
    # Of a log that this process writes: who waits for it in others.
    cdef WaitingReaders waiting_readers
    cdef ls_wake_table *wake_table              # in it; NULL: nobody can wait
    cdef uint32_t wake_bucket                   # of this log there
    cdef bint more_to_signal                    # than records that were appended

    cdef int64_t current_end(self) except? -1
    cdef int surface(self) except -1
    cdef int check_readable(self) except -1
    cdef int notify_waiters(self) except -1
    cdef void signal_readers(self) noexcept
    cdef bint announce_to_waiters(self)
    cdef int keep_tail(self, object segment, int64_t position, const void *batch, size_t batch_bytes) except -1
