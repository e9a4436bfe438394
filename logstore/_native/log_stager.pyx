"""The open batch in a mapped file, while `appended` records come fast: one survives its process without a system call."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t
from logstore._native.core cimport (
    LS_END,
    LS_OK,
    LS_OPEN_BATCH_BOOT_ID_BYTES,
    LS_OPEN_BATCH_TOPIC_ID_BYTES,
    LS_UNSUPPORTED,
    ls_batch_builder_lend,
    ls_batch_builder_restore,
    ls_fault,
    ls_open_batch_begin,
    ls_open_batch_buffer,
    ls_open_batch_capacity_bytes,
    ls_open_batch_commit,
    ls_open_batch_content,
    ls_open_batch_create,
    ls_open_batch_free,
    ls_open_batch_read,
    ls_status,
    ls_wake_is_awaited,
    ls_wake_may_be_awaited,
)
from logstore._native.faults cimport raise_fault
from logstore._native.log_batcher cimport LogBatcher
from logstore._native.log_flusher cimport WRITABLE

from logstore.errors import LogstoreError

cdef extern from "Python.h":
    unsigned long PyThread_get_thread_ident()

# More records than these within so many milliseconds make a burst; it goes on as long as as many come in the next ones.
cdef int BURST_RECORDS = 16
cdef int64_t COUNTED_MS = 2
# So many system calls take as long as one hand-over in the background.
cdef int PAYING_RECORDS = 64
# The file is as large as the largest batch; beyond this one a system call a batch costs nothing.
cdef int64_t STAGED_BATCH_BYTES_MAX = 1 << 20
# And for segments of so many of them: in shorter ones whole batches would leave much of the end empty.
cdef int64_t STAGED_BATCHES_PER_SEGMENT = 16
# Each is a map of this process, locked in memory, and a file; further logs write each record.
cdef int OPEN_BATCHES_MAX = 32
cdef int open_batches_count = 0
cdef int64_t REFUSED_MS = 10_000
cdef int64_t IDLE_MS = 500
# How often readers in other processes are looked for that were killed while they waited.
cdef int64_t SWEEP_MS = 1000


cdef class LogStager(LogBatcher):
    """The open batch while it lives in a file. `logstore.storage.Log` is what is used."""

    def __dealloc__(self):
        global open_batches_count
        if self.open_batch.map != NULL:
            open_batches_count -= 1
            ls_open_batch_free(&self.open_batch)

    cdef int allow_staging(self, bint allowed, int64_t batch_bytes, int64_t segment_bytes) except -1:
        """By the settings of the log. The lock is held."""
        self.stages = (allowed and self.open_batch_path is not None and batch_bytes <= STAGED_BATCH_BYTES_MAX
                       and segment_bytes // STAGED_BATCHES_PER_SEGMENT >= batch_bytes)
        return 0

    cdef bint in_burst(self, int64_t now_ms):
        """Whether records come so fast that a system call for each is too much. The lock is held."""
        cdef int64_t past_ms = now_ms - self.counted_from_ms
        cdef int burst_records = PAYING_RECORDS if self.hardly_pays else BURST_RECORDS
        if 0 <= past_ms < COUNTED_MS:
            self.counted_records += 1
        else:
            self.goes_on = 0 <= past_ms < 2 * COUNTED_MS and self.counted_records > burst_records
            if not 0 <= past_ms < IDLE_MS:
                self.hardly_pays = False
            self.counted_from_ms = now_ms
            self.counted_records = 1
        return self.goes_on or self.counted_records > burst_records

    def _lingered(self):
        """As of any open batch. Records that come at a rate at which few are staged when the time is over are written from
        here on: a thread that wakes up for them takes more than their system calls."""
        if self.staged_records:
            self.hardly_pays = self.staged_records < PAYING_RECORDS
            self.staged_records = 0
        LogBatcher._lingered(self)

    cdef bint is_awaited_elsewhere(self, int64_t now_ms):
        """Whether readers in other processes wait for records, which get each at once. The lock is held."""
        if self.wake_table == NULL or not ls_wake_may_be_awaited(self.wake_table, self.wake_bucket):
            return False
        if not 0 <= now_ms - self.swept_ms < SWEEP_MS:
            self.swept_ms = now_ms
            self.waiting_readers.forget_killed()
        return ls_wake_may_be_awaited(self.wake_table, self.wake_bucket)

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
        self.staged_records += 1
        self.staged_ms = self.last_now_ms
        if not self.soon_scheduled:
            self.schedule_hand_over()
        # Who has come to wait since this record was begun either finds it in the file, or is seen here.
        if self.wake_table != NULL and ls_wake_is_awaited(self.wake_table, self.wake_bucket):
            self.hand_over_staged()
        return 0

    cdef int hand_over_staged(self) except -1:
        """Where the segment refuses it, it stays where it is, and acknowledged. The lock is held."""
        try:
            self.now_ms()
            self.hand_over()
        except (LogstoreError, MemoryError):
            pass
        return 0

    cdef int surface(self) except -1:
        """Hands over what is staged, for a reader."""
        if self.write_state != WRITABLE or self.handing_over == PyThread_get_thread_ident():
            return 0
        self.lock_writes()
        try:
            if self.staged and self.write_state == WRITABLE:
                self.hand_over_staged()
        finally:
            self.unlock_writes()
        return 0

    cdef int end_staging(self, bint remove) except -1:
        """Lets go of the file, which is removed where nothing in it is needed any more. The lock is held."""
        global open_batches_count
        if self.open_batch.map == NULL:
            return 0
        if self.builder.is_lent:
            self.begin_in_memory()
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
        if self.open_batch.map != NULL and 0 <= self.last_now_ms - self.staged_ms < IDLE_MS:
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
