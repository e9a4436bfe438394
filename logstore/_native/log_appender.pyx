"""Appending records to one log: encode into the open batch, hand over with one write, publish.

The cost of a record is encoding it once. The lock is held over the encoding and, where a batch is handed over, over
its one write; the GIL is let go for the write.
"""

cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport INT64_MAX, int64_t
from logstore._native.append_arguments cimport (
    LEVEL_APPENDED,
    LEVEL_BUFFERED,
    LEVEL_FLUSHED,
    expected_of,
    level_of,
    timestamp_of,
    timestamps_view,
)
from logstore._native.core cimport (
    LS_BATCH_HEADER_BYTES,
    LS_OK,
    ls_batch_builder_append,
    ls_batch_builder_mark,
    ls_batch_builder_rewind,
    ls_batch_mark,
    ls_fault,
    ls_record_size_bytes_max,
    ls_segment_expect_append,
    ls_span,
    ls_wake_announce,
    ls_wake_may_be_awaited,
)
from logstore._native.faults cimport raise_fault
from logstore._native.group_commit cimport TURN_OVER, Waiting, open_waiting
from logstore._native.log_flusher cimport WRITABLE
from logstore._native.log_state cimport TAIL_BYTES_MAX
from logstore._native.record_rules cimport check_record
from logstore._native.run_appender cimport RunAppender
from logstore._native.spans cimport HeaderList, SpanArray, span_of, takes_bytes
from logstore._native.writer_lock cimport ls_writer_lock_release

from logstore.errors import InvalidRequestError

# What a record without headers adds at most, besides its key and value.
cdef int64_t RECORD_OVERHEAD_BYTES_MAX = ls_record_size_bytes_max(-1, -1, NULL, 0)


cdef class LogAppender(RunAppender):
    """The writer's half of one log. `logstore.storage.Log` is what is used."""

    def _configure(self, *, int level, int codec, codec_level, int64_t segment_bytes, int64_t segment_ms,
                   int64_t batch_bytes, int64_t message_bytes_max, int64_t timestamp_before_max_ms,
                   int64_t timestamp_after_max_ms, int64_t flush_messages, bint flush_by_time, bint append_time,
                   bint keys_required, bint stages, clock):
        """Takes settings over, between two appends."""
        self.lock_writes()
        try:
            # Whoever counts records between flushes, or their bytes in a batch, gets each written.
            self.allow_staging(stages and flush_messages == INT64_MAX, batch_bytes, segment_bytes)
            self.default_level = level
            self.codec = codec
            self.codec_level = codec_level
            self.roll_policy.segment_bytes = segment_bytes
            self.roll_policy.segment_ms = segment_ms
            self.rules.message_bytes_max = min(message_bytes_max, segment_bytes)
            self.batch_bytes_max = min(batch_bytes, self.rules.message_bytes_max)
            self.rules.timestamp_before_max_ms = timestamp_before_max_ms
            self.rules.timestamp_after_max_ms = timestamp_after_max_ms
            self.flush_messages = flush_messages
            self.flush_by_time = flush_by_time
            self.rules.append_time = append_time
            self.rules.keys_required = keys_required
            self.clock = clock
            self.joined_bytes_max = 0
        finally:
            self.unlock_writes()

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

    cdef int64_t append_one(self, const ls_span *key, const ls_span *value, HeaderList headers, int64_t timestamp,
                            bint has_timestamp, int level, int64_t expected_offset=-1) except -1:
        cdef int64_t now_ms = self.now_ms()
        cdef int64_t offset, record_bytes_max
        cdef bint stage, collect
        cdef ls_batch_mark mark
        cdef ls_fault fault
        cdef Waiting me
        cdef int turn = TURN_OVER
        if not has_timestamp or (self.rules.append_time and timestamp >= 0):
            timestamp = now_ms
        if self.write_state != WRITABLE:
            self.check_writable()
        if headers is not None:
            record_bytes_max = <int64_t>ls_record_size_bytes_max(key.size_bytes, value.size_bytes, headers.items,
                                                                 headers.count)
        else:
            record_bytes_max = RECORD_OVERHEAD_BYTES_MAX + <int64_t>max(key.size_bytes, 0) + max(value.size_bytes, 0)
        # Only where a rule might refuse it: most topics have none that a record of now, and of this size, could break.
        if (has_timestamp or self.rules.keys_required
                or record_bytes_max > self.rules.message_bytes_max - LS_BATCH_HEADER_BYTES):
            check_record(&self.rules, self.topic, key, value, headers, timestamp, now_ms)
        if level != LEVEL_BUFFERED and self.active is not None:
            ls_segment_expect_append(self.active.segment)
        self.lock_writes()
        try:
            if self.write_state != WRITABLE:
                self.check_writable()
            if expected_offset >= 0:
                self.check_expected(expected_offset)
            stage = (level == LEVEL_APPENDED and self.stages and self.in_burst(now_ms)
                     and not self.is_awaited_elsewhere(now_ms))
            if self.waiters and level != LEVEL_BUFFERED:
                stage = False
                self.announce_to_waiters()  # as early as that: encoding takes its time, too, where nothing is in the cache
            collect = level == LEVEL_FLUSHED and self.collects()
            if (self.wake_table != NULL and ls_wake_may_be_awaited(self.wake_table, self.wake_bucket)
                    and level != LEVEL_BUFFERED and not stage and not collect and record_bytes_max <= TAIL_BYTES_MAX):
                ls_wake_announce(self.wake_table, self.wake_bucket)  # in other processes: the same
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
            else:
                if not self.hand_over_scheduled:
                    self.schedule_hand_over()  # first: a signal handler may raise in it
                self.let_join()
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
