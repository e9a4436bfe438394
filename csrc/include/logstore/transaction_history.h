/* What became of each producer's transactions in a log, from its batches alone (log-format, 10.5): which
 * were aborted, which are open, and each producer's last batch. And, for a second walk over the same log,
 * what a batch belongs to.
 *
 * An object belongs to one thread at a time. */
#ifndef LOGSTORE_TRANSACTION_HISTORY_H
#define LOGSTORE_TRANSACTION_HISTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "logstore/record_batch.h"
#include "logstore/status.h"

typedef struct ls_aborted_transaction {
    int64_t producer_id;
    int64_t first_offset;
    int64_t last_offset;        /* of the marker */
    int64_t last_stable_offset; /* once it was aborted: the first other one open then, else last_offset + 1 */
} ls_aborted_transaction;

typedef struct ls_producer_last {
    int64_t producer_id;
    int64_t last_data_offset; /* of its last data batch; -1 where only markers are there */
    int64_t open_offset;      /* first of its open transaction; -1: none is open */
    int16_t epoch;            /* of its last batch */
} ls_producer_last;

typedef enum ls_marker {
    LS_MARKER_NONE, /* no transaction marker: another control batch, or none at all */
    LS_MARKER_ABORT,
    LS_MARKER_COMMIT
} ls_marker;

/* Of a validated control batch. An empty one and one that is compressed are LS_MARKER_NONE. */
ls_marker ls_transaction_marker(const uint8_t *batch, const ls_batch_header *header);

/* ---- the first walk ------------------------------------------------------------------------- */

typedef struct ls_transaction_history {
    ls_aborted_transaction *aborted; /* by last_offset; by first_offset after ls_transaction_history_finish */
    size_t aborted_count;
    size_t aborted_capacity;
    ls_producer_last *producers; /* by producer_id */
    size_t producers_count;
    size_t producers_capacity;
    bool is_partial; /* nothing is known of transactions, only of producers */
} ls_transaction_history;

/* Zero-initialised, a history is empty. */
void ls_transaction_history_free(ls_transaction_history *history);

/* The next validated batch of the log, in order of offsets. LS_NO_MEMORY. */
ls_status ls_transaction_history_add(ls_transaction_history *history, const uint8_t *batch,
                                     const ls_batch_header *header, ls_fault *fault);
void ls_transaction_history_finish(ls_transaction_history *history);

/* What is known of producers from elsewhere, in place of what the walk has found; in any order. LS_NO_MEMORY. */
ls_status ls_transaction_history_set_producers(ls_transaction_history *history,
                                               const ls_producer_last *producers, size_t count,
                                               ls_fault *fault);

/* The smallest first offset of an open transaction; INT64_MAX where none is open. */
int64_t ls_transaction_history_first_open(const ls_transaction_history *history);

/* NULL for a producer that was not met. */
const ls_producer_last *ls_transaction_history_producer(const ls_transaction_history *history,
                                                        int64_t producer_id);

/* ---- a walk that knows how it went on -------------------------------------------------------- */

typedef struct ls_ongoing_transaction {
    int64_t producer_id;
    size_t aborted; /* index in the history; SIZE_MAX: none, it will be committed or is open */
    bool has_data;  /* a batch of it was seen in this walk */
} ls_ongoing_transaction;

typedef struct ls_transaction_walk {
    const ls_transaction_history *history;
    size_t next_aborted;
    ls_ongoing_transaction *ongoing; /* by producer_id */
    size_t count;
    size_t capacity;
} ls_transaction_walk;

/* Over a finished history, which must outlive it; a walk zeroed before. */
void ls_transaction_walk_start(ls_transaction_walk *walk, const ls_transaction_history *history);
void ls_transaction_walk_free(ls_transaction_walk *walk);

/* The next data batch with the transactional bit; *is_aborted: it belongs to an aborted transaction.
 * LS_NO_MEMORY. */
ls_status ls_transaction_walk_data(ls_transaction_walk *walk, const ls_batch_header *header, bool *is_aborted,
                                   ls_fault *fault);

/* The next marker. *has_data: data of its transaction was seen in this walk. *aborted: the transaction it
 * aborted, or NULL. LS_NO_MEMORY. */
ls_status ls_transaction_walk_marker(ls_transaction_walk *walk, const ls_batch_header *header,
                                     ls_marker marker,
                                     bool *has_data, const ls_aborted_transaction **aborted, ls_fault *fault);

#endif
