"""Many records at once as columns over one buffer, without a Python object per record."""

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.list cimport PyList_New, PyList_SET_ITEM
from cpython.ref cimport Py_INCREF
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy
from logstore._native.aborted_transactions cimport AbortedRange, is_aborted
from logstore._native.core cimport (
    LS_ATTRIBUTE_CONTROL,
    LS_BATCH_HEADER_BYTES,
    LS_CODEC_NONE,
    LS_NO_MEMORY,
    LS_OK,
    LS_TORN,
    ls_batch_codec,
    ls_batch_header,
    ls_batch_last_offset,
    ls_batch_size_bytes,
    ls_batch_validate,
    ls_columns,
    ls_columns_append,
    ls_fault,
    ls_record,
    ls_record_header,
    ls_record_header_next,
    ls_record_iterator,
    ls_record_iterator_init,
    ls_record_iterator_next,
    ls_status,
)
from logstore._native.faults cimport raise_fault
from logstore._native.log_cursor cimport BatchPlace, LogCursor, check_place
from logstore._native.log_state cimport LogState
from logstore._native.record_batch cimport RecordBatch, raise_in_batch

from logstore.errors import CorruptDataError

# Two chunks and their columns take turns; together they fit a second-level cache of 1 MiB.
cdef Py_ssize_t COLUMN_CHUNK_BYTES = 192 * 1024
cdef size_t FIRST_CAPACITY = 1024
# Two columns of 64 bits, six of 32.
cdef size_t ROW_BYTES = 2 * 8 + 6 * 4
# Length, attributes, two deltas, key length, value length, headers count: a byte each.
cdef int LEAST_RECORD_BYTES = 7


cdef extern from *:
    """
    #define LS_REFERENCE_COUNT(object) Py_REFCNT((PyObject *)(object))
    """
    Py_ssize_t LS_REFERENCE_COUNT(object)


cdef bint grow(ColumnMemory memory, size_t rows) noexcept nogil:
    """Room for `rows` more; False without memory."""
    cdef ls_columns *old = &memory.columns
    cdef ls_columns grown
    cdef size_t capacity = old.capacity * 2
    cdef size_t count = old.count
    cdef uint8_t *data
    if capacity < FIRST_CAPACITY:
        capacity = FIRST_CAPACITY
    if capacity < count + rows:
        capacity = count + rows
    # No column a multiple of 4096 bytes from the next: written side by side, they would share the cache's sets.
    capacity = (capacity | 1023) + 145
    data = <uint8_t *>malloc(capacity * ROW_BYTES)
    if data == NULL:
        return False
    grown.capacity = capacity
    grown.count = count
    grown.offsets = <int64_t *>data
    grown.timestamps = grown.offsets + capacity
    grown.key_starts = <int32_t *>(grown.timestamps + capacity)
    grown.key_bytes = grown.key_starts + capacity
    grown.value_starts = grown.key_bytes + capacity
    grown.value_bytes = grown.value_starts + capacity
    grown.headers_starts = grown.value_bytes + capacity
    grown.headers_counts = grown.headers_starts + capacity
    if count > 0:
        memcpy(grown.offsets, old.offsets, count * 8)
        memcpy(grown.timestamps, old.timestamps, count * 8)
        memcpy(grown.key_starts, old.key_starts, count * 4)
        memcpy(grown.key_bytes, old.key_bytes, count * 4)
        memcpy(grown.value_starts, old.value_starts, count * 4)
        memcpy(grown.value_bytes, old.value_bytes, count * 4)
        memcpy(grown.headers_starts, old.headers_starts, count * 4)
        memcpy(grown.headers_counts, old.headers_counts, count * 4)
    free(memory.data)
    memory.data = data
    memory.columns = grown
    return True


