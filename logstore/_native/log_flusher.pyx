"""Waiting until records are on disk: as a rule one fdatasync of the active segment, without the GIL from the first wait to
the last, shared by all who wait (`group_commit`). What comes on top of it now and then (checkpoints, indexes, segments that
were rolled, names of new files) are steps in Python.
"""

from libc.stdint cimport int64_t, uint8_t
from logstore._native.clock cimport ls_wall_clock_ns
from logstore._native.core cimport (
    LS_CATCH_UP_FIRST_BYTES,
    LS_CORRUPT,
    LS_NO_DESCRIPTOR,
    LS_OK,
    LS_TORN,
    ls_fault,
    ls_file_sync,
    ls_segment_catch_up_into,
    ls_segment_get_state,
    ls_segment_log_file,
    ls_segment_size_bytes,
    ls_segment_state,
    ls_status,
)
from logstore._native.faults cimport raise_fault
from logstore._native.group_commit cimport (
    TURN_INTERRUPTED,
    TURN_OVER,
    TURN_REFUSED,
    GroupCommit,
    Turn,
    Waiting,
    close_waiting,
    open_waiting,
)
from logstore._native.published cimport ls_observe, ls_observe_pointer, ls_publish, ls_publish_pointer

from logstore.errors import StorageFailureError

# Flushes of one segment, with no pause between them that would count as idleness, after which its file is filled ahead.
# A log that is flushed now and then does without.
cdef int HOT_FLUSHES_TO_FILL = 8
# A flush of so much counts as so many of them: what it is given ahead is not written, and costs nothing.
cdef int64_t LARGE_FLUSH_BYTES = 32 << 10
cdef int LARGE_FLUSH_COUNTS = 4

cdef extern from "Python.h":
    int PyErr_CheckSignals() except -1
    unsigned long PyThread_get_thread_ident() nogil


