#include "check.h"
#include "logstore/record_batch.h"
#include "logstore/varint.h"
#include "vector_file.h"

static const ls_fault no_fault = {LS_OK, 0, "", 0, 0, 0};
static const ls_batch_stamp_fields plain_fields = {
    .producer_id = -1, .producer_epoch = -1, .base_sequence = -1};

static ls_span text_span(const char *text) {
    return text == NULL ? (ls_span){NULL, -1} : (ls_span){(const uint8_t *)text, (int32_t)strlen(text)};
}

/* ---- the same bytes as the independent encoders ------------------------------------------------- */

/* Takes a vector's records apart and builds them anew: the batch must come out byte for byte. */
static void test_rebuilds_the_vectors(void) {
    static const char *names[] = {
        "single_kv", "single_null_key", "single_null_value", "single_null_both", "single_empty_key",
        "single_empty_value", "single_empty_both", "single_binary", "headers_one", "headers_null_value",
        "headers_empty_value", "headers_empty_key", "headers_duplicate_keys", "headers_unicode",
        "headers_100", "ts_increasing", "ts_negative_deltas", "ts_mixed_max_in_middle", "ts_zero",
        "ts_no_timestamp", "ts_varlong_boundaries", "ts_delta_10_bytes", "ts_delta_negative_10_bytes",
        "value_len_63", "value_len_64", "value_len_8191", "value_len_8192", "one_none", "many10_none",
        "many200_none", "idempotent_zero", "idempotent_max", "idempotent_seq_at_max", "transactional",
        "broker_offset_epoch", "control_commit", "rdk_single", "rdk_nulls", "rdk_headers",
        "rdk_ts_negative", "rdk_many200_none", "rdk_idempotent",
    };
    for (size_t v = 0; v < sizeof names / sizeof names[0]; v++) {
        vector_file vector = vector_file_read(names[v]);
        ls_fault fault = no_fault;
        ls_batch_header header;
        REQUIRE_INT(ls_batch_validate(vector.bytes, vector.end, 0, &header, &fault), LS_OK);
        ls_batch_builder builder = {0};
        REQUIRE_INT(ls_batch_builder_init(&builder, 0, &fault), LS_OK);
        ls_record_iterator iterator;
        ls_record record;
        ls_record_iterator_init(&iterator, &header, vector.bytes + LS_BATCH_HEADER_BYTES, vector.end);
        while (ls_record_iterator_next(&iterator, &record, &fault) == LS_OK) {
            ls_record_header headers[100];
            REQUIRE(record.headers_count <= 100);
            const uint8_t *at = record.headers;
            for (int32_t i = 0; i < record.headers_count; i++) {
                REQUIRE_INT(ls_record_header_next(&at, vector.end, &headers[i], &fault), LS_OK);
            }
            CHECK_INT(ls_batch_builder_append(
                          &builder, record.timestamp, (ls_span){record.key, record.key_bytes},
                          (ls_span){record.value, record.value_bytes}, headers, record.headers_count, &fault),
                      LS_OK);
        }
        ls_batch_stamp_fields fields = {.base_offset = header.base_offset,
                                        .partition_leader_epoch = header.partition_leader_epoch,
                                        .attributes = header.attributes,
                                        .producer_id = header.producer_id,
                                        .producer_epoch = header.producer_epoch,
                                        .base_sequence = header.base_sequence};
        ls_batch_header built;
        ls_batch_builder_seal(&builder, &fields, &built);
        size_t size = (size_t)(vector.end - vector.bytes);
        CHECK_CASE(builder.size_bytes == size && memcmp(builder.buffer, vector.bytes, size) == 0,
                   "%s: built %zu bytes, not the %zu of the vector", names[v], builder.size_bytes, size);
        CHECK_HEX(built.crc, header.crc);
        ls_batch_builder_free(&builder);
        free(vector.bytes);
    }
}

/* ---- every size ---------------------------------------------------------------------------------- */

