"""Segments: one .log file and its indexes, opened when first needed."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.errno cimport EMFILE, ENFILE
from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t
from libc.string cimport memset
from logstore._native.core cimport (
    LS_DIGEST_BYTES,
    LS_END,
    LS_FILE_CREATE,
    LS_FILE_READ,
    LS_FILE_WRITE,
    LS_OFFSET_INDEX_ENTRY_BYTES,
    LS_OK,
    LS_TAIL_CORRUPT,
    LS_TAIL_NONE,
    LS_TAIL_TORN,
    LS_TIME_INDEX_ENTRY_BYTES,
    ls_batch_last_offset,
    ls_batch_location,
    ls_batch_size_bytes,
    ls_digest,
    ls_descriptors_max,
    ls_digest_write,
    ls_fault,
    ls_file,
    ls_file_close,
    ls_file_in_memory,
    ls_file_open,
    ls_file_pool,
    ls_file_pool_create,
    ls_file_pool_forget,
    ls_file_pool_limit,
    ls_file_pool_make_room,
    ls_file_pool_open_count,
    ls_file_sync,
    ls_offset_index,
    ls_offset_index_count,
    ls_offset_index_encode,
    ls_offset_index_entry,
    ls_recovery_report,
    ls_segment,
    ls_segment_allow_gaps,
    ls_segment_catch_up,
    ls_segment_close_time_index,
    ls_segment_create,
    ls_segment_cut_ahead,
    ls_segment_digest,
    ls_segment_fill_ahead,
    ls_segment_filled_bytes,
    ls_segment_find_timestamp,
    ls_segment_free,
    ls_segment_get_state,
    ls_segment_locate,
    ls_segment_log_file,
    ls_segment_offset_index,
    ls_segment_read,
    ls_segment_recover,
    ls_segment_reserved_bytes,
    ls_segment_share_descriptor,
    ls_segment_size_bytes,
    ls_segment_state,
    ls_segment_time_index,
    ls_segment_truncate_bytes,
    ls_status,
    ls_time_index,
    ls_time_index_count,
    ls_time_index_encode,
    ls_time_index_entry,
)
from logstore._native.faults cimport raise_fault
from logstore._native.index_files cimport (
    closing_timestamp,
    had_entries,
    load_index_files,
    load_offset_bytes,
    load_time_bytes,
    offset_entries_below,
    time_entries_below,
)

import os
import time
from typing import NamedTuple

from logstore.errors import CorruptDataError


# Sealed segments of this process that stay open once they were read; beyond, each reader opens its own and closes it when it
# moves on, so that a log of many segments doesn't use up the file descriptors.
cdef int OPEN_SEALED_MAX = <int>min(256, ls_descriptors_max() // 4)
cdef int open_sealed = 0

# Segments that are written, of all logs of this process: so many are open at a time, and more only while they wait for the
# disk. A log that is used again has its segment opened again.
cdef int OPEN_ACTIVE_MAX = 256
cdef ls_file_pool *active_files = NULL
cdef int active_open_max, active_unsynced_max


cdef ls_file_pool *shared_descriptors() noexcept:
    """Made with the first log; NULL where the system has none."""
    global active_files, active_open_max, active_unsynced_max
    cdef ls_fault fault
    cdef int64_t descriptors_max
    if active_files == NULL:
        descriptors_max = ls_descriptors_max()
        active_open_max = <int>max(min(OPEN_ACTIVE_MAX, descriptors_max // 4), 1)
        active_unsynced_max = <int>max(descriptors_max // 2, active_open_max)
        ls_file_pool_create(active_open_max, active_unsynced_max, &active_files, &fault)
    return active_files


def limit_open_files(int open_max, int unsynced_max):
    """How many active segments may be open at a time, and how many while they are not flushed; for tests. Process-wide.

    Returns
    -------
    tuple[int, int]
        The limits before.
    """
    global active_open_max, active_unsynced_max
    if open_max < 1 or unsynced_max < open_max:
        raise ValueError("open_max is 1 or more, unsynced_max no less than that")
    if shared_descriptors() != NULL:
        ls_file_pool_limit(active_files, open_max, unsynced_max)
    before = active_open_max, active_unsynced_max
    active_open_max, active_unsynced_max = open_max, unsynced_max
    return before


def open_files_count():
    """How many active segments are open now."""
    return ls_file_pool_open_count(active_files) if active_files != NULL else 0


def _forget_open_files():
    """In a forked child: they are the parent's."""
    global active_files
    if active_files != NULL:
        ls_file_pool_forget(active_files)
        active_files = NULL


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_open_files)


