#include <stdlib.h>
#include <string.h>

#include "compaction_internal.h"
#include "logstore/bytes.h"

/* ---- the second pass: what becomes of a batch ------------------------------------------------- */

/* Whether a batch is its producer's last: the sequence it went up to must not be forgotten. */
static bool is_last_of_producer(const ls_compactor *compactor) {
    const ls_batch_header *header = &compactor->header;
    if (header->producer_id < 0 || compactor->history == NULL) return false;
    const ls_producer_last *producer =
        ls_transaction_history_producer(compactor->history, header->producer_id);
    if (producer == NULL) return false;
    if (producer->last_data_offset >= 0) return ls_batch_last_offset(header) == producer->last_data_offset;
    return ls_is_control(header) && header->producer_epoch == producer->epoch;
}

static ls_status note_aborted(ls_compactor *compactor, const ls_aborted_transaction *aborted,
                              ls_fault *fault) {
    if (compactor->aborted_count == compactor->aborted_capacity) {
        size_t capacity = compactor->aborted_capacity == 0 ? 16 : compactor->aborted_capacity * 2;
        ls_aborted_transaction *grown = realloc(compactor->aborted, capacity * sizeof *grown);
        if (grown == NULL)
            return ls_fail(fault, LS_NO_MEMORY, "aborted transactions", -1, (int64_t)capacity, 0);
        compactor->aborted = grown;
        compactor->aborted_capacity = capacity;
    }
    compactor->aborted[compactor->aborted_count++] = *aborted;
    return LS_OK;
}

/* Rules 1 and 2 of log-format, 7.6, for a control batch. */
static ls_status judge_control(ls_compactor *compactor, const uint8_t *batch, ls_fault *fault) {
    const ls_batch_header *header = &compactor->header;
    ls_batch_fate *fate = &compactor->fate;
    ls_marker marker = ls_transaction_marker(batch, header);
    if (marker == LS_MARKER_NONE) return LS_OK;
    bool has_data;
    const ls_aborted_transaction *aborted;
    ls_status status =
        ls_transaction_walk_marker(&compactor->walk, header, marker, &has_data, &aborted, fault);
    if (status != LS_OK) return status;
    if (has_data) return aborted != NULL ? note_aborted(compactor, aborted, fault) : LS_OK;
    if ((header->attributes & LS_ATTRIBUTE_DELETE_HORIZON) == 0) fate->wants_horizon = true;
    else fate->drops_records = header->base_timestamp <= compactor->rules.now_ms;
    return LS_OK;
}

static ls_status judge_batch(ls_compactor *compactor, const uint8_t *batch, ls_fault *fault) {
    const ls_batch_header *header = &compactor->header;
    int64_t last_offset = ls_batch_last_offset(header);
    compactor->fate = (ls_batch_fate){0};
    compactor->fate.keeps_empty = compactor->rules.erased_key != NULL || is_last_of_producer(compactor) ||
                                  last_offset + 1 == compactor->rules.first_uncleanable_offset;
    if (compactor->rules.erased_key != NULL ||
        header->base_offset >= compactor->rules.first_uncleanable_offset)
        return LS_OK;
    if (ls_is_control(header)) return judge_control(compactor, batch, fault);
    if (!ls_is_transactional(header)) return LS_OK;
    return ls_transaction_walk_data(&compactor->walk, header, &compactor->fate.drops_records, fault);
}

/* ---- the second pass: what is written --------------------------------------------------------- */

static ls_status put_batch(ls_compactor *compactor, const uint8_t *batch, size_t size, ls_fault *fault) {
    ls_status status = ls_byte_buffer_reserve(&compactor->output, size, fault);
    if (status != LS_OK) return status;
    memcpy(compactor->output.bytes + compactor->output.size, batch, size);
    compactor->output.size += size;
    compactor->is_gone = false;
    return LS_OK;
}

static ls_status copy_batch(ls_compactor *compactor, const uint8_t *batch, ls_fault *fault) {
    compactor->counts.batches_copied++;
    return put_batch(compactor, batch, (size_t)ls_batch_size_bytes(&compactor->header), fault);
}

/* A whole batch stands at `start` of a buffer, but for its header. */
static ls_status seal(const ls_compactor *compactor, ls_byte_buffer *buffer, size_t start,
                      ls_batch_header *header,
                      ls_fault *fault) {
    size_t size = buffer->size - start;
    if (size > INT32_MAX) {
        buffer->size = start;
        return ls_fail(fault, LS_TOO_LARGE, "batch would be larger than the format allows",
                       compactor->position,
                       INT32_MAX, (int64_t)size);
    }
    uint8_t *at = buffer->bytes + start;
    header->batch_length = (int32_t)size - LS_BATCH_OVERHEAD_BYTES;
    ls_batch_header_write(header, at);
    ls_store_u32(at + LS_BATCH_CRC_AT, ls_batch_crc(at, size));
    return LS_OK;
}

