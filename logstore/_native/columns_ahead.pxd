# Columns of what a long scan reads next, made by a second thread.

from libc.stdint cimport int64_t, uint8_t
from logstore._native.column_walk cimport ColumnMemory, Stop, Walk
from logstore._native.core cimport ls_columns, ls_segment, ls_work_ahead
from logstore._native.log_cursor cimport LogCursor
from logstore._native.record_batch cimport Chunk
from logstore._native.segment cimport Segment


cdef enum:
    PIECES_AHEAD = 4
    # The caller may hold the last one while it asks for the next; one is being taken.
    SLOTS = PIECES_AHEAD + 2


# Bytes [position, end) of a segment, between two places where its index says that a batch starts.
cdef struct Piece:
    ls_segment *segment
    int64_t position
    int64_t end
    uint8_t *data
    ls_columns *columns
    Walk walk
    Stop stop                       # STOP_CHUNK_END: all of it is in the columns


# Reads and decodes pieces of a segment ahead of one ColumnCursor. One thread at a time, besides its own.
cdef class ColumnsAhead:
    cdef ls_work_ahead *work        # NULL: no thread
    cdef Segment segment            # that the pieces are of
    cdef int64_t position           # of the next piece to take
    cdef int64_t cut                # behind the last piece put
    cdef int64_t seen_truncations
    cdef int64_t not_before         # position up to which pieces are of no use
    cdef int failures
    cdef Piece pieces[SLOTS]
    cdef void *chunks[SLOTS]        # a Chunk and a ColumnMemory for each piece, counted by hand
    cdef void *memories[SLOTS]
    cdef size_t next_put
    cdef size_t next_taken
    cdef Chunk chunk                # of the piece taken last
    cdef ColumnMemory memory

    cdef bint is_due(self, LogCursor cursor)
    cdef bint take(self, LogCursor cursor) except -1
    cdef bint start(self, LogCursor cursor) except -1
    cdef int put_pieces(self, LogCursor cursor, int64_t limit) except -1
    cdef int own_slot(self, size_t slot, Py_ssize_t size_bytes) except -1
    cdef void forget(self)
    cdef void end_thread(self)
