#include <errno.h>

#include "made_log.h"

/* ---- positions, truncation, catching up ------------------------------------------------------------ */

static void test_recovery_from_anywhere_gives_the_same_indexes(void) {
    faulty_file file;
    faulty_file whole_file;
    faulty_file_init(&file, log_bytes, (size_t)positions[COUNT]);
    faulty_file_init(&whole_file, log_bytes, (size_t)positions[COUNT]);
    ls_segment *whole = open_segment(&whole_file);
    recover(whole, 0, BASE, 1);
    ls_segment *segment = open_segment(&file);
    recover(segment, 0, BASE, 1);
    for (int i = COUNT; i >= 0; i--) { /* over what an earlier recovery left */
        ls_recovery_report report = recover(segment, positions[i], next_offsets[i], i % 2);
        CHECK_INT(report.batches_count, COUNT - i);
        check_same_content(segment, whole);
        check_same_indexes(segment, whole);
    }
    ls_segment_free(segment);
    for (int i = 0; i <= COUNT; i++) { /* with indexes that lag behind, or are not there */
        faulty_file_reopen(&file);
        segment = open_segment(&file);
        ls_recovery_report report = recover(segment, positions[i], next_offsets[i], 1);
        CHECK_INT(report.valid_bytes, positions[COUNT]);
        if (i > 0) check_same_content(segment, whole);
        ls_segment_free(segment);
    }
    ls_fault fault;
    ls_recovery_report report;
    CHECK_INT(ls_segment_recover(whole, -1, BASE, 1, &report, &fault), LS_INVALID_ARGUMENT);
    CHECK_INT(ls_segment_recover(whole, positions[COUNT] + 1, BASE, 1, &report, &fault), LS_INVALID_ARGUMENT);
    CHECK_INT(ls_segment_recover(whole, 0, BASE - 1, 1, &report, &fault), LS_INVALID_ARGUMENT);
    ls_segment_free(whole);
    faulty_file_free(&file);
    faulty_file_free(&whole_file);
}

/* A time index may have been written to its file earlier than the offset index. */
static void test_a_time_index_that_lags_behind_misleads_nobody(void) {
    enum { SIZE = 800 };
    static const int64_t timestamps[] = {10, 20, 500, 30, 500, 5};
    uint8_t bytes[6 * SIZE];
    for (int i = 0; i < 6; i++)
        make_batch(&(made_batch){BASE + i, 1, timestamps[i], 0, SIZE}, bytes + i * SIZE);
    faulty_file file;
    faulty_file_init(&file, bytes, sizeof bytes);
    ls_segment *segment = open_segment(&file);
    recover(segment, 0, BASE, 1);
    ls_time_index_truncate(ls_segment_time_index(segment), BASE + 2);
    CHECK_INT(ls_time_index_count(ls_segment_time_index(segment)), 1);
    recover(segment, 5 * SIZE, BASE + 5, 1);
    ls_segment_state state;
    ls_segment_get_state(segment, &state);
    CHECK_INT(state.max_timestamp, 500);
    CHECK_INT(state.max_timestamp_offset, BASE + 2);
    ls_segment_free(segment);
    faulty_file_free(&file);
}

