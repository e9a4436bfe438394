# The way of a producer's batches, and all that a producer keeps.

from libc.stdint cimport int16_t, int64_t
from logstore._native.producer_queue cimport BufferPool, PartitionQueue, ProducerTopic
from logstore._native.record_future cimport ProducerBatch


# Told by the broker when topics change. Not the producer itself, so that the broker does not keep that alive.
cdef class MetadataListener:
    cdef bint is_stale


# One thread changes state at a time: the one that has the GIL, in steps that run no Python code. Whatever runs some
# (the broker, codecs, callbacks, allocating what the garbage collector sees) stands between such steps.
cdef class ProducerDelivery:
    cdef object broker
    cdef MetadataListener metadata
    cdef dict topics                # name -> ProducerTopic, as far as known and not stale
    cdef dict all_topics            # also those whose limits may have changed
    cdef object last_name           # of the topic sent to last: the look-up that is nearly always right
    cdef ProducerTopic last_topic
    cdef list queues                # of all topics
    cdef BufferPool pool
    cdef readonly str _state        # "open", "closing", "closed", "forked"
    cdef bint is_open
    # settings
    cdef object clock
    cdef object partitioner
    cdef object on_delivery
    cdef int64_t linger_ms
    cdef size_t batch_bytes
    cdef size_t request_bytes_max
    cdef int64_t buffer_bytes_max
    cdef double max_block_seconds
    cdef int64_t delivery_timeout_ms
    cdef int64_t retry_backoff_ms
    cdef object codec               # None: the topic's
    cdef object codec_level
    cdef object is_flushed          # None: the topic's
    cdef bint never_blocks          # lives in an event loop
    # of every partition's first batch; -1 without idempotence
    cdef readonly int64_t producer_id
    cdef readonly int16_t producer_epoch
    cdef bint is_transactional
    cdef readonly bint in_transaction
    cdef readonly object _transaction_error  # why the transaction can't be committed any more
    # state
    cdef readonly int64_t _buffered_bytes   # of records that are not acknowledged
    cdef int64_t sealed_bytes       # of those, in batches that take no more
    cdef list room_waiters          # locks of threads that wait for memory
    cdef object callbacks           # deque: (RecordFuture, callable, takes_outcome)
    cdef object callbacks_thread    # that runs them now; None
    cdef list callbacks_waiters
    cdef object failed              # deque of ProducerBatch whose failure nobody may have seen
    cdef dict failed_before         # (topic, partition) -> count, of those that no longer fit there
    cdef object first_failure
    # the sender
    cdef readonly object _wake      # a lock: released to wake the sender
    cdef bint has_sender
    cdef int64_t sender_wakes_at_ms
    cdef bint has_begun_batches  # since the sender last looked
    cdef readonly bint _sender_stops
    cdef object sender_thread

    cdef int64_t monotonic_ms(self) except? -1
    cdef int refuse(self) except -1
    cdef bint is_full(self, size_t needed)
    cdef ProducerBatch new_batch(self, PartitionQueue queue)
    cdef ProducerBatch seal(self, PartitionQueue queue)
    cdef int number(self, PartitionQueue queue)
    cdef int number_sealed(self, PartitionQueue queue)
    cdef int stamp(self, PartitionQueue queue, ProducerBatch batch) except -1
    cdef int batch_failed(self, PartitionQueue queue, object error) except -1
    cdef int drain(self, PartitionQueue queue, bint flushes_itself) except -1
    cdef bint hand_over(self, PartitionQueue queue, ProducerBatch batch, bint flushes_itself) except -1
    cdef bint refused(self, PartitionQueue queue, ProducerBatch batch, object error) except -1
    cdef int compress(self, PartitionQueue queue, ProducerBatch batch) except -1
    cdef int flush_queue(self, PartitionQueue queue) except -1
    cdef int acknowledge(self, PartitionQueue queue, int64_t end_offset, object error) except -1
    cdef int complete(self, ProducerBatch batch, object error) except -1
    cdef int run_callbacks(self) except -1
    cdef int wake_all(self, list waiters) except -1
    cdef bint wait_for_room(self, size_t needed_bytes) except -1
    cdef int wake_sender(self) except -1