/* The batch of a header and the records in compactor->kept, behind what a buffer holds. */
static ls_status build(ls_compactor *compactor, ls_byte_buffer *buffer, ls_batch_header *header,
                       ls_fault *fault) {
    size_t start = buffer->size;
    compactor->is_gone = false;
    ls_status status = ls_byte_buffer_reserve(buffer, LS_BATCH_HEADER_BYTES, fault);
    if (status != LS_OK) return status;
    buffer->size += LS_BATCH_HEADER_BYTES;
    status = ls_compaction_encode_kept(compactor, header->base_timestamp, buffer, fault);
    if (status != LS_OK) {
        buffer->size = start;
        return status;
    }
    return seal(compactor, buffer, start, header, fault);
}

/* What attributes keep when a batch is rewritten: bits that mean nothing go. */
static int16_t kept_attributes(int16_t attributes) {
    return (int16_t)(attributes & (LS_CODEC_MASK | LS_ATTRIBUTE_LOG_APPEND_TIME | LS_ATTRIBUTE_TRANSACTIONAL |
                                   LS_ATTRIBUTE_CONTROL | LS_ATTRIBUTE_DELETE_HORIZON));
}

static ls_status empty_batch(ls_compactor *compactor, ls_fault *fault) {
    ls_batch_header header = compactor->header;
    if (header.records_count != 0) {
        compactor->counts.batches_rebuilt++;
        compactor->counts.batches_emptied++;
    } else {
        compactor->counts.batches_copied++;
    }
    header.attributes =
        (int16_t)(kept_attributes(header.attributes) & ~(LS_CODEC_MASK | LS_ATTRIBUTE_DELETE_HORIZON));
    header.base_timestamp = -1;
    header.records_count = 0;
    compactor->kept_count = 0;
    return build(compactor, &compactor->output, &header, fault);
}

ls_status ls_compactor_keep_last(ls_compactor *compactor, ls_fault *fault) {
    return compactor->is_gone ? empty_batch(compactor, fault) : LS_OK;
}

/* The header of the batch with the records in compactor->kept. */
static ls_batch_header rebuilt_header(const ls_compactor *compactor, bool sets_horizon) {
    ls_batch_header header = compactor->header;
    header.attributes = kept_attributes(header.attributes);
    header.records_count = (int32_t)compactor->kept_count;
    if (sets_horizon) {
        header.attributes = (int16_t)(header.attributes | LS_ATTRIBUTE_DELETE_HORIZON);
        int64_t retention_ms = compactor->rules.delete_retention_ms;
        int64_t now_ms = compactor->rules.now_ms;
        header.base_timestamp = retention_ms > INT64_MAX - now_ms ? INT64_MAX : now_ms + retention_ms;
    } else if ((header.attributes & LS_ATTRIBUTE_DELETE_HORIZON) == 0) {
        header.base_timestamp = compactor->kept[0].timestamp;
    }
    if ((header.attributes & LS_ATTRIBUTE_LOG_APPEND_TIME) == 0) {
        header.max_timestamp = compactor->kept[0].timestamp;
        for (size_t i = 1; i < compactor->kept_count; i++) {
            if (compactor->kept[i].timestamp > header.max_timestamp)
                header.max_timestamp = compactor->kept[i].timestamp;
        }
    }
    return header;
}

/* Writes a batch whose records were judged. */
static ls_status put_judged(ls_compactor *compactor, const uint8_t *batch, bool sets_horizon,
                            ls_compaction_step *step, ls_fault *fault) {
    if (!ls_is_control(&compactor->header)) compactor->counts.records_kept += (int64_t)compactor->kept_count;
    *step = LS_COMPACTION_MORE;
    if (compactor->kept_count == 0)
        return compactor->fate.keeps_empty ? empty_batch(compactor, fault) : LS_OK;
    if (compactor->kept_count == (size_t)compactor->header.records_count && !sets_horizon)
        return copy_batch(compactor, batch, fault);
    ls_batch_header header = rebuilt_header(compactor, sets_horizon);
    compactor->counts.batches_rebuilt++;
    if (ls_batch_codec(&header) == LS_CODEC_NONE)
        return build(compactor, &compactor->output, &header, fault);
    *step = LS_COMPACTION_COMPRESS;
    compactor->pending.size = 0;
    ls_status status = build(compactor, &compactor->pending, &header, fault);
    compactor->pending_header = header;
    return status;
}

/* All of its records go, unseen. */
static ls_status drop_records(ls_compactor *compactor, ls_fault *fault) {
    if (ls_is_control(&compactor->header)) compactor->counts.markers_dropped++;
    else compactor->counts.records_aborted += compactor->header.records_count;
    return compactor->fate.keeps_empty ? empty_batch(compactor, fault) : LS_OK;
}

