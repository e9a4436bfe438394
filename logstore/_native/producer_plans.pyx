"""What batches change in what a log knows of their producers: planned before the write, taken over after it."""

from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t
from logstore._native.core cimport LS_ATTRIBUTE_TRANSACTIONAL, ls_batch_header, ls_batch_last_offset
from logstore._native.log_state cimport LogState
from logstore._native.producer_batches cimport marker_of

cdef int BATCHES_KEPT = 5  # of a producer: storage.producer_state has them
cdef int64_t SEQUENCE_MAX = 2**31 - 1
cdef object new_tuple = tuple.__new__


cdef class ProducerPlans:
    """What one log knows of producers with an id, as its writer asks it. Whoever calls has the log's lock."""

    def __cinit__(self):
        self.unstable_after = INT64_MAX
        self.aborted_entries = []

    def restart(self, state not None, list aborted not None, bint has_producers, bint has_transactions):
        """What is known of producers from here on: a `ProducerState`, and the aborted transactions of the active segment.
        No append is under way."""
        self.producer_state = state
        self.producers = state.producers
        self.open_transactions = state.open_transactions
        self.unstable_after = state.first_unstable_offset
        self.aborted_entries = aborted
        self.has_producers = has_producers
        self.has_transactions = has_transactions

    def forget(self, producer_ids):
        """Drops producers that have expired."""
        for producer_id in producer_ids:
            self.producers.pop(producer_id, None)

    cdef object plan_for(self, const void *opaque, const uint8_t *batch, bint checked):
        """What a batch with a producer id will change in what is known of producers; None for nothing. Fields as in
        `storage.producer_state.Plan`. The batch is stamped."""
        cdef const ls_batch_header *header = <const ls_batch_header *>opaque
        cdef int32_t coordinator_epoch = -1
        cdef int marker = marker_of(header, batch, &coordinator_epoch)
        if marker >= 0:
            return self.producer_state.plan_marker(header.producer_id, header.producer_epoch, marker == 1,
                                                   coordinator_epoch, header.base_offset, header.max_timestamp, checked)
        if marker == -1:
            if checked and not header.attributes & LS_ATTRIBUTE_TRANSACTIONAL and not self.open_transactions:
                plan = self.plan_next(header)
                if plan is not None:
                    return plan
            return self.producer_state.plan_batch(
                header.producer_id, header.producer_epoch, header.base_sequence, header.base_offset,
                ls_batch_last_offset(header), header.max_timestamp,
                bool(header.attributes & LS_ATTRIBUTE_TRANSACTIONAL), checked)
        return None

    cdef tuple plan_next(self, const void *opaque):
        """The plan of the usual batch, which goes on where its producer's last one ended, while no transaction is open; as
        `ProducerState.plan_batch` makes it. None for any other, which that one judges."""
        cdef const ls_batch_header *header = <const ls_batch_header *>opaque
        cdef object producer_id = header.producer_id
        cdef object known = (<dict>self.producers).get(producer_id)
        cdef tuple producer, batches
        cdef int64_t sequence
        if known is None:
            return None
        producer = <tuple>known
        batches = <tuple>producer[PRODUCER_BATCHES]
        if (producer[PRODUCER_EPOCH] != header.producer_epoch or producer[PRODUCER_TRANSACTION_OFFSET] != -1
                or not batches):
            return None
        before = batches[len(batches) - 1]
        sequence = (<tuple>before)[BATCH_LAST_SEQUENCE]
        if header.base_sequence < 0 or header.base_sequence != sequence + 1:
            return None
        sequence = (header.base_sequence + <int64_t>header.last_offset_delta) & SEQUENCE_MAX
        appended = new_tuple(type(before), (sequence, ls_batch_last_offset(header), header.last_offset_delta,
                                            header.max_timestamp))
        batches = batches[max(len(batches) - (BATCHES_KEPT - 1), 0):] + (appended,)
        producer = <tuple>new_tuple(type(producer), (
            producer_id, producer[PRODUCER_EPOCH], producer[PRODUCER_COORDINATOR_EPOCH], header.max_timestamp, -1, batches))
        return producer, -1, False, None, INT64_MAX, None

    cdef int take_over(self, object changes, LogState log) except -1:
        """After the write, before the log's end is published: nothing here lets a signal handler in between."""
        cdef tuple plan = <tuple>changes  # named ones, which a declared type would refuse
        cdef tuple producer = <tuple>plan[PLAN_PRODUCER]
        cdef object producer_id = producer[0]
        cdef int64_t opens = plan[PLAN_OPENS]
        self.producers[producer_id] = producer
        self.has_producers = True
        if opens >= 0:
            self.has_transactions = True
            self.open_transactions[producer_id] = producer[PRODUCER_TRANSACTION_OFFSET]
            if opens < log.first_unstable_offset:
                log.first_unstable_offset = opens
        elif plan[PLAN_CLOSES]:
            self.open_transactions.pop(producer_id, None)
        if plan[PLAN_ABORTED] is not None:
            self.aborted_entries.append(plan[PLAN_ABORTED])
            log.aborted_possible = True
        self.unstable_after = plan[PLAN_FIRST_UNSTABLE_OFFSET]
        return 0
