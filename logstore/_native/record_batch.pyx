"""Record batches as Python objects: validating, iterating.

A `RecordBatch` exists only through `RecordBatchBuilder.build` or `RecordBatch.validated`; unvalidated bytes have no
iterator. The type is the proof.
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.object cimport PyObject, PyTypeObject
from libc.stdint cimport INT64_MAX, INT64_MIN, int32_t, int64_t, uint8_t
from libc.stdlib cimport free, malloc
from logstore._native.batch_codecs cimport decompressed_payload
from logstore._native.core cimport (
    LS_ATTRIBUTE_CONTROL,
    LS_ATTRIBUTE_DELETE_HORIZON,
    LS_ATTRIBUTE_LOG_APPEND_TIME,
    LS_ATTRIBUTE_TRANSACTIONAL,
    LS_BATCH_HEADER_BYTES,
    LS_CODEC_NONE,
    LS_END,
    LS_OK,
    ls_batch_check_records,
    ls_batch_codec,
    ls_batch_last_offset,
    ls_batch_size_bytes,
    ls_batch_stamp_timestamps,
    ls_batch_validate,
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

from logstore.errors import InvalidRequestError

MEMORY_PATH = "<memory>"


@cython.final
cdef class Chunk:
    """Read-only memory that batches point into; it lives as long as anything that points into it."""

    @staticmethod
    cdef Chunk create(Py_ssize_t capacity):
        cdef Chunk chunk = Chunk.__new__(Chunk)
        chunk.data = <uint8_t *>malloc(capacity if capacity > 0 else 1)
        if chunk.data == NULL:
            raise MemoryError(f"no memory for {capacity} bytes of records")
        chunk.capacity = capacity
        return chunk

    def __dealloc__(self):
        free(self.data)

    def __len__(self):
        return self.size

    def __getbuffer__(self, Py_buffer *view, int flags):
        PyBuffer_FillInfo(view, self, self.data, self.size, 1, flags)


cdef int raise_in_batch(RecordBatch batch, const void *fault) except -1:
    cdef ls_fault shifted = (<const ls_fault *>fault)[0]
    if ls_batch_codec(&batch.header) == LS_CODEC_NONE and shifted.position >= 0:
        shifted.position += batch.position
    else:
        shifted.position = batch.position
    return raise_fault(&shifted, batch.path)


@cython.final
cdef class RecordBatch:
    """One validated record batch: header, CRC and structure are right.

    Made by `validated` or by a `RecordBatchBuilder`. Iterating gives `Record` objects. Immutable and thread-safe.
    ``bytes(batch)`` (the buffer protocol) gives the batch as stored.
    """

    def __init__(self):
        raise TypeError("a RecordBatch comes from RecordBatch.validated(...) or RecordBatchBuilder.build()")

    @staticmethod
    cdef RecordBatch wrap(object owner, const uint8_t *data, const ls_batch_header *header,
                          str topic, int partition, str path, int64_t position):
        cdef RecordBatch batch = RecordBatch.__new__(RecordBatch)
        batch.owner = owner
        batch.data = data
        batch.header = header[0]
        batch.topic = topic
        batch.partition = partition
        batch.path = path
        batch.position = position
        return batch

    @staticmethod
    def validated(const uint8_t[::1] data not None, *, Py_ssize_t position=0, str topic="", int partition=0,
                  str path=MEMORY_PATH):
        """Checks the batch that starts at ``position`` of ``data`` and wraps it without copying.

        Parameters
        ----------
        data : bytes-like
            Must not change while the batch is alive.
        position : int
            Where the batch starts, in bytes. Bytes behind it are left alone.
        topic, partition, path : str, int, str
            Where it came from, for records and error messages.

        Returns
        -------
        RecordBatch

        Raises
        ------
        CorruptDataError
            Structure or CRC is wrong, or the data ends inside the batch.
        UnsupportedFormatError
            The magic is not 2.
        """
        cdef ls_batch_header header
        cdef ls_fault fault
        cdef ls_status status
        cdef const uint8_t *start
        cdef const uint8_t *end
        if position < 0 or position >= data.shape[0]:
            raise InvalidRequestError(f"no batch at position {position} of {data.shape[0]} bytes")
        start = &data[0]
        end = start + data.shape[0]
        with nogil:
            status = ls_batch_validate(start + position, end, position, &header, &fault)
        if status != LS_OK:
            raise_fault(&fault, path)
        return RecordBatch.wrap(data, start + position, &header, topic, partition, path, position)

    cdef int open_payload(self) except -1:
        """Makes `payload` point at uncompressed records."""
        cdef Py_ssize_t stored
        cdef int codec
        cdef const uint8_t[::1] opened
        if self.payload != NULL:
            return 0
        stored = ls_batch_size_bytes(&self.header) - LS_BATCH_HEADER_BYTES
        codec = ls_batch_codec(&self.header)
        if codec == LS_CODEC_NONE or self.header.records_count == 0:
            self.payload_end = self.data + LS_BATCH_HEADER_BYTES + stored
            self.payload = self.data + LS_BATCH_HEADER_BYTES
            return 0
        opened = decompressed_payload(codec, memoryview(self)[LS_BATCH_HEADER_BYTES:], self.path, self.position)
        self.payload_owner = opened
        if opened.shape[0] == 0:
            self.payload_end = self.data
            self.payload = self.data
        else:
            self.payload_end = &opened[0] + opened.shape[0]
            self.payload = &opened[0]
        return 0

    def __getbuffer__(self, Py_buffer *view, int flags):
        PyBuffer_FillInfo(view, self, <void *>self.data, ls_batch_size_bytes(&self.header), 1, flags)

    def __iter__(self):
        cdef RecordIterator iterator = RecordIterator.__new__(RecordIterator)
        iterator.feed = RecordFeed.__new__(RecordFeed)
        iterator.feed.begin(self, INT64_MIN)
        return iterator

    def __len__(self):
        return self.header.records_count

    def __repr__(self):
        return (f"RecordBatch(base_offset={self.base_offset}, last_offset={self.last_offset}, "
                f"records_count={self.records_count}, size_bytes={self.size_bytes}, codec={self.codec})")

    @property
    def base_offset(self):
        """Offset of the first record as originally written."""
        return self.header.base_offset

    @property
    def last_offset(self):
        """Offset of the last record as originally written."""
        return ls_batch_last_offset(&self.header)

    @property
    def size_bytes(self):
        """Bytes of the whole batch."""
        return ls_batch_size_bytes(&self.header)

    @property
    def records_count(self):
        return self.header.records_count

    @property
    def partition_leader_epoch(self):
        return self.header.partition_leader_epoch

    @property
    def magic(self):
        return self.header.magic

    @property
    def crc(self):
        return self.header.crc

    @property
    def attributes(self):
        return self.header.attributes

    @property
    def last_offset_delta(self):
        return self.header.last_offset_delta

    @property
    def base_timestamp(self):
        """Timestamp the records' deltas are relative to, in ms; the delete horizon where that bit is set."""
        return self.header.base_timestamp

    @property
    def max_timestamp(self):
        """Largest record timestamp, or the append time, in ms."""
        return self.header.max_timestamp

    @property
    def producer_id(self):
        return self.header.producer_id

    @property
    def producer_epoch(self):
        return self.header.producer_epoch

    @property
    def base_sequence(self):
        return self.header.base_sequence

    @property
    def codec(self):
        """Codec number: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd."""
        return ls_batch_codec(&self.header)

    @property
    def timestamp_type(self):
        """``"CreateTime"`` or ``"LogAppendTime"``."""
        return "LogAppendTime" if self.header.attributes & LS_ATTRIBUTE_LOG_APPEND_TIME else "CreateTime"

    @property
    def is_control(self):
        return bool(self.header.attributes & LS_ATTRIBUTE_CONTROL)

    @property
    def is_transactional(self):
        return bool(self.header.attributes & LS_ATTRIBUTE_TRANSACTIONAL)

    @property
    def has_delete_horizon(self):
        return bool(self.header.attributes & LS_ATTRIBUTE_DELETE_HORIZON)

    def check_produced(self):
        """Checks what a leader must before it takes this batch from a client: every record parses, offset
        deltas are 0, 1, 2, .., timestamps are at least -1.

        Returns
        -------
        tuple[int, int]
            Largest record timestamp; index of the first record without a key, or -1.

        Raises
        ------
        CorruptDataError
        """
        cdef int64_t max_timestamp = -1
        cdef int32_t null_key_index = -1
        cdef ls_fault fault
        cdef ls_status status
        self.open_payload()
        with nogil:
            status = ls_batch_check_records(&self.header, self.payload, self.payload_end, &max_timestamp,
                                            &null_key_index, &fault)
        if status != LS_OK:
            raise_in_batch(self, &fault)
        return max_timestamp, null_key_index

    def find_timestamp(self, int64_t timestamp, int64_t from_offset):
        """The first record at or after a time and an offset.

        Returns
        -------
        tuple[int, int] or None
            Offset and timestamp in ms.

        Raises
        ------
        CorruptDataError
        """
        cdef ls_record_iterator iterator
        cdef ls_record record
        cdef ls_fault fault
        cdef ls_status status
        self.open_payload()
        ls_record_iterator_init(&iterator, &self.header, self.payload, self.payload_end)
        while True:
            status = ls_record_iterator_next(&iterator, &record, &fault)
            if status == LS_END:
                return None
            if status != LS_OK:
                raise_in_batch(self, &fault)
            if record.timestamp >= timestamp and record.offset >= from_offset:
                return record.offset, record.timestamp


