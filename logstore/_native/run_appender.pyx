"""Appending many records in one call: several batches in one write.

In a file that grows each further write costs something, and large ones get larger pieces of page cache. Where the disk is
waited for, it begins with one run of batches while the next is made.
"""

from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport free, malloc
from logstore._native.append_arguments cimport LEVEL_BUFFERED, LEVEL_FLUSHED
from logstore._native.batch_appender cimport BatchAppender
from logstore._native.core cimport (
    LS_ATTRIBUTE_LOG_APPEND_TIME,
    LS_CODEC_NONE,
    LS_FULL,
    LS_OK,
    ls_batch_builder_append,
    ls_batch_builder_append_many,
    ls_batch_builder_mark,
    ls_batch_builder_reset,
    ls_batch_builder_rewind,
    ls_batch_mark,
    ls_batch_run,
    ls_batch_run_build,
    ls_batch_stamp_fields,
    ls_fault,
    ls_record_size_bytes_max,
    ls_segment_append_run,
    ls_segment_should_roll,
    ls_segment_size_bytes,
    ls_segment_write_back,
    ls_span,
    ls_status,
)
from logstore._native.faults cimport raise_fault
from logstore._native.record_rules cimport check_spans
from logstore._native.spans cimport HeaderList

cdef extern from "Python.h":
    unsigned long PyThread_get_thread_ident()

# Of one write. Enough to keep the disk busy, and little enough for the processor's own cache.
cdef int64_t RUN_BYTES_MAX = 512 << 10
# Where runs are built, for the whole process: fresh memory costs as much as encoding into it.
cdef uint8_t *kept_buffer = NULL


