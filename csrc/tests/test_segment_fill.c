/* Zeros that a segment's file is filled with ahead of its end. */
#include "made_segment.h"

enum { FILL_MIN = 64 << 10 };

static bool is_zeros(const faulty_file *file, int64_t from) {
    for (size_t i = (size_t)from; i < file->size; i++)
        if (file->bytes[i] != 0) return false;
    return true;
}

static void test_a_file_is_filled_ahead_and_cut(void) {
    faulty_file file;
    faulty_file_init(&file, NULL, 0);
    ls_segment *segment = make_segment(&file.file, &defaults);
    ls_fault fault;
    REQUIRE_INT(append(segment, BASE, 1, 5, 300, &fault), LS_OK);
    CHECK_INT(file.size, 300);
    ls_segment_fill_ahead(segment, 10 << 20);
    REQUIRE_INT(append(segment, BASE + 1, 1, 5, 300, &fault), LS_OK);
    CHECK_INT(ls_segment_size_bytes(segment), 600);
    CHECK_INT(file.size, FILL_MIN);
    CHECK_INT(ls_segment_filled_bytes(segment), FILL_MIN - 600);
    CHECK(is_zeros(&file, 600));
    int writes = file.calls_of[FAULTY_WRITE];
    for (int i = 0; i < 100; i++) REQUIRE_INT(append(segment, BASE + 2 + i, 1, 5, 300, &fault), LS_OK);
    CHECK_INT(file.calls_of[FAULTY_WRITE], writes + 100);
    CHECK_INT(file.size, FILL_MIN);

    int64_t end = ls_segment_size_bytes(segment);
    REQUIRE_INT(ls_segment_cut_ahead(segment, &fault), LS_OK);
    CHECK_INT(file.size, end);
    CHECK_INT(ls_segment_filled_bytes(segment), 0);
    int truncations = file.calls_of[FAULTY_TRUNCATE];
    REQUIRE_INT(ls_segment_cut_ahead(segment, &fault), LS_OK);
    CHECK_INT(file.calls_of[FAULTY_TRUNCATE], truncations);
    REQUIRE_INT(append(segment, BASE + 200, 1, 5, 300, &fault), LS_OK);
    CHECK_INT(file.size, end + 300);
    ls_segment_free(segment);
    faulty_file_free(&file);
}

static void test_filling_ends_at_the_limit_and_grows_with_the_file(void) {
    faulty_file file;
    faulty_file_init(&file, NULL, 0);
    ls_segment *segment = make_segment(&file.file, &defaults);
    ls_fault fault;
    int64_t limit = 500001;
    ls_segment_fill_ahead(segment, limit);
    int64_t end = 0;
    for (int i = 0; end + 30000 < limit; i++) {
        REQUIRE_INT(append(segment, BASE + i, 1, 5, 30000, &fault), LS_OK);
        end += 30000;
        CHECK_INT(ls_segment_size_bytes(segment), end);
        CHECK((int64_t)file.size >= end && (int64_t)file.size <= limit);
        CHECK((int64_t)file.size <= 2 * end + FILL_MIN);
        CHECK(is_zeros(&file, end));
    }
    CHECK_INT(file.size, limit);
    REQUIRE_INT(append(segment, BASE + 900, 1, 5, 30000, &fault), LS_OK); /* past the limit, as without it */
    CHECK_INT(file.size, ls_segment_size_bytes(segment));
    ls_segment_free(segment);
    faulty_file_free(&file);
}

static void test_a_disk_too_full_for_zeros_takes_the_batch(void) {
    for (size_t torn = 0; torn < 3000; torn += 1499) {
        faulty_file file;
        faulty_file_init(&file, NULL, 0);
        ls_segment *segment = make_segment(&file.file, &defaults);
        ls_fault fault;
        ls_segment_fill_ahead(segment, 10 << 20);
        faulty_file_fail(&file, 0, LS_DISK_FULL, false, torn);
        REQUIRE_INT(append(segment, BASE, 1, 5, 300, &fault), LS_OK);
        CHECK_INT(file.size, 300);
        REQUIRE_INT(append(segment, BASE + 1, 1, 5, 300, &fault), LS_OK);
        CHECK_INT(file.size, 600); /* no longer filled */
        ls_segment_free(segment);
        faulty_file_free(&file);
    }
}

