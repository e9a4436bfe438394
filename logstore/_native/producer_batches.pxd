# Transaction markers, as the appender and a replay read them.

from libc.stdint cimport int32_t, uint8_t
from logstore._native.core cimport ls_batch_header


# 0 abort, 1 commit; -1 data; -2 a control batch that ends no transaction. The batch must have been validated, or lie whole
# in memory.
cdef int marker_of(const ls_batch_header *header, const uint8_t *batch, int32_t *coordinator_epoch) noexcept nogil
