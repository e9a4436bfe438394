/* Segments over files in memory, and appending to them, for the tests of both halves. */
#ifndef LOGSTORE_TESTS_MADE_SEGMENT_H
#define LOGSTORE_TESTS_MADE_SEGMENT_H

#include "logstore/segment.h"

#include "check.h"
#include "faulty_file.h"
#include "made_batch.h"

enum { BASE = 1000, NO_LIMIT = 1 << 20 };
static const ls_segment_options defaults = {.base_offset = BASE, .end_offset_max = INT64_MAX,
                                            .index_interval_bytes = 1000, .offset_index_capacity = NO_LIMIT,
                                            .time_index_capacity = NO_LIMIT};

static inline ls_segment *make_segment(ls_file *file, const ls_segment_options *options) {
    ls_segment *segment = NULL;
    ls_fault fault;
    REQUIRE_INT(ls_segment_create(file, options, NULL, &segment, &fault), LS_OK);
    return segment;
}

static inline ls_status append(ls_segment *segment, int64_t base_offset, int32_t records, int64_t timestamp,
                        size_t size, ls_fault *fault) {
    static uint8_t batch[1 << 16];
    REQUIRE(size <= sizeof batch);
    made_batch made = {base_offset, records, timestamp, 0, size};
    ls_batch_header header = make_batch(&made, batch);
    return ls_segment_append(segment, batch, size, &header, fault);
}

#endif