static void test_a_failed_fill_is_a_failed_append(void) {
    for (int call = 0; call < 2; call++) { /* the zeros, the batch */
        faulty_file file;
        faulty_file_init(&file, NULL, 0);
        ls_segment *segment = make_segment(&file.file, &defaults);
        ls_fault fault;
        REQUIRE_INT(append(segment, BASE, 1, 5, 300, &fault), LS_OK);
        ls_segment_fill_ahead(segment, FILL_MIN);
        faulty_file_fail(&file, call, LS_IO, false, 100);
        CHECK_INT(append(segment, BASE + 1, 1, 5, 300, &fault), LS_IO);
        CHECK_INT(fault.expected, 0);
        CHECK_INT(file.size, 300);
        CHECK_INT(ls_segment_size_bytes(segment), 300);
        CHECK_INT(ls_segment_filled_bytes(segment), 0);
        ls_segment_free(segment);
        faulty_file_free(&file);
    }
}

static void test_the_disk_begins_with_whole_pages_of_a_filled_file(void) {
    faulty_file file;
    faulty_file_init(&file, NULL, 0);
    ls_segment *segment = make_segment(&file.file, &defaults);
    ls_fault fault;
    REQUIRE_INT(append(segment, BASE, 1, 5, 5000, &fault), LS_OK);
    ls_segment_write_back(segment, 0);
    CHECK_INT(file.written_back_bytes, 0); /* it grows */
    ls_segment_fill_ahead(segment, 10 << 20);
    REQUIRE_INT(append(segment, BASE + 1, 1, 5, 5000, &fault), LS_OK);
    ls_segment_write_back(segment, 5000);
    CHECK_INT(file.written_back_from, 5000);
    CHECK_INT(file.written_back_bytes, 8192 - 5000);
    file.written_back_bytes = 0;
    ls_segment_write_back(segment, 8192);
    CHECK_INT(file.written_back_bytes, 0); /* nothing but part of a page */
    ls_segment_write_back(segment, 10001);
    CHECK_INT(file.written_back_from, 0);
    CHECK_INT(file.written_back_bytes, 8192);
    ls_segment_free(segment);
    faulty_file_free(&file);
}

static void test_large_writes_are_given_blocks_instead(void) {
    enum { LARGE = 40000 };
    faulty_file file;
    faulty_file_init(&file, NULL, 0);
    file.can_reserve = true;
    ls_segment *segment = make_segment(&file.file, &defaults);
    ls_fault fault;
    REQUIRE_INT(append(segment, BASE, 1, 5, LARGE, &fault), LS_OK);
    CHECK_INT(file.reservations_count, 0);
    ls_segment_fill_ahead(segment, 10 << 20);
    REQUIRE_INT(append(segment, BASE + 1, 1, 5, LARGE, &fault), LS_OK);
    CHECK_INT(file.size, 2 * LARGE);
    CHECK_INT(ls_segment_filled_bytes(segment), 0);
    CHECK_INT(file.reserved_from, LARGE);
    CHECK_INT(file.reserved_bytes, LARGE + (1 << 20));
    ls_segment_write_back(segment, LARGE);
    CHECK_INT(file.written_back_from, LARGE);
    for (int i = 2; i < 28; i++) REQUIRE_INT(append(segment, BASE + i, 1, 5, LARGE, &fault), LS_OK);
    CHECK_INT(file.reservations_count, 1);
    REQUIRE_INT(append(segment, BASE + 28, 1, 5, LARGE, &fault), LS_OK);
    CHECK_INT(file.reservations_count, 2);
    CHECK_INT(file.size, 29 * LARGE);

    REQUIRE_INT(append(segment, BASE + 29, 1, 5, 300, &fault), LS_OK); /* a small one is given zeros */
    CHECK(ls_segment_filled_bytes(segment) > 0);
    CHECK(is_zeros(&file, 29 * LARGE + 300));
    REQUIRE_INT(ls_segment_cut_ahead(segment, &fault), LS_OK);
    CHECK_INT(file.size, 29 * LARGE + 300);

    REQUIRE_INT(append(segment, BASE + 30, 1, 5, LARGE, &fault), LS_OK);
    CHECK_INT(file.reservations_count, 2); /* no longer */
    int truncations = file.calls_of[FAULTY_TRUNCATE];
    ls_segment_fill_ahead(segment, 10 << 20);
    REQUIRE_INT(append(segment, BASE + 31, 1, 5, LARGE, &fault), LS_OK);
    REQUIRE_INT(ls_segment_cut_ahead(segment, &fault), LS_OK);
    CHECK_INT(file.calls_of[FAULTY_TRUNCATE], truncations + 1); /* which gives the blocks back */
    REQUIRE_INT(ls_segment_cut_ahead(segment, &fault), LS_OK);
    CHECK_INT(file.calls_of[FAULTY_TRUNCATE], truncations + 1);
    ls_segment_free(segment);
    faulty_file_free(&file);
}

