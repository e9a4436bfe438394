"""Reading records: an iterator over one log, or over several merged by timestamp."""

cimport cython
from libc.stdint cimport INT64_MAX, int64_t
from logstore._native.core cimport (
    LS_ATTRIBUTE_CONTROL,
    LS_END,
    LS_OK,
    ls_fault,
    ls_record_iterator_init,
    ls_record_iterator_next,
    ls_status,
)
from logstore._native.log_cursor cimport LogCursor
from logstore._native.record_batch cimport RecordBatch, new_record, raise_in_batch

# How many records of one log may be handed out before the others are looked at again.
cdef int RUN_LENGTH_MAX = 4096


@cython.final
cdef class Head:
    def __cinit__(self, LogCursor cursor not None):
        self.cursor = cursor
        self.start_offset = cursor.next_offset
        self.stop_offset = cursor.stop_offset

    cdef bint advance(self) except -1:
        """Makes `raw` the next record; False where there is none now."""
        cdef ls_fault fault
        cdef ls_status status
        cdef RecordBatch batch
        while True:
            if self.batch is not None:
                status = ls_record_iterator_next(&self.iterator, &self.raw, &fault)
                if status == LS_OK:
                    if self.raw.offset < self.start_offset:
                        continue
                    if self.raw.offset >= self.stop_offset:
                        self.batch = None
                        return False
                    self.ready = True
                    return True
                batch = self.batch
                self.batch = None
                if status != LS_END:
                    raise_in_batch(batch, &fault)
                batch = None
            batch = self.cursor.fetch_batch()
            if batch is None:
                return False
            if batch.header.attributes & LS_ATTRIBUTE_CONTROL:
                continue
            batch.open_payload()
            ls_record_iterator_init(&self.iterator, &batch.header, batch.payload, batch.payload_end)
            self.batch = batch

    cdef bint is_done(self) except -1:
        return self.batch is None and self.cursor.next_offset >= self.stop_offset


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
    cdef Head current
    cdef object wait
    cdef object on_close
    cdef int64_t runner_up_timestamp
    cdef int run_length

    def __cinit__(self, list cursors not None, wait=None, on_close=None):
        self.heads = [Head(cursor) for cursor in cursors]
        self.current = None
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
        self.current = None
        self.wait = None
        if on_close is not None:
            on_close()

    @property
    def positions(self):
        """Next offset of each log, as ``dict[tuple[str, int], int]``; what to go on from."""
        cdef Head head
        positions = {}
        for head in self.heads:
            next_offset = head.cursor.next_offset
            if head.ready:
                next_offset = head.raw.offset
            elif head.batch is not None:
                next_offset = max(head.raw.offset + 1, head.batch.header.base_offset, head.start_offset)
            positions[(head.cursor.log.topic, head.cursor.log.partition)] = next_offset
        return positions

    def __next__(self):
        cdef Head head
        if self.current is not None:
            head = self.current
            if len(self.heads) == 1:
                if head.ready or head.advance():
                    head.ready = False
                    return new_record(head.batch, &head.raw)
            else:
                self.run_length += 1
                if (self.run_length < RUN_LENGTH_MAX and (head.ready or head.advance())
                        and head.raw.timestamp < self.runner_up_timestamp):
                    head.ready = False
                    return new_record(head.batch, &head.raw)
            self.current = None
        while True:
            head = self.choose()
            if head is not None:
                head.ready = False
                return new_record(head.batch, &head.raw)
            if self.wait is None or self.all_done() or not self.wait():
                self.close()
                raise StopIteration

    cdef Head choose(self):
        """The head with the smallest timestamp, and the timestamp up to which it stays the smallest."""
        cdef Head head
        cdef Head best = None
        cdef int64_t runner_up = INT64_MAX
        for item in self.heads:
            head = <Head>item
            if not head.ready and not head.advance():
                continue
            if best is None:
                best = head
            elif head.raw.timestamp < best.raw.timestamp:
                runner_up = min(runner_up, best.raw.timestamp)
                best = head
            else:
                runner_up = min(runner_up, head.raw.timestamp)
        self.current = best
        self.runner_up_timestamp = runner_up
        self.run_length = 0
        return best

    cdef bint all_done(self) except -1:
        cdef Head head
        for item in self.heads:
            head = <Head>item
            if not head.is_done():
                return False
        return True
