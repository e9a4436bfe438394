#include "record_runs.h"

/* The end and the odd cases are the iterator's: it goes over the batch again, at its own pace, and names the
 * fault. */
static LS_NOINLINE ls_status find_fault(const ls_batch_header *header, const uint8_t *payload,
                                        const uint8_t *payload_end, ls_fault *fault) {
    ls_record_iterator iterator;
    ls_record_iterator_init(&iterator, header, payload, payload_end);
    ls_record record;
    ls_status status;
    do {
        status = ls_record_iterator_next(&iterator, &record, fault);
    } while (status == LS_OK);
    return status;
}

static LS_NOINLINE bool parse_carefully(const uint8_t *at, const uint8_t *end, const uint8_t *start,
                                        ls_record_parts *out) {
    ls_fault unused;
    return ls_record_parse_careful(at, end, start, out, &unused) == LS_OK;
}

enum {
    RUN_RECORDS_MIN = 8, /* fewer are not worth finding out about their shape */
    SHORT_RUNS_MAX = 2   /* after so many in a batch its sizes are taken for mixed */
};

ls_status ls_columns_append(ls_columns *columns, const ls_batch_header *header, const uint8_t *payload,
                            const uint8_t *payload_end, const uint8_t *origin, ls_fault *fault) {
    int32_t records_count = header->records_count;
    if (records_count <= 0 || ls_batch_codec(header) > LS_CODEC_ZSTD) {
        ls_status status = find_fault(header, payload, payload_end, fault);
        return status == LS_END ? LS_OK : status;
    }
    if (payload_end - origin > INT32_MAX) {
        return ls_fail(fault, LS_INVALID_ARGUMENT, "payload ends too far from the origin of the columns", -1,
                       INT32_MAX, payload_end - origin);
    }
    if ((size_t)records_count > columns->capacity - columns->count) {
        return ls_fail(fault, LS_FULL, "columns have no room for the batch", -1,
                       (int64_t)(columns->capacity - columns->count), records_count);
    }

    /* In locals, so that the stores below do not make the compiler load them again. */
    size_t first = columns->count;
    int64_t *offsets = columns->offsets + first;
    int64_t *timestamps = columns->timestamps + first;
    int32_t *key_starts = columns->key_starts + first;
    int32_t *key_bytes = columns->key_bytes + first;
    int32_t *value_starts = columns->value_starts + first;
    int32_t *value_bytes = columns->value_bytes + first;
    bool with_headers = columns->headers_starts != NULL;
    int32_t *headers_starts = with_headers ? columns->headers_starts + first : NULL;
    int32_t *headers_counts = with_headers ? columns->headers_counts + first : NULL;
    const ls_batch_rows rows = {offsets,      timestamps,  key_starts,     key_bytes,
                             value_starts, value_bytes, headers_starts, headers_counts};

    int64_t base_offset = header->base_offset;
    /* With append time the deltas are masked away, and every timestamp is the batch's largest. */
    bool log_append_time = (header->attributes & LS_ATTRIBUTE_LOG_APPEND_TIME) != 0;
    int64_t base_timestamp = log_append_time ? header->max_timestamp : header->base_timestamp;
    uint64_t delta_mask = log_append_time ? 0 : UINT64_MAX;

    const uint8_t *at = payload;
    int32_t previous_delta = -1;
    int32_t short_runs = 0;
    int32_t run_at = records_count >= RUN_RECORDS_MIN ? 0 : -1;
    bool same_size = true;
    for (int32_t i = 0; i < records_count; i++) {
        if (i == run_at && previous_delta == i - 1) {
            const uint8_t *run_start = at; /* a pointer whose address is taken would live in memory */
            int32_t run_end =
                ls_take_run(&run_start, payload_end, origin, i, records_count, &same_size, &rows, header);
            short_runs += run_end - i < RUN_RECORDS_MIN;
            at = run_start;
            i = run_end;
            previous_delta = i - 1;
            if (i == records_count) break;
            run_at = short_runs < SHORT_RUNS_MAX && records_count - i > RUN_RECORDS_MIN ? i + 1 : -1;
        }
        ls_record_parts parts;
        if (LS_UNLIKELY(!ls_record_parse_fast(at, payload_end, &parts))) {
            /* Into a struct of its own: one whose address is taken would live in memory for all records. */
            ls_record_parts careful;
            if (!parse_carefully(at, payload_end, payload, &careful)) {
                return find_fault(header, payload, payload_end, fault);
            }
            parts = careful;
        }
        if (LS_UNLIKELY(parts.offset_delta <= previous_delta)) {
            return find_fault(header, payload, payload_end, fault);
        }
        offsets[i] = ls_add_wrapping(base_offset, parts.offset_delta);
        timestamps[i] =
            ls_add_wrapping(base_timestamp, (int64_t)((uint64_t)parts.timestamp_delta & delta_mask));
        key_starts[i] = (int32_t)(parts.key - origin);
        key_bytes[i] = parts.key_bytes;
        value_starts[i] = (int32_t)(parts.value - origin);
        value_bytes[i] = parts.value_bytes;
        if (with_headers) {
            headers_starts[i] = (int32_t)(parts.headers - origin);
            headers_counts[i] = parts.headers_count;
        }
        previous_delta = parts.offset_delta;
        at = parts.next;
    }
    /* They rise, so that the last one speaks for all. */
    if (LS_UNLIKELY(previous_delta > header->last_offset_delta || at != payload_end)) {
        return find_fault(header, payload, payload_end, fault);
    }
    columns->count = first + (size_t)records_count;
    return LS_OK;
}
