#include <stdlib.h>

#include "compaction_walk.h"
#include "key_offset_map_internal.h"
#include "logstore/varint.h"

enum {
    /* Records whose slots in the map are fetched at the same time. */
    WINDOW_RECORDS = 64,
    /* In front of a record's tail: length, attributes, timestamp delta. */
    HEAD_BYTES_MAX = LS_VARINT32_BYTES_MAX + 1 + LS_VARINT64_BYTES_MAX,
    KEPT_CAPACITY_MIN = 256,
    BUFFER_BYTES_MIN = 4096
};

ls_status ls_byte_buffer_reserve(ls_byte_buffer *buffer, size_t more, ls_fault *fault) {
    if (more <= buffer->capacity - buffer->size) return LS_OK;
    size_t capacity = buffer->capacity < BUFFER_BYTES_MIN ? BUFFER_BYTES_MIN : buffer->capacity;
    while (capacity - buffer->size < more) {
        if (capacity > SIZE_MAX / 2) return ls_fail(fault, LS_NO_MEMORY, "output of a compaction", -1, -1,
                                                    -1);
        capacity *= 2;
    }
    uint8_t *bytes = realloc(buffer->bytes, capacity);
    if (bytes == NULL)
        return ls_fail(fault, LS_NO_MEMORY, "output of a compaction", -1, (int64_t)capacity, 0);
    buffer->bytes = bytes;
    buffer->capacity = capacity;
    return LS_OK;
}

/* The iterator names the fault, at its own pace; a batch that it finds sound has ended. */
LS_NOINLINE ls_status ls_compaction_name_fault(const record_walk *walk, ls_fault *fault) {
    ls_record_iterator iterator;
    ls_record_iterator_init(&iterator, walk->header, walk->payload, walk->end);
    ls_record record;
    ls_status status;
    do status = ls_record_iterator_next(&iterator, &record, fault);
    while (status == LS_OK);
    return status;
}

static int64_t timestamp_of(const ls_batch_header *header, const ls_record_parts *parts) {
    return (header->attributes & LS_ATTRIBUTE_LOG_APPEND_TIME) != 0
               ? header->max_timestamp
               : ls_add_wrapping(header->base_timestamp, parts->timestamp_delta);
}

bool ls_compaction_is_superseded(const ls_compactor *compactor, const ls_batch_header *header) {
    int64_t last_offset = ls_batch_last_offset(header);
    if (header->base_offset < compactor->rules.first_dirty_offset ||
        last_offset >= compactor->superseded_end_offset ||
        header->records_count != (int64_t)header->last_offset_delta + 1) {
        return false;
    }
    for (int64_t offset = header->base_offset; offset <= last_offset; offset++) {
        if (!ls_is_superseded(compactor, offset)) return false;
    }
    return true;
}

/* ---- the second pass ------------------------------------------------------------------------- */

static ls_status reserve_kept(ls_compactor *compactor, const ls_batch_header *header, const uint8_t *payload,
                              const uint8_t *payload_end, ls_fault *fault) {
    compactor->kept_count = 0;
    /* What the header says is bounded by what is there: a record has 7 bytes at least. */
    size_t count = (size_t)(payload_end - payload) / 7 + 1;
    if ((size_t)header->records_count < count) count = (size_t)header->records_count;
    if (count <= compactor->kept_capacity) return LS_OK;
    if (count < KEPT_CAPACITY_MIN) count = KEPT_CAPACITY_MIN;
    ls_kept_record *kept = realloc(compactor->kept, count * sizeof *kept);
    if (kept == NULL) return ls_fail(fault, LS_NO_MEMORY, "records of a batch", -1, (int64_t)count, 0);
    compactor->kept = kept;
    compactor->kept_capacity = count;
    return LS_OK;
}

static LS_ALWAYS_INLINE void keep(ls_compactor *compactor, const uint8_t *start, const uint8_t *next,
                                  int64_t timestamp) {
    const uint8_t *tail = start; /* behind two varints and the attributes, all of which were parsed */
    while (*tail >= 0x80u) tail++;
    tail += 2;
    while (*tail >= 0x80u) tail++;
    tail++;
    compactor->kept[compactor->kept_count++] =
        (ls_kept_record){.tail = tail, .tail_bytes = (size_t)(next - tail), .timestamp = timestamp};
}

ls_status ls_compaction_keep_records(ls_compactor *compactor, const ls_batch_header *header,
                                     const uint8_t *payload, const uint8_t *payload_end, ls_fault *fault) {
    ls_status status = check_codec(header, fault);
    if (status == LS_OK) status = reserve_kept(compactor, header, payload, payload_end, fault);
    if (status != LS_OK) return status;
    record_walk walk = start_walk(header, payload, payload_end);
    const uint8_t *start;
    ls_record_parts parts;
    while ((status = next_record(&walk, &start, &parts, fault)) == LS_OK)
        keep(compactor, start, parts.next, timestamp_of(header, &parts));
    return status == LS_END ? LS_OK : status;
}

typedef struct judged_record {
    ls_key_hash hash;
    const uint8_t *start;
    const uint8_t *next;
    int64_t offset;
    int64_t timestamp;
    bool is_covered; /* else it stays */
    bool asks_map;   /* else no later one has its key */
    bool is_null;
} judged_record;