/* A judged batch whose records stand in memory. */
static ls_status rewrite_records(ls_compactor *compactor, const uint8_t *batch, const uint8_t *payload,
                                 const uint8_t *payload_end, ls_compaction_step *step, ls_fault *fault) {
    const ls_batch_header *header = &compactor->header;
    bool sets_horizon = compactor->fate.wants_horizon;
    ls_status status;
    if (ls_is_control(header)) {
        status = ls_compaction_keep_records(compactor, header, payload, payload_end, fault);
    } else {
        bool has_tombstone;
        status = ls_compaction_judge_records(compactor, header, payload, payload_end, &has_tombstone, fault);
        sets_horizon = has_tombstone && (header->attributes & LS_ATTRIBUTE_DELETE_HORIZON) == 0;
    }
    if (status != LS_OK) return ls_compaction_in_file(compactor, status, fault);
    return put_judged(compactor, batch, sets_horizon, step, fault);
}

/* *needs_payload: the records are compressed, and have to be judged one by one. */
static ls_status rewrite_batch(ls_compactor *compactor, const uint8_t *batch, bool *needs_payload,
                               ls_fault *fault) {
    const ls_batch_header *header = &compactor->header;
    ls_status status = judge_batch(compactor, batch, fault);
    if (status != LS_OK) return status;
    if (!ls_is_control(header)) compactor->counts.records_read += header->records_count;
    if (header->records_count == 0)
        return compactor->fate.keeps_empty || header->base_offset >= compactor->rules.first_uncleanable_offset
                   ? copy_batch(compactor, batch, fault)
                   : LS_OK;
    if (compactor->fate.drops_records) return drop_records(compactor, fault);
    bool is_uncovered = compactor->rules.erased_key == NULL &&
                        header->base_offset >= compactor->rules.first_uncleanable_offset;
    if (is_uncovered || (ls_is_control(header) && !compactor->fate.wants_horizon)) {
        if (!ls_is_control(header)) compactor->counts.records_kept += header->records_count;
        return copy_batch(compactor, batch, fault);
    }
    if (ls_batch_codec(header) != LS_CODEC_NONE) {
        *needs_payload = true;
        return LS_OK;
    }
    ls_compaction_step step;
    return rewrite_records(compactor, batch, batch + LS_BATCH_HEADER_BYTES,
                           batch + ls_batch_size_bytes(header),
                           &step, fault);
}

/* Whether no record of a batch stays, and it takes neither its records nor its producer to say so. The first
 * pass has validated it. */
static bool goes_unseen(const ls_compactor *compactor) {
    const ls_batch_header *header = &compactor->header;
    return header->producer_id < 0 && !ls_is_control(header) && compactor->rules.erased_key == NULL &&
           ls_batch_last_offset(header) < compactor->mapped_end_offset &&
           ls_batch_last_offset(header) + 1 != compactor->rules.first_uncleanable_offset &&
           ls_compaction_is_superseded(compactor, header);
}

static void drop_unseen(ls_compactor *compactor) {
    compactor->counts.records_read += compactor->header.records_count;
    compactor->counts.records_superseded += compactor->header.records_count;
    ls_compaction_batch_is_done(compactor);
}

ls_status ls_compaction_rewrite(ls_compactor *compactor, const uint8_t *at, const uint8_t *end,
                                int64_t position,
                                ls_compaction_step *step, size_t *consumed, size_t *wanted, ls_fault *fault) {
    const uint8_t *start = at;
    for (;;) {
        *consumed = (size_t)(at - start);
        *wanted = 0;
        if (compactor->output.size >= LS_COMPACTION_OUTPUT_BYTES && !compactor->is_ahead) {
            *step = LS_COMPACTION_OUTPUT;
            return LS_OK;
        }
        ls_status status = ls_compaction_next_batch(compactor, at, end, position + (at - start), wanted,
                                                    fault);
        if (status == LS_END) {
            *step = LS_COMPACTION_MORE;
            return LS_OK;
        }
        if (status == LS_OK && goes_unseen(compactor)) {
            drop_unseen(compactor);
            at += ls_batch_size_bytes(&compactor->header);
            continue;
        }
        if (status == LS_OK) status = ls_compaction_validate(compactor, at, fault);
        if (status != LS_OK) return status;
        if (ls_compaction_needs_history(compactor)) {
            *step = LS_COMPACTION_HISTORY;
            return LS_OK;
        }
        bool needs_payload = false;
        status = rewrite_batch(compactor, at, &needs_payload, fault);
        if (status != LS_OK) return status;
        ls_compaction_batch_is_done(compactor);
        if (needs_payload) {
            *step = LS_COMPACTION_PAYLOAD;
            return LS_OK;
        }
        at += ls_batch_size_bytes(&compactor->header);
    }
}

ls_status ls_compaction_rewrite_payload(ls_compactor *compactor, const uint8_t *batch, const uint8_t *payload,
                                        const uint8_t *payload_end, ls_compaction_step *step,
                                            ls_fault *fault) {
    return rewrite_records(compactor, batch, payload, payload_end, step, fault);
}

ls_status ls_compaction_rewrite_compressed(ls_compactor *compactor, const uint8_t *batch, size_t size,
                                           ls_fault *fault) {
    return put_batch(compactor, batch, size, fault);
}
