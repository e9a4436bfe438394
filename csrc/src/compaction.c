#include "logstore/compaction.h"

#include <stdlib.h>
#include <string.h>

#include "compaction_internal.h"
#include "logstore/bytes.h"

ls_status ls_compactor_create(const ls_compaction_rules *rules, ls_key_offset_map *map, ls_compactor **out,
                              ls_fault *fault) {
    ls_compactor *compactor = calloc(1, sizeof *compactor);
    if (compactor == NULL) return ls_fail(fault, LS_NO_MEMORY, "compaction", -1, (int64_t)sizeof *compactor,
                                          0);
    compactor->rules = *rules;
    compactor->map = map;
    compactor->mapped_end_offset = rules->first_dirty_offset;
    compactor->superseded_end_offset = rules->first_dirty_offset;
    compactor->marks_superseded = true;
    compactor->full_offset = INT64_MAX;
    if (map != NULL) ls_key_offset_map_start(map, rules->first_dirty_offset);
    *out = compactor;
    return LS_OK;
}

void ls_compactor_free(ls_compactor *compactor) {
    if (compactor == NULL) return;
    ls_transaction_walk_free(&compactor->walk);
    ls_compaction_share_no_parts(compactor);
    free(compactor->gathered);
    free(compactor->superseded);
    free(compactor->kept);
    free(compactor->output.bytes);
    free(compactor->pending.bytes);
    free(compactor->aborted);
    free(compactor);
}

void ls_compactor_set_history(ls_compactor *compactor, const ls_transaction_history *history) {
    compactor->history = history;
    ls_transaction_walk_start(&compactor->walk, history);
}

void ls_compactor_start_pass(ls_compactor *compactor) {
    if (compactor->history != NULL) ls_transaction_walk_start(&compactor->walk, compactor->history);
    ls_compaction_put_all_gathered(compactor);
    ls_compaction_share_no_parts(compactor);
    compactor->output.size = 0;
    compactor->aborted_count = 0;
    compactor->is_gone = false;
}

void ls_compactor_start_segment(ls_compactor *compactor, int64_t base_offset, int64_t end_offset) {
    compactor->next_offset = base_offset;
    compactor->end_offset = end_offset;
}

const ls_compaction_counts *ls_compactor_counts(const ls_compactor *compactor) { return &compactor->counts; }
int64_t ls_compactor_mapped_end_offset(const ls_compactor *compactor) { return compactor->mapped_end_offset; }
void ls_compactor_map_ended(ls_compactor *compactor, int64_t end_offset) {
    int64_t bound = compactor->rules.first_uncleanable_offset;
    compactor->mapped_end_offset = end_offset < bound ? end_offset : bound;
}

const uint8_t *ls_compactor_pending(const ls_compactor *compactor, ls_batch_header *header, size_t *size) {
    *header = compactor->pending_header;
    *size = compactor->pending.size;
    return compactor->pending.bytes;
}

const uint8_t *ls_compactor_output(const ls_compactor *compactor, size_t *size) {
    *size = compactor->output.size;
    return compactor->output.bytes;
}

void ls_compactor_clear_output(ls_compactor *compactor) { compactor->output.size = 0; }

const ls_aborted_transaction *ls_compactor_aborted(const ls_compactor *compactor, size_t *count) {
    *count = compactor->aborted_count;
    return compactor->aborted;
}

void ls_compactor_clear_aborted(ls_compactor *compactor) { compactor->aborted_count = 0; }

/* ---- both passes ----------------------------------------------------------------------------- */

/* The next whole batch, its structure checked, and where it stands. LS_END: less than a batch is left, of
 * which *wanted bytes are needed. */
ls_status ls_compaction_next_batch(ls_compactor *compactor, const uint8_t *at, const uint8_t *end,
                                   int64_t position,
                            size_t *wanted, ls_fault *fault) {
    ls_batch_header *header = &compactor->header;
    ls_fault torn;
    *wanted = 0;
    ls_status status = ls_batch_header_read(at, end, position, header, &torn);
    if (status == LS_END) return LS_END;
    if (status == LS_TORN) {
        /* Its header says how much it is; before that, a header is what is needed. */
        *wanted = (size_t)torn.expected;
        return LS_END;
    }
    if (status != LS_OK) {
        *fault = torn;
        return status;
    }
    if (header->base_offset < compactor->next_offset) {
        return ls_fail(fault, LS_CORRUPT, "base offset is not above the offsets before it", position,
                       compactor->next_offset, header->base_offset);
    }
    if (ls_batch_last_offset(header) >= compactor->end_offset) {
        return ls_fail(fault, LS_CORRUPT, "offset belongs to the next segment", position,
                       compactor->end_offset,
                       ls_batch_last_offset(header));
    }
    compactor->position = position;
    compactor->is_gone = true;
    return LS_OK;
}