cdef ls_status append_batch(ColumnMemory memory, const ls_batch_header *header, const uint8_t *payload,
                            const uint8_t *payload_end, const uint8_t *origin, ls_fault *fault) noexcept nogil:
    """The records of one batch behind those in the columns, which grow as its records need: no more than its bytes
    can hold, whatever it claims."""
    cdef ls_record_iterator iterator
    cdef ls_record record
    cdef ls_status status
    cdef size_t room = memory.columns.capacity - memory.columns.count
    if header.records_count > 0 and <size_t>header.records_count > room:
        if header.records_count > (payload_end - payload) // LEAST_RECORD_BYTES:
            ls_record_iterator_init(&iterator, header, payload, payload_end)
            while True:
                status = ls_record_iterator_next(&iterator, &record, fault)
                if status != LS_OK:
                    return status
        if not grow(memory, header.records_count):
            fault.status = LS_NO_MEMORY
            fault.reason = "no memory for the columns of a batch"
            fault.position = -1
            return LS_NO_MEMORY
    return ls_columns_append(&memory.columns, header, payload, payload_end, origin, fault)


cdef size_t lower_bound(const int64_t *offsets, size_t count, int64_t target) noexcept nogil:
    cdef size_t low = 0
    cdef size_t middle
    while low < count:
        middle = (low + count) // 2
        if offsets[middle] < target:
            low = middle + 1
        else:
            count = middle
    return low


# Why a walk stopped.
cdef enum Stop:
    STOP_CHUNK_END
    STOP_LIMIT              # the next batch starts at or behind it
    STOP_COMPRESSED         # the next batch is sound, and has to be decompressed
    STOP_TORN               # the next batch goes on behind the chunk, or is cut off
    STOP_FAULT
    STOP_FAULT_IN_RECORDS   # its position counts from the start of the batch


cdef struct Walk:
    const uint8_t *origin
    const uint8_t *at
    const uint8_t *end
    int64_t position                    # of `at` in the file
    int64_t start_offset                # batches that end below it are passed over
    int64_t limit                       # exclusive
    BatchPlace place
    const AbortedRange *aborted         # batches of these are passed over
    size_t aborted_count
    ls_batch_header header              # of the batch the walk stopped at
    ls_fault fault


cdef Stop walk_chunk(Walk *walk, ColumnMemory memory) noexcept nogil:
    """Validates batch after batch and appends their records; leaves `at` behind the last one it took."""
    cdef ls_status status
    cdef Py_ssize_t size_bytes
    while walk.at < walk.end:
        status = ls_batch_validate(walk.at, walk.end, walk.position, &walk.header, &walk.fault)
        if status == LS_OK:
            status = check_place(&walk.place, &walk.header, walk.position, &walk.fault)
        if status != LS_OK:
            return STOP_TORN if status == LS_TORN else STOP_FAULT
        if walk.header.base_offset >= walk.limit:
            return STOP_LIMIT
        size_bytes = <Py_ssize_t>ls_batch_size_bytes(&walk.header)
        if (ls_batch_last_offset(&walk.header) >= walk.start_offset
                and not walk.header.attributes & LS_ATTRIBUTE_CONTROL
                and not (walk.aborted_count and is_aborted(walk.aborted, walk.aborted_count, &walk.header))):
            if ls_batch_codec(&walk.header) != LS_CODEC_NONE and walk.header.records_count > 0:
                return STOP_COMPRESSED
            status = append_batch(memory, &walk.header, walk.at + LS_BATCH_HEADER_BYTES, walk.at + size_bytes,
                                  walk.origin, &walk.fault)
            if status != LS_OK:
                return STOP_FAULT_IN_RECORDS
        walk.place.least_base_offset = ls_batch_last_offset(&walk.header) + 1
        walk.at += size_bytes
        walk.position += size_bytes
    return STOP_CHUNK_END


@cython.final
cdef class ColumnMemory:
    """Columns as plain memory; arrays keep it alive. Read-only to Python."""

    def __dealloc__(self):
        free(self.data)

    def __getbuffer__(self, Py_buffer *view, int flags):
        PyBuffer_FillInfo(view, self, self.data, <Py_ssize_t>(self.columns.capacity * ROW_BYTES), 1, flags)


