"""What a consumer does once a record: several partitions read in turn, and a position that is exact in each."""

from libc.math cimport INFINITY
from libc.stdint cimport INT64_MAX, int64_t
from logstore._native.columns cimport ColumnBatch
from logstore._native.core cimport LS_ATTRIBUTE_CONTROL, ls_batch_last_offset, ls_batch_size_bytes
from logstore._native.log_cursor cimport LogCursor
from logstore._native.record_batch cimport Record, RecordBatch, RecordFeed
from logstore._native.wakeup cimport Waker, Wakeup

import time
import weakref
from collections import deque

from logstore.errors import InvalidRequestError

# When the next partition gets its turn: behind the batch that reaches one of them.
cdef int64_t TURN_BYTES = 64 * 1024
cdef int64_t TURN_RECORDS = 1000

# One read of a partition that has much. More at a time is slower: the next one finds no memory that is still in the cache.
COLUMNS_BYTES = 128 * 1024
# Attending may itself change what is to be attended to, a commit the topics, say; records have their turn all the same.
cdef int ATTENDS_MAX = 3

cdef enum Kind:
    KIND_RECORDS
    KIND_BATCHES
    KIND_COLUMNS

# For `_collect`.
RECORDS = KIND_RECORDS
BATCHES = KIND_BATCHES
COLUMNS = KIND_COLUMNS

cdef extern from "pythread.h":
    unsigned long PyThread_get_thread_ident()


cdef class PartitionReader(Waker):
    """A partition that a consumer reads, and where it stands. Of the consumer's thread, but for `notify`."""

    def __init__(self, topic_partition, queue, Wakeup wakeup not None, int64_t position):
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


cdef class Notifier(Waker):
    """Asks a consumer for attention, from any thread, while the consumer is there."""

    def __init__(self, fetcher, Wakeup wakeup not None):
        self.fetcher = weakref.ref(fetcher)
        self.wakeup = wakeup

    cdef int signal(self) except -1:
        cdef RecordFetcher fetcher = self.fetcher()
        if fetcher is not None:
            fetcher.attention = True
            fetcher.current = None  # iteration looks at nothing else
            self.wakeup.signal()
        return 0


