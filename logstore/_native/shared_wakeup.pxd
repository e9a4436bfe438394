# What a consumer sleeps on: also where another process sees it that writes the logs.

from logstore._native.core cimport ls_wake_reader
from logstore._native.log_flusher cimport LogFlusher
from logstore._native.wakeup cimport Wakeup


cdef class SharedWakeup(Wakeup):
    cdef object __weakref__
    cdef ls_wake_reader *reader     # NULL: as any other wake-up
    cdef object follower            # of the broker whose logs these are; None: they are written in this process
    cdef dict logs                  # by directory
    cdef dict directories           # by bucket, those of its logs
    cdef double attach_at
    cdef int forks
    cdef bint is_stale              # the table is another now, or so it seems
    cdef bint is_looking            # the thread that sleeps is about to see for itself
    cdef bint has_listened          # an event loop, which can't sleep there

    cdef int follow(self, object log, object follower) except -1
    cdef int unfollow(self, object log) except -1
    cdef int look(self) except -1
    cdef int look_at(self, LogFlusher log, bint is_more) except -1
    cdef int attach(self) except -1
    cdef int detach(self) except -1
    cdef int renew(self) except -1
    cdef int offer(self) except -1
    cdef void release(self) noexcept
