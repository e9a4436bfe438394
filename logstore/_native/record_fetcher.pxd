# What a consumer's calls are made of.

from libc.stdint cimport int64_t
from logstore._native.partition_turns cimport PartitionReader, PartitionTurns
from logstore._native.record_batch cimport Record
from logstore._native.wakeup cimport Waker, Wakeup


# What asks a consumer to attend to something else than records, from any thread. Refers to it weakly.
cdef class Notifier(Waker):
    cdef object fetcher
    cdef Wakeup wakeup


# The compiled half of a consumer.
cdef class RecordFetcher(PartitionTurns):
    cdef object __weakref__
    cdef PartitionReader handed         # whose last record iteration has handed out, and the caller still works on
    cdef public object _consumer_timeout
    cdef bint woken                     # `wakeup` was called
    cdef readonly Notifier _notifier
    cdef readonly dict _readers         # PartitionReader by TopicPartition
    cdef int64_t calls_count            # that hand out records
    cdef unsigned long busy_thread      # 0: nobody is in a call
    cdef public Py_ssize_t _records_max
    cdef public int64_t _bytes_max

    cdef inline Record take_from_current(self)
    cdef Record take_next(self)
    cdef int take_back(self) except -1
    cdef int confirm(self) except -1
    cdef int enter(self) except -1
    cdef list collect(self, int kind, int64_t limit)
    cdef list wait_for(self, int kind, int64_t limit, object deadline)
    cdef Py_ssize_t records_limit(self, object max_records) except -1
    cdef bint rest(self, object deadline) except -1