class SegmentScan(NamedTuple):
    """What a recovery scan of one segment found.

    Attributes
    ----------
    file_size_bytes, valid_bytes : int
        The file, and how much of it from the start is sound.
    next_offset : int
        After the last sound batch.
    batches_count : int
        Sound batches scanned.
    tail : str
        ``"none"``, ``"torn"`` (may be cut) or ``"corrupt"`` (must not be).
    reason : str
        What is wrong at ``position``; empty for ``"none"``.
    position, expected, actual : int
        Of the damage.
    next_valid_position : int
        Where a sound later batch stands behind the damage, or -1.
    is_filled : bool
        The tail is nothing but zeros: the file was filled ahead of its end, or never written there.
    """

    file_size_bytes: int
    valid_bytes: int
    next_offset: int
    batches_count: int
    tail: str
    reason: str
    position: int
    expected: int
    actual: int
    next_valid_position: int
    is_filled: bool


_TAILS = {LS_TAIL_NONE: "none", LS_TAIL_TORN: "torn", LS_TAIL_CORRUPT: "corrupt"}


@cython.final
cdef class Segment:
    """One segment of a log.

    Made by `create` (a new active one), `sealed` (opened when first read), and by `segment_opening` (the active one of an
    existing log). One writer at a time; any number of readers.
    """

    def __init__(self):
        raise TypeError("segments belong to a log")

    def __dealloc__(self):
        global open_sealed
        if self.counted:
            open_sealed -= 1
        if self.segment != NULL:
            with nogil:  # of a deleted file the last one to close it frees the bytes, which takes a while
                ls_segment_free(self.segment)

    @staticmethod
    def create(str path, int64_t base_offset, *, int32_t index_interval_bytes, int64_t index_bytes,
               bint contiguous=False):
        """Creates the .log file of a new active segment; one must not exist.

        Parameters
        ----------
        path : str
            Of the .log file.
        base_offset : int
        index_interval_bytes, index_bytes : int
            ``index.interval.bytes`` and ``segment.index.bytes``.
        contiguous : bool
            No offsets are missing in it: a gap is damage, until `allow_gaps`.

        Returns
        -------
        Segment

        Raises
        ------
        StorageFailureError
        """
        cdef Segment made = make_segment(path, base_offset, INT64_MAX, index_interval_bytes, index_bytes, contiguous,
                                         True)
        cdef ls_segment_state state
        empty_state(&state, base_offset)
        made.open_file(LS_FILE_CREATE, &state)
        return made

    @staticmethod
    def in_memory(bytes batch not None, str path not None, int64_t base_offset, *, int32_t index_interval_bytes,
                  int64_t index_bytes, bint contiguous=False):
        """A segment of one batch that is in no segment file, to be read.

        Parameters
        ----------
        batch : bytes
            Sealed; its base offset is the segment's.
        path : str
            Where it was found, for errors.

        Returns
        -------
        Segment

        Raises
        ------
        CorruptDataError
            It is no batch.
        """
        cdef Segment made = make_segment(path, base_offset, INT64_MAX, index_interval_bytes, index_bytes, contiguous,
                                         False)
        cdef ls_segment_state state
        cdef ls_file *file = NULL
        cdef ls_fault fault
        cdef int64_t size = len(batch)
        empty_state(&state, base_offset)
        if ls_file_in_memory(<const uint8_t *>PyBytes_AS_STRING(batch), size, &file, &fault) != LS_OK:
            raise_fault(&fault, path)
        if ls_segment_create(file, &made.options, &state, &made.segment, &fault) != LS_OK:
            ls_file_close(file)
            raise_fault(&fault, path)
        if made.catch_up() != size:
            raise CorruptDataError(path, -1, "the records are no batch")
        return made

    def allow_gaps(self):
        """From now on a gap between batches is no damage."""
        self.options.is_contiguous = False
        if self.segment != NULL:
            ls_segment_allow_gaps(self.segment)

    @staticmethod
    def sealed(str path, int64_t base_offset, int64_t end_offset_max, *, int32_t index_interval_bytes,
               int64_t index_bytes, bint contiguous=False):
        """A segment that is no longer written; its files are opened when first read.

        Parameters
        ----------
        end_offset_max : int
            The next segment's base offset.

        Returns
        -------
        Segment
        """
        return make_segment(path, base_offset, end_offset_max, index_interval_bytes, index_bytes, contiguous, False)

    cdef int load_indexes(self, int64_t trusted_bytes, int64_t trusted_offset) except -1:
        """Index entries below a trusted boundary, from the files; marks them doubtful where they can't be used."""
        if not load_index_files(self.segment, self.path, self.base_offset, trusted_bytes, trusted_offset):
            self.doubtful_index = True
            return 0
        self.offset_entries_written = ls_offset_index_count(ls_segment_offset_index(self.segment))
        self.time_entries_written = ls_time_index_count(ls_segment_time_index(self.segment))
        if self.offset_entries_written == 0 and had_entries(self.path, trusted_bytes, self.options.index_interval_bytes):
            # Correct, but every look-up would scan: such a log has entries, so the file was lost.
            self.doubtful_index = True
        return 0

    cdef int open_file(self, int mode, const ls_segment_state *state) except -1:
        cdef ls_file *file = NULL
        cdef ls_segment *segment = NULL
        cdef ls_fault fault
        cdef bytes encoded = os.fsencode(self.path)
        cdef const char *path = PyBytes_AS_STRING(encoded)
        cdef ls_status status
        cdef bint tries = True
        while tries:
            with nogil:
                status = ls_file_open(path, mode, &file, &fault)
                tries = (status != LS_OK and (fault.os_errno == EMFILE or fault.os_errno == ENFILE)
                         and active_files != NULL and ls_file_pool_make_room(active_files))
        if status != LS_OK:
            raise_fault(&fault, self.path)
        if ls_segment_create(file, &self.options, state, &segment, &fault) != LS_OK:
            ls_file_close(file)
            raise_fault(&fault, self.path)
        if self.segment != NULL:
            # Another thread was first; readers may already be using its segment.
            ls_segment_free(segment)
            return 0
        self.segment = segment
        return 0

    cdef Segment opened(self):
        """This segment, open; or another over the same file, where enough stay open already."""
        cdef Segment own = self
        if self.segment == NULL and open_sealed >= OPEN_SEALED_MAX:
            own = make_segment(self.path, self.base_offset, self.options.end_offset_max,
                               self.options.index_interval_bytes, 0, False, False)
            own.options = self.options
        own.ensure_open()
        return own

    cdef int ensure_open(self) except -1:
        """Opens a sealed segment's files: whole index files if they can be trusted, else from its headers."""
        global open_sealed
        cdef ls_segment_state state
        cdef int64_t size = 0
        cdef Segment opened
        if self.segment != NULL:
            return 0
        # Loaded aside and published with one assignment, for other readers of this object.
        opened = make_segment(self.path, self.base_offset, self.options.end_offset_max,
                              self.options.index_interval_bytes, 0, False, False)
        opened.options = self.options
        try:
            size = os.path.getsize(self.path)
        except FileNotFoundError:
            raise CorruptDataError(self.path, -1, "a segment file of this log is missing") from None
        empty_state(&state, self.base_offset)
        state.size_bytes = size
        state.next_offset = self.options.end_offset_max
        opened.open_file(LS_FILE_READ, &state)
        opened.load_indexes(size, self.options.end_offset_max)
        if size > 0 and (opened.doubtful_index
                         or ls_time_index_count(ls_segment_time_index(opened.segment)) == 0):
            # Without a closing entry no batch has a timestamp, or the file was lost.
            opened.rebuild_sealed(size)
        if self.segment == NULL:
            self.segment = opened.segment
            opened.segment = NULL
            self.counted = True
            open_sealed += 1
            self.doubtful_index = opened.doubtful_index
        return 0

    cdef int rebuild_sealed(self, int64_t size_bytes) except -1:
        """Entries from the batches' headers; damage is stepped over, so that what stands behind it is found."""
        cdef ls_recovery_report report
        cdef ls_fault fault
        cdef ls_status status
        cdef ls_segment *scanned = self.segment
        cdef ls_segment_state state
        cdef int64_t position = 0
        cdef int64_t next_offset = self.base_offset
        while True:
            with nogil:
                status = ls_segment_recover(scanned, position, next_offset, 0, &report, &fault)
            if status != LS_OK:
                raise_fault(&fault, self.path)
            if report.tail == LS_TAIL_NONE or report.next_valid_position < 0:
                break
            position = report.next_valid_position
            next_offset = report.next_offset
        ls_segment_close_time_index(scanned)
        ls_segment_get_state(scanned, &state)
        offset_bytes = self.encode_offset_index(0)
        time_bytes = self.encode_time_index(0)
        # A second segment over the same entries whose size is the whole file: a read over the damage has to
        # raise, and one behind it has to work.
        state.size_bytes = size_bytes
        state.next_offset = self.options.end_offset_max
        self.segment = NULL
        ls_segment_free(scanned)
        self.open_file(LS_FILE_READ, &state)
        load_offset_bytes(self.segment, offset_bytes)
        load_time_bytes(self.segment, time_bytes)
        return 0

    # ---- what it knows ---------------------------------------------------------------------------

    @property
    def size_bytes(self):
        """Published size of the .log file, in bytes."""
        if self.segment == NULL:
            try:
                return os.path.getsize(self.path)
            except FileNotFoundError:
                return 0
        return ls_segment_size_bytes(self.segment)

    @property
    def next_offset(self):
        """After the last record; for a sealed segment the next one's base offset."""
        cdef ls_segment_state state
        if self.segment == NULL or self.options.end_offset_max != INT64_MAX:
            return self.options.end_offset_max
        ls_segment_get_state(self.segment, &state)
        return state.next_offset

    @property
    def max_timestamp(self):
        """Largest timestamp in ms; -1 for none."""
        return self.latest_timestamp()

    cdef int64_t latest_timestamp(self) except? -2:
        cdef ls_segment_state state
        cdef int64_t timestamp = -1
        cdef int64_t offset = -1
        cdef ls_time_index *index
        cdef Segment own = self
        if self.segment == NULL:
            if self.knows_facts:
                return self.known_max_timestamp
            closing = closing_timestamp(self.path, self.base_offset, self.options.end_offset_max)
            if closing is not None:
                return closing
            own = self.opened()
        ls_segment_get_state(own.segment, &state)
        index = ls_segment_time_index(own.segment)
        if ls_time_index_count(index) > 0:
            ls_time_index_entry(index, ls_time_index_count(index) - 1, &timestamp, &offset)
        return max(state.max_timestamp, timestamp)

    def facts(self):
        """What retention looks at, without opening the files of a sealed segment; asked again, it costs no system call.

        Returns
        -------
        tuple[int, int, int]
            ``(size_bytes, max_timestamp, modified_ms)``: the last is when the .log file was written last; all of a file that
            is gone is 0, -1, 0.
        """
        if self.knows_facts:
            return self.known_size_bytes, self.known_max_timestamp, self.known_modified_ms
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            return 0, -1, 0
        size = status.st_size if self.segment == NULL else ls_segment_size_bytes(self.segment)
        try:
            found = (size, self.max_timestamp if size else -1, status.st_mtime_ns // 1_000_000)
        except CorruptDataError:
            if os.path.exists(self.path):
                raise
            return 0, -1, 0
        if self.options.end_offset_max != INT64_MAX:
            self.know_facts(found[0], found[1], found[2])
        return found

    cdef void know_facts(self, int64_t size_bytes, int64_t max_timestamp, int64_t modified_ms) noexcept:
        self.known_size_bytes = size_bytes
        self.known_max_timestamp = max_timestamp
        self.known_modified_ms = modified_ms
        self.knows_facts = True

    @property
    def first_timestamp(self):
        """Timestamp of the first record in ms; -1 where there is none or it is damaged."""
        cdef ls_batch_location location
        cdef ls_fault fault
        cdef Segment own = self.opened()
        if ls_segment_locate(own.segment, self.base_offset, &location, &fault) != LS_OK:
            return -1
        return location.header.base_timestamp

    @property
    def state(self):
        """The writer's side of it, as a dict; for recovery, ``info`` and tests."""
        cdef ls_segment_state state
        self.ensure_open()
        ls_segment_get_state(self.segment, &state)
        return dict(state)

    @property
    def digest(self):
        """Digest of all batches, 16 bytes, as they were written in this session; None where not all were.

        For the writer, once nothing more is appended.
        """
        cdef ls_digest digest
        cdef bytes out
        if self.segment == NULL or not ls_segment_digest(self.segment, &digest):
            return None
        out = PyBytes_FromStringAndSize(NULL, LS_DIGEST_BYTES)
        ls_digest_write(&digest, <uint8_t *>PyBytes_AS_STRING(out))
        return out

    @property
    def offset_index_entries(self):
        """The offset index, as ``list[tuple[int, int]]`` of (offset, position)."""
        cdef int64_t offset
        cdef int32_t position
        cdef size_t i
        self.ensure_open()
        entries = []
        for i in range(ls_offset_index_count(ls_segment_offset_index(self.segment))):
            ls_offset_index_entry(ls_segment_offset_index(self.segment), i, &offset, &position)
            entries.append((offset, position))
        return entries

    @property
    def time_index_entries(self):
        """The time index, as ``list[tuple[int, int]]`` of (timestamp in ms, offset)."""
        cdef int64_t timestamp, offset
        cdef size_t i
        self.ensure_open()
        entries = []
        for i in range(ls_time_index_count(ls_segment_time_index(self.segment))):
            ls_time_index_entry(ls_segment_time_index(self.segment), i, &timestamp, &offset)
            entries.append((timestamp, offset))
        return entries

    def __repr__(self):
        return f"Segment(base_offset={self.base_offset}, size_bytes={self.size_bytes}, path={self.path!r})"

    # ---- reading ---------------------------------------------------------------------------------

    cdef int locate_batch(self, int64_t offset, ls_batch_location *location) except -1:
        """1: found; 0: no batch here ends at or after the offset."""
        cdef ls_fault fault
        cdef ls_status status
        self.ensure_open()
        with nogil:
            status = ls_segment_locate(self.segment, offset, location, &fault)
        if status == LS_OK:
            return 1
        if status == LS_END:
            return 0
        raise_fault(&fault, self.path)

    def locate(self, int64_t offset):
        """The batch that holds an offset, or the first one after it.

        Returns
        -------
        tuple[int, int, int, int] or None
            ``(position, size_bytes, base_offset, last_offset)``; None where no batch here ends at or after it.

        Raises
        ------
        CorruptDataError
        """
        cdef ls_batch_location location
        if not self.locate_batch(offset, &location):
            return None
        return (location.position, ls_batch_size_bytes(&location.header), location.header.base_offset,
                ls_batch_last_offset(&location.header))

    def find_timestamp(self, int64_t timestamp, int64_t from_offset):
        """The first batch from an offset on whose largest timestamp is at or after one.

        Returns
        -------
        tuple[int, int, int, int] or None
            As `locate`.

        Raises
        ------
        CorruptDataError
        """
        cdef ls_batch_location location
        cdef ls_fault fault
        cdef ls_status status
        cdef Segment own = self.opened()
        with nogil:
            status = ls_segment_find_timestamp(own.segment, timestamp, from_offset, &location, &fault)
        if status == LS_END:
            return None
        if status != LS_OK:
            raise_fault(&fault, self.path)
        return (location.position, ls_batch_size_bytes(&location.header), location.header.base_offset,
                ls_batch_last_offset(&location.header))

    def read(self, int64_t position, Py_ssize_t size):
        """Up to ``size`` bytes of the published part, as bytes.

        Raises
        ------
        StorageFailureError
        """
        cdef ls_fault fault
        cdef ls_status status
        cdef size_t got = 0
        cdef bytes out
        cdef uint8_t *at
        self.ensure_open()
        size = min(size, max(ls_segment_size_bytes(self.segment) - position, 0))
        out = PyBytes_FromStringAndSize(NULL, size)
        if size == 0:
            return out
        at = <uint8_t *>PyBytes_AS_STRING(out)
        with nogil:
            status = ls_segment_read(self.segment, position, at, size, &got, &fault)
        if status != LS_OK:
            raise_fault(&fault, self.path)
        return out if <Py_ssize_t>got == size else out[:got]

    # ---- writing's cold side ---------------------------------------------------------------------

    def sync(self):
        """fdatasync of the .log file.

        Raises
        ------
        StorageFailureError
        """
        cdef ls_fault fault
        cdef ls_status status
        cdef ls_file *file
        self.ensure_open()
        file = ls_segment_log_file(self.segment)
        with nogil:
            status = ls_file_sync(file, &fault)
        if status != LS_OK:
            raise_fault(&fault, self.path)

    def recover(self, int64_t position, int64_t next_offset, *, bint deep=True):
        """Scans from a batch boundary to the end of the file and publishes what is sound; the file is not changed.

        Returns
        -------
        SegmentScan

        Raises
        ------
        StorageFailureError
        """
        cdef ls_recovery_report report
        cdef ls_fault fault
        cdef ls_status status
        memset(&report, 0, sizeof(report))
        with nogil:
            status = ls_segment_recover(self.segment, position, next_offset, deep, &report, &fault)
        if status != LS_OK:
            raise_fault(&fault, self.path)
        self.offset_entries_written = min(self.offset_entries_written,
                                          offset_entries_below(self.segment, position))
        self.time_entries_written = 0 if position == 0 else min(
            self.time_entries_written, time_entries_below(self.segment, next_offset))
        damaged = report.tail != LS_TAIL_NONE
        return SegmentScan(
            report.file_size_bytes, report.valid_bytes, report.next_offset, report.batches_count,
            _TAILS[report.tail], report.tail_fault.reason.decode() if damaged else "",
            report.tail_fault.position if damaged else -1, report.tail_fault.expected if damaged else -1,
            report.tail_fault.actual if damaged else -1, report.next_valid_position if damaged else -1,
            bool(report.is_filled),
        )

    def truncate(self, int64_t size_bytes, int64_t next_offset):
        """Cuts the file to a batch boundary, and the indexes with it.

        Raises
        ------
        StorageFailureError
        """
        cdef ls_fault fault
        cdef ls_status status
        with nogil:
            status = ls_segment_truncate_bytes(self.segment, size_bytes, next_offset, &fault)
        if status != LS_OK:
            raise_fault(&fault, self.path)
        self.offset_entries_written = min(self.offset_entries_written,
                                          ls_offset_index_count(ls_segment_offset_index(self.segment)))
        self.time_entries_written = min(self.time_entries_written,
                                        ls_time_index_count(ls_segment_time_index(self.segment)))

    def catch_up(self):
        """Publishes batches that another process has appended since.

        Returns
        -------
        int
            How many bytes were published.

        Raises
        ------
        StorageFailureError, CorruptDataError
        """
        cdef ls_fault fault
        cdef ls_status status
        cdef int64_t grew = 0
        with nogil:
            status = ls_segment_catch_up(self.segment, &grew, &fault)
        if status != LS_OK:
            raise_fault(&fault, self.path)
        return grew

    def share_descriptor(self, *, bint is_synced):
        """From now on the file may be closed while nobody uses it, for others to be opened, and is opened again when it is
        used. For the active segment of a log, before anybody else uses it.

        Parameters
        ----------
        is_synced : bool
            All that the file holds is known to be on disk. One that isn't is synced before it is closed.
        """
        cdef ls_fault fault
        cdef ls_file_pool *pool = shared_descriptors()
        cdef bytes encoded = os.fsencode(self.path)
        cdef const char *path = PyBytes_AS_STRING(encoded)
        cdef int mode = LS_FILE_WRITE if self.writable else LS_FILE_READ
        if pool != NULL and self.segment != NULL:
            with nogil:  # another may have to be synced; where this one can't be shared, it keeps its descriptor
                ls_segment_share_descriptor(self.segment, pool, path, mode, is_synced, &fault)

    def seal(self, int64_t end_offset_max):
        """Makes the active segment an inactive one: closing time index entry, upper bound of its offsets."""
        ls_segment_close_time_index(self.segment)
        self.options.end_offset_max = end_offset_max

    def fill_ahead(self, int64_t limit_bytes):
        """From now on appends keep the file filled with zeros ahead of its end, or large ones have it given blocks there, up
        to a size, while the disk has room: flushing what is written there takes no blocks, and with zeros no size."""
        ls_segment_fill_ahead(self.segment, limit_bytes)

    def cut_ahead(self):
        """Takes such zeros and blocks away and ends filling ahead. For the writer.

        Returns
        -------
        bool
            Whether there were zeros: the file's size is another then, and is on disk with the next flush.

        Raises
        ------
        StorageFailureError
        """
        cdef ls_fault fault
        cdef bint is_filled = ls_segment_filled_bytes(self.segment) > 0
        if ls_segment_cut_ahead(self.segment, &fault) != LS_OK:
            raise_fault(&fault, self.path)
        return is_filled

    @property
    def filled_bytes(self):
        """How many zeros stand ahead of the end, written by this process."""
        return 0 if self.segment == NULL else ls_segment_filled_bytes(self.segment)

    @property
    def reserved_bytes(self):
        """For how many bytes ahead of the end the file was given blocks, by this process."""
        return 0 if self.segment == NULL else ls_segment_reserved_bytes(self.segment)

    def take_place(self, str path):
        """A sealed segment that was written under another name becomes the one of this name; its file is renamed by the
        caller, before or after."""
        self.path = path
        self.writable = False

    def encode_offset_index(self, size_t first):
        """Bytes of the offset index file from entry ``first`` on."""
        cdef ls_offset_index *index = ls_segment_offset_index(self.segment)
        cdef size_t count = ls_offset_index_count(index)
        cdef bytes out
        if first >= count:
            return b""
        out = PyBytes_FromStringAndSize(NULL, (count - first) * LS_OFFSET_INDEX_ENTRY_BYTES)
        ls_offset_index_encode(index, first, count - first, <uint8_t *>PyBytes_AS_STRING(out))
        return out

    def encode_time_index(self, size_t first):
        """Bytes of the time index file from entry ``first`` on."""
        cdef ls_time_index *index = ls_segment_time_index(self.segment)
        cdef size_t count = ls_time_index_count(index)
        cdef bytes out
        if first >= count:
            return b""
        out = PyBytes_FromStringAndSize(NULL, (count - first) * LS_TIME_INDEX_ENTRY_BYTES)
        ls_time_index_encode(index, first, count - first, <uint8_t *>PyBytes_AS_STRING(out))
        return out

    def unwritten_index_bytes(self):
        """What the index files still lack: ``((position, bytes), (position, bytes))`` of .index and .timeindex."""
        self.ensure_open()
        return (
            (self.offset_entries_written * LS_OFFSET_INDEX_ENTRY_BYTES,
             self.encode_offset_index(self.offset_entries_written)),
            (self.time_entries_written * LS_TIME_INDEX_ENTRY_BYTES,
             self.encode_time_index(self.time_entries_written)),
        )

    @property
    def index_entries_count(self):
        """How many entries offset index and time index have."""
        self.ensure_open()
        return (ls_offset_index_count(ls_segment_offset_index(self.segment)),
                ls_time_index_count(ls_segment_time_index(self.segment)))

    def index_written(self, size_t offset_bytes, size_t time_bytes):
        """Notes that the index files now hold this many bytes."""
        self.offset_entries_written = offset_bytes // LS_OFFSET_INDEX_ENTRY_BYTES
        self.time_entries_written = time_bytes // LS_TIME_INDEX_ENTRY_BYTES


cdef Segment make_segment(str path, int64_t base_offset, int64_t end_offset_max, int32_t index_interval_bytes,
                          int64_t index_bytes, bint contiguous, bint writable):
    cdef Segment made = Segment.__new__(Segment)
    made.path = path
    made.base_offset = base_offset
    made.writable = writable
    made.created_ms = time.time_ns() // 1_000_000
    made.options.base_offset = base_offset
    made.options.end_offset_max = end_offset_max
    made.options.index_interval_bytes = index_interval_bytes
    made.options.offset_index_capacity = index_bytes // LS_OFFSET_INDEX_ENTRY_BYTES
    made.options.time_index_capacity = index_bytes // LS_TIME_INDEX_ENTRY_BYTES
    made.options.is_contiguous = contiguous
    return made


cdef void empty_state(ls_segment_state *state, int64_t base_offset):
    memset(state, 0, sizeof(ls_segment_state))
    state.next_offset = base_offset
    state.max_timestamp = -1
    state.max_timestamp_offset = -1
    state.first_batch_max_timestamp = -1
    state.last_leader_epoch = -1
