# The writer's end of the table by which readers in other processes are woken.

from libc.stdint cimport uint32_t
from logstore._native.core cimport ls_wake_table


cdef class WaitingReaders:
    cdef ls_wake_table table

    cdef void forget_killed(self) noexcept


cdef uint32_t bucket_of(object directory) except? 0xffffffff
