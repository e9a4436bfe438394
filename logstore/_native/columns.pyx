"""Many records at once as columns over one buffer, without a Python object per record."""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.list cimport PyList_New, PyList_SET_ITEM
from cpython.ref cimport Py_INCREF
from libc.stdint cimport int32_t, int64_t, uint8_t
from logstore._native.column_walk cimport (
    STOP_COMPRESSED,
    STOP_FAULT,
    STOP_FAULT_IN_RECORDS,
    STOP_LIMIT,
    STOP_TORN,
    ColumnMemory,
    Stop,
    Walk,
    append_batch,
    lower_bound,
    walk_chunk,
)
from logstore._native.columns_ahead cimport ColumnsAhead
from logstore._native.core cimport (
    LS_OK,
    ls_batch_last_offset,
    ls_batch_size_bytes,
    ls_fault,
    ls_record_header,
    ls_record_header_next,
    ls_status,
)
from logstore._native.faults cimport raise_fault
from logstore._native.log_cursor cimport LogCursor
from logstore._native.log_state cimport LogState
from logstore._native.record_batch cimport RecordBatch, raise_in_batch

from logstore.errors import CorruptDataError

# Two chunks and their columns take turns; together they fit a second-level cache of 1 MiB.
cdef Py_ssize_t COLUMN_CHUNK_BYTES = 192 * 1024


cdef extern from *:
    """
    #define LS_REFERENCE_COUNT(object) Py_REFCNT((PyObject *)(object))
    """
    Py_ssize_t LS_REFERENCE_COUNT(object)


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
        cdef Py_ssize_t at
        array = self.arrays.get(name)
        if array is None:
            import numpy
            at = <const uint8_t *>start - <const uint8_t *>self.memory.columns.offsets
            array = numpy.frombuffer(self.memory, dtype, self.count, at)
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
        self.ahead = ColumnsAhead()
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
        while True:
            if not cursor.committed and self.ahead.is_due(cursor):
                batch = self.fetch_ahead()
                if batch is not None:
                    return batch
            if not cursor.reach():
                return None
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
                    stop = walk_chunk(&walk, &memory.columns)
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

    cdef ColumnBatch fetch_ahead(self):
        """The columns of the next piece that has records; None where the pieces end, or need a closer look."""
        cdef LogCursor cursor = self.cursor
        cdef ColumnsAhead ahead = self.ahead
        cdef ColumnBatch batch
        cdef int64_t start_offset = cursor.next_offset
        cdef size_t first, count
        while ahead.take(cursor):
            count = ahead.memory.columns.count
            first = lower_bound(ahead.memory.columns.offsets, count, start_offset)
            if first < count:
                batch = ColumnBatch.__new__(ColumnBatch)
                batch.topic = self.log.topic
                batch.partition = self.log.partition
                batch.path = cursor.segment.path
                batch.memory = ahead.memory
                batch.first = first
                batch.count = count - first
                batch.arrays = {}
                batch.owner = ahead.chunk
                batch.origin = ahead.chunk.data
                batch.origin_end = ahead.chunk.data + ahead.chunk.size
                return batch
        return None

    cdef int decode_compressed(self, ColumnMemory memory, RecordBatch batch) except -1:
        cdef ls_fault fault
        cdef ls_status status
        batch.open_payload()
        with nogil:
            status = append_batch(&memory.columns, &batch.header, batch.payload, batch.payload_end, batch.payload, &fault)
        if status != LS_OK:
            raise_in_batch(batch, &fault)
        return 0