static void test_truncation_leaves_what_recovery_would_find(void) {
    for (int kept = 0; kept <= COUNT; kept++) {
        faulty_file file;
        faulty_file cut_file;
        ls_fault fault;
        faulty_file_init(&file, log_bytes, (size_t)positions[COUNT]);
        faulty_file_init(&cut_file, log_bytes, (size_t)positions[kept]);
        ls_segment *segment = open_segment(&file);
        ls_segment *cut = open_segment(&cut_file);
        recover(segment, 0, BASE, 1);
        recover(cut, 0, BASE, 1);
        ls_segment_close_time_index(segment);
        if (kept < COUNT) {
            /* No batch ends there. */
            CHECK_INT(ls_segment_truncate_bytes(segment, positions[kept] + 1, 9999, &fault),
                      LS_INVALID_ARGUMENT);
            CHECK_INT(ls_segment_size_bytes(segment), positions[COUNT]);
        }
        CHECK_INT(ls_segment_truncate_bytes(segment, positions[COUNT] + 1, 9999, &fault),
                  LS_INVALID_ARGUMENT);
        CHECK_INT(ls_segment_truncate_bytes(segment, -1, 9999, &fault), LS_INVALID_ARGUMENT);
        CHECK_INT(ls_segment_truncate_bytes(segment, positions[kept], next_offsets[kept] - 1, &fault),
                  LS_INVALID_ARGUMENT);
        CHECK_INT(file.size, positions[COUNT]);
        CHECK_INT(ls_segment_truncate_bytes(segment, positions[kept], next_offsets[kept], &fault), LS_OK);
        CHECK_INT(file.size, positions[kept]);
        check_same_content(segment, cut);
        ls_segment_close_time_index(cut);
        if (kept < COUNT) ls_segment_close_time_index(segment);
        ls_batch_location found;
        for (int64_t offset = BASE; offset < next_offsets[kept]; offset++) {
            CHECK_INT(ls_segment_locate(segment, offset, &found, &fault), LS_OK);
        }
        CHECK_INT(ls_segment_locate(segment, next_offsets[kept], &found, &fault), LS_END);
        /* The end may lie above what is left, as when a batch is cut for an offset in its middle. */
        CHECK_INT(ls_segment_truncate_bytes(segment, positions[kept], next_offsets[kept] + 5, &fault), LS_OK);
        ls_segment_state state;
        ls_segment_get_state(segment, &state);
        CHECK_INT(state.next_offset, next_offsets[kept] + 5);
        ls_segment_free(segment);
        ls_segment_free(cut);
        faulty_file_free(&file);
        faulty_file_free(&cut_file);
    }
}

static void test_catching_up_takes_only_whole_batches(void) {
    faulty_file file;
    ls_fault fault;
    faulty_file_init(&file, NULL, 0);
    ls_segment *segment = open_segment(&file);
    int whole = 0;
    int64_t total = 0;
    for (int64_t size = 0; size <= positions[COUNT]; size += size == positions[COUNT] ? 1 : 7) {
        if (size + 7 > positions[COUNT]) size = positions[COUNT];
        while (whole < COUNT && positions[whole + 1] <= size) whole++;
        faulty_file_free(&file);
        file.size = file.capacity = 0;
        REQUIRE_INT(file.file.operations->write(&file.file, 0, log_bytes, (size_t)size, &fault), LS_OK);
        int64_t grew = -1;
        uint8_t first[LS_CATCH_UP_FIRST_BYTES];
        size_t taken = 1;
        REQUIRE_INT(ls_segment_catch_up_into(segment, first, &taken, &grew, &fault), LS_OK);
        CHECK((int64_t)taken <= grew && (grew == 0 || taken > 0));
        CHECK_BYTES(first, log_bytes + total, taken);
        total += grew;
        CHECK_INT(total, positions[whole]);
        CHECK_INT(ls_segment_size_bytes(segment), positions[whole]);
    }
    faulty_file again_file;
    faulty_file_init(&again_file, log_bytes, (size_t)positions[COUNT]);
    ls_segment *again = open_segment(&again_file);
    recover(again, 0, BASE, 1);
    check_same_content(segment, again);
    check_same_indexes(segment, again);
    file.size--;
    int64_t grew;
    CHECK_INT(ls_segment_catch_up(segment, &grew, &fault), LS_TORN);
    ls_segment_free(segment);
    ls_segment_free(again);
    faulty_file_free(&file);
    faulty_file_free(&again_file);
}

/* ---- failing calls ------------------------------------------------------------------------------ */

typedef enum action { RECOVER, RECOVER_DAMAGED, RECOVER_LATER, TRUNCATE, CATCH_UP, ACTIONS } action;

/* Every call of every operation fails in turn: the error comes back, nothing unread is published, and a
 * second try does what the first would have done. */
