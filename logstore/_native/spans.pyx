"""Arguments as spans: bytes, buffers, lists, numpy arrays and Arrow arrays, without copying their bytes."""

cimport cython
from cpython.buffer cimport Py_buffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.memoryview cimport PyMemoryView_GET_BUFFER
from cpython.object cimport PyObject
from cpython.pycapsule cimport PyCapsule_GetPointer
from cpython.tuple cimport PyTuple_New
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset, strcmp, strncmp
from logstore._native.arrow_abi cimport ArrowArray, ArrowArrayStream, ArrowSchema
from logstore._native.core cimport ls_record_header, ls_span

from logstore.errors import InvalidRequestError, RecordTooLargeError

cdef extern from *:
    """
    #include "logstore/record_batch.h"
    #if defined(__GNUC__)
    #define LS_PREFETCH(object) __builtin_prefetch(object)
    #else
    #define LS_PREFETCH(object) ((void)0)
    #endif

    /* Fills in the spans of what is bytes or None, and gives how many are something else: those get -2. Where `owned` is no
     * NULL, a reference to each goes there. One pass: most of it is waiting for objects that are not in the cache. */
    static Py_ssize_t ls_take_items(PyObject *const *items, Py_ssize_t count, ls_span *spans, PyObject **owned) {
        enum { AHEAD = 8, SPAN_BYTES_MAX = 0x7fffffff };
        Py_ssize_t others = 0;
        for (Py_ssize_t i = 0; i < count; i++) {
            PyObject *item = items[i];
            if (i + AHEAD < count) LS_PREFETCH(items[i + AHEAD]);
            if (owned != NULL) {
                Py_INCREF(item);
                owned[i] = item;
            }
            if (PyBytes_CheckExact(item) && PyBytes_GET_SIZE(item) <= SPAN_BYTES_MAX) {
                spans[i].bytes = (const uint8_t *)PyBytes_AS_STRING(item);
                spans[i].size_bytes = (int32_t)PyBytes_GET_SIZE(item);
            } else {
                spans[i].bytes = NULL;
                spans[i].size_bytes = item == Py_None ? -1 : -2;
                others += item != Py_None;
            }
        }
        return others;
    }
    #define ls_tuple_items(tuple) (((PyTupleObject *)(tuple))->ob_item)
    #define ls_list_items(list) (((PyListObject *)(list))->ob_item)
    """
    Py_ssize_t ls_take_items(PyObject *const *items, Py_ssize_t count, ls_span *spans, PyObject **owned) noexcept
    PyObject **ls_tuple_items(tuple items) noexcept
    PyObject **ls_list_items(list items) noexcept


cdef Py_ssize_t SPAN_BYTES_MAX = 0x7fffffff


cdef object wrong_type(object value, str what):
    if isinstance(value, str):
        return InvalidRequestError(f"a {what} must be bytes, not str; encode it first: {what}.encode()")
    return InvalidRequestError(
        f"a {what} must be bytes, a contiguous buffer or None, not {type(value).__name__}"
    )


cdef object span_of(object value, str what, ls_span *span):
    cdef Py_buffer *buffer
    if PyBytes_CheckExact(value):
        if PyBytes_GET_SIZE(value) > SPAN_BYTES_MAX:
            raise RecordTooLargeError(f"a {what} of {len(value)} bytes passes the format's limit of 2 GiB")
        span.bytes = <const uint8_t *>PyBytes_AS_STRING(value)
        span.size_bytes = <int32_t>PyBytes_GET_SIZE(value)
        return None
    if value is None:
        span.bytes = NULL
        span.size_bytes = -1
        return None
    try:
        view = memoryview(value)
    except TypeError:
        raise wrong_type(value, what) from None
    if not view.c_contiguous:
        raise InvalidRequestError(f"the buffer of a {what} must be contiguous; pass bytes({what})")
    buffer = PyMemoryView_GET_BUFFER(view)
    if buffer.len > SPAN_BYTES_MAX:
        raise RecordTooLargeError(f"a {what} of {buffer.len} bytes passes the format's limit of 2 GiB")
    span.bytes = <const uint8_t *>buffer.buf
    span.size_bytes = <int32_t>buffer.len
    return view


@cython.final
cdef class HeaderList:
    def __dealloc__(self):
        free(self.items)

    @staticmethod
    cdef HeaderList create(object headers):
        cdef HeaderList made = HeaderList.__new__(HeaderList)
        cdef list pairs
        cdef ls_span span
        cdef bytes name_bytes
        try:
            pairs = [(name, value) for name, value in (headers.items() if isinstance(headers, dict) else headers)]
        except (TypeError, ValueError):
            raise InvalidRequestError(
                "headers must be a sequence of (name, value) pairs, such as [('trace', b'a1')]"
            ) from None
        made.owners = [pairs]
        made.items = <ls_record_header *>calloc(len(pairs) + 1, sizeof(ls_record_header))
        if made.items == NULL:
            raise MemoryError("no memory for record headers")
        for name, value in pairs:
            if not isinstance(name, str):
                raise InvalidRequestError(f"a header's name must be str, not {type(name).__name__}")
            name_bytes = (<str>name).encode("utf-8", "surrogateescape")
            made.owners.append(name_bytes)
            made.owners.append(span_of(value, "header value", &span))
            made.items[made.count].key = <const uint8_t *>PyBytes_AS_STRING(name_bytes)
            made.items[made.count].key_bytes = <int32_t>PyBytes_GET_SIZE(name_bytes)
            made.items[made.count].value = span.bytes
            made.items[made.count].value_bytes = span.size_bytes
            made.count += 1
        return made


