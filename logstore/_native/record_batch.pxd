# Record batches and records as Python holds them.

from libc.stdint cimport int32_t, int64_t, uint8_t
from logstore._native.core cimport ls_batch_header, ls_record, ls_record_iterator


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


# One record: a view into its batch. Key and value become bytes when asked for.
cdef class Record:
    cdef RecordBatch batch
    cdef ls_record raw


cdef class RecordIterator:
    cdef RecordBatch batch
    cdef ls_record_iterator iterator


cdef Record new_record(RecordBatch batch, const ls_record *raw)
cdef int raise_in_batch(RecordBatch batch, const void *fault) except -1


# A sealed, uncompressed batch with its payload compressed; *header becomes that of the result.
cdef bytes compressed_batch(ls_batch_header *header, const uint8_t *batch, size_t batch_bytes, int codec, object level)