static void test_each_failing_call_is_reported_and_survived(void) {
    static uint8_t bytes[LOG_BYTES_MAX];
    memcpy(bytes, log_bytes, sizeof bytes);
    bytes[positions[30] + 70] ^= 1;
    for (int what = 0; what < ACTIONS; what++) {
        bool failed = true;
        int calls = 0;
        for (; failed; calls++) {
            REQUIRE(calls < 1000);
            faulty_file file;
            ls_fault fault = {0};
            faulty_file_init(&file, what == RECOVER_DAMAGED ? bytes : log_bytes, (size_t)positions[COUNT]);
            ls_segment *segment = open_segment(&file);
            if (what == TRUNCATE || what == RECOVER_LATER) recover(segment, 0, BASE, 1);
            int64_t before = ls_segment_size_bytes(segment);
            ls_status status = LS_OK;
            for (int attempt = 0; attempt < 2; attempt++) {
                if (attempt == 0) faulty_file_fail(&file, calls, LS_IO, false, 0);
                ls_recovery_report report;
                int64_t grew;
                if (what == TRUNCATE) {
                    status = ls_segment_truncate_bytes(segment, positions[25], next_offsets[25], &fault);
                } else if (what == CATCH_UP) {
                    status = ls_segment_catch_up(segment, &grew, &fault);
                } else if (what == RECOVER_LATER) {
                    status = ls_segment_recover(segment, positions[9], next_offsets[9], 1, &report, &fault);
                } else {
                    status = ls_segment_recover(segment, 0, BASE, 1, &report, &fault);
                }
                if (attempt > 0) break;
                failed = file.failed_count > 0;
                CHECK_INT(status, failed ? LS_IO : LS_OK);
                if (!failed) break;
                CHECK_INT(fault.os_errno, EIO);
                if (what != CATCH_UP) CHECK_INT(ls_segment_size_bytes(segment), before);
                CHECK_INT(file.size, positions[COUNT]);
            }
            CHECK_INT(status, LS_OK);
            int expected = what == TRUNCATE ? 25 : what == RECOVER_DAMAGED ? 30 : COUNT;
            CHECK_INT(ls_segment_size_bytes(segment), positions[expected]);
            faulty_file whole_file;
            faulty_file_init(&whole_file, log_bytes, (size_t)positions[expected]);
            ls_segment *whole = open_segment(&whole_file);
            recover(whole, 0, BASE, 1);
            check_same_content(segment, whole);
            check_same_indexes(segment, whole);
            ls_segment_free(whole);
            faulty_file_free(&whole_file);
            ls_segment_free(segment);
            faulty_file_free(&file);
        }
        CHECK(calls > 2); /* something was there to fail */
    }
}

/* Entries made before a failure are of batches that were never published. */
static void test_a_failed_recovery_leaves_no_entries(void) {
    enum { SIZE = 800, BATCHES = 1600 };
    uint8_t batch[SIZE];
    faulty_file file;
    ls_fault fault;
    faulty_file_init(&file, NULL, 0);
    for (int i = 0; i < BATCHES; i++) {
        make_batch(&(made_batch){BASE + i, 1, i, 0, SIZE}, batch);
        REQUIRE_INT(file.file.operations->write(&file.file, i * SIZE, batch, SIZE, &fault), LS_OK);
    }
    ls_segment *segment = open_segment(&file);
    faulty_file_fail(&file, 2, LS_IO, false, 0); /* the size, the first MiB, then this */
    ls_recovery_report report;
    CHECK_INT(ls_segment_recover(segment, 0, BASE, 1, &report, &fault), LS_IO);
    CHECK_INT(ls_offset_index_count(ls_segment_offset_index(segment)), 0);
    CHECK_INT(ls_time_index_count(ls_segment_time_index(segment)), 0);
    CHECK_INT(recover(segment, 0, BASE, 1).batches_count, BATCHES);
    ls_segment_free(segment);
    faulty_file_free(&file);
}

int main(void) {
    make_log();
    RUN(test_recovery_from_anywhere_gives_the_same_indexes);
    RUN(test_a_time_index_that_lags_behind_misleads_nobody);
    RUN(test_truncation_leaves_what_recovery_would_find);
    RUN(test_catching_up_takes_only_whole_batches);
    RUN(test_each_failing_call_is_reported_and_survived);
    RUN(test_a_failed_recovery_leaves_no_entries);
    return check_result();
}
