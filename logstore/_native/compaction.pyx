"""Compaction's loops over batches: files are read in chunks, mapped and rewritten without the GIL."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport free, realloc
from libc.string cimport memmove, memset
from logstore._native.core cimport (
    LS_COMPACTION_COMPRESS,
    LS_COMPACTION_FULL,
    LS_COMPACTION_HISTORY,
    LS_COMPACTION_PAYLOAD,
    LS_CORRUPT,
    LS_END,
    LS_FILE_READ,
    LS_FULL,
    LS_KEY_SECRET_BYTES,
    LS_OK,
    LS_TORN,
    ls_aborted_transaction,
    ls_batch_codec,
    ls_batch_header,
    ls_batch_header_peek,
    ls_batch_size_bytes,
    ls_batch_validate,
    ls_compaction_counts,
    ls_compaction_map,
    ls_compaction_map_payload,
    ls_compaction_rewrite,
    ls_compaction_rewrite_compressed,
    ls_compaction_rewrite_payload,
    ls_compaction_rules,
    ls_compaction_step,
    ls_compactor,
    ls_compactor_aborted,
    ls_compactor_clear_aborted,
    ls_compactor_clear_output,
    ls_compactor_counts,
    ls_compactor_create,
    ls_compactor_free,
    ls_compactor_keep_last,
    ls_compactor_map_ended,
    ls_compactor_mapped_end_offset,
    ls_compactor_memory_bytes,
    ls_compactor_output,
    ls_compactor_pending,
    ls_compactor_set_history,
    ls_compactor_start_pass,
    ls_compactor_start_segment,
    ls_fault,
    ls_file,
    ls_file_close,
    ls_file_open,
    ls_file_read,
    ls_key_hash,
    ls_key_offset_map,
    ls_key_offset_map_count,
    ls_key_offset_map_create,
    ls_key_offset_map_free,
    ls_key_offset_map_get,
    ls_key_offset_map_hash,
    ls_key_offset_map_memory_bytes,
    ls_key_offset_map_put,
    ls_producer_last,
    ls_segment_append_batches,
    ls_status,
    ls_transaction_history,
    ls_transaction_history_add,
    ls_transaction_history_finish,
    ls_transaction_history_first_open,
    ls_transaction_history_free,
    ls_transaction_history_set_producers,
)
from logstore._native.faults cimport raise_fault
from logstore._native.record_batch cimport RecordBatch, compressed_batch
from logstore._native.segment cimport Segment

import os

# Read at once; the largest batch makes it grow.
cdef size_t CHUNK_BYTES = 1 << 20


@cython.final
cdef class KeyOffsetMap:
    """The last offset of each key, by a keyed 128-bit hash. One thread at a time.

    Parameters
    ----------
    memory_bytes : int
        What it may grow to: 30 to 35 bytes a key.
    secret : bytes, optional
        16 bytes that nobody can guess; drawn at random if not given.
    """

    cdef ls_key_offset_map *map

    def __cinit__(self, Py_ssize_t memory_bytes, bytes secret=None):
        cdef ls_fault fault
        if secret is None:
            secret = os.urandom(LS_KEY_SECRET_BYTES)
        if len(secret) != LS_KEY_SECRET_BYTES or memory_bytes < 0:
            raise ValueError("a secret has 16 bytes, and memory is not negative")
        if ls_key_offset_map_create(memory_bytes, <const uint8_t *>PyBytes_AS_STRING(secret), &self.map,
                                    &fault) != LS_OK:
            raise_fault(&fault, "<memory>")

    def __dealloc__(self):
        ls_key_offset_map_free(self.map)

    def __len__(self):
        return ls_key_offset_map_count(self.map)

    @property
    def memory_bytes(self):
        """Allocated for the keys so far."""
        return ls_key_offset_map_memory_bytes(self.map)

    def hash(self, bytes key not None):
        """The 16 bytes of a key's hash."""
        cdef ls_key_hash found = ls_key_offset_map_hash(self.map, <const uint8_t *>PyBytes_AS_STRING(key),
                                                        PyBytes_GET_SIZE(key))
        return int(found.low).to_bytes(8, "little") + int(found.high).to_bytes(8, "little")

    def put(self, bytes key not None, int64_t offset):
        """False: the key is new, and there is no room."""
        cdef int64_t previous
        return bool(ls_key_offset_map_put(self.map, ls_key_offset_map_hash(
            self.map, <const uint8_t *>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key)), offset, &previous))

    def get(self, bytes key not None):
        """-1 for a key that was not put."""
        return ls_key_offset_map_get(self.map, ls_key_offset_map_hash(
            self.map, <const uint8_t *>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key)))


