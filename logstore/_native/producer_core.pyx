"""A producer's `send`: a record is encoded once, into the open batch of its partition."""

cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport INT64_MAX, int64_t
from logstore._native.append_arguments cimport expected_of, timestamp_of
from logstore._native.clock cimport ls_recent_ms
from logstore._native.core cimport (
    LS_BATCH_HEADER_BYTES,
    LS_CODEC_NONE,
    LS_OK,
    ls_batch_builder_append,
    ls_batch_builder_join,
    ls_fault,
    ls_record_size_bytes_max,
    ls_span,
)
from logstore._native.faults cimport raise_fault
from logstore._native.partitioner cimport CRC32, MURMUR2
from logstore._native.producer_delivery cimport ProducerDelivery
from logstore._native.producer_queue cimport PartitionQueue, ProducerTopic
from logstore._native.quick_call cimport ls_method, ls_put_in_front
from logstore._native.record_future cimport ProducerBatch, RecordFuture
from logstore._native.spans cimport HeaderList, span_of, takes_bytes

from logstore.errors import (
    InvalidRecordError,
    InvalidRequestError,
    InvalidTimestampError,
    RecordTooLargeError,
    UnknownTopicOrPartitionError,
)


cdef class ProducerCore(ProducerDelivery):
    """The compiled half of a producer. `logstore.clients.producer.Producer` is what is used."""

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
        cdef RecordFuture future
        if not self.is_open or self.metadata.is_stale:
            self.refuse()
        known = self.last_topic if topic is self.last_name else self.topic_named(topic)
        if not takes_bytes(<PyObject *>value, &value_span):
            _keep_value = span_of(value, "value", &value_span)
        if not takes_bytes(<PyObject *>key, &key_span):
            _keep_key = span_of(key, "key", &key_span)
        if (headers is None and partition is None and timestamp is None and expected_offset is None and on_delivery is None
                and self.on_delivery is None):
            future = self.send_now(known, &key_span, &value_span, <PyObject *>key)
            if future is not None:
                return future
        return self.send_any(known, &key_span, &value_span, key, headers, partition, timestamp, on_delivery,
                             expected_offset)

    @cython.final
    cdef RecordFuture send_now(self, ProducerTopic known, const ls_span *key, const ls_span *value, PyObject *key_object):
        """The usual record, in the usual case: everything is at hand. None, and nothing is done, in any other."""
        cdef PartitionQueue queue
        cdef RecordFuture future = self.new_future()
        cdef size_t before
        if key.size_bytes < 0 and known.keys_required:
            return None
        if known.partitioner.kind == MURMUR2:
            queue = <PartitionQueue>known.queues[known.partitioner.choose(key, None)]
        elif known.partitioner.kind == CRC32:
            queue = <PartitionQueue>known.queues[known.partitioner.choose(key, <object>key_object)]
        else:
            return None  # others may not be asked twice
        before = queue.builder.size_bytes
        # What fits into the batch is no larger than the topic takes; and with room for a whole batch there is for a record.
        if (queue.open is None or self._buffered_bytes + <int64_t>known.batch_bytes_max > self.buffer_bytes_max
                or ls_batch_builder_join(&queue.builder, future.timestamp, key[0], value[0],
                                         known.batch_bytes_max) != LS_OK):
            return None
        self.note_taken(queue, future, key, before)
        return future

    @cython.final
    cdef inline RecordFuture new_future(self):
        cdef RecordFuture future = RecordFuture.__new__(RecordFuture)
        future.timestamp = self.now_ms()
        return future

    cdef RecordFuture send_any(self, ProducerTopic known, const ls_span *key, const ls_span *value, object key_object,
                               object headers, object partition, object timestamp, object on_delivery,
                               object expected_offset):
        """Any record, whatever has to be done first."""
        cdef PartitionQueue queue
        cdef HeaderList header_list = None
        cdef RecordFuture future = self.new_future()
        cdef size_t needed
        cdef bint is_sticky = partition is None and known.partitioner.is_sticky(key)
        cdef bint over_limit = False
        cdef list callbacks
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
        elif not is_sticky:
            queue = <PartitionQueue>known.queues[known.partitioner.choose(key, key_object)]
        callbacks = self.callbacks_of(future, on_delivery)
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
                return self.encode(queue, future, key, value, header_list, callbacks)

    @cython.final
    cdef inline int64_t now_ms(self) except? -1:
        return ls_recent_ms(&self.recent_time) if self.clock is None else self.clock()

    cdef list callbacks_of(self, RecordFuture future, object on_delivery):
        """Whom to tell of a record's fate; None for nobody."""
        cdef list found
        if on_delivery is None and self.on_delivery is None:
            return None
        found = []
        if on_delivery is not None:
            found.append((future, on_delivery, True))
        if self.on_delivery is not None:
            found.append((future, self.on_delivery, True))
        return found

    @cython.final
    cdef RecordFuture encode(self, PartitionQueue into, RecordFuture future, const ls_span *key, const ls_span *value,
                             HeaderList headers, list callbacks):
        """Adds one record to the open batch; it is taken when this returns. One step: nothing here is allocated that the
        garbage collector sees."""
        cdef ls_fault fault
        cdef size_t before = into.builder.size_bytes
        if ls_batch_builder_append(&into.builder, future.timestamp, key[0], value[0],
                                   headers.items if headers is not None else NULL,
                                   headers.count if headers is not None else 0, &fault) != LS_OK:
            raise_fault(&fault, "<memory>")
        self.note_taken(into, future, key, before)
        if callbacks is not None:
            future.batch.add_callbacks(callbacks)
        return future

    @cython.final
    cdef inline void note_taken(self, PartitionQueue into, RecordFuture future, const ls_span *key, size_t before) noexcept:
        """The record of a future is in the open batch, which had ``before`` bytes."""
        self._buffered_bytes += into.builder.size_bytes - before
        if key.size_bytes < 0:
            into.lacks_a_key = True
        future.batch = into.open
        future.index = into.builder.records_count - 1

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
        self.encode(alone, future, key, value, headers, self.callbacks_of(future, on_delivery))
        self.seal(queue)
        alone.sealed = queue.sealed
        alone.producer_id = queue.producer_id
        alone.producer_epoch = queue.producer_epoch
        alone.sealed_sequence = queue.sealed_sequence
        self.seal(alone)
        queue.sealed_sequence = alone.sealed_sequence
        self.drain(queue, False)
        return future

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
        # Within a transaction the commit flushes, once: nothing of it counts before.
        is_flushed = (
            limits.durability == "flushed" and not self.is_transactional if self.is_flushed is None else self.is_flushed)
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


cdef ls_method any_send


cdef object quick_send(object producer, PyObject *const *arguments, Py_ssize_t count, PyObject *names):
    """`ProducerCore.send` of a topic, a value and perhaps a key, both bytes; the method has all others."""
    cdef ProducerCore core = <ProducerCore>producer
    cdef RecordFuture future
    cdef ls_span key, value
    key.bytes = NULL
    key.size_bytes = -1
    if (names == NULL and 2 <= count <= 3 and arguments[0] == <PyObject *>core.last_name and core.is_open
            and not core.metadata.is_stale and core.on_delivery is None and takes_bytes(arguments[1], &value)
            and (count == 2 or takes_bytes(arguments[2], &key))):
        future = core.send_now(core.last_topic, &key, &value, arguments[2] if count == 3 else <PyObject *>None)
        if future is not None:
            return future
    return any_send(producer, arguments, count, names)


any_send = ls_put_in_front(ProducerCore, b"send", quick_send)
