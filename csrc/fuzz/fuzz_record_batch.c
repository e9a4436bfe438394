/* Arbitrary bytes as a batch: once as they are, and once with length and CRC put right, so that the fuzzer
 * gets past them to the records. Beyond the sanitizers' own findings, a disagreement between the ways through
 * a batch is a crash. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "logstore/bytes.h"
#include "logstore/record_batch.h"
#include "record_parse.h"

enum { COLUMNS_CAPACITY = 1 << 12 };

#define MUST(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
            abort(); \
        } \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void walk_headers(const ls_record *record, const uint8_t *payload_end) {
    const uint8_t *at = record->headers;
    const uint8_t *end = at + record->headers_bytes;
    MUST(end <= payload_end);
    ls_fault fault;
    for (int32_t i = 0; i < record->headers_count; i++) {
        ls_record_header header;
        MUST(ls_record_header_next(&at, end, &header, &fault) == LS_OK);
        MUST(header.key_bytes >= 0 && header.value_bytes >= -1);
    }
    MUST(at == end);
}

static bool same_bytes(const uint8_t *one, int32_t one_bytes, const uint8_t *other, int32_t other_bytes) {
    return one_bytes == other_bytes && (one_bytes < 0 || one == other);
}

static void check_record(const ls_record *record, const ls_record_iterator *behind, const uint8_t *at,
                         const uint8_t *payload, const uint8_t *end) {
    ls_record_parts parts;
    ls_fault fault;
    MUST(behind->at > at && behind->at <= end);
    MUST(ls_record_parse_careful(at, end, payload, &parts, &fault) == LS_OK);
    MUST(parts.next == behind->at);
    MUST(same_bytes(parts.key, parts.key_bytes, record->key, record->key_bytes));
    MUST(same_bytes(parts.value, parts.value_bytes, record->value, record->value_bytes));
    MUST(parts.headers == record->headers && parts.headers_count == record->headers_count);
    walk_headers(record, end);
}

/* The iterator, the careful parser, the columns and the leader's check over one payload. */
static void compare_ways(const ls_batch_header *header, const uint8_t *payload, const uint8_t *end) {
    static int64_t offsets[COLUMNS_CAPACITY], timestamps[COLUMNS_CAPACITY];
    static int32_t key_starts[COLUMNS_CAPACITY], key_bytes[COLUMNS_CAPACITY];
    static int32_t value_starts[COLUMNS_CAPACITY], value_bytes[COLUMNS_CAPACITY];
    static int32_t headers_starts[COLUMNS_CAPACITY], headers_counts[COLUMNS_CAPACITY];
    ls_columns columns = {offsets,     timestamps,     key_starts,     key_bytes, value_starts,
                          value_bytes, headers_starts, headers_counts, 0,         COLUMNS_CAPACITY};
    ls_fault columns_fault;
    ls_status columns_status = ls_columns_append(&columns, header, payload, end, payload, &columns_fault);

    ls_record_iterator iterator;
    ls_record record;
    ls_fault fault;
    ls_status status;
    size_t count = 0;
    int64_t largest = -1;
    bool dense = header->records_count > 0 && header->records_count == (int64_t)header->last_offset_delta + 1;
    int32_t null_key = -1;
    ls_record_iterator_init(&iterator, header, payload, end);
    for (;;) {
        const uint8_t *at = iterator.at;
        status = ls_record_iterator_next(&iterator, &record, &fault);
        if (status != LS_OK) break;
        check_record(&record, &iterator, at, payload, end);
        if (columns_status == LS_OK) {
            MUST(count < columns.count);
            MUST(offsets[count] == record.offset && timestamps[count] == record.timestamp);
            MUST(same_bytes(payload + key_starts[count], key_bytes[count], record.key, record.key_bytes));
            MUST(same_bytes(payload + value_starts[count], value_bytes[count], record.value,
                            record.value_bytes));
            MUST(payload + headers_starts[count] == record.headers);
            MUST(headers_counts[count] == record.headers_count);
        }
        if (iterator.previous_delta != (int64_t)count || record.timestamp < -1) dense = false;
        if (record.timestamp > largest) largest = record.timestamp;
        if (record.key_bytes < 0 && null_key < 0) null_key = (int32_t)count;
        count++;
    }
    if (columns_status == LS_OK) {
        MUST(status == LS_END && columns.count == count);
    } else {
        MUST(columns.count == 0);
        MUST(columns_status == LS_FULL ||
             (columns_status == status && fault.position == columns_fault.position &&
              fault.reason == columns_fault.reason));
    }

    int64_t max_timestamp;
    int32_t null_key_index;
    ls_status check = ls_batch_check_records(header, payload, end, &max_timestamp, &null_key_index, &fault);
    MUST((check == LS_OK) == (status == LS_END && dense));
    if (check == LS_OK) MUST(max_timestamp == largest && null_key_index == null_key);
}

