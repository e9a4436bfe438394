# Waiting until records are on disk.

from libc.stdint cimport int64_t
from logstore._native.core cimport ls_fault
from logstore._native.group_commit cimport GroupCommit, Waiting
from logstore._native.log_state cimport LogState
from logstore._native.segment cimport Segment


cdef enum WriteState:
    WRITABLE = 0
    READ_ONLY = 1
    FAILED = 2
    CLOSED = 3
    FORKED = 4


cdef enum FlushStep:
    STEP_DONE = 0
    STEP_INTERRUPTED = 1
    STEP_COLD = 2           # this thread leads, and more is to be done than one fdatasync
    STEP_REFUSED = 3        # this thread leads, and the fdatasync has failed
    STEP_DONE_AGAIN = 4     # done, and so often that it pays to fill the file ahead
    STEP_COLLECTED = 5      # this thread leads, and there are collected records to be handed over first
    STEP_TAKEN_BACK = 6     # its records were collected, and refused


cdef enum CaughtUp:
    CAUGHT_TOO_LITTLE = -1  # the log has to be looked at as a whole
    CAUGHT_NOTHING = 0
    CAUGHT_SOME = 1


# What makes appends durable. storage.Log derives from it and supplies the cold steps (_sync, _fail, _raise_not_flushed).
cdef class LogFlusher(LogState):
    cdef Segment active
    cdef int write_state
    cdef readonly GroupCommit _flush_lock   # as a lock: keeps everybody from flushing
    # The active segment while one fdatasync of it is all that a flush takes: what stands before it is on disk, and so
    # are the files' names. Cleared before anything is appended elsewhere, hence before an end past it is published.
    cdef void *hot_segment
    cdef int64_t cold_position      # size of that segment at which the checkpoint is due
    cdef int hot_flushes            # since the file was last filled ahead, or found idle; no more than are asked for
    cdef int64_t hot_bytes          # of the segment at the last of them

    # Records in the open batch that threads wait for in the queue of `_flush_lock`, to be flushed: whoever leads hands them
    # over first. Changed under the log's lock. While there are any, the open batch holds no others.
    cdef int collected_count

    # In a process that only reads: nothing has to be looked at but the end of the active segment.
    cdef bint is_plain

    cdef FlushStep next_step(self, Waiting *me, int64_t offset, bint has_arrived, Segment active,
                             ls_fault *fault) noexcept nogil
    cdef FlushStep flush_active(self, Segment active, ls_fault *fault) noexcept nogil
    cdef int end_flush(self, FlushStep step, int64_t offset, Segment active, ls_fault *fault) except -1
    cdef int wait_flushed(self, int64_t offset) except -1
    cdef int wait_turn(self, Waiting *me, int64_t offset, bint has_arrived) except -1
    cdef int lead_flush(self, int64_t offset) except -1
    cdef int write_collected(self) except -1
    cdef int surface_collected(self, Waiting *me) except -1
    cdef int raise_taken_back(self) except -1
    cdef int lead_cold(self, int64_t offset) except -1
    cdef CaughtUp catch_up_now(self) except? CAUGHT_TOO_LITTLE
