"""Building record batches record by record, where no log or producer has a buffer of its own for it."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t
from libc.string cimport memset
from logstore._native.batch_codecs cimport compressed_batch
from logstore._native.core cimport (
    LS_ATTRIBUTE_CONTROL,
    LS_ATTRIBUTE_LOG_APPEND_TIME,
    LS_ATTRIBUTE_TRANSACTIONAL,
    LS_CODEC_NONE,
    LS_OK,
    ls_batch_builder,
    ls_batch_builder_append,
    ls_batch_builder_free,
    ls_batch_builder_init,
    ls_batch_builder_reset,
    ls_batch_builder_seal,
    ls_batch_header,
    ls_batch_stamp_fields,
    ls_fault,
    ls_span,
)
from logstore._native.faults cimport raise_fault
from logstore._native.record_batch cimport RecordBatch
from logstore._native.spans cimport HeaderList, span_of

from logstore._native.record_batch import MEMORY_PATH
from logstore.errors import InvalidRequestError


@cython.final
cdef class RecordBatchBuilder:
    """Encodes records into one batch. One thread at a time.

    Parameters
    ----------
    capacity_bytes : int
        First size of the buffer; it grows as needed.
    """

    cdef ls_batch_builder builder

    def __cinit__(self, Py_ssize_t capacity_bytes=4096):
        cdef ls_fault fault
        memset(&self.builder, 0, sizeof(self.builder))
        if ls_batch_builder_init(&self.builder, capacity_bytes, &fault) != LS_OK:
            raise_fault(&fault, MEMORY_PATH)

    def __dealloc__(self):
        ls_batch_builder_free(&self.builder)

    def __len__(self):
        return self.builder.records_count

    @property
    def size_bytes(self):
        """Bytes of the batch so far, header included."""
        return self.builder.size_bytes

    def append(self, value, key=None, *, headers=None, int64_t timestamp=-1):
        """Adds one record.

        Parameters
        ----------
        value, key : bytes-like or None
        headers : sequence of (str, bytes or None), optional
        timestamp : int
            Milliseconds UTC; -1 for none.

        Returns
        -------
        int
            The record's index in the batch.

        Raises
        ------
        InvalidRequestError
            A value of the wrong type, or a timestamp below -1.
        RecordTooLargeError
            The batch would pass 2 GiB.
        """
        cdef HeaderList header_list = None
        cdef ls_span key_span, value_span
        cdef ls_fault fault
        if timestamp < -1:
            raise InvalidRequestError(f"a timestamp must be -1 or later, not {timestamp}")
        _keep_key = span_of(key, "key", &key_span)
        _keep_value = span_of(value, "value", &value_span)
        if headers is not None:
            header_list = HeaderList.create(headers)
        if ls_batch_builder_append(&self.builder, timestamp, key_span, value_span,
                                   header_list.items if header_list is not None else NULL,
                                   header_list.count if header_list is not None else 0, &fault) != LS_OK:
            raise_fault(&fault, MEMORY_PATH)
        return self.builder.records_count - 1

    def build(self, *, int64_t base_offset=0, int codec=LS_CODEC_NONE, level=None, int32_t partition_leader_epoch=-1,
              log_append_timestamp=None, bint transactional=False, bint control=False, int64_t producer_id=-1,
              int16_t producer_epoch=-1, int32_t base_sequence=-1, str topic="", int partition=0, bint with_keys=False):
        """Seals the records into a `RecordBatch` and leaves the builder empty.

        Parameters
        ----------
        base_offset : int
            0 for a batch that a log is to place.
        codec : int
            0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd.
        level : int, optional
            The codec's level; None for its default.
        partition_leader_epoch : int
            -1 where the log is to stamp it.
        log_append_timestamp : int, optional
            Makes the batch one of append time, with this as every record's timestamp.
        transactional, control, producer_id, producer_epoch, base_sequence
            As in the batch header.
        with_keys : bool
            The caller says that every record has a key, and gives the batch away to `Log.append_built`, which need not
            check it then and stamps it in place.

        Returns
        -------
        RecordBatch

        Raises
        ------
        InvalidRequestError
            No records, or an unknown codec.
        """
        cdef ls_batch_stamp_fields fields
        cdef ls_batch_header header
        cdef bytes sealed
        cdef RecordBatch batch
        if self.builder.records_count == 0:
            raise InvalidRequestError("a batch needs at least one record; append one first")
        fields.base_offset = base_offset
        fields.partition_leader_epoch = partition_leader_epoch
        fields.attributes = 0
        fields.log_append_timestamp = -1
        if log_append_timestamp is not None:
            fields.attributes |= LS_ATTRIBUTE_LOG_APPEND_TIME
            fields.log_append_timestamp = log_append_timestamp
        if transactional:
            fields.attributes |= LS_ATTRIBUTE_TRANSACTIONAL
        if control:
            fields.attributes |= LS_ATTRIBUTE_CONTROL
        fields.producer_id = producer_id
        fields.producer_epoch = producer_epoch
        fields.base_sequence = base_sequence
        ls_batch_builder_seal(&self.builder, &fields, &header)
        if codec == LS_CODEC_NONE:
            sealed = PyBytes_FromStringAndSize(<const char *>self.builder.buffer, self.builder.size_bytes)
        else:
            sealed = compressed_batch(&header, self.builder.buffer, self.builder.size_bytes, codec, level)
        ls_batch_builder_reset(&self.builder)
        batch = RecordBatch.wrap(sealed, <const uint8_t *>PyBytes_AS_STRING(sealed), &header, topic, partition,
                                 MEMORY_PATH, 0)
        batch.is_stampable = with_keys
        return batch
