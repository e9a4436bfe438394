/* The walk over a batch's records that both passes of compaction make. */
#ifndef LOGSTORE_COMPACTION_WALK_H
#define LOGSTORE_COMPACTION_WALK_H

#include "compaction_internal.h"
#include "record_parse.h"

typedef struct record_walk {
    const ls_batch_header *header;
    const uint8_t *payload;
    const uint8_t *at;
    const uint8_t *end;
    int32_t previous_delta;
    int32_t remaining;
} record_walk;

static inline record_walk start_walk(const ls_batch_header *header, const uint8_t *payload,
                                     const uint8_t *end) {
    return (record_walk){header, payload, payload, end, -1, header->records_count};
}

/* The iterator names the fault, at its own pace; a batch that it finds sound has ended. */
ls_status ls_compaction_name_fault(const record_walk *walk, ls_fault *fault);

/* Which the compiler can't see. */
static LS_ALWAYS_INLINE ls_status never_ok(ls_status status) { return status == LS_OK ? LS_CORRUPT : status; }

/* The next record; *start is where it begins. LS_END behind the last one. */
static LS_ALWAYS_INLINE ls_status next_record(record_walk *walk, const uint8_t **start, ls_record_parts *out,
                                              ls_fault *fault) {
    if (LS_UNLIKELY(walk->remaining <= 0)) {
        if (walk->at == walk->end && walk->remaining == 0) return LS_END;
        return never_ok(ls_compaction_name_fault(walk, fault));
    }
    if (LS_UNLIKELY(!ls_record_parse_fast(walk->at, walk->end, out))) {
        ls_record_parts careful;
        ls_status status = ls_record_parse_careful(walk->at, walk->end, walk->payload, &careful, fault);
        if (status != LS_OK) return status;
        *out = careful;
    }
    if (LS_UNLIKELY(out->offset_delta <= walk->previous_delta ||
                    out->offset_delta > walk->header->last_offset_delta)) {
        return never_ok(ls_compaction_name_fault(walk, fault));
    }
    *start = walk->at;
    walk->previous_delta = out->offset_delta;
    walk->at = out->next;
    walk->remaining--;
    return LS_OK;
}

/* A codec the format does not have says nothing about where records begin. */
static inline ls_status check_codec(const ls_batch_header *header, ls_fault *fault) {
    if (ls_batch_codec(header) <= LS_CODEC_ZSTD) return LS_OK;
    return ls_fail(fault, LS_CORRUPT, "codec is unknown", LS_BATCH_ATTRIBUTES_AT, LS_CODEC_ZSTD,
                   ls_batch_codec(header));
}

/* Whether a later record has the key of the one at an offset that the bit map covers. */
static LS_ALWAYS_INLINE bool ls_is_superseded(const ls_compactor *compactor, int64_t offset) {
    uint64_t bit = (uint64_t)offset - (uint64_t)compactor->rules.first_dirty_offset;
    return (compactor->superseded[bit / 64] >> (bit % 64) & 1u) != 0;
}

#endif
