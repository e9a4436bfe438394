"""The writer's side of one log: its lock, its settings, the active segment, and the one write of each batch."""

from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t
from logstore._native.append_arguments cimport LEVEL_FLUSHED
from logstore._native.core cimport (
    LS_DISK_FULL,
    LS_FULL,
    LS_NO_DESCRIPTOR,
    LS_OK,
    ls_batch_header,
    ls_batch_last_offset,
    ls_fault,
    ls_segment_append,
    ls_segment_should_roll,
    ls_segment_size_bytes,
    ls_status,
    ls_wake_announce,
    ls_wake_may_be_awaited,
)
from logstore._native.faults cimport raise_fault
from logstore._native.log_flusher cimport CLOSED, FAILED, FORKED, READ_ONLY, WRITABLE, LogFlusher
from logstore._native.log_state cimport TAIL_BYTES_MAX
from logstore._native.producer_plans cimport ProducerPlans
from logstore._native.published cimport ls_publish
from logstore._native.segment cimport Segment
from logstore._native.writer_lock cimport ls_writer_lock_free, ls_writer_lock_init

from logstore.errors import (
    ClosedError,
    InvalidRequestError,
    ReadOnlyError,
    RecordTooLargeError,
    UnexpectedOffsetError,
)

# States a log's writing can be in, for `_set_write_state`.
STATE_WRITABLE = <int>WRITABLE
STATE_READ_ONLY = <int>READ_ONLY
STATE_FAILED = <int>FAILED
STATE_CLOSED = <int>CLOSED
STATE_FORKED = <int>FORKED