cdef extern from *:
    """
    #include <structmember.h>

    #define LS_REFERENCE_COUNT(object) Py_REFCNT((PyObject *)(object))
    #define LS_KEY_FIELD(record) (&(record)->key)
    #define LS_VALUE_FIELD(record) (&(record)->value)

    /* Has *field be `size` bytes, or None below 0. Bytes that only the field refers to can't be seen by anybody, so that
       others of the same size may take their place. */
    static inline int ls_field_set(PyObject **field, const void *bytes, Py_ssize_t size) {
        PyObject *before = *field;
        PyObject *after;
        if (size > 1 && Py_REFCNT(before) == 1 && PyBytes_CheckExact(before) && PyBytes_GET_SIZE(before) == size) {
            memcpy(PyBytes_AS_STRING(before), bytes, (size_t)size);
            _Py_COMP_DIAG_PUSH
            _Py_COMP_DIAG_IGNORE_DEPR_DECLS
            ((PyBytesObject *)before)->ob_shash = -1;
            _Py_COMP_DIAG_POP
            return 0;
        }
        if (size < 0) {
            after = Py_NewRef(Py_None);
        } else {
            after = PyBytes_FromStringAndSize((const char *)bytes, size);
            if (after == NULL) return -1;
        }
        *field = after;
        Py_DECREF(before);
        return 0;
    }

    /* A plain field, which the interpreter reads without asking anybody. */
    static int ls_field_show(PyTypeObject *type, PyMemberDef *member) {
        PyObject *descriptor = PyDescr_NewMember(type, member);
        int status;
        if (descriptor == NULL) return -1;
        status = PyDict_SetItemString(type->tp_dict, member->name, descriptor);
        Py_DECREF(descriptor);
        PyType_Modified(type);
        return status;
    }

    static PyMemberDef ls_key_member = {"key", T_OBJECT_EX, 0, READONLY, "The key, or None."};
    static PyMemberDef ls_value_member = {"value", T_OBJECT_EX, 0, READONLY, "The value, or None for a tombstone."};
    """
    ctypedef struct PyMemberDef:
        Py_ssize_t offset
    PyMemberDef ls_key_member
    PyMemberDef ls_value_member
    Py_ssize_t LS_REFERENCE_COUNT(object)
    PyObject **LS_KEY_FIELD(Record record)
    PyObject **LS_VALUE_FIELD(Record record)
    int ls_field_set(PyObject **field, const void *bytes, Py_ssize_t size) except -1
    int ls_field_show(PyTypeObject *type, PyMemberDef *member) except -1


