"""Appending whole batches: of producers of this process, in place; others checked and copied, as leader or follower."""

from libc.stdint cimport int64_t, uint8_t
from logstore._native.core cimport (
    LS_ATTRIBUTE_LOG_APPEND_TIME,
    LS_OK,
    ls_batch_header,
    ls_batch_header_read,
    ls_batch_last_offset,
    ls_batch_size_bytes,
    ls_batch_stamp,
    ls_batch_stamp_timestamps,
    ls_fault,
)
from logstore._native.faults cimport raise_fault
from logstore._native.log_collector cimport LogCollector
from logstore._native.producer_plans cimport PLAN_REPEATS, REPEATED_LAST_OFFSET, REPEATED_TIMESTAMP
from logstore._native.record_batch cimport RecordBatch
from logstore._native.record_rules cimport takes_unchecked

from logstore.errors import OffsetOutOfRangeError


cdef class BatchAppender(LogCollector):
    """Appends whole batches to one log. `logstore.storage.Log` is what is used."""

    def _append_built(self, RecordBatch batch not None, int level, int64_t expected_offset):
        """Appends a batch that a producer of this process has sealed, in place: without a copy or another CRC.

        Returns
        -------
        tuple[int, int] or None
            Base offset, and the time of append or -1; None for a batch that has to be checked first.
        """
        cdef uint8_t *at = <uint8_t *>batch.data
        cdef size_t size = ls_batch_size_bytes(&batch.header)
        cdef ls_batch_header header = batch.header
        cdef int64_t end
        cdef object plan = None
        cdef object repeated = None
        self.lock_writes()
        try:
            self.check_writable()
            if not takes_unchecked(&self.rules, batch, self.now_ms()):
                return None
            self.hand_over()
            if self.rules.append_time:
                header.attributes |= LS_ATTRIBUTE_LOG_APPEND_TIME
                header.max_timestamp = self.last_now_ms
            header.base_offset = self.next_offset
            header.partition_leader_epoch = self.leader_epoch
            if header.producer_id >= 0:
                plan = self._plans.plan_for(&header, at, True)
                repeated = plan[PLAN_REPEATS] if plan is not None else None
            if repeated is None:
                self.check_expected(expected_offset)
            else:
                header.base_offset = <int64_t>repeated[REPEATED_LAST_OFFSET] - header.last_offset_delta
                if self.rules.append_time:
                    header.max_timestamp = repeated[REPEATED_TIMESTAMP]
            if self.rules.append_time:
                ls_batch_stamp_timestamps(at, size, True, header.max_timestamp)
            ls_batch_stamp(at, header.base_offset, header.partition_leader_epoch)
            end = ls_batch_last_offset(&header) + 1
            if repeated is None:
                try:
                    self.write_batch(&header, at, size)
                except BaseException:
                    # As it was: it may be tried again.
                    if self.rules.append_time:
                        ls_batch_stamp_timestamps(at, size, False, batch.header.max_timestamp)
                    ls_batch_stamp(at, 0, -1)
                    raise
                if plan is not None:
                    self._plans.take_over(plan, self)
                self.next_offset = end
            # Noted before anything can interrupt: whoever is, has to know that the batch must not be tried again.
            batch.header = header
            batch.is_stampable = False
            batch.is_appended = True
            if repeated is None:
                self.publish_end()
        finally:
            self.unlock_writes()
        self.acknowledge(end, level)
        return header.base_offset, header.max_timestamp if header.attributes & LS_ATTRIBUTE_LOG_APPEND_TIME else -1

    def _append_stamped(self, bytearray batch not None, bint as_leader, int level, int64_t expected_offset=-1,
                        RecordBatch source=None):
        """Appends one whole, checked batch: as leader with offsets of our own, as follower with the batch's.

        ``source`` is what a producer of this process made it from, and learns that it is in the log.

        Returns
        -------
        tuple[int, int]
            First and last offset.
        """
        cdef uint8_t *at = batch
        cdef Py_ssize_t size = len(batch)
        cdef ls_batch_header header
        cdef ls_fault fault
        cdef int64_t last
        cdef object plan = None
        cdef object repeated = None
        self.lock_writes()
        try:
            self.check_writable()
            self.now_ms()
            self.hand_over()
            if as_leader:
                ls_batch_stamp(at, self.next_offset, self.leader_epoch)
            if ls_batch_header_read(at, at + size, 0, &header, &fault) != LS_OK:
                raise_fault(&fault, "<memory>")
            last = ls_batch_last_offset(&header)
            if not as_leader:
                if header.base_offset < self.next_offset:
                    raise OffsetOutOfRangeError(
                        f"a follower's batch starts at offset {header.base_offset}, but {self.topic}-{self.partition} "
                        f"ends at {self.next_offset}; fetch from there, or truncate first",
                        offset=header.base_offset, log_start_offset=self.log_start_offset,
                        log_end_offset=self.next_offset)
                if header.base_offset > self.next_offset:
                    self.contiguous = False
                    self._gap_appended()
                if header.partition_leader_epoch > self.leader_epoch:
                    self._epoch_started(header.partition_leader_epoch, header.base_offset)
                    self.leader_epoch = header.partition_leader_epoch
            if header.producer_id >= 0:
                plan = self._plans.plan_for(&header, at, as_leader)
                repeated = plan[PLAN_REPEATS] if plan is not None else None
            if repeated is None:
                self.check_expected(expected_offset)
                self.write_batch(&header, at, size)
                if plan is not None:
                    self._plans.take_over(plan, self)
                self.next_offset = last + 1
            else:
                last = repeated[REPEATED_LAST_OFFSET]
                header.base_offset = last - header.last_offset_delta
                header.max_timestamp = repeated[REPEATED_TIMESTAMP]
            if source is not None and source.is_stampable:
                source.header.base_offset = header.base_offset
                source.header.attributes = header.attributes
                source.header.max_timestamp = header.max_timestamp
                source.is_stampable = False
                source.is_appended = True
            if repeated is None:
                self.publish_end()
        finally:
            self.unlock_writes()
        self.acknowledge(last + 1, level)
        return header.base_offset, last