cdef class BatchFile:
    """A segment's file, read front to back in chunks of whole batches."""

    cdef ls_file *file
    cdef str path
    cdef uint8_t *buffer
    cdef size_t capacity
    cdef size_t start       # of what is not consumed yet
    cdef size_t end
    cdef int64_t position   # of buffer[start] in the file
    cdef int64_t size_bytes

    def __cinit__(self, str path not None, int64_t size_bytes):
        cdef ls_fault fault
        cdef ls_status status
        cdef bytes encoded = os.fsencode(path)
        cdef const char *name = PyBytes_AS_STRING(encoded)
        with nogil:
            status = ls_file_open(name, LS_FILE_READ, &self.file, &fault)
        if status != LS_OK:
            raise_fault(&fault, path)
        self.path = path
        self.size_bytes = size_bytes

    def __dealloc__(self):
        if self.file != NULL:
            ls_file_close(self.file)
        free(self.buffer)

    cdef int close(self) except -1:
        if self.file != NULL:
            ls_file_close(self.file)
            self.file = NULL
        return 0

    cdef void consume(self, size_t size) noexcept nogil:
        self.start += size
        self.position += <int64_t>size

    cdef int64_t more(self, size_t wanted) except -1:
        """Reads on behind what is left, so that a batch of `wanted` bytes fits. How many bytes came; 0 at the end."""
        cdef size_t left = self.end - self.start
        cdef int64_t unread = self.size_bytes - (self.position + <int64_t>left)
        cdef size_t capacity = max(CHUNK_BYTES, wanted)
        cdef size_t got = 0
        cdef size_t size
        cdef ls_fault fault
        cdef ls_status status = LS_OK
        cdef uint8_t *grown
        if unread <= 0:
            if left == 0:
                return 0
            fault.status = LS_CORRUPT
            fault.os_errno = 0
            fault.reason = b"batch is cut off"
            fault.position = self.position
            fault.expected = <int64_t>wanted
            fault.actual = <int64_t>left
            raise_fault(&fault, self.path)
        if <int64_t>wanted > unread + <int64_t>left:
            capacity = CHUNK_BYTES  # a length that leads past the end: no reason to allocate it
        if left > 0 and self.start > 0:
            memmove(self.buffer, self.buffer + self.start, left)
        self.start = 0
        self.end = left
        if capacity > self.capacity:
            grown = <uint8_t *>realloc(self.buffer, capacity)
            if grown == NULL:
                raise MemoryError(f"no memory for a batch of {capacity} bytes")
            self.buffer = grown
            self.capacity = capacity
        size = <size_t>min(<int64_t>(self.capacity - left), unread)
        with nogil:
            status = ls_file_read(self.file, self.position + <int64_t>left, self.buffer + left, size, &got, &fault)
        if status != LS_OK:
            raise_fault(&fault, self.path)
        if got == 0:
            self.size_bytes = self.position + <int64_t>left  # cut meanwhile
            return self.more(wanted)
        self.end += got
        return <int64_t>got


