"""Several partitions read in turn, with a position that is exact in each."""

from libc.math cimport INFINITY
from libc.stdint cimport int64_t
from logstore._native.columns cimport ColumnBatch
from logstore._native.core cimport (
    LS_ATTRIBUTE_CONTROL,
    ls_batch_last_offset,
    ls_batch_size_bytes,
    ls_wake_reader_has_news,
)
from logstore._native.log_cursor cimport LogCursor
from logstore._native.record_batch cimport Record, RecordBatch, RecordFeed
from logstore._native.shared_wakeup cimport SharedWakeup
from logstore._native.wakeup cimport Waker

import time
from collections import deque

# When the next partition gets its turn: behind the batch that reaches one of them.
cdef int64_t TURN_BYTES = 64 * 1024
cdef int64_t TURN_RECORDS = 1000

# Attending may itself change what is to be attended to, a commit the topics, say; records have their turn all the same.
cdef int ATTENDS_MAX = 3


cdef class PartitionReader(Waker):
    """A partition that a consumer reads, and where it stands. Of the consumer's thread, but for `notify`."""

    def __init__(self, topic_partition, queue, SharedWakeup wakeup not None, int64_t position):
        self.topic_partition = topic_partition
        self.feed = RecordFeed.__new__(RecordFeed)
        self.queue = queue
        self.wakeup = wakeup
        self.position = position
        self.position_before = -1
        self.committed_position = -1

    cdef int signal(self) except -1:
        self.signalled = True
        if self.parked:
            self.enqueue()
            self.wakeup.signal()
        return 0

    cdef bint announce(self):
        return self.parked and self.wakeup.announce()

    cdef int follow(self, object log, object follower) except -1:
        return self.wakeup.follow(log, follower)

    cdef int unfollow(self, object log) except -1:
        return self.wakeup.unfollow(log)

    cdef int enqueue(self) except -1:
        self.parked = False
        if not self.queued:
            self.queued = True
            self.queue.append(self)
        return 0

    cdef void forget_place(self):
        """What is read next is looked up again, from the position."""
        self.feed.drop()
        self.cursor = None
        self.column_cursor = None

    cdef void pass_offset(self, int64_t next_offset):
        if self.position < next_offset:
            self.position = next_offset


