/* Several batches in one write: what one by one would make of them, or nothing. */
#include <stdlib.h>
#include <string.h>

#include "logstore/record_batch.h"
#include "made_segment.h"

enum { BATCHES = 9, BATCH_BYTES = 700, RECORDS = 4 };

static uint8_t run[BATCHES * BATCH_BYTES];

static int64_t offset_of(int i) { return BASE + (int64_t)i * RECORDS; }

static void make_run(void) {
    for (int i = 0; i < BATCHES; i++) {
        made_batch made = {offset_of(i), RECORDS, 100 + (i * 5) % 7, 0, BATCH_BYTES};
        (void)make_batch(&made, run + i * BATCH_BYTES);
    }
}

static void check_equal(ls_segment *segment, ls_segment *expected) {
    ls_segment_state a, b;
    ls_segment_get_state(segment, &a);
    ls_segment_get_state(expected, &b);
    CHECK_INT(a.size_bytes, b.size_bytes);
    CHECK_INT(a.next_offset, b.next_offset);
    CHECK_INT(a.max_timestamp, b.max_timestamp);
    CHECK_INT(a.max_timestamp_offset, b.max_timestamp_offset);
    CHECK_INT(a.first_batch_max_timestamp, b.first_batch_max_timestamp);
    CHECK_INT(a.bytes_since_last_entry, b.bytes_since_last_entry);
    CHECK_INT(a.last_leader_epoch, b.last_leader_epoch);
    CHECK_INT(a.digested_bytes, b.digested_bytes);
    CHECK(memcmp(&a.digest, &b.digest, sizeof a.digest) == 0);
    size_t count = ls_offset_index_count(ls_segment_offset_index(expected));
    CHECK_INT(ls_offset_index_count(ls_segment_offset_index(segment)), count);
    for (size_t i = 0; i < count; i++) {
        int64_t offset, other_offset;
        int32_t position, other_position;
        ls_offset_index_entry(ls_segment_offset_index(segment), i, &offset, &position);
        ls_offset_index_entry(ls_segment_offset_index(expected), i, &other_offset, &other_position);
        CHECK_INT(offset, other_offset);
        CHECK_INT(position, other_position);
    }
    CHECK_INT(ls_time_index_count(ls_segment_time_index(segment)), ls_time_index_count(ls_segment_time_index(expected)));
}

static void test_a_run_is_what_its_batches_are_one_by_one(void) {
    for (int before = 0; before < BATCHES; before++) {
        for (int upto = before + 1; upto <= BATCHES; upto++) {
            faulty_file file, other;
            faulty_file_init(&file, NULL, 0);
            faulty_file_init(&other, NULL, 0);
            ls_segment *segment = make_segment(&file.file, &defaults);
            ls_segment *expected = make_segment(&other.file, &defaults);
            ls_fault fault;
            for (int i = 0; i < upto; i++) {
                ls_batch_header header;
                const uint8_t *batch = run + i * BATCH_BYTES;
                REQUIRE_INT(ls_batch_header_read(batch, batch + BATCH_BYTES, 0, &header, &fault), LS_OK);
                REQUIRE_INT(ls_segment_append(expected, batch, BATCH_BYTES, &header, &fault), LS_OK);
                if (i < before) REQUIRE_INT(ls_segment_append(segment, batch, BATCH_BYTES, &header, &fault), LS_OK);
            }
            int writes = file.calls_of[FAULTY_WRITE];
            size_t bytes = (size_t)(upto - before) * BATCH_BYTES;
            REQUIRE_INT(ls_segment_append_run(segment, run + before * BATCH_BYTES, bytes, &fault), LS_OK);
            CHECK_INT(file.calls_of[FAULTY_WRITE], writes + 1);
            CHECK_INT(file.size, other.size);
            CHECK(memcmp(file.bytes, other.bytes, other.size) == 0);
            check_equal(segment, expected);
            ls_segment_free(segment);
            ls_segment_free(expected);
            faulty_file_free(&file);
            faulty_file_free(&other);
        }
    }
}

/* After `kept` batches, a run of all others that is cut short by a crash: what is whole is there, the rest is torn. */
static void test_a_run_cut_at_every_byte_keeps_its_whole_batches(void) {
    for (size_t cut = 0; cut <= sizeof run; cut++) {
        faulty_file file;
        faulty_file_init(&file, run, cut);
        ls_segment *segment = make_segment(&file.file, &defaults);
        ls_recovery_report report;
        ls_fault fault;
        REQUIRE_INT(ls_segment_recover(segment, 0, BASE, 1, &report, &fault), LS_OK);
        size_t whole = cut / BATCH_BYTES;
        CHECK_INT(report.valid_bytes, whole * BATCH_BYTES);
        CHECK_INT(report.next_offset, offset_of((int)whole));
        CHECK_INT(report.tail, cut % BATCH_BYTES == 0 ? LS_TAIL_NONE : LS_TAIL_TORN);
        ls_segment_free(segment);
        faulty_file_free(&file);
    }
}

