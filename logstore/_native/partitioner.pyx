"""Partitioners: Kafka's murmur2, librdkafka's crc32, in turn, or a callable."""

from binascii import crc32

cimport cython
from libc.stdint cimport int32_t, uint8_t
from logstore._native.core cimport ls_partition_for_key, ls_span

from logstore.errors import InvalidRequestError

PARTITIONERS = ("murmur2", "crc32", "round_robin")


@cython.final
cdef class Partitioner:
    """Chooses partitions of one topic.

    Parameters
    ----------
    partitioner : {"murmur2", "crc32", "round_robin"} or callable
        A callable gets the key (bytes or None) and the number of partitions.
    count : int
        Number of partitions.
    """

    def __init__(self, partitioner, Py_ssize_t count):
        if partitioner == "murmur2":
            self.kind = MURMUR2
        elif partitioner == "crc32":
            self.kind = CRC32
        elif partitioner == "round_robin":
            self.kind = ROUND_ROBIN
        else:
            self.kind = CUSTOM
            self.custom = partitioner
        self.count = count

    def partition_for(self, key):
        """The partition of a key, as bytes or None."""
        cdef ls_span span
        cdef bytes data = key
        span.bytes = NULL
        span.size_bytes = -1
        if data is not None:
            span.bytes = data
            span.size_bytes = <int32_t>len(data)
        return self.choose(&span, key)

    cdef bint is_sticky(self, const ls_span *key):
        """Whether the choice for this record moves on with the batches."""
        if self.kind == MURMUR2:
            return key.size_bytes < 0
        return self.kind == CRC32 and key.size_bytes <= 0

    cdef Py_ssize_t choose(self, const ls_span *key, object key_object) except -1:
        cdef Py_ssize_t chosen
        if self.kind == MURMUR2:
            if self.count == 1:
                return 0
            if key.size_bytes < 0:
                return self.sticky
            return ls_partition_for_key(key.bytes if key.size_bytes else <const uint8_t *>b"", key.size_bytes,
                                        <int32_t>self.count)
        if self.kind == CRC32:
            if key.size_bytes <= 0:
                return self.sticky
            return crc32(key_object) % self.count
        if self.kind == ROUND_ROBIN:
            chosen = self.next_in_turn
            self.next_in_turn = (chosen + 1) % self.count
            return chosen
        answer = self.custom(key_object if key_object is None else bytes(key_object), self.count)
        if not isinstance(answer, int) or not 0 <= answer < self.count:
            raise InvalidRequestError(
                f"the partitioner chose partition {answer!r} of {self.count}; it has to be 0 to {self.count - 1}"
            )
        return answer

    cdef int batch_sealed(self, Py_ssize_t partition) noexcept:
        """Records without a key move on to the next partition."""
        if partition == self.sticky:
            self.sticky = (partition + 1) % self.count
        return 0