@cython.final
cdef class ColumnBatch:
    """Records of one partition, in order of offset, as columns over one buffer.

    Array attributes are read-only numpy arrays that copy nothing; they stay valid after the batch, the scan and the
    log are gone. Immutable and thread-safe.

    Attributes
    ----------
    topic : str
    partition : int
    path : str
        File the records came from.
    """

    def __init__(self):
        raise TypeError("column batches come from scanning a topic")

    def __len__(self):
        return self.count

    def __repr__(self):
        return (f"ColumnBatch(topic={self.topic!r}, partition={self.partition}, "
                f"first_offset={self.memory.columns.offsets[self.first]}, "
                f"last_offset={self.memory.columns.offsets[self.first + self.count - 1]}, records={self.count})")

    cdef object column(self, str name, const void *start, str dtype):
        array = self.arrays.get(name)
        if array is None:
            import numpy
            array = numpy.frombuffer(self.memory, dtype, self.count, <const uint8_t *>start - self.memory.data)
            self.arrays[name] = array
        return array

    @property
    def offsets(self):
        """Offsets, as int64."""
        return self.column("offsets", self.memory.columns.offsets + self.first, "i8")

    @property
    def timestamps(self):
        """Milliseconds since the epoch, UTC, as int64; -1 for none."""
        return self.column("timestamps", self.memory.columns.timestamps + self.first, "i8")

    @property
    def key_starts(self):
        """Where in `buffer` each key starts, as int32; without meaning for a null key."""
        return self.column("key_starts", self.memory.columns.key_starts + self.first, "i4")

    @property
    def key_bytes(self):
        """Size of each key in bytes, as int32; -1 for null."""
        return self.column("key_bytes", self.memory.columns.key_bytes + self.first, "i4")

    @property
    def value_starts(self):
        """Where in `buffer` each value starts, as int32; without meaning for a null value."""
        return self.column("value_starts", self.memory.columns.value_starts + self.first, "i4")

    @property
    def value_bytes(self):
        """Size of each value in bytes, as int32; -1 for null."""
        return self.column("value_bytes", self.memory.columns.value_bytes + self.first, "i4")

    @property
    def headers_starts(self):
        """Where in `buffer` the encoded headers of each record start, as int32."""
        return self.column("headers_starts", self.memory.columns.headers_starts + self.first, "i4")

    @property
    def headers_counts(self):
        """How many headers each record has, as int32."""
        return self.column("headers_counts", self.memory.columns.headers_counts + self.first, "i4")

    @property
    def buffer(self):
        """The bytes that all starts point into, as uint8: batches as read from the log, or one decompressed."""
        array = self.arrays.get("buffer")
        if array is None:
            import numpy
            array = numpy.frombuffer(self.owner, "u1")
            self.arrays["buffer"] = array
        return array

    cdef Py_ssize_t index_of(self, object i) except -1:
        cdef Py_ssize_t index = i
        if index < 0:
            index += self.count
        if index < 0 or index >= self.count:
            raise IndexError(f"record {i} of {self.count}")
        return self.first + index

    def key(self, i):
        """Key of record ``i``, as bytes or None."""
        cdef Py_ssize_t at = self.index_of(i)
        return bytes_or_none(self.origin, self.memory.columns.key_starts[at], self.memory.columns.key_bytes[at])

    def value(self, i):
        """Value of record ``i``, as bytes or None."""
        cdef Py_ssize_t at = self.index_of(i)
        return bytes_or_none(self.origin, self.memory.columns.value_starts[at], self.memory.columns.value_bytes[at])

    def headers(self, i):
        """Headers of record ``i`` in order, as ``list[tuple[str, bytes | None]]``."""
        cdef Py_ssize_t index = self.index_of(i)
        cdef const uint8_t *at = self.origin + self.memory.columns.headers_starts[index]
        cdef ls_record_header header
        cdef ls_fault fault
        cdef list headers = []
        cdef int32_t _
        for _ in range(self.memory.columns.headers_counts[index]):
            if ls_record_header_next(&at, self.origin_end, &header, &fault) != LS_OK:
                raise_fault(&fault, self.path)
            headers.append((
                header.key[:header.key_bytes].decode("utf-8", "surrogateescape"),
                None if header.value_bytes < 0
                else PyBytes_FromStringAndSize(<const char *>header.value, header.value_bytes),
            ))
        return headers

    def keys(self):
        """All keys, as ``list[bytes | None]``."""
        return bytes_list(self.origin, self.memory.columns.key_starts + self.first,
                          self.memory.columns.key_bytes + self.first, self.count)

    def values(self):
        """All values, as ``list[bytes | None]``."""
        return bytes_list(self.origin, self.memory.columns.value_starts + self.first,
                          self.memory.columns.value_bytes + self.first, self.count)


