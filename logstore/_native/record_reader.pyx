"""Reading records: an iterator over one log, or over several merged by timestamp."""

cimport cython
from libc.stdint cimport INT64_MAX, int64_t
from logstore._native.core cimport LS_ATTRIBUTE_CONTROL
from logstore._native.log_cursor cimport LogCursor
from logstore._native.record_batch cimport Record, RecordBatch, RecordFeed

# How many records of one log may be handed out before the others are looked at again.
cdef int RUN_LENGTH_MAX = 4096


@cython.final
cdef class Head:
    def __cinit__(self, LogCursor cursor not None):
        self.cursor = cursor
        self.feed = RecordFeed.__new__(RecordFeed)
        self.feed.next_offset = cursor.next_offset
        self.feed.stop_offset = cursor.stop_offset

    cdef Record take(self):
        """The next record; None where there is none now."""
        cdef Record record
        cdef RecordBatch batch
        while True:
            if self.feed.batch is not None:
                record = self.feed.take()
                if record is not None:
                    return record
                self.feed.leave()
            batch = self.cursor.fetch_batch()
            if batch is None:
                return None
            if not batch.header.attributes & LS_ATTRIBUTE_CONTROL:
                self.feed.begin(batch, self.feed.next_offset)

    cdef bint advance(self) except -1:
        """Has a record ready; False where there is none now."""
        if self.ready is None:
            self.ready = self.take()
        return self.ready is not None

    cdef bint is_done(self):
        return self.feed.batch is None and self.cursor.next_offset >= self.cursor.stop_offset

    cdef int64_t position(self):
        """Offset of the record to go on from."""
        if self.ready is not None:
            return self.ready.raw.offset
        if self.feed.batch is not None:
            return max(self.feed.next_offset, self.feed.batch.header.base_offset)
        return self.cursor.next_offset


@cython.final
cdef class RecordReader:
    """Iterates over records. One thread at a time; `close` or ``with`` lets go of what it waits on.

    Parameters
    ----------
    cursors : list[LogCursor]
        Several are merged by timestamp; within each the order is that of its offsets.
    wait : callable, optional
        Called when every log is read to its end: True to look again, False to stop. None: stop.
    on_close : callable, optional
        Called once when the reader is closed or collected.
    """

    cdef list heads
    cdef RecordFeed single      # of a read of one log, which needs no merging; None while there is anything else to do
    cdef Head current
    cdef object wait
    cdef object on_close
    cdef int64_t runner_up_timestamp
    cdef int run_length

    def __cinit__(self, list cursors not None, wait=None, on_close=None):
        self.heads = [Head(cursor) for cursor in cursors]
        self.wait = wait
        self.on_close = on_close

    def __iter__(self):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def __del__(self):
        self.close()

    def close(self):
        """Ends the reading. Idempotent; records handed out stay valid."""
        on_close = self.on_close
        self.on_close = None
        self.heads = []
        self.single = None
        self.current = None
        self.wait = None
        if on_close is not None:
            on_close()

    @property
    def positions(self):
        """Next offset of each log, as ``dict[tuple[str, int], int]``; what to go on from."""
        cdef Head head
        positions = {}
        for item in self.heads:
            head = <Head>item
            positions[(head.cursor.log.topic, head.cursor.log.partition)] = head.position()
        return positions

    def __next__(self):
        cdef Record record
        if self.single is not None:
            record = self.single.take()
            if record is not None:
                return record
            self.single = None
        record = self.next_of_one() if len(self.heads) == 1 else self.next_of_several()
        while record is None:
            if self.wait is None or self.all_done() or not self.wait():
                self.close()
                raise StopIteration
            record = self.next_of_one() if len(self.heads) == 1 else self.next_of_several()
        return record

    cdef Record next_of_one(self):
        cdef Head head = <Head>self.heads[0]
        cdef Record record = head.take()
        if head.feed.batch is not None:
            self.single = head.feed
        return record

    cdef Record next_of_several(self):
        cdef Head head = self.current
        cdef Record record
        if head is not None:
            self.run_length += 1
            if (self.run_length < RUN_LENGTH_MAX and head.advance()
                    and head.ready.raw.timestamp < self.runner_up_timestamp):
                record = head.ready
                head.ready = None
                return record
            self.current = None
        head = self.choose()
        if head is None:
            return None
        record = head.ready
        head.ready = None
        return record

    cdef Head choose(self):
        """The head with the smallest timestamp, and the timestamp up to which it stays the smallest."""
        cdef Head head
        cdef Head best = None
        cdef int64_t runner_up = INT64_MAX
        for item in self.heads:
            head = <Head>item
            if not head.advance():
                continue
            if best is None:
                best = head
            elif head.ready.raw.timestamp < best.ready.raw.timestamp:
                runner_up = min(runner_up, best.ready.raw.timestamp)
                best = head
            else:
                runner_up = min(runner_up, head.ready.raw.timestamp)
        self.current = best
        self.runner_up_timestamp = runner_up
        self.run_length = 0
        return best

    cdef bint all_done(self):
        cdef Head head
        for item in self.heads:
            head = <Head>item
            if not head.is_done():
                return False
        return True