/* Reads back what a builder holds and compares it with spans. */
static void check_reads_back(ls_batch_builder *builder, const ls_span *keys, const ls_span *values,
                             const int64_t *timestamps, size_t count) {
    ls_fault fault = no_fault;
    ls_batch_header header;
    ls_batch_builder_seal(builder, &plain_fields, &header);
    const uint8_t *end = builder->buffer + builder->size_bytes;
    if (!CHECK_INT(ls_batch_validate(builder->buffer, end, 0, &header, &fault), LS_OK)) return;
    ls_record_iterator iterator;
    ls_record_iterator_init(&iterator, &header, builder->buffer + LS_BATCH_HEADER_BYTES, end);
    for (size_t i = 0; i < count; i++) {
        ls_record record;
        ls_status status = ls_record_iterator_next(&iterator, &record, &fault);
        if (!CHECK_CASE(status == LS_OK, "record %zu: %s", i, fault.reason)) return;
        bool same_key =
            record.key_bytes == keys[i].size_bytes &&
            (keys[i].size_bytes <= 0 || memcmp(record.key, keys[i].bytes, (size_t)record.key_bytes) == 0);
        bool same_value = record.value_bytes == values[i].size_bytes &&
                          (values[i].size_bytes <= 0 ||
                           memcmp(record.value, values[i].bytes, (size_t)record.value_bytes) == 0);
        CHECK_CASE(same_key && same_value, "record %zu, key of %d and value of %d bytes, differs", i,
                   keys[i].size_bytes, values[i].size_bytes);
        CHECK_CASE(record.timestamp == timestamps[i] && record.offset == (int64_t)i,
                   "record %zu: offset %lld", i, (long long)record.offset);
    }
    ls_record none;
    CHECK_INT(ls_record_iterator_next(&iterator, &none, &fault), LS_END);
}

enum { SIZES_COUNT = 160 };

/* Sizes around each change of path and of a length's width; sources are exact allocations, so that a
 * sanitizer sees a copy that reads too far. Both ways of appending must make the same bytes. */
static void test_every_size(void) {
    static const int32_t edges[] = {8100, 8120, 8150, 8158, 8159, 8160, 8161,
                                    8162, 8185, 8191, 8192, 8193, 20000};
    static ls_span keys[SIZES_COUNT * 2], values[SIZES_COUNT * 2];
    static int64_t timestamps[SIZES_COUNT * 2];
    size_t count = SIZES_COUNT + sizeof edges / sizeof edges[0];
    for (int32_t key_bytes = -1; key_bytes < 140; key_bytes += key_bytes < 2 ? 1 : key_bytes < 40 ? 7 : 21) {
        for (size_t i = 0; i < count; i++) {
            int32_t value_bytes = i < SIZES_COUNT ? (int32_t)i - 1 : edges[i - SIZES_COUNT];
            uint8_t *value = malloc(value_bytes > 0 ? (size_t)value_bytes : 1);
            uint8_t *key = malloc(key_bytes > 0 ? (size_t)key_bytes : 1);
            REQUIRE(value != NULL && key != NULL);
            for (int32_t b = 0; b < value_bytes; b++) value[b] = (uint8_t)(b * 7 + value_bytes);
            for (int32_t b = 0; b < key_bytes; b++) key[b] = (uint8_t)(b + 100);
            keys[i] = (ls_span){key, key_bytes};
            values[i] = (ls_span){value, value_bytes};
            timestamps[i] = 1700000000000 + (int64_t)(i % 5) * (i % 3 == 0 ? 1 : 40000000);
        }
        ls_fault fault = no_fault;
        ls_batch_builder one = {0}, many = {0}, joined = {0};
        REQUIRE_INT(ls_batch_builder_init(&one, 1 << 17, &fault), LS_OK);
        REQUIRE_INT(ls_batch_builder_init(&many, 0, &fault), LS_OK);
        REQUIRE_INT(ls_batch_builder_init(&joined, 1 << 18, &fault), LS_OK);
        size_t bound = LS_BATCH_HEADER_BYTES;
        for (size_t i = 0; i < count; i++) {
            bound += ls_record_size_bytes_max(keys[i].size_bytes, values[i].size_bytes, NULL, 0);
            CHECK_INT(ls_batch_builder_append(&one, timestamps[i], keys[i], values[i], NULL, 0, &fault),
                      LS_OK);
            CHECK_INT(ls_batch_builder_join(&joined, timestamps[i], keys[i], values[i], SIZE_MAX), LS_OK);
        }
        CHECK(one.size_bytes <= bound);
        size_t appended = 0;
        CHECK_INT(ls_batch_builder_append_many(&many, keys, values, timestamps, 0, count, SIZE_MAX, &appended,
                                               &fault),
                  LS_OK);
        CHECK_INT(appended, count);
        CHECK_INT(many.size_bytes, one.size_bytes);
        check_reads_back(&one, keys, values, timestamps, count);
        check_reads_back(&many, keys, values, timestamps, count);
        check_reads_back(&joined, keys, values, timestamps, count);
        if (many.size_bytes == one.size_bytes) CHECK_BYTES(many.buffer, one.buffer, one.size_bytes);
        CHECK_INT(one.max_timestamp, many.max_timestamp);
        CHECK_INT(one.max_timestamp, joined.max_timestamp);
        ls_batch_builder_free(&joined);
        ls_batch_builder_free(&one);
        ls_batch_builder_free(&many);
        for (size_t i = 0; i < count; i++) {
            free((uint8_t *)(uintptr_t)keys[i].bytes);
            free((uint8_t *)(uintptr_t)values[i].bytes);
        }
    }
}