/* Of the batch at hand, everything that next_batch has not checked. */
ls_status ls_compaction_validate(const ls_compactor *compactor, const uint8_t *at, ls_fault *fault) {
    ls_batch_header ignored;
    return ls_batch_validate(at, at + ls_batch_size_bytes(&compactor->header), compactor->position, &ignored,
                             fault);
}

void ls_compaction_batch_is_done(ls_compactor *compactor) {
    compactor->next_offset = ls_batch_last_offset(&compactor->header) + 1;
    compactor->counts.batches_read++;
}

/* The position of a fault among records is that in the uncompressed batch: it becomes one in the file. */
ls_status ls_compaction_in_file(const ls_compactor *compactor, ls_status status, ls_fault *fault) {
    if (status != LS_CORRUPT) return status;
    bool is_plain = ls_batch_codec(&compactor->header) == LS_CODEC_NONE && fault->position >= 0;
    fault->position = compactor->position + (is_plain ? fault->position : 0);
    return status;
}

bool ls_compaction_needs_history(const ls_compactor *compactor) {
    const ls_batch_header *header = &compactor->header;
    if (compactor->rules.erased_key != NULL) return false;
    if (compactor->is_ahead && (ls_is_control(header) || ls_is_transactional(header))) return true;
    if (header->producer_id < 0) return false;
    if (compactor->history == NULL) return true;
    return compactor->history->is_partial && (ls_is_control(header) || ls_is_transactional(header));
}

/* ---- the first pass -------------------------------------------------------------------------- */

/* What the batch adds to the map. *needs_payload: only once it is decompressed. */
static ls_status map_batch(ls_compactor *compactor, const uint8_t *batch, bool *needs_payload, bool *is_full,
                           ls_fault *fault) {
    const ls_batch_header *header = &compactor->header;
    bool is_aborted = false;
    ls_status status = LS_OK;
    if (ls_is_control(header)) {
        ls_marker marker = ls_transaction_marker(batch, header);
        if (marker == LS_MARKER_NONE) return LS_OK;
        bool has_data;
        const ls_aborted_transaction *aborted;
        return ls_transaction_walk_marker(&compactor->walk, header, marker, &has_data, &aborted, fault);
    }
    if (ls_is_transactional(header)) status = ls_transaction_walk_data(&compactor->walk, header, &is_aborted,
                                                                       fault);
    if (status != LS_OK || is_aborted || header->records_count == 0 ||
        ls_batch_last_offset(header) < compactor->rules.first_dirty_offset) {
        return status;
    }
    if (ls_batch_codec(header) != LS_CODEC_NONE) {
        *needs_payload = true;
        return LS_OK;
    }
    status = ls_compaction_map_records(compactor, header, batch + LS_BATCH_HEADER_BYTES,
                                       batch + ls_batch_size_bytes(header), is_full, fault);
    return ls_compaction_in_file(compactor, status, fault);
}

ls_status ls_compaction_map(ls_compactor *compactor, const uint8_t *at, const uint8_t *end, int64_t position,
                            ls_compaction_step *step, size_t *consumed, size_t *wanted, ls_fault *fault) {
    const uint8_t *start = at;
    for (;;) {
        *consumed = (size_t)(at - start);
        *wanted = 0;
        ls_status status = ls_compaction_next_batch(compactor, at, end, position + (at - start), wanted,
                                                    fault);
        if (status == LS_END) {
            *step = LS_COMPACTION_MORE;
            return LS_OK;
        }
        if (status == LS_OK) status = ls_compaction_validate(compactor, at, fault);
        if (status != LS_OK) return status;
        if (ls_compaction_needs_history(compactor)) {
            *step = LS_COMPACTION_HISTORY;
            return LS_OK;
        }
        if (compactor->header.base_offset >= compactor->rules.first_uncleanable_offset) {
            compactor->mapped_end_offset = compactor->rules.first_uncleanable_offset;
            *step = LS_COMPACTION_FULL;
            return LS_OK;
        }
        bool needs_payload = false;
        bool is_full = false;
        status = map_batch(compactor, at, &needs_payload, &is_full, fault);
        if (status != LS_OK) return status;
        if (is_full) {
            *step = LS_COMPACTION_FULL;
            return LS_OK;
        }
        ls_compaction_batch_is_done(compactor);
        if (needs_payload) {
            *step = LS_COMPACTION_PAYLOAD;
            return LS_OK;
        }
        at += ls_batch_size_bytes(&compactor->header);
    }
}

ls_status ls_compaction_map_payload(ls_compactor *compactor, const uint8_t *payload,
                                    const uint8_t *payload_end,
                                    ls_compaction_step *step, ls_fault *fault) {
    bool is_full = false;
    ls_status status =
        ls_compaction_map_records(compactor, &compactor->header, payload, payload_end, &is_full, fault);
    *step = is_full ? LS_COMPACTION_FULL : LS_COMPACTION_MORE;
    return ls_compaction_in_file(compactor, status, fault);
}
