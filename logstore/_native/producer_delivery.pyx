"""The way of a producer's batches: sealed, handed over in order, flushed, acknowledged; and who waits meanwhile.

Whoever finds a batch full hands it over in the same call: handing it to another thread would cost a turn of the GIL. The
sender thread does what nobody waits for: batches that have lingered, retries, and the flushes behind acknowledgements at
``flushed``.
"""

from _thread import allocate_lock, get_ident
from collections import deque
from time import monotonic, sleep

cimport cython
from libc.stdint cimport INT64_MAX, int16_t, int32_t, int64_t, uint8_t
from logstore._native.batch_codecs cimport compressed_batch
from logstore._native.core cimport (
    LS_ATTRIBUTE_LOG_APPEND_TIME,
    LS_ATTRIBUTE_TRANSACTIONAL,
    LS_CODEC_NONE,
    ls_batch_header,
    ls_batch_header_read,
    ls_batch_size_bytes,
    ls_batch_stamp_fields,
    ls_batch_stamp_producer,
    ls_fault,
)
from logstore._native.producer_queue cimport BufferPool, PartitionQueue
from logstore._native.record_batch cimport RecordBatch
from logstore._native.record_future cimport BATCH_APPENDED, BATCH_OPEN, BATCH_SEALED, ProducerBatch, run_callback

from logstore.errors import ClosedError, InvalidRequestError, InvalidTxnStateError, RequestTimeoutError

FAILED_BATCHES_KEPT = 1000
cdef int PRODUCER_EPOCH_MAX = 32767
cdef int32_t SEQUENCE_MAX = 0x7fffffff
cdef object NO_NAME = object()


@cython.final
cdef class MetadataListener:
    """Notes that topics have changed."""

    def notify(self):
        """From any thread."""
        self.is_stale = True


