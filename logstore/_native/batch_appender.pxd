# Appending whole batches to one log.

from logstore._native.log_collector cimport LogCollector


# storage.Log derives from it and supplies the cold steps (_gap_appended, _epoch_started).
cdef class BatchAppender(LogCollector):
    pass
