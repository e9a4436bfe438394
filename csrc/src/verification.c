#include "logstore/verification.h"

#include <stdlib.h>

#include "logstore/bytes.h"
#include "logstore/crc32c.h"
#include "segment_internal.h"
#include "verification_internal.h"

enum {
    DEEP_BUFFER_BYTES = 128 << 10,
    HEADERS_BUFFER_BYTES = 64 << 10,
    SINGLE_READ_BYTES = 512,     /* around one header, where the next is far away */
    LARGE_BATCH_BYTES = 16 << 10 /* from here on batches are stepped over one read each */
};

void ls_verification_init(ls_verification *verification, int64_t base_offset, const uint8_t *offset_index,
                          size_t offset_index_bytes, const uint8_t *time_index, size_t time_index_bytes) {
    *verification = (ls_verification){
        .next_offset = base_offset,
        .leader_epoch = -1,
        .is_next_exact = 1,
        .last_timestamp = -1,
        .max_timestamp = -1,
        .max_timestamp_offset = base_offset,
        .is_max_known = 1,
        .offset_index = {.bytes = offset_index,
                         .entries_count = offset_index_bytes / LS_OFFSET_INDEX_ENTRY_BYTES},
        .time_index = {.bytes = time_index, .entries_count = time_index_bytes / LS_TIME_INDEX_ENTRY_BYTES},
    };
}

/* ---- indexes --------------------------------------------------------------------------------- */

static void note_fault(ls_index_check *check, const char *fault, int64_t expected, int64_t actual) {
    if (check->fault != NULL) return;
    check->fault = fault;
    check->fault_entry = check->next;
    check->expected = expected;
    check->actual = actual;
}

static int32_t entry_offset(const ls_index_check *check, size_t i) {
    return ls_load_i32(check->bytes + i * LS_OFFSET_INDEX_ENTRY_BYTES);
}
static int32_t entry_position(const ls_index_check *check, size_t i) {
    return ls_load_i32(check->bytes + i * LS_OFFSET_INDEX_ENTRY_BYTES + 4);
}

/* Entries for positions below one were not met where they stand. */
static void offset_entries_below(ls_index_check *check, int64_t position) {
    while (check->next < check->entries_count && entry_position(check, check->next) < position) {
        note_fault(check, "leads to a position where no batch starts", -1,
                   entry_position(check, check->next));
        check->next++;
    }
}

static void check_offset_entry(ls_index_check *check, int64_t position, int64_t relative_last_offset) {
    if (check->fault != NULL) return;
    offset_entries_below(check, position);
    if (check->next == check->entries_count || entry_position(check, check->next) != position) return;
    int32_t offset = entry_offset(check, check->next);
    if (offset != relative_last_offset)
        note_fault(check, "gives another offset than the batch it leads to", relative_last_offset, offset);
    check->next++;
}

static int64_t entry_timestamp(const ls_index_check *check, size_t i) {
    return ls_load_i64(check->bytes + i * LS_TIME_INDEX_ENTRY_BYTES);
}
static int32_t time_entry_offset(const ls_index_check *check, size_t i) {
    return ls_load_i32(check->bytes + i * LS_TIME_INDEX_ENTRY_BYTES + 8);
}

static void wrong_time_entry(ls_verification *verification) {
    ls_index_check *check = &verification->time_index;
    note_fault(check, "is not the largest timestamp up to its offset", verification->max_timestamp,
               entry_timestamp(check, check->next));
}

static void check_time_entry(ls_verification *verification, int64_t base_offset,
                             int64_t relative_last_offset) {
    ls_index_check *check = &verification->time_index;
    if (check->fault != NULL || check->next == check->entries_count) return;
    size_t i = check->next;
    if (entry_timestamp(check, i) == verification->max_timestamp &&
        time_entry_offset(check, i) == verification->max_timestamp_offset - base_offset) {
        check->next++;
    } else if (verification->is_max_known && time_entry_offset(check, i) <= relative_last_offset) {
        wrong_time_entry(verification);
        check->next++;
    }
}

/* ---- batches --------------------------------------------------------------------------------- */

ls_status ls_window_check_crc(ls_window *window, const ls_batch_location *batch, ls_fault *fault) {
    int64_t at_position = batch->position + LS_BATCH_ATTRIBUTES_AT;
    int64_t end = batch->position + ls_batch_size_bytes(&batch->header);
    uint32_t crc = 0;
    while (at_position < end) {
        const uint8_t *at;
        size_t available;
        ls_status status = ls_window_reach(window, at_position, 1, &at, &available, fault);
        if (status != LS_OK) return status;
        if (available == 0)
            return ls_fail(fault, LS_TORN, "batch is cut off", batch->position, end, at_position);
        if ((int64_t)available > end - at_position) available = (size_t)(end - at_position);
        crc = ls_crc32c_extend(crc, at, available);
        at_position += (int64_t)available;
    }
    if (crc == batch->header.crc) return LS_OK;
    return ls_fail(fault, LS_CORRUPT, "CRC does not match", batch->position + LS_BATCH_CRC_AT,
                   batch->header.crc, crc);
}

