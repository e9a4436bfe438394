# One fdatasync for all who wait for one.

from libc.stdint cimport int64_t
from cpython.pythread cimport PyThread_type_lock


cdef enum Turn:
    TURN_WAITS = 0
    TURN_OVER = 1           # what was waited for is on disk
    TURN_LEADS = 2          # this thread flushes for all, and calls `finish`
    TURN_INTERRUPTED = 3    # a signal came: its handler first, then `join` again
    TURN_REFUSED = 4        # its records were taken back


# A thread that waits; lives on its stack.
cdef struct Waiting:
    PyThread_type_lock lock     # what it sleeps on
    int64_t offset
    Turn turn
    bint is_released            # the lock is, or is about to be; who waits takes it back
    bint is_collected           # its records are in the open batch: whoever leads writes them first
    Waiting *following


cdef class GroupCommit:
    cdef unsigned long main_thread      # the one that signals are handled in
    cdef PyThread_type_lock state_lock  # over all that follows; held for a few instructions, with or without the GIL
    cdef Waiting *first                 # who waits, in order of arrival
    cdef Waiting *last
    cdef int waiting_count
    cdef Waiting *leader                # who gathers, or flushes
    cdef bint is_led
    cdef bint is_gathering
    cdef readonly int64_t flushed_offset    # records below it are on disk
    cdef int expected_count             # who took part in the last round, or came during it
    cdef int64_t sync_ns                # how long a flush takes, smoothed
    cdef int misses                     # rounds that were waited for in vain, one after the other
    cdef int rounds_to_skip

    cdef Turn arrive(self, Waiting *me, int64_t offset, bint gathers) noexcept nogil
    cdef Turn join(self, Waiting *me, int64_t offset, bint gathers) noexcept nogil
    cdef Turn sleep(self, Waiting *me) noexcept nogil
    cdef bint withdraw(self, Waiting *me) noexcept nogil
    cdef void leave(self, Waiting *me) noexcept nogil
    cdef void refuse(self, int64_t end_offset) noexcept nogil
    cdef void finish(self, int64_t flushed_offset, int64_t sync_ns) noexcept nogil
    cdef void restart(self, int64_t flushed_offset) noexcept
    cdef void enqueue(self, Waiting *one) noexcept nogil
    cdef bint dequeue(self, Waiting *one) noexcept nogil
    cdef int64_t patience_us(self) noexcept nogil
    cdef int lead(self) except -1
    cdef bint lead_now(self) noexcept nogil


cdef void wake(Waiting *woken) noexcept nogil
cdef bint open_waiting(Waiting *me) noexcept nogil
cdef void close_waiting(Waiting *me) noexcept nogil