cdef Record new_record(RecordBatch batch, const ls_record *raw):
    cdef Record record = Record.__new__(Record)
    record.batch = batch
    record.raw = raw[0]
    ls_field_set(LS_KEY_FIELD(record), raw.key, raw.key_bytes)
    ls_field_set(LS_VALUE_FIELD(record), raw.value, raw.value_bytes)
    return record


@cython.final
@cython.freelist(256)
@cython.no_gc
cdef class Record:
    """One record, immutable and thread-safe.

    Attributes
    ----------
    key : bytes or None
    value : bytes or None
        None for a tombstone.
    """

    def __init__(self):
        raise TypeError("records come from reading a topic")

    @property
    def topic(self):
        """Name of the topic."""
        return self.batch.topic

    @property
    def partition(self):
        """Number of the partition."""
        return self.batch.partition

    @property
    def offset(self):
        """Logical position in the partition."""
        return self.raw.offset

    @property
    def timestamp(self):
        """Milliseconds since the epoch, UTC; -1 for none."""
        return self.raw.timestamp

    @property
    def timestamp_type(self):
        """``"CreateTime"`` or ``"LogAppendTime"``."""
        return self.batch.timestamp_type

    @property
    def headers(self):
        """The headers in order, as ``list[tuple[str, bytes | None]]``; a new list each time."""
        cdef const uint8_t *at = self.raw.headers
        cdef const uint8_t *end = at + self.raw.headers_bytes
        cdef ls_record_header header
        cdef ls_fault fault
        cdef list headers = []
        cdef int32_t _i
        for _i in range(self.raw.headers_count):
            if ls_record_header_next(&at, end, &header, &fault) != LS_OK:
                raise_in_batch(self.batch, &fault)
            headers.append((
                header.key[:header.key_bytes].decode("utf-8", "surrogateescape"),
                None if header.value_bytes < 0
                else PyBytes_FromStringAndSize(<const char *>header.value, header.value_bytes),
            ))
        return headers

    def _parts(self):
        return (self.topic, self.partition, self.offset, self.timestamp, self.timestamp_type, self.key, self.value,
                self.headers)

    def __eq__(self, other):
        if not isinstance(other, Record):
            return NotImplemented
        return self._parts() == (<Record>other)._parts()

    def __hash__(self):
        return hash((self.topic, self.partition, self.offset))

    def __repr__(self):
        return (f"Record(topic={self.topic!r}, partition={self.partition}, offset={self.offset}, "
                f"timestamp={self.timestamp}, key={self.key!r}, value={self.value!r}, headers={self.headers!r})")

    def __reduce__(self):
        return _record_from_parts, self._parts()


