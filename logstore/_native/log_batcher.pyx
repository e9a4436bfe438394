"""The open batch of one log, and its hand-over: sealed, written with one call, published."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport INT64_MAX
from libc.string cimport memset
from logstore._native.append_arguments cimport LEVEL_BUFFERED
from logstore._native.batch_codecs cimport compressed_batch
from logstore._native.core cimport (
    LS_ATTRIBUTE_LOG_APPEND_TIME,
    LS_CODEC_NONE,
    LS_OK,
    ls_batch_builder_free,
    ls_batch_builder_init,
    ls_batch_builder_lend,
    ls_batch_builder_reset,
    ls_batch_builder_seal,
    ls_batch_header,
    ls_batch_stamp_fields,
    ls_fault,
    ls_open_batch_buffer,
    ls_open_batch_capacity_bytes,
    ls_open_batch_clear,
)
from logstore._native.faults cimport raise_fault
from logstore._native.log_flusher cimport WRITABLE
from logstore._native.log_writer cimport LogWriter

cdef extern from "Python.h":
    unsigned long PyThread_get_thread_ident()

# Of an open batch, before it grows.
cdef size_t FIRST_BUFFER_BYTES = 512


cdef class LogBatcher(LogWriter):
    """The open batch. `logstore.storage.Log` is what is used."""

    def __cinit__(self, *args, **kwargs):
        self.begin_in_memory()

    def __dealloc__(self):
        ls_batch_builder_free(&self.builder)

    cdef int begin_in_memory(self) except -1:
        """An empty open batch, in a buffer that grows."""
        cdef ls_fault fault
        memset(&self.builder, 0, sizeof(self.builder))
        if ls_batch_builder_init(&self.builder, FIRST_BUFFER_BYTES, &fault) != LS_OK:
            raise_fault(&fault, "<memory>")
        return 0

    @property
    def open_batch_records_count(self):
        """Records acknowledged as ``buffered`` that are not handed over yet."""
        return self.builder.records_count

    cdef void let_join(self) noexcept:
        """After a `buffered` record, its hand-over scheduled. The lock is held."""
        if (self.default_level == LEVEL_BUFFERED and self.hand_over_scheduled and not self.rules.keys_required
                and self.flush_messages == INT64_MAX and self.clock is None):
            self.joined_bytes_max = self.batch_bytes_max

    cdef int hand_over(self) except -1:
        """Seals the open batch and writes it with one call. The lock is held. On an exception the records stay in
        the open batch, unless they are in the log."""
        self.joined_bytes_max = 0
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
        if self.rules.append_time:
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

    cdef int schedule_hand_over(self) except -1:
        self.handing_over = PyThread_get_thread_ident()
        try:
            self._schedule_hand_over(self.staged)
        finally:
            self.handing_over = 0
        self.hand_over_scheduled = True
        self.soon_scheduled = self.staged
        return 0

    def _lingered(self):
        """The open batch was handed over because of its age; the next one is scheduled anew. The lock is held.

        One batch after the other is covered by the first one's schedule: there is one at a time, however fast they fill.
        """
        self.joined_bytes_max = 0
        self.hand_over_scheduled = False
        self.soon_scheduled = False

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
