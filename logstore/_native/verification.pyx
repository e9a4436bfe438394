"""Checking a segment's files from end to end, piece by piece."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t
from libc.string cimport memset
from logstore._native.core cimport (
    LS_BATCH_BASE_TIMESTAMP_AT,
    LS_BATCH_HEADER_BYTES,
    LS_CORRUPT,
    LS_DIGEST_BYTES,
    LS_END,
    LS_FILE_READ,
    LS_OK,
    LS_TORN,
    LS_UNSUPPORTED,
    ls_digest_write,
    ls_fault,
    ls_file,
    ls_file_close,
    ls_file_open,
    ls_file_read,
    ls_file_size,
    ls_index_check,
    ls_load_i64,
    ls_segment,
    ls_segment_create,
    ls_segment_free,
    ls_segment_options,
    ls_segment_verify,
    ls_status,
    ls_verification,
    ls_verification_ahead_create,
    ls_verification_ahead_free,
    ls_verification_finish,
    ls_verification_init,
    ls_verification_skip,
)
from logstore._native.faults cimport raise_fault

import os

# A thread that checks ahead costs as much as checking about 200 KiB.
cdef int64_t AHEAD_BYTES_MIN = 4 << 20


@cython.final
cdef class SegmentVerifier:
    """A walk over one .log file that only reads. One thread at a time; the GIL is released in `step`.

    A deep walk over a long file has a thread of its own that checks further on, and ends with the verifier.

    Parameters
    ----------
    path : str
        Of the .log file.
    base_offset, end_offset_max : int
        Its own and the next segment's base offset.
    contiguous : bool
        No offsets are missing: a gap is damage.
    offset_index, time_index : bytes
        What the index files hold, less the zeros of preallocation; empty for none.
    limit_bytes : int
        Of the file, only so much is looked at.
    ahead_bytes_min : int
        From which length on a deep walk has a second thread.

    Attributes
    ----------
    size_bytes : int
        Of the file, when it was opened, or the limit; batches appended later are not looked at.

    Raises
    ------
    StorageFailureError
    """

    cdef ls_segment *segment
    cdef ls_file *file  # the segment's
    cdef ls_verification state
    cdef readonly str path
    cdef readonly int64_t size_bytes
    cdef int64_t ahead_bytes_min
    cdef bint ahead_is_asked
    cdef bytes offset_index
    cdef bytes time_index

    def __init__(self, str path, int64_t base_offset, int64_t end_offset_max, *, bint contiguous=False,
                 bytes offset_index=b"", bytes time_index=b"", int64_t limit_bytes=INT64_MAX,
                 int64_t ahead_bytes_min=AHEAD_BYTES_MIN):
        cdef ls_segment_options options
        cdef ls_file *file = NULL
        cdef ls_segment *segment = NULL
        cdef ls_fault fault
        cdef bytes encoded = os.fsencode(path)
        cdef const char *name = PyBytes_AS_STRING(encoded)
        cdef ls_status status
        if self.segment != NULL:
            raise TypeError("a verifier is made once")
        memset(&options, 0, sizeof(options))
        options.base_offset = base_offset
        options.end_offset_max = end_offset_max
        options.index_interval_bytes = 4096
        options.offset_index_capacity = 1
        options.time_index_capacity = 1
        options.is_contiguous = contiguous
        with nogil:
            status = ls_file_open(name, LS_FILE_READ, &file, &fault)
        if status == LS_OK:
            status = ls_file_size(file, &self.size_bytes, &fault)
            if status == LS_OK:
                status = ls_segment_create(file, &options, NULL, &segment, &fault)
            if status != LS_OK:
                ls_file_close(file)
        if status != LS_OK:
            raise_fault(&fault, path)
        self.size_bytes = min(self.size_bytes, limit_bytes)
        self.ahead_bytes_min = ahead_bytes_min
        self.segment = segment
        self.file = file
        self.path = path
        self.offset_index = offset_index
        self.time_index = time_index
        ls_verification_init(&self.state, base_offset, <const uint8_t *>PyBytes_AS_STRING(offset_index),
                             len(offset_index), <const uint8_t *>PyBytes_AS_STRING(time_index), len(time_index))

    def __dealloc__(self):
        ls_verification_ahead_free(self.state.ahead)
        ls_segment_free(self.segment)

    def step(self, int64_t budget_bytes, *, bint deep=True):
        """Checks the next batches.

        Parameters
        ----------
        budget_bytes : int
            After so many bytes it returns; a batch is always checked whole.
        deep : bool
            Read everything and verify CRCs; else headers alone.

        Returns
        -------
        tuple or None
            None, or what is wrong with the batch at `position`: ``(reason, position, expected, actual)``.

        Raises
        ------
        StorageFailureError
        """
        cdef ls_fault fault
        cdef ls_status status
        with nogil:
            if deep and not self.ahead_is_asked and self.size_bytes - self.state.position >= self.ahead_bytes_min:
                self.ahead_is_asked = True
                self.state.ahead = ls_verification_ahead_create(self.segment)
            status = ls_segment_verify(self.segment, &self.state, self.size_bytes, budget_bytes, deep, &fault)
        if status == LS_OK or status == LS_END:
            return None
        if status == LS_TORN or status == LS_CORRUPT or status == LS_UNSUPPORTED:
            return fault.reason.decode(), fault.position, fault.expected, fault.actual
        raise_fault(&fault, self.path)

    def first_timestamp(self):
        """Of the first record, as the first header says; -1 where there is none.

        Raises
        ------
        StorageFailureError
        """
        cdef uint8_t header[LS_BATCH_HEADER_BYTES]
        cdef size_t got = 0
        cdef ls_fault fault
        cdef ls_status status
        with nogil:
            status = ls_file_read(self.file, 0, header, LS_BATCH_HEADER_BYTES, &got, &fault)
        if status != LS_OK:
            raise_fault(&fault, self.path)
        return ls_load_i64(header + LS_BATCH_BASE_TIMESTAMP_AT) if got == LS_BATCH_HEADER_BYTES else -1

    def end_here(self):
        """What follows the last sound batch is none of the segment: its file was filled with zeros ahead of its end."""
        self.size_bytes = self.state.position

    def skip_to(self, int64_t position, int64_t next_offset, int32_t leader_epoch, bint exact):
        """Goes on behind damage, at a batch's position."""
        ls_verification_skip(&self.state, position, next_offset, leader_epoch, exact)

    def finish(self):
        """Judges the index entries that are left.

        Returns
        -------
        tuple[str, str]
            What is wrong with the offset index and the time index; empty for nothing.
        """
        ls_verification_finish(&self.state)
        return index_fault(&self.state.offset_index), index_fault(&self.state.time_index)

    @property
    def is_done(self):
        """Whether the walk has reached the end of the file."""
        return self.state.position >= self.size_bytes

    @property
    def position(self):
        """Where the next batch starts."""
        return self.state.position

    @property
    def next_offset(self):
        """After the last batch."""
        return self.state.next_offset

    @property
    def leader_epoch(self):
        """Of the last batch; -1 for none."""
        return self.state.leader_epoch

    @property
    def batches_count(self):
        """Sound batches so far."""
        return self.state.batches_count

    @property
    def records_count(self):
        """Records in them, by their headers."""
        return self.state.records_count

    @property
    def last_timestamp(self):
        """Largest timestamp of the last batch, in ms; -1 for none."""
        return self.state.last_timestamp

    @property
    def max_timestamp(self):
        """Largest timestamp so far, in ms; -1 for none."""
        return self.state.max_timestamp

    @property
    def digest(self):
        """Digest of the sound batches so far, 16 bytes."""
        cdef bytes out = PyBytes_FromStringAndSize(NULL, LS_DIGEST_BYTES)
        ls_digest_write(&self.state.digest, <uint8_t *>PyBytes_AS_STRING(out))
        return out


cdef str index_fault(const ls_index_check *check):
    if check.fault == NULL:
        return ""
    expected = f"expected {check.expected}, " if check.expected >= 0 else ""
    return f"entry {check.fault_entry} {check.fault.decode()} ({expected}found {check.actual})"
