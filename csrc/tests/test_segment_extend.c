/* A segment that goes on in memory, for readers. */
#include "made_segment.h"

enum { SIZE = 300 };

/* A batch as it stands in a file, made by appending it to one. */
static void next_batch(int64_t offset, uint8_t *out) {
    faulty_file file;
    faulty_file_init(&file, NULL, 0);
    ls_segment *segment = make_segment(&file.file, &defaults);
    ls_fault fault;
    REQUIRE_INT(append(segment, offset, 2, 7, SIZE, &fault), LS_OK);
    memcpy(out, file.bytes, SIZE);
    ls_segment_free(segment);
    faulty_file_free(&file);
}

static ls_segment *three_batches(faulty_file *file) {
    faulty_file_init(file, NULL, 0);
    ls_segment *segment = make_segment(&file->file, &defaults);
    ls_fault fault;
    for (int i = 0; i < 3; i++) REQUIRE_INT(append(segment, BASE + i, 1, 5, SIZE, &fault), LS_OK);
    return segment;
}

static void test_it_reads_as_if_the_batch_were_in_the_file(void) {
    uint8_t batch[SIZE];
    next_batch(BASE + 3, batch);
    faulty_file file;
    ls_segment *segment = three_batches(&file);
    ls_fault fault;
    REQUIRE_INT(ls_segment_extend(segment, batch, SIZE, &fault), LS_OK);
    CHECK_INT(ls_segment_size_bytes(segment), 4 * SIZE);
    ls_segment_state state;
    ls_segment_get_state(segment, &state);
    CHECK_INT(state.next_offset, BASE + 5);
    CHECK_INT(state.max_timestamp, 7);
    ls_batch_location found;
    CHECK_INT(ls_segment_locate(segment, BASE + 4, &found, &fault), LS_OK);
    CHECK_INT(found.position, 3 * SIZE);
    CHECK_INT(ls_segment_find_timestamp(segment, 6, BASE, &found, &fault), LS_OK);
    CHECK_INT(found.header.base_offset, BASE + 3);
    uint8_t expected[4 * SIZE];
    uint8_t bytes[4 * SIZE + 50];
    size_t got;
    memcpy(expected, file.bytes, 3 * SIZE);
    memcpy(expected + 3 * SIZE, batch, SIZE);
    for (size_t from = 0; from < 4 * SIZE; from += 97) {
        for (size_t size = 1; size < 4 * SIZE; size += 113) {
            size_t there = 4 * SIZE - from < size ? 4 * SIZE - from : size;
            CHECK_INT(ls_segment_read(segment, (int64_t)from, bytes, size, &got, &fault), LS_OK);
            CHECK_INT(got, there);
            CHECK(memcmp(bytes, expected + from, there) == 0);
        }
    }
    int64_t grew = -1;
    CHECK_INT(ls_segment_catch_up(segment, &grew, &fault), LS_OK);
    CHECK_INT(grew, 0);
    CHECK_INT(file.size, 3 * SIZE);
    CHECK_INT(append(segment, BASE + 5, 1, 5, SIZE, &fault), LS_INVALID_ARGUMENT);
    CHECK_INT(ls_segment_size_bytes(segment), 4 * SIZE);
    ls_segment_free(segment);
    CHECK(file.is_closed);
    faulty_file_free(&file);
}

static void test_it_hides_what_the_file_has_behind_its_end(void) {
    uint8_t batch[SIZE];
    next_batch(BASE + 3, batch);
    faulty_file file;
    ls_segment_free(three_batches(&file));
    uint8_t tail[2 * SIZE];
    memset(tail, 0x5a, sizeof tail);
    ls_fault fault;
    REQUIRE_INT(ls_file_write(&file.file, 3 * SIZE, tail, sizeof tail, &fault), LS_OK);
    faulty_file_reopen(&file);
    ls_segment *segment = make_segment(&file.file, &defaults);
    ls_recovery_report report;
    REQUIRE_INT(ls_segment_recover(segment, 0, BASE, 1, &report, &fault), LS_OK);
    CHECK_INT(report.valid_bytes, 3 * SIZE);
    REQUIRE_INT(ls_segment_extend(segment, batch, SIZE, &fault), LS_OK);
    uint8_t bytes[SIZE];
    size_t got;
    CHECK_INT(ls_segment_read(segment, 3 * SIZE, bytes, SIZE, &got, &fault), LS_OK);
    CHECK_INT(got, SIZE);
    CHECK(memcmp(bytes, batch, SIZE) == 0);
    file.size = 2 * SIZE; /* cut under the reader */
    CHECK_INT(ls_segment_read(segment, SIZE, bytes, SIZE, &got, &fault), LS_OK);
    CHECK_INT(got, SIZE);
    uint8_t more[3 * SIZE];
    CHECK_INT(ls_segment_read(segment, SIZE, more, sizeof more, &got, &fault), LS_OK);
    CHECK_INT(got, SIZE);
    int64_t grew;
    CHECK_INT(ls_segment_catch_up(segment, &grew, &fault), LS_TORN);
    ls_segment_free(segment);
    faulty_file_free(&file);
}