void ls_verification_take(ls_verification *verification, const ls_segment *segment, const ls_scan *scan,
                          const ls_batch_location *batch) {
    int64_t last_offset = ls_batch_last_offset(&batch->header);
    int64_t relative = last_offset - segment->options.base_offset;
    check_offset_entry(&verification->offset_index, batch->position, relative);
    if (batch->header.max_timestamp > verification->max_timestamp) {
        verification->max_timestamp = batch->header.max_timestamp;
        verification->max_timestamp_offset = last_offset;
    }
    check_time_entry(verification, segment->options.base_offset, relative);
    ls_digest_extend(&verification->digest, &batch->header);
    verification->last_timestamp = batch->header.max_timestamp;
    verification->batches_count++;
    verification->records_count += batch->header.records_count;
    verification->position = scan->position;
    verification->next_offset = scan->next_offset;
    verification->leader_epoch = scan->leader_epoch;
    verification->is_next_exact = 1;
}

void ls_verification_resume(const ls_verification *verification, ls_scan *scan) {
    scan->next_offset = verification->next_offset;
    scan->leader_epoch = verification->leader_epoch;
    scan->is_next_exact = verification->is_next_exact != 0;
}

static ls_status verify_with(ls_segment *segment, ls_verification *verification, uint8_t *buffer,
                             int64_t limit, int64_t until, bool deep, ls_fault *fault) {
    ls_scan scan;
    ls_scan_init(&scan, segment, buffer, deep ? DEEP_BUFFER_BYTES : HEADERS_BUFFER_BYTES,
                 verification->position, limit);
    ls_verification_resume(verification, &scan);
    while (verification->position < until) {
        ls_batch_location batch;
        ls_status status = ls_scan_next(&scan, segment, &batch, fault);
        if (status == LS_OK && deep) status = ls_window_check_crc(&scan.window, &batch, fault);
        if (status != LS_OK) return status;
        ls_verification_take(verification, segment, &scan, &batch);
        if (!deep) {
            bool is_large = ls_batch_size_bytes(&batch.header) >= LARGE_BATCH_BYTES;
            scan.window.capacity = is_large ? SINGLE_READ_BYTES : HEADERS_BUFFER_BYTES;
        }
    }
    return verification->position < limit ? LS_OK : LS_END;
}

ls_status ls_segment_verify(ls_segment *segment, ls_verification *verification, int64_t limit,
                            int64_t budget_bytes, int deep, ls_fault *fault) {
    if (verification->position >= limit) return LS_END;
    int64_t until = limit;
    if (limit - verification->position > budget_bytes) until = verification->position + budget_bytes;
    if (until <= verification->position) until = verification->position + 1; /* a batch at least */
    if (deep && verification->ahead != NULL)
        ls_verification_go_ahead(verification, segment, limit, until);
    if (verification->position >= until) return verification->position < limit ? LS_OK : LS_END;
    size_t capacity = deep ? DEEP_BUFFER_BYTES : HEADERS_BUFFER_BYTES;
    uint8_t *buffer = malloc(capacity);
    if (buffer == NULL)
        return ls_fail(fault, LS_NO_MEMORY, "buffer to verify with", -1, (int64_t)capacity, 0);
    ls_status status = verify_with(segment, verification, buffer, limit, until, deep != 0, fault);
    free(buffer);
    return status;
}

void ls_verification_skip(ls_verification *verification, int64_t position, int64_t next_offset,
                          int32_t leader_epoch, int is_next_exact) {
    ls_index_check *offsets = &verification->offset_index;
    while (offsets->next < offsets->entries_count && entry_position(offsets, offsets->next) < position)
        offsets->next++;
    verification->is_max_known = 0;
    verification->position = position;
    verification->next_offset = next_offset;
    verification->leader_epoch = leader_epoch;
    verification->is_next_exact = is_next_exact;
}

void ls_verification_finish(ls_verification *verification) {
    ls_index_check *offsets = &verification->offset_index;
    offset_entries_below(offsets, verification->position);
    if (offsets->next < offsets->entries_count)
        note_fault(offsets, "leads past the end of the .log file", verification->position,
                   entry_position(offsets, offsets->next));
    ls_index_check *times = &verification->time_index;
    if (verification->is_max_known && times->next < times->entries_count) wrong_time_entry(verification);
}
