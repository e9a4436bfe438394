"""A producer's `send`, and the way of a batch to the broker.

A record is encoded once, into the open batch of its partition. Whoever finds that batch full seals it and hands it over in
the same call: handing it to another thread would cost a turn of the GIL. The sender thread does what nobody waits for:
batches that have lingered, retries, and the flushes behind acknowledgements at ``flushed``.
"""

from _thread import allocate_lock, get_ident
from collections import deque
from time import monotonic

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t
from logstore._native.clock cimport ls_wall_clock_ms
from logstore._native.core cimport (
    LS_ATTRIBUTE_LOG_APPEND_TIME,
    LS_BATCH_HEADER_BYTES,
    LS_CODEC_NONE,
    LS_OK,
    ls_batch_builder_append,
    ls_batch_header,
    ls_batch_size_bytes,
    ls_batch_stamp_fields,
    ls_fault,
    ls_record_size_bytes_max,
    ls_span,
)
from logstore._native.faults cimport raise_fault
from logstore._native.log_appender cimport expected_of, timestamp_of
from logstore._native.producer_queue cimport BufferPool, PartitionQueue, ProducerTopic
from logstore._native.record_batch cimport RecordBatch, compressed_batch
from logstore._native.record_future cimport (
    BATCH_APPENDED,
    BATCH_OPEN,
    BATCH_SEALED,
    ProducerBatch,
    RecordFuture,
    run_callback,
)
from logstore._native.spans cimport HeaderList, span_of

from logstore.errors import (
    ClosedError,
    InvalidRecordError,
    InvalidRequestError,
    InvalidTimestampError,
    RecordTooLargeError,
    RequestTimeoutError,
    UnknownTopicOrPartitionError,
)

FAILED_BATCHES_KEPT = 1000
cdef object NO_NAME = object()


@cython.final
cdef class MetadataListener:
    """Notes that topics have changed."""

    def notify(self):
        """From any thread."""
        self.is_stale = True


