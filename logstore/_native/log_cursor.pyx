"""Walking the batches of one log: chunks read without the GIL, batches validated in place."""

cimport cython
from libc.stdint cimport INT64_MAX, int64_t, uint8_t
from logstore._native.aborted_transactions cimport AbortedTransactions
from logstore._native.core cimport (
    LS_CORRUPT,
    LS_OK,
    LS_TORN,
    ls_batch_header,
    ls_batch_last_offset,
    ls_batch_location,
    ls_batch_size_bytes,
    ls_batch_validate,
    ls_fault,
    ls_segment_read,
    ls_segment_size_bytes,
    ls_status,
)
from logstore._native.faults cimport raise_fault
from logstore._native.log_state cimport LogState, LogTail
from logstore._native.record_batch cimport Chunk, RecordBatch
from logstore._native.segment cimport Segment

from logstore.errors import CorruptDataError, LogTruncatedError, OffsetOutOfRangeError, StorageFailureError

# A first read is small, so that a look-up costs little; each further one doubles up to the largest, where the
# copy is as fast as it gets and still fits the second-level cache.
cdef Py_ssize_t FIRST_CHUNK_BYTES = 16 * 1024
cdef Py_ssize_t CHUNK_BYTES = 512 * 1024
# Below this a CRC costs less than letting the GIL go and taking it back.
cdef Py_ssize_t NOGIL_BYTES = 16 * 1024


cdef extern from *:
    """
    #define LS_REFERENCE_COUNT(object) Py_REFCNT((PyObject *)(object))
    """
    Py_ssize_t LS_REFERENCE_COUNT(object)


