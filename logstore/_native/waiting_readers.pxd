# The writer's end of the table by which readers in other processes are woken.

from libc.stdint cimport uint32_t
from logstore._native.core cimport ls_wake_table


cdef class WaitingReaders:
    cdef ls_wake_table table

    cdef void forget_killed(self) noexcept


cdef uint32_t bucket_of(object directory) except? 0xffffffff


# How many times this process is a child of one that has imported this: what a reader has of a table is the parent's then.
cdef int forks_count() noexcept
