/* A segment whose file is in memory, for readers. */
#include "made_segment.h"

enum { SIZE = 300 };

/* A batch as it stands in a file, made by appending it to one. */
static void batch_of_two(int64_t offset, uint8_t *out) {
    faulty_file file;
    faulty_file_init(&file, NULL, 0);
    ls_segment *segment = make_segment(&file.file, &defaults);
    ls_fault fault;
    REQUIRE_INT(append(segment, offset, 2, 7, SIZE, &fault), LS_OK);
    memcpy(out, file.bytes, SIZE);
    ls_segment_free(segment);
    faulty_file_free(&file);
}

static ls_segment *in_memory(const uint8_t *batch, size_t size) {
    ls_file *file;
    ls_fault fault;
    REQUIRE_INT(ls_file_in_memory(batch, size, &file, &fault), LS_OK);
    return make_segment(file, &defaults);
}

static void test_it_reads_as_any_other(void) {
    uint8_t batch[SIZE];
    batch_of_two(BASE + 3, batch);
    ls_segment *segment = in_memory(batch, SIZE);
    ls_fault fault;
    int64_t grew = -1;
    CHECK_INT(ls_segment_catch_up(segment, &grew, &fault), LS_OK);
    CHECK_INT(grew, SIZE);
    ls_segment_state state;
    ls_segment_get_state(segment, &state);
    CHECK_INT(state.next_offset, BASE + 5);
    CHECK_INT(state.max_timestamp, 7);
    ls_batch_location found;
    CHECK_INT(ls_segment_locate(segment, BASE + 4, &found, &fault), LS_OK);
    CHECK_INT(found.position, 0);
    CHECK_INT(found.header.base_offset, BASE + 3);
    CHECK_INT(ls_segment_find_timestamp(segment, 6, BASE, &found, &fault), LS_OK);
    CHECK_INT(found.header.base_offset, BASE + 3);
    uint8_t bytes[SIZE + 50];
    size_t got;
    for (size_t from = 0; from < SIZE; from += 37) {
        for (size_t size = 1; size <= sizeof bytes; size += 41) {
            size_t there = SIZE - from < size ? SIZE - from : size;
            CHECK_INT(ls_segment_read(segment, (int64_t)from, bytes, size, &got, &fault), LS_OK);
            CHECK_INT(got, there);
            CHECK(memcmp(bytes, batch + from, there) == 0);
        }
    }
    CHECK_INT(ls_segment_catch_up(segment, &grew, &fault), LS_OK);
    CHECK_INT(grew, 0);
    CHECK_INT(append(segment, BASE + 5, 1, 5, SIZE, &fault), LS_INVALID_ARGUMENT);
    CHECK_INT(ls_segment_size_bytes(segment), SIZE);
    ls_segment_free(segment);
}

static void test_what_is_no_batch_is_not_published(void) {
    uint8_t batch[SIZE];
    batch_of_two(BASE + 3, batch);
    ls_fault fault;
    int64_t grew = -1;
    for (size_t size = 0; size < SIZE; size += 13) {
        ls_segment *segment = in_memory(batch, size);
        CHECK_INT(ls_segment_catch_up(segment, &grew, &fault), LS_OK);
        CHECK_INT(grew, 0);
        ls_segment_free(segment);
    }
    batch[SIZE - 1] ^= 1;
    ls_segment *segment = in_memory(batch, SIZE);
    ls_segment_catch_up(segment, &grew, &fault);
    CHECK_INT(grew, 0);
    ls_segment_free(segment);
}

static void test_a_file_in_memory_is_for_reading(void) {
    ls_file *file;
    ls_fault fault;
    REQUIRE_INT(ls_file_in_memory((const uint8_t *)"abxyz", 5, &file, &fault), LS_OK);
    uint8_t bytes[8];
    size_t got;
    int64_t size;
    CHECK_INT(ls_file_read(file, 0, bytes, sizeof bytes, &got, &fault), LS_OK);
    CHECK(got == 5 && memcmp(bytes, "abxyz", 5) == 0);
    CHECK_INT(ls_file_read(file, 3, bytes, 1, &got, &fault), LS_OK);
    CHECK(got == 1 && bytes[0] == 'y');
    CHECK_INT(ls_file_read(file, 5, bytes, sizeof bytes, &got, &fault), LS_OK);
    CHECK_INT(got, 0);
    CHECK_INT(ls_file_read(file, INT64_MAX, bytes, sizeof bytes, &got, &fault), LS_OK);
    CHECK_INT(got, 0);
    CHECK_INT(ls_file_read(file, -1, bytes, sizeof bytes, &got, &fault), LS_INVALID_ARGUMENT);
    CHECK_INT(ls_file_size(file, &size, &fault), LS_OK);
    CHECK_INT(size, 5);
    CHECK_INT(ls_file_write(file, 0, bytes, 1, &fault), LS_INVALID_ARGUMENT);
    CHECK_INT(ls_file_sync(file, &fault), LS_INVALID_ARGUMENT);
    CHECK_INT(ls_file_truncate(file, 0, &fault), LS_INVALID_ARGUMENT);
    CHECK_INT(ls_file_descriptor(file), -1);
    ls_file_close(file);
    REQUIRE_INT(ls_file_in_memory(NULL, 0, &file, &fault), LS_OK);
    CHECK_INT(ls_file_size(file, &size, &fault), LS_OK);
    CHECK_INT(size, 0);
    ls_file_close(file);
    CHECK_INT(ls_file_in_memory(bytes, (size_t)INT32_MAX + 1, &file, &fault), LS_INVALID_ARGUMENT);
}

int main(void) {
    RUN(test_it_reads_as_any_other);
    RUN(test_what_is_no_batch_is_not_published);
    RUN(test_a_file_in_memory_is_for_reading);
    return check_result();
}