static void check_unchanged(ls_segment *segment, faulty_file *file) {
    ls_segment_state state;
    ls_segment_get_state(segment, &state);
    CHECK_INT(state.size_bytes, BATCH_BYTES);
    CHECK_INT(state.next_offset, offset_of(1));
    CHECK_INT(ls_offset_index_count(ls_segment_offset_index(segment)), 0);
    CHECK_INT(file->size, BATCH_BYTES);
}

static ls_segment *begin(faulty_file *file, const ls_segment_options *options) {
    ls_fault fault;
    ls_batch_header header;
    faulty_file_init(file, NULL, 0);
    ls_segment *segment = make_segment(&file->file, options);
    REQUIRE_INT(ls_batch_header_read(run, run + BATCH_BYTES, 0, &header, &fault), LS_OK);
    REQUIRE_INT(ls_segment_append(segment, run, BATCH_BYTES, &header, &fault), LS_OK);
    return segment;
}

static void test_a_failed_write_takes_all_of_the_run_back(void) {
    for (size_t torn = 0; torn < sizeof run; torn += 97) {
        faulty_file file;
        ls_segment *segment = begin(&file, &defaults);
        ls_fault fault;
        faulty_file_fail(&file, 0, torn % 2 == 0 ? LS_DISK_FULL : LS_IO, false, torn);
        CHECK_INT(ls_segment_append_run(segment, run + BATCH_BYTES, sizeof run - BATCH_BYTES, &fault),
                  torn % 2 == 0 ? LS_DISK_FULL : LS_IO);
        CHECK_INT(fault.expected, 0);
        check_unchanged(segment, &file);
        REQUIRE_INT(ls_segment_append_run(segment, run + BATCH_BYTES, sizeof run - BATCH_BYTES, &fault), LS_OK);
        CHECK_INT(file.size, sizeof run);
        ls_segment_free(segment);
        faulty_file_free(&file);
    }
}

static void test_a_run_that_can_not_be_taken_changes_nothing(void) {
    ls_fault fault;
    faulty_file file;
    ls_segment *segment = begin(&file, &defaults);
    uint8_t gone[BATCH_BYTES * 3];
    memcpy(gone, run, sizeof gone);
    CHECK_INT(ls_segment_append_run(segment, gone, sizeof gone, &fault), LS_INVALID_ARGUMENT); /* offsets that are there */
    check_unchanged(segment, &file);
    CHECK_INT(ls_segment_append_run(segment, run + BATCH_BYTES, sizeof run - BATCH_BYTES - 1, &fault), LS_TORN);
    check_unchanged(segment, &file);
    memcpy(gone + BATCH_BYTES * 2, run + BATCH_BYTES, BATCH_BYTES); /* the second of two has the same offsets */
    CHECK_INT(ls_segment_append_run(segment, gone + BATCH_BYTES, 2 * BATCH_BYTES, &fault), LS_INVALID_ARGUMENT);
    check_unchanged(segment, &file);
    ls_segment_free(segment);
    faulty_file_free(&file);

    ls_segment_options bounded = defaults;
    bounded.end_offset_max = offset_of(BATCHES) - 1;
    segment = begin(&file, &bounded);
    CHECK_INT(ls_segment_append_run(segment, run + BATCH_BYTES, sizeof run - BATCH_BYTES, &fault), LS_INVALID_ARGUMENT);
    check_unchanged(segment, &file);
    ls_segment_free(segment);
    faulty_file_free(&file);
}

static void test_too_few_index_entries_are_seen_before_the_write(void) {
    for (size_t capacity = 1; capacity < 12; capacity++) {
        for (int which = 0; which < 2; which++) {
            ls_segment_options small = defaults;
            if (which == 0) small.offset_index_capacity = capacity;
            else small.time_index_capacity = capacity;
            faulty_file file;
            ls_segment *segment = begin(&file, &small);
            ls_fault fault;
            size_t room = which == 0 ? capacity : capacity - 1; /* one is for closing */
            bool fits = room >= BATCHES - 1;
            CHECK_INT(ls_segment_append_run(segment, run + BATCH_BYTES, sizeof run - BATCH_BYTES, &fault),
                      fits ? LS_OK : LS_FULL);
            if (!fits) check_unchanged(segment, &file);
            ls_segment_free(segment);
            faulty_file_free(&file);
        }
    }
}

int main(void) {
    make_run();
    RUN(test_a_run_is_what_its_batches_are_one_by_one);
    RUN(test_a_run_cut_at_every_byte_keeps_its_whole_batches);
    RUN(test_a_failed_write_takes_all_of_the_run_back);
    RUN(test_a_run_that_can_not_be_taken_changes_nothing);
    RUN(test_too_few_index_entries_are_seen_before_the_write);
    return check_result();
}