cdef class RecordFetcher:
    """Hands out records of several partitions: each in order, none starved. `logstore.clients.Consumer` is what is used.

    A partition has its turn for 64 KiB or 1,000 records, up to the end of the batch that reaches either; one that has
    nothing left costs nothing until its log notifies it.

    The derived class supplies the cold steps: ``_attend``, ``_open_cursor``, ``_open_columns``, ``_locate``,
    ``_fetch_failed``, ``_wait_for_record``.
    """

    def __cinit__(self, *args, **kwargs):
        self._wakeup = Wakeup()
        self._notifier = Notifier(self, self._wakeup)
        self._readers = {}
        self._attend_at = INFINITY
        self._clock = time.monotonic
        self._records_max = 500
        self._bytes_max = 1 << 20
        self.queue = deque()
        self.touched = []

    # ---- for users ----------------------------------------------------------------------------------

    def __iter__(self):
        return self

    def __next__(self):
        cdef Record record = self.take_from_current()
        if record is not None:
            return record
        deadline = None
        self.enter()
        try:
            self.confirm()
            while True:
                record = self.take_next()
                if record is not None:
                    return record
                if self.woken:
                    self.woken = False
                    break
                if deadline is None and self._consumer_timeout is not None:
                    deadline = deadline_after(self._consumer_timeout)
                if not self.rest(deadline):
                    break
        finally:
            self.busy_thread = 0
        raise StopIteration

    def __aiter__(self):
        return self

    def __anext__(self):
        cdef NextRecord awaitable = NextRecord.__new__(NextRecord)
        awaitable.fetcher = self
        return awaitable

    def poll(self, timeout=0.0, max_records=None):
        """Records that have not been handed out yet.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait where there are none; None waits for ever.
        max_records : int, optional
            ``max_poll_records``, if not given.

        Returns
        -------
        list[Record]
            In order within each partition. Empty after the timeout, and after `wakeup`.

        Raises
        ------
        OffsetOutOfRangeError
            With ``auto_offset_reset="none"``: a position is not in its log.
        CorruptDataError
            The next batch of a partition is damaged; the other partitions go on with the next call, this one after
            `seek`.
        UnknownTopicOrPartitionError
            A partition was deleted.
        ClosedError, GroupError
        InvalidRequestError
            Nothing is subscribed; or another thread is in a call of this consumer.

        Notes
        -----
        Coming back for more confirms what was handed out before: auto commit may commit it from then on.
        """
        cdef Py_ssize_t limit = self.records_limit(max_records)
        return self.wait_for(KIND_RECORDS, limit, deadline_after(timeout))

    def fetch(self, timeout=0.0, max_bytes=None):
        """Whole record batches that have not been handed out yet.

        Parameters
        ----------
        timeout : float, optional
            As for `poll`.
        max_bytes : int or str, optional
            Batches are added while they fit; the first one always is. ``max_partition_fetch_bytes``, if not given.

        Returns
        -------
        list[RecordBatch]
            A batch may begin before the partition's position, after `seek` into it or where `poll` has handed out part
            of it: skip the records below. Control batches are left out.

        Raises
        ------
        As `poll`.
        """
        return self.wait_for(KIND_BATCHES, self._bytes_limit(max_bytes), deadline_after(timeout))

    def fetch_columns(self, timeout=0.0, max_bytes=None):
        """Records that have not been handed out yet, as columns, exact to the record.

        Parameters
        ----------
        timeout : float, optional
            As for `poll`.
        max_bytes : int or str, optional
            Reads are added until they hold so much. 128 KiB, if not given: that takes turns in the processor's cache.

        Returns
        -------
        list[ColumnBatch]
            Each from one partition, in order of offset.

        Raises
        ------
        As `poll`.
        """
        cdef int64_t limit = COLUMNS_BYTES if max_bytes is None else self._bytes_limit(max_bytes)
        return self.wait_for(KIND_COLUMNS, limit, deadline_after(timeout))

    def wakeup(self):
        """Has the call that waits, or else the next one that would, return empty-handed; iteration ends.

        The one method that any thread may call, at any time.
        """
        self.woken = True
        self._wakeup.signal()

    # ---- for the derived class ----------------------------------------------------------------------

    def _add_reader(self, topic_partition, int64_t position=-1):
        """Reads one more partition; a position of -1 is asked for with ``_locate``."""
        cdef PartitionReader reader = PartitionReader(topic_partition, self.queue, self._wakeup, position)
        self._readers[topic_partition] = reader
        reader.enqueue()
        return reader

    def _remove_reader(self, PartitionReader reader not None):
        """Hands out nothing more of a partition."""
        reader.is_removed = True
        if self.handed is reader:
            self.handed = None
        self.leave_turn(reader)
        reader.forget_place()
        self._readers.pop(reader.topic_partition, None)

    def _seek(self, PartitionReader reader not None, int64_t position):
        """Goes on elsewhere; -1 has the position asked for again."""
        if self.handed is reader:
            self.handed = None
        reader.position_before = -1
        self.leave_turn(reader)
        reader.forget_place()
        reader.position = position
        reader.enqueue()

    def _hold(self, PartitionReader reader not None):
        """Has no turn until it is sought: its position can't be told yet."""
        self.leave_turn(reader)

    def _set_paused(self, PartitionReader reader not None, bint is_paused):
        reader.is_paused = is_paused
        if is_paused:
            self.leave_turn(reader)
        else:
            reader.enqueue()

    def _read_again(self, PartitionReader reader not None):
        """The log behind a partition is another one now: what was read ahead is dropped."""
        self.leave_turn(reader)
        reader.forget_place()
        reader.enqueue()

    def _positions(self, *, bint confirmed=False):
        """Known positions by partition; ``confirmed``: without what the caller still works on."""
        cdef PartitionReader reader
        cdef dict positions = {}
        for item in self._readers.values():
            reader = <PartitionReader>item
            if reader.position < 0:
                continue
            position = reader.position
            if confirmed and reader is self.handed:
                position -= 1
            elif confirmed and reader.position_before >= 0:
                position = reader.position_before
            positions[reader.topic_partition] = position
        return positions

    def _ask_attention(self):
        """Has ``_attend`` called before the next record is handed out."""
        self.attention = True
        self.current = None

    def _collect(self, int kind, int64_t limit):
        """What there is now, for callers that wait in their own way; they `_enter` and `_leave`."""
        return self.collect(kind, limit)

    def _enter(self):
        """Begins a call that hands out records: what was handed out before is confirmed."""
        self.enter()
        try:
            self.confirm()
        except BaseException:
            self.busy_thread = 0
            raise

    def _confirm(self):
        """The caller is done with what it was given."""
        self.confirm()

    def _progress(self):
        """Changes whenever the caller has come back for more. From any thread."""
        cdef PartitionReader reader = self.current
        return self.calls_count, -1 if reader is None else reader.position

    def _leave(self):
        self.busy_thread = 0

    def _take_next(self):
        """The next record for iteration, or None."""
        return self.take_next()

    def _take_woken(self):
        """Whether `wakeup` was called since the last time."""
        cdef bint woken = self.woken
        self.woken = False
        return woken

    def _take_turn_ended(self):
        """Whether a turn has ended since the last time."""
        cdef bint ended = self.turn_ended
        self.turn_ended = False
        return ended

    def _check_thread(self):
        """Refuses a call from one thread while another is in one; listeners may call from within."""
        if self.busy_thread != 0 and self.busy_thread != PyThread_get_thread_ident():
            raise in_use()

    def _records_limit(self, max_records):
        return self.records_limit(max_records)

    def _bytes_limit(self, max_bytes):
        """Bytes a fetch may hold; the derived class reads texts such as ``"1MiB"``."""
        return self._bytes_max if max_bytes is None else max_bytes

    # ---- waiting ------------------------------------------------------------------------------------

    cdef Py_ssize_t records_limit(self, object max_records) except -1:
        if max_records is None:
            return self._records_max
        if not isinstance(max_records, int) or isinstance(max_records, bool) or max_records < 1:
            raise InvalidRequestError(f"max_records must be an int of at least 1, not {max_records!r}")
        return min(max_records, <int64_t>(1 << 40))

    cdef int enter(self) except -1:
        if self.busy_thread != 0:
            raise in_use()
        self.calls_count += 1
        self.look_at_clock()
        self.busy_thread = PyThread_get_thread_ident()
        return 0

    cdef int look_at_clock(self) except -1:
        if self._attend_at != INFINITY and <double>self._clock() >= self._attend_at:
            self.attention = True
        return 0

    cdef bint rest(self, object deadline) except -1:
        """Sleeps until there may be something; False where the deadline has passed."""
        cdef double left = INFINITY
        cdef double until_due
        if deadline is not None:
            left = <double>deadline - <double>time.monotonic()
            if left <= 0:
                return False
        if self._attend_at != INFINITY:
            until_due = self._attend_at - <double>self._clock()
            left = min(left, max(until_due, 0.0))
        self._wakeup.wait_for(left)
        return True

    cdef list wait_for(self, int kind, int64_t limit, object deadline):
        cdef list items
        self.enter()
        try:
            self.confirm()
            while True:
                items = self.collect(kind, limit)
                if items:
                    return items
                if self.woken:
                    self.woken = False
                    return items
                if not self.rest(deadline):
                    return items
        finally:
            self.busy_thread = 0

    # ---- taking -------------------------------------------------------------------------------------

    cdef int confirm(self) except -1:
        """The caller has come back: it is done with what it was given."""
        cdef PartitionReader reader
        self.current = None
        self.handed = None
        if self.touched:
            for item in self.touched:
                reader = <PartitionReader>item
                reader.position_before = -1
            self.touched = []
        return 0

    cdef int touch(self, PartitionReader reader) except -1:
        reader.position_before = reader.position
        self.touched.append(reader)
        return 0

    cdef int take_back(self) except -1:
        """What this call has taken is not going to be handed out."""
        for item in self.touched:
            if (<PartitionReader>item).position_before >= 0:
                self._seek(item, (<PartitionReader>item).position_before)
        self.touched = []
        return 0

    cdef list collect(self, int kind, int64_t limit):
        cdef list items = []
        cdef int64_t left = limit
        cdef RecordBatch batch
        cdef ColumnBatch columns
        try:
            while left > 0:
                if kind == KIND_RECORDS:
                    item = self.take_record(not items, True)
                    left -= 1
                elif kind == KIND_BATCHES:
                    item = batch = self.take_batch(not items, left if items else INT64_MAX)
                    if batch is not None:
                        left -= ls_batch_size_bytes(&batch.header)
                else:
                    item = columns = self.take_column_batch(not items)
                    if columns is not None:
                        left -= columns.origin_end - columns.origin
                if item is None:
                    break
                items.append(item)
        except Exception as error:
            if not items:
                raise
            self.pending_error = error
        except BaseException:
            self.take_back()
            raise
        return items

    cdef inline Record take_from_current(self):
        """The next record of the batch that is being iterated; None where it takes more than that."""
        cdef PartitionReader reader = self.current
        cdef Record record
        if reader is None:
            return None
        record = reader.feed.take()
        if record is not None:
            reader.position = reader.feed.next_offset
        return record

    cdef Record take_next(self):
        """The next record, for iteration; None where there is none now."""
        cdef Record record
        record = self.take_record(True, False)
        if record is not None:
            self.handed = self.turn
            if not self.attention:
                self.current = self.turn
        return record

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


