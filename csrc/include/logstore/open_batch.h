/* The open batch of a log in a mapped file: a record is in the page cache once it is stored, without a system
 * call, and survives the death of the process (docs/format/open-batch.md).
 *
 * The file is written in full before it is mapped, so that no store can find the disk full. A block says what
 * the records are; then the records stand as they will in the batch, with room for its header in front, so that
 * the batch is written to its segment from here. One word says how far they are acknowledged: their end and
 * their CRC, stored at once. One thread at a time. */
#ifndef LOGSTORE_OPEN_BATCH_H
#define LOGSTORE_OPEN_BATCH_H

#include <stddef.h>
#include <stdint.h>

#include "logstore/record_batch.h"
#include "logstore/status.h"

enum {
    LS_OPEN_BATCH_MAGIC_AT = 0,           /* "LSOB" */
    LS_OPEN_BATCH_VERSION_AT = 4,         /* u16, and two zeros */
    LS_OPEN_BATCH_TOPIC_ID_AT = 8,        /* 22 characters of base64, two zeros */
    LS_OPEN_BATCH_BOOT_ID_AT = 32,        /* 16 bytes: the run of the system in which the file was written */
    LS_OPEN_BATCH_BASE_OFFSET_AT = 48,    /* i64 */
    LS_OPEN_BATCH_BASE_TIMESTAMP_AT = 56, /* i64 */
    LS_OPEN_BATCH_CRC_AT = 64,            /* u32, of what stands before it */
    LS_OPEN_BATCH_BOOT_ID_AGAIN_AT = 72,  /* 16 bytes: no change of one of them makes another run of this one */
    LS_OPEN_BATCH_COMMIT_AT = 128,        /* u32 bytes of records, u32 their CRC xor the block's; zeros: none */
    LS_OPEN_BATCH_RECORDS_AT = 4096,
    LS_OPEN_BATCH_TOPIC_ID_BYTES = 24,
    LS_OPEN_BATCH_BOOT_ID_BYTES = 16
};

typedef struct ls_open_batch {
    uint8_t *map; /* NULL: there is none */
    size_t map_bytes;
    size_t end_bytes;   /* of the records the CRC below covers, counted from the batch's first byte */
    uint32_t crc;       /* of those records */
    uint32_t block_crc;
    int has_begun; /* the block speaks of the batch being built */
} ls_open_batch;

/* Creates the file, which must not exist, for batches of up to `batch_bytes`, and maps it. `topic_id` and
 * `boot_id` have the sizes above. LS_UNSUPPORTED where this system or its file system can't; LS_DISK_FULL,
 * LS_IO; the file may be left behind then. */
ls_status ls_open_batch_create(const char *path, const uint8_t *topic_id, const uint8_t *boot_id,
                               size_t batch_bytes, ls_open_batch *out, ls_fault *fault);

/* Unmaps it. The file stays. Safe on a zeroed one. */
void ls_open_batch_free(ls_open_batch *open_batch);

/* Where the batch is to be built: header room, then records. */
static inline uint8_t *ls_open_batch_buffer(const ls_open_batch *open_batch) {
    return open_batch->map + LS_OPEN_BATCH_RECORDS_AT - LS_BATCH_HEADER_BYTES;
}
static inline size_t ls_open_batch_capacity_bytes(const ls_open_batch *open_batch) {
    return open_batch->map_bytes - LS_OPEN_BATCH_RECORDS_AT + LS_BATCH_HEADER_BYTES;
}

/* Before the first commit of a batch: says what its records are. */
void ls_open_batch_begin(ls_open_batch *open_batch, int64_t base_offset, int64_t base_timestamp);

/* The first `size_bytes` of the batch, header room included, are acknowledged when this returns. */
void ls_open_batch_commit(ls_open_batch *open_batch, size_t size_bytes);

/* The batch is in its segment, or nothing of it is acknowledged any more. */
void ls_open_batch_clear(ls_open_batch *open_batch);

/* What such a file holds. */
typedef struct ls_open_batch_content {
    const uint8_t *records; /* into the bytes given */
    size_t records_bytes;
    int64_t base_offset;
    int64_t base_timestamp;
} ls_open_batch_content;

/* Reads a file's bytes, written for this topic in this run of the system. LS_END: no record is acknowledged in
 * it, or it is another topic's or of another run, which says nothing; whatever a power cut left of one is of another
 * run. LS_CORRUPT, LS_TORN (shorter than it says), LS_UNSUPPORTED (another version). */
ls_status ls_open_batch_read(const uint8_t *bytes, size_t size, const uint8_t *topic_id, const uint8_t *boot_id,
                             ls_open_batch_content *out, ls_fault *fault);

#endif
