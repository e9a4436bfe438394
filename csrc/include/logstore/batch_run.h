/* Batches built one behind the other, to be written at once: for calls that bring more records than one batch holds. */
#ifndef LOGSTORE_BATCH_RUN_H
#define LOGSTORE_BATCH_RUN_H

#include <stddef.h>
#include <stdint.h>

#include "logstore/record_batch.h"
#include "logstore/status.h"

typedef struct ls_batch_run {
    size_t size_bytes;
    size_t records_count;
    int64_t batches_count;
    int64_t max_timestamp; /* of the batches */
} ls_batch_run;

/* Encodes as many of the records as fit into `capacity_bytes`, in sealed batches of at most `batch_bytes_max`: those that
 * ls_batch_builder_append_many and ls_batch_builder_seal make of them. `first` is what the first batch is sealed with; offsets
 * go on from there. It ends before a record that fits no such batch, so it may hold none. keys and timestamps may be NULL, as there.
 * As ls_batch_builder_append_many where a timestamp is refused. */
ls_status ls_batch_run_build(uint8_t *buffer, size_t capacity_bytes, const ls_span *keys, const ls_span *values,
                             const int64_t *timestamps, int64_t timestamp, size_t count, size_t batch_bytes_max,
                             const ls_batch_stamp_fields *first, ls_batch_run *out, ls_fault *fault);

#endif