cdef class NextRecord:
    """What ``anext(consumer)`` is: takes a record when it is awaited, so that one that is never awaited loses none."""

    cdef RecordFetcher fetcher
    cdef object waiting     # the coroutine's iterator, once it has come to that

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        return self.send(None)

    def send(self, value):
        cdef RecordFetcher fetcher = self.fetcher
        cdef Record record = None
        if self.waiting is None:
            if not fetcher.turn_ended:
                record = fetcher.take_from_current()
                if record is None:
                    fetcher.enter()
                    try:
                        fetcher.confirm()
                        record = fetcher.take_next()
                    finally:
                        fetcher.busy_thread = 0
                if record is not None:
                    raise StopIteration(record)
            self.waiting = fetcher._wait_for_record().__await__()
        return self.waiting.send(value)

    def throw(self, *error):
        if self.waiting is None:
            raise error[1] if len(error) > 1 and error[1] is not None else error[0]
        return self.waiting.throw(*error)

    def close(self):
        if self.waiting is not None:
            self.waiting.close()


cdef object in_use():
    return InvalidRequestError(
        "this consumer is in a call already: a consumer belongs to one thread or task at a time, and its listeners can't "
        "poll; make one consumer for each thread. Only wakeup() may be called from elsewhere"
    )


def deadline_after(timeout):
    """When a timeout of so many seconds ends, by time.monotonic(); None for never.

    Raises
    ------
    InvalidRequestError
    """
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout >= 0:
        raise InvalidRequestError(f"timeout must be seconds, 0 or more, or None for ever, not {timeout!r}")
    return <double>time.monotonic() + <double>timeout
