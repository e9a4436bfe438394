"""Compaction's loops over batches: files are read in chunks, mapped and rewritten without the GIL."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport free, realloc
from libc.string cimport memmove, memset
from logstore._native.batch_codecs cimport compressed_batch
from logstore._native.core cimport (
    LS_COMPACTION_COMPRESS,
    LS_COMPACTION_FULL,
    LS_COMPACTION_HISTORY,
    LS_COMPACTION_MORE,
    LS_COMPACTION_OUTPUT,
    LS_COMPACTION_PAYLOAD,
    LS_CORRUPT,
    LS_END,
    LS_FILE_READ,
    LS_FULL,
    LS_KEY_SECRET_BYTES,
    LS_NO_MEMORY,
    LS_OFFSET_INDEX_ENTRY_BYTES,
    LS_OK,
    LS_TORN,
    ls_aborted_transaction,
    ls_batch_codec,
    ls_batch_header,
    ls_batch_header_peek,
    ls_batch_size_bytes,
    ls_batch_validate,
    ls_compaction_ahead,
    ls_compaction_ahead_create,
    ls_compaction_ahead_free,
    ls_compaction_ahead_start,
    ls_compaction_ahead_stop,
    ls_compaction_counts,
    ls_compaction_go_ahead,
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
    ls_segment,
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
from logstore._native.record_batch cimport RecordBatch
from logstore._native.segment cimport Segment

import os

# Read at once, and still in the second-level cache; the largest batch makes it grow.
cdef size_t CHUNK_BYTES = 1 << 20


@cython.final
cdef class KeyOffsetMap:
    """The last offset of each key, by a keyed 128-bit hash. One thread at a time.

    Parameters
    ----------
    memory_bytes : int
        What it may grow to: 25 to 30 bytes a key.
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
    cdef size_t wanted      # bytes from start on that a batch needs, as far as that is known
    cdef int64_t position   # of buffer[start] in the file
    cdef int64_t size_bytes
    cdef int64_t resume     # read up to there; a batch may start there, that two threads go on from

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
        self.size_bytes = self.resume = size_bytes

    def __dealloc__(self):
        if self.file != NULL:
            ls_file_close(self.file)
        free(self.buffer)

    cdef int close(self) except -1:
        if self.file != NULL:
            with nogil:
                ls_file_close(self.file)
            self.file = NULL
        return 0

    cdef void consume(self, size_t size) noexcept nogil:
        self.start += size
        self.position += <int64_t>size

    cdef ls_status read_on(self, size_t *got, ls_fault *fault) noexcept nogil:
        """Reads on behind what is left, so that a batch of `wanted` bytes fits. LS_END: nothing is left."""
        cdef size_t left = self.end - self.start
        cdef int64_t unread = self.resume - (self.position + <int64_t>left)
        cdef size_t capacity = max(CHUNK_BYTES, self.wanted)
        cdef ls_status status
        cdef uint8_t *grown
        got[0] = 0
        if unread <= 0 and left > 0:
            self.resume = self.size_bytes  # no batch starts there
            unread = self.resume - (self.position + <int64_t>left)
        if unread > 0:
            if <int64_t>self.wanted > unread + <int64_t>left:
                capacity = CHUNK_BYTES  # a length that leads past the end: no reason to allocate it
            if left > 0 and self.start > 0:
                memmove(self.buffer, self.buffer + self.start, left)
            self.start = 0
            self.end = left
            if capacity > self.capacity:
                grown = <uint8_t *>realloc(self.buffer, capacity)
                if grown == NULL:
                    return fail(fault, LS_NO_MEMORY, b"batch", self.position, <int64_t>capacity, 0)
                self.buffer = grown
                self.capacity = capacity
            status = ls_file_read(self.file, self.position + <int64_t>left, self.buffer + left,
                                  <size_t>min(<int64_t>(self.capacity - left), unread), got, fault)
            self.end += got[0]
            if status != LS_OK or got[0] > 0:
                return status
            self.size_bytes = self.resume = self.position + <int64_t>left  # cut meanwhile
        if left == 0:
            return LS_END
        return fail(fault, LS_CORRUPT, b"batch is cut off", self.position, <int64_t>self.wanted, <int64_t>left)


