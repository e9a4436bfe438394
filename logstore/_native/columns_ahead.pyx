"""A second thread for long scans: reads, checks and decodes what comes next, without the GIL.

The offset index cuts a segment into pieces. Each is read, validated and decoded by itself, by whichever of the two
threads gets to it first. When it is taken, its first batch is held against what stood before. A piece that is not sound
from end to end, or has a compressed batch, is read again by the cursor, batch by batch: what is said of damage does not
depend on threads.
"""

cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from libc.stdint cimport INT64_MAX, int64_t
from logstore._native.column_walk cimport COLUMN_ROW_BYTES, STOP_CHUNK_END, STOP_FAULT, ColumnMemory, walk_chunk
from logstore._native.core cimport (
    LS_OK,
    ls_batch_header,
    ls_batch_header_read,
    ls_fault,
    ls_segment_find_cut,
    ls_segment_read,
    ls_segment_size_bytes,
    ls_work_ahead_count,
    ls_work_ahead_create,
    ls_work_ahead_drop,
    ls_work_ahead_free,
    ls_work_ahead_is_usable,
    ls_work_ahead_put,
    ls_work_ahead_take,
)
from logstore._native.log_cursor cimport BatchPlace, LogCursor, check_place
from logstore._native.record_batch cimport Chunk

# With so much left of a segment a thread is worth its while; it costs about as much as reading 200 KiB.
cdef int64_t AHEAD_BYTES_MIN = 1 << 20
cdef Py_ssize_t PIECE_BYTES_MIN = 32 * 1024
cdef Py_ssize_t PIECE_BYTES_MAX = 272 * 1024
# A batch may be larger than that, but not its memory several times without end.
cdef int64_t LARGE_PIECE_BYTES_MAX = 4 << 20
# What is kept for the next scan is no larger each.
cdef Py_ssize_t IDLE_BYTES_MAX = 512 * 1024
cdef int FAILURES_MAX = 4
# Of all scans of the process together.
cdef int THREADS_MAX = 4
cdef int threads_count = 0


def scan_threads():
    """How many threads of this process read ahead of scans now."""
    return threads_count


cdef extern from *:
    """
    #define LS_REFERENCE_COUNT(object) Py_REFCNT((PyObject *)(object))
    """
    Py_ssize_t LS_REFERENCE_COUNT(void *object)


# What the last scans left, for the next one: its pages are there already.
cdef void *idle_chunks[SLOTS]
cdef void *idle_memories[SLOTS]


cdef Py_ssize_t memory_bytes(object memory):
    if isinstance(memory, Chunk):
        return (<Chunk>memory).capacity
    return (<ColumnMemory>memory).columns.capacity * COLUMN_ROW_BYTES


cdef void leave(void **idle, void *memory):
    """Gives up a reference; to the idle ones, if nobody else has one and there is room."""
    cdef int i
    if memory != NULL and LS_REFERENCE_COUNT(memory) == 1:
        for i in range(SLOTS if memory_bytes(<object>memory) <= IDLE_BYTES_MAX else 0):
            if idle[i] == NULL:
                idle[i] = memory
                return
    Py_XDECREF(<PyObject *>memory)


cdef void *find_idle(void **idle) noexcept:
    cdef int i
    cdef void *found
    for i in range(SLOTS):
        if idle[i] != NULL:
            found = idle[i]
            idle[i] = NULL
            return found
    return NULL


cdef void decode_piece(void *context, void *argument, int worker) noexcept nogil:
    cdef Piece *piece = <Piece *>argument
    cdef size_t size = <size_t>(piece.end - piece.position)
    cdef size_t got = 0
    piece.stop = STOP_FAULT
    piece.columns.count = 0
    if ls_segment_read(piece.segment, piece.position, piece.data, size, &got, &piece.walk.fault) == LS_OK and got == size:
        piece.stop = walk_chunk(&piece.walk, piece.columns)