@cython.final
cdef class TransactionHistory:
    """What became of the transactions of a log, and each producer's last batch. One thread at a time.

    Parameters
    ----------
    partial : bool
        Nothing will be known of transactions, only of producers.
    """

    cdef ls_transaction_history history

    def __cinit__(self, bint partial=False):
        memset(&self.history, 0, sizeof(self.history))
        self.history.is_partial = partial

    def __dealloc__(self):
        ls_transaction_history_free(&self.history)

    def add_segment(self, str path, int64_t size_bytes, pause=None):
        """Takes in the batches of the next segment; ``pause(bytes_read, 0)`` is called after each read.

        Raises
        ------
        CorruptDataError, StorageFailureError
        """
        cdef BatchFile file = BatchFile(path, size_bytes)
        cdef ls_batch_header header
        cdef ls_fault fault
        cdef ls_status status = LS_OK
        cdef size_t wanted = 0
        cdef int64_t got
        while (got := file.more(wanted)) > 0:
            wanted = 0
            with nogil:
                while True:
                    status = ls_batch_validate(file.buffer + file.start, file.buffer + file.end, file.position,
                                               &header, &fault)
                    if status == LS_OK:
                        status = ls_transaction_history_add(&self.history, file.buffer + file.start, &header, &fault)
                    if status != LS_OK:
                        break
                    file.consume(<size_t>ls_batch_size_bytes(&header))
            if status == LS_TORN:
                wanted = <size_t>fault.expected
            elif status != LS_END:
                raise_fault(&fault, path)
            if pause is not None:
                pause(got, 0)
        file.close()

    def set_producers(self, producers):
        """Takes the last batch of each producer from elsewhere: (producer id, offset of its last record or -1, epoch)."""
        cdef list rows = list(producers)
        cdef ls_producer_last *items = <ls_producer_last *>realloc(NULL, (len(rows) + 1) * sizeof(ls_producer_last))
        cdef ls_fault fault
        cdef ls_status status
        cdef Py_ssize_t i
        if items == NULL:
            raise MemoryError(f"no memory for {len(rows)} producers")
        try:
            for i in range(len(rows)):
                items[i].producer_id, items[i].last_data_offset, items[i].epoch = rows[i]
                items[i].open_offset = -1
            status = ls_transaction_history_set_producers(&self.history, items, len(rows), &fault)
        finally:
            free(items)
        if status != LS_OK:
            raise_fault(&fault, "<memory>")

    def finish(self):
        """All batches are in; `aborted` is in order of first offsets from here on."""
        ls_transaction_history_finish(&self.history)

    @property
    def first_open_offset(self):
        """First offset of the first transaction that is open; 2**63 - 1 where none is."""
        return ls_transaction_history_first_open(&self.history)

    @property
    def aborted(self):
        """``list[tuple[int, int, int, int]]`` of producer id, first offset, marker's offset, last stable offset."""
        return aborted_list(self.history.aborted, self.history.aborted_count)


cdef list aborted_list(const ls_aborted_transaction *items, size_t count):
    cdef size_t i
    return [(items[i].producer_id, items[i].first_offset, items[i].last_offset, items[i].last_stable_offset)
            for i in range(count)]


