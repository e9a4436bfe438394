"""Segments: one .log file and its indexes, opened when first needed."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset
from logstore._native.core cimport (
    LS_BATCH_HEADER_BYTES,
    LS_BATCH_OVERHEAD_BYTES,
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
    LS_UNSUPPORTED,
    ls_batch_last_offset,
    ls_batch_location,
    ls_batch_size_bytes,
    ls_digest,
    ls_digest_write,
    ls_fault,
    ls_file,
    ls_file_close,
    ls_file_facts,
    ls_file_identify,
    ls_file_identity,
    ls_file_look_at_logs,
    ls_file_open,
    ls_file_sync,
    ls_offset_index,
    ls_offset_index_count,
    ls_offset_index_encode,
    ls_offset_index_entry,
    ls_offset_index_load,
    ls_offset_index_truncate_position,
    ls_recovery_report,
    ls_segment,
    ls_segment_allow_gaps,
    ls_segment_catch_up,
    ls_segment_close_time_index,
    ls_segment_create,
    ls_segment_cut_ahead,
    ls_segment_digest,
    ls_segment_extend,
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
    ls_segment_size_bytes,
    ls_segment_state,
    ls_segment_time_index,
    ls_segment_truncate_bytes,
    ls_status,
    ls_time_index,
    ls_time_index_count,
    ls_time_index_encode,
    ls_time_index_entry,
    ls_time_index_load,
    ls_time_index_truncate,
)
from logstore._native.faults cimport raise_fault

import os
import time
from typing import NamedTuple

from logstore.errors import CorruptDataError, UnsupportedFormatError


# Sealed segments of this process that stay open once they were read; beyond, each reader opens its own and closes it when it
# moves on, so that a log of many segments doesn't use up the file descriptors.
cdef int OPEN_SEALED_MAX = 256
cdef int open_sealed = 0


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


def _read_whole(path):
    """The bytes of an index file, or None where there is none to trust."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        with open(descriptor, "rb", closefd=False) as file:
            return file.read()
    except OSError:
        return None
    finally:
        os.close(descriptor)


