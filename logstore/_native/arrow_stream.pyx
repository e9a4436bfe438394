"""Records as an Arrow stream, by the Arrow C interface: what is exported holds Python objects only as a stream."""

cimport cython
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport EINVAL, EIO, ENOMEM
from libc.stdint cimport int32_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset
from logstore._native.arrow_abi cimport ArrowArray, ArrowArrayStream, ArrowSchema
from logstore._native.arrow_arrays cimport (
    Gathered,
    free_gathered,
    gather,
    gathered_bytes,
    give_all,
    reserve_all_as,
    rows_within,
)
from logstore._native.arrow_schema cimport check_requested, fill_schema, release_schema
from logstore._native.columns cimport ColumnBatch, ColumnCursor
from logstore._native.core cimport ls_columns

from logstore.errors import InvalidRequestError

# A record batch of the stream ends at the first of these; a single larger record has one of its own. Far below
# 2 GiB, where 32-bit offsets end.
ROWS_MAX = 65536
BYTES_MAX = 64 << 20


cdef extern from "Python.h":
    int Py_IsInitialized() nogil


@cython.final
cdef class RecordStream:
    """What an exported stream holds. One caller at a time, from any thread."""

    cdef list parts                     # of (log, start_offset, stop_offset), the next one last
    cdef ColumnCursor cursor
    cdef bint committed
    cdef ColumnBatch pending
    cdef Py_ssize_t pending_at
    cdef Py_ssize_t rows_max
    cdef Py_ssize_t bytes_max
    cdef Gathered last                  # sizes alone; the memory is the reader's
    cdef bytes error
    cdef const char *error_text

    cdef bint reach(self) except -1:
        """Has `pending` hold records that were not gathered yet; False at the end."""
        while self.pending is None or self.pending_at >= self.pending.count:
            self.pending = None
            if self.cursor is None:
                if not self.parts:
                    return False
                log, start_offset, stop_offset = self.parts.pop()
                self.cursor = ColumnCursor(log, start_offset, stop_offset, 0, self.committed)
            self.pending = self.cursor.fetch_columns()
            self.pending_at = 0
            if self.pending is None:
                self.cursor = None
        return True

    cdef bint fill(self, ArrowArray *out) except -1:
        """The next record batch; False at the end."""
        cdef Gathered gathered
        cdef bint done = False
        memset(&gathered, 0, sizeof(gathered))
        if not self.reach():
            return False
        try:
            if not reserve_all_as(&gathered, &self.last):
                raise MemoryError("no memory for an Arrow record batch")
            while gathered.rows < self.rows_max and self.reach():
                if not self.gather_pending(&gathered):
                    break
            self.last = gathered
            done = give_all(out, &gathered)
            if not done:
                if out.release != NULL:
                    out.release(out)
                raise MemoryError("no memory for an Arrow record batch")
            return True
        finally:
            free_gathered(&gathered)

    cdef bint gather_pending(self, Gathered *gathered) except -1:
        """Gathers what of `pending` still fits; False where that is nothing."""
        cdef ColumnBatch batch = self.pending
        cdef size_t first = batch.first + self.pending_at
        cdef size_t count = min(batch.count - self.pending_at, self.rows_max - <Py_ssize_t>gathered.rows)
        cdef size_t used = gathered_bytes(gathered)
        cdef size_t room = self.bytes_max - used if used < <size_t>self.bytes_max else 0
        cdef const ls_columns *columns = &batch.memory.columns
        cdef const uint8_t *origin = batch.origin
        cdef const uint8_t *origin_end = batch.origin_end
        cdef int32_t partition = batch.partition
        cdef int done
        if gathered.rows > 0 and used >= <size_t>self.bytes_max:
            return False
        with nogil:
            count = rows_within(columns, origin, origin_end, first, count, room)
            if count == 0 and gathered.rows == 0:
                count = 1
            done = 1
            if count > 0:
                done = gather(gathered, columns, partition, origin, origin_end, first, count)
        if not done:
            raise MemoryError("no memory for an Arrow record batch")
        self.pending_at += count
        return count > 0


cdef int stream_schema(ArrowArrayStream *stream, ArrowSchema *out) noexcept nogil:
    if fill_schema(out):
        return 0
    release_schema(out)
    return ENOMEM


cdef bytes text_of(object error):
    """Never fails: a failure here would look like the end of the stream."""
    cdef bytes name = type(error).__name__.encode("utf-8", "replace")
    try:
        return name + b": " + str(error).encode("utf-8", "replace")
    except Exception:
        return name


cdef int stream_next(ArrowArrayStream *stream, ArrowArray *out) noexcept with gil:
    cdef RecordStream self = <RecordStream>stream.private_data
    memset(out, 0, sizeof(ArrowArray))
    try:
        self.fill(out)
        return 0
    except BaseException as error:
        # Whatever it is, it can only go on as text.
        self.error = text_of(error)
        self.error_text = self.error
        if isinstance(error, MemoryError):
            return ENOMEM
        if isinstance(error, InvalidRequestError):
            return EINVAL
        return EIO


cdef const char *stream_error(ArrowArrayStream *stream) noexcept nogil:
    return (<RecordStream>stream.private_data).error_text


cdef void stream_release(ArrowArrayStream *stream) noexcept nogil:
    # Without an interpreter there is nobody left to give the objects back to.
    if Py_IsInitialized():
        drop_stream(stream)
    stream.private_data = NULL
    stream.release = NULL


cdef void drop_stream(ArrowArrayStream *stream) noexcept with gil:
    Py_DECREF(<object>stream.private_data)


cdef void free_stream_capsule(object capsule) noexcept:
    cdef ArrowArrayStream *stream = <ArrowArrayStream *>PyCapsule_GetPointer(capsule, "arrow_array_stream")
    if stream.release != NULL:
        stream.release(stream)
    free(stream)


def stream_capsule(parts, requested_schema=None, *, Py_ssize_t rows_max=ROWS_MAX, Py_ssize_t bytes_max=BYTES_MAX,
                   bint committed=False):
    """Records of one partition after another, as an ``arrow_array_stream`` capsule.

    Parameters
    ----------
    parts : iterable of (LogState, int, int)
        Log, start offset, stop offset (exclusive).
    requested_schema : PyCapsule, optional
        Must have the same fields; their types stay what they are.
    rows_max, bytes_max : int
        Where a record batch of the stream ends.
    committed : bool
        Records of committed transactions only, and of none.

    Returns
    -------
    PyCapsule

    Raises
    ------
    InvalidRequestError
        Other fields were asked for.
    """
    cdef RecordStream records
    cdef ArrowArrayStream *stream
    if requested_schema is not None:
        check_requested(requested_schema)
    records = RecordStream.__new__(RecordStream)
    records.parts = list(parts)[::-1]
    records.rows_max = max(rows_max, 1)
    records.committed = committed
    records.bytes_max = min(max(bytes_max, 0), BYTES_MAX)
    stream = <ArrowArrayStream *>malloc(sizeof(ArrowArrayStream))
    if stream == NULL:
        raise MemoryError("no memory for an Arrow stream")
    stream.get_schema = stream_schema
    stream.get_next = stream_next
    stream.get_last_error = stream_error
    stream.release = stream_release
    Py_INCREF(records)
    stream.private_data = <void *>records
    return PyCapsule_New(stream, "arrow_array_stream", free_stream_capsule)
