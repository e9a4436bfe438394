# The compiled half of a producer.

from cpython.object cimport PyObject
from libc.stdint cimport int64_t
from logstore._native.clock cimport ls_recent_time
from logstore._native.core cimport ls_span
from logstore._native.producer_delivery cimport ProducerDelivery
from logstore._native.producer_queue cimport PartitionQueue, ProducerTopic
from logstore._native.record_future cimport RecordFuture
from logstore._native.spans cimport HeaderList


cdef class ProducerCore(ProducerDelivery):
    cdef ls_recent_time recent_time

    cdef int64_t now_ms(self) except? -1
    cdef ProducerTopic topic_named(self, object name)
    cdef PartitionQueue queue_of(self, ProducerTopic topic, object partition)
    cdef RecordFuture new_future(self)
    cdef RecordFuture encode(self, PartitionQueue into, RecordFuture future, const ls_span *key, const ls_span *value,
                             HeaderList headers, list callbacks)
    cdef void note_taken(self, PartitionQueue into, RecordFuture future, const ls_span *key, size_t before) noexcept
    cdef list callbacks_of(self, RecordFuture future, object on_delivery)
    cdef RecordFuture send_now(self, ProducerTopic known, const ls_span *key, const ls_span *value,
                               PyObject *key_object)
    cdef RecordFuture send_any(self, ProducerTopic known, const ls_span *key, const ls_span *value,
                               object key_object, object headers, object partition, object timestamp,
                               object on_delivery, object expected_offset)
    cdef RecordFuture send_expected(self, PartitionQueue queue, RecordFuture future, const ls_span *key,
                                    const ls_span *value, HeaderList headers, size_t needed, int64_t expected_offset,
                                    object on_delivery)
