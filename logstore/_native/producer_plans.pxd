# What batches change in what a log knows of their producers.

from libc.stdint cimport int64_t, uint8_t
from logstore._native.log_state cimport LogState


# Fields of storage.producer_state.Plan, Producer and ProducerBatch; a test holds them together.
cdef enum:
    PLAN_PRODUCER = 0
    PLAN_OPENS = 1
    PLAN_CLOSES = 2
    PLAN_ABORTED = 3
    PLAN_FIRST_UNSTABLE_OFFSET = 4
    PLAN_REPEATS = 5
    PRODUCER_EPOCH = 1
    PRODUCER_COORDINATOR_EPOCH = 2
    PRODUCER_TRANSACTION_OFFSET = 4
    PRODUCER_BATCHES = 5
    BATCH_LAST_SEQUENCE = 0
    REPEATED_LAST_OFFSET = 1
    REPEATED_TIMESTAMP = 3


cdef class ProducerPlans:
    cdef object producer_state          # storage.producer_state.ProducerState
    cdef dict producers                 # its entries, by producer id
    cdef dict open_transactions         # and first offsets, by producer id
    cdef list aborted_entries           # aborted transactions whose marker is in the active segment
    cdef int64_t unstable_after         # first unstable offset once the next end is published
    cdef readonly bint has_producers    # a batch with a producer id was appended here
    cdef readonly bint has_transactions

    cdef object plan_for(self, const void *header, const uint8_t *batch, bint checked)
    cdef tuple plan_next(self, const void *header)
    cdef int take_over(self, object changes, LogState log) except -1