@cython.final
cdef class SpanArray:
    def __dealloc__(self):
        free(self.spans)

    @staticmethod
    cdef SpanArray create(object values, str what):
        cdef SpanArray array = SpanArray.__new__(SpanArray)
        array.owners = []
        if type(values) is list:
            array.add_list(values, what)
        elif isinstance(values, (list, tuple)):
            array.add_objects(tuple(values), what)
        elif isinstance(values, (bytes, bytearray, memoryview, str)):
            raise InvalidRequestError(f"{what}s must be a list, a numpy array or an Arrow array of {what}s, "
                                      f"not a single {type(values).__name__}")
        elif hasattr(values, "__arrow_c_array__"):
            array.add_arrow_array(values, what)
        elif hasattr(values, "__arrow_c_stream__"):
            array.add_arrow_stream(values, what)
        elif hasattr(values, "__array_interface__"):
            array.add_numpy(values, what)
        else:
            try:
                collected = tuple(values)
            except TypeError:
                raise InvalidRequestError(f"{what}s must be a list, a numpy array or an Arrow array, "
                                          f"not {type(values).__name__}") from None
            array.add_objects(collected, what)
        return array

    cdef int reserve(self, Py_ssize_t more) except -1:
        cdef ls_span *grown
        if self.count + more > self.capacity:
            grown = <ls_span *>realloc(self.spans, (self.count + more) * sizeof(ls_span))
            if grown == NULL:
                raise MemoryError(f"no memory for {self.count + more} values")
            self.spans = grown
            self.capacity = self.count + more
        return 0

    cdef int add_objects(self, tuple values, str what) except -1:
        """A tuple, which nobody can take a value away from meanwhile."""
        cdef Py_ssize_t count = len(values)
        self.owners.append(values)
        self.reserve(count)
        return self.add_others(values, ls_take_items(ls_tuple_items(values), count, self.spans + self.count, NULL), what)

    cdef int add_list(self, list values, str what) except -1:
        """The values are ours, too, from here on: the caller may take them away meanwhile."""
        cdef Py_ssize_t count = len(values)
        cdef tuple owned = PyTuple_New(count)
        self.owners.append(owned)
        self.reserve(count)
        if len(values) != count:  # a finalizer that ran meanwhile has changed the list
            self.owners.pop()
            return self.add_objects(tuple(values), what)
        return self.add_others(
            owned, ls_take_items(ls_list_items(values), count, self.spans + self.count, ls_tuple_items(owned)), what)

    cdef int add_others(self, tuple values, Py_ssize_t others, str what) except -1:
        """What is neither bytes nor None, of the values added last."""
        cdef Py_ssize_t i
        cdef object keep
        for i in range(len(values)):
            if others == 0:
                break
            if self.spans[self.count + i].size_bytes == -2:
                keep = span_of(values[i], what, &self.spans[self.count + i])
                if keep is not None:
                    self.owners.append(keep)
                others -= 1
        self.count += len(values)
        return 0

    cdef int add_numpy(self, object array, str what) except -1:
        """One value an element: its raw bytes; for dtype S without trailing NULs; for 2-D uint8 one a row."""
        cdef const uint8_t *at
        cdef Py_ssize_t i, size, count
        cdef bint strip
        import numpy

        array = numpy.asarray(array)
        if array.dtype.kind == "O":
            return self.add_objects(tuple(array.tolist()), what)
        if array.dtype.kind in "UmM" or array.dtype.hasobject:
            raise InvalidRequestError(
                f"a numpy array of dtype {array.dtype} has no bytes to store as {what}s; "
                "encode it, for example numpy.char.encode(array)"
            )
        if array.ndim == 2 and array.dtype == numpy.uint8:
            size = array.shape[1]
        elif array.ndim == 1:
            size = array.dtype.itemsize
        else:
            raise InvalidRequestError(f"{what}s must be a 1-D array, or a 2-D array of uint8, not {array.ndim}-D "
                                      f"of {array.dtype}")
        count = array.shape[0]
        strip = array.dtype.kind == "S"
        array = numpy.ascontiguousarray(array)
        self.reserve(count)
        if count == 0:
            return 0
        view = memoryview(array.reshape(-1).view(numpy.uint8)) if size else None
        if size > SPAN_BYTES_MAX:
            raise RecordTooLargeError(f"a {what} of {size} bytes passes the format's limit of 2 GiB")
        self.owners.append(view)
        at = <const uint8_t *>PyMemoryView_GET_BUFFER(view).buf if size else <const uint8_t *>b""
        cdef Py_ssize_t used
        for i in range(count):
            used = size
            if strip:
                while used > 0 and at[i * size + used - 1] == 0:
                    used -= 1
            self.spans[self.count].bytes = at + i * size
            self.spans[self.count].size_bytes = <int32_t>used
            self.count += 1
        return 0

    cdef int add_arrow_array(self, object exporter, str what) except -1:
        schema_capsule, array_capsule = exporter.__arrow_c_array__()
        self.owners.append((schema_capsule, array_capsule))
        cdef ArrowSchema *schema = <ArrowSchema *>PyCapsule_GetPointer(schema_capsule, "arrow_schema")
        cdef ArrowArray *array = <ArrowArray *>PyCapsule_GetPointer(array_capsule, "arrow_array")
        return self.add_arrow(schema.format, array, what)

    cdef int add_arrow_stream(self, object exporter, str what) except -1:
        cdef ArrowArrayStream *stream
        cdef ArrowSchema schema
        cdef ArrowHolder holder
        cdef int error
        capsule = exporter.__arrow_c_stream__()
        stream = <ArrowArrayStream *>PyCapsule_GetPointer(capsule, "arrow_array_stream")
        memset(&schema, 0, sizeof(schema))
        if stream.get_schema(stream, &schema) != 0:
            raise InvalidRequestError(f"the Arrow stream of {what}s gave no schema")
        try:
            while True:
                holder = ArrowHolder.__new__(ArrowHolder)
                error = stream.get_next(stream, &holder.array)
                if error != 0:
                    raise InvalidRequestError(f"the Arrow stream of {what}s failed with error {error}")
                if holder.array.release == NULL:
                    return 0
                self.owners.append(holder)
                self.add_arrow(schema.format, &holder.array, what)
        finally:
            if schema.release != NULL:
                schema.release(&schema)

    cdef int add_arrow(self, const char *format, void *opaque, str what) except -1:
        cdef ArrowArray *array = <ArrowArray *>opaque
        cdef const uint8_t *validity
        cdef const int32_t *offsets32 = NULL
        cdef const int64_t *offsets64 = NULL
        cdef const uint8_t *views = NULL
        cdef const uint8_t *data = NULL
        cdef int64_t i, at, width = -1
        cdef int64_t start, size
        cdef ls_span *span
        if array.length == 0:
            return 0
        validity = <const uint8_t *>array.buffers[0] if array.null_count != 0 else NULL
        if strcmp(format, "z") == 0 or strcmp(format, "u") == 0:
            offsets32 = <const int32_t *>array.buffers[1]
            data = <const uint8_t *>array.buffers[2]
        elif strcmp(format, "Z") == 0 or strcmp(format, "U") == 0:
            offsets64 = <const int64_t *>array.buffers[1]
            data = <const uint8_t *>array.buffers[2]
        elif strncmp(format, "w:", 2) == 0:
            width = int((<bytes>format)[2:])
            data = <const uint8_t *>array.buffers[1]
        elif strcmp(format, "vz") == 0 or strcmp(format, "vu") == 0:
            views = <const uint8_t *>array.buffers[1]
        else:
            raise InvalidRequestError(
                f"an Arrow array of format {(<bytes>format).decode()!r} can't be stored as {what}s; "
                "cast it to binary, string or fixed-size binary"
            )
        self.reserve(array.length)
        for i in range(array.length):
            at = array.offset + i
            span = &self.spans[self.count]
            self.count += 1
            if validity != NULL and not (validity[at >> 3] >> (at & 7)) & 1:
                span.bytes = NULL
                span.size_bytes = -1
                continue
            if offsets32 != NULL:
                start = offsets32[at]
                size = offsets32[at + 1] - start
                span.bytes = data + start
            elif offsets64 != NULL:
                start = offsets64[at]
                size = offsets64[at + 1] - start
                span.bytes = data + start
            elif width >= 0:
                size = width
                span.bytes = data + at * width
            else:
                size = (<const int32_t *>(views + at * 16))[0]
                if size <= 12:
                    span.bytes = views + at * 16 + 4
                else:
                    span.bytes = (<const uint8_t *>array.buffers[2 + (<const int32_t *>(views + at * 16 + 8))[0]]
                                  + (<const int32_t *>(views + at * 16 + 12))[0])
            if size < 0 or size > SPAN_BYTES_MAX:
                raise InvalidRequestError(f"the Arrow array of {what}s has a length of {size} bytes at {i}")
            span.size_bytes = <int32_t>size
        return 0


@cython.final
cdef class ArrowHolder:
    """Releases an imported Arrow array when nothing points into it any more."""

    cdef ArrowArray array

    def __cinit__(self):
        memset(&self.array, 0, sizeof(self.array))

    def __dealloc__(self):
        if self.array.release != NULL:
            self.array.release(&self.array)
