# Appending to one log.

from libc.stdint cimport int32_t, int64_t, uint8_t
from logstore._native.clock cimport ls_recent_time
from logstore._native.core cimport ls_batch_builder, ls_fault, ls_open_batch, ls_roll_policy, ls_span
from logstore._native.group_commit cimport Waiting
from logstore._native.log_flusher cimport LogFlusher
from logstore._native.record_batch cimport RecordBatch
from logstore._native.spans cimport HeaderList
from logstore._native.writer_lock cimport ls_writer_lock


cdef enum Level:
    LEVEL_BUFFERED = 0
    LEVEL_APPENDED = 1
    LEVEL_FLUSHED = 2


# The writer's half of a log: an open batch, the active segment, and the lock over both. storage.Log derives from it
# and supplies the cold steps (_roll, _schedule_hand_over, _schedule_flush, _write_failed).
cdef class LogAppender(LogFlusher):
    cdef ls_writer_lock lock
    cdef ls_batch_builder builder
    cdef int64_t next_offset            # of the next record; counts those in the open batch
    cdef readonly int64_t batches_count     # handed over since the log was opened
    cdef bint marked_clean          # the checkpoint on disk says so: to be taken back before the first write
    cdef int64_t mark_due_bytes     # size of the active segment from which on the page cache's next mark is due
    cdef bint hand_over_scheduled
    cdef bint soon_scheduled        # as soon as staged records ask for
    # The mapped file that the open batch lives in while `appended` records come fast; see `stage` and docs/architecture.md.
    cdef ls_open_batch open_batch
    cdef bint stages                # it may be used
    cdef bint restored              # the builder holds what an earlier process left in the file, which is still there
    cdef int burst_records          # appended without a pause between them
    cdef int64_t appended_ms        # when the last one was
    cdef int64_t stage_after_ms     # the file was refused: not again before
    cdef bytes open_batch_path
    cdef bytes topic_id
    cdef bytes boot_id
    cdef unsigned long handing_over  # the thread that does, or 0
    cdef bint flush_scheduled
    cdef bint flush_unscheduled     # it is to be, once the lock is let go
    # settings, as plain numbers
    cdef int default_level
    cdef int codec
    cdef object codec_level
    cdef int32_t leader_epoch
    cdef ls_roll_policy roll_policy
    cdef int64_t batch_bytes_max        # where an open batch is handed over
    cdef int64_t message_bytes_max
    cdef int64_t timestamp_before_max_ms
    cdef int64_t timestamp_after_max_ms
    cdef int64_t flush_messages
    cdef bint flush_due             # rolls outrun the flushes: the next append waits for one
    cdef bint flush_by_time
    cdef bint append_time
    cdef bint keys_required
    cdef object clock
    # what is known of producers with an id; replaced by _take_producers
    cdef object producer_state          # storage.producer_state.ProducerState
    cdef dict producers                 # its entries, by producer id
    cdef dict open_transactions         # and first offsets, by producer id
    cdef list aborted_entries           # aborted transactions whose marker is in the active segment
    cdef int64_t unstable_after         # first unstable offset once the next end is published
    cdef readonly bint has_producers    # a batch with a producer id was appended here
    cdef readonly bint has_transactions
    cdef int64_t last_now_ms
    cdef ls_recent_time recent_time
    cdef tuple refusal              # kind and arguments of the error that collected records were taken back for last

    cdef int64_t now_ms(self) except? -1
    cdef int check_writable(self) except -1
    cdef int check_record(self, const ls_span *key, const ls_span *value, HeaderList headers,
                          int64_t timestamp, int64_t now_ms) except -1
    cdef int64_t append_now(self, const ls_span *key, const ls_span *value) except -1
    cdef int64_t append_one(self, const ls_span *key, const ls_span *value, HeaderList headers,
                            int64_t timestamp, bint has_timestamp, int level,
                            int64_t expected_offset=*) except -1
    cdef int64_t append_spans(self, const ls_span *keys, const ls_span *values, const int64_t *timestamps,
                              Py_ssize_t count, HeaderList headers, int level,
                              int64_t expected_offset=*) except -1
    cdef int check_expected(self, int64_t expected_offset) except -1
    cdef bint takes_unchecked(self, RecordBatch batch, int64_t now_ms)
    cdef int check_spans(self, const ls_span *keys, const ls_span *values, const int64_t *timestamps,
                         Py_ssize_t count, HeaderList headers, int64_t now_ms) except -1
    cdef int hand_over(self) except -1
    cdef int seal_and_write(self) except -1
    cdef bint in_burst(self, int64_t now_ms)
    cdef int begin_staging(self, int64_t now_ms) except -1
    cdef int end_staging(self, bint remove) except -1
    cdef int stage(self) except -1
    cdef bint collects(self)
    cdef int collect(self, Waiting *me) except -1
    cdef int take_back(self, error) except -1
    cdef int wait_collected(self, Waiting *me, int64_t end_offset, int turn) except -1
    cdef int schedule_hand_over(self) except -1
    cdef int lock_writes(self) except -1
    cdef int unlock_writes(self) except -1
    cdef int schedule_flush(self) except -1
    cdef int publish_end(self) except -1
    cdef int write_batch(self, const void *header, const void *batch, size_t batch_bytes) except -1
    cdef object plan_for(self, const void *header, const uint8_t *batch, bint checked)
    cdef tuple plan_next(self, const void *opaque)
    cdef int take_over(self, object changes) except -1
    cdef int acknowledge(self, int64_t end_offset, int level) except -1


cdef int level_of(object durability, int default) except -1
cdef int64_t timestamp_of(object timestamp) except? -1
cdef int64_t expected_of(object expected_offset) except? -2
cdef const int64_t[::1] timestamps_view(object timestamps, Py_ssize_t count)
