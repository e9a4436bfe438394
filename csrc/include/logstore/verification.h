/* Checking a segment's file from end to end, in steps: every header, every CRC if asked, the digest, and on
 * the way the two index files. Only reads. */
#ifndef LOGSTORE_VERIFICATION_H
#define LOGSTORE_VERIFICATION_H

#include <stddef.h>
#include <stdint.h>

#include "logstore/digest.h"
#include "logstore/segment.h"
#include "logstore/status.h"

/* An index file as it was read, and how far its entries have been met. */
typedef struct ls_index_check {
    const uint8_t *bytes; /* the caller's, until the end of the verification */
    size_t entries_count;
    size_t next;          /* entry */
    const char *fault;    /* the first rule broken; NULL for none */
    size_t fault_entry;
    int64_t expected;     /* of that entry */
    int64_t actual;
} ls_index_check;

/* A second thread that checks what comes next (work_ahead.h). It serves one verification at a time. */
typedef struct ls_verification_ahead ls_verification_ahead;

/* Where a verification stands. Zero-initialise, then ls_verification_init. */
typedef struct ls_verification {
    int64_t position;     /* of the next batch */
    int64_t next_offset;  /* smallest base offset it may have */
    int32_t leader_epoch; /* smallest it may have; -1: any */
    int is_next_exact;    /* 1: without gaps the next batch begins just at next_offset */
    int64_t batches_count;
    int64_t records_count;
    int64_t last_timestamp;       /* the largest of the last batch; -1: none */
    int64_t max_timestamp;        /* of all; -1: none */
    int64_t max_timestamp_offset; /* last offset of the earliest batch that has it */
    int is_max_known;             /* 0 once a batch was passed over */
    ls_digest digest;             /* of all batches met */
    ls_index_check offset_index;
    ls_index_check time_index;
    ls_verification_ahead *ahead; /* the caller's, set after ls_verification_init; NULL: without */
} ls_verification;

/* NULL where there is no second processor, no thread or no memory. The segment outlives it. */
ls_verification_ahead *ls_verification_ahead_create(ls_segment *segment);
void ls_verification_ahead_free(ls_verification_ahead *ahead); /* NULL is fine */

/* Starts at the beginning. The index bytes are whole files, less what preallocation left behind; NULL and 0
 * for none. Sizes that are no multiple of an entry's are for the caller to report; the rest is ignored. */
void ls_verification_init(ls_verification *verification, int64_t base_offset, const uint8_t *offset_index,
                          size_t offset_index_bytes, const uint8_t *time_index, size_t time_index_bytes);

/* Goes on over whole batches until `budget_bytes` of the file are behind it, or the end at `limit`. LS_OK:
 * there is more; LS_END: a batch ends just at limit. LS_TORN, LS_CORRUPT, LS_UNSUPPORTED: the batch at
 * position is damaged, by the rules of ls_segment_recover, and the verification stands there. `deep` 0 reads
 * headers alone: CRCs are taken from them. With `ahead`, and offset index entries to cut the file at, two
 * threads do the deep check; what is found is the same. */
ls_status ls_segment_verify(ls_segment *segment, ls_verification *verification, int64_t limit,
                            int64_t budget_bytes, int deep, ls_fault *fault);

/* Continues behind damage, at a batch that the caller has found: index entries for what is passed over are
 * not judged, nor are largest timestamps from here on. */
void ls_verification_skip(ls_verification *verification, int64_t position, int64_t next_offset,
                          int32_t leader_epoch, int is_next_exact);

/* At the end of the file: entries that lead nowhere. */
void ls_verification_finish(ls_verification *verification);

#endif
