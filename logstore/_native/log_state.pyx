"""The state of one log that its readers and its writer share."""

from libc.stdint cimport INT64_MAX, int64_t
from libc.string cimport memcpy
from logstore._native.core cimport ls_wake_is_awaited, ls_wake_signal
from logstore._native.record_batch cimport Chunk
from logstore._native.waiting_readers cimport WaitingReaders, bucket_of
from logstore._native.wakeup cimport Waker

from logstore.errors import ClosedError


cdef class LogTail:
    pass


cdef class LogState:
    """Offsets and segments of one log, as published to readers.

    Attributes
    ----------
    topic : str
    partition : int
    segments : tuple[Segment, ...]
        Ascending; the last one is active.
    ends_in_memory : bool
        In a process that only reads: records of another one's open batch follow, as a segment of their own.
    log_start_offset, log_end_offset : int
        What can be read: ``[log_start_offset, log_end_offset)``.
    first_unstable_offset : int
        First offset of the oldest open transaction; 2^63-1 for none.
    """

    def __cinit__(self, *args, **kwargs):
        self.topic = ""
        self.segment_list = ()
        self.waiters = ()
        self.truncation_offsets = []
        self.is_open = True
        self.first_unstable_offset = INT64_MAX

    cdef int64_t current_end(self) except? -1:
        """The log end offset: everything acknowledged as `appended` is in a segment below it."""
        if self.staged:
            self.surface()
        return self.end_offset

    cdef int surface(self) except -1:
        """Has staged records handed over; the writer's half knows how."""
        return 0

    @property
    def segments(self):
        """The segments that have files, ascending; the last one is active."""
        if self.staged:
            self.surface()
        return self.segment_list[:len(self.segment_list) - 1] if self.ends_in_memory else self.segment_list

    @property
    def readable_segments(self):
        """What readers go through: the segments, and what is staged by another process."""
        if self.staged:
            self.surface()
        return self.segment_list

    @property
    def log_end_offset(self):
        """The offset that the next record visible to readers will get."""
        return self.current_end()

    def _aborted_between(self, int64_t start_offset, int64_t end_offset):
        """Aborted transactions that overlap ``[start, end)``, as (producer id, first offset, last offset, ..)."""
        return ()

    cdef int check_readable(self) except -1:
        if not self.is_open:
            raise ClosedError(f"the log of {self.topic}-{self.partition} is closed; open the broker again")
        return 0

    cdef int notify_waiters(self) except -1:
        cdef tuple waiters = self.waiters
        for waiter in waiters:
            if isinstance(waiter, Waker):
                (<Waker>waiter).signal()
            else:
                waiter.notify()
        return 0

    cdef void signal_readers(self) noexcept:
        """Tells those who wait in other processes of what was published."""
        if ls_wake_is_awaited(self.wake_table, self.wake_bucket):
            ls_wake_signal(self.wake_table, self.wake_bucket, self.more_to_signal)
        self.more_to_signal = False

    cdef bint announce_to_waiters(self):
        """Before a write that is going to be notified of; returns whether anybody waits for it. One thread that looks out
        for it is enough: more would want the CPU that is to do the write."""
        cdef tuple waiters = self.waiters
        for waiter in waiters:
            if not isinstance(waiter, Waker) or (<Waker>waiter).announce():
                return True
        return False

    cdef int keep_tail(self, object segment, int64_t position, const void *batch, size_t batch_bytes) except -1:
        """For the writer, before it publishes the end of a batch that somebody waits for."""
        cdef LogTail tail
        self.tail = None
        try:
            tail = LogTail.__new__(LogTail)
            tail.chunk = Chunk.create(batch_bytes)
        except MemoryError:
            return 0  # the batch is in the log: readers read it from there
        tail.segment = segment
        tail.position = position
        tail.truncation_count = self.truncation_count
        memcpy(tail.chunk.data, batch, batch_bytes)
        tail.chunk.size = batch_bytes
        self.tail = tail
        return 0

    def add_waiter(self, waiter):
        """Has ``waiter.notify()`` called after each append, until `remove_waiter`; also when the log closes."""
        # One assignment of a tuple made without running any Python code: atomic under the GIL.
        self.waiters = self.waiters + (waiter,)

    def remove_waiter(self, waiter):
        """Takes `add_waiter` back; one that was never added is none to remove."""
        cdef Py_ssize_t i
        cdef tuple waiters = self.waiters
        for i in range(len(waiters)):
            if waiters[i] is waiter:
                self.waiters = waiters[:i] + waiters[i + 1:]
                return

    def _has_replaced_segments(self):
        """After damage in a segment: looks whether another process has replaced it."""
        return False

    def _signal_by(self, WaitingReaders readers not None, str directory not None):
        """Has readers in other processes told of each change from here on."""
        self.wake_bucket = bucket_of(directory)
        self.waiting_readers = readers
        self.wake_table = &readers.table

    def _identify(self, str topic, int partition):
        self.topic = topic
        self.partition = partition

    def _publish(self, *, segments=None, log_start_offset=None, log_end_offset=None, contiguous=None, truncated=None,
                 is_open=None, first_unstable_offset=None, aborted_possible=None, bint replaced=False, in_memory=None):
        """Publishes new state in the order readers rely on, and wakes those who wait."""
        if truncated is not None:
            self.truncation_offsets.append(truncated)
            self.truncation_count += 1
        if is_open is not None:
            self.is_open = is_open
        if contiguous is not None:
            self.contiguous = contiguous
        if segments is not None:
            self.ends_in_memory = in_memory is not None
            self.segment_list = segments if in_memory is None else segments + (in_memory,)
        if replaced:
            self.replacement_count += 1
        if log_start_offset is not None:
            self.log_start_offset = log_start_offset
        if aborted_possible is not None:
            self.aborted_possible = aborted_possible
        if first_unstable_offset is not None:
            self.first_unstable_offset = min(self.first_unstable_offset, <int64_t>first_unstable_offset)
        if log_end_offset is not None:
            self.end_offset = log_end_offset
        if first_unstable_offset is not None:
            self.first_unstable_offset = first_unstable_offset
        if self.waiters:
            self.notify_waiters()
        if self.wake_table != NULL:
            self.more_to_signal = True
            self.signal_readers()
