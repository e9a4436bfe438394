# Appending records to one log.

cimport cython
from libc.stdint cimport int64_t
from logstore._native.clock cimport ls_recent_ms
from logstore._native.core cimport LS_OK, ls_batch_builder_join, ls_span
from logstore._native.log_flusher cimport WRITABLE
from logstore._native.run_appender cimport RunAppender
from logstore._native.spans cimport HeaderList
from logstore._native.writer_lock cimport ls_writer_lock_is_free


# The writer's half of a log, in layers: what all appends share (LogWriter), the open batch and its hand-over (LogBatcher),
# staged in a mapped file (LogStager), or collected for one flush (LogCollector); whole batches (BatchAppender), many records
# a call (RunAppender), and one.
cdef class LogAppender(RunAppender):
    cdef int64_t append_one(self, const ls_span *key, const ls_span *value, HeaderList headers,
                            int64_t timestamp, bint has_timestamp, int level,
                            int64_t expected_offset=*) except -1

    @cython.final
    cdef inline int64_t append_now(self, const ls_span *key, const ls_span *value) except -1:
        """Appends a record that has no more than a key and a value, at the log's own level.

        Where it joins others as `buffered`, and fits, there is nothing to do but to encode it.
        """
        cdef int64_t offset = self.next_offset
        if (self.joined_bytes_max and self.write_state == WRITABLE and not self.flush_due
                and ls_writer_lock_is_free(&self.lock)
                and ls_batch_builder_join(&self.builder, ls_recent_ms(&self.recent_time), key[0], value[0],
                                          self.joined_bytes_max) == LS_OK):
            self.next_offset = offset + 1
            return offset
        return self.append_one(key, value, None, -1, False, self.default_level)