cdef class LogFlusher(LogState):
    """The durable half of one log. `logstore.storage.Log` is what is used."""

    def __cinit__(self, *args, **kwargs):
        self._flush_lock = GroupCommit()
        self.write_state = READ_ONLY

    @property
    def flushed_offset(self):
        """Records below it are on disk."""
        return self._flush_lock.flushed_offset

    def _set_flushed_offset(self, int64_t offset):
        """For the one who flushes, or before anybody does."""
        self._flush_lock.restart(offset)

    def _flushes_hot(self, Segment active not None, int64_t cold_position):
        """The one who flushes has everything on disk but what is in the active segment: until that one has this size, or
        `_flushes_cold`, an fdatasync of it is all that a flush takes."""
        if active is self.active:
            self.cold_position = cold_position
            ls_publish_pointer(&self.hot_segment, <void *>active)

    def _flushes_cold(self):
        """The next flush has more to do."""
        ls_publish_pointer(&self.hot_segment, NULL)

    def _count_flushes_anew(self):
        """The file is not filled ahead: to be asked for by as many flushes as before."""
        self.hot_flushes = 0

    cdef FlushStep next_step(self, Waiting *me, int64_t offset, bint has_arrived, Segment active,
                             ls_fault *fault) noexcept nogil:
        cdef Turn turn = self._flush_lock.sleep(me) if has_arrived else self._flush_lock.join(me, offset, True)
        if turn == TURN_OVER:
            return STEP_DONE
        if turn == TURN_INTERRUPTED:
            return STEP_INTERRUPTED
        if turn == TURN_REFUSED:
            return STEP_TAKEN_BACK
        if self.collected_count:
            return STEP_COLLECTED
        return self.flush_active(active, fault)

    cdef FlushStep flush_active(self, Segment active, ls_fault *fault) noexcept nogil:
        """By the one who leads. The end before the segment: see hot_segment. The caller holds the segment."""
        cdef int64_t end_offset = ls_observe(&self.end_offset)
        cdef int64_t size_bytes, started_ns
        cdef bint pays
        if ls_observe_pointer(&self.hot_segment) != <void *>active or self.write_state != WRITABLE:
            return STEP_COLD
        size_bytes = ls_segment_size_bytes(active.segment)
        if size_bytes >= self.cold_position:
            return STEP_COLD
        started_ns = ls_wall_clock_ns()
        if ls_file_sync(ls_segment_log_file(active.segment), fault) != LS_OK:
            return STEP_REFUSED
        pays = False
        if self.hot_flushes < HOT_FLUSHES_TO_FILL:
            # By the one who leads alone.
            self.hot_flushes += LARGE_FLUSH_COUNTS if size_bytes - self.hot_bytes >= LARGE_FLUSH_BYTES else 1
            self.hot_bytes = size_bytes
            pays = self.hot_flushes >= HOT_FLUSHES_TO_FILL
        self._flush_lock.finish(end_offset, ls_wall_clock_ns() - started_ns)
        return STEP_DONE_AGAIN if pays else STEP_DONE

    cdef int end_flush(self, FlushStep step, int64_t offset, Segment active, ls_fault *fault) except -1:
        """What `flush_active` has left to do."""
        if step == STEP_DONE_AGAIN:
            self._fill_ahead()
        elif step == STEP_COLD:
            return self.lead_cold(offset)
        elif step == STEP_REFUSED:
            try:
                raise_fault(fault, active.path)
            except StorageFailureError as error:
                if fault.status != LS_NO_DESCRIPTOR:  # which is no failed fsync
                    self._fail(error)
                raise
            finally:
                self._flush_lock.finish(-1, -1)
        return 0

    cdef int wait_flushed(self, int64_t offset) except -1:
        """Returns once all records below the offset are on disk. Callers that wait share one fdatasync."""
        cdef Waiting me
        if offset <= self._flush_lock.flushed_offset:
            return 0
        if not open_waiting(&me):
            raise MemoryError("no lock to wait on")
        try:
            return self.wait_turn(&me, offset, False)
        finally:
            close_waiting(&me)

    cdef int wait_turn(self, Waiting *me, int64_t offset, bint has_arrived) except -1:
        """The same; after `arrive` where a thread ``has_arrived`` in the queue."""
        cdef FlushStep step
        cdef Segment active
        cdef ls_fault fault
        while True:
            active = self.active
            with nogil:
                step = self.next_step(me, offset, has_arrived, active, &fault)
            if step == STEP_DONE:
                return 0
            if step == STEP_TAKEN_BACK:
                return self.raise_taken_back()
            if step == STEP_COLLECTED:
                self.write_collected()
                return self.lead_flush(offset)
            if step != STEP_INTERRUPTED:
                return self.end_flush(step, offset, active, &fault)
            if me.is_collected and PyThread_get_thread_ident() != self._flush_lock.main_thread:
                has_arrived = True  # no signal is for this thread
                continue
            if me.is_collected:
                # Nobody may be left to write it; and a handler may append, and wait for the one who leads: not for this one.
                has_arrived = not self.surface_collected(me)
                if has_arrived or not self._flush_lock.withdraw(me):
                    has_arrived = True
                    continue
                me.is_collected = False
            has_arrived = False
            PyErr_CheckSignals()

    cdef int lead_flush(self, int64_t offset) except -1:
        """Flushes, by the one who leads, once what was collected is in the log."""
        cdef Segment active = self.active
        cdef ls_fault fault
        cdef FlushStep step
        with nogil:
            step = self.flush_active(active, &fault)
        return self.end_flush(step, offset, active, &fault)

    # ---- collected records: the appender's half knows how ---------------------------------------------

    cdef int write_collected(self) except -1:
        """By the one who leads: hands over what was collected. On an exception another one leads."""
        return 0

    cdef int surface_collected(self, Waiting *me) except -1:
        """Hands it over, whoever leads; whether it is in the log. On an exception this thread waits no longer."""
        return True

    cdef int raise_taken_back(self) except -1:
        return 0

    cdef int lead_cold(self, int64_t offset) except -1:
        cdef int64_t started_ns = ls_wall_clock_ns()
        try:
            if offset > self._flush_lock.flushed_offset:
                if self.write_state == FAILED or not self.is_open:
                    self._raise_not_flushed()
                self._sync()
        finally:
            self._flush_lock.finish(-1, ls_wall_clock_ns() - started_ns)
        return 0

    def _flush_until(self, int64_t offset):
        """Returns once all records below the offset are on disk."""
        self.wait_flushed(offset)

    # ---- in a process that only reads ----------------------------------------------------------------

    def _may_catch_up(self, bint is_plain):
        """Whether all that comes is found at the end of the active segment: the log is not damaged, and nobody asks for its
        transactions."""
        self.is_plain = is_plain

    def _catch_up_active(self):
        """Publishes what another process has appended to the active segment.

        Returns
        -------
        bool or None
            Whether there was anything; None where the log has to be looked at as a whole.
        """
        cdef int caught = self.catch_up_now()
        return None if caught == CAUGHT_TOO_LITTLE else caught == CAUGHT_SOME

    cdef CaughtUp catch_up_now(self) except? CAUGHT_TOO_LITTLE:
        cdef Segment active
        cdef ls_segment_state state
        cdef ls_fault fault
        cdef ls_status status
        cdef int64_t grew = 0
        cdef size_t taken = 0
        cdef uint8_t first[LS_CATCH_UP_FIRST_BYTES]
        if not self.is_open:
            return CAUGHT_NOTHING
        if not self.is_plain:
            return CAUGHT_TOO_LITTLE
        if not self._flush_lock.lead_now():
            self._flush_lock.lead()
        try:
            if not self.segment_list or self.ends_in_memory:
                return CAUGHT_TOO_LITTLE
            active = <Segment>self.segment_list[len(self.segment_list) - 1]
            if self.waiters:
                self.announce_to_waiters()
            with nogil:
                status = ls_segment_catch_up_into(active.segment, first, &taken, &grew, &fault)
            if status == LS_CORRUPT or status == LS_TORN:
                return CAUGHT_TOO_LITTLE
            if status != LS_OK:
                raise_fault(&fault, active.path)
            if not grew:
                return CAUGHT_NOTHING
            ls_segment_get_state(active.segment, &state)
            if taken:  # whoever waits for it need not read it once more
                self.keep_tail(active, ls_segment_size_bytes(active.segment) - grew, first, taken)
            if state.next_offset > self.end_offset:
                ls_publish(&self.end_offset, state.next_offset)
            if self.waiters:
                self.notify_waiters()
            return CAUGHT_SOME
        finally:
            self._flush_lock.finish(-1, -1)