/* Each length takes as few bytes as it can, also where the record's own length grows a byte. */
static void test_lengths_are_minimal(void) {
    static const uint8_t zeros[8400];
    for (int32_t value_bytes = 0; value_bytes <= (int32_t)sizeof zeros; value_bytes++) {
        ls_fault fault = no_fault;
        ls_batch_builder builder = {0};
        REQUIRE_INT(ls_batch_builder_init(&builder, 16384, &fault), LS_OK);
        ls_span null = text_span(NULL);
        ls_span value = {zeros, value_bytes};
        REQUIRE_INT(ls_batch_builder_append(&builder, 1, null, value, NULL, 0, &fault), LS_OK);
        size_t body_bytes = 5 + ls_varint32_size_bytes(value_bytes) + (size_t)value_bytes;
        size_t size_bytes = LS_BATCH_HEADER_BYTES + ls_varint32_size_bytes((int32_t)body_bytes) + body_bytes;
        CHECK_CASE(builder.size_bytes == size_bytes, "a value of %d bytes makes %zu, not %zu", value_bytes,
                   builder.size_bytes, size_bytes);
        ls_batch_builder_free(&builder);
    }
}

/* Offset deltas of one, two and three bytes, over a buffer that starts small and grows. */
static void test_many_records_grow(void) {
    enum { COUNT = 20000 };
    ls_span *keys = malloc(COUNT * sizeof *keys);
    ls_span *values = malloc(COUNT * sizeof *values);
    int64_t *timestamps = malloc(COUNT * sizeof *timestamps);
    REQUIRE(keys != NULL && values != NULL && timestamps != NULL);
    for (size_t i = 0; i < COUNT; i++) {
        keys[i] = text_span(i % 7 == 0 ? NULL : "key");
        values[i] = text_span(i % 11 == 0 ? NULL : "a value of some bytes");
        timestamps[i] = (int64_t)(i * i);
    }
    ls_fault fault = no_fault;
    ls_batch_builder builder = {0};
    REQUIRE_INT(ls_batch_builder_init(&builder, 0, &fault), LS_OK);
    for (size_t i = 0; i < COUNT; i++) {
        CHECK_INT(ls_batch_builder_append(&builder, timestamps[i], keys[i], values[i], NULL, 0, &fault),
                  LS_OK);
    }
    check_reads_back(&builder, keys, values, timestamps, COUNT);
    ls_batch_builder_free(&builder);
    free(keys);
    free(values);
    free(timestamps);
}

/* ---- limits --------------------------------------------------------------------------------------- */

