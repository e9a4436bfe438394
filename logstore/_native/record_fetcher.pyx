"""What a consumer does once a record: its calls, iterating, and waiting for more."""

from libc.math cimport INFINITY
from libc.stdint cimport INT64_MAX, int64_t
from logstore._native.columns cimport ColumnBatch
from logstore._native.core cimport ls_batch_size_bytes
from logstore._native.partition_turns cimport PartitionReader, PartitionTurns
from logstore._native.record_batch cimport Record, RecordBatch
from logstore._native.wakeup cimport Waker, Wakeup

import time
import weakref

from logstore.errors import InvalidRequestError

# One read of a partition that has much. More at a time is slower: the next one finds no memory that is still in the cache.
COLUMNS_BYTES = 128 * 1024

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


cdef class RecordFetcher(PartitionTurns):
    """Hands out records of several partitions: each in order, none starved. `logstore.clients.Consumer` is what is used.

    The derived class supplies the cold steps: ``_attend``, ``_open_cursor``, ``_open_columns``, ``_locate``,
    ``_fetch_failed``, ``_wait_for_record``.
    """

    def __cinit__(self, *args, **kwargs):
        self._notifier = Notifier(self, self._wakeup)
        self._readers = {}
        self._records_max = 500
        self._bytes_max = 1 << 20

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
