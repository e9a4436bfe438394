"""The partitions of a producer: one open batch each, and the batches on their way, oldest first."""

from collections import deque

cimport cython
from cpython.ref cimport PyObject
from libc.stdlib cimport free
from libc.string cimport memset
from logstore._native.core cimport (
    LS_BATCH_HEADER_BYTES,
    LS_OK,
    ls_batch_builder,
    ls_batch_builder_free,
    ls_batch_builder_init,
    ls_batch_builder_reset,
    ls_batch_builder_seal,
    ls_batch_stamp_fields,
    ls_fault,
)
from logstore._native.faults cimport raise_fault
from logstore._native.partitioner cimport Partitioner
from logstore._native.record_batch cimport Chunk, RecordBatch
from logstore._native.record_future cimport BATCH_SEALED, ProducerBatch

from logstore.errors import InvalidRequestError


cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(PyObject *)


@cython.final
cdef class BufferPool:
    """Up to eight buffers of a producer."""

    def __cinit__(self, size_t capacity_max):
        self.capacity_max = capacity_max

    def __dealloc__(self):
        cdef int i
        for i in range(self.count):
            free(self.buffers[i])

    cdef int lend(self, ls_batch_builder *builder) except -1:
        """Gives a builder a buffer."""
        cdef ls_fault fault
        if self.count:
            self.count -= 1
            builder.buffer = self.buffers[self.count]
            builder.capacity_bytes = self.capacities[self.count]
            ls_batch_builder_reset(builder)
        elif ls_batch_builder_init(builder, 4096, &fault) != LS_OK:
            raise_fault(&fault, "<memory>")
        return 0

    cdef int take_back(self, RecordBatch records):
        """Takes the buffer of a batch that nobody else holds; the batch is not used any more."""
        cdef Chunk chunk
        if self.count == 8 or not isinstance(records.owner, Chunk) or Py_REFCNT(<PyObject *>records) > 1:
            return 0
        chunk = <Chunk>records.owner
        if Py_REFCNT(<PyObject *>chunk) > 2 or <size_t>chunk.capacity > self.capacity_max:
            return 0
        self.buffers[self.count] = chunk.data
        self.capacities[self.count] = chunk.capacity
        self.count += 1
        chunk.data = NULL
        chunk.size = 0
        return 0


@cython.final
cdef class PartitionQueue:
    """The batches of one partition."""

    def __cinit__(self, str topic, int partition, Partitioner partitioner, BufferPool pool):
        memset(&self.builder, 0, sizeof(self.builder))
        self.topic = topic
        self.partition = partition
        self.partitioner = partitioner
        self.pool = pool
        self.producer_id = -1
        self.sealed = deque()
        self.unflushed = deque()

    def __dealloc__(self):
        ls_batch_builder_free(&self.builder)

    cdef int start(self, ProducerBatch batch) except -1:
        """Opens a batch, unless one is open."""
        if self.open is None:
            self.pool.lend(&self.builder)
            self.lacks_a_key = False
            self.open = batch
        return 0

    cdef ProducerBatch seal(self, const ls_batch_stamp_fields *fields):
        """Moves the open batch behind those that wait. Returns it, or None where there was none.

        What is allocated comes first: the garbage collector may run code of anybody's there.
        """
        cdef Chunk chunk = Chunk.__new__(Chunk)
        cdef RecordBatch records = RecordBatch.__new__(RecordBatch)
        cdef ProducerBatch batch = self.open
        if batch is None or self.builder.records_count == 0:
            return None
        self.open = None
        self.is_awaited = False
        ls_batch_builder_seal(&self.builder, fields, &records.header)
        chunk.data = self.builder.buffer
        chunk.capacity = self.builder.capacity_bytes
        chunk.size = self.builder.size_bytes
        memset(&self.builder, 0, sizeof(self.builder))
        records.owner = chunk
        records.data = chunk.data
        records.topic = self.topic
        records.partition = self.partition
        records.path = "<memory>"
        records.is_stampable = True
        records.lacks_a_key = self.lacks_a_key
        batch.records = records
        batch.records_count = records.header.records_count
        batch.buffered_bytes = chunk.size - LS_BATCH_HEADER_BYTES
        batch.state = BATCH_SEALED
        self.sealed.append(batch)
        self.partitioner.batch_sealed(self.partition)
        return batch


@cython.final
cdef class ProducerTopic:
    """One topic, as a producer knows it.

    Parameters
    ----------
    name : str
    limits : logstore.broker_api.TopicLimits
    previous : ProducerTopic or None
        What was known before: its queues go on.
    """

    def __init__(self, str name, limits, ProducerTopic previous, BufferPool pool, partitioner, *, size_t batch_bytes,
                 size_t request_bytes_max, bint is_flushed, int codec, codec_level):
        cdef Partitioner choice
        cdef PartitionQueue queue
        if limits.partitions < 1:
            raise InvalidRequestError(f"topic {name!r} has no partition that can be written here")
        self.name = name
        self.message_bytes_max = min(<size_t>limits.message_bytes_max, request_bytes_max)
        self.batch_bytes_max = min(batch_bytes, self.message_bytes_max)
        self.keys_required = limits.keys_required
        self.is_append_time = limits.is_append_time
        self.timestamp_before_max_ms = limits.timestamp_before_max_ms
        self.timestamp_after_max_ms = limits.timestamp_after_max_ms
        kept = () if previous is None else previous.queues
        choice = Partitioner(partitioner, limits.partitions)
        if previous is not None:
            choice.sticky = previous.partitioner.sticky % choice.count
            choice.next_in_turn = previous.partitioner.next_in_turn % choice.count
        self.partitioner = choice
        self.queues = (*kept, *[
            PartitionQueue(name, number, choice, pool) for number in range(len(kept), limits.partitions)
        ])
        for queue in self.queues:
            queue.partitioner = choice
            queue.is_flushed = is_flushed
            queue.codec = codec
            queue.codec_level = codec_level