static void judge_window(ls_compactor *compactor, const judged_record *window, int count,
                         bool drops_tombstones,
                         bool *has_tombstone) {
    for (int i = 0; i < count; i++) {
        const judged_record *record = &window[i];
        if (record->asks_map && record->offset < ls_key_map_get(compactor->map, record->hash)) {
            compactor->counts.records_superseded++;
            continue;
        }
        if (record->is_covered && record->is_null && drops_tombstones) {
            compactor->counts.tombstones_expired++;
            continue;
        }
        *has_tombstone |= record->is_null;
        keep(compactor, record->start, record->next, record->timestamp);
    }
}

static ls_status erase_records(ls_compactor *compactor, const ls_batch_header *header, const uint8_t *payload,
                               const uint8_t *payload_end, ls_fault *fault) {
    const uint8_t *erased = compactor->rules.erased_key;
    size_t erased_bytes = compactor->rules.erased_key_bytes;
    record_walk walk = start_walk(header, payload, payload_end);
    const uint8_t *start;
    ls_record_parts parts;
    ls_status status;
    while ((status = next_record(&walk, &start, &parts, fault)) == LS_OK) {
        if (parts.key_bytes >= 0 && (size_t)parts.key_bytes == erased_bytes &&
            (erased_bytes == 0 || memcmp(parts.key, erased, erased_bytes) == 0)) {
            compactor->counts.records_superseded++;
            continue;
        }
        keep(compactor, start, parts.next, timestamp_of(header, &parts));
    }
    return status == LS_END ? LS_OK : status;
}

ls_status ls_compaction_judge_records(ls_compactor *compactor, const ls_batch_header *header,
                                      const uint8_t *payload, const uint8_t *payload_end, bool *has_tombstone,
                                      ls_fault *fault) {
    *has_tombstone = false;
    ls_status status = check_codec(header, fault);
    if (status == LS_OK) status = reserve_kept(compactor, header, payload, payload_end, fault);
    if (status != LS_OK) return status;
    if (compactor->rules.erased_key != NULL)
        return erase_records(compactor, header, payload, payload_end, fault);

    bool drops_tombstones = (header->attributes & LS_ATTRIBUTE_DELETE_HORIZON) != 0 &&
                            header->base_timestamp <= compactor->rules.now_ms;
    record_walk walk = start_walk(header, payload, payload_end);
    judged_record window[WINDOW_RECORDS];
    int count = 0;
    for (;;) {
        const uint8_t *start;
        ls_record_parts parts;
        status = next_record(&walk, &start, &parts, fault);
        if (status == LS_END) break;
        if (status != LS_OK) return status;
        int64_t offset = header->base_offset + parts.offset_delta;
        bool is_covered = offset < compactor->mapped_end_offset;
        bool is_known = is_covered && offset >= compactor->rules.first_dirty_offset &&
                        offset < compactor->superseded_end_offset;
        if (is_known && ls_is_superseded(compactor, offset)) {
            compactor->counts.records_superseded++;
            continue;
        }
        if (is_covered && parts.key_bytes < 0) {
            compactor->counts.records_without_key++;
            continue;
        }
        judged_record *record = &window[count++];
        record->start = start;
        record->next = parts.next;
        record->offset = offset;
        record->timestamp = timestamp_of(header, &parts);
        record->is_null = parts.value_bytes < 0;
        record->is_covered = is_covered;
        record->asks_map = is_covered && !is_known;
        if (record->asks_map) {
            record->hash = ls_key_map_hash(compactor->map, parts.key, (size_t)parts.key_bytes);
            ls_key_map_prefetch(compactor->map, record->hash);
        }
        if (count == WINDOW_RECORDS) {
            judge_window(compactor, window, count, drops_tombstones, has_tombstone);
            count = 0;
        }
    }
    judge_window(compactor, window, count, drops_tombstones, has_tombstone);
    return LS_OK;
}

ls_status ls_compaction_encode_kept(const ls_compactor *compactor, int64_t base_timestamp,
                                    ls_byte_buffer *buffer, ls_fault *fault) {
    size_t bound = 0;
    for (size_t i = 0; i < compactor->kept_count; i++)
        bound += HEAD_BYTES_MAX + compactor->kept[i].tail_bytes;
    ls_status status = ls_byte_buffer_reserve(buffer, bound, fault);
    if (status != LS_OK) return status;
    uint8_t *at = buffer->bytes + buffer->size;
    for (size_t i = 0; i < compactor->kept_count; i++) {
        const ls_kept_record *record = &compactor->kept[i];
        int64_t delta = (int64_t)((uint64_t)record->timestamp - (uint64_t)base_timestamp);
        size_t length = 1 + ls_varint64_size_bytes(delta) + record->tail_bytes;
        if (length > INT32_MAX) {
            return ls_fail(fault, LS_TOO_LARGE, "record would be larger than the format allows", -1,
                           INT32_MAX,
                           (int64_t)length);
        }
        at = ls_varint32_write(at, (int32_t)length);
        *at++ = 0; /* attributes */
        at = ls_varint64_write(at, delta);
        memcpy(at, record->tail, record->tail_bytes);
        at += record->tail_bytes;
    }
    buffer->size = (size_t)(at - buffer->bytes);
    return LS_OK;
}
