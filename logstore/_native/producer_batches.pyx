"""Headers of the batches that producers with an id have written, for rebuilding what the log knows of them.

Payloads are jumped over, save those of transaction markers.
"""

cimport cython
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t
from logstore._native.core cimport (
    LS_ATTRIBUTE_CONTROL,
    LS_ATTRIBUTE_TRANSACTIONAL,
    LS_BATCH_HEADER_BYTES,
    LS_CODEC_NONE,
    LS_OK,
    ls_batch_codec,
    ls_batch_header,
    ls_batch_header_peek,
    ls_batch_last_offset,
    ls_batch_location,
    ls_batch_size_bytes,
    ls_fault,
    ls_load_i16,
    ls_load_i32,
    ls_record,
    ls_record_iterator,
    ls_record_iterator_init,
    ls_record_iterator_next,
    ls_segment_read,
    ls_segment_size_bytes,
    ls_status,
)
from logstore._native.faults cimport raise_fault
from logstore._native.record_batch cimport Chunk
from logstore._native.segment cimport Segment

from typing import NamedTuple

from logstore.errors import CorruptDataError

# Many small batches are read together; of large ones only the header.
cdef Py_ssize_t CHUNK_BYTES = 128 * 1024
cdef Py_ssize_t HEADER_READ_BYTES = 256
cdef Py_ssize_t SMALL_BATCH_BYTES = 4096

cdef int CONTROL_ABORT = 0
cdef int CONTROL_COMMIT = 1


class ProducerHeader(NamedTuple):
    """What a batch says of its producer.

    Attributes
    ----------
    base_offset, last_offset : int
    producer_id, producer_epoch, base_sequence : int
    max_timestamp : int
    is_transactional : bool
    marker : int
        0 abort, 1 commit, -1 data, -2 a control batch that ends no transaction.
    coordinator_epoch : int
        Of a marker.
    """

    base_offset: int
    last_offset: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    max_timestamp: int
    is_transactional: bool
    marker: int
    coordinator_epoch: int


cdef int marker_of(const ls_batch_header *header, const uint8_t *batch, int32_t *coordinator_epoch) noexcept nogil:
    """0 abort, 1 commit; -1 data; -2 a control batch that ends no transaction."""
    cdef ls_record_iterator records
    cdef ls_record record
    cdef ls_fault fault
    cdef int16_t kind
    coordinator_epoch[0] = -1
    if not header.attributes & LS_ATTRIBUTE_CONTROL:
        return -1
    if header.records_count == 0 or ls_batch_codec(header) != LS_CODEC_NONE:
        return -2
    ls_record_iterator_init(&records, header, batch + LS_BATCH_HEADER_BYTES, batch + ls_batch_size_bytes(header))
    if ls_record_iterator_next(&records, &record, &fault) != LS_OK or record.key_bytes < 4:
        return -2
    kind = ls_load_i16(record.key + 2)
    if (kind != CONTROL_ABORT and kind != CONTROL_COMMIT) or record.value_bytes < 6:
        return -2
    coordinator_epoch[0] = ls_load_i32(record.value + 2)
    return kind


@cython.final
cdef class ProducerBatches:
    """Iterates over the `ProducerHeader` of each batch with a producer id, in order. One thread at a time.

    Parameters
    ----------
    segment : Segment
    start_offset, end_offset : int
        Batches that end at or after the one, and begin before the other.

    Raises
    ------
    CorruptDataError
        While iterating: a header is damaged. CRCs are not verified.
    StorageFailureError
    """

    cdef Segment segment
    cdef Chunk chunk
    cdef int64_t position       # of the next batch in the file
    cdef int64_t chunk_position
    cdef int64_t start_offset
    cdef int64_t end_offset
    cdef int64_t least_base_offset
    cdef Py_ssize_t read_bytes

    def __init__(self, Segment segment not None, int64_t start_offset, int64_t end_offset):
        cdef ls_batch_location location
        self.segment = segment.opened()
        self.start_offset = start_offset
        self.end_offset = end_offset
        self.least_base_offset = segment.base_offset
        self.chunk = Chunk.create(CHUNK_BYTES)
        self.chunk.size = 0
        self.read_bytes = CHUNK_BYTES
        self.position = 0
        if start_offset > segment.base_offset:
            if self.segment.locate_batch(start_offset, &location):
                self.position = location.position
                self.least_base_offset = location.header.base_offset
            else:
                self.position = ls_segment_size_bytes(self.segment.segment)
        self.chunk_position = self.position

    def __iter__(self):
        return self

    cdef const uint8_t *view(self, int64_t size) except? NULL:
        """The bytes from `position` on: at least `size` of them, or as many as the file has."""
        cdef int64_t at = self.position - self.chunk_position
        cdef int64_t left = ls_segment_size_bytes(self.segment.segment) - self.position
        cdef size_t got = 0
        cdef ls_fault fault
        cdef ls_status status
        cdef Py_ssize_t wanted
        if at < 0 or at + min(size, left) > self.chunk.size:
            wanted = <Py_ssize_t>min(max(size, self.read_bytes), left)
            if wanted > self.chunk.capacity:
                self.chunk = Chunk.create(wanted)
            self.chunk.size = 0
            with nogil:
                status = ls_segment_read(self.segment.segment, self.position, self.chunk.data, wanted, &got, &fault)
            if status != LS_OK:
                raise_fault(&fault, self.segment.path)
            self.chunk.size = got
            self.chunk_position = self.position
            at = 0
        return self.chunk.data + at

    def __next__(self):
        cdef ls_batch_header header
        cdef ls_fault fault
        cdef const uint8_t *at
        cdef int64_t size
        cdef int32_t coordinator_epoch = -1
        cdef int marker
        while self.position < ls_segment_size_bytes(self.segment.segment):
            at = self.view(LS_BATCH_HEADER_BYTES)
            if ls_batch_header_peek(at, self.chunk.data + self.chunk.size, self.position, &header, &fault) != LS_OK:
                raise_fault(&fault, self.segment.path)
            size = ls_batch_size_bytes(&header)
            if header.base_offset < self.least_base_offset:
                raise CorruptDataError(self.segment.path, self.position, "base offset does not rise",
                                       self.least_base_offset, header.base_offset)
            if header.base_offset >= self.end_offset:
                break
            self.read_bytes = CHUNK_BYTES if size <= SMALL_BATCH_BYTES else HEADER_READ_BYTES
            marker = -1
            if header.producer_id >= 0 and header.attributes & LS_ATTRIBUTE_CONTROL:
                at = self.view(size)
                if self.chunk.data + self.chunk.size - at < size:
                    raise CorruptDataError(self.segment.path, self.position, "batch is cut off", size,
                                           self.chunk.data + self.chunk.size - at)
                marker = marker_of(&header, at, &coordinator_epoch)
            self.position += size
            self.least_base_offset = ls_batch_last_offset(&header) + 1
            if header.producer_id >= 0 and ls_batch_last_offset(&header) >= self.start_offset:
                return ProducerHeader(
                    header.base_offset, ls_batch_last_offset(&header), header.producer_id, header.producer_epoch,
                    header.base_sequence, header.max_timestamp,
                    bool(header.attributes & LS_ATTRIBUTE_TRANSACTIONAL), marker, coordinator_epoch,
                )
        raise StopIteration
