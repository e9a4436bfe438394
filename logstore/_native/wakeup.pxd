# Waking those who wait for a log, a group or metadata.

from cpython.pythread cimport PyThread_type_lock


# Something that can be told of a change, from any thread. `signal` allocates nothing and runs no Python code where
# nobody waits, so that the writer of a log can afford it after each batch.
cdef class Waker:
    cdef int signal(self) except -1


# What one thread or one event loop sleeps on.
cdef class Wakeup(Waker):
    cdef PyThread_type_lock lock    # released exactly while is_set
    cdef readonly bint is_set
    cdef object listener

    cdef bint sleep(self, long long timeout_us) except -1
    cdef bint wait_for(self, double left) except -1
