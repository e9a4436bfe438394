# Waking those who wait for a log, a group or metadata.

from cpython.pythread cimport PyThread_type_lock
from logstore._native.core cimport ls_early_wake

# How long a thread that was woken ahead of what it waits for looks out for it. Longer than a small write takes, cold.
cdef enum:
    LOOK_OUT_NS = 60_000


# Something that can be told of a change, from any thread. `signal` allocates nothing and runs no Python code where
# nobody waits, so that the writer of a log can afford it after each batch.
cdef class Waker:
    cdef int signal(self) except -1
    # A signal is likely to follow at once: a thread that sleeps is woken for it. Returns whether anybody waits.
    cdef bint announce(self)
    # The log it is told of is written by another process, and looked at by that broker's follower; and no more.
    cdef int follow(self, object log, object follower) except -1
    cdef int unfollow(self, object log) except -1


# What one thread or one event loop sleeps on.
cdef class Wakeup(Waker):
    cdef PyThread_type_lock lock    # held unless is_released
    cdef readonly bint is_set
    cdef bint is_released           # for a signal, or for what was announced, and not acquired since
    cdef bint is_asleep             # a thread is in `sleep`
    cdef ls_early_wake early
    cdef object listener

    cdef bint sleep(self, long long timeout_us) except -1
    cdef bint wait_for(self, double left) except -1
