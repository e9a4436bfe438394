# Bytes-like Python arguments as spans the core can read without the GIL.

from cpython.object cimport PyObject
from libc.stdint cimport int32_t, uint8_t
from logstore._native.core cimport ls_record_header, ls_span


# Of objects that somebody else holds, without a reference of our own.
cdef extern from "Python.h":
    bint is_bytes "PyBytes_CheckExact"(PyObject *value) noexcept
    Py_ssize_t bytes_size "PyBytes_GET_SIZE"(PyObject *value) noexcept
    char *bytes_at "PyBytes_AS_STRING"(PyObject *value) noexcept


# Record headers as the core takes them; keeps the bytes alive.
cdef class HeaderList:
    cdef ls_record_header *items
    cdef int32_t count
    cdef list owners

    @staticmethod
    cdef HeaderList create(object headers)


# A span over None, bytes, or any contiguous buffer. Returns what has to stay referenced while the span is used, besides
# the object itself. str is refused.
cdef object span_of(object value, str what, ls_span *span)


cdef inline bint takes_bytes(PyObject *value, ls_span *span) noexcept:
    """Whether the value is bytes, as it nearly always is: then its span is filled in. Anything else is for `span_of`."""
    cdef Py_ssize_t size
    if not is_bytes(value):
        return False
    size = bytes_size(value)
    if size > 0x7fffffff:
        return False
    span.bytes = <const uint8_t *>bytes_at(value)
    span.size_bytes = <int32_t>size
    return True


# Spans over many values: a list or tuple of bytes-like or None, a numpy array, or an Arrow array.
cdef class SpanArray:
    cdef ls_span *spans
    cdef readonly Py_ssize_t count
    cdef Py_ssize_t capacity
    cdef list owners        # what keeps the bytes alive

    @staticmethod
    cdef SpanArray create(object values, str what)
    cdef int reserve(self, Py_ssize_t more) except -1
    cdef int add_objects(self, tuple values, str what) except -1
    cdef int add_list(self, list values, str what) except -1
    cdef int add_others(self, tuple values, Py_ssize_t others, str what) except -1
    cdef int add_numpy(self, object array, str what) except -1
    cdef int add_arrow_array(self, object exporter, str what) except -1
    cdef int add_arrow_stream(self, object exporter, str what) except -1
    cdef int add_arrow(self, const char *format, void *array, str what) except -1
