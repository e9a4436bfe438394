/* Batches built one behind the other: the same bytes as one by one. */
#include "logstore/batch_run.h"

#include <stdlib.h>
#include <string.h>

#include "check.h"

enum { COUNT = 400, VALUE_BYTES_MAX = 300 };

static uint8_t bytes[COUNT + VALUE_BYTES_MAX];
static ls_span keys[COUNT];
static ls_span values[COUNT];
static int64_t times[COUNT];

static void make_records(void) {
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)(i * 31 + i / 7);
    for (int i = 0; i < COUNT; i++) {
        keys[i] = (ls_span){bytes + i, i % 9 - 1};
        values[i] = (ls_span){bytes + i, (i * 37) % VALUE_BYTES_MAX};
        times[i] = 1000 + (i * 7919) % 500;
    }
}

static const ls_batch_stamp_fields plain = {.base_offset = 70, .partition_leader_epoch = 3, .log_append_timestamp = -1,
                                            .producer_id = -1, .producer_epoch = -1, .base_sequence = -1};

/* As an appender does without runs; returns the bytes, and how many records fitted into them. */
static size_t build_one_by_one(uint8_t *out, size_t capacity, const ls_span *key, const int64_t *time, size_t count,
                               size_t limit, ls_batch_stamp_fields fields, size_t *records) {
    size_t size = 0;
    *records = 0;
    while (*records < count && capacity - size >= limit) {
        ls_batch_builder builder = {0};
        ls_fault fault;
        ls_batch_header header;
        size_t appended;
        REQUIRE_INT(ls_batch_builder_init(&builder, 256, &fault), LS_OK);
        REQUIRE_INT(ls_batch_builder_append_many(&builder, key != NULL ? key + *records : NULL, values + *records,
                                                 time != NULL ? time + *records : NULL, 1234, count - *records, limit,
                                                 &appended, &fault),
                    LS_OK);
        ls_batch_builder_seal(&builder, &fields, &header);
        memcpy(out + size, builder.buffer, builder.size_bytes);
        size += builder.size_bytes;
        *records += appended;
        fields.base_offset += (int64_t)appended;
        ls_batch_builder_free(&builder);
    }
    return size;
}

static void test_the_same_bytes_as_one_by_one(void) {
    enum { CAPACITY = 64 << 10 };
    uint8_t *expected = malloc(CAPACITY);
    uint8_t *built = malloc(CAPACITY);
    REQUIRE(expected != NULL && built != NULL);
    for (size_t limit = 400; limit < 9000; limit += 173) {
        for (int kind = 0; kind < 8; kind++) {
            const ls_span *key = kind & 1 ? keys : NULL;
            const int64_t *time = kind & 2 ? times : NULL;
            ls_batch_stamp_fields fields = plain;
            if (kind & 4) fields = (ls_batch_stamp_fields){70, 3, LS_ATTRIBUTE_LOG_APPEND_TIME, 9999, -1, -1, -1};
            for (size_t capacity = limit; capacity <= CAPACITY; capacity = capacity * 3 + 11) {
                ls_batch_run run;
                ls_fault fault;
                size_t records;
                size_t size = build_one_by_one(expected, capacity, key, time, COUNT, limit, fields, &records);
                REQUIRE_INT(ls_batch_run_build(built, capacity, key, values, time, 1234, COUNT, limit, &fields, &run, &fault),
                            LS_OK);
                CHECK_INT(run.records_count, records);
                CHECK_INT(run.size_bytes, size);
                CHECK(memcmp(built, expected, size) == 0);
                int64_t batches = 0;
                int64_t max_timestamp = -1;
                ls_batch_header header;
                for (size_t at = 0; at < size; at += (size_t)ls_batch_size_bytes(&header), batches++) {
                    REQUIRE_INT(ls_batch_validate(built + at, built + size, 0, &header, &fault), LS_OK);
                    if (header.max_timestamp > max_timestamp) max_timestamp = header.max_timestamp;
                }
                CHECK_INT(run.batches_count, batches);
                CHECK_INT(run.max_timestamp, max_timestamp);
            }
        }
    }
    free(expected);
    free(built);
}

static void test_it_ends_before_a_record_larger_than_a_batch(void) {
    uint8_t large[2000] = {0};
    ls_span some[5] = {values[1], values[2], {large, sizeof large}, values[3], {large, sizeof large}};
    uint8_t built[8000];
    ls_batch_run run;
    ls_fault fault;
    REQUIRE_INT(ls_batch_run_build(built, sizeof built, NULL, some, NULL, 5, 5, 1000, &plain, &run, &fault), LS_OK);
    CHECK_INT(run.records_count, 2);
    CHECK_INT(run.batches_count, 1);
    REQUIRE_INT(ls_batch_run_build(built, sizeof built, NULL, some + 2, NULL, 5, 3, 1000, &plain, &run, &fault), LS_OK);
    CHECK_INT(run.records_count, 0);
    CHECK_INT(run.size_bytes, 0);
    CHECK_INT(run.batches_count, 0);
    REQUIRE_INT(ls_batch_run_build(built, 999, NULL, some, NULL, 5, 2, 1000, &plain, &run, &fault), LS_OK);
    CHECK_INT(run.records_count, 0); /* no room for any batch */
}

static void test_a_refused_timestamp_refuses_the_run(void) {
    uint8_t built[9000];
    int64_t some[COUNT];
    for (int i = 0; i < COUNT; i++) some[i] = i == 20 ? -2 : 7;
    ls_batch_run run = {.records_count = 77};
    ls_fault fault;
    CHECK_INT(ls_batch_run_build(built, sizeof built, NULL, values, some, 0, COUNT, 1000, &plain, &run, &fault),
              LS_INVALID_ARGUMENT);
    CHECK_INT(run.records_count, 77);
}

int main(void) {
    make_records();
    RUN(test_the_same_bytes_as_one_by_one);
    RUN(test_it_ends_before_a_record_larger_than_a_batch);
    RUN(test_a_refused_timestamp_refuses_the_run);
    return check_result();
}
