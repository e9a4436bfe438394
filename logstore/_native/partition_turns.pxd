# Reading several partitions in turn, with a position in each.

from libc.stdint cimport int64_t
from logstore._native.columns cimport ColumnBatch
from logstore._native.record_batch cimport Record, RecordBatch, RecordFeed
from logstore._native.shared_wakeup cimport SharedWakeup
from logstore._native.wakeup cimport Waker


# One partition as a consumer reads it. Its log notifies it; it refers to the queue, never to the consumer.
cdef class PartitionReader(Waker):
    cdef readonly object topic_partition
    cdef readonly int64_t position          # of the next record to hand out; -1 where not known yet
    cdef public int64_t committed_position  # what was committed last; -1 where not known
    cdef readonly bint is_paused
    cdef readonly bint is_removed
    cdef int64_t position_before            # where the last poll or fetch began; -1 where it took nothing from here
    cdef object cursor                      # BatchCursor; None: made when next needed
    cdef bint is_log_cursor
    cdef object column_cursor               # in place of the cursor while columns are fetched
    cdef RecordFeed feed                    # over the batch that is being handed out
    cdef object queue                       # deque of readers that may have records
    cdef SharedWakeup wakeup
    cdef bint queued
    cdef bint parked                        # read to its end: queued again when notified
    cdef bint signalled                     # notified since it was last looked at

    cdef int enqueue(self) except -1
    cdef void forget_place(self)
    cdef void pass_offset(self, int64_t next_offset)


# Whose turn it is, and what it has.
cdef class PartitionTurns:
    cdef PartitionReader current        # set while its batch may be iterated and nothing asks for attention
    cdef PartitionReader turn           # whose turn it is
    cdef int64_t turn_bytes
    cdef int64_t turn_records
    cdef bint turn_ended                # since an event loop was last given the chance to do something else
    cdef list touched                   # readers the last poll or fetch took from
    cdef bint attention                 # something asks for `_attend`
    cdef public double _attend_at       # when it is due anyway, by `_clock`
    cdef public object _clock
    cdef object queue                   # of readers that may have records
    cdef readonly SharedWakeup _wakeup  # what they signal when there are new ones
    cdef object pending_error           # met behind records that were handed out first

    cdef Record take_record(self, bint may_attend, bint touching)
    cdef RecordBatch take_batch(self, bint may_attend, int64_t room_bytes)
    cdef ColumnBatch take_column_batch(self, bint may_attend)
    cdef PartitionReader reader_in_turn(self, bint may_attend)
    cdef bint load(self, PartitionReader reader) except -1
    cdef int park(self, PartitionReader reader) except -1
    cdef int leave_turn(self, PartitionReader reader) except -1
    cdef int touch(self, PartitionReader reader) except -1
    cdef int count_in_turn(self, PartitionReader reader, int64_t size_bytes, int64_t records) except -1
    cdef int failed(self, PartitionReader reader, object error) except -1
    cdef int look_at_clock(self) except -1