cdef class ProducerCore:
    """The compiled half of a producer. `logstore.clients.producer.Producer` is what is used."""

    def __cinit__(self, *args, **kwargs):
        self.metadata = MetadataListener()
        self.topics = {}
        self.all_topics = {}
        self.queues = []
        self.room_waiters = []
        self.callbacks = deque()
        self.callbacks_waiters = []
        self.failed = deque()
        self.failed_before = {}
        self.last_name = NO_NAME
        self._state = "closed"
        self._wake = allocate_lock()
        self._wake.acquire()
        self.sender_wakes_at_ms = INT64_MAX
        self.producer_id = -1
        self.producer_epoch = -1

    def _configure(self, broker, *, clock, partitioner, on_delivery, int64_t linger_ms, size_t batch_bytes,
                   size_t request_bytes_max, int64_t buffer_bytes_max, double max_block, int64_t delivery_timeout_ms,
                   int64_t retry_backoff_ms, codec, codec_level, is_flushed):
        """Takes checked settings over, and opens."""
        self.broker = broker
        self.clock = clock
        self.partitioner = partitioner
        self.on_delivery = on_delivery
        self.linger_ms = linger_ms
        self.batch_bytes = batch_bytes
        self.request_bytes_max = request_bytes_max
        self.buffer_bytes_max = buffer_bytes_max
        self.max_block_seconds = max_block
        self.delivery_timeout_ms = delivery_timeout_ms
        self.retry_backoff_ms = retry_backoff_ms
        self.codec = codec
        self.codec_level = codec_level
        self.is_flushed = is_flushed
        self.pool = BufferPool(2 * batch_bytes)
        broker.add_metadata_waiter(self.metadata)
        self._state = "open"
        self.is_open = True

    @cython.final
    cdef int64_t now_ms(self) except? -1:
        return ls_wall_clock_ms() if self.clock is None else self.clock()

    cdef int64_t monotonic_ms(self) except? -1:
        return <int64_t>(<double>monotonic() * 1000) if self.clock is None else self.clock()

    # ---- send ------------------------------------------------------------------------------------------

    @cython.binding(False)
    def send(self, topic, value=None, key=None, headers=None, partition=None, timestamp=None, *, on_delivery=None,
             expected_offset=None):
        """Takes one record for delivery, and returns at once.

        Parameters
        ----------
        topic : str
        value : bytes-like or None
            None is a tombstone.
        key : bytes-like, optional
            The partitioner goes by it. Without a key, a partition is kept until its batch is full or has lingered.
        headers : sequence of (str, bytes or None), optional
        partition : int, optional
            Goes there, whatever the partitioner.
        timestamp : int, optional
            Milliseconds UTC; now, if not given.
        on_delivery : callable, optional
            Called once with ``(error, metadata)``, one of which is None, by the thread that completes the batch; before the
            producer's own ``on_delivery``. It must not block for long.
        expected_offset : int, optional
            Appends only if the record gets this offset; otherwise the future has an `UnexpectedOffsetError`. The record
            goes into a batch of its own, behind what was sent to the partition before. Needs ``partition=``, unless the
            topic has one partition.

        Returns
        -------
        RecordFuture
            Of a `RecordMetadata`; also awaitable.

        Raises
        ------
        InvalidRequestError
            A wrong argument, an unknown topic or partition, a record over the limits; the record was not taken.
        RequestTimeoutError
            ``buffer_memory`` was full for ``max_block`` seconds; the record was not taken.
        ClosedError
            The producer is closed, or belongs to the parent process.

        Notes
        -----
        Thread-safe; records of one thread to one partition keep their order. Returns at once, unless memory is full.
        """
        cdef ls_span key_span, value_span
        cdef ProducerTopic known
        cdef PartitionQueue queue = None
        cdef size_t needed
        if not self.is_open or self.metadata.is_stale:
            self.refuse()
        known = self.last_topic if topic is self.last_name else self.topic_named(topic)
        _keep_value = quick_span_of(value, "value", &value_span)
        _keep_key = quick_span_of(key, "key", &key_span)
        if (headers is None and partition is None and timestamp is None and expected_offset is None and on_delivery is None
                and self.on_delivery is None):
            # The usual record, in the usual case: everything is at hand. Anything else goes the long way.
            needed = ls_record_size_bytes_max(key_span.size_bytes, value_span.size_bytes, NULL, 0)
            if needed + LS_BATCH_HEADER_BYTES <= known.message_bytes_max and not (
                    known.keys_required and key_span.size_bytes < 0):
                queue = <PartitionQueue>known.queues[known.partitioner.choose(&key_span, key)]
                if (queue.open is not None and queue.builder.size_bytes + needed <= known.batch_bytes_max
                        and not self.is_full(needed)):
                    return self.encode(queue, self.new_future(), &key_span, &value_span, None, None)
        return self.send_any(known, queue, &key_span, &value_span, key, headers, partition, timestamp, on_delivery,
                             expected_offset)

    @cython.final
    cdef RecordFuture new_future(self):
        cdef RecordFuture future = RecordFuture.__new__(RecordFuture)
        future.timestamp = self.now_ms()
        return future

    cdef RecordFuture send_any(self, ProducerTopic known, PartitionQueue queue, const ls_span *key, const ls_span *value,
                               object key_object, object headers, object partition, object timestamp, object on_delivery,
                               object expected_offset):
        """Any record, whatever has to be done first; ``queue`` where it is chosen already."""
        cdef HeaderList header_list = None
        cdef RecordFuture future = self.new_future()
        cdef size_t needed
        cdef bint is_sticky = partition is None and known.partitioner.is_sticky(key)
        cdef bint over_limit = False
        if headers is not None:
            header_list = HeaderList.create(headers)
        if timestamp is not None:
            future.timestamp = checked_timestamp(timestamp, future.timestamp, known)
        needed = ls_record_size_bytes_max(key.size_bytes, value.size_bytes,
                                          header_list.items if header_list is not None else NULL,
                                          header_list.count if header_list is not None else 0)
        if (needed + LS_BATCH_HEADER_BYTES > known.message_bytes_max or needed > <size_t>self.buffer_bytes_max
                or (known.keys_required and key.size_bytes < 0)):
            raise refusal_of(known, needed, self.buffer_bytes_max)
        if on_delivery is not None and not callable(on_delivery):
            raise InvalidRequestError(f"on_delivery is called, which {type(on_delivery).__name__} can't be")
        if expected_offset is not None:
            if partition is None and known.partitioner.count > 1:
                raise InvalidRequestError(
                    f"expected_offset needs partition=, since each of the {known.partitioner.count} partitions of "
                    f"{known.name!r} counts for itself")
            return self.send_expected(self.queue_of(known, 0 if partition is None else partition), future, key, value,
                                      header_list, needed, expected_of(expected_offset), on_delivery)
        if partition is not None:
            queue = self.queue_of(known, partition)
        elif queue is None and not is_sticky:
            queue = <PartitionQueue>known.queues[known.partitioner.choose(key, key_object)]
        while True:
            if is_sticky:
                queue = <PartitionQueue>known.queues[known.partitioner.sticky]
            if not over_limit and self.is_full(needed):
                over_limit = self.wait_for_room(needed)
            elif queue.open is None:
                self.new_batch(queue)
            elif queue.builder.size_bytes + needed > known.batch_bytes_max and queue.builder.records_count:
                self.seal(queue)
                self.drain(queue, False)
            else:
                return self.encode(queue, future, key, value, header_list, on_delivery)

    @cython.final
    cdef inline bint is_full(self, size_t needed):
        return self._buffered_bytes + <int64_t>needed > self.buffer_bytes_max

    @cython.final
    cdef RecordFuture encode(self, PartitionQueue into, RecordFuture future, const ls_span *key, const ls_span *value,
                             HeaderList headers, object on_delivery):
        """Adds one record to the open batch; it is taken when this returns."""
        cdef ls_fault fault
        cdef size_t before = into.builder.size_bytes
        cdef ProducerBatch batch = into.open
        if ls_batch_builder_append(&into.builder, future.timestamp, key[0], value[0],
                                   headers.items if headers is not None else NULL,
                                   headers.count if headers is not None else 0, &fault) != LS_OK:
            raise_fault(&fault, "<memory>")
        self._buffered_bytes += into.builder.size_bytes - before
        if key.size_bytes < 0:
            into.lacks_a_key = True
        future.batch = batch
        future.index = into.builder.records_count - 1
        if on_delivery is not None or self.on_delivery is not None:
            if batch.callbacks is None:
                batch.callbacks = []
            if on_delivery is not None:
                batch.callbacks.append((future, on_delivery, True))
            if self.on_delivery is not None:
                batch.callbacks.append((future, self.on_delivery, True))
        return future

    cdef RecordFuture send_expected(self, PartitionQueue queue, RecordFuture future, const ls_span *key,
                                    const ls_span *value, HeaderList headers, size_t needed, int64_t expected_offset,
                                    object on_delivery):
        """A batch of one record, behind all that was sent to the partition before."""
        cdef PartitionQueue alone = PartitionQueue(queue.topic, queue.partition, queue.partitioner, self.pool)
        cdef ProducerBatch batch
        while self.is_full(needed) and not self.wait_for_room(needed):
            pass
        batch = self.new_batch(alone)
        batch.queue = queue
        batch.expected_offset = expected_offset
        self.encode(alone, future, key, value, headers, on_delivery)
        self.seal(queue)
        alone.sealed = queue.sealed
        self.seal(alone)
        self.drain(queue, False)
        return future

    cdef int refuse(self) except -1:
        """Raises where nothing can be sent; takes notice of changed topics."""
        if self.is_open:
            self.metadata.is_stale = False
            self.topics.clear()
            self.last_name = NO_NAME
            return 0
        if self._state == "forked":
            raise ClosedError("this producer belongs to the parent process; open a broker and a producer in the child")
        raise ClosedError("the producer is closed; make another one with broker.producer()")

    cdef ProducerTopic topic_named(self, object name):
        cdef ProducerTopic known
        if not isinstance(name, str):
            raise InvalidRequestError(f"a topic is given by its name, a str, not {type(name).__name__}")
        known = self.topics.get(name)
        if known is None:
            known = self.load_topic(name)
        self.last_topic = known
        self.last_name = name
        return known

    def load_topic(self, str name):
        """Asks the broker; what is queued for the topic stays."""
        cdef ProducerTopic known
        limits = self.broker.topic_limits(name)
        codec, level = (limits.codec, limits.codec_level) if self.codec is None else (self.codec, self.codec_level)
        if codec != LS_CODEC_NONE:
            self._check_codec(codec, level)
        is_flushed = limits.durability == "flushed" if self.is_flushed is None else self.is_flushed
        previous = self.all_topics.get(name)
        known = ProducerTopic(
            name, limits, previous, self.pool, self.partitioner, batch_bytes=self.batch_bytes,
            request_bytes_max=self.request_bytes_max, is_flushed=is_flushed, codec=codec, codec_level=level)
        if self.all_topics.get(name) is not previous:
            return self.load_topic(name)  # another thread was first; its queues must not be doubled
        self.all_topics[name] = known
        self.topics[name] = known
        self.queues.extend(known.queues[0 if previous is None else len((<ProducerTopic>previous).queues):])
        return known

    cdef PartitionQueue queue_of(self, ProducerTopic topic, object partition):
        if not isinstance(partition, int) or not 0 <= partition < topic.partitioner.count:
            raise UnknownTopicOrPartitionError(
                f"topic {topic.name!r} has no partition {partition!r}; it has 0 to {topic.partitioner.count - 1}")
        return <PartitionQueue>topic.queues[partition]

    # ---- batches ---------------------------------------------------------------------------------------

    cdef ProducerBatch new_batch(self, PartitionQueue queue):
        """Opens a batch, unless one is open; the sender will come for it."""
        cdef ProducerBatch batch = ProducerBatch.__new__(ProducerBatch)
        cdef int64_t now_ms = self.monotonic_ms()
        batch.topic = queue.topic
        batch.partition = queue.partition
        batch.producer = self
        batch.queue = queue
        batch.created_ms = now_ms
        batch.expected_offset = -1
        batch.append_time = -1
        queue.start(batch)
        if self.sender_wakes_at_ms > now_ms + self.linger_ms:
            self.wake_sender()
        return batch

    cdef ProducerBatch seal(self, PartitionQueue queue):
        """Moves the open batch behind those that wait for the broker."""
        cdef ls_batch_stamp_fields fields
        cdef ProducerBatch batch
        fields.base_offset = 0
        fields.partition_leader_epoch = -1
        fields.attributes = 0
        fields.log_append_timestamp = -1
        fields.producer_id = self.producer_id
        fields.producer_epoch = self.producer_epoch
        fields.base_sequence = -1
        batch = queue.seal(&fields)
        if batch is not None:
            self.sealed_bytes += batch.buffered_bytes
        return batch

    cdef int drain(self, PartitionQueue queue, bint flushes_itself) except -1:
        """Hands over what is sealed, in order. If another thread is at it, that one takes it along."""
        if queue.drainer is not None:
            return 0
        queue.drainer = get_ident()
        try:
            while queue.sealed and (queue.retry_at_ms == 0 or queue.retry_at_ms <= self.monotonic_ms()):
                if not self.hand_over(queue, <ProducerBatch>queue.sealed[0], flushes_itself):
                    break
        finally:
            queue.drainer = None
        if self.callbacks:
            self.run_callbacks()
        return 0

    cdef bint hand_over(self, PartitionQueue queue, ProducerBatch batch, bint flushes_itself) except -1:
        """Gives the oldest sealed batch to the broker; False where it has to be tried again later."""
        cdef RecordBatch records
        cdef object interrupt = None
        try:
            if queue.codec != LS_CODEC_NONE and not batch.is_compressed:
                self.compress(queue, batch)
            batch.base_offset, batch.append_time = self.broker.produce(
                queue.topic, queue.partition, batch.records, durability="appended",
                expected_offset=None if batch.expected_offset < 0 else batch.expected_offset)
        except Exception as error:
            return self.refused(queue, batch, error)
        except BaseException as error:
            records = batch.records
            if batch.is_complete() or not records.is_appended:
                self.wake_sender()
                raise
            # Interrupted after the append: once it is in the log, it must not be tried again.
            batch.base_offset = records.header.base_offset
            batch.append_time = (
                records.header.max_timestamp if records.header.attributes & LS_ATTRIBUTE_LOG_APPEND_TIME else -1)
            interrupt = error
        queue.retry_at_ms = 0
        if not batch.is_complete():  # given up by close() meanwhile
            queue.sealed.popleft()
            records = batch.records
            batch.records = None
            self.pool.take_back(records)
            records = None
            batch.state = BATCH_APPENDED
            if queue.is_flushed:
                queue.unflushed.append(batch)
                if not flushes_itself and self.sender_wakes_at_ms != 0:
                    self.wake_sender()
            else:
                self.complete(batch, None)
        if interrupt is not None:
            self.wake_sender()
            raise interrupt
        return True

    cdef bint refused(self, PartitionQueue queue, ProducerBatch batch, object error) except -1:
        """The broker did not take a batch: later again, or its records fail. True where the next one can be tried."""
        cdef int64_t now_ms
        if batch.is_complete():
            return True
        if getattr(error, "retriable", False) and not batch.records.is_appended:
            now_ms = self.monotonic_ms()
            if now_ms + self.retry_backoff_ms <= batch.created_ms + self.delivery_timeout_ms and self._state != "closed":
                queue.retry_at_ms = now_ms + self.retry_backoff_ms
                self.wake_sender()
                return False
            late = RequestTimeoutError(
                f"{batch.records_count} records for {batch.topic}-{batch.partition} could not be appended within "
                f"delivery_timeout ({self.delivery_timeout_ms / 1000.0} s) and were given up. The last error: {error}")
            late.__cause__ = error
            error = late
        queue.retry_at_ms = 0
        if not batch.is_complete():
            queue.sealed.popleft()
            self.complete(batch, error)
        return True

    cdef int compress(self, PartitionQueue queue, ProducerBatch batch) except -1:
        """Compresses a sealed batch, where that pays: readers go by its attributes."""
        cdef RecordBatch plain = batch.records
        cdef RecordBatch smaller
        cdef ls_batch_header header = plain.header
        cdef bytes data = compressed_batch(&header, plain.data, ls_batch_size_bytes(&plain.header), queue.codec,
                                           queue.codec_level)
        if len(data) < ls_batch_size_bytes(&plain.header):
            smaller = RecordBatch.wrap(data, <const uint8_t *><const char *>data, &header, plain.topic, plain.partition,
                                       plain.path, 0)
            smaller.is_stampable = True
            smaller.lacks_a_key = plain.lacks_a_key
            batch.records = smaller
            self.pool.take_back(plain)
        batch.is_compressed = True
        return 0

    cdef int flush_queue(self, PartitionQueue queue) except -1:
        """Has the disk take what was appended; whoever waits for the same partition shares the flush."""
        cdef ProducerBatch last
        cdef int64_t end_offset
        if not queue.unflushed:
            return 0
        last = <ProducerBatch>queue.unflushed[len(queue.unflushed) - 1]
        end_offset = last.base_offset + last.records_count
        try:
            self.broker.flush_partition(queue.topic, queue.partition, end_offset)
        except Exception as error:
            self.acknowledge(queue, end_offset, error)
        except BaseException:
            self.wake_sender()
            raise
        else:
            self.acknowledge(queue, end_offset, None)
        return 0

    cdef int acknowledge(self, PartitionQueue queue, int64_t end_offset, object error) except -1:
        cdef ProducerBatch batch
        while queue.unflushed:
            batch = <ProducerBatch>queue.unflushed[0]
            if batch.base_offset + batch.records_count > end_offset:
                break
            queue.unflushed.popleft()
            self.complete(batch, error)
        return 0

    cdef int complete(self, ProducerBatch batch, object error) except -1:
        """Settles a batch. Its callbacks are left to `run_callbacks`, so that they find no hand-over under way."""
        cdef ProducerBatch old
        cdef list callbacks = batch.callbacks
        cdef list awaiting = batch.settle(error)
        self._buffered_bytes -= batch.buffered_bytes
        self.sealed_bytes -= batch.buffered_bytes
        batch.callbacks = None
        if callbacks is not None:
            self.callbacks.extend(callbacks)
        for lock in self.room_waiters:
            lock.release()
        self.room_waiters = []
        if error is not None:
            if self.first_failure is None:
                self.first_failure = error
            self.failed.append(batch)
            if len(self.failed) > FAILED_BATCHES_KEPT:
                old = self.failed.popleft()
                place = (old.topic, old.partition)
                self.failed_before[place] = self.failed_before.get(place, 0) + old.unobserved_count
        if awaiting is not None:
            batch.wake_tasks(awaiting)
        return 0

    cdef int run_callbacks(self) except -1:
        """Calls back in the order of delivery, one thread at a time."""
        if self.callbacks_thread is not None:
            return 0
        self.callbacks_thread = get_ident()
        try:
            while self.callbacks:
                future, callback, takes_outcome = self.callbacks.popleft()
                run_callback(future, callback, takes_outcome)
        finally:
            self.callbacks_thread = None
            for lock in self.callbacks_waiters:
                lock.release()
            self.callbacks_waiters = []
            if self.callbacks:
                self.wake_sender()
        return 0

    # ---- waiting ---------------------------------------------------------------------------------------

    cdef bint wait_for_room(self, size_t needed_bytes) except -1:
        """Returns when memory may be free again; True where the record has to be taken in spite of the limit."""
        cdef double deadline
        if self.sealed_bytes + <int64_t>needed_bytes <= self.buffer_bytes_max:
            # Open batches fill the memory. Otherwise others are on their way, and these have time to grow.
            for queue in tuple(self.queues):
                self.seal(queue)
                self.drain(queue, False)
        if not self.is_full(needed_bytes):
            return False
        if self.never_blocks or self.sender_thread == get_ident():
            return True  # the event loop, or a callback of the thread that makes room
        deadline = monotonic() + self.max_block_seconds
        while self.is_full(needed_bytes):
            if not self.is_open:
                self.refuse()
            lock = allocate_lock()
            lock.acquire()
            self.room_waiters.append(lock)
            try:
                self.wake_sender()
                if lock.acquire(True, max(deadline - monotonic(), 0)):
                    continue
            finally:
                if lock in self.room_waiters:
                    self.room_waiters.remove(lock)
            if self.is_full(needed_bytes):
                raise RequestTimeoutError(
                    f"the producer's memory ({self.buffer_bytes_max} bytes) was full for {self.max_block_seconds} s; the "
                    "record was not taken. Send again, raise buffer_memory or max_block, or look why the disk is slow")
        return False

    cdef int wake_sender(self) except -1:
        """Has the sender look for work, now; starts its thread where there is none."""
        self.sender_wakes_at_ms = 0
        if not self.has_sender:
            self._start_sender()
            self.has_sender = True
        elif self._wake.locked():
            self._wake.release()
        return 0

    def _deliver(self, ProducerBatch batch not None, bint may_flush):
        """Does for a batch, in the calling thread, all that can be done without waiting for others."""
        cdef PartitionQueue queue = batch.queue
        if queue is not None and batch.state == BATCH_OPEN and queue.open is batch:
            self.seal(queue)
        if queue is not None and batch.state == BATCH_SEALED:
            self.drain(queue, may_flush)
        if queue is not None and batch.state == BATCH_APPENDED:
            if may_flush:
                self.flush_queue(queue)
        if queue is not None and queue.unflushed and self.sender_wakes_at_ms != 0:
            self.wake_sender()
        if self.callbacks:
            self.run_callbacks()
        if not batch.is_complete() and get_ident() in (self.sender_thread, queue.drainer):
            raise InvalidRequestError(
                "a callback or signal handler would wait for a record that its own thread is about to deliver; return, and "
                "look at the future later")

    def _deliver_soon(self, loop, ProducerBatch batch not None):
        """Has a batch handed over at the end of this turn of an event loop, with what other tasks send until then."""
        cdef PartitionQueue queue = batch.queue
        if batch.state == BATCH_APPENDED:
            self.wake_sender()
        elif not queue.is_awaited:
            queue.is_awaited = True
            loop.call_soon(self._hand_over_now, queue)

    def _hand_over_now(self, PartitionQueue queue not None):
        queue.is_awaited = False
        self.seal(queue)
        self.drain(queue, False)

    def _hand_over_all(self):
        """Seals and hands over everything; gives the batches that are not acknowledged yet."""
        for queue in tuple(self.queues):
            self._hand_over_now(queue)
        return self._outstanding()

    def _outstanding(self):
        """The batches on their way, in order within each partition."""
        cdef PartitionQueue queue
        cdef list found = []
        for queue in self.queues:
            found.extend(queue.unflushed)
            found.extend(queue.sealed)
            if queue.open is not None and queue.builder.records_count:
                found.append(queue.open)
        return found

    def _wait_for_callbacks(self, timeout):
        """Returns once the callbacks of what is complete have been called; at once within one of them."""
        while self.callbacks or self.callbacks_thread is not None:
            if self.callbacks_thread == get_ident():
                return
            if self.callbacks_thread is None:
                self.run_callbacks()
                continue
            lock = allocate_lock()
            lock.acquire()
            self.callbacks_waiters.append(lock)
            if not lock.acquire(True, -1 if timeout is None else timeout):
                raise RequestTimeoutError(f"delivery callbacks have not returned within {timeout} s")

    # ---- the sender ------------------------------------------------------------------------------------

    def _work(self):
        """One turn of the sender. Gives the seconds until the next is due, or None."""
        cdef PartitionQueue queue
        cdef int64_t now_ms, due_ms
        self.sender_thread = get_ident()
        while True:
            self.sender_wakes_at_ms = 0
            now_ms = self.monotonic_ms()
            for queue in tuple(self.queues):
                if queue.open is not None and queue.open.created_ms + self.linger_ms <= now_ms:
                    self.seal(queue)
                if queue.sealed and queue.retry_at_ms <= now_ms:
                    self.drain(queue, True)
                if queue.unflushed:
                    self.flush_queue(queue)
            if self.callbacks:
                self.run_callbacks()
            now_ms = self.monotonic_ms()
            due_ms = INT64_MAX
            for queue in self.queues:
                if queue.unflushed:
                    due_ms = now_ms
                if queue.sealed and queue.drainer is None:
                    due_ms = min(due_ms, queue.retry_at_ms)
                if queue.open is not None:
                    due_ms = min(due_ms, queue.open.created_ms + self.linger_ms if queue.builder.records_count
                                 else now_ms + self.linger_ms + 1)
            if due_ms > now_ms or self._sender_stops:
                break
        self.sender_wakes_at_ms = due_ms
        return None if due_ms == INT64_MAX else (due_ms - now_ms) / 1000.0

    # ---- the end ---------------------------------------------------------------------------------------

    def _close_to_senders(self, str state not None):
        """From here on `send` is refused; those that wait for memory are told."""
        self.is_open = False
        self._state = state
        self.broker.remove_metadata_waiter(self.metadata)
        for lock in self.room_waiters:
            lock.release()
        self.room_waiters = []

    def _never_block(self):
        """From here on full memory delays no `send`: the producer lives in an event loop, where tasks wait by awaiting."""
        self.never_blocks = True

    def _is_sender(self):
        """Whether the calling thread is the sender."""
        return self.sender_thread == get_ident()

    def _run_callbacks(self):
        self.run_callbacks()

    def _stop_sender(self):
        self._sender_stops = True
        if self.has_sender and self._wake.locked():
            self._wake.release()

    def _give_up(self, error):
        """Fails what has not been acknowledged. A batch that is being handed over right now may be in the log."""
        cdef ProducerBatch batch
        cdef PartitionQueue queue
        for queue in tuple(self.queues):
            self.seal(queue)
            for batches in (queue.unflushed, queue.sealed):
                while batches:
                    batch = batches.popleft()
                    self.complete(batch, error)
        self.run_callbacks()

    def _take_failures(self):
        """Counts of records that failed and whose failure nobody has looked at, by topic and partition, and the first
        error; they are not reported again."""
        cdef ProducerBatch batch
        cdef dict counts = self.failed_before
        self.failed_before = {}
        while self.failed:
            batch = self.failed.popleft()
            if batch.unobserved_count:
                place = (batch.topic, batch.partition)
                counts[place] = counts.get(place, 0) + batch.unobserved_count
        first, self.first_failure = self.first_failure, None
        return counts, first

    def _forget(self, error):
        """In a forked child: the records are the parent's to deliver."""
        cdef PartitionQueue queue
        cdef ProducerBatch batch
        self.is_open = False
        self._state = "forked"
        self.has_sender = False
        self._sender_stops = True
        self.callbacks.clear()
        self.callbacks_thread = None
        for queue in self.queues:
            for batch in (*queue.unflushed, *queue.sealed, queue.open):
                if batch is not None:
                    batch.waiters = None
                    batch.awaiting = None
                    batch.settle(error)
            queue.unflushed.clear()
            queue.sealed.clear()
            queue.open = None
            queue.drainer = None
        self.queues = []
        self.all_topics = {}
        self.topics = {}