/* The limit is kept to the byte: each record here takes 1 + 9 bytes. */
static void test_many_stops_at_the_limit(void) {
    ls_span values[5];
    for (int i = 0; i < 5; i++) values[i] = text_span("abc");
    for (size_t limit = 0; limit < 130; limit++) {
        ls_fault fault = no_fault;
        ls_batch_builder builder = {0};
        REQUIRE_INT(ls_batch_builder_init(&builder, 4096, &fault), LS_OK);
        size_t appended = 99;
        CHECK_INT(ls_batch_builder_append_many(&builder, NULL, values, NULL, 5, 5, limit, &appended, &fault),
                  LS_OK);
        size_t fitting = limit < LS_BATCH_HEADER_BYTES ? 0 : (limit - LS_BATCH_HEADER_BYTES) / 10;
        size_t expected = fitting < 1 ? 1 : fitting > 5 ? 5 : fitting;
        CHECK_CASE(appended == expected, "limit %zu: %zu records, expected %zu", limit, appended, expected);
        CHECK_INT(builder.size_bytes, LS_BATCH_HEADER_BYTES + expected * 10);
        /* A batch that is not empty takes none that passes the limit. */
        size_t more = 99;
        CHECK_INT(ls_batch_builder_append_many(&builder, NULL, values, NULL, 5, 5, builder.size_bytes + 9,
                                               &more, &fault),
                  LS_OK);
        CHECK_INT(more, 0);
        ls_batch_builder_free(&builder);
    }
}

/* What joins surely fits, into the buffer and below the limit; anything else changes nothing. */
static void test_joins_where_it_surely_fits(void) {
    ls_fault fault = no_fault;
    ls_batch_builder builder = {0};
    REQUIRE_INT(ls_batch_builder_init(&builder, 256, &fault), LS_OK);
    const ls_span key = text_span("key"), value = text_span("value");
    const size_t bound = ls_record_size_bytes_max(key.size_bytes, value.size_bytes, NULL, 0);
    CHECK_INT(ls_batch_builder_join(&builder, 5, key, value, 0), LS_FULL);
    CHECK_INT(ls_batch_builder_join(&builder, 5, key, value, builder.size_bytes + bound - 1), LS_FULL);
    CHECK_INT(ls_batch_builder_join(&builder, -2, key, value, SIZE_MAX), LS_FULL);
    CHECK_INT(builder.records_count, 0);
    CHECK_INT(builder.size_bytes, LS_BATCH_HEADER_BYTES);
    CHECK_INT(ls_batch_builder_join(&builder, 5, key, value, builder.size_bytes + bound), LS_OK);
    CHECK_INT(builder.records_count, 1);
    CHECK_INT(builder.base_timestamp, 5);
    while (builder.capacity_bytes - builder.size_bytes >= bound) {
        REQUIRE_INT(ls_batch_builder_join(&builder, 7, key, value, SIZE_MAX), LS_OK);
    }
    const size_t size_bytes = builder.size_bytes;
    CHECK_INT(ls_batch_builder_join(&builder, 9, key, value, SIZE_MAX), LS_FULL);
    CHECK_INT(builder.size_bytes, size_bytes);
    CHECK_INT(builder.max_timestamp, 7);
    CHECK_INT(builder.capacity_bytes, 256);
    ls_batch_builder_free(&builder);
}