cdef ls_status fail(ls_fault *fault, ls_status status, const char *reason, int64_t position, int64_t expected,
                    int64_t actual) noexcept nogil:
    fault.status = status
    fault.os_errno = 0
    fault.reason = reason
    fault.position = position
    fault.expected = expected
    fault.actual = actual
    return status


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
        cdef ls_status status
        cdef size_t got = 0
        while True:
            with nogil:
                status = file.read_on(&got, &fault)
                while status == LS_OK:
                    status = ls_batch_validate(file.buffer + file.start, file.buffer + file.end, file.position,
                                               &header, &fault)
                    if status == LS_OK:
                        status = ls_transaction_history_add(&self.history, file.buffer + file.start, &header, &fault)
                    if status == LS_OK:
                        file.consume(<size_t>ls_batch_size_bytes(&header))
            if status != LS_END and status != LS_TORN:
                raise_fault(&fault, path)
            if got == 0:
                break
            file.wanted = <size_t>fault.expected if status == LS_TORN else 0
            if pause is not None:
                pause(<int64_t>got, 0)
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
    stretch_bytes : int
        Read and worked on at a time without the GIL, between two calls of ``pause``.
    history : callable, optional
        Gives a finished `TransactionHistory` once a producer's batch asks for one, ``history(False)``; a partial one will do
        until ``history(True)`` is called.
    threads : int
        Above 1: a second thread works ahead of the calling one, where there is a processor for it.
    """

    cdef ls_compactor *compactor
    cdef ls_compaction_ahead *ahead     # NULL: without
    cdef KeyOffsetMap offset_map
    cdef bytes erased_key
    cdef bytes index                    # of the file at hand, for the second thread
    cdef object make_history
    cdef TransactionHistory history
    cdef size_t stretch_bytes
    cdef size_t appended        # bytes of the gathered output that have their place already
    cdef bint refused           # the output did not take them
    cdef int64_t bytes_read     # since the last pause
    cdef int64_t bytes_written

    def __cinit__(self, KeyOffsetMap offset_map, *, int64_t first_dirty_offset=0, int64_t first_uncleanable_offset=0,
                  int64_t now_ms=0, int64_t delete_retention_ms=0, bytes erased_key=None, size_t stretch_bytes=8 << 20,
                  history=None, int threads=1):
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
        self.stretch_bytes = stretch_bytes
        self.make_history = history
        if ls_compactor_create(&rules, offset_map.map if offset_map is not None else NULL, &self.compactor,
                               &fault) != LS_OK:
            raise_fault(&fault, "<memory>")
        if threads > 1:
            self.ahead = ls_compaction_ahead_create(self.compactor)

    def __dealloc__(self):
        ls_compaction_ahead_free(self.ahead)
        ls_compactor_free(self.compactor)

    cdef int start_ahead(self, BatchFile file, bint rewrites) except -1:
        """Has the second thread, if there is one, begin with a file; until `stop_ahead`."""
        cdef bytes index
        if self.ahead == NULL:
            return 0
        try:
            with open(os.fspath(file.path).removesuffix(".log") + ".index", "rb") as index_file:
                index = index_file.read()
        except OSError:
            index = b""  # it only says where batches start
        self.index = index
        file.resume = 0
        ls_compaction_ahead_start(self.ahead, file.file, <const uint8_t *>PyBytes_AS_STRING(index),
                                  <size_t>PyBytes_GET_SIZE(index) // LS_OFFSET_INDEX_ENTRY_BYTES, rewrites)
        return 0

    cdef int stop_ahead(self) except -1:
        if self.ahead != NULL:
            with nogil:
                ls_compaction_ahead_stop(self.ahead)
            self.index = None
        return 0

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
        """First pass over a segment; ``pause(bytes_read, 0)`` is called now and then, and ends it by raising.

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
        cdef RecordBatch batch
        ls_compactor_start_segment(self.compactor, base_offset, end_offset)
        self.start_ahead(file, False)
        try:
            while self.work(file, None, False, &step, pause):
                if step == LS_COMPACTION_PAYLOAD:
                    batch = batch_at(file)
                    batch.open_payload()
                    with nogil:
                        status = ls_compaction_map_payload(self.compactor, batch.payload, batch.payload_end, &step, &fault)
                    if status != LS_OK:
                        raise_fault(&fault, path)
                    if step != LS_COMPACTION_FULL:
                        file.consume(<size_t>ls_batch_size_bytes(&batch.header))
                if step == LS_COMPACTION_FULL:
                    return False
        finally:
            self.stop_ahead()
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
        return self.take_output(output, next_output)

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
            Called now and then with what was read and written since: ``pause(bytes_read, bytes_written)``; ends the pass by
            raising.

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
        cdef RecordBatch batch
        ls_compactor_start_segment(self.compactor, base_offset, end_offset)
        self.start_ahead(file, True)
        try:
            while self.work(file, output, True, &step, pause):
                if step == LS_COMPACTION_PAYLOAD:
                    batch = batch_at(file)
                    self.rewrite_compressed(batch, path)
                    file.consume(<size_t>ls_batch_size_bytes(&batch.header))
                elif step == LS_COMPACTION_OUTPUT:
                    output = self.take_output(output, next_output)
        finally:
            self.stop_ahead()
            file.close()
        output = self.take_output(output, next_output)
        self.rest(pause)
        return output

    cdef bint work(self, BatchFile file, Segment output, bint rewrites, ls_compaction_step *step, object pause) except -1:
        """Goes on in a file until `step` asks for something. False: its end is reached."""
        cdef ls_segment *target = NULL if output is None else output.segment
        cdef ls_fault fault
        cdef ls_status status
        while True:
            with nogil:
                status = self.work_on(file, target, rewrites, step, &fault)
            if status != LS_OK and status != LS_END:
                raise_fault(&fault, output.path if self.refused else file.path)
            if status == LS_END or step[0] == LS_COMPACTION_MORE:
                self.rest(pause)
            if status == LS_END:
                return False
            if step[0] == LS_COMPACTION_HISTORY:
                self.take_history()
            elif step[0] != LS_COMPACTION_MORE:
                return True

    cdef int rest(self, object pause) except -1:
        cdef int64_t bytes_read = self.bytes_read
        cdef int64_t bytes_written = self.bytes_written
        self.bytes_read = self.bytes_written = 0
        if pause is not None and (bytes_read or bytes_written):
            pause(bytes_read, bytes_written)
        return 0

    cdef ls_status work_on(self, BatchFile file, ls_segment *output, bint rewrites, ls_compaction_step *step,
                           ls_fault *fault) noexcept nogil:
        """The same, until a pause is due; what has gathered goes to the output, unless that is full."""
        cdef ls_status status
        cdef size_t consumed = 0
        cdef size_t got = 0
        cdef int64_t reached = 0
        while True:
            step[0] = LS_COMPACTION_MORE
            got = 0
            if self.can_go_ahead(file):
                status = ls_compaction_go_ahead(self.ahead, file.position, file.size_bytes, step, &reached, &file.resume,
                                                fault)
                got = <size_t>(reached - file.position)
                file.position = reached
            elif file.buffer == NULL:
                status = LS_OK
            elif rewrites:
                status = ls_compaction_rewrite(self.compactor, file.buffer + file.start, file.buffer + file.end,
                                               file.position, step, &consumed, &file.wanted, fault)
            else:
                status = ls_compaction_map(self.compactor, file.buffer + file.start, file.buffer + file.end, file.position,
                                           step, &consumed, &file.wanted, fault)
            if status != LS_OK:
                return status
            self.bytes_read += <int64_t>got
            file.consume(consumed)
            consumed = 0
            if step[0] == LS_COMPACTION_OUTPUT:
                status = self.append_output(output, fault)
                if status != LS_OK:
                    return LS_OK if status == LS_FULL else status
            elif step[0] != LS_COMPACTION_MORE or self.bytes_read >= <int64_t>self.stretch_bytes:
                return LS_OK
            elif not self.can_go_ahead(file):
                status = file.read_on(&got, fault)
                if status != LS_OK:
                    return status
                self.bytes_read += <int64_t>got

    cdef bint can_go_ahead(self, BatchFile file) noexcept nogil:
        return self.ahead != NULL and file.start == file.end and file.resume <= file.position < file.size_bytes

    cdef ls_status append_output(self, ls_segment *output, ls_fault *fault) noexcept nogil:
        """LS_FULL: the rest is for `take_output`."""
        cdef size_t size = 0
        cdef const uint8_t *at = ls_compactor_output(self.compactor, &size)
        cdef ls_status status = LS_OK
        if output != NULL:
            status = ls_segment_append_batches(output, at, size, &self.appended, fault)
            self.refused = status != LS_OK and status != LS_FULL
        if status == LS_OK:
            self.output_is_taken(size)
        return status

    cdef void output_is_taken(self, size_t size) noexcept nogil:
        self.appended = 0
        self.bytes_written += <int64_t>size
        ls_compactor_clear_output(self.compactor)

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

    cdef Segment take_output(self, Segment output, object next_output):
        """Appends what has gathered to the output, and to others where it is full."""
        cdef size_t size = 0
        cdef const uint8_t *at = ls_compactor_output(self.compactor, &size)
        cdef const uint8_t *end = at + size
        cdef size_t appended
        cdef ls_batch_header header
        cdef ls_fault fault
        cdef ls_status status = LS_OK
        at += self.appended
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
        self.output_is_taken(size)
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
