"""One record by its offset: the index, one read of its batch, and a cache of batches that were read so."""

cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy
from logstore._native.core cimport (
    LS_ATTRIBUTE_CONTROL,
    LS_END,
    LS_OK,
    ls_batch_header,
    ls_batch_last_offset,
    ls_batch_location,
    ls_batch_size_bytes,
    ls_batch_validate,
    ls_fault,
    ls_fetch_plan,
    ls_record,
    ls_record_iterator,
    ls_record_iterator_init,
    ls_record_iterator_next,
    ls_segment_fetch,
    ls_segment_find_entry,
    ls_segment_plan_fetch,
    ls_status,
)
from logstore._native.log_cursor cimport LogCursor, out_of_range
from logstore._native.log_state cimport LogState
from logstore._native.record_batch cimport Chunk, Record, RecordBatch, new_record, raise_in_batch
from logstore._native.segment cimport Segment

import os
from collections import deque

from logstore.errors import CorruptDataError, StorageFailureError


def _default_cache_bytes() -> int:
    """A 128th of the machine's memory, between 32 and 256 MiB."""
    try:
        memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        memory_bytes = 0
    return min(max(memory_bytes // 128, 32 << 20), 256 << 20)


# Of all logs of the process together.
CACHE_BYTES_MAX = _default_cache_bytes()
cdef Py_ssize_t cache_bytes_max = CACHE_BYTES_MAX

cdef extern from *:
    """
    #if defined(__GNUC__)
    #define LS_PREFETCH(address) __builtin_prefetch((const void *)(uintptr_t)(address))
    #else
    #define LS_PREFETCH(address) ((void)(address))
    #endif
    """
    void LS_PREFETCH(size_t address) noexcept

cdef enum:
    FETCHED_LINES = 4
    LINE_BYTES = 64
    SLOT_BITS = 16
    # What an entry takes besides its bytes and starts, about.
    ENTRY_BYTES = 512

# Where to look, and in what state the log was.
cdef struct Place:
    ls_fetch_plan plan
    size_t slot
    int64_t truncation_count
    int64_t replacement_count

# Where a batch may be kept, with all that a look-up asks of it: two cache lines side by side, since each place in memory
# that a look-up has to wait for takes as long as the rest of it.
cdef struct Slot:
    PyObject *entry             # CachedBatch; NULL: nothing is here
    PyObject *batch             # its RecordBatch
    int64_t log_number          # which log, and in what state: another one makes this batch none of it
    int64_t truncation_count
    int64_t replacement_count
    const uint32_t *starts      # of each record; NULL: look into the entry
    double offset_bytes         # what an offset takes of it, on average
    int32_t used                # since it was last considered to make room
    ls_record_iterator records  # at the first one

cdef Slot *slots = NULL             # made with the first look-up
cdef object cached = deque()        # every CachedBatch that has its batch, the one that may have to go first
cdef Py_ssize_t cached_bytes = 0
cdef int64_t logs_count = 0


@cython.final
cdef class CachedBatch:
    def __dealloc__(self):
        free(self.starts)
        free(self.marks)


cdef inline size_t slot_of(LogState log, Segment segment, int64_t position) noexcept:
    """A batch may be here or in the next one, this number with its last bit flipped. Few batches share a position: those
    that the index has no entry for, since they are small."""
    cdef uint64_t mixed = <uint64_t>log.lookup_number * 0x9e3779b97f4a7c15u + <uint64_t>segment.base_offset
    mixed = (mixed ^ (mixed >> 29)) * 0xbf58476d1ce4e5b9u + <uint64_t>position
    return <size_t>((mixed * 0x9e3779b97f4a7c15u) >> (64 - SLOT_BITS))


cdef inline bint serves(const Slot *slot, LogState log, int64_t offset) noexcept:
    return (slot.entry != NULL and slot.log_number == log.lookup_number
            and slot.records.base_offset <= offset <= slot.records.base_offset + slot.records.last_offset_delta
            and slot.truncation_count == log.truncation_count and slot.replacement_count == log.replacement_count)


cdef int put(size_t number, const Slot *filled) except -1:
    """Into a slot; what was there before is kept no longer."""
    global cached_bytes
    cdef PyObject *before = slots[number].entry
    slots[number] = filled[0]
    (<CachedBatch>filled.entry).slot = number
    if before != NULL:
        let_go(<CachedBatch>before)
    return 0


cdef int let_go(CachedBatch entry) except -1:
    """The entry's batch makes room. Its slot is another's, or emptied here; the entry itself goes when its turn comes."""
    global cached_bytes
    if slots[entry.slot].entry == <PyObject *>entry:
        slots[entry.slot].entry = NULL
    cached_bytes -= entry.size_bytes
    entry.size_bytes = 0
    entry.batch = None
    return 0


cdef int prepare(LogState log) except -1:
    """Gives the log a number that no other ever has, and makes the slots."""
    global slots, logs_count
    cdef size_t size = (<size_t>1 << SLOT_BITS) * sizeof(Slot)
    cdef void *made
    if slots == NULL:
        made = calloc(size + sizeof(Slot), 1)
        if made == NULL:
            raise MemoryError("no memory for the cache of looked-up batches")
        # Each in two lines that stand side by side; never freed.
        slots = <Slot *>((<size_t>made + sizeof(Slot) - 1) // sizeof(Slot) * sizeof(Slot))
    logs_count += 1
    log.lookup_number = logs_count
    return 0


cdef int keep(CachedBatch entry) except -1:
    """Counts an entry in, and has others make room."""
    global cached_bytes
    cdef CachedBatch other
    cached.append(entry)
    cached_bytes += entry.size_bytes
    while cached_bytes > cache_bytes_max and cached:
        other = <CachedBatch>cached.popleft()
        if other.batch is None:
            continue
        if slots[other.slot].used and other is not entry:
            slots[other.slot].used = False
            cached.append(other)
        else:
            let_go(other)
    return 0


def set_cache_bytes_max(Py_ssize_t limit_bytes):
    """How much memory looked-up batches may take, of all logs together; 0 keeps none. Process-wide.

    Returns
    -------
    int
        The limit before.
    """
    global cache_bytes_max
    before = cache_bytes_max
    cache_bytes_max = limit_bytes
    return before


def cache_bytes():
    """How much memory looked-up batches take now."""
    return cached_bytes


cdef Record record_at(LogState log, int64_t offset):
    """The record at an offset; None where it was compacted away, or is a marker.

    Raises
    ------
    OffsetOutOfRangeError, CorruptDataError, ClosedError
    """
    cdef Place place
    cdef Slot *slot
    cdef Segment segment
    cdef ls_record_iterator records
    cdef ls_record raw
    cdef ls_fault fault
    cdef int64_t delta
    cdef size_t at, i
    log.check_readable()
    if offset >= log.end_offset or offset < log.log_start_offset:  # what is staged is seen to there
        check_range(log, offset)
    if log.lookup_number == 0:
        prepare(log)
    # Before the segments are looked at, so that what is replaced meanwhile is not taken for what replaces it.
    place.truncation_count = log.truncation_count
    place.replacement_count = log.replacement_count
    segment = segment_of(log, offset)
    if segment is None:
        return look_up_slowly(log, offset)
    place.slot = slot_of(log, segment, ls_segment_find_entry(segment.segment, offset))
    slot = &slots[place.slot]
    if not serves(slot, log, offset):
        slot = &slots[place.slot ^ 1]
        if not serves(slot, log, offset):
            ls_segment_plan_fetch(segment.segment, offset, log.looked_up_at_entry, &place.plan)
            return look_up(log, segment, offset, &place)
    if slot.starts == NULL:
        return first_of(slot, offset)
    # Has the processor fetch, all at once, what comes next: the start, where the record is likely to be, the batch.
    delta = offset - slot.records.base_offset
    LS_PREFETCH(<size_t>(slot.starts + delta))
    at = <size_t>slot.records.start + <size_t>(<double>delta * slot.offset_bytes)
    for i in range(<size_t>FETCHED_LINES):
        LS_PREFETCH(at + i * LINE_BYTES)
    LS_PREFETCH(<size_t>slot.batch)
    slot.used = True
    records = slot.records
    records.at += slot.starts[delta]
    records.previous_delta = <int32_t>delta - 1
    records.remaining -= <int32_t>delta
    if ls_record_iterator_next(&records, &raw, &fault) != LS_OK or raw.offset != offset:
        return record_of(<RecordBatch>slot.batch, offset, <CachedBatch>slot.entry)
    return new_record(<RecordBatch>slot.batch, &raw)


cdef Record first_of(Slot *slot, int64_t offset):
    """Of a batch that is looked into for the second time, or has gaps."""
    cdef CachedBatch entry = <CachedBatch>slot.entry
    cdef RecordBatch batch = entry.batch
    mark_again(slot)
    return record_of(batch, offset, entry)


cdef int mark_again(Slot *slot) except -1:
    """Notes where the records of a batch start that is looked into for the second time."""
    cdef CachedBatch entry = <CachedBatch>slot.entry
    if not slot.used:
        slot.used = True
        if entry.marks == NULL and entry.starts == NULL:
            mark(entry)
            slot.starts = entry.starts
    return 0


cdef Record committed_record_at(LogState log, int64_t offset, object isolation_level):
    """As `record_at`; None also where the record's transaction was aborted, or is not decided yet."""
    cdef RecordBatch batch
    log.check_readable()
    if offset >= log.end_offset or offset < log.log_start_offset:  # what is staged is seen to there
        check_range(log, offset)
    batch = log.cursor(offset, offset + 1, isolation_level=isolation_level).next_batch()
    return None if batch is None else record_of(batch, offset, None)


cdef int check_range(LogState log, int64_t offset) except -1:
    refresh = getattr(log, "refresh", None)
    if refresh is not None and offset >= log.current_end():
        refresh()  # in a process that only reads, there may be more by now
    if not log.log_start_offset <= offset < log.current_end():
        raise out_of_range(log, offset)
    return 0


cdef Segment segment_of(LogState log, int64_t offset):
    """The segment that holds an offset, open; None where that takes a second look."""
    cdef tuple segments = log.segment_list
    cdef Segment segment
    cdef Py_ssize_t low = 0
    cdef Py_ssize_t high = len(segments)
    cdef Py_ssize_t middle
    while low < high:
        middle = (low + high) // 2
        if (<Segment>segments[middle]).base_offset <= offset:
            low = middle + 1
        else:
            high = middle
    if low == 0:
        return None
    segment = <Segment>segments[low - 1]
    if segment.segment == NULL:
        try:
            segment = segment.opened()
        except (CorruptDataError, StorageFailureError):
            return None
    return segment


cdef Record look_up_slowly(LogState log, int64_t offset):
    """By a cursor, which finds whatever there is, or says what is wrong."""
    cdef RecordBatch batch = LogCursor(log, offset, offset + 1).fetch_batch()
    return None if batch is None else record_of(batch, offset, None)


cdef CachedBatch kept_batch(LogState log, Segment segment, int64_t offset):
    cdef Place place
    cdef Slot *slot
    cdef size_t number, other
    if log.lookup_number == 0:
        prepare(log)
    place.truncation_count = log.truncation_count
    place.replacement_count = log.replacement_count
    place.slot = number = slot_of(log, segment, ls_segment_find_entry(segment.segment, offset))
    for other in range(4):
        if other == 2:
            ls_segment_plan_fetch(segment.segment, offset, log.looked_up_at_entry, &place.plan)
            if fetch(log, segment, offset, &place) is None:
                return None
        slot = &slots[number ^ (other & 1)]
        if serves(slot, log, offset):
            if slot.starts == NULL:
                mark_again(slot)
            slot.used = True
            return <CachedBatch>slot.entry
    return None


cdef Record look_up(LogState log, Segment segment, int64_t offset, Place *place):
    cdef RecordBatch batch = fetch(log, segment, offset, place)
    return look_up_slowly(log, offset) if batch is None else record_of(batch, offset, None)


cdef RecordBatch fetch(LogState log, Segment segment, int64_t offset, Place *place):
    """The batch that holds an offset, by one read, and from now on kept; None where it takes a second look."""
    cdef Chunk chunk = Chunk.create(place.plan.room_bytes)
    cdef CachedBatch entry
    cdef RecordBatch batch
    cdef Slot filled
    cdef ls_batch_location location
    cdef ls_batch_header header
    cdef ls_fault fault
    cdef ls_status status
    cdef const uint8_t *data = NULL
    cdef bint guessed = log.looked_up_at_entry
    with nogil:
        status = ls_segment_fetch(segment.segment, offset, &place.plan, chunk.data, &location, &data, &fault)
        if status == LS_END and guessed:
            ls_segment_plan_fetch(segment.segment, offset, False, &place.plan)
            if <Py_ssize_t>place.plan.room_bytes <= chunk.capacity:
                status = ls_segment_fetch(segment.segment, offset, &place.plan, chunk.data, &location, &data, &fault)
        if status == LS_OK:
            status = ls_batch_validate(data, data + ls_batch_size_bytes(&location.header), location.position, &header,
                                       &fault)
    if (status != LS_OK or ls_batch_last_offset(&header) >= segment.options.end_offset_max
            or place.truncation_count != log.truncation_count):
        return None
    log.looked_up_at_entry = location.position == place.plan.upto_position
    chunk.size = (data - chunk.data) + <Py_ssize_t>ls_batch_size_bytes(&header)
    batch = RecordBatch.wrap(chunk, data, &header, log.topic, log.partition, segment.path, location.position)
    entry = cacheable(batch, chunk)
    if entry is not None:
        keep(entry)
        if entry.batch is not None:
            filled.entry = <PyObject *>entry
            filled.batch = <PyObject *>entry.batch
            filled.log_number = log.lookup_number
            filled.truncation_count = place.truncation_count
            filled.replacement_count = place.replacement_count
            filled.starts = NULL
            filled.used = False
            ls_record_iterator_init(&filled.records, &entry.batch.header, entry.batch.payload, entry.batch.payload_end)
            filled.offset_bytes = (<double>(entry.batch.payload_end - entry.batch.payload)
                                   / <double>(<int64_t>header.last_offset_delta + 1))
            if slots[place.slot].entry != NULL:
                put(place.slot ^ 1, &slots[place.slot])
                slots[place.slot].entry = NULL
            put(place.slot, &filled)
    return batch


cdef CachedBatch cacheable(RecordBatch batch, Chunk chunk):
    """An entry for the cache, without what else was read along with the batch; None where it is too large."""
    cdef Py_ssize_t size_bytes = ls_batch_size_bytes(&batch.header)
    cdef CachedBatch entry
    cdef Chunk own
    cdef Py_ssize_t besides_bytes = ENTRY_BYTES + batch.header.records_count * <Py_ssize_t>sizeof(Mark)
    if size_bytes + besides_bytes > cache_bytes_max // 8:
        return None
    entry = CachedBatch.__new__(CachedBatch)
    entry.batch = batch
    entry.entry_offset = -1
    entry.size_bytes = besides_bytes + chunk.capacity
    if chunk.capacity > size_bytes + size_bytes // 4:
        own = Chunk.create(size_bytes)
        memcpy(own.data, batch.data, size_bytes)
        own.size = size_bytes
        entry.batch = RecordBatch.wrap(own, own.data, &batch.header, batch.topic, batch.partition, batch.path,
                                       batch.position)
        entry.size_bytes = besides_bytes + size_bytes
    if batch.payload_owner is not None:
        entry.batch.payload_owner = batch.payload_owner
        entry.batch.payload = batch.payload
        entry.batch.payload_end = batch.payload_end
        entry.size_bytes += batch.payload_end - batch.payload
        if entry.size_bytes > cache_bytes_max // 8:
            return None
    if not batch.header.attributes & LS_ATTRIBUTE_CONTROL:
        entry.batch.open_payload()
    return entry


cdef Record record_of(RecordBatch batch, int64_t offset, CachedBatch entry):
    """The record of a batch at an offset; None where there is none."""
    cdef ls_record_iterator iterator
    cdef ls_record raw
    cdef ls_fault fault
    cdef ls_status status
    cdef int32_t low = 0
    cdef int32_t high, middle, delta
    if batch.header.attributes & LS_ATTRIBUTE_CONTROL:
        return None
    batch.open_payload()
    ls_record_iterator_init(&iterator, &batch.header, batch.payload, batch.payload_end)
    if entry is not None and entry.marks != NULL:
        delta = <int32_t>(offset - batch.header.base_offset)
        high = entry.marks_count
        while high - low > 1:
            middle = (low + high) // 2
            if entry.marks[middle].delta <= delta:
                low = middle
            else:
                high = middle
        iterator.at += entry.marks[low].at
        iterator.previous_delta = entry.marks[low].delta - 1
        iterator.remaining -= low
    while True:
        status = ls_record_iterator_next(&iterator, &raw, &fault)
        if status == LS_END:
            return None
        if status != LS_OK:
            raise_in_batch(batch, &fault)
        if raw.offset >= offset:
            return new_record(batch, &raw) if raw.offset == offset else None


cdef int mark(CachedBatch entry) except -1:
    """Notes where every record starts; of a batch with a damaged one, none."""
    cdef ls_record_iterator iterator
    cdef ls_record raw
    cdef ls_fault fault
    cdef ls_status status = LS_OK
    cdef RecordBatch batch = entry.batch
    cdef int32_t count = batch.header.records_count
    cdef int32_t i = 0
    cdef uint32_t *starts
    cdef Mark *marks
    cdef bint in_order = True
    cdef int64_t timestamp = -1
    # Every record takes at least 7 bytes, whatever the header says.
    if batch.header.attributes & LS_ATTRIBUTE_CONTROL or not 0 < count <= (batch.payload_end - batch.payload) // 7:
        return 0
    starts = <uint32_t *>malloc(count * sizeof(uint32_t))
    marks = <Mark *>malloc(count * sizeof(Mark))
    if starts != NULL and marks != NULL:
        ls_record_iterator_init(&iterator, &batch.header, batch.payload, batch.payload_end)
        while status == LS_OK:
            if i < count:
                starts[i] = marks[i].at = <uint32_t>(iterator.at - iterator.start)
            status = ls_record_iterator_next(&iterator, &raw, &fault)
            if status == LS_OK:
                marks[i].delta = iterator.previous_delta
                in_order = in_order and raw.timestamp >= timestamp
                timestamp = raw.timestamp
                i += 1
        if status == LS_END and count == batch.header.last_offset_delta + 1:
            entry.starts = starts
            entry.in_order = in_order
            starts = NULL
        elif status == LS_END:
            entry.marks = marks
            entry.marks_count = count
            marks = NULL
    free(starts)
    free(marks)
    return 0