# No part in garbage collection: the thread may be at work in what a collector would clear. It is part of no cycle.
@cython.no_gc
@cython.final
cdef class ColumnsAhead:
    """The pieces ahead of one cursor."""

    def __dealloc__(self):
        cdef int slot
        self.end_thread()
        for slot in range(SLOTS):
            leave(idle_chunks, self.chunks[slot])
            leave(idle_memories, self.memories[slot])

    cdef bint is_due(self, LogCursor cursor):
        """Whether a cursor that reads uncommitted records goes on where a piece may begin."""
        if cursor.segment is None or cursor.at < cursor.chunk.size or cursor.next_chunk_bytes < cursor.chunk_bytes:
            return False
        return self.failures < FAILURES_MAX and cursor.chunk_bytes >= PIECE_BYTES_MIN

    cdef bint take(self, LogCursor cursor) except -1:
        """Has `chunk` and `memory` be those of the next piece, and the cursor stand behind it; False where there is none, or
        the cursor has to have a look itself."""
        cdef int64_t limit
        cdef size_t slot
        cdef Piece *piece
        cdef BatchPlace place
        cdef ls_batch_header header
        cdef ls_fault fault
        cdef bint is_sound
        self.chunk = None
        self.memory = None
        if not self.start(cursor):
            return False
        limit = min(cursor.stop_offset, cursor.log.end_offset)
        self.put_pieces(cursor, limit)
        if ls_work_ahead_count(self.work) == 0:
            self.end_thread()
            return False
        with nogil:
            piece = <Piece *>ls_work_ahead_take(self.work)
        slot = self.next_taken % SLOTS
        self.next_taken += 1
        place = cursor.next_place()
        is_sound = piece.stop == STOP_CHUNK_END and ls_batch_header_read(
            piece.data, piece.data + (piece.end - piece.position), piece.position, &header, &fault) == LS_OK
        if (not is_sound or check_place(&place, &header, piece.position, &fault) != LS_OK
                or piece.walk.place.least_base_offset > limit):
            self.failures += 1
            self.not_before = piece.end
            self.forget()
            return False
        if cursor.seen_truncations != cursor.log.truncation_count:
            self.forget()
            return False
        self.chunk = <Chunk>self.chunks[slot]
        self.memory = <ColumnMemory>self.memories[slot]
        self.position = piece.end
        cursor.start_at(piece.end, piece.walk.place.least_base_offset)
        if cursor.next_offset < cursor.least_base_offset:
            cursor.next_offset = cursor.least_base_offset
        return True

    cdef bint start(self, LogCursor cursor) except -1:
        """Whether there is a thread, with no pieces but those that come next."""
        global threads_count
        cdef int64_t position = cursor.chunk_position + cursor.at
        if (not cursor.log.is_open or cursor.seen_truncations != cursor.log.truncation_count
                or cursor.next_offset < cursor.log.log_start_offset):
            self.forget()  # the cursor knows what to say of it
            return False
        if self.work != NULL and not ls_work_ahead_is_usable(self.work):
            self.forget()
        if (self.segment is not cursor.segment or self.position != position
                or self.seen_truncations != cursor.seen_truncations):
            self.forget()
            if self.segment is not cursor.segment:
                self.not_before = 0
            self.segment = cursor.segment
            self.position = position
            self.cut = position
            self.seen_truncations = cursor.seen_truncations
        if position < self.not_before:
            return False
        if self.work == NULL:
            if (threads_count >= THREADS_MAX
                    or ls_segment_size_bytes(cursor.segment.segment) - position < AHEAD_BYTES_MIN):
                return False
            self.work = ls_work_ahead_create(decode_piece, NULL)
            if self.work == NULL:
                self.failures = FAILURES_MAX
                return False
            threads_count += 1
        return True

    cdef int put_pieces(self, LogCursor cursor, int64_t limit) except -1:
        """Has as many pieces under way as there are, and are meant to be."""
        cdef int64_t end = 0
        cdef int64_t last_offset = 0
        cdef size_t slot
        cdef Piece *piece
        cdef int64_t wanted = min(cursor.chunk_bytes + cursor.chunk_bytes // 2, PIECE_BYTES_MAX)
        while ls_work_ahead_count(self.work) < PIECES_AHEAD:
            if not ls_segment_find_cut(self.segment.segment, self.cut, wanted, &end, &last_offset):
                break
            if last_offset >= limit or end - self.cut > LARGE_PIECE_BYTES_MAX:
                break
            slot = self.next_put % SLOTS
            self.own_slot(slot, <Py_ssize_t>(end - self.cut))
            piece = &self.pieces[slot]
            piece.segment = self.segment.segment
            piece.position = self.cut
            piece.end = end
            piece.data = (<Chunk>self.chunks[slot]).data
            piece.columns = &(<ColumnMemory>self.memories[slot]).columns
            piece.walk.origin = piece.data
            piece.walk.at = piece.data
            piece.walk.end = piece.data + (end - self.cut)
            piece.walk.position = self.cut
            piece.walk.start_offset = 0
            piece.walk.limit = INT64_MAX
            piece.walk.place = cursor.next_place()
            piece.walk.place.least_base_offset = 0  # what stands before the piece is not known yet
            piece.walk.aborted_count = 0
            self.next_put += 1
            self.cut = end
            ls_work_ahead_put(self.work, piece)
        return 0

    cdef int own_slot(self, size_t slot, Py_ssize_t size_bytes) except -1:
        """A slot's memory that nobody else refers to, with room for so many bytes."""
        cdef Chunk chunk
        cdef ColumnMemory memory
        cdef PyObject *before
        if self.chunks[slot] == NULL or LS_REFERENCE_COUNT(self.chunks[slot]) > 1 or (
                (<Chunk>self.chunks[slot]).capacity < size_bytes):
            before = <PyObject *>self.chunks[slot]
            self.chunks[slot] = find_idle(idle_chunks) if size_bytes <= PIECE_BYTES_MAX else NULL
            Py_XDECREF(before)
            if self.chunks[slot] == NULL:
                chunk = Chunk.create(max(size_bytes, PIECE_BYTES_MAX))
                Py_INCREF(chunk)
                self.chunks[slot] = <void *>chunk
        if self.memories[slot] == NULL or LS_REFERENCE_COUNT(self.memories[slot]) > 1:
            before = <PyObject *>self.memories[slot]
            self.memories[slot] = find_idle(idle_memories)
            Py_XDECREF(before)
            if self.memories[slot] == NULL:
                memory = ColumnMemory.__new__(ColumnMemory)
                Py_INCREF(memory)
                self.memories[slot] = <void *>memory
        (<Chunk>self.chunks[slot]).size = size_bytes
        return 0

    cdef void forget(self):
        """Drops what is under way."""
        if self.work != NULL:
            if not ls_work_ahead_is_usable(self.work):
                self.end_thread()  # that of the process this one was forked from
            else:
                with nogil:
                    ls_work_ahead_drop(self.work)
        self.next_taken = self.next_put
        self.position = -1
        self.chunk = None
        self.memory = None

    cdef void end_thread(self):
        global threads_count
        if self.work == NULL:
            return
        with nogil:
            ls_work_ahead_free(self.work)
        self.work = NULL
        self.next_taken = self.next_put
        self.position = -1
        threads_count -= 1