cdef class RunAppender(BatchAppender):
    """Many records a call. `logstore.storage.Log` is what is used."""

    cdef int64_t append_spans(self, const ls_span *keys, const ls_span *values, const int64_t *timestamps,
                              Py_ssize_t count, HeaderList headers, int level, int64_t expected_offset=-1) except -1:
        """Appends count > 0 records without a gap and returns the first offset."""
        cdef int64_t now_ms = self.now_ms()
        cdef int64_t first, end, position
        cdef Py_ssize_t done = 0
        cdef Py_ssize_t taken
        cdef ls_batch_mark mark
        cdef bint in_runs
        self.check_writable()
        check_spans(&self.rules, self.topic, keys, values, timestamps, count, headers, now_ms)
        in_runs = (level != LEVEL_BUFFERED and headers is None and self.codec == LS_CODEC_NONE
                   and are_more_than(self.batch_bytes_max, keys, values, count))
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
                    if in_runs and self.builder.records_count == 0:
                        taken = self.append_run(keys + done if keys != NULL else NULL, values + done,
                                                timestamps + done if timestamps != NULL else NULL, count - done,
                                                level == LEVEL_FLUSHED)
                        done += taken
                        in_runs = taken > 0
                        continue
                    taken = self.encode_spans(keys + done if keys != NULL else NULL, values + done,
                                              timestamps + done if timestamps != NULL else NULL, count - done, headers)
                    done += taken
                    self.next_offset += taken
                    if done < count and (headers is None or taken == 0):
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

    cdef Py_ssize_t encode_spans(self, const ls_span *keys, const ls_span *values, const int64_t *timestamps,
                                 Py_ssize_t count, HeaderList headers) except -1:
        """Into the open batch, as many as it has room for; with headers, one at most."""
        cdef size_t appended = 0
        cdef ls_status status = LS_OK
        cdef ls_fault fault
        cdef ls_span no_key
        if headers is None:
            with nogil:
                status = ls_batch_builder_append_many(&self.builder, keys, values, timestamps, self.last_now_ms, count,
                                                      self.batch_bytes_max, &appended, &fault)
        else:
            no_key.bytes = NULL
            no_key.size_bytes = -1
            if self.builder.records_count == 0 or self.builder.size_bytes + ls_record_size_bytes_max(
                keys[0].size_bytes if keys != NULL else -1, values[0].size_bytes, headers.items, headers.count
            ) <= <size_t>self.batch_bytes_max:
                status = ls_batch_builder_append(
                    &self.builder, timestamps[0] if timestamps != NULL else self.last_now_ms,
                    keys[0] if keys != NULL else no_key, values[0], headers.items, headers.count, &fault)
                appended = 1
        if status != LS_OK:
            raise_fault(&fault, "<memory>")
        return appended

    cdef Py_ssize_t append_run(self, const ls_span *keys, const ls_span *values, const int64_t *timestamps,
                               Py_ssize_t count, bint is_flushed) except -1:
        """Appends as many of the records as one write takes, in the batches that the open batch would make of them, and has
        the disk begin with them where there are more to flush. None where each batch has to be asked for whether the segment
        takes it. The open batch is empty, the lock held."""
        global kept_buffer
        cdef int64_t size_bytes = ls_segment_size_bytes(self.active.segment)
        cdef int64_t room_bytes = self.roll_policy.segment_bytes - size_bytes
        cdef uint8_t *buffer
        cdef Py_ssize_t taken = 0
        if min(room_bytes, RUN_BYTES_MAX) < 2 * self.batch_bytes_max:
            return 0
        if size_bytes == 0 and timestamps != NULL and not self.rules.append_time:
            return 0  # the first batch says how far ahead the others' times may be
        buffer = kept_buffer
        kept_buffer = NULL
        if buffer == NULL:
            buffer = <uint8_t *>malloc(RUN_BYTES_MAX)
        if buffer == NULL:
            return 0
        self.handing_over = PyThread_get_thread_ident()  # see hand_over
        try:
            taken = self.write_run(buffer, min(room_bytes, RUN_BYTES_MAX), keys, values, timestamps, count, is_flushed)
        finally:
            self.handing_over = 0
            if kept_buffer == NULL:
                kept_buffer = buffer
            else:
                free(buffer)
        return taken

    cdef Py_ssize_t write_run(self, uint8_t *buffer, int64_t capacity_bytes, const ls_span *keys, const ls_span *values,
                              const int64_t *timestamps, Py_ssize_t count, bint is_flushed) except -1:
        cdef ls_batch_stamp_fields fields
        cdef ls_batch_run run
        cdef ls_fault fault
        cdef ls_status status
        cdef int64_t position
        self.before_write()
        fields.base_offset = self.next_offset
        fields.partition_leader_epoch = self.leader_epoch
        fields.attributes = LS_ATTRIBUTE_LOG_APPEND_TIME if self.rules.append_time else 0
        fields.log_append_timestamp = self.last_now_ms if self.rules.append_time else -1
        fields.producer_id = -1
        fields.producer_epoch = -1
        fields.base_sequence = -1
        with nogil:
            status = ls_batch_run_build(buffer, capacity_bytes, keys, values, timestamps, self.last_now_ms, count,
                                        self.batch_bytes_max, &fields, &run, &fault)
        if status != LS_OK:
            raise_fault(&fault, "<memory>")
        position = ls_segment_size_bytes(self.active.segment)
        if run.batches_count == 0 or ls_segment_should_roll(
                self.active.segment, &self.roll_policy, run.size_bytes, run.max_timestamp,
                self.next_offset + <int64_t>run.records_count - 1, self.last_now_ms):
            return 0
        with nogil:
            status = ls_segment_append_run(self.active.segment, buffer, run.size_bytes, &fault)
            if is_flushed and status == LS_OK and <Py_ssize_t>run.records_count < count:
                ls_segment_write_back(self.active.segment, position)
        if status == LS_FULL:
            return 0
        if status != LS_OK:
            self.refuse_write(status, &fault)
        self.next_offset += run.records_count
        self.batches_count += run.batches_count - 1  # and one with the end
        self.publish_end()
        return run.records_count


cdef bint are_more_than(int64_t limit_bytes, const ls_span *keys, const ls_span *values, Py_ssize_t count) noexcept nogil:
    """Whether records hold more bytes than that, by their keys and values alone."""
    cdef int64_t size_bytes = 0
    cdef Py_ssize_t i
    for i in range(count):
        size_bytes += max(values[i].size_bytes, 0) + (max(keys[i].size_bytes, 0) if keys != NULL else 0)
        if size_bytes > limit_bytes:
            return True
    return False