@cython.final
cdef class LogCursor:
    """Hands out the batches of a log from an offset on. One thread at a time.

    Parameters
    ----------
    log : LogState
    start_offset : int
        The first batch handed out is the one that holds this offset, or the first after it.
    stop_offset : int, optional
        Exclusive; None for as far as the log goes.
    chunk_bytes : int, optional
        Largest read, unless one batch is larger.
    committed : bool
        Stops at the last stable offset and passes over batches of aborted transactions.
    """

    def __init__(self, LogState log not None, int64_t start_offset, stop_offset=None, Py_ssize_t chunk_bytes=0,
                 bint committed=False):
        self.log = log
        self.next_offset = start_offset
        self.stop_offset = INT64_MAX if stop_offset is None else stop_offset
        self.chunk_bytes = chunk_bytes if chunk_bytes > 0 else CHUNK_BYTES
        self.next_chunk_bytes = min(FIRST_CHUNK_BYTES, self.chunk_bytes)
        self.seen_truncations = log.truncation_count
        self.seen_replacements = log.replacement_count
        self.committed = committed

    def __iter__(self):
        return self

    def __next__(self):
        cdef RecordBatch batch = self.fetch_batch()
        if batch is None:
            raise StopIteration
        return batch

    def next_batch(self):
        """The next batch, or None at the log end offset (or last stable offset) or ``stop_offset``; call again once there
        is more.

        Raises
        ------
        OffsetOutOfRangeError
            The position was deleted, or lies past the log end offset.
        LogTruncatedError
            Records that this cursor handed out are no longer part of the log.
        CorruptDataError
            The next batch is damaged. `skip_damage` goes on behind it.
        ClosedError
        """
        return self.fetch_batch()

    cdef int check_truncation(self) except -1:
        cdef int64_t lowest
        if self.seen_truncations != self.log.truncation_count:
            # Also where the log has grown past this position again: what stands there now is something else.
            lowest = min(self.log.truncation_offsets[self.seen_truncations:])
            if self.next_offset > lowest:
                raise LogTruncatedError(
                    f"{self.log.topic}-{self.log.partition} was truncated to offset {lowest}, below "
                    f"this reader's position {self.next_offset}; read again from there",
                    offset=self.next_offset, log_start_offset=self.log.log_start_offset,
                    log_end_offset=self.log.log_end_offset, truncation_offset=lowest,
                )
            self.seen_truncations = self.log.truncation_count
            self.segment = None
            self.aborted_until = 0
        return 0

    cdef bint relocate(self) except -1:
        """After damage: whether segments were replaced since they were looked up, so that it may be none. A segment that is
        opened by its name when it is first read may have become another by then."""
        if self.seen_replacements == self.log.replacement_count and not self.log._has_replaced_segments():
            return False
        self.segment = None
        return True

    cdef bint reach(self) except -1:
        """Has the chunk hold bytes of the next batch; False at the log end offset or ``stop_offset``."""
        while True:
            try:
                return self.reach_chunk()
            except (CorruptDataError, StorageFailureError):
                # Where what it stood in was taken away, it may be of a file that is gone: the next look says so.
                if (not self.relocate() and self.next_offset >= self.log.log_start_offset
                        and self.seen_truncations == self.log.truncation_count):
                    raise

    cdef bint reach_chunk(self) except -1:
        cdef int64_t log_end_offset, limit
        while True:
            self.log.check_readable()
            # The end offset first: everything below it is published before it is.
            log_end_offset = self.log.end_offset
            if self.log.staged and self.next_offset >= log_end_offset:
                log_end_offset = self.log.current_end()
            limit = min(log_end_offset, self.log.first_unstable_offset) if self.committed else log_end_offset
            self.check_truncation()
            if self.next_offset >= self.stop_offset or self.next_offset >= limit:
                # (The batch in the segment may go on behind what was staged of it: it is published soon.)
                if (self.next_offset > log_end_offset and self.next_offset < self.stop_offset
                        and not self.log.ends_in_memory):
                    raise out_of_range(self.log, self.next_offset)
                return False
            if self.next_offset < self.log.log_start_offset:
                raise out_of_range(self.log, self.next_offset)
            if self.segment is None and not self.locate():
                return self.end_of_log(log_end_offset)
            if self.at < self.chunk.size:
                self.end_offset = limit
                if self.committed and self.next_offset >= self.aborted_until:
                    self.look_up_aborted(self.next_offset)
                return True
            if self.chunk_position + self.at < ls_segment_size_bytes(self.segment.segment):
                self.fill(0)
            elif not self.next_segment():
                return self.end_of_log(log_end_offset)

    cdef int look_up_aborted(self, int64_t start_offset) except -1:
        """Fetches the aborted transactions from an offset on, as far as this segment goes and all are decided."""
        cdef int64_t until = min(self.end_offset, self.segment.options.end_offset_max)
        self.aborted = None
        if self.log.aborted_possible:
            found = self.log._aborted_between(start_offset, until)
            if found:
                self.aborted = AbortedTransactions(found)
        self.aborted_until = until
        return 0

    cdef bint end_of_log(self, int64_t log_end_offset) except -1:
        """No batch is left. Fine where the log ends in a gap; where records are known to be missing, it is said."""
        damage = getattr(self.log, "damage", None)
        if damage is not None and self.next_offset < min(self.stop_offset, log_end_offset):
            raise CorruptDataError(damage.path, damage.position, damage.reason, damage.expected, damage.actual)
        return False

    cdef bint reach_whole(self, const ls_fault *torn, bint in_place) except -1:
        """After LS_TORN: reads the rest of the batch, if the file goes on behind the chunk; raises if not.

        Where it fits, the rest goes behind what the chunk holds, and the batches before it stay where they are;
        otherwise into another chunk, or, if it is to be ``in_place``, nowhere: False.
        """
        cdef int64_t left = ls_segment_size_bytes(self.segment.segment) - (self.chunk_position + self.at)
        cdef Py_ssize_t available = self.chunk.size - self.at
        cdef Py_ssize_t missing = <Py_ssize_t>min(left, torn.expected) - available
        if missing > 0 and missing <= self.chunk.capacity - self.chunk.size:
            self.read_into(self.chunk, self.chunk.size, missing)
            return True
        if in_place:
            return False
        if missing <= 0:
            raise_fault(torn, self.segment.path)
        self.fill(available + missing)
        return True

    cdef RecordBatch fetch_batch(self):
        cdef ls_batch_header header
        cdef ls_fault fault
        cdef ls_status status
        cdef BatchPlace place
        cdef const uint8_t *at
        cdef const uint8_t *end
        cdef int64_t position
        while self.reach():
            position = self.chunk_position + self.at
            at = self.chunk.data + self.at
            end = self.chunk.data + self.chunk.size
            if end - at > NOGIL_BYTES:
                with nogil:
                    status = ls_batch_validate(at, end, position, &header, &fault)
            else:
                status = ls_batch_validate(at, end, position, &header, &fault)
            if status == LS_TORN:
                try:
                    self.reach_whole(&fault, False)
                except CorruptDataError:
                    if not self.relocate():
                        raise
                continue
            if status == LS_OK:
                place = self.next_place()
                status = check_place(&place, &header, position, &fault)
            if status != LS_OK:
                if self.seen_truncations != self.log.truncation_count:
                    continue  # cut while it was read, and perhaps written anew
                if self.relocate():
                    continue
                raise_fault(&fault, self.segment.path)
            if self.committed and header.base_offset >= self.end_offset:
                return None  # behind a gap that ends at the last stable offset
            self.at += <Py_ssize_t>ls_batch_size_bytes(&header)
            self.least_base_offset = ls_batch_last_offset(&header) + 1
            if self.least_base_offset <= self.next_offset:
                continue
            if header.base_offset >= self.stop_offset:
                self.next_offset = self.stop_offset
                return None
            self.next_offset = self.least_base_offset
            if self.committed:
                if header.base_offset >= self.aborted_until:
                    self.look_up_aborted(header.base_offset)
                if self.aborted is not None and self.aborted.holds(&header):
                    continue
            return RecordBatch.wrap(self.chunk, at, &header, self.log.topic, self.log.partition, self.segment.path,
                                    position)
        return None

    cdef BatchPlace next_place(self):
        cdef BatchPlace place
        place.least_base_offset = self.least_base_offset
        place.end_offset_max = self.segment.options.end_offset_max
        place.contiguous = self.log.contiguous
        return place

    cdef bint locate(self) except -1:
        """Finds segment and position of the batch that holds next_offset; False where there is none yet."""
        self.seen_replacements = self.log.replacement_count
        cdef tuple segments = self.log.segment_list
        cdef Py_ssize_t low = 0
        cdef Py_ssize_t high = len(segments)
        cdef Py_ssize_t middle
        cdef ls_batch_location location
        cdef Segment segment
        while low < high:
            middle = (low + high) // 2
            if (<Segment>segments[middle]).base_offset <= self.next_offset:
                low = middle + 1
            else:
                high = middle
        if low == 0:
            raise out_of_range(self.log, self.next_offset)
        while low <= len(segments):
            segment = self.open_segment(<Segment>segments[low - 1])
            if segment is None:
                return self.locate()
            if segment.locate_batch(self.next_offset, &location):
                if self.log.contiguous and location.header.base_offset > self.next_offset:
                    raise CorruptDataError(segment.path, location.position, "records are missing before this batch",
                                           self.next_offset, location.header.base_offset)
                self.segment = segment
                self.start_at(location.position, location.header.base_offset)
                # A look-up reads the batch it is after in one go, and nothing behind it.
                self.next_chunk_bytes = min(max(FIRST_CHUNK_BYTES, <Py_ssize_t>min(
                    ls_batch_size_bytes(&location.header), self.chunk_bytes)), self.chunk_bytes)
                return True
            low += 1
        return False

    cdef Segment open_segment(self, Segment segment):
        """A segment of the log, open; None where it has been replaced since the log's segments were looked at."""
        try:
            return segment.opened()
        except (CorruptDataError, StorageFailureError):
            refresh = getattr(self.log, "refresh", None)
            if refresh is not None:
                refresh()  # another process may have deleted it
            if self.next_offset < self.log.log_start_offset:
                raise out_of_range(self.log, self.next_offset) from None
            if segment in self.log.segment_list:
                raise
            return None

    cdef int start_at(self, int64_t position, int64_t base_offset) except -1:
        self.chunk_position = position
        self.at = 0
        self.least_base_offset = base_offset
        self.chunk = Chunk.create(0) if self.chunk is None else self.fresh_chunk(0)
        self.chunk.size = 0
        return 0

    cdef bint next_segment(self) except -1:
        """Goes on in the segment after this one; False where this is the last."""
        cdef tuple segments = self.log.segment_list
        cdef Py_ssize_t i
        cdef Segment segment
        for i in range(len(segments)):
            segment = <Segment>segments[i]
            if segment.base_offset > self.segment.base_offset:
                # What was appended between the last look at the old segment and now is read first.
                if self.chunk_position + self.at < ls_segment_size_bytes(self.segment.segment):
                    return True
                if segment.base_offset != self.segment.options.end_offset_max:
                    # Compaction has made others of those that followed: the next records are found by their offset.
                    self.next_offset = max(self.next_offset, self.least_base_offset)
                    self.segment = None
                    return True
                if self.log.contiguous and segment.base_offset != self.least_base_offset:
                    raise CorruptDataError(segment.path, -1, "records are missing before this segment",
                                           self.least_base_offset, segment.base_offset)
                segment = self.open_segment(segment)
                if segment is None:
                    return self.next_segment()
                self.segment = segment
                self.start_at(0, max(self.least_base_offset, segment.base_offset))
                return True
        if self.seen_replacements != self.log.replacement_count or (
                self.log.ends_in_memory and segments and segments[len(segments) - 1] is not self.segment
                and (<Segment>segments[len(segments) - 1]).base_offset == self.segment.base_offset):
            # Another object may be in this one's place, and have more; or follow on this one, which is empty.
            self.next_offset = max(self.next_offset, self.least_base_offset)
            self.segment = None
            return True
        return False

    cdef Chunk fresh_chunk(self, Py_ssize_t capacity):
        """A chunk to read into: an earlier one where no batch points into it any more."""
        cdef Chunk chunk
        if self.chunk is not None and self.chunk.capacity >= capacity and LS_REFERENCE_COUNT(self.chunk) == 1:
            return self.chunk
        chunk = self.spare_chunk
        self.spare_chunk = self.chunk
        if chunk is not None and chunk.capacity >= capacity and LS_REFERENCE_COUNT(chunk) == 1:
            return chunk
        return Chunk.create(capacity)

    cdef bint fill(self, Py_ssize_t needed) except -1:
        """Reads the next chunk, from the next batch on; at least `needed` bytes of it."""
        cdef int64_t position = self.chunk_position + self.at
        cdef int64_t published = ls_segment_size_bytes(self.segment.segment)
        cdef Py_ssize_t size = max(needed, self.next_chunk_bytes)
        cdef LogTail tail = self.log.tail
        cdef Chunk chunk
        if (tail is not None and tail.position == position and tail.segment is self.segment
                and tail.truncation_count == self.seen_truncations and tail.chunk.size >= needed):
            self.spare_chunk = self.chunk
            self.chunk = tail.chunk  # full, so that nothing is ever read into it while others hold it
            self.chunk_position = position
            self.at = 0
            return True
        self.next_chunk_bytes = min(self.next_chunk_bytes * 4, self.chunk_bytes)
        if published - position < size:
            size = <Py_ssize_t>(published - position)
        # Room for the rest of the last batch, so that its beginning is not read twice.
        chunk = self.fresh_chunk(size + size // 2)
        chunk.size = 0
        self.chunk = chunk
        self.chunk_position = position
        self.at = 0
        self.read_into(chunk, 0, size)
        return True

    cdef int read_into(self, Chunk chunk, Py_ssize_t at, Py_ssize_t size) except -1:
        """Reads the next `size` bytes of the segment to `at`, the end of what the current chunk holds."""
        cdef int64_t position = self.chunk_position + at
        cdef size_t got = 0
        cdef ls_fault fault
        cdef ls_status status
        with nogil:
            status = ls_segment_read(self.segment.segment, position, chunk.data + at, size, &got, &fault)
        if status != LS_OK:
            raise_fault(&fault, self.segment.path)
        if <Py_ssize_t>got < size:
            # Cut meanwhile, or in a truncation that failed half-way: what is below the log end offset is there.
            chunk.size = at + <Py_ssize_t>got
            if got > 0 or self.seen_truncations != self.log.truncation_count:
                return 0
            raise CorruptDataError(self.segment.path, position + got, "the file is shorter than what was appended",
                                   position + size, position + got)
        chunk.size = at + size
        return 0

    def skip_damage(self):
        """After a `CorruptDataError`: moves behind the damaged batch, to the next one that can be found.

        Returns
        -------
        tuple[int, int]
            The offsets passed over, ``[first, last)``; the reader stands at ``last``.

        Raises
        ------
        CorruptDataError
            Nothing sound was found behind the damage.
        """
        cdef int64_t first = self.next_offset
        cdef ls_batch_location location
        cdef Segment segment
        cdef tuple segments = self.log.segment_list
        cdef int64_t target
        # Through the offset index first, then segment by segment.
        for item in segments:
            segment = <Segment>item
            if segment.options.end_offset_max <= first:
                continue
            segment.ensure_open()
            for target, _ in segment.offset_index_entries:
                if target > first:
                    try:
                        found = segment.locate_batch(target, &location)
                    except CorruptDataError:
                        continue
                    if found and location.header.base_offset > first:
                        self.segment = segment
                        self.next_offset = location.header.base_offset
                        self.start_at(location.position, location.header.base_offset)
                        return first, self.next_offset
            if segment.options.end_offset_max != INT64_MAX and segment.options.end_offset_max > first:
                self.segment = None
                self.next_offset = segment.options.end_offset_max
                return first, self.next_offset
        self.segment = None
        self.next_offset = self.log.current_end()
        return first, self.next_offset


cdef ls_status check_place(const BatchPlace *place, const ls_batch_header *header, int64_t position,
                           ls_fault *fault) noexcept nogil:
    fault.status = LS_CORRUPT
    fault.os_errno = 0
    fault.position = position
    fault.expected = place.least_base_offset
    fault.actual = header.base_offset
    if header.base_offset < place.least_base_offset:
        fault.reason = "base offset does not rise"
        return LS_CORRUPT
    if place.contiguous and header.base_offset != place.least_base_offset and place.least_base_offset > 0:
        fault.reason = "records are missing before this batch"
        return LS_CORRUPT
    if ls_batch_last_offset(header) >= place.end_offset_max:
        fault.reason = "offset belongs to the next segment"
        fault.expected = place.end_offset_max
        fault.actual = ls_batch_last_offset(header)
        return LS_CORRUPT
    return LS_OK


cdef object out_of_range(LogState log, int64_t offset):
    return OffsetOutOfRangeError(
        f"offset {offset} is outside of {log.topic}-{log.partition}, which holds offsets {log.log_start_offset} to "
        f"{log.log_end_offset} (exclusive); read from \"earliest\", or from {log.log_start_offset}",
        offset=offset, log_start_offset=log.log_start_offset, log_end_offset=log.log_end_offset,
    )