cdef class LogWriter(LogFlusher):
    """What writes to one log. `logstore.storage.Log` is what is used."""

    def __cinit__(self, *args, **kwargs):
        if ls_writer_lock_init(&self.lock) != 0:
            raise MemoryError("no memory for a log's lock")
        self._plans = ProducerPlans()
        self.flush_messages = INT64_MAX

    def __dealloc__(self):
        ls_writer_lock_free(&self.lock)

    # ---- its lock ---------------------------------------------------------------------------------

    cdef int refuse_reentry(self) except -1:
        raise InvalidRequestError(
            f"{self.topic}-{self.partition} is called by a signal handler, or a finalizer, that has interrupted a call "
            "to it of the same thread, and would wait for that call for ever; have it set a flag, and append later")

    cdef int schedule_flush(self) except -1:
        """After the lock: where a signal handler may come in, and append."""
        self.flush_unscheduled = False
        try:
            self._schedule_flush()
        except BaseException:
            self.flush_scheduled = False
            raise
        return 0

    # ---- the active segment, set by the class derived from this one -------------------------------

    def _activate(self, Segment active not None, int64_t next_offset, int64_t flushed_offset, int32_t leader_epoch,
                  bint marked_clean):
        """Makes a segment the one that is appended to."""
        self._flushes_cold()
        self.marked_clean = marked_clean
        self.active = active
        self.next_offset = next_offset
        self._flush_lock.restart(flushed_offset)
        self.leader_epoch = leader_epoch
        self.roll_policy.created_ms = active.created_ms

    def _start_segment(self, tuple segments not None, Segment active not None, list aborted not None):
        """Rolls, in one step that no signal handler can come between. The lock is held by the append that asked for
        it, or by `_locked`."""
        cdef Segment previous
        self._flushes_cold()
        if len(segments) > 1:
            previous = segments[len(segments) - 2]
            previous.options.end_offset_max = active.base_offset
        self.active = active
        self.roll_policy.created_ms = active.created_ms
        self._plans.aborted_entries = aborted
        self.segment_list = segments
        self.more_to_signal = True

    def _replace_segments(self, tuple old not None, tuple new not None):
        """Publishes other segments in place of some neighbours, none of them active; False where those are not there.

        ``old`` are base offsets: rolls may put another object in a segment's place.
        """
        cdef Py_ssize_t i
        self.lock_writes()
        try:
            bases = [(<Segment>segment).base_offset for segment in self.segment_list]
            if not old or old[0] not in bases:
                return False
            i = bases.index(old[0])
            if tuple(bases[i:i + len(old)]) != old or i + len(old) >= len(bases):
                return False
            self.segment_list = self.segment_list[:i] + new + self.segment_list[i + len(old):]
            self.replacement_count += 1
        finally:
            self.unlock_writes()
        return True

    def _set_write_state(self, int state):
        self.write_state = state

    def _set_mark_due(self, int64_t size_bytes):
        """`_mark` is called before the next write, once the active segment has this size."""
        self.mark_due_bytes = size_bytes

    def _flush_is_due(self):
        """Has the next append wait for a flush, whatever its level."""
        self.flush_due = True

    def _flush_was_scheduled(self, bint scheduled):
        self.flush_scheduled = scheduled

    @property
    def is_writable(self):
        """Whether appends are possible."""
        return self.write_state == WRITABLE

    # ---- what an append asks before it ------------------------------------------------------------

    cdef int64_t ask_clock(self) except? -1:
        return self.clock()

    cdef int check_writable(self) except -1:
        if self.write_state == WRITABLE:
            return 0
        where = f"{self.topic}-{self.partition}"
        if self.write_state == CLOSED:
            raise ClosedError(f"the log of {where} is closed; open the broker again")
        if self.write_state == FORKED:
            raise ClosedError(f"the log of {where} belongs to the parent process; open the broker in the child")
        raise self._not_writable()

    cdef int check_expected(self, int64_t expected_offset) except -1:
        """Refuses a conditional append unless the next record gets this offset; -1 is no condition."""
        if expected_offset >= 0 and self.next_offset != expected_offset:
            raise UnexpectedOffsetError(
                f"{self.topic}-{self.partition} ends at offset {self.next_offset}, not at {expected_offset}; nothing was "
                "appended. Read what has come in between and decide again",
                expected_offset=expected_offset, log_end_offset=self.next_offset)
        return 0

    def _not_writable(self):
        return ReadOnlyError(f"the log of {self.topic}-{self.partition} is open for reading only")

    # ---- one write --------------------------------------------------------------------------------

    cdef int write_batch(self, const void *opaque, const void *batch, size_t batch_bytes) except -1:
        """One write into the active segment, which is rolled first where it is due. The lock is held."""
        cdef const ls_batch_header *header = <const ls_batch_header *>opaque
        cdef ls_fault fault
        cdef ls_status status
        cdef bint awaited
        self.before_write()
        if ls_segment_should_roll(self.active.segment, &self.roll_policy, batch_bytes, header.max_timestamp,
                                  ls_batch_last_offset(header), self.last_now_ms):
            self._roll(header.base_offset)
        if (self.wake_table != NULL and ls_wake_may_be_awaited(self.wake_table, self.wake_bucket)
                and batch_bytes <= TAIL_BYTES_MAX):
            ls_wake_announce(self.wake_table, self.wake_bucket)
        awaited = self.waiters and batch_bytes <= TAIL_BYTES_MAX and self.announce_to_waiters()
        with nogil:
            status = ls_segment_append(self.active.segment, <const uint8_t *>batch, batch_bytes, header, &fault)
        if status == LS_OK:
            if awaited:
                self.keep_tail(self.active, ls_segment_size_bytes(self.active.segment) - batch_bytes, batch, batch_bytes)
            return 0
        if status == LS_FULL:
            raise RecordTooLargeError(
                f"a batch of {batch_bytes} bytes does not fit an empty segment of {self.topic}-{self.partition}: "
                f"{fault.reason.decode()}; raise segment.bytes or segment.index.bytes"
            )
        return self.refuse_write(status, &fault)

    cdef int refuse_write(self, ls_status status, const ls_fault *fault) except -1:
        """Raises what a write has failed with."""
        if status != LS_NO_DESCRIPTOR and (status != LS_DISK_FULL or fault.expected):
            # Unknown what reached the disk: a retry proves nothing, so this log takes no more.
            self.write_state = FAILED
            self._write_failed(fault.reason.decode())
        raise_fault(fault, self.active.path)

    cdef int publish_end(self) except -1:
        """Shows readers what was written. The lock is held."""
        self.batches_count += 1
        ls_publish(&self.end_offset, self.next_offset)
        if self.first_unstable_offset != self._plans.unstable_after:
            self.first_unstable_offset = self._plans.unstable_after  # after the end: see log_state.pxd
        if self.waiters:
            self.notify_waiters()
        if self.wake_table != NULL:
            self.signal_readers()
        if self.flush_by_time and not self.flush_scheduled:
            self.flush_scheduled = True
            self.flush_unscheduled = True
        return 0

    cdef int acknowledge(self, int64_t end_offset, int level) except -1:
        """What is left to do once records are in the log: fdatasync if the level or flush.messages asks for it."""
        if level == LEVEL_FLUSHED:
            self.flush_due = False
            self.wait_flushed(end_offset)
        elif self.flush_due or self.end_offset - self._flush_lock.flushed_offset >= self.flush_messages:
            self.flush_due = False
            self.wait_flushed(self.current_end())
        return 0