static void test_blocks_end_at_the_limit(void) {
    faulty_file file;
    faulty_file_init(&file, NULL, 0);
    file.can_reserve = true;
    ls_segment *segment = make_segment(&file.file, &defaults);
    ls_fault fault;
    ls_segment_fill_ahead(segment, 100000);
    REQUIRE_INT(append(segment, BASE, 1, 5, 40000, &fault), LS_OK);
    CHECK_INT(file.reserved_from + file.reserved_bytes, 100000);
    REQUIRE_INT(append(segment, BASE + 1, 1, 5, 40000, &fault), LS_OK);
    REQUIRE_INT(append(segment, BASE + 2, 1, 5, 40000, &fault), LS_OK);
    CHECK_INT(file.reservations_count, 1);
    CHECK_INT(file.size, 120000);
    ls_segment_free(segment);
    faulty_file_free(&file);
}

static void test_a_file_that_gets_no_blocks_grows_and_is_not_asked_again(void) {
    faulty_file file;
    faulty_file_init(&file, NULL, 0);
    ls_segment *segment = make_segment(&file.file, &defaults);
    ls_fault fault;
    ls_segment_fill_ahead(segment, 10 << 20);
    for (int i = 0; i < 5; i++) REQUIRE_INT(append(segment, BASE + i, 1, 5, 40000, &fault), LS_OK);
    CHECK_INT(file.reservations_count, 1);
    CHECK_INT(file.size, 200000);
    ls_segment_write_back(segment, 0);
    CHECK_INT(file.written_back_bytes, 0); /* it grows */
    REQUIRE_INT(append(segment, BASE + 5, 1, 5, 300, &fault), LS_OK);
    CHECK(ls_segment_filled_bytes(segment) > 0);
    ls_segment_free(segment);
    faulty_file_free(&file);
}

static void test_a_reader_and_recovery_take_zeros_for_the_end(void) {
    faulty_file file;
    faulty_file_init(&file, NULL, 0);
    ls_segment *writer = make_segment(&file.file, &defaults);
    ls_fault fault;
    ls_segment_fill_ahead(writer, 10 << 20);
    for (int i = 0; i < 3; i++) REQUIRE_INT(append(writer, BASE + i, 1, 5, 300, &fault), LS_OK);

    faulty_file copy;
    faulty_file_init(&copy, file.bytes, file.size);
    ls_segment *reader = make_segment(&copy.file, &defaults);
    int64_t grew = -1;
    CHECK_INT(ls_segment_catch_up(reader, &grew, &fault), LS_OK);
    CHECK_INT(grew, 900);
    int64_t bytes_read = copy.bytes_read;
    CHECK_INT(ls_segment_catch_up(reader, &grew, &fault), LS_OK);
    CHECK_INT(grew, 0);
    CHECK_INT(copy.bytes_read - bytes_read, 4096); /* a look costs no more */
    ls_segment_free(reader);

    faulty_file_reopen(&copy);
    ls_segment *opened = make_segment(&copy.file, &defaults);
    ls_recovery_report report;
    REQUIRE_INT(ls_segment_recover(opened, 0, BASE, 1, &report, &fault), LS_OK);
    CHECK_INT(report.valid_bytes, 900);
    CHECK_INT(report.tail, LS_TAIL_TORN);
    CHECK_INT(report.is_filled, 1);
    ls_segment_free(opened);
    copy.bytes[copy.size - 1] = 1;
    faulty_file_reopen(&copy);
    opened = make_segment(&copy.file, &defaults);
    REQUIRE_INT(ls_segment_recover(opened, 0, BASE, 1, &report, &fault), LS_OK);
    CHECK_INT(report.is_filled, 0);
    ls_segment_free(opened);
    faulty_file_free(&copy);
    ls_segment_free(writer);
    faulty_file_free(&file);
}

int main(void) {
    RUN(test_a_file_is_filled_ahead_and_cut);
    RUN(test_filling_ends_at_the_limit_and_grows_with_the_file);
    RUN(test_a_disk_too_full_for_zeros_takes_the_batch);
    RUN(test_a_failed_fill_is_a_failed_append);
    RUN(test_the_disk_begins_with_whole_pages_of_a_filled_file);
    RUN(test_large_writes_are_given_blocks_instead);
    RUN(test_blocks_end_at_the_limit);
    RUN(test_a_file_that_gets_no_blocks_grows_and_is_not_asked_again);
    RUN(test_a_reader_and_recovery_take_zeros_for_the_end);
    return check_result();
}
