# What a producer keeps of one topic, and of one partition: the batch that takes records, and those on their way.

from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t
from logstore._native.core cimport ls_batch_builder, ls_batch_stamp_fields
from logstore._native.partitioner cimport Partitioner
from logstore._native.record_batch cimport RecordBatch
from logstore._native.record_future cimport ProducerBatch


# Buffers of batches that are in the log, to be filled again: fresh memory costs a page fault every 4 KiB.
cdef class BufferPool:
    cdef uint8_t *buffers[8]
    cdef size_t capacities[8]
    cdef int count
    cdef size_t capacity_max

    cdef int lend(self, ls_batch_builder *builder) except -1
    cdef int take_back(self, RecordBatch records)


cdef class PartitionQueue:
    cdef readonly str topic
    cdef readonly int partition
    cdef Partitioner partitioner
    cdef BufferPool pool
    cdef ls_batch_builder builder   # holds a buffer exactly while a batch is open
    cdef bint lacks_a_key
    cdef ProducerBatch open         # takes records
    cdef object sealed              # deque: wait for their turn, oldest first
    cdef object unflushed           # deque: in the log, waiting for the disk
    cdef object drainer             # the thread that hands over; it takes what is sealed meanwhile, too
    cdef int64_t retry_at_ms        # the oldest sealed batch was refused, and is tried again then
    cdef bint is_flushed            # acknowledged once on disk
    cdef int codec
    cdef object codec_level
    # of the batches with an id: each partition counts for itself
    cdef int64_t producer_id        # -1: to be taken from the producer with the next batch
    cdef int16_t producer_epoch
    cdef int32_t next_sequence      # of the next batch that the broker takes
    cdef int32_t sealed_sequence    # of the next batch to be sealed, if all before it are taken
    cdef bint is_awaited            # an asyncio task has asked for it in this turn of its loop

    cdef int start(self, ProducerBatch batch) except -1
    cdef ProducerBatch seal(self, const ls_batch_stamp_fields *fields)


# A topic's limits as plain numbers.
cdef class ProducerTopic:
    cdef readonly str name
    cdef tuple queues               # of PartitionQueue, by number
    cdef Partitioner partitioner
    cdef size_t batch_bytes_max
    cdef size_t message_bytes_max
    cdef bint keys_required
    cdef bint is_append_time
    cdef int64_t timestamp_before_max_ms
    cdef int64_t timestamp_after_max_ms
