# The open batch of one log, and its hand-over.

from libc.stdint cimport int64_t
from logstore._native.core cimport ls_batch_builder, ls_open_batch
from logstore._native.log_writer cimport LogWriter


# storage.Log derives from it and supplies the cold steps (_schedule_hand_over, _remove_open_batch_file).
cdef class LogBatcher(LogWriter):
    cdef ls_batch_builder builder
    # Where the builder's buffer is lent from while records are staged; mapped by LogStager.
    cdef ls_open_batch open_batch
    cdef bint restored                  # the builder holds what an earlier process left in that file, which is still there
    # Up to so many bytes of the open batch, a record of no more than key and value has only to be encoded to be appended at
    # the log's own level; 0: more is to be done. Set by `let_join`, and back by what ends it: hand-over, and settings.
    cdef size_t joined_bytes_max
    cdef bint hand_over_scheduled
    cdef bint soon_scheduled            # as soon as staged records ask for
    cdef unsigned long handing_over     # the thread that does, or 0
    # settings
    cdef int64_t batch_bytes_max        # where an open batch is handed over
    cdef int codec
    cdef object codec_level

    cdef int begin_in_memory(self) except -1
    cdef void let_join(self) noexcept
    cdef int hand_over(self) except -1
    cdef int seal_and_write(self) except -1
    cdef int schedule_hand_over(self) except -1
