"""Appending to one log: encode into the open batch, hand over with one write, publish.

The cost of a record is encoding it once. The lock is held over the encoding and, where a batch is handed over, over
its one write; the GIL is let go for the write.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.number cimport PyNumber_Index
from cpython.object cimport PyObject
from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t
from libc.string cimport memset
from logstore._native.batch_codecs cimport compressed_batch
from logstore._native.clock cimport ls_recent_ms
from logstore._native.core cimport (
    LS_ATTRIBUTE_LOG_APPEND_TIME,
    LS_ATTRIBUTE_TRANSACTIONAL,
    LS_BATCH_HEADER_BYTES,
    LS_CODEC_NONE,
    LS_DISK_FULL,
    LS_END,
    LS_FULL,
    LS_NO_DESCRIPTOR,
    LS_OK,
    LS_OPEN_BATCH_BOOT_ID_BYTES,
    LS_OPEN_BATCH_TOPIC_ID_BYTES,
    LS_UNSUPPORTED,
    ls_batch_builder_append,
    ls_batch_builder_append_many,
    ls_batch_builder_free,
    ls_batch_builder_init,
    ls_batch_builder_lend,
    ls_batch_builder_mark,
    ls_batch_builder_reset,
    ls_batch_builder_restore,
    ls_batch_builder_rewind,
    ls_batch_builder_seal,
    ls_batch_header,
    ls_batch_header_read,
    ls_batch_last_offset,
    ls_batch_mark,
    ls_batch_stamp,
    ls_batch_size_bytes,
    ls_batch_stamp_fields,
    ls_batch_stamp_timestamps,
    ls_fault,
    ls_open_batch_begin,
    ls_open_batch_buffer,
    ls_open_batch_capacity_bytes,
    ls_open_batch_clear,
    ls_open_batch_commit,
    ls_open_batch_content,
    ls_open_batch_create,
    ls_open_batch_free,
    ls_open_batch_read,
    ls_record_size_bytes_max,
    ls_segment_append,
    ls_segment_expect_append,
    ls_segment_size_bytes,
    ls_segment_should_roll,
    ls_segment_write_back,
    ls_span,
    ls_status,
    ls_wake_announce,
    ls_wake_may_be_awaited,
)
from logstore._native.faults cimport raise_fault
from logstore._native.group_commit cimport TURN_LEADS, TURN_OVER, Waiting, close_waiting, open_waiting
from logstore._native.log_flusher cimport CLOSED, FAILED, FORKED, READ_ONLY, WRITABLE, LogFlusher
from logstore._native.log_state cimport TAIL_BYTES_MAX
from logstore._native.producer_batches cimport marker_of
from logstore._native.published cimport ls_publish
from logstore._native.record_batch cimport RecordBatch
from logstore._native.segment cimport Segment
from logstore._native.spans cimport HeaderList, SpanArray, span_of, takes_bytes
from logstore._native.writer_lock cimport (
    ls_writer_lock_acquire,
    ls_writer_lock_free,
    ls_writer_lock_init,
    ls_writer_lock_release,
)

from logstore.errors import (
    ClosedError,
    InvalidRecordError,
    InvalidRequestError,
    InvalidTimestampError,
    LogstoreError,
    OffsetOutOfRangeError,
    ReadOnlyError,
    RecordTooLargeError,
    UnexpectedOffsetError,
)

cdef extern from "Python.h":
    unsigned long PyThread_get_thread_ident()

# States a log's writing can be in, for `_set_write_state`.
STATE_WRITABLE = <int>WRITABLE
STATE_READ_ONLY = <int>READ_ONLY
STATE_FAILED = <int>FAILED
STATE_CLOSED = <int>CLOSED
STATE_FORKED = <int>FORKED

# Fields of storage.producer_state.Plan, Producer and ProducerBatch; a test holds them together.
cdef int PLAN_PRODUCER = 0
cdef int PLAN_OPENS = 1
cdef int PLAN_CLOSES = 2
cdef int PLAN_ABORTED = 3
cdef int PLAN_FIRST_UNSTABLE_OFFSET = 4
cdef int PLAN_REPEATS = 5
cdef int PRODUCER_EPOCH = 1
cdef int PRODUCER_COORDINATOR_EPOCH = 2
cdef int PRODUCER_TRANSACTION_OFFSET = 4
cdef int PRODUCER_BATCHES = 5
cdef int BATCH_LAST_SEQUENCE = 0
cdef int REPEATED_LAST_OFFSET = 1
cdef int REPEATED_TIMESTAMP = 3
cdef int BATCHES_KEPT = 5
cdef int64_t SEQUENCE_MAX = 2**31 - 1
cdef object new_tuple = tuple.__new__

# Of an open batch, before it grows.
cdef size_t FIRST_BUFFER_BYTES = 512

# What a record without headers adds at most, besides its key and value.
cdef int64_t RECORD_OVERHEAD_BYTES_MAX = ls_record_size_bytes_max(-1, -1, NULL, 0)
# So many records, each within a millisecond of the one before, make a burst.
cdef int BURST_RECORDS = 16
# The file is as large as the largest batch; beyond this one a system call a batch costs nothing.
cdef int64_t STAGED_BATCH_BYTES_MAX = 1 << 20
# And for segments of so many of them: in shorter ones whole batches would leave much of the end empty.
cdef int64_t STAGED_BATCHES_PER_SEGMENT = 16
# Each is a map of this process, locked in memory, and a file; further logs write each record.
cdef int OPEN_BATCHES_MAX = 32
cdef int open_batches_count = 0
cdef int64_t REFUSED_MS = 10_000
cdef int64_t IDLE_MS = 500

cdef str BUFFERED = "buffered"
cdef str APPENDED = "appended"
cdef str FLUSHED = "flushed"


cdef int level_of(object durability, int default) except -1:
    if durability is None:
        return default
    if durability == FLUSHED:
        return LEVEL_FLUSHED
    if durability == APPENDED:
        return LEVEL_APPENDED
    if durability == BUFFERED:
        return LEVEL_BUFFERED
    raise InvalidRequestError(
        f"durability must be 'flushed', 'appended' or 'buffered', not {durability!r}"
    )


def durability_level(durability):
    """The number of a durability: 0 buffered, 1 appended, 2 flushed.

    Raises
    ------
    InvalidRequestError
    """
    return level_of(durability, -1)


cdef class LogAppender(LogFlusher):
    """The writer's half of one log. `logstore.storage.Log` is what is used."""

    def __cinit__(self, *args, **kwargs):
        cdef ls_fault fault
        if ls_writer_lock_init(&self.lock) != 0:
            raise MemoryError("no memory for a log's lock")
        memset(&self.builder, 0, sizeof(self.builder))
        if ls_batch_builder_init(&self.builder, FIRST_BUFFER_BYTES, &fault) != LS_OK:
            raise_fault(&fault, "<memory>")
        self.flush_messages = INT64_MAX
        self.unstable_after = INT64_MAX
        self.aborted_entries = []

    def __dealloc__(self):
        global open_batches_count
        ls_writer_lock_free(&self.lock)
        ls_batch_builder_free(&self.builder)
        if self.open_batch.map != NULL:
            open_batches_count -= 1
            ls_open_batch_free(&self.open_batch)

    @cython.final
    cdef int lock_writes(self) except -1:
        """Keeps other threads from appending. Python code may run meanwhile, and with it signal handlers and finalizers."""
        if ls_writer_lock_acquire(&self.lock) != 0:
            raise InvalidRequestError(
                f"{self.topic}-{self.partition} is called by a signal handler, or a finalizer, that has interrupted a call "
                "to it of the same thread, and would wait for that call for ever; have it set a flag, and append later")
        return 0

    @cython.final
    cdef int unlock_writes(self) except -1:
        ls_writer_lock_release(&self.lock)
        if self.flush_unscheduled:
            self.schedule_flush()
        return 0

    cdef int schedule_flush(self) except -1:
        """After the lock: where a signal handler may come in, and append."""
        self.flush_unscheduled = False
        try:
            self._schedule_flush()
        except BaseException:
            self.flush_scheduled = False
            raise
        return 0

    # ---- set-up, by the class derived from this one -----------------------------------------------

    def _configure(self, *, int level, int codec, codec_level, int64_t segment_bytes, int64_t segment_ms,
                   int64_t batch_bytes, int64_t message_bytes_max, int64_t timestamp_before_max_ms,
                   int64_t timestamp_after_max_ms, int64_t flush_messages, bint flush_by_time, bint append_time,
                   bint keys_required, bint stages, clock):
        """Takes settings over, between two appends."""
        self.lock_writes()
        try:
            # Whoever counts records between flushes, or their bytes in a batch, gets each written.
            self.stages = (stages and self.open_batch_path is not None and flush_messages == INT64_MAX
                           and batch_bytes <= STAGED_BATCH_BYTES_MAX
                           and segment_bytes // STAGED_BATCHES_PER_SEGMENT >= batch_bytes)
            self.default_level = level
            self.codec = codec
            self.codec_level = codec_level
            self.roll_policy.segment_bytes = segment_bytes
            self.roll_policy.segment_ms = segment_ms
            self.message_bytes_max = min(message_bytes_max, segment_bytes)
            self.batch_bytes_max = min(batch_bytes, self.message_bytes_max)
            self.timestamp_before_max_ms = timestamp_before_max_ms
            self.timestamp_after_max_ms = timestamp_after_max_ms
            self.flush_messages = flush_messages
            self.flush_by_time = flush_by_time
            self.append_time = append_time
            self.keys_required = keys_required
            self.clock = clock
        finally:
            self.unlock_writes()

    def _activate(self, Segment active not None, int64_t next_offset, int64_t flushed_offset, int32_t leader_epoch,
                  bint marked_clean):
        """Makes a segment the one that is appended to."""
        self._flushes_cold()
        self.marked_clean = marked_clean
        self.active = active
        self.next_offset = next_offset
        self._flush_lock.restart(flushed_offset)
        self.leader_epoch = leader_epoch
        self.roll_policy.created_ms = active.created_ms

    def _start_segment(self, tuple segments not None, Segment active not None, list aborted not None):
        """Rolls, in one step that no signal handler can come between. The lock is held by the append that asked for
        it, or by `_locked`."""
        cdef Segment previous
        self._flushes_cold()
        if len(segments) > 1:
            previous = segments[len(segments) - 2]
            previous.options.end_offset_max = active.base_offset
        self.active = active
        self.roll_policy.created_ms = active.created_ms
        self.aborted_entries = aborted
        self.segment_list = segments
        self.more_to_signal = True

    def _replace_segments(self, tuple old not None, tuple new not None):
        """Publishes other segments in place of some neighbours, none of them active; False where those are not there.

        ``old`` are base offsets: rolls may put another object in a segment's place.
        """
        cdef Py_ssize_t i
        self.lock_writes()
        try:
            bases = [(<Segment>segment).base_offset for segment in self.segment_list]
            if not old or old[0] not in bases:
                return False
            i = bases.index(old[0])
            if tuple(bases[i:i + len(old)]) != old or i + len(old) >= len(bases):
                return False
            self.segment_list = self.segment_list[:i] + new + self.segment_list[i + len(old):]
            self.replacement_count += 1
        finally:
            self.unlock_writes()
        return True

    def _take_producers(self, state not None, list aborted not None, bint has_producers, bint has_transactions):
        """What is known of producers from here on: a `ProducerState`, and the aborted transactions of the active segment.
        No append is under way."""
        self.producer_state = state
        self.producers = state.producers
        self.open_transactions = state.open_transactions
        self.unstable_after = state.first_unstable_offset
        self.aborted_entries = aborted
        self.has_producers = has_producers
        self.has_transactions = has_transactions

    def _forget_producers(self, producer_ids):
        """Drops producers that have expired. The lock is held."""
        for producer_id in producer_ids:
            self.producers.pop(producer_id, None)

    def _set_write_state(self, int state):
        self.write_state = state

    def _set_mark_due(self, int64_t size_bytes):
        """`_mark` is called before the next write, once the active segment has this size."""
        self.mark_due_bytes = size_bytes

    def _lingered(self):
        """The open batch was handed over because of its age; the next one is scheduled anew. The lock is held.

        One batch after the other is covered by the first one's schedule: there is one at a time, however fast they fill.
        """
        self.hand_over_scheduled = False
        self.soon_scheduled = False

    def _flush_is_due(self):
        """Has the next append wait for a flush, whatever its level."""
        self.flush_due = True

    def _flush_was_scheduled(self, bint scheduled):
        self.flush_scheduled = scheduled

    def _locked(self, step, *args):
        """Runs ``step(*args)`` with the open batch handed over and no append under way."""
        self.lock_writes()
        try:
            if self.write_state == WRITABLE:
                self.now_ms()
                self.hand_over()
            return step(*args)
        finally:
            self.unlock_writes()

    @property
    def open_batch_records_count(self):
        """Records acknowledged as ``buffered`` that are not handed over yet."""
        return self.builder.records_count

    @property
    def is_writable(self):
        """Whether appends are possible."""
        return self.write_state == WRITABLE

    # ---- appending --------------------------------------------------------------------------------

    @cython.binding(False)
    def append(self, value, key=None, *, headers=None, timestamp=None, durability=None, expected_offset=None):
        """Appends one record and returns its offset once it is acknowledged.

        Parameters
        ----------
        value : bytes-like or None
            None is a tombstone.
        key : bytes-like, optional
        headers : sequence of (str, bytes or None), optional
        timestamp : int, optional
            Milliseconds UTC; now, if not given.
        durability : {"flushed", "appended", "buffered"}, optional
            What the acknowledgement means; the log's own if not given.
        expected_offset : int, optional
            Appends only if the record gets this offset.

        Returns
        -------
        int
            The record's offset.

        Raises
        ------
        InvalidRequestError
            A wrong argument, a record over ``max.message.bytes``; nothing was appended.
        UnexpectedOffsetError
            The log does not end at ``expected_offset``; nothing was appended.
        DiskFullError
            Nothing was appended; works again once there is space.
        StorageFailureError
            The log is closed for writing. At ``flushed``, whether the record is on disk is unknown.
        ReadOnlyError, ClosedError

        Notes
        -----
        Thread-safe: of several appends that expect the same offset, one succeeds. Source: log-format, sections 1 and 4.2.
        """
        cdef ls_span key_span, value_span
        cdef HeaderList header_list = None
        cdef int level = self.default_level
        cdef int64_t given = -1
        if not takes_bytes(<PyObject *>value, &value_span):
            _keep_value = span_of(value, "value", &value_span)
        if not takes_bytes(<PyObject *>key, &key_span):
            _keep_key = span_of(key, "key", &key_span)
        if durability is not None:
            level = level_of(durability, 0)
        if headers is not None:
            header_list = HeaderList.create(headers)
        if timestamp is not None:
            given = timestamp_of(timestamp)
        return self.append_one(&key_span, &value_span, header_list, given, timestamp is not None, level,
                               -1 if expected_offset is None else expected_of(expected_offset))

    def append_many(self, values, keys=None, *, timestamps=None, headers=None, durability=None, expected_offset=None):
        """Appends many records in one call, as few batches.

        Parameters
        ----------
        values, keys : list of bytes-like or None, numpy array, or Arrow array
            A numpy array gives the bytes of its elements (dtype S without trailing NULs), a 2-D uint8 array its rows.
            An Arrow array must be of binary, string, fixed-size binary or a view type.
        timestamps : sequence of int, optional
            Milliseconds UTC, one a record; now, for all of them, if not given.
        headers : sequence of (str, bytes or None), optional
            Every record gets these.
        durability : {"flushed", "appended", "buffered"}, optional
        expected_offset : int, optional
            Appends only if the first record gets this offset.

        Returns
        -------
        range
            The offsets, without a gap.

        Raises
        ------
        As `append`. After a `DiskFullError` or `StorageFailureError` a note on the exception says how many records
        were appended before it.

        Notes
        -----
        Thread-safe; encoding and writing happen without the GIL.
        """
        cdef SpanArray value_spans = SpanArray.create(values, "value")
        cdef SpanArray key_spans = None
        cdef HeaderList header_list = None
        cdef int64_t first
        cdef const int64_t[::1] times = None
        cdef int level = level_of(durability, self.default_level)
        if keys is not None:
            key_spans = SpanArray.create(keys, "key")
            if key_spans.count != value_spans.count:
                raise InvalidRequestError(f"{key_spans.count} keys for {value_spans.count} values")
        if timestamps is not None:
            times = timestamps_view(timestamps, value_spans.count)
        if headers is not None:
            header_list = HeaderList.create(headers)
        if value_spans.count == 0:
            self.check_writable()
            self.check_expected(expected_of(expected_offset))
            return range(self.next_offset, self.next_offset)
        first = self.append_spans(key_spans.spans if key_spans is not None else NULL, value_spans.spans,
                                  &times[0] if times is not None else NULL, value_spans.count, header_list, level,
                                  expected_of(expected_offset))
        return range(first, first + value_spans.count)

    cdef int64_t now_ms(self) except? -1:
        """Asks the clock; what follows in the same append goes by `last_now_ms`."""
        self.last_now_ms = ls_recent_ms(&self.recent_time) if self.clock is None else self.clock()
        return self.last_now_ms

    cdef int check_writable(self) except -1:
        if self.write_state == WRITABLE:
            return 0
        where = f"{self.topic}-{self.partition}"
        if self.write_state == CLOSED:
            raise ClosedError(f"the log of {where} is closed; open the broker again")
        if self.write_state == FORKED:
            raise ClosedError(f"the log of {where} belongs to the parent process; open the broker in the child")
        raise self._not_writable()

    cdef int check_expected(self, int64_t expected_offset) except -1:
        """Refuses a conditional append unless the next record gets this offset; -1 is no condition."""
        if expected_offset >= 0 and self.next_offset != expected_offset:
            raise UnexpectedOffsetError(
                f"{self.topic}-{self.partition} ends at offset {self.next_offset}, not at {expected_offset}; nothing was "
                "appended. Read what has come in between and decide again",
                expected_offset=expected_offset, log_end_offset=self.next_offset)
        return 0

    def _not_writable(self):
        return ReadOnlyError(f"the log of {self.topic}-{self.partition} is open for reading only")

    cdef int check_record(self, const ls_span *key, const ls_span *value, HeaderList headers, int64_t timestamp,
                          int64_t now_ms) except -1:
        """The rules a topic sets; what the format needs is checked by the builder."""
        cdef int64_t size
        if self.keys_required and key.size_bytes < 0:
            raise InvalidRecordError(
                f"{self.topic} is compacted, so every record needs a key (an empty one is fine); nothing was appended"
            )
        size = LS_BATCH_HEADER_BYTES + <int64_t>ls_record_size_bytes_max(
            key.size_bytes, value.size_bytes, headers.items if headers is not None else NULL,
            headers.count if headers is not None else 0)
        if size > self.message_bytes_max:
            raise RecordTooLargeError(
                f"a record of about {size} bytes is over the limit of {self.message_bytes_max} bytes of {self.topic}; "
                "raise max.message.bytes (and segment.bytes), or store a reference to the data"
            )
        if timestamp < -1:
            raise InvalidRecordError(f"a timestamp must be -1 or later, not {timestamp}")
        if timestamp >= 0 and not self.append_time and (
            (self.timestamp_before_max_ms != INT64_MAX and now_ms - timestamp > self.timestamp_before_max_ms)
            or (self.timestamp_after_max_ms != INT64_MAX and timestamp - now_ms > self.timestamp_after_max_ms)
        ):
            raise InvalidTimestampError(
                f"timestamp {timestamp} is {timestamp - now_ms} ms from now; {self.topic} allows "
                f"{self.timestamp_before_max_ms} ms before and {self.timestamp_after_max_ms} ms after "
                "(message.timestamp.before.max.ms, message.timestamp.after.max.ms); is it in milliseconds?"
            )
        return 0

    cdef int64_t append_now(self, const ls_span *key, const ls_span *value) except -1:
        """Appends a record that has no more than a key and a value, at the log's own level.

        Where it joins others as `buffered`, and fits, there is nothing to do but to encode it.
        """
        cdef int64_t size_max = RECORD_OVERHEAD_BYTES_MAX + <int64_t>max(key.size_bytes, 0) + max(value.size_bytes, 0)
        cdef int64_t offset = -1
        cdef ls_fault fault
        if self.default_level == LEVEL_BUFFERED and self.clock is None:
            if ls_writer_lock_acquire(&self.lock) != 0:
                self.lock_writes()  # which says so
            if (self.write_state == WRITABLE and self.hand_over_scheduled and self.builder.records_count
                    and <int64_t>self.builder.size_bytes + size_max <= self.batch_bytes_max
                    and not self.keys_required and not self.flush_due and self.flush_messages == INT64_MAX
                    and ls_batch_builder_append(&self.builder, ls_recent_ms(&self.recent_time), key[0], value[0], NULL, 0,
                                                &fault) == LS_OK):
                offset = self.next_offset
                self.next_offset = offset + 1
            ls_writer_lock_release(&self.lock)
            if offset >= 0:
                return offset
        return self.append_one(key, value, None, -1, False, self.default_level)

    cdef int64_t append_one(self, const ls_span *key, const ls_span *value, HeaderList headers, int64_t timestamp,
                            bint has_timestamp, int level, int64_t expected_offset=-1) except -1:
        cdef int64_t now_ms = self.now_ms()
        cdef int64_t offset, record_bytes_max
        cdef bint stage, collect
        cdef ls_batch_mark mark
        cdef ls_fault fault
        cdef Waiting me
        cdef int turn = TURN_OVER
        if not has_timestamp or (self.append_time and timestamp >= 0):
            timestamp = now_ms
        if self.write_state != WRITABLE:
            self.check_writable()
        if headers is not None:
            record_bytes_max = <int64_t>ls_record_size_bytes_max(key.size_bytes, value.size_bytes, headers.items,
                                                                 headers.count)
        else:
            record_bytes_max = RECORD_OVERHEAD_BYTES_MAX + <int64_t>max(key.size_bytes, 0) + max(value.size_bytes, 0)
        # Only where a rule might refuse it: most topics have none that a record of now, and of this size, could break.
        if has_timestamp or self.keys_required or record_bytes_max > self.message_bytes_max - LS_BATCH_HEADER_BYTES:
            self.check_record(key, value, headers, timestamp, now_ms)
        if level != LEVEL_BUFFERED and self.active is not None:
            ls_segment_expect_append(self.active.segment)
        self.lock_writes()
        try:
            if self.write_state != WRITABLE:
                self.check_writable()
            if expected_offset >= 0:
                self.check_expected(expected_offset)
            stage = level == LEVEL_APPENDED and self.stages and self.in_burst(now_ms)
            if self.waiters and level != LEVEL_BUFFERED:
                stage = False
                self.announce_to_waiters()  # as early as that: encoding takes its time, too, where nothing is in the cache
            collect = level == LEVEL_FLUSHED and self.collects()
            if self.builder.records_count and (
                    <int64_t>self.builder.size_bytes + record_bytes_max > self.batch_bytes_max
                    or (self.collected_count and not collect)):
                self.hand_over()
            if stage and self.open_batch.map == NULL:
                self.begin_staging(now_ms)
            if level != LEVEL_BUFFERED:
                mark = ls_batch_builder_mark(&self.builder)
            if ls_batch_builder_append(&self.builder, timestamp, key[0], value[0],
                                       headers.items if headers is not None else NULL,
                                       headers.count if headers is not None else 0, &fault) != LS_OK:
                raise_fault(&fault, "<memory>")
            offset = self.next_offset
            self.next_offset += 1
            if collect and open_waiting(&me):
                turn = self.collect(&me)
            if turn != TURN_OVER:
                pass
            elif stage and self.builder.is_lent:
                self.stage()
            elif level != LEVEL_BUFFERED:
                try:
                    self.hand_over()
                except BaseException:
                    if self.builder.records_count > mark.records_count:
                        # Not on disk: the caller was told so, hence it must never get there.
                        ls_batch_builder_rewind(&self.builder, mark)
                        self.next_offset = offset
                    raise
            elif not self.hand_over_scheduled:
                self.schedule_hand_over()  # first: a signal handler may raise in it
        finally:
            if turn != TURN_OVER:
                ls_writer_lock_release(&self.lock)  # and nothing that may raise: it stands in the queue
            else:
                self.unlock_writes()
        if turn != TURN_OVER:
            self.wait_collected(&me, offset + 1, turn)
        elif (level == LEVEL_FLUSHED or self.flush_due
                or (self.flush_messages != INT64_MAX
                    and self.end_offset - self._flush_lock.flushed_offset >= self.flush_messages)):
            self.acknowledge(offset + 1, level)
        return offset

    # ---- records of several threads that wait for one fdatasync --------------------------------------

    cdef bint collects(self):
        """Whether a record to be flushed is left in the open batch, to be written with those of other threads: where they
        flush, or came just before. The lock is held."""
        return ((self._flush_lock.is_led or self._flush_lock.expected_count > 1)
                and self.builder.records_count == self.collected_count and not self.waiters
                and not self.hand_over_scheduled and self.open_batch.map == NULL and not self.restored
                and not self.marked_clean and not self.flush_due and self.flush_messages == INT64_MAX)

    cdef int collect(self, Waiting *me) except -1:
        """Queues for the disk with the record that was encoded last. Whoever leads writes it: this thread, now, if it
        does (TURN_LEADS). The lock is held."""
        cdef int turn
        me.is_collected = True
        self.collected_count += 1
        turn = self._flush_lock.arrive(me, self.next_offset, True)
        if turn == TURN_LEADS:
            try:
                self.hand_over()
            except BaseException as error:
                self.take_back(error)
                self._flush_lock.finish(-1, -1)
                close_waiting(me)
                raise
        else:
            self.staged = True
        return turn

    cdef int take_back(self, error) except -1:
        """What was collected is refused: all who wait for it are told so, hence it must never get on disk. Only where a
        signal has stopped the one that leads, the others' records stay, and the next one writes them. The lock is held."""
        if self.collected_count == 0 or (self.collected_count > 1 and not isinstance(error, Exception)):
            return 0
        ls_batch_builder_reset(&self.builder)
        self.next_offset -= self.collected_count
        self.collected_count = 0
        self.staged = False
        self.refusal = error.__reduce__()
        self._flush_lock.refuse(self.next_offset)
        return 0

    cdef int raise_taken_back(self) except -1:
        kind, arguments = self.refusal[:2]
        raise kind(*arguments)

    cdef int write_collected(self) except -1:
        self.lock_writes()
        try:
            if self.collected_count:
                self.check_writable()
                self.now_ms()
                self.hand_over()
        except BaseException as error:
            self.take_back(error)
            self._flush_lock.finish(-1, -1)  # with the lock: a finalizer that appends is refused, and waits for nobody
            raise
        finally:
            ls_writer_lock_release(&self.lock)
        return 0

    cdef int surface_collected(self, Waiting *me) except -1:
        self.lock_writes()
        try:
            if self.collected_count and self.write_state == WRITABLE:
                self.now_ms()
                self.hand_over()
        except LogstoreError:
            pass  # whoever leads takes it back
        except BaseException:
            self._flush_lock.leave(me)
            raise
        finally:
            ls_writer_lock_release(&self.lock)
        return self.collected_count == 0

    cdef int wait_collected(self, Waiting *me, int64_t end_offset, int turn) except -1:
        try:
            if turn == TURN_LEADS:
                self.lead_flush(end_offset)
            else:
                self.wait_turn(me, end_offset, True)
        finally:
            close_waiting(me)
        if self.flush_unscheduled:
            self.schedule_flush()
        return 0

    # ---- the open batch in a mapped file -------------------------------------------------------------

    cdef bint in_burst(self, int64_t now_ms):
        """Whether records come so fast that a system call for each is too much. The lock is held."""
        cdef int64_t pause_ms = now_ms - self.appended_ms
        self.appended_ms = now_ms
        if pause_ms > 1 or pause_ms < 0:
            self.burst_records = 0
            return False
        if self.burst_records < BURST_RECORDS:
            self.burst_records += 1
            return False
        return True

    cdef int begin_staging(self, int64_t now_ms) except -1:
        """Has the open batch live in a file of its own from here on, if that is possible. The lock is held."""
        global open_batches_count
        cdef ls_fault fault
        cdef ls_status status
        if now_ms < self.stage_after_ms or open_batches_count >= OPEN_BATCHES_MAX:
            return 0
        self.hand_over()
        status = ls_open_batch_create(PyBytes_AS_STRING(self.open_batch_path),
                                      <const uint8_t *>PyBytes_AS_STRING(self.topic_id),
                                      <const uint8_t *>PyBytes_AS_STRING(self.boot_id),
                                      self.batch_bytes_max, &self.open_batch, &fault)
        if status != LS_OK:
            # Nothing depends on it: records are written one by one, as before.
            self.stages = status != LS_UNSUPPORTED
            self.stage_after_ms = now_ms + REFUSED_MS
            self._remove_open_batch_file()
            return 0
        open_batches_count += 1
        ls_batch_builder_lend(&self.builder, ls_open_batch_buffer(&self.open_batch),
                              ls_open_batch_capacity_bytes(&self.open_batch))
        self._staging_began()
        return 0

    cdef int stage(self) except -1:
        """Acknowledges what stands in the open batch: from here on it survives the process. The lock is held."""
        if not self.open_batch.has_begun:
            ls_open_batch_begin(&self.open_batch, self.next_offset - self.builder.records_count,
                                self.builder.base_timestamp)
        ls_open_batch_commit(&self.open_batch, self.builder.size_bytes)
        self.staged = True
        if not self.soon_scheduled:
            self.schedule_hand_over()
        return 0

    cdef int schedule_hand_over(self) except -1:
        self.handing_over = PyThread_get_thread_ident()
        try:
            self._schedule_hand_over(self.staged)
        finally:
            self.handing_over = 0
        self.hand_over_scheduled = True
        self.soon_scheduled = self.staged
        return 0

    cdef int surface(self) except -1:
        """Hands over what is staged, for a reader. Where the segment refuses it, it stays where it is, and acknowledged."""
        if self.write_state != WRITABLE or self.handing_over == PyThread_get_thread_ident():
            return 0
        self.lock_writes()
        try:
            if self.staged and self.write_state == WRITABLE:
                try:
                    self.now_ms()
                    self.hand_over()
                except LogstoreError:
                    pass
        finally:
            self.unlock_writes()
        return 0

    cdef int end_staging(self, bint remove) except -1:
        """Lets go of the file, which is removed where nothing in it is needed any more. The lock is held."""
        global open_batches_count
        cdef ls_fault fault
        if self.open_batch.map == NULL:
            return 0
        if self.builder.is_lent:
            memset(&self.builder, 0, sizeof(self.builder))
            if ls_batch_builder_init(&self.builder, FIRST_BUFFER_BYTES, &fault) != LS_OK:
                raise_fault(&fault, "<memory>")
        ls_open_batch_free(&self.open_batch)
        open_batches_count -= 1
        if remove:
            self._remove_open_batch_file()
        return 0

    def _stage_in(self, bytes path not None, bytes topic_id not None, bytes boot_id not None):
        """Where the open batch may live: a path, the topic's id, and what tells one run of the system from the next."""
        self.open_batch_path = path
        self.topic_id = topic_id.ljust(LS_OPEN_BATCH_TOPIC_ID_BYTES, b"\0")
        self.boot_id = boot_id
        if len(self.topic_id) != LS_OPEN_BATCH_TOPIC_ID_BYTES or len(boot_id) != LS_OPEN_BATCH_BOOT_ID_BYTES:
            raise ValueError("a topic id has 24 bytes at most, a boot id 16")

    def _end_staging(self):
        """The lock is held, the open batch handed over."""
        self.end_staging(True)

    def _close_writing(self, int state):
        """Takes no more records. What was acknowledged as `appended` and could not be handed over stays in the file."""
        self.lock_writes()
        try:
            self.write_state = state
            self.end_staging(not self.staged)
        finally:
            self.unlock_writes()

    def _end_staging_if_idle(self):
        """Whether the file was let go, since no burst came for a while. The lock is held."""
        if self.open_batch.map != NULL and 0 <= self.last_now_ms - self.appended_ms < IDLE_MS:
            return False
        self.end_staging(True)
        return True

    def _restore_open_batch(self, bytes content not None):
        """Takes over the records that an earlier process of this run of the system left in its open batch.

        Returns
        -------
        int
            How many; 0 where there are none, or where they are in the log already, or follow on from another one.

        Raises
        ------
        CorruptDataError
            The file is not what was stored.
        """
        cdef ls_open_batch_content found
        cdef ls_fault fault
        cdef ls_status status = ls_open_batch_read(
            <const uint8_t *>PyBytes_AS_STRING(content), PyBytes_GET_SIZE(content),
            <const uint8_t *>PyBytes_AS_STRING(self.topic_id), <const uint8_t *>PyBytes_AS_STRING(self.boot_id),
            &found, &fault)
        if status == LS_END or (status == LS_OK and found.base_offset != self.next_offset):
            return 0
        if status != LS_OK:
            raise_fault(&fault, self.open_batch_path.decode())
        self.lock_writes()
        try:
            if ls_batch_builder_restore(&self.builder, found.base_timestamp, found.records, found.records_bytes,
                                        &fault) != LS_OK:
                raise_fault(&fault, self.open_batch_path.decode())
            self.next_offset += self.builder.records_count
            self.restored = True
            self.staged = True
        finally:
            self.unlock_writes()
        return self.builder.records_count

    cdef int acknowledge(self, int64_t end_offset, int level) except -1:
        """What is left to do once records are in the log: fdatasync if the level or flush.messages asks for it."""
        if level == LEVEL_FLUSHED:
            self.flush_due = False
            self.wait_flushed(end_offset)
        elif self.flush_due or self.end_offset - self._flush_lock.flushed_offset >= self.flush_messages:
            self.flush_due = False
            self.wait_flushed(self.current_end())
        return 0

    cdef int check_spans(self, const ls_span *keys, const ls_span *values, const int64_t *timestamps,
                         Py_ssize_t count, HeaderList headers, int64_t now_ms) except -1:
        """All records are judged before the first is appended."""
        cdef Py_ssize_t i
        cdef ls_span no_key
        cdef int64_t headers_bytes = 0
        cdef int64_t room
        cdef bint plain
        cdef Py_ssize_t doubtful = -1
        no_key.bytes = NULL
        no_key.size_bytes = -1
        if headers is not None:
            for i in range(headers.count):
                headers_bytes += headers.items[i].key_bytes + max(headers.items[i].value_bytes, 0) + 10
        # A record is plain when no rule can refuse it; the others are looked at one by one.
        room = self.message_bytes_max - LS_BATCH_HEADER_BYTES - headers_bytes - 32
        plain = not self.keys_required and (timestamps == NULL or (
            self.append_time or (self.timestamp_before_max_ms == INT64_MAX
                                 and self.timestamp_after_max_ms == INT64_MAX)))
        with nogil:
            for i in range(count):
                if (not plain or (timestamps != NULL and timestamps[i] < -1)
                        or <int64_t>values[i].size_bytes + (keys[i].size_bytes if keys != NULL else 0) > room):
                    doubtful = i
                    break
        if doubtful >= 0:
            for i in range(doubtful, count):
                try:
                    self.check_record(&keys[i] if keys != NULL else &no_key, &values[i], headers,
                                      timestamps[i] if timestamps != NULL else now_ms, now_ms)
                except Exception as error:
                    error.add_note(f"This is record {i} of {count}; none was appended.")
                    raise
        return 0

    cdef int64_t append_spans(self, const ls_span *keys, const ls_span *values, const int64_t *timestamps,
                              Py_ssize_t count, HeaderList headers, int level, int64_t expected_offset=-1) except -1:
        """Appends count > 0 records without a gap and returns the first offset."""
        cdef int64_t now_ms = self.now_ms()
        cdef int64_t first, end, position
        cdef Py_ssize_t done = 0
        cdef size_t appended
        cdef ls_batch_mark mark
        cdef ls_fault fault
        cdef ls_status status
        cdef ls_span no_key
        no_key.bytes = NULL
        no_key.size_bytes = -1
        self.check_writable()
        self.check_spans(keys, values, timestamps, count, headers, now_ms)
        self.lock_writes()
        try:
            self.check_writable()
            self.check_expected(expected_offset)
            if self.collected_count:
                self.hand_over()
            first = self.next_offset
            mark = ls_batch_builder_mark(&self.builder)
            try:
                while done < count:
                    appended = 0
                    if headers is None:
                        with nogil:
                            status = ls_batch_builder_append_many(
                                &self.builder, keys + done if keys != NULL else NULL, values + done,
                                timestamps + done if timestamps != NULL else NULL, now_ms, count - done,
                                self.batch_bytes_max, &appended, &fault)
                    else:
                        status = LS_OK
                        if self.builder.records_count == 0 or self.builder.size_bytes + ls_record_size_bytes_max(
                            keys[done].size_bytes if keys != NULL else -1, values[done].size_bytes, headers.items,
                            headers.count
                        ) <= <size_t>self.batch_bytes_max:
                            status = ls_batch_builder_append(
                                &self.builder, timestamps[done] if timestamps != NULL else now_ms,
                                keys[done] if keys != NULL else no_key, values[done], headers.items, headers.count,
                                &fault)
                            appended = 1
                    if status != LS_OK:
                        raise_fault(&fault, "<memory>")
                    done += appended
                    self.next_offset += appended
                    if done < count and (headers is None or appended == 0):
                        position = ls_segment_size_bytes(self.active.segment)
                        self.hand_over()
                        if level == LEVEL_FLUSHED:
                            # The disk begins with it while the next batch is made.
                            with nogil:
                                ls_segment_write_back(self.active.segment, position)
                if level != LEVEL_BUFFERED:
                    self.hand_over()
                elif self.builder.records_count and not self.hand_over_scheduled:
                    self.schedule_hand_over()  # first: a signal handler may raise in it
            except BaseException as error:
                # Only records of this call may be dropped: those buffered before it were acknowledged.
                if self.end_offset < first:
                    ls_batch_builder_rewind(&self.builder, mark)
                    self.next_offset = first
                else:
                    ls_batch_builder_reset(&self.builder)
                    self.next_offset = self.end_offset
                error.add_note(
                    f"{max(self.next_offset - first, 0)} of {count} records were appended before it, from offset {first} on."
                )
                raise
            end = first + count
        finally:
            self.unlock_writes()
        self.acknowledge(end, level)
        return first

    cdef int hand_over(self) except -1:
        """Seals the open batch and writes it with one call. The lock is held. On an exception the records stay in
        the open batch, unless they are in the log."""
        if self.builder.records_count == 0:
            self.staged = False
            return 0
        # Python code that runs meanwhile, a signal handler even, may look at the log's end: it gets the one of before.
        self.handing_over = PyThread_get_thread_ident()
        try:
            self.seal_and_write()
            ls_batch_builder_reset(&self.builder)
            self.collected_count = 0
            if self.open_batch.map != NULL:
                ls_open_batch_clear(&self.open_batch)
                if not self.builder.is_lent:  # one batch was larger
                    ls_batch_builder_lend(&self.builder, ls_open_batch_buffer(&self.open_batch),
                                          ls_open_batch_capacity_bytes(&self.open_batch))
            self.publish_end()
            self.staged = False
            if self.restored:
                self.restored = False
                self._remove_open_batch_file()
        finally:
            self.handing_over = 0
        return 0

    cdef int seal_and_write(self) except -1:
        cdef ls_batch_stamp_fields fields
        cdef ls_batch_header header
        cdef bytes compressed
        fields.base_offset = self.next_offset - self.builder.records_count
        fields.partition_leader_epoch = self.leader_epoch
        fields.attributes = 0
        fields.log_append_timestamp = -1
        if self.append_time:
            fields.attributes = LS_ATTRIBUTE_LOG_APPEND_TIME
            # What readers have been shown of an earlier process's records stays as it was.
            fields.log_append_timestamp = self.builder.max_timestamp if self.restored else self.now_ms()
        fields.producer_id = -1
        fields.producer_epoch = -1
        fields.base_sequence = -1
        ls_batch_builder_seal(&self.builder, &fields, &header)
        if self.codec == LS_CODEC_NONE:
            self.write_batch(&header, self.builder.buffer, self.builder.size_bytes)
        else:
            compressed = compressed_batch(&header, self.builder.buffer, self.builder.size_bytes, self.codec,
                                          self.codec_level)
            if PyBytes_GET_SIZE(compressed) >= <Py_ssize_t>self.builder.size_bytes:
                # It does not pay: readers go by the attributes, so the plain batch is as good.
                ls_batch_builder_seal(&self.builder, &fields, &header)
                self.write_batch(&header, self.builder.buffer, self.builder.size_bytes)
            else:
                self.write_batch(&header, PyBytes_AS_STRING(compressed), PyBytes_GET_SIZE(compressed))
        return 0

    cdef int publish_end(self) except -1:
        self.batches_count += 1
        ls_publish(&self.end_offset, self.next_offset)
        if self.first_unstable_offset != self.unstable_after:
            self.first_unstable_offset = self.unstable_after  # after the end: see log_state.pxd
        if self.waiters:
            self.notify_waiters()
        if self.wake_table != NULL:
            self.signal_readers()
        if self.flush_by_time and not self.flush_scheduled:
            self.flush_scheduled = True
            self.flush_unscheduled = True
        return 0

    cdef int write_batch(self, const void *opaque, const void *batch, size_t batch_bytes) except -1:
        """One write into the active segment, which is rolled first where it is due."""
        cdef const ls_batch_header *header = <const ls_batch_header *>opaque
        cdef ls_fault fault
        cdef ls_status status
        cdef bint awaited
        if self.marked_clean:
            self._writing_begins()
            self.marked_clean = False
        if ls_segment_size_bytes(self.active.segment) >= self.mark_due_bytes:
            self._mark()  # before the write: all that came before is published, and a signal handler may raise in it
        if ls_segment_should_roll(self.active.segment, &self.roll_policy, batch_bytes, header.max_timestamp,
                                  ls_batch_last_offset(header), self.last_now_ms):
            self._roll(header.base_offset)
        if (self.wake_table != NULL and ls_wake_may_be_awaited(self.wake_table, self.wake_bucket)
                and batch_bytes <= TAIL_BYTES_MAX):
            ls_wake_announce(self.wake_table, self.wake_bucket)
        awaited = self.waiters and batch_bytes <= TAIL_BYTES_MAX and self.announce_to_waiters()
        with nogil:
            status = ls_segment_append(self.active.segment, <const uint8_t *>batch, batch_bytes, header, &fault)
        if status == LS_OK:
            if awaited:
                self.keep_tail(self.active, ls_segment_size_bytes(self.active.segment) - batch_bytes, batch, batch_bytes)
            return 0
        if status == LS_FULL:
            raise RecordTooLargeError(
                f"a batch of {batch_bytes} bytes does not fit an empty segment of {self.topic}-{self.partition}: "
                f"{fault.reason.decode()}; raise segment.bytes or segment.index.bytes"
            )
        if status != LS_NO_DESCRIPTOR and (status != LS_DISK_FULL or fault.expected):
            # Unknown what reached the disk: a retry proves nothing, so this log takes no more.
            self.write_state = FAILED
            self._write_failed(fault.reason.decode())
        raise_fault(&fault, self.active.path)

    # ---- producers with an id -----------------------------------------------------------------------

    cdef object plan_for(self, const void *opaque, const uint8_t *batch, bint checked):
        """What a batch with a producer id will change in what is known of producers; None for nothing. Fields as in
        `storage.producer_state.Plan`. The lock is held, the batch stamped."""
        cdef const ls_batch_header *header = <const ls_batch_header *>opaque
        cdef int32_t coordinator_epoch = -1
        cdef int marker = marker_of(header, batch, &coordinator_epoch)
        if marker >= 0:
            return self.producer_state.plan_marker(header.producer_id, header.producer_epoch, marker == 1,
                                                   coordinator_epoch, header.base_offset, header.max_timestamp, checked)
        if marker == -1:
            if checked and not header.attributes & LS_ATTRIBUTE_TRANSACTIONAL and not self.open_transactions:
                plan = self.plan_next(header)
                if plan is not None:
                    return plan
            return self.producer_state.plan_batch(
                header.producer_id, header.producer_epoch, header.base_sequence, header.base_offset,
                ls_batch_last_offset(header), header.max_timestamp,
                bool(header.attributes & LS_ATTRIBUTE_TRANSACTIONAL), checked)
        return None

    cdef tuple plan_next(self, const void *opaque):
        """The plan of the usual batch, which goes on where its producer's last one ended, while no transaction is open; as
        `ProducerState.plan_batch` makes it. None for any other, which that one judges."""
        cdef const ls_batch_header *header = <const ls_batch_header *>opaque
        cdef object producer_id = header.producer_id
        cdef object known = (<dict>self.producers).get(producer_id)
        cdef tuple producer, batches
        cdef int64_t sequence
        if known is None:
            return None
        producer = <tuple>known
        batches = <tuple>producer[PRODUCER_BATCHES]
        if (producer[PRODUCER_EPOCH] != header.producer_epoch or producer[PRODUCER_TRANSACTION_OFFSET] != -1
                or not batches):
            return None
        before = batches[len(batches) - 1]
        sequence = (<tuple>before)[BATCH_LAST_SEQUENCE]
        if header.base_sequence < 0 or header.base_sequence != sequence + 1:
            return None
        sequence = (header.base_sequence + <int64_t>header.last_offset_delta) & SEQUENCE_MAX
        appended = new_tuple(type(before), (sequence, ls_batch_last_offset(header), header.last_offset_delta,
                                            header.max_timestamp))
        batches = batches[max(len(batches) - (BATCHES_KEPT - 1), 0):] + (appended,)
        producer = <tuple>new_tuple(type(producer), (
            producer_id, producer[PRODUCER_EPOCH], producer[PRODUCER_COORDINATOR_EPOCH], header.max_timestamp, -1, batches))
        return producer, -1, False, None, INT64_MAX, None

    cdef int take_over(self, object changes) except -1:
        """After the write, before its end is published: nothing here lets a signal handler in between."""
        cdef tuple plan = <tuple>changes  # named ones, which a declared type would refuse
        cdef tuple producer = <tuple>plan[PLAN_PRODUCER]
        cdef object producer_id = producer[0]
        cdef int64_t opens = plan[PLAN_OPENS]
        self.producers[producer_id] = producer
        self.has_producers = True
        if opens >= 0:
            self.has_transactions = True
            self.open_transactions[producer_id] = producer[PRODUCER_TRANSACTION_OFFSET]
            if opens < self.first_unstable_offset:
                self.first_unstable_offset = opens
        elif plan[PLAN_CLOSES]:
            self.open_transactions.pop(producer_id, None)
        if plan[PLAN_ABORTED] is not None:
            self.aborted_entries.append(plan[PLAN_ABORTED])
            self.aborted_possible = True
        self.unstable_after = plan[PLAN_FIRST_UNSTABLE_OFFSET]
        return 0

    # ---- whole batches ----------------------------------------------------------------------------

    cdef bint takes_unchecked(self, RecordBatch batch, int64_t now_ms):
        """Whether no rule of the topic can refuse a batch, going by its header and by what its producer saw to."""
        if not batch.is_stampable or ls_batch_size_bytes(&batch.header) > self.message_bytes_max:
            return False
        if self.keys_required and batch.lacks_a_key:
            return False
        return self.append_time or (
            self.timestamp_before_max_ms == INT64_MAX
            and batch.header.max_timestamp - now_ms <= self.timestamp_after_max_ms)

    def _append_built(self, RecordBatch batch not None, int level, int64_t expected_offset):
        """Appends a batch that a producer of this process has sealed, in place: without a copy or another CRC.

        Returns
        -------
        tuple[int, int] or None
            Base offset, and the time of append or -1; None for a batch that has to be checked first.
        """
        cdef uint8_t *at = <uint8_t *>batch.data
        cdef size_t size = ls_batch_size_bytes(&batch.header)
        cdef ls_batch_header header = batch.header
        cdef int64_t end
        cdef object plan = None
        cdef object repeated = None
        self.lock_writes()
        try:
            self.check_writable()
            if not self.takes_unchecked(batch, self.now_ms()):
                return None
            self.hand_over()
            if self.append_time:
                header.attributes |= LS_ATTRIBUTE_LOG_APPEND_TIME
                header.max_timestamp = self.last_now_ms
            header.base_offset = self.next_offset
            header.partition_leader_epoch = self.leader_epoch
            if header.producer_id >= 0:
                plan = self.plan_for(&header, at, True)
                repeated = plan[PLAN_REPEATS] if plan is not None else None
            if repeated is None:
                self.check_expected(expected_offset)
            else:
                header.base_offset = <int64_t>repeated[REPEATED_LAST_OFFSET] - header.last_offset_delta
                if self.append_time:
                    header.max_timestamp = repeated[REPEATED_TIMESTAMP]
            if self.append_time:
                ls_batch_stamp_timestamps(at, size, True, header.max_timestamp)
            ls_batch_stamp(at, header.base_offset, header.partition_leader_epoch)
            end = ls_batch_last_offset(&header) + 1
            if repeated is None:
                try:
                    self.write_batch(&header, at, size)
                except BaseException:
                    # As it was: it may be tried again.
                    if self.append_time:
                        ls_batch_stamp_timestamps(at, size, False, batch.header.max_timestamp)
                    ls_batch_stamp(at, 0, -1)
                    raise
                if plan is not None:
                    self.take_over(plan)
                self.next_offset = end
            # Noted before anything can interrupt: whoever is, has to know that the batch must not be tried again.
            batch.header = header
            batch.is_stampable = False
            batch.is_appended = True
            if repeated is None:
                self.publish_end()
        finally:
            self.unlock_writes()
        self.acknowledge(end, level)
        return header.base_offset, header.max_timestamp if header.attributes & LS_ATTRIBUTE_LOG_APPEND_TIME else -1

    def _append_stamped(self, bytearray batch not None, bint as_leader, int level, int64_t expected_offset=-1,
                        RecordBatch source=None):
        """Appends one whole, checked batch: as leader with offsets of our own, as follower with the batch's.

        ``source`` is what a producer of this process made it from, and learns that it is in the log.

        Returns
        -------
        tuple[int, int]
            First and last offset.
        """
        cdef uint8_t *at = batch
        cdef Py_ssize_t size = len(batch)
        cdef ls_batch_header header
        cdef ls_fault fault
        cdef int64_t last
        cdef object plan = None
        cdef object repeated = None
        self.lock_writes()
        try:
            self.check_writable()
            self.now_ms()
            self.hand_over()
            if as_leader:
                ls_batch_stamp(at, self.next_offset, self.leader_epoch)
            if ls_batch_header_read(at, at + size, 0, &header, &fault) != LS_OK:
                raise_fault(&fault, "<memory>")
            last = ls_batch_last_offset(&header)
            if not as_leader:
                if header.base_offset < self.next_offset:
                    raise OffsetOutOfRangeError(
                        f"a follower's batch starts at offset {header.base_offset}, but {self.topic}-{self.partition} "
                        f"ends at {self.next_offset}; fetch from there, or truncate first",
                        offset=header.base_offset, log_start_offset=self.log_start_offset,
                        log_end_offset=self.next_offset)
                if header.base_offset > self.next_offset:
                    self.contiguous = False
                    self._gap_appended()
                if header.partition_leader_epoch > self.leader_epoch:
                    self._epoch_started(header.partition_leader_epoch, header.base_offset)
                    self.leader_epoch = header.partition_leader_epoch
            if header.producer_id >= 0:
                plan = self.plan_for(&header, at, as_leader)
                repeated = plan[PLAN_REPEATS] if plan is not None else None
            if repeated is None:
                self.check_expected(expected_offset)
                self.write_batch(&header, at, size)
                if plan is not None:
                    self.take_over(plan)
                self.next_offset = last + 1
            else:
                last = repeated[REPEATED_LAST_OFFSET]
                header.base_offset = last - header.last_offset_delta
                header.max_timestamp = repeated[REPEATED_TIMESTAMP]
            if source is not None and source.is_stampable:
                source.header.base_offset = header.base_offset
                source.header.attributes = header.attributes
                source.header.max_timestamp = header.max_timestamp
                source.is_stampable = False
                source.is_appended = True
            if repeated is None:
                self.publish_end()
        finally:
            self.unlock_writes()
        self.acknowledge(last + 1, level)
        return header.base_offset, last


cdef int64_t timestamp_of(object timestamp) except? -1:
    try:
        return PyNumber_Index(timestamp)
    except (TypeError, OverflowError):
        raise InvalidRequestError(
            f"a timestamp must be int milliseconds since the epoch, not {timestamp!r}"
        ) from None


cdef int64_t expected_of(object expected_offset) except? -2:
    """The offset that a conditional append expects; -1 for none."""
    if expected_offset is None:
        return -1
    if not isinstance(expected_offset, int) or not 0 <= expected_offset < INT64_MAX:
        raise InvalidRequestError(f"expected_offset must be an offset of 0 or more, not {expected_offset!r}")
    return expected_offset


cdef const int64_t[::1] timestamps_view(object timestamps, Py_ssize_t count):
    """Timestamps as int64, without a copy where they are already."""
    cdef const int64_t[::1] view
    if isinstance(timestamps, (list, tuple, range)):
        import array

        try:
            timestamps = array.array("q", timestamps)
        except (TypeError, OverflowError):
            raise InvalidRequestError("timestamps must be int milliseconds since the epoch") from None
    elif hasattr(timestamps, "__array_interface__") or hasattr(timestamps, "__array__"):
        import numpy

        converted = numpy.asarray(timestamps)
        if converted.dtype.kind == "M":
            converted = converted.astype("datetime64[ms]").view("int64")
        if converted.dtype.kind not in "iu":
            raise InvalidRequestError(
                f"timestamps must be integer milliseconds or datetime64, not {converted.dtype}")
        timestamps = numpy.ascontiguousarray(converted, dtype="int64")
        if converted.dtype.kind == "u" and converted.size and converted.max() > INT64_MAX:
            raise InvalidRequestError("timestamps must be int milliseconds since the epoch")
    try:
        view = timestamps
    except (TypeError, ValueError):
        raise InvalidRequestError("timestamps must be a sequence of int milliseconds, one for each value") from None
    if view.shape[0] != count:
        raise InvalidRequestError(f"{view.shape[0]} timestamps for {count} values")
    return view