def _record_from_parts(topic, partition, offset, timestamp, timestamp_type, key, value, headers):
    """Rebuilds a pickled record over a batch of its own."""
    from logstore._native.record_batch_builder import RecordBatchBuilder

    builder = RecordBatchBuilder()
    builder.append(value, key, headers=headers, timestamp=timestamp)
    batch = builder.build(base_offset=offset, topic=topic, partition=partition,
                          log_append_timestamp=timestamp if timestamp_type == "LogAppendTime" else None)
    return next(iter(batch))


cdef int show_fields() except -1:
    cdef Record record = Record.__new__(Record)
    ls_key_member.offset = <char *>LS_KEY_FIELD(record) - <char *><PyObject *>record
    ls_value_member.offset = <char *>LS_VALUE_FIELD(record) - <char *><PyObject *>record
    ls_field_show(<PyTypeObject *>Record, &ls_key_member)
    ls_field_show(<PyTypeObject *>Record, &ls_value_member)
    return 0


show_fields()


@cython.final
cdef class RecordFeed:
    """Hands out the records of a batch, and of the next one. Under the GIL a step is whole: it runs no Python code."""

    def __cinit__(self):
        self.stop_offset = INT64_MAX

    cdef int begin(self, RecordBatch batch, int64_t next_offset) except -1:
        """Goes on with another batch."""
        self.drop()
        batch.open_payload()
        ls_record_iterator_init(&self.iterator, &batch.header, batch.payload, batch.payload_end)
        self.next_offset = next_offset
        self.batch = batch
        return 0

    cdef void drop(self):
        """Lets go of the batch, and of records that would keep its chunk from being used again."""
        self.batch = None
        self.last = None
        self.spare = None

    cdef Record take(self):
        """The next record of the batch; None, however often, where `leave` is to be called."""
        cdef Record record = self.spare
        cdef ls_fault fault
        if record is None or LS_REFERENCE_COUNT(record) != 2:  # the attribute and `record`
            record = Record.__new__(Record)
            record.batch = self.batch
        while True:
            self.status = ls_record_iterator_next(&self.iterator, &record.raw, &fault)
            if self.status != LS_OK:
                self.fault = fault
                return None
            if record.raw.offset >= self.next_offset:
                break
        if record.raw.offset >= self.stop_offset:
            self.take_back()
            return None
        try:
            ls_field_set(LS_KEY_FIELD(record), record.raw.key, record.raw.key_bytes)
            ls_field_set(LS_VALUE_FIELD(record), record.raw.value, record.raw.value_bytes)
        except MemoryError:
            self.take_back()
            raise
        self.next_offset = record.raw.offset + 1
        self.spare = self.last
        self.last = record
        return record

    cdef RecordBatch leave(self):
        """Lets go of the batch, and gives it.

        Raises
        ------
        CorruptDataError
            The record that `take` had to give is damaged.
        """
        cdef RecordBatch batch = self.batch
        self.drop()
        if self.status != LS_OK and self.status != LS_END:
            raise_in_batch(batch, &self.fault)
        return batch

    cdef int take_back(self) except -1:
        """Has the iterator stand before the record that it gave last."""
        cdef int32_t remaining = self.iterator.remaining + 1
        cdef ls_record passed
        cdef ls_fault fault
        ls_record_iterator_init(&self.iterator, &self.batch.header, self.batch.payload, self.batch.payload_end)
        while self.iterator.remaining > remaining:
            ls_record_iterator_next(&self.iterator, &passed, &fault)
        return 0


