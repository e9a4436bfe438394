/* A log of made batches, and recovery with its state checked: for the tests of recovery and truncation. */
#ifndef LOGSTORE_TESTS_MADE_LOG_H
#define LOGSTORE_TESTS_MADE_LOG_H

#include "check.h"
#include "faulty_file.h"
#include "logstore/segment.h"
#include "made_batch.h"

enum { BASE = 1000, COUNT = 40, LOG_BYTES_MAX = 1 << 16, INDEX_BYTES_MAX = 4096 };

static const ls_segment_options defaults = {.base_offset = BASE, .end_offset_max = INT64_MAX,
                                            .index_interval_bytes = 700, .offset_index_capacity = 1000,
                                            .time_index_capacity = 1000};

/* A log of COUNT batches whose payloads look like nothing else; positions[COUNT] is its end. */
static uint8_t log_bytes[LOG_BYTES_MAX];
static int64_t positions[COUNT + 1];
static int64_t next_offsets[COUNT + 1]; /* before each batch, and at the end */

static inline void make_log(void) {
    next_offsets[0] = BASE;
    for (int i = 0; i < COUNT; i++) {
        made_batch made = {
            .base_offset = next_offsets[i] + (i % 7 == 3 ? 2 : 0),
            .records_count = 1 + i % 4,
            .max_timestamp = i % 5 == 4 ? 1000 : 10 * i, /* the largest one early, and again */
            .leader_epoch = i / 10,
            .size_bytes = (size_t)(100 + 37 * (i % 11) + (i == 20 ? 3000 : 0)),
        };
        REQUIRE((size_t)positions[i] + made.size_bytes <= sizeof log_bytes);
        ls_batch_header header = make_batch(&made, log_bytes + positions[i]);
        positions[i + 1] = positions[i] + (int64_t)made.size_bytes;
        next_offsets[i + 1] = ls_batch_last_offset(&header) + 1;
    }
}

static inline ls_segment *open_segment(faulty_file *file) {
    ls_segment *segment = NULL;
    ls_fault fault;
    REQUIRE_INT(ls_segment_create(&file->file, &defaults, NULL, &segment, &fault), LS_OK);
    return segment;
}

static inline ls_recovery_report recover(ls_segment *segment, int64_t position, int64_t next_offset,
                                         int deep) {
    ls_recovery_report report;
    ls_fault fault;
    REQUIRE_INT(ls_segment_recover(segment, position, next_offset, deep, &report, &fault), LS_OK);
    ls_segment_state state;
    ls_segment_get_state(segment, &state);
    CHECK_INT(state.size_bytes, report.valid_bytes);
    CHECK_INT(state.next_offset, report.next_offset);
    return report;
}

static inline ls_recovery_report recover_bytes(const uint8_t *bytes, int64_t size) {
    faulty_file file;
    faulty_file_init(&file, bytes, (size_t)size);
    ls_segment *segment = open_segment(&file);
    ls_recovery_report report = recover(segment, 0, BASE, 1);
    CHECK_INT(report.file_size_bytes, size);
    CHECK_INT(file.size, size);
    CHECK_INT(file.calls_of[FAULTY_WRITE] + file.calls_of[FAULTY_TRUNCATE], 0);
    ls_segment_free(segment);
    faulty_file_free(&file);
    return report;
}

static inline void check_same_indexes(ls_segment *a, ls_segment *b) {
    uint8_t bytes_a[INDEX_BYTES_MAX] = {0};
    uint8_t bytes_b[INDEX_BYTES_MAX] = {0};
    size_t count = ls_offset_index_count(ls_segment_offset_index(a));
    CHECK_INT(ls_offset_index_count(ls_segment_offset_index(b)), count);
    if (count > ls_offset_index_count(ls_segment_offset_index(b))) return;
    REQUIRE(count * LS_OFFSET_INDEX_ENTRY_BYTES <= INDEX_BYTES_MAX);
    ls_offset_index_encode(ls_segment_offset_index(a), 0, count, bytes_a);
    ls_offset_index_encode(ls_segment_offset_index(b), 0, count, bytes_b);
    CHECK_BYTES(bytes_a, bytes_b, count * LS_OFFSET_INDEX_ENTRY_BYTES);
    count = ls_time_index_count(ls_segment_time_index(a));
    CHECK_INT(ls_time_index_count(ls_segment_time_index(b)), count);
    if (count > ls_time_index_count(ls_segment_time_index(b))) return;
    ls_time_index_encode(ls_segment_time_index(a), 0, count, bytes_a);
    ls_time_index_encode(ls_segment_time_index(b), 0, count, bytes_b);
    CHECK_BYTES(bytes_a, bytes_b, count * LS_TIME_INDEX_ENTRY_BYTES);
}

static inline void check_same_content(ls_segment *a, ls_segment *b) {
    ls_segment_state of_a;
    ls_segment_state of_b;
    ls_segment_get_state(a, &of_a);
    ls_segment_get_state(b, &of_b);
    CHECK_INT(of_a.size_bytes, of_b.size_bytes);
    CHECK_INT(of_a.next_offset, of_b.next_offset);
    CHECK_INT(of_a.max_timestamp, of_b.max_timestamp);
    CHECK_INT(of_a.max_timestamp_offset, of_b.max_timestamp_offset);
    CHECK_INT(of_a.first_batch_max_timestamp, of_b.first_batch_max_timestamp);
    CHECK_INT(of_a.last_leader_epoch, of_b.last_leader_epoch);
}

#endif