static void one_batch(const uint8_t *batch, const uint8_t *end) {
    ls_batch_header peeked, read, validated;
    ls_fault fault;
    ls_status peek = ls_batch_header_peek(batch, end, 0, &peeked, &fault);
    ls_status whole = ls_batch_header_read(batch, end, 0, &read, &fault);
    ls_status valid = ls_batch_validate(batch, end, 0, &validated, &fault);
    if (whole == LS_OK) {
        MUST(peek == LS_OK && ls_batch_size_bytes(&read) <= end - batch);
        uint8_t written[LS_BATCH_HEADER_BYTES];
        ls_batch_header_write(&read, written);
        MUST(memcmp(written, batch, sizeof written) == 0);
        /* Without its CRC, too: what follows must stand any payload. */
        compare_ways(&read, batch + LS_BATCH_HEADER_BYTES, batch + ls_batch_size_bytes(&read));
    }
    if (valid == LS_OK) MUST(whole == LS_OK);
    /* A header that nobody checked must not lead out of bounds, either. */
    if (end - batch >= LS_BATCH_HEADER_BYTES) {
        ls_batch_header raw = {.base_offset = ls_load_i64(batch),
                               .attributes = ls_load_i16(batch + LS_BATCH_ATTRIBUTES_AT),
                               .last_offset_delta = ls_load_i32(batch + LS_BATCH_LAST_OFFSET_DELTA_AT),
                               .base_timestamp = ls_load_i64(batch + LS_BATCH_BASE_TIMESTAMP_AT),
                               .max_timestamp = ls_load_i64(batch + LS_BATCH_MAX_TIMESTAMP_AT),
                               .records_count = ls_load_i32(batch + LS_BATCH_RECORDS_COUNT_AT)};
        compare_ways(&raw, batch + LS_BATCH_HEADER_BYTES, end);
    }
}

/* What the iterator reads, the builder must be able to write, and it must read the same again. */
static void rebuild(const ls_batch_header *header, const uint8_t *payload, const uint8_t *end) {
    ls_batch_builder builder = {0};
    ls_fault fault;
    MUST(ls_batch_builder_init(&builder, 0, &fault) == LS_OK);
    ls_record_iterator iterator;
    ls_record record;
    ls_record_iterator_init(&iterator, header, payload, end);
    while (ls_record_iterator_next(&iterator, &record, &fault) == LS_OK) {
        ls_record_header headers[16];
        if (record.headers_count > 16) record.headers_count = 0;
        const uint8_t *at = record.headers;
        for (int32_t i = 0; i < record.headers_count; i++) {
            MUST(ls_record_header_next(&at, end, &headers[i], &fault) == LS_OK);
        }
        int64_t timestamp = record.timestamp < -1 ? -1 : record.timestamp;
        MUST(ls_batch_builder_append(&builder, timestamp, (ls_span){record.key, record.key_bytes},
                                     (ls_span){record.value, record.value_bytes}, headers,
                                     record.headers_count, &fault) == LS_OK);
    }
    if (builder.records_count > 0) {
        static const ls_batch_stamp_fields fields = {
            .producer_id = -1, .producer_epoch = -1, .base_sequence = -1};
        ls_batch_header sealed, read;
        ls_batch_builder_seal(&builder, &fields, &sealed);
        const uint8_t *built_end = builder.buffer + builder.size_bytes;
        MUST(ls_batch_validate(builder.buffer, built_end, 0, &read, &fault) == LS_OK);
        int64_t max_timestamp;
        int32_t null_key;
        MUST(ls_batch_check_records(&read, builder.buffer + LS_BATCH_HEADER_BYTES, built_end, &max_timestamp,
                                    &null_key, &fault) == LS_OK);
        MUST(max_timestamp == sealed.max_timestamp);
    }
    ls_batch_builder_free(&builder);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    one_batch(data, data + size);
    if (size < LS_BATCH_HEADER_BYTES) return 0;
    uint8_t *fixed = malloc(size);
    if (fixed == NULL) return 0;
    memcpy(fixed, data, size);
    fixed[LS_BATCH_BASE_OFFSET_AT] &= 0x7f;
    ls_store_i32(fixed + LS_BATCH_LENGTH_AT, (int32_t)(size - LS_BATCH_OVERHEAD_BYTES));
    fixed[LS_BATCH_MAGIC_AT] = LS_BATCH_MAGIC;
    ls_store_u32(fixed + LS_BATCH_CRC_AT, ls_batch_crc(fixed, size));
    one_batch(fixed, fixed + size);
    ls_batch_header header;
    ls_fault fault;
    if (ls_batch_validate(fixed, fixed + size, 0, &header, &fault) == LS_OK) {
        rebuild(&header, fixed + LS_BATCH_HEADER_BYTES, fixed + size);
    }
    free(fixed);
    return 0;
}