@cython.final
cdef class RecordIterator:
    """Records of one batch, in order. One thread at a time."""

    def __iter__(self):
        return self

    def __next__(self):
        cdef Record record
        if self.feed.batch is not None:
            record = self.feed.take()
            if record is not None:
                return record
            self.feed.leave()
        raise StopIteration


def batch_positions(const uint8_t[::1] data not None, str path=MEMORY_PATH):
    """Validates a run of batches and gives where each starts.

    Returns
    -------
    list[tuple[int, int, int, int]]
        ``(position, size_bytes, base_offset, last_offset)`` of each batch.

    Raises
    ------
    CorruptDataError, UnsupportedFormatError
        At the first batch that is not whole and valid.
    """
    cdef ls_batch_header header
    cdef ls_fault fault
    cdef ls_status status
    cdef Py_ssize_t position = 0
    cdef list found = []
    while position < data.shape[0]:
        with nogil:
            status = ls_batch_validate(&data[0] + position, &data[0] + data.shape[0], position, &header, &fault)
        if status != LS_OK:
            raise_fault(&fault, path)
        found.append((position, ls_batch_size_bytes(&header), header.base_offset, ls_batch_last_offset(&header)))
        position += ls_batch_size_bytes(&header)
    return found


def stamp_timestamps(bytearray batch not None, bint log_append_time, int64_t max_timestamp):
    """Sets timestamp type and largest timestamp of a whole batch in place, and its CRC anew."""
    ls_batch_stamp_timestamps(batch, len(batch), log_append_time, max_timestamp)
