# Record batches and records as Python holds them.

from libc.stdint cimport int32_t, int64_t, uint8_t
from logstore._native.core cimport ls_batch_header, ls_fault, ls_record, ls_record_iterator, ls_status


# Plain memory with a Python lifetime: what a read fills and batches point into. Read-only to Python.
cdef class Chunk:
    cdef uint8_t *data
    cdef readonly Py_ssize_t capacity
    cdef Py_ssize_t size        # valid bytes

    @staticmethod
    cdef Chunk create(Py_ssize_t capacity)


# A validated batch: header, CRC and structure are right. Immutable; any thread may read it.
cdef class RecordBatch:
    cdef object owner                   # Chunk, bytes or buffer export that keeps `data` alive
    cdef const uint8_t *data            # the whole batch as stored
    cdef ls_batch_header header
    cdef object payload_owner           # decompressed payload, once made
    cdef const uint8_t *payload         # NULL until first needed
    cdef const uint8_t *payload_end
    cdef readonly str topic
    cdef readonly int partition
    cdef readonly str path              # file the bytes came from, for errors
    cdef readonly int64_t position      # of the batch in that file
    # Of a batch that a producer of this process has sealed, and that no log has taken yet: its bytes are ours to stamp.
    cdef bint is_stampable
    cdef bint lacks_a_key               # one of its records at least
    cdef bint is_appended               # a log has taken it: base offset and time of append are in the header

    @staticmethod
    cdef RecordBatch wrap(object owner, const uint8_t *data, const ls_batch_header *header,
                          str topic, int partition, str path, int64_t position)
    cdef int open_payload(self) except -1


# One record. Key and value are made with it, since an attribute that is a plain field is read several times as fast as
# one that is computed; headers are read from the batch when asked for.
cdef class Record:
    cdef RecordBatch batch
    cdef object key         # bytes or None; Python sees it through a member descriptor
    cdef object value
    cdef ls_record raw


# The records of one batch after another. Those that nobody holds any more are used again, and so are their keys and values
# where the sizes are equal.
cdef class RecordFeed:
    cdef RecordBatch batch              # None between batches
    cdef ls_record_iterator iterator    # over it
    cdef int64_t next_offset            # records below it are passed over
    cdef int64_t stop_offset            # exclusive
    cdef Record last                    # handed out last; still the caller's as a rule
    cdef Record spare                   # the one before
    cdef ls_status status               # why `take` gave none
    cdef ls_fault fault

    cdef int begin(self, RecordBatch batch, int64_t next_offset) except -1
    cdef void drop(self)
    cdef Record take(self)
    cdef RecordBatch leave(self)
    cdef int take_back(self) except -1


cdef class RecordIterator:
    cdef RecordFeed feed


cdef Record new_record(RecordBatch batch, const ls_record *raw)
cdef int raise_in_batch(RecordBatch batch, const void *fault) except -1
