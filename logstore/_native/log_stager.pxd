# The open batch in a mapped file.

from libc.stdint cimport int64_t
from logstore._native.log_batcher cimport LogBatcher


# See `stage`, and docs/architecture.md. storage.Log derives from it and supplies the cold steps (_staging_began,
# _remove_open_batch_file).
cdef class LogStager(LogBatcher):
    cdef bint stages                # a mapped file may be used
    cdef int counted_records        # that came within COUNTED_MS
    cdef int64_t counted_from_ms
    cdef bint goes_on               # a burst that began before
    cdef bint hardly_pays           # as the last hand-over in the background has shown
    cdef int staged_records         # since then
    cdef int64_t staged_ms          # when the last record was
    cdef int64_t stage_after_ms     # the file was refused: not again before
    cdef int64_t swept_ms           # when waiting readers were looked for that are gone
    cdef bytes open_batch_path
    cdef bytes topic_id
    cdef bytes boot_id

    cdef int allow_staging(self, bint allowed, int64_t batch_bytes, int64_t segment_bytes) except -1
    cdef bint in_burst(self, int64_t now_ms)
    cdef bint is_awaited_elsewhere(self, int64_t now_ms)
    cdef int begin_staging(self, int64_t now_ms) except -1
    cdef int hand_over_staged(self) except -1
    cdef int stage(self) except -1
    cdef int end_staging(self, bint remove) except -1