cdef class PartitionTurns:
    """Takes records of partitions: of each in order, none starved.

    A partition has its turn for 64 KiB or 1,000 records, up to the end of the batch that reaches either; one that has
    nothing left costs nothing until its log notifies it.

    The derived class supplies the cold steps: ``_attend``, ``_open_cursor``, ``_open_columns``, ``_locate``,
    ``_fetch_failed``.
    """

    def __cinit__(self, *args, **kwargs):
        self._attend_at = INFINITY
        self._clock = time.monotonic
        self.queue = deque()
        self._wakeup = SharedWakeup()
        self.touched = []

    cdef int look_at_clock(self) except -1:
        if self._attend_at != INFINITY and <double>self._clock() >= self._attend_at:
            self.attention = True
        return 0

    cdef int touch(self, PartitionReader reader) except -1:
        reader.position_before = reader.position
        self.touched.append(reader)
        return 0

    cdef PartitionReader reader_in_turn(self, bint may_attend):
        """Whose turn it is; None where nobody has anything, or where something else comes first."""
        cdef PartitionReader reader
        self.look_at_clock()
        if self.attention and not may_attend:
            return None
        for _ in range(ATTENDS_MAX):
            if not self.attention:
                break
            self.attention = False
            try:
                self._attend()
            except BaseException:
                self.attention = True
                raise
        if self.pending_error is not None:
            if not may_attend:
                return None
            error = self.pending_error
            self.pending_error = None
            raise error
        while self.turn is None:
            if self._wakeup.reader != NULL and ls_wake_reader_has_news(self._wakeup.reader):
                self._wakeup.look()
            if not self.queue:
                return None
            reader = self.queue.popleft()
            reader.queued = False
            if reader.is_removed or reader.is_paused:
                continue
            self.turn = reader
            self.turn_bytes = 0
            self.turn_records = 0
        return self.turn

    cdef int leave_turn(self, PartitionReader reader) except -1:
        if self.turn is reader:
            self.turn = None
        if self.current is reader:
            self.current = None
        return 0

    cdef int count_in_turn(self, PartitionReader reader, int64_t size_bytes, int64_t records) except -1:
        """A batch has been handed out; where that is enough, the next partition has its turn."""
        self.turn_bytes += size_bytes
        self.turn_records += records
        if self.turn_bytes >= TURN_BYTES or self.turn_records >= TURN_RECORDS:
            self.turn_ended = True
            self.leave_turn(reader)
            reader.enqueue()
        return 0

    cdef Record take_record(self, bint may_attend, bint touching):
        cdef PartitionReader reader
        cdef Record record
        cdef RecordBatch batch
        while True:
            reader = self.turn
            if reader is None or self.attention or reader.feed.batch is None:
                reader = self.reader_in_turn(may_attend)
                if reader is None:
                    return None
            if reader.feed.batch is not None:
                if touching and reader.position_before < 0:
                    self.touch(reader)
                record = reader.feed.take()
                if record is not None:
                    reader.position = reader.feed.next_offset
                    return record
            try:
                if reader.feed.batch is None:
                    self.load(reader)
                    continue
                batch = reader.feed.leave()
                reader.pass_offset(ls_batch_last_offset(&batch.header) + 1)
                self.count_in_turn(reader, ls_batch_size_bytes(&batch.header), batch.header.records_count)
            except BaseException as error:
                self.failed(reader, error)

    cdef RecordBatch take_batch(self, bint may_attend, int64_t room_bytes):
        """The next whole batch, if it is no larger than that."""
        cdef PartitionReader reader
        cdef RecordBatch batch
        while True:
            reader = self.reader_in_turn(may_attend)
            if reader is None:
                return None
            try:
                if reader.feed.batch is None and not self.load(reader):
                    continue
                batch = reader.feed.batch
                if ls_batch_last_offset(&batch.header) < reader.position:
                    reader.feed.drop()  # all of it was handed out as records
                    continue
                if ls_batch_size_bytes(&batch.header) > room_bytes:
                    return None
                if reader.position_before < 0:
                    self.touch(reader)
                reader.feed.drop()
                reader.pass_offset(ls_batch_last_offset(&batch.header) + 1)
                self.count_in_turn(reader, ls_batch_size_bytes(&batch.header), batch.header.records_count)
                return batch
            except BaseException as error:
                self.failed(reader, error)

    cdef ColumnBatch take_column_batch(self, bint may_attend):
        cdef PartitionReader reader
        cdef ColumnBatch columns
        while True:
            reader = self.reader_in_turn(may_attend)
            if reader is None:
                return None
            try:
                if reader.position < 0:
                    self._locate()
                if reader.is_removed or self.turn is not reader:
                    continue
                if reader.column_cursor is None:
                    reader.forget_place()
                    reader.column_cursor = self._open_columns(reader)
                reader.signalled = False
                columns = reader.column_cursor.next_columns()
                if columns is None:
                    reader.pass_offset(reader.column_cursor.next_offset)
                    self.park(reader)
                    continue
                if reader.position_before < 0:
                    self.touch(reader)
                reader.pass_offset(reader.column_cursor.next_offset)
                self.count_in_turn(reader, columns.origin_end - columns.origin, columns.count)
                return columns
            except BaseException as error:
                self.failed(reader, error)

    cdef bint load(self, PartitionReader reader) except -1:
        """Has the reader hold its next batch of records; False where it has none, or lost its turn."""
        cdef RecordBatch batch
        if reader.position < 0:
            self._locate()
            if reader.is_removed or self.turn is not reader:
                return False
        if reader.cursor is None:
            reader.forget_place()
            reader.cursor = self._open_cursor(reader)
            reader.is_log_cursor = type(reader.cursor) is LogCursor
        while True:
            reader.signalled = False
            if reader.is_log_cursor:
                batch = (<LogCursor>reader.cursor).fetch_batch()
            else:
                batch = reader.cursor.next_batch()
            if batch is None:
                reader.pass_offset(reader.cursor.next_offset)
                self.park(reader)
                return False
            if batch.header.attributes & LS_ATTRIBUTE_CONTROL:
                reader.pass_offset(ls_batch_last_offset(&batch.header) + 1)
                continue
            reader.feed.begin(batch, reader.position)
            return True

    cdef int park(self, PartitionReader reader) except -1:
        """Read to its end: it has its next turn when its log notifies it, or at once where that came meanwhile."""
        self.leave_turn(reader)
        if reader.signalled:
            reader.enqueue()
        else:
            reader.parked = True
        return 0

    cdef int failed(self, PartitionReader reader, object error) except -1:
        """Nothing of what was read ahead is relied on: it is read again, from the position."""
        self.leave_turn(reader)
        reader.forget_place()
        if not reader.is_removed:
            reader.enqueue()
        if not isinstance(error, Exception):
            raise error
        self._fetch_failed(reader, error)
        return 0
