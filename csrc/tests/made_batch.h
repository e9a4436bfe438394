/* Batches for tests of what looks at headers and CRCs only: the payload is filler, not records. */
#ifndef LOGSTORE_TESTS_MADE_BATCH_H
#define LOGSTORE_TESTS_MADE_BATCH_H

#include <string.h>

#include "logstore/record_batch.h"

typedef struct made_batch {
    int64_t base_offset;
    int32_t records_count;
    int64_t max_timestamp;
    int32_t leader_epoch;
    size_t size_bytes; /* at least LS_BATCH_HEADER_BYTES */
} made_batch;

/* Writes the batch's bytes and returns its header. */
static inline ls_batch_header make_batch(const made_batch *made, uint8_t *out) {
    ls_batch_header header = {
        .base_offset = made->base_offset,
        .batch_length = (int32_t)made->size_bytes - LS_BATCH_OVERHEAD_BYTES,
        .partition_leader_epoch = made->leader_epoch,
        .magic = LS_BATCH_MAGIC,
        .last_offset_delta = made->records_count - 1,
        .base_timestamp = made->max_timestamp,
        .max_timestamp = made->max_timestamp,
        .producer_id = -1,
        .producer_epoch = -1,
        .base_sequence = -1,
        .records_count = made->records_count,
    };
    /* Never zero and never the magic byte, so that only real headers look like headers. */
    for (size_t i = LS_BATCH_HEADER_BYTES; i < made->size_bytes; i++) {
        out[i] = (uint8_t)(0x40 + (i + (size_t)made->base_offset) % 61);
    }
    ls_batch_header_write(&header, out);
    header.crc = ls_batch_crc(out, made->size_bytes);
    ls_batch_header_write(&header, out);
    return header;
}

#endif
