# Records of several threads that wait for one fdatasync.

from libc.stdint cimport int64_t
from logstore._native.group_commit cimport Waiting
from logstore._native.log_stager cimport LogStager


cdef class LogCollector(LogStager):
    cdef tuple refusal      # kind and arguments of the error that collected records were taken back for last

    cdef bint collects(self)
    cdef int collect(self, Waiting *me) except -1
    cdef int take_back(self, error) except -1
    cdef int wait_collected(self, Waiting *me, int64_t end_offset, int turn) except -1
