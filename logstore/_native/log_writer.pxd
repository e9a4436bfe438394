# The writer's side of one log: what all appends share.

cimport cython
from libc.stdint cimport int32_t, int64_t
from logstore._native.clock cimport ls_recent_ms, ls_recent_time
from logstore._native.core cimport ls_fault, ls_roll_policy, ls_segment_size_bytes, ls_status
from logstore._native.log_flusher cimport LogFlusher
from logstore._native.producer_plans cimport ProducerPlans
from logstore._native.record_rules cimport RecordRules
from logstore._native.writer_lock cimport ls_writer_lock, ls_writer_lock_acquire, ls_writer_lock_release


# storage.Log derives from it and supplies the cold steps (_roll, _mark, _writing_begins, _schedule_flush, _write_failed).
cdef class LogWriter(LogFlusher):
    cdef ls_writer_lock lock            # over all that appends change
    cdef int64_t next_offset            # of the next record; counts those in the open batch
    cdef readonly int64_t batches_count     # handed over since the log was opened
    cdef bint marked_clean              # the checkpoint on disk says so: to be taken back before the first write
    cdef int64_t mark_due_bytes         # size of the active segment from which on the page cache's next mark is due
    cdef bint flush_scheduled
    cdef bint flush_unscheduled         # it is to be, once the lock is let go
    cdef bint flush_due                 # rolls outrun the flushes: the next append waits for one
    cdef int32_t leader_epoch
    cdef readonly ProducerPlans _plans
    # settings, as plain numbers
    cdef int default_level
    cdef ls_roll_policy roll_policy
    cdef RecordRules rules
    cdef int64_t flush_messages
    cdef bint flush_by_time
    cdef object clock
    cdef int64_t last_now_ms
    cdef ls_recent_time recent_time

    cdef int refuse_reentry(self) except -1
    cdef int schedule_flush(self) except -1
    cdef int64_t ask_clock(self) except? -1
    cdef int check_writable(self) except -1
    cdef int check_expected(self, int64_t expected_offset) except -1
    cdef int write_batch(self, const void *header, const void *batch, size_t batch_bytes) except -1
    cdef int refuse_write(self, ls_status status, const ls_fault *fault) except -1
    cdef int publish_end(self) except -1
    cdef int acknowledge(self, int64_t end_offset, int level) except -1

    @cython.final
    cdef inline int lock_writes(self) except -1:
        """Keeps other threads from appending. Python code may run meanwhile, and with it signal handlers and finalizers."""
        if ls_writer_lock_acquire(&self.lock) != 0:
            return self.refuse_reentry()
        return 0

    @cython.final
    cdef inline int unlock_writes(self) except -1:
        ls_writer_lock_release(&self.lock)
        if self.flush_unscheduled:
            return self.schedule_flush()
        return 0

    @cython.final
    cdef inline int64_t now_ms(self) except? -1:
        """Asks the clock; what follows in the same append goes by `last_now_ms`."""
        self.last_now_ms = ls_recent_ms(&self.recent_time) if self.clock is None else self.ask_clock()
        return self.last_now_ms

    @cython.final
    cdef inline int before_write(self) except -1:
        if self.marked_clean:
            self._writing_begins()
            self.marked_clean = False
        if ls_segment_size_bytes(self.active.segment) >= self.mark_due_bytes:
            self._mark()  # all that came before is published, and a signal handler may raise in it
        return 0