static void test_larger_than_the_format(void) {
    static const uint8_t byte = 0;
    ls_fault fault = no_fault;
    ls_batch_builder builder = {0};
    REQUIRE_INT(ls_batch_builder_init(&builder, 100, &fault), LS_OK);
    REQUIRE_INT(ls_batch_builder_append(&builder, 1, text_span("k"), text_span("v"), NULL, 0, &fault), LS_OK);
    const ls_batch_builder before = builder;
    /* Refused by the sizes alone: the bytes are not there. */
    ls_span huge = {&byte, INT32_MAX};
    CHECK_INT(ls_batch_builder_append(&builder, 2, text_span("k"), huge, NULL, 0, &fault), LS_TOO_LARGE);
    CHECK_INT(ls_batch_builder_append(&builder, 2, huge, huge, NULL, 0, &fault), LS_TOO_LARGE);
    ls_record_header header = {&byte, &byte, INT32_MAX, INT32_MAX};
    CHECK_INT(ls_batch_builder_append(&builder, 2, text_span("k"), text_span("v"), &header, 1, &fault),
              LS_TOO_LARGE);
    CHECK_INT(memcmp(&before, &builder, sizeof before), 0);
    /* Of many, the one that does not fit is where it stops, unless it would be alone. */
    ls_span values[2] = {text_span("v"), huge};
    size_t appended = 99;
    CHECK_INT(ls_batch_builder_append_many(&builder, NULL, values, NULL, 2, 2, SIZE_MAX, &appended, &fault),
              LS_OK);
    CHECK_INT(appended, 1);
    ls_batch_builder_reset(&builder);
    CHECK_INT(ls_batch_builder_append_many(&builder, NULL, &huge, NULL, 2, 1, SIZE_MAX, &appended, &fault),
              LS_TOO_LARGE);
    CHECK_INT(appended, 1);
    CHECK_INT(builder.records_count, 0);
    CHECK_INT(ls_record_size_bytes_max(INT32_MAX, INT32_MAX, &header, 1), 36 + 10 + 4 * (int64_t)INT32_MAX);
    CHECK_INT(ls_record_size_bytes_max(-1, -1, NULL, 0), 36);
    ls_batch_builder_free(&builder);

    CHECK_INT(ls_batch_builder_init(&builder, (size_t)INT32_MAX + 1, &fault), LS_TOO_LARGE);
    CHECK(builder.buffer == NULL);
}

/* ---- refusals and marks ---------------------------------------------------------------------------- */

static void test_refusals_change_nothing(void) {
    ls_fault fault = no_fault;
    ls_batch_builder builder = {0};
    REQUIRE_INT(ls_batch_builder_init(&builder, 4096, &fault), LS_OK);
    REQUIRE_INT(ls_batch_builder_append(&builder, 10, text_span("k"), text_span("v"), NULL, 0, &fault),
                LS_OK);
    const ls_batch_builder before = builder;
    ls_record_header no_key = {NULL, NULL, -1, -1};
    CHECK_INT(ls_batch_builder_append(&builder, -2, text_span("k"), text_span("v"), NULL, 0, &fault),
              LS_INVALID_ARGUMENT);
    CHECK_INT(ls_batch_builder_append(&builder, 11, text_span("k"), text_span("v"), &no_key, 1, &fault),
              LS_INVALID_ARGUMENT);
    CHECK_INT(ls_batch_builder_append(&builder, 11, text_span("k"), text_span("v"), NULL, -1, &fault),
              LS_INVALID_ARGUMENT);
    ls_span values[3] = {text_span("a"), text_span("b"), text_span("c")};
    int64_t timestamps[3] = {500, INT64_MAX, -2};
    size_t appended = 99;
    CHECK_INT(
        ls_batch_builder_append_many(&builder, NULL, values, timestamps, 0, 3, SIZE_MAX, &appended, &fault),
        LS_INVALID_ARGUMENT);
    CHECK_INT(fault.actual, -2);
    CHECK_INT(appended, 99);
    CHECK_INT(memcmp(&before, &builder, sizeof before), 0);
    ls_batch_builder_free(&builder);
}