cdef inline object quick_span_of(object value, str what, ls_span *span):
    """`span_of`, without a call for bytes."""
    if PyBytes_CheckExact(value) and PyBytes_GET_SIZE(value) <= 0x7fffffff:
        span.bytes = <const uint8_t *>PyBytes_AS_STRING(value)
        span.size_bytes = <int32_t>PyBytes_GET_SIZE(value)
        return None
    return span_of(value, what, span)


cdef int64_t checked_timestamp(object timestamp, int64_t now_ms, ProducerTopic topic) except? -2:
    cdef int64_t time_ms = timestamp_of(timestamp)
    if time_ms < -1:
        raise InvalidRecordError(f"a timestamp must be -1 or later, not {time_ms}")
    if time_ms >= 0 and not topic.is_append_time and (
        (topic.timestamp_before_max_ms != INT64_MAX and now_ms - time_ms > topic.timestamp_before_max_ms)
        or (topic.timestamp_after_max_ms != INT64_MAX and time_ms - now_ms > topic.timestamp_after_max_ms)
    ):
        raise InvalidTimestampError(
            f"timestamp {time_ms} is {time_ms - now_ms} ms from now; {topic.name} allows "
            f"{topic.timestamp_before_max_ms} ms before and {topic.timestamp_after_max_ms} ms after "
            "(message.timestamp.before.max.ms, message.timestamp.after.max.ms); is it in milliseconds?")
    return time_ms


cdef object refusal_of(ProducerTopic topic, size_t needed_bytes, int64_t buffer_bytes_max):
    """Why a record can't be taken."""
    cdef size_t size_bytes = needed_bytes + LS_BATCH_HEADER_BYTES
    if size_bytes > topic.message_bytes_max:
        return RecordTooLargeError(
            f"a record of about {size_bytes} bytes is over the limit of {topic.message_bytes_max} bytes of {topic.name}; "
            "raise max.message.bytes (and segment.bytes, and the producer's max_request_size), or store a reference to "
            "the data")
    if needed_bytes > <size_t>buffer_bytes_max:
        return RecordTooLargeError(
            f"a record of about {needed_bytes} bytes does not fit the producer's memory of {buffer_bytes_max} bytes; raise "
            "buffer_memory")
    return InvalidRecordError(
        f"{topic.name} is compacted, so every record needs a key (an empty one is fine); the record was not taken")