static void test_what_does_not_follow_on_changes_nothing(void) {
    uint8_t batch[SIZE];
    faulty_file file;
    ls_segment *segment = three_batches(&file);
    ls_fault fault;
    next_batch(BASE + 2, batch);
    CHECK_INT(ls_segment_extend(segment, batch, SIZE, &fault), LS_INVALID_ARGUMENT);
    next_batch(BASE + 3, batch);
    CHECK_INT(ls_segment_extend(segment, batch, SIZE - 1, &fault), LS_TORN);
    batch[SIZE - 1] ^= 1;
    CHECK_INT(ls_segment_extend(segment, batch, SIZE, &fault), LS_CORRUPT);
    CHECK_INT(ls_segment_size_bytes(segment), 3 * SIZE);
    CHECK_INT(append(segment, BASE + 3, 1, 5, SIZE, &fault), LS_OK);
    ls_segment_free(segment);
    faulty_file_free(&file);
}

static void test_a_file_that_goes_on_is_for_reading(void) {
    faulty_file file;
    faulty_file_init(&file, (const uint8_t *)"abc", 3);
    ls_file *extended;
    ls_fault fault;
    CHECK_INT(ls_file_extend(&file.file, -1, (const uint8_t *)"xy", 2, &extended, &fault), LS_INVALID_ARGUMENT);
    CHECK_INT(ls_file_extend(&file.file, 2, (const uint8_t *)"xy", 0, &extended, &fault), LS_INVALID_ARGUMENT);
    REQUIRE_INT(ls_file_extend(&file.file, 2, (const uint8_t *)"xyz", 3, &extended, &fault), LS_OK);
    uint8_t bytes[8];
    size_t got;
    int64_t size;
    CHECK_INT(ls_file_read(extended, 0, bytes, sizeof bytes, &got, &fault), LS_OK);
    CHECK(got == 5 && memcmp(bytes, "abxyz", 5) == 0);
    CHECK_INT(ls_file_read(extended, 5, bytes, sizeof bytes, &got, &fault), LS_OK);
    CHECK_INT(got, 0);
    CHECK_INT(ls_file_size(extended, &size, &fault), LS_OK);
    CHECK_INT(size, 5);
    CHECK_INT(ls_file_write(extended, 0, bytes, 1, &fault), LS_INVALID_ARGUMENT);
    CHECK_INT(ls_file_sync(extended, &fault), LS_INVALID_ARGUMENT);
    CHECK_INT(ls_file_truncate(extended, 0, &fault), LS_INVALID_ARGUMENT);
    CHECK_INT(ls_file_descriptor(extended), -1);
    faulty_file_fail(&file, 0, LS_IO, true, 0);
    CHECK_INT(ls_file_read(extended, 1, bytes, 2, &got, &fault), LS_IO);
    CHECK_INT(ls_file_read(extended, 2, bytes, 2, &got, &fault), LS_OK);
    CHECK_INT(ls_file_size(extended, &size, &fault), LS_IO);
    ls_file_close(extended);
    CHECK(file.is_closed);
    faulty_file_free(&file);
}

int main(void) {
    RUN(test_it_reads_as_if_the_batch_were_in_the_file);
    RUN(test_it_hides_what_the_file_has_behind_its_end);
    RUN(test_what_does_not_follow_on_changes_nothing);
    RUN(test_a_file_that_goes_on_is_for_reading);
    return check_result();
}