static void test_mark_and_rewind(void) {
    ls_fault fault = no_fault;
    ls_batch_builder builder = {0};
    REQUIRE_INT(ls_batch_builder_init(&builder, 64, &fault), LS_OK);
    ls_span keys[2] = {text_span("k"), text_span("k2")};
    ls_span values[2] = {text_span("v"), text_span("v2")};
    int64_t timestamps[2] = {1000, 1500};
    ls_batch_mark empty = ls_batch_builder_mark(&builder);
    /* The first record of a batch sets what the others are relative to; rewinding to nothing forgets it. */
    REQUIRE_INT(ls_batch_builder_append(&builder, 9999, keys[1], values[1], NULL, 0, &fault), LS_OK);
    ls_batch_builder_rewind(&builder, empty);
    REQUIRE_INT(ls_batch_builder_append(&builder, timestamps[0], keys[0], values[0], NULL, 0, &fault), LS_OK);
    ls_batch_mark mark = ls_batch_builder_mark(&builder);
    for (int i = 0; i < 100; i++) { /* far enough to move the buffer */
        REQUIRE_INT(ls_batch_builder_append(&builder, 7000 + i, keys[0], values[0], NULL, 0, &fault), LS_OK);
    }
    ls_batch_builder_rewind(&builder, mark);
    REQUIRE_INT(ls_batch_builder_append(&builder, timestamps[1], keys[1], values[1], NULL, 0, &fault), LS_OK);
    CHECK_INT(builder.max_timestamp, 1500);
    check_reads_back(&builder, keys, values, timestamps, 2);
    ls_batch_builder_reset(&builder);
    CHECK_INT(builder.records_count, 0);
    CHECK_INT(builder.max_timestamp, -1);
    ls_batch_builder_free(&builder);
    ls_batch_builder_free(&builder);
}

/* From -1 to the largest timestamp is more than an int64 holds. */
static void test_widest_timestamps(void) {
    ls_fault fault = no_fault;
    ls_batch_builder builder = {0};
    REQUIRE_INT(ls_batch_builder_init(&builder, 4096, &fault), LS_OK);
    ls_span keys[3] = {text_span(NULL), text_span(NULL), text_span(NULL)};
    int64_t timestamps[3] = {-1, INT64_MAX, 0};
    for (int i = 0; i < 3; i++) {
        CHECK_INT(ls_batch_builder_append(&builder, timestamps[i], keys[i], keys[i], NULL, 0, &fault), LS_OK);
    }
    check_reads_back(&builder, keys, keys, timestamps, 3);
    ls_batch_builder_free(&builder);
}

static void test_seal(void) {
    ls_fault fault = no_fault;
    ls_batch_builder builder = {0};
    REQUIRE_INT(ls_batch_builder_init(&builder, 4096, &fault), LS_OK);
    ls_span span = text_span("v");
    REQUIRE_INT(ls_batch_builder_append(&builder, 50, span, span, NULL, 0, &fault), LS_OK);
    ls_batch_stamp_fields fields = plain_fields;
    fields.base_offset = 100;
    fields.partition_leader_epoch = 3;
    fields.attributes = LS_ATTRIBUTE_LOG_APPEND_TIME;
    fields.log_append_timestamp = 77;
    ls_batch_header sealed, read;
    ls_batch_builder_seal(&builder, &fields, &sealed);
    CHECK_INT(sealed.max_timestamp, 77);
    CHECK_INT(sealed.base_timestamp, 50);
    REQUIRE_INT(ls_batch_validate(builder.buffer, builder.buffer + builder.size_bytes, 0, &read, &fault),
                LS_OK);
    CHECK_INT(read.base_offset, 100);
    CHECK_INT(read.max_timestamp, 77);
    CHECK_HEX(read.crc, sealed.crc);
    /* It goes on, and may be sealed again. */
    REQUIRE_INT(ls_batch_builder_append(&builder, 60, span, span, NULL, 0, &fault), LS_OK);
    ls_batch_builder_seal(&builder, &plain_fields, &sealed);
    CHECK_INT(sealed.records_count, 2);
    CHECK_INT(sealed.last_offset_delta, 1);
    CHECK_INT(sealed.max_timestamp, 60);
    CHECK_INT(ls_batch_validate(builder.buffer, builder.buffer + builder.size_bytes, 0, &read, &fault),
              LS_OK);
    ls_batch_builder_free(&builder);
}

int main(void) {
    RUN(test_rebuilds_the_vectors);
    RUN(test_every_size);
    RUN(test_lengths_are_minimal);
    RUN(test_many_records_grow);
    RUN(test_many_stops_at_the_limit);
    RUN(test_joins_where_it_surely_fits);
    RUN(test_larger_than_the_format);
    RUN(test_refusals_change_nothing);
    RUN(test_mark_and_rewind);
    RUN(test_widest_timestamps);
    RUN(test_seal);
    return check_result();
}
