# Which partition a producer sends a record to, where the call does not say.

from logstore._native.core cimport ls_span


cdef enum PartitionerKind:
    MURMUR2 = 0
    CRC32 = 1
    ROUND_ROBIN = 2
    CUSTOM = 3


# The choice for one topic; records without a key stay in one partition until its batch is sealed (KIP-480).
cdef class Partitioner:
    cdef int kind
    cdef object custom
    cdef readonly Py_ssize_t count
    cdef Py_ssize_t sticky
    cdef Py_ssize_t next_in_turn

    cdef bint is_sticky(self, const ls_span *key)
    cdef Py_ssize_t choose(self, const ls_span *key, object key_object) except -1
    cdef int batch_sealed(self, Py_ssize_t partition) noexcept