cdef object bytes_or_none(const uint8_t *origin, int32_t start, int32_t size_bytes):
    if size_bytes < 0:
        return None
    return PyBytes_FromStringAndSize(<const char *>origin + start, size_bytes)


cdef list bytes_list(const uint8_t *origin, const int32_t *starts, const int32_t *sizes, Py_ssize_t count):
    cdef list items = PyList_New(count)
    cdef Py_ssize_t i
    cdef object item
    for i in range(count):
        item = bytes_or_none(origin, starts[i], sizes[i])
        Py_INCREF(item)
        PyList_SET_ITEM(items, i, item)
    return items


cdef void pass_batches(LogCursor cursor, const Walk *walk):
    """Has the cursor stand where the walk does."""
    cursor.at = walk.at - walk.origin
    cursor.least_base_offset = walk.place.least_base_offset
    if cursor.next_offset < walk.place.least_base_offset:
        cursor.next_offset = walk.place.least_base_offset


@cython.final
cdef class ColumnCursor:
    """Hands out the records of a log as `ColumnBatch`, every CRC verified. One thread at a time.

    Records of one read share a batch; those of a compressed batch have one of their own. Control batches are left
    out.

    Parameters
    ----------
    log : LogState
    start_offset, stop_offset : int
        ``[start_offset, stop_offset)``, exact to the record; ``stop_offset`` None for as far as the log goes.
    chunk_bytes : int, optional
        Largest read, unless one batch is larger.
    committed : bool
        Stops at the last stable offset and leaves records of aborted transactions out.
    """

    def __init__(self, LogState log not None, int64_t start_offset, stop_offset=None, Py_ssize_t chunk_bytes=0,
                 bint committed=False):
        self.log = log
        self.cursor = LogCursor(log, start_offset, stop_offset,
                                chunk_bytes if chunk_bytes > 0 else COLUMN_CHUNK_BYTES, committed)

    def __iter__(self):
        return self

    def __next__(self):
        cdef ColumnBatch batch = self.fetch_columns()
        if batch is None:
            raise StopIteration
        return batch

    @property
    def next_offset(self):
        """Offset of the next record wanted."""
        return self.cursor.next_offset

    def next_columns(self):
        """The next columns, or None at the log end offset or ``stop_offset``; call again once there is more.

        Raises
        ------
        As `LogCursor.next_batch`.
        """
        return self.fetch_columns()

    cdef ColumnMemory fresh_memory(self):
        """Empty columns: earlier ones where nothing refers to them any more."""
        cdef ColumnMemory memory = self.memory
        if memory is None or LS_REFERENCE_COUNT(memory) > 2:  # this attribute and `memory`
            memory = self.spare_memory
            self.spare_memory = self.memory
            if memory is None or LS_REFERENCE_COUNT(memory) > 1:
                memory = ColumnMemory.__new__(ColumnMemory)
            self.memory = memory
        memory.columns.count = 0
        return memory

    cdef ColumnBatch fetch_columns(self):
        cdef LogCursor cursor = self.cursor
        cdef ColumnMemory memory
        cdef ColumnBatch batch
        cdef RecordBatch compressed
        cdef Walk walk
        cdef Stop stop
        cdef size_t first, count
        cdef int64_t start_offset
        while cursor.reach():
            memory = self.fresh_memory()
            start_offset = cursor.next_offset
            walk.origin = cursor.chunk.data
            walk.at = walk.origin + cursor.at
            walk.end = walk.origin + cursor.chunk.size
            walk.position = cursor.chunk_position + cursor.at
            walk.start_offset = start_offset
            walk.limit = min(cursor.stop_offset, cursor.end_offset)
            walk.place = cursor.next_place()
            walk.aborted_count = 0
            if cursor.committed:
                walk.limit = min(walk.limit, cursor.aborted_until)
                if cursor.aborted is not None:
                    walk.aborted = cursor.aborted.ranges
                    walk.aborted_count = cursor.aborted.count
            while True:
                with nogil:
                    stop = walk_chunk(&walk, memory)
                if walk.at > walk.origin + cursor.at:
                    pass_batches(cursor, &walk)
                # The last batch of the chunk goes into the same columns, if the rest of it fits behind the chunk.
                if stop != STOP_TORN or not cursor.reach_whole(&walk.fault, True):
                    break
                walk.end = walk.origin + cursor.chunk.size
            compressed = None
            if memory.columns.count == 0:
                # What stopped the walk is dealt with now; behind records it is met again by the next one.
                if stop == STOP_COMPRESSED:
                    compressed = RecordBatch.wrap(cursor.chunk, walk.at, &walk.header, self.log.topic,
                                                  self.log.partition, cursor.segment.path, walk.position)
                    self.decode_compressed(memory, compressed)
                    walk.at += ls_batch_size_bytes(&walk.header)
                    walk.place.least_base_offset = ls_batch_last_offset(&walk.header) + 1
                    pass_batches(cursor, &walk)
                elif stop == STOP_TORN:
                    try:
                        cursor.reach_whole(&walk.fault, False)
                    except CorruptDataError:
                        if not cursor.relocate():
                            raise
                    continue
                elif stop == STOP_FAULT or stop == STOP_FAULT_IN_RECORDS:
                    if stop == STOP_FAULT and cursor.relocate():
                        continue
                    if stop == STOP_FAULT_IN_RECORDS and walk.fault.position >= 0:
                        walk.fault.position += walk.position
                    raise_fault(&walk.fault, cursor.segment.path)
            first = lower_bound(memory.columns.offsets, memory.columns.count, start_offset)
            count = lower_bound(memory.columns.offsets, memory.columns.count, walk.limit)
            if first < count:
                batch = ColumnBatch.__new__(ColumnBatch)
                batch.topic = self.log.topic
                batch.partition = self.log.partition
                batch.path = cursor.segment.path
                batch.memory = memory
                batch.first = first
                batch.count = count - first
                batch.arrays = {}
                if compressed is None:
                    batch.owner = cursor.chunk
                    batch.origin = walk.origin
                    batch.origin_end = walk.end
                else:
                    batch.owner = compressed.payload_owner
                    batch.origin = compressed.payload
                    batch.origin_end = compressed.payload_end
                return batch
            if stop == STOP_LIMIT:
                if walk.header.base_offset >= cursor.stop_offset:
                    cursor.next_offset = cursor.stop_offset
                elif walk.header.base_offset < cursor.end_offset:
                    cursor.aborted_until = 0  # decided since the aborted transactions were looked up
                    continue
                return None
        return None

    cdef int decode_compressed(self, ColumnMemory memory, RecordBatch batch) except -1:
        cdef ls_fault fault
        cdef ls_status status
        batch.open_payload()
        with nogil:
            status = append_batch(memory, &batch.header, batch.payload, batch.payload_end, batch.payload, &fault)
        if status != LS_OK:
            raise_in_batch(batch, &fault)
        return 0
