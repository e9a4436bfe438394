"""Records of several threads that wait for one fdatasync: collected in the open batch, and written as one."""

from libc.stdint cimport INT64_MAX, int64_t
from logstore._native.core cimport ls_batch_builder_reset
from logstore._native.group_commit cimport TURN_LEADS, Waiting, close_waiting
from logstore._native.log_flusher cimport WRITABLE
from logstore._native.log_stager cimport LogStager
from logstore._native.writer_lock cimport ls_writer_lock_release

from logstore.errors import LogstoreError


cdef class LogCollector(LogStager):
    """Records that wait for a flush together. `logstore.storage.Log` is what is used."""

    cdef bint collects(self):
        """Whether a record to be flushed is left in the open batch, to be written with those of other threads: where they
        flush, or came just before. The lock is held."""
        return ((self._flush_lock.is_led or self._flush_lock.expected_count > 1)
                and self.builder.records_count == self.collected_count and not self.waiters
                and not self.hand_over_scheduled and self.open_batch.map == NULL and not self.restored
                and not self.marked_clean and not self.flush_due and self.flush_messages == INT64_MAX)

    cdef int collect(self, Waiting *me) except -1:
        """Queues for the disk with the record that was encoded last. Whoever leads writes it: this thread, now, if it
        does (TURN_LEADS). The lock is held."""
        cdef int turn
        me.is_collected = True
        self.collected_count += 1
        turn = self._flush_lock.arrive(me, self.next_offset, True)
        if turn == TURN_LEADS:
            try:
                self.hand_over()
            except BaseException as error:
                self.take_back(error)
                self._flush_lock.finish(-1, -1)
                close_waiting(me)
                raise
        else:
            self.staged = True
        return turn

    cdef int take_back(self, error) except -1:
        """What was collected is refused: all who wait for it are told so, hence it must never get on disk. Only where a
        signal has stopped the one that leads, the others' records stay, and the next one writes them. The lock is held."""
        if self.collected_count == 0 or (self.collected_count > 1 and not isinstance(error, Exception)):
            return 0
        ls_batch_builder_reset(&self.builder)
        self.next_offset -= self.collected_count
        self.collected_count = 0
        self.staged = False
        self.refusal = error.__reduce__()
        self._flush_lock.refuse(self.next_offset)
        return 0

    cdef int raise_taken_back(self) except -1:
        kind, arguments = self.refusal[:2]
        raise kind(*arguments)

    cdef int write_collected(self) except -1:
        self.lock_writes()
        try:
            if self.collected_count:
                self.check_writable()
                self.now_ms()
                self.hand_over()
        except BaseException as error:
            self.take_back(error)
            self._flush_lock.finish(-1, -1)  # with the lock: a finalizer that appends is refused, and waits for nobody
            raise
        finally:
            ls_writer_lock_release(&self.lock)
        return 0

    cdef int surface_collected(self, Waiting *me) except -1:
        self.lock_writes()
        try:
            if self.collected_count and self.write_state == WRITABLE:
                self.now_ms()
                self.hand_over()
        except LogstoreError:
            pass  # whoever leads takes it back
        except BaseException:
            self._flush_lock.leave(me)
            raise
        finally:
            ls_writer_lock_release(&self.lock)
        return self.collected_count == 0

    cdef int wait_collected(self, Waiting *me, int64_t end_offset, int turn) except -1:
        try:
            if turn == TURN_LEADS:
                self.lead_flush(end_offset)
            else:
                self.wait_turn(me, end_offset, True)
        finally:
            close_waiting(me)
        if self.flush_unscheduled:
            self.schedule_flush()
        return 0