@cython.final
cdef class Segment:
    """One segment of a log.

    Made by `create` (a new active one), `reopen` (the active one of an existing log) and `sealed` (opened when first
    read). One writer at a time; any number of readers.
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
    def _make(str path, int64_t base_offset, int64_t end_offset_max, int32_t index_interval_bytes,
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
        cdef Segment made = Segment._make(path, base_offset, INT64_MAX, index_interval_bytes, index_bytes, contiguous,
                                          True)
        cdef ls_segment_state state
        empty_state(&state, base_offset)
        made.open_file(LS_FILE_CREATE, &state)
        return made

    @staticmethod
    def reopen(str path, int64_t base_offset, *, int32_t index_interval_bytes, int64_t index_bytes,
               int64_t trusted_bytes, int64_t trusted_offset, bint writable, bint deep=True, bint contiguous=False):
        """Opens the active segment of an existing log: its index files are used up to ``trusted_bytes``, and the
        rest of the .log is scanned.

        Parameters
        ----------
        trusted_bytes : int
            Up to here, a batch boundary, the file is known to be sound and on disk; 0 if nothing is known.
        trusted_offset : int
            Next offset at that boundary.
        deep : bool
            Whether the scan verifies CRCs or structure alone.

        Returns
        -------
        tuple[Segment, SegmentScan]

        Raises
        ------
        StorageFailureError
            The file can't be opened or read.
        CorruptDataError
            The file is shorter than what was known to be on disk, or the trusted part does not start a batch.
        """
        cdef Segment made = Segment._make(path, base_offset, INT64_MAX, index_interval_bytes, index_bytes, contiguous,
                                          writable)
        cdef ls_segment_state state
        cdef int64_t size = os.path.getsize(path)
        cdef int64_t position = 0
        cdef int64_t next_offset = base_offset
        cdef int64_t offset = 0
        cdef int32_t entry_position = 0
        cdef ls_offset_index *offset_index
        cdef ls_time_index *time_index
        cdef size_t count
        cdef int64_t timestamp = -1
        cdef int64_t timestamp_offset = -1
        if size < trusted_bytes:
            raise CorruptDataError(
                path, size, "the file is shorter than what was flushed", trusted_bytes, size,
                "Acknowledged records are gone from it: restore the file, or open read_only=True to read the rest.",
            )
        empty_state(&state, base_offset)
        if trusted_bytes > 0:
            state.size_bytes = trusted_bytes
            state.next_offset = trusted_offset
        made.open_file(LS_FILE_WRITE if writable else LS_FILE_READ, &state)
        if trusted_bytes > 0:
            made.load_indexes(trusted_bytes, trusted_offset)
            offset_index = ls_segment_offset_index(made.segment)
            time_index = ls_segment_time_index(made.segment)
            count = ls_offset_index_count(offset_index)
            if count > 0:
                # The scan starts at the last batch with an entry: what the entries after it would say about
                # timestamps is only known from the batches.
                ls_offset_index_entry(offset_index, count - 1, &offset, &entry_position)
                position = entry_position
                if count > 1:
                    ls_offset_index_entry(offset_index, count - 2, &next_offset, &entry_position)
                    next_offset += 1
            if ls_time_index_count(time_index) > 0:
                ls_time_index_entry(time_index, ls_time_index_count(time_index) - 1, &timestamp, &timestamp_offset)
                if timestamp_offset >= next_offset and position > 0:
                    ls_time_index_truncate(time_index, next_offset)
                    timestamp = -1
                    timestamp_offset = -1
                    if ls_time_index_count(time_index) > 0:
                        ls_time_index_entry(time_index, ls_time_index_count(time_index) - 1, &timestamp,
                                            &timestamp_offset)
        scan = made._scan_from(position, next_offset, timestamp, timestamp_offset, trusted_bytes, deep)
        if contiguous and position > 0 and not made.doubtful_index and not made._holds(offset, position):
            # The batch at the last entry has another offset than the entry says; no CRC covers it.
            made.doubtful_index = True
            scan = made.recover(0, base_offset, deep=deep)
        return made, scan

    @staticmethod
    def resume(str path, int64_t base_offset, *, int32_t index_interval_bytes, int64_t index_bytes, int64_t size_bytes,
               int64_t next_offset, int64_t max_timestamp, int64_t max_timestamp_offset, int64_t first_batch_max_timestamp,
               int32_t last_leader_epoch, size_t offset_entries, size_t time_entries, bint writable,
               bint contiguous=False):
        """Opens the active segment of an existing log where all is known of its first part: the rest alone is scanned.

        Parameters
        ----------
        size_bytes, next_offset, max_timestamp, max_timestamp_offset, first_batch_max_timestamp, last_leader_epoch : int
            `state` at a batch boundary.
        offset_entries, time_entries : int
            Index entries that the files hold of that part.

        Returns
        -------
        tuple[Segment, SegmentScan] or None
            None where file or indexes do not bear it out.

        Raises
        ------
        StorageFailureError
            The file can't be opened or read.
        """
        cdef Segment made = Segment._make(path, base_offset, INT64_MAX, index_interval_bytes, index_bytes, contiguous,
                                          writable)
        cdef ls_segment_state state
        empty_state(&state, base_offset)
        state.size_bytes = size_bytes
        state.next_offset = next_offset
        state.max_timestamp = max_timestamp
        state.max_timestamp_offset = max_timestamp_offset
        state.first_batch_max_timestamp = first_batch_max_timestamp
        state.last_leader_epoch = last_leader_epoch
        if os.path.getsize(path) < size_bytes:
            return None
        made.open_file(LS_FILE_WRITE if writable else LS_FILE_READ, &state)
        made.load_indexes(size_bytes, next_offset)
        # (The time index may have got one more since, for a timestamp below the boundary.)
        if made.doubtful_index or made.offset_entries_written != offset_entries or made.time_entries_written < time_entries:
            return None
        scan = made.recover(size_bytes, next_offset)
        # The batches on both sides of the boundary must meet there.
        last = made.locate(next_offset - 1)
        if last is None or last[0] + last[1] != size_bytes or last[3] != next_offset - 1:
            return None
        if scan.batches_count > 0:
            first = made.locate(next_offset)
            if first is None or first[0] != size_bytes or (contiguous and first[2] != next_offset):
                return None
        return made, scan

    def _holds(self, int64_t last_offset, int64_t position):
        cdef ls_batch_location location
        try:
            return (self.locate_batch(last_offset, &location) and location.position == position
                    and ls_batch_last_offset(&location.header) == last_offset)
        except (CorruptDataError, UnsupportedFormatError):  # the scan that follows says what is wrong
            return False

    def allow_gaps(self):
        """From now on a gap between batches is no damage."""
        self.options.is_contiguous = False
        if self.segment != NULL:
            ls_segment_allow_gaps(self.segment)

    def _scan_from(self, int64_t position, int64_t next_offset, int64_t max_timestamp, int64_t max_timestamp_offset,
                   int64_t trusted_bytes, bint deep):
        """Scans from a batch boundary; a boundary that does not hold (a wrong index) costs a scan from 0."""
        scan = self.recover(position, next_offset, deep=deep)
        if position > 0 and scan.valid_bytes < trusted_bytes:
            self.doubtful_index = True
            scan = self.recover(0, self.base_offset, deep=deep)
        return scan

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
        return Segment._make(path, base_offset, end_offset_max, index_interval_bytes, index_bytes, contiguous, False)

    cdef int open_file(self, int mode, const ls_segment_state *state) except -1:
        cdef ls_file *file = NULL
        cdef ls_segment *segment = NULL
        cdef ls_fault fault
        cdef bytes encoded = os.fsencode(self.path)
        cdef const char *path = PyBytes_AS_STRING(encoded)
        cdef ls_status status
        with nogil:
            status = ls_file_open(path, mode, &file, &fault)
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
            own = Segment._make(self.path, self.base_offset, self.options.end_offset_max,
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
        opened = Segment._make(self.path, self.base_offset, self.options.end_offset_max,
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

    cdef int load_indexes(self, int64_t trusted_bytes, int64_t trusted_offset) except -1:
        """Index entries below a trusted boundary, from the files; marks them doubtful where they can't be used."""
        cdef ls_offset_index *offset_index = ls_segment_offset_index(self.segment)
        cdef ls_time_index *time_index = ls_segment_time_index(self.segment)
        cdef ls_fault fault
        cdef const uint8_t[::1] view
        stem = self.path[:-len(".log")]
        offset_bytes = _read_whole(stem + ".index")
        time_bytes = _read_whole(stem + ".timeindex")
        if offset_bytes is None or time_bytes is None:
            self.doubtful_index = True
            return 0
        if len(offset_bytes):
            # A crash leaves entries past the boundary, or preallocated zeros behind the last one.
            offset_bytes = offset_bytes[: whole_entries(offset_bytes, LS_OFFSET_INDEX_ENTRY_BYTES)]
        if len(offset_bytes):
            view = offset_bytes
            if ls_offset_index_load(offset_index, &view[0], view.shape[0], INT64_MAX, &fault) != LS_OK:
                return self.drop_indexes()
        ls_offset_index_truncate_position(offset_index, trusted_bytes)
        # (One entry of zeros is one: the first record's timestamp was 0.)
        if len(time_bytes) != LS_TIME_INDEX_ENTRY_BYTES and (
                len(time_bytes) != whole_entries(time_bytes, LS_TIME_INDEX_ENTRY_BYTES)):
            # Nothing tells a time index that lacks its last entries from a whole one, but a ragged end does.
            return self.drop_indexes()
        if len(time_bytes):
            view = time_bytes
            if ls_time_index_load(time_index, &view[0], view.shape[0], INT64_MAX, &fault) != LS_OK:
                return self.drop_indexes()
        ls_time_index_truncate(time_index, trusted_offset)
        self.offset_entries_written = ls_offset_index_count(offset_index)
        self.time_entries_written = ls_time_index_count(time_index)
        if self.offset_entries_written == 0 and self.had_entries(trusted_bytes):
            # Correct, but every look-up would scan: such a log has entries, so the file was lost.
            self.doubtful_index = True
        return 0

    cdef bint had_entries(self, int64_t trusted_bytes) except -1:
        """Whether a batch begins so far behind the start that it got an entry; going by the lengths of those before it."""
        cdef int64_t interval_bytes = max(self.options.index_interval_bytes, 4096)
        cdef int64_t position = 0
        cdef bytes head
        if trusted_bytes <= 2 * interval_bytes:
            return False
        with open(self.path, "rb") as file:
            head = file.read(interval_bytes + LS_BATCH_HEADER_BYTES)
        while position <= interval_bytes:
            if position + LS_BATCH_HEADER_BYTES > len(head):
                return True
            length = int.from_bytes(head[position + 8:position + 12], "big", signed=True)
            position += LS_BATCH_OVERHEAD_BYTES + max(0, length)
        return position < trusted_bytes

    cdef int drop_indexes(self) except -1:
        """Neither can be used without the other: a scan that begins at an entry of one would leave gaps in the other."""
        self.doubtful_index = True
        ls_offset_index_truncate_position(ls_segment_offset_index(self.segment), 0)
        ls_time_index_truncate(ls_segment_time_index(self.segment), self.base_offset)
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
        cdef ls_segment_state state
        cdef int64_t timestamp = -1
        cdef int64_t offset = -1
        cdef ls_time_index *index
        cdef Segment own
        if self.segment == NULL and (closing := self._closing_timestamp()) is not None:
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

    def _closing_timestamp(self):
        """The last entry of a sealed segment's time index file, without opening the segment; None where it can't be it."""
        try:
            descriptor = os.open(self.path[:-len(".log")] + ".timeindex",
                                 os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return None
        try:
            size = os.fstat(descriptor).st_size
            entries = os.pread(descriptor, 2 * LS_TIME_INDEX_ENTRY_BYTES, max(size - 2 * LS_TIME_INDEX_ENTRY_BYTES, 0))
        except OSError:
            return None
        finally:
            os.close(descriptor)
        if size == 0 or size % LS_TIME_INDEX_ENTRY_BYTES:
            return None
        last = len(entries) - LS_TIME_INDEX_ENTRY_BYTES
        timestamp = int.from_bytes(entries[last:last + 8], "big", signed=True)
        offset = self.base_offset + int.from_bytes(entries[last + 8:], "big", signed=True)
        before = int.from_bytes(entries[:8], "big", signed=True) if last > 0 else -1
        if timestamp <= before or not self.base_offset <= offset < self.options.end_offset_max:
            return None
        return timestamp

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

    def extend(self, bytes batch not None):
        """Has a batch that is in no file follow on, for a reader process, before anybody reads the segment.

        Parameters
        ----------
        batch : bytes
            One batch, sealed. It stands in place of whatever the file has behind the segment's end.

        Raises
        ------
        InvalidRequestError, CorruptDataError, StorageFailureError
            It does not follow on, or there is no room for it; nothing has changed.
        """
        cdef ls_fault fault
        if ls_segment_extend(self.segment, <const uint8_t *>PyBytes_AS_STRING(batch), len(batch), &fault) != LS_OK:
            raise_fault(&fault, self.path)

    def seal(self, int64_t end_offset_max):
        """Makes the active segment an inactive one: closing time index entry, upper bound of its offsets."""
        ls_segment_close_time_index(self.segment)
        self.options.end_offset_max = end_offset_max

    def fill_ahead(self, int64_t limit_bytes):
        """From now on appends keep the file filled with zeros ahead of its end, up to a size, while the disk has room: to
        flush what is written there takes no new size and no new blocks."""
        ls_segment_fill_ahead(self.segment, limit_bytes)

    def cut_ahead(self):
        """Takes such zeros away and ends filling ahead. For the writer.

        Returns
        -------
        bool
            Whether there were any: the file's size is another then, and is on disk with the next flush.

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


def file_identity(str path):
    """Which file a name stands for, and since which mount.

    Parameters
    ----------
    path : str

    Returns
    -------
    tuple[int, int, int, int] or None
        ``(mount_id, device, inode, birth_ns)``, which no two files of one boot share; None where the system does not say,
        or the file system is not known to be local.

    Raises
    ------
    StorageFailureError
    """
    cdef ls_file_identity found
    cdef ls_fault fault
    cdef bytes encoded = os.fsencode(path)
    cdef ls_status status = ls_file_identify(PyBytes_AS_STRING(encoded), &found, &fault)
    if status == LS_OK:
        return found.mount_id, found.device, found.inode, found.birth_ns
    if status == LS_UNSUPPORTED:
        return None
    raise_fault(&fault, path)


cdef void empty_state(ls_segment_state *state, int64_t base_offset):
    memset(state, 0, sizeof(ls_segment_state))
    state.next_offset = base_offset
    state.max_timestamp = -1
    state.max_timestamp_offset = -1
    state.first_batch_max_timestamp = -1
    state.last_leader_epoch = -1


cdef Py_ssize_t whole_entries(bytes data, Py_ssize_t entry_bytes):
    """Size without a cut-off entry and without the zeros of preallocation; the first entry may be zero."""
    cdef Py_ssize_t size = len(data) - len(data) % entry_bytes
    cdef bytes zero = b"\0" * entry_bytes
    while size > entry_bytes and data[size - entry_bytes:size] == zero:
        size -= entry_bytes
    if size == entry_bytes and data[:size] == zero:
        size = 0
    return size


cdef size_t offset_entries_below(ls_segment *segment, int64_t position):
    cdef ls_offset_index *index = ls_segment_offset_index(segment)
    cdef size_t low = 0
    cdef size_t high = ls_offset_index_count(index)
    cdef size_t middle
    cdef int64_t offset
    cdef int32_t found
    while low < high:
        middle = (low + high) // 2
        ls_offset_index_entry(index, middle, &offset, &found)
        if found < position:
            low = middle + 1
        else:
            high = middle
    return low


cdef size_t time_entries_below(ls_segment *segment, int64_t target_offset):
    cdef ls_time_index *index = ls_segment_time_index(segment)
    cdef size_t count = ls_time_index_count(index)
    cdef int64_t timestamp, offset
    while count > 0:
        ls_time_index_entry(index, count - 1, &timestamp, &offset)
        if offset < target_offset:
            break
        count -= 1
    return count


cdef int load_offset_bytes(ls_segment *segment, bytes data) except -1:
    cdef ls_fault fault
    if len(data) and ls_offset_index_load(ls_segment_offset_index(segment), <const uint8_t *>PyBytes_AS_STRING(data),
                                          len(data), INT64_MAX, &fault) != LS_OK:
        raise_fault(&fault, "<rebuilt index>")
    return 0


cdef int load_time_bytes(ls_segment *segment, bytes data) except -1:
    cdef ls_fault fault
    if len(data) and ls_time_index_load(ls_segment_time_index(segment), <const uint8_t *>PyBytes_AS_STRING(data),
                                        len(data), INT64_MAX, &fault) != LS_OK:
        raise_fault(&fault, "<rebuilt index>")
    return 0


def learn_facts(tuple segments not None, str directory not None, dict digests not None):
    """Has sealed segments know what `Segment.facts` gives, all at once, as far as their digests say it.

    Parameters
    ----------
    segments : tuple of Segment
        Of one directory.
    directory : str
    digests : dict of int to SegmentDigest
        By base offset. One counts if the file has its size.

    Raises
    ------
    StorageFailureError
    """
    cdef list asked = []
    cdef Segment segment
    cdef ls_file_facts *found
    cdef int64_t *bases
    cdef size_t count
    cdef size_t i
    cdef ls_fault fault
    cdef ls_status status
    cdef bytes encoded = os.fsencode(directory)
    cdef const char *name = PyBytes_AS_STRING(encoded)
    for segment in segments:
        # A name that ends otherwise is one in the middle of a swap.
        if segment.knows_facts or segment.segment != NULL or segment.options.end_offset_max == INT64_MAX:
            continue
        if segment.path.endswith(".log"):
            asked.append(segment)
    if not asked or not digests:
        return
    count = len(asked)
    bases = <int64_t *>malloc(count * (sizeof(int64_t) + sizeof(ls_file_facts)))
    if bases == NULL:
        raise MemoryError(f"no memory for what is known of {count} segments")
    try:
        found = <ls_file_facts *>(bases + count)
        for i in range(count):
            bases[i] = (<Segment>asked[i]).base_offset
        with nogil:
            status = ls_file_look_at_logs(name, bases, count, found, &fault)
        if status != LS_OK:
            raise_fault(&fault, directory)
        for i in range(count):
            digest = digests.get(bases[i])
            if digest is None or digest.is_growing or found[i].size_bytes <= 0:
                continue
            if digest.size_bytes == found[i].size_bytes:
                (<Segment>asked[i]).know_facts(found[i].size_bytes, digest.max_timestamp, found[i].modified_ms)
    finally:
        free(bases)