@cython.final
cdef class Compactor:
    """The two passes of one round. One thread at a time.

    Parameters
    ----------
    offset_map : KeyOffsetMap or None
        None where a key is erased.
    first_dirty_offset, first_uncleanable_offset : int
        The first pass takes in records of ``[first dirty, first uncleanable)``; what lies behind stays as it is.
    now_ms, delete_retention_ms : int
    erased_key : bytes, optional
        Not compaction: records with this key go, all else stays.
    history : callable, optional
        Gives a finished `TransactionHistory` once a producer's batch asks for one, ``history(False)``; a partial one will do
        until ``history(True)`` is called.
    """

    cdef ls_compactor *compactor
    cdef KeyOffsetMap offset_map
    cdef bytes erased_key
    cdef object make_history
    cdef TransactionHistory history

    def __cinit__(self, KeyOffsetMap offset_map, *, int64_t first_dirty_offset=0, int64_t first_uncleanable_offset=0,
                  int64_t now_ms=0, int64_t delete_retention_ms=0, bytes erased_key=None, history=None):
        cdef ls_compaction_rules rules
        cdef ls_fault fault
        memset(&rules, 0, sizeof(rules))
        rules.first_dirty_offset = first_dirty_offset
        rules.first_uncleanable_offset = first_uncleanable_offset
        rules.now_ms = now_ms
        rules.delete_retention_ms = delete_retention_ms
        if erased_key is not None:
            self.erased_key = erased_key
            rules.erased_key = <const uint8_t *>PyBytes_AS_STRING(erased_key)
            rules.erased_key_bytes = PyBytes_GET_SIZE(erased_key)
        elif offset_map is None:
            raise ValueError("compaction needs a map of keys")
        self.offset_map = offset_map
        self.make_history = history
        if ls_compactor_create(&rules, offset_map.map if offset_map is not None else NULL, &self.compactor,
                               &fault) != LS_OK:
            raise_fault(&fault, "<memory>")

    def __dealloc__(self):
        ls_compactor_free(self.compactor)

    cdef int take_history(self) except -1:
        cdef TransactionHistory history = self.make_history(self.history is not None)
        ls_compactor_set_history(self.compactor, &history.history)
        self.history = history
        return 0

    @property
    def counts(self):
        """What happened so far, as a dict."""
        cdef ls_compaction_counts counts = ls_compactor_counts(self.compactor)[0]
        return dict(counts)

    @property
    def memory_bytes(self):
        """Besides the map's, what grows with the log."""
        return ls_compactor_memory_bytes(self.compactor)

    @property
    def mapped_end_offset(self):
        """The map covers records below it."""
        return ls_compactor_mapped_end_offset(self.compactor)

    def map_segment(self, str path, int64_t size_bytes, int64_t base_offset, int64_t end_offset, pause=None):
        """First pass over a segment; ``pause(bytes_read, 0)`` is called after each read, and ends it by raising.

        Returns
        -------
        bool
            False: the map is full, and `mapped_end_offset` says where.

        Raises
        ------
        CorruptDataError, UnsupportedFormatError, StorageFailureError
        """
        cdef BatchFile file = BatchFile(path, size_bytes)
        cdef ls_compaction_step step
        cdef ls_fault fault
        cdef ls_status status
        cdef size_t consumed = 0
        cdef size_t wanted = 0
        cdef int64_t got
        cdef RecordBatch batch
        ls_compactor_start_segment(self.compactor, base_offset, end_offset)
        while (got := file.more(wanted)) > 0:
            while True:
                with nogil:
                    status = ls_compaction_map(self.compactor, file.buffer + file.start, file.buffer + file.end,
                                               file.position, &step, &consumed, &wanted, &fault)
                if status != LS_OK:
                    raise_fault(&fault, path)
                file.consume(consumed)
                if step == LS_COMPACTION_HISTORY:
                    self.take_history()
                    continue
                if step == LS_COMPACTION_PAYLOAD:
                    batch = batch_at(file)
                    batch.open_payload()
                    with nogil:
                        status = ls_compaction_map_payload(self.compactor, batch.payload, batch.payload_end, &step,
                                                           &fault)
                    if status != LS_OK:
                        raise_fault(&fault, path)
                    if step != LS_COMPACTION_FULL:
                        file.consume(<size_t>ls_batch_size_bytes(&batch.header))
                        continue
                break
            if step == LS_COMPACTION_FULL:
                file.close()
                return False
            if pause is not None:
                pause(got, 0)
        file.close()
        ls_compactor_map_ended(self.compactor, end_offset)
        return True

    def start_rewriting(self):
        """The first pass is over; segments come again, from the log's first on."""
        ls_compactor_start_pass(self.compactor)

    def keep_last_batch(self, Segment output not None, next_output=None):
        """The last batch read stays, as a header if nothing else is left of it.

        Returns
        -------
        Segment
            The last output.
        """
        cdef ls_fault fault
        if ls_compactor_keep_last(self.compactor, &fault) != LS_OK:
            raise_fault(&fault, output.path)
        return self.take_output(output, next_output, None)

    def rewrite_segment(self, str path, int64_t size_bytes, int64_t base_offset, int64_t end_offset, Segment output,
                        next_output=None, pause=None):
        """Second pass over a segment: what stays goes to the end of the output.

        Parameters
        ----------
        path, size_bytes, base_offset, end_offset
            The source.
        output : Segment or None
            Fresh, written by nobody else; None only counts.
        next_output : callable, optional
            Gives the segment to go on with where one is full, from the base offset of its first batch.
        pause : callable, optional
            Called with the bytes of each read or write: ``pause(bytes_read, bytes_written)``; ends the pass by raising.

        Returns
        -------
        Segment or None
            The last output.

        Raises
        ------
        CorruptDataError, UnsupportedFormatError, StorageFailureError
        """
        cdef BatchFile file = BatchFile(path, size_bytes)
        cdef ls_compaction_step step
        cdef ls_fault fault
        cdef ls_status status
        cdef size_t consumed = 0
        cdef size_t wanted = 0
        cdef int64_t got
        cdef RecordBatch batch
        ls_compactor_start_segment(self.compactor, base_offset, end_offset)
        while (got := file.more(wanted)) > 0:
            while True:
                with nogil:
                    status = ls_compaction_rewrite(self.compactor, file.buffer + file.start, file.buffer + file.end,
                                                   file.position, &step, &consumed, &wanted, &fault)
                if status != LS_OK:
                    raise_fault(&fault, path)
                file.consume(consumed)
                if step == LS_COMPACTION_HISTORY:
                    self.take_history()
                elif step == LS_COMPACTION_PAYLOAD:
                    batch = batch_at(file)
                    self.rewrite_compressed(batch, path)
                    file.consume(<size_t>ls_batch_size_bytes(&batch.header))
                elif wanted > 0 or file.start == file.end:
                    break
                else:  # output has gathered
                    output = self.take_output(output, next_output, pause)
            if pause is not None:
                pause(got, 0)
        file.close()
        return self.take_output(output, next_output, pause)

    cdef int rewrite_compressed(self, RecordBatch batch, str path) except -1:
        cdef ls_compaction_step step
        cdef ls_batch_header header
        cdef ls_fault fault
        cdef ls_status status
        cdef size_t size = 0
        cdef const uint8_t *pending
        cdef bytes compressed
        batch.open_payload()
        with nogil:
            status = ls_compaction_rewrite_payload(self.compactor, batch.data, batch.payload, batch.payload_end, &step,
                                                   &fault)
        if status != LS_OK:
            raise_fault(&fault, path)
        if step == LS_COMPACTION_COMPRESS:
            pending = ls_compactor_pending(self.compactor, &header, &size)
            compressed = compressed_batch(&header, pending, size, ls_batch_codec(&header), None)
            if ls_compaction_rewrite_compressed(self.compactor, <const uint8_t *>PyBytes_AS_STRING(compressed),
                                                PyBytes_GET_SIZE(compressed), &fault) != LS_OK:
                raise_fault(&fault, path)
        return 0

    cdef Segment take_output(self, Segment output, object next_output, object pause):
        """Appends what has gathered to the output, and to others where it is full."""
        cdef size_t size = 0
        cdef const uint8_t *at = ls_compactor_output(self.compactor, &size)
        cdef const uint8_t *end = at + size
        cdef size_t appended
        cdef ls_batch_header header
        cdef ls_fault fault
        cdef ls_status status = LS_OK
        while output is not None and at < end:
            appended = 0
            with nogil:
                status = ls_segment_append_batches(output.segment, at, end - at, &appended, &fault)
            if status != LS_OK and status != LS_FULL:
                raise_fault(&fault, output.path)
            at += appended
            if status == LS_FULL:
                if next_output is None or output.size_bytes == 0:
                    raise_fault(&fault, output.path)
                if ls_batch_header_peek(at, end, 0, &header, &fault) != LS_OK:
                    raise_fault(&fault, output.path)
                output = next_output(header.base_offset)
        ls_compactor_clear_output(self.compactor)
        if pause is not None and size:
            pause(0, size)
        return output

    def take_aborted(self):
        """Entries for the transaction index of what was written since the last call; as `TransactionHistory.aborted`."""
        cdef size_t count = 0
        cdef const ls_aborted_transaction *items = ls_compactor_aborted(self.compactor, &count)
        found = aborted_list(items, count)
        ls_compactor_clear_aborted(self.compactor)
        return found


cdef RecordBatch batch_at(BatchFile file):
    """The validated batch that the file stands at; only until it reads on."""
    cdef ls_batch_header header
    cdef ls_fault fault
    if ls_batch_header_peek(file.buffer + file.start, file.buffer + file.end, file.position, &header, &fault) != LS_OK:
        raise_fault(&fault, file.path)
    return RecordBatch.wrap(file, file.buffer + file.start, &header, "", 0, file.path, file.position)