cdef class ProducerDelivery:
    """A producer without its `send`. `logstore.clients.producer.Producer` is what is used."""

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

    cdef int64_t monotonic_ms(self) except? -1:
        return <int64_t>(<double>monotonic() * 1000) if self.clock is None else self.clock()

    cdef int refuse(self) except -1:
        """Raises where nothing can be sent; takes notice of changed topics."""
        if self.is_open:
            self.metadata.is_stale = False
            self.topics.clear()
            self.last_name = NO_NAME
            return 0
        if self._state == "open":
            raise InvalidTxnStateError(
                "a producer with a transactional_id sends within a transaction; open one with "
                "`with producer.transaction():`, or with begin_transaction()")
        if self._state == "forked":
            raise ClosedError("this producer belongs to the parent process; open a broker and a producer in the child")
        raise ClosedError("the producer is closed; make another one with broker.producer()")

    cdef bint is_full(self, size_t needed):
        return self._buffered_bytes + <int64_t>needed > self.buffer_bytes_max

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
        self.has_begun_batches = True
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
        fields.producer_epoch = -1
        fields.base_sequence = -1
        if self.producer_id >= 0:
            if queue.producer_id < 0:
                self.number(queue)
            fields.producer_id = queue.producer_id
            fields.producer_epoch = queue.producer_epoch
            fields.base_sequence = queue.sealed_sequence
            if self.is_transactional:
                fields.attributes = LS_ATTRIBUTE_TRANSACTIONAL
        batch = queue.seal(&fields)
        if batch is not None:
            self.sealed_bytes += batch.buffered_bytes
            queue.sealed_sequence = (queue.sealed_sequence + batch.records_count) & SEQUENCE_MAX
        return batch

    # ---- sequences -------------------------------------------------------------------------------------

    cdef int number(self, PartitionQueue queue):
        """Has a partition count from 0, with the producer's id and epoch."""
        queue.producer_id = self.producer_id
        queue.producer_epoch = self.producer_epoch
        queue.next_sequence = 0
        self.number_sealed(queue)
        return 0

    cdef int number_sealed(self, PartitionQueue queue):
        """Counts on behind the batches that wait; those get their numbers when their turn comes."""
        cdef int64_t sequence = queue.next_sequence
        cdef ProducerBatch batch
        for batch in queue.sealed:
            sequence += batch.records_count
        queue.sealed_sequence = <int32_t>(sequence & SEQUENCE_MAX)
        return 0

    cdef int stamp(self, PartitionQueue queue, ProducerBatch batch) except -1:
        """Sees to it that the oldest batch has the number whose turn it is: batches before it may have failed."""
        cdef RecordBatch records = batch.records
        cdef ls_fault fault
        cdef size_t size = ls_batch_size_bytes(&records.header)
        if queue.producer_id < 0:
            self.number(queue)
        if (records.header.base_sequence == queue.next_sequence and records.header.producer_id == queue.producer_id
                and records.header.producer_epoch == queue.producer_epoch):
            return 0
        ls_batch_stamp_producer(<uint8_t *>records.data, size, self.is_transactional, queue.producer_id,
                                queue.producer_epoch, queue.next_sequence)
        ls_batch_header_read(records.data, records.data + size, 0, &records.header, &fault)
        return 0

    cdef int batch_failed(self, PartitionQueue queue, object error) except -1:
        """A batch will not be sent again; the ones behind it take its numbers. Where it may be in the log all the same,
        they do so in another epoch, so that none of them is taken for it (KIP-360)."""
        if queue.producer_id < 0:
            return 0
        if not isinstance(error, InvalidRequestError) and not self.is_transactional:
            if queue.producer_epoch < PRODUCER_EPOCH_MAX:
                queue.producer_epoch += 1
            else:
                queue.producer_id, queue.producer_epoch = self.broker.transaction_coordinator.init_producer_id()
            queue.next_sequence = 0
        self.number_sealed(queue)
        return 0

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
        cdef int64_t sent_id = -1
        cdef int16_t sent_epoch = -1
        try:
            if queue.codec != LS_CODEC_NONE and not batch.is_compressed:
                self.compress(queue, batch)
            if self.producer_id >= 0:
                if self.is_transactional and not self.in_transaction:
                    raise InvalidTxnStateError(
                        "the transaction ended before this record was handed over; send it in the next one")
                self.stamp(queue, batch)
                sent_id, sent_epoch = queue.producer_id, queue.producer_epoch
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
        if sent_id >= 0 and sent_id == queue.producer_id and sent_epoch == queue.producer_epoch:
            queue.next_sequence = (queue.next_sequence + batch.records_count) & SEQUENCE_MAX
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
            self.batch_failed(queue, error)
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
            for entry in callbacks:
                self.callbacks.append(entry)
        self.wake_all(self.room_waiters)
        if error is not None:
            if self.is_transactional:
                self._fail_transaction(error)
            if self.first_failure is None:
                self.first_failure = error
            self.failed.append(batch)
            if len(self.failed) > FAILED_BATCHES_KEPT:
                old = self.failed.popleft()
                place = (old.topic, old.partition)
                self.failed_before[place] = self.failed_before.get(place, 0) + max(old.unobserved_count, 0)
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
            self.wake_all(self.callbacks_waiters)
            if self.callbacks:
                self.wake_sender()
        return 0

    # ---- waiting ---------------------------------------------------------------------------------------

    cdef int wake_all(self, list waiters) except -1:
        """Releases locks of threads that wait, and forgets them: in one step, so that none that comes is overlooked."""
        for lock in waiters:
            lock.release()
        waiters.clear()
        return 0

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
            if not self.is_full(needed_bytes):
                break
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
        cdef bint is_sender = get_ident() == self.sender_thread
        if queue is not None and batch.state == BATCH_OPEN and queue.open is batch:
            self.seal(queue)
        if queue is not None and batch.state == BATCH_SEALED:
            self.drain(queue, may_flush)
        while is_sender and batch.state == BATCH_SEALED and queue.drainer not in (None, get_ident()):
            sleep(0.001)  # a callback of the sender: whoever hands over right now is done soon, and then nobody flushes
        if queue is not None and batch.state == BATCH_APPENDED:
            if may_flush or is_sender:
                self.flush_queue(queue)
        if queue is not None and queue.unflushed and self.sender_wakes_at_ms != 0:
            self.wake_sender()
        if self.callbacks:
            self.run_callbacks()
        if not batch.is_complete() and (is_sender or get_ident() == queue.drainer):
            raise InvalidRequestError(
                "a callback or signal handler would wait for a record that its own thread is about to deliver; return, and "
                "look at the future later")

    def _deliver_soon(self, loop, ProducerBatch batch not None):
        """Has a batch handed over at the end of this turn of an event loop, with what other tasks send until then."""
        cdef PartitionQueue queue = batch.queue
        if queue is None:
            return  # complete
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
        """The batches on their way, in order within each partition; one that gets on meanwhile may be there twice."""
        cdef PartitionQueue queue
        cdef list found = []
        cdef list sealed
        for queue in tuple(self.queues):
            # From the beginning of their way to its end, so that none slips by.
            batch = queue.open if queue.builder.records_count else None
            sealed = list(queue.sealed)
            found.extend(queue.unflushed)
            found.extend(sealed)
            if batch is not None:
                found.append(batch)
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
            if self.callbacks_thread is None:
                continue
            self.callbacks_waiters.append(lock)
            if not lock.acquire(True, -1 if timeout is None else timeout):
                raise RequestTimeoutError(f"delivery callbacks have not returned within {timeout} s")

    # ---- the sender ------------------------------------------------------------------------------------

    def _work(self):
        """One turn of the sender. Gives the seconds until the next is due, or None."""
        cdef PartitionQueue queue
        cdef int64_t now_ms, due_ms
        cdef bint is_busy = self.has_begun_batches
        self.has_begun_batches = False
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
        if due_ms == INT64_MAX and is_busy and self.clock is None and self.linger_ms > 0:
            # Others are likely to follow, and one that begins later lingers longer: so it need not wake this thread.
            due_ms = now_ms + self.linger_ms
        self.sender_wakes_at_ms = due_ms
        return None if due_ms == INT64_MAX else (due_ms - now_ms) / 1000.0

    # ---- the end ---------------------------------------------------------------------------------------

    def _close_to_senders(self, str state not None):
        """From here on `send` is refused; those that wait for memory are told."""
        self.is_open = False
        self._state = state
        self.broker.remove_metadata_waiter(self.metadata)
        self.wake_all(self.room_waiters)

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

    # ---- transactions ----------------------------------------------------------------------------------

    def _take_producer_id(self, producer_id, producer_epoch):
        """From here on batches have this id and epoch, and each partition counts from 0."""
        cdef PartitionQueue queue
        self.producer_id = producer_id
        self.producer_epoch = producer_epoch
        for queue in self.queues:
            queue.producer_id = -1

    def _be_transactional(self):
        """From here on records are taken between `_begin` and `_end` alone."""
        self.is_transactional = True
        self.is_open = False

    def _begin(self):
        self._transaction_error = None
        self.in_transaction = True
        self.is_open = self._state == "open"

    def _fail_transaction(self, error):
        """What has gone wrong keeps the transaction from being committed."""
        if self._transaction_error is None:
            self._transaction_error = error

    def _stop_taking(self):
        """The transaction takes no more records; those taken can still be delivered."""
        self.is_open = False

    def _end(self):
        self.is_open = False
        self.in_transaction = False

    def _abandon(self, error):
        """Fails what the broker has not taken, on purpose: nobody is told of it but who asks."""
        cdef ProducerBatch batch
        cdef PartitionQueue queue
        first = self.first_failure
        for queue in tuple(self.queues):
            self.seal(queue)
            while queue.sealed:
                batch = queue.sealed.popleft()
                self.complete(batch, error)
                batch.unobserved_count = 0
            queue.retry_at_ms = 0
        self.first_failure = first
        self.run_callbacks()

    def _take_failures(self):
        """Counts of records that failed and whose failure nobody has looked at, by topic and partition, and the first
        error; they are not reported again."""
        cdef ProducerBatch batch
        cdef dict counts = self.failed_before
        self.failed_before = {}
        while self.failed:
            batch = self.failed.popleft()
            if batch.unobserved_count > 0:
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
