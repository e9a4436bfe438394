#include "logstore/segment.h"

#include <errno.h>

#include "made_segment.h"

static uint8_t *read_whole(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    CHECK_CASE(file != NULL, "no file %s", path);
    REQUIRE(file != NULL);
    REQUIRE(fseek(file, 0, SEEK_END) == 0);
    long end = ftell(file);
    REQUIRE(end > 0);
    *size = (size_t)end;
    rewind(file);
    uint8_t *bytes = malloc(*size);
    REQUIRE(bytes != NULL && fread(bytes, 1, *size, file) == *size);
    fclose(file);
    return bytes;
}

/* ---- the fixture: what a real broker's rule makes of 300 batches -------------------------------- */

#define FIXTURE "../../tests/vectors/segment/"
#define NAME "00000000000000001000"

static void check_indexes(ls_segment *segment, const char *index_path, const char *time_index_path) {
    size_t size;
    uint8_t *expected = read_whole(index_path, &size);
    size_t count = ls_offset_index_count(ls_segment_offset_index(segment));
    CHECK_INT(count * LS_OFFSET_INDEX_ENTRY_BYTES, size);
    uint8_t *bytes = malloc(size + count * LS_TIME_INDEX_ENTRY_BYTES + 64);
    REQUIRE(bytes != NULL);
    if (count * LS_OFFSET_INDEX_ENTRY_BYTES == size) {
        ls_offset_index_encode(ls_segment_offset_index(segment), 0, count, bytes);
        CHECK_BYTES(bytes, expected, size);
    }
    free(expected);
    expected = read_whole(time_index_path, &size);
    count = ls_time_index_count(ls_segment_time_index(segment));
    CHECK_INT(count * LS_TIME_INDEX_ENTRY_BYTES, size);
    if (count * LS_TIME_INDEX_ENTRY_BYTES == size) {
        ls_time_index_encode(ls_segment_time_index(segment), 0, count, bytes);
        CHECK_BYTES(bytes, expected, size);
    }
    free(expected);
    free(bytes);
}

static void check_fixture(int32_t interval, const char *index_path, const char *time_index_path) {
    size_t log_size;
    uint8_t *log = read_whole(FIXTURE "topic-a-0/" NAME ".log", &log_size);
    faulty_file file;
    faulty_file_init(&file, NULL, 0);
    ls_segment_options options = defaults;
    options.index_interval_bytes = interval;
    ls_segment *segment = make_segment(&file.file, &options);
    ls_fault fault;
    int batches = 0;
    for (size_t at = 0; at < log_size; batches++) {
        ls_batch_header header;
        REQUIRE_INT(ls_batch_validate(log + at, log + log_size, (int64_t)at, &header, &fault), LS_OK);
        size_t size = (size_t)ls_batch_size_bytes(&header);
        REQUIRE_INT(ls_segment_append(segment, log + at, size, &header, &fault), LS_OK);
        at += size;
    }
    CHECK_INT(batches, 300);
    ls_segment_close_time_index(segment);
    ls_segment_close_time_index(segment);
    CHECK_INT(file.size, log_size);
    CHECK_BYTES(file.bytes, log, log_size);
    check_indexes(segment, index_path, time_index_path);

    /* Recovery over the same bytes derives the same entries. */
    faulty_file_reopen(&file);
    ls_segment *again = make_segment(&file.file, &options);
    ls_recovery_report report;
    REQUIRE_INT(ls_segment_recover(again, 0, BASE, 1, &report, &fault), LS_OK);
    CHECK_INT(report.tail, LS_TAIL_NONE);
    CHECK_INT(report.batches_count, 300);
    CHECK_INT(report.next_offset, 2442);
    ls_segment_close_time_index(again);
    check_indexes(again, index_path, time_index_path);

    static const struct { int64_t offset, position, size;
    } translated[] = {
        {1000, 0, 398},      {1001, 0, 398},     {1055, 4666, 280},
        {1200, 18159, 1422}, {1500, 48049, 468}, {2441, 142469, 147},
    };
    for (size_t i = 0; i < sizeof translated / sizeof translated[0]; i++) {
        ls_batch_location location;
        REQUIRE_INT(ls_segment_locate(segment, translated[i].offset, &location, &fault), LS_OK);
        CHECK_INT(location.position, translated[i].position);
        CHECK_INT(ls_batch_size_bytes(&location.header), translated[i].size);
    }
    static const struct { int64_t timestamp, record_offset; } timed[] = {
        {1699999999000, 1000}, {1700000000000, 1000}, {1700000000050, 1028}, {1700000000500, 1130},
        {1700000001500, 1708}, {1700000000939, 1519}, {1700000002662, 1936}, {1700000004592, 2441},
    };
    for (size_t i = 0; i < sizeof timed / sizeof timed[0]; i++) {
        ls_batch_location location;
        REQUIRE_INT(ls_segment_find_timestamp(segment, timed[i].timestamp, BASE, &location, &fault), LS_OK);
        CHECK(location.header.base_offset <= timed[i].record_offset);
        CHECK(ls_batch_last_offset(&location.header) >= timed[i].record_offset);
    }
    ls_batch_location none;
    CHECK_INT(ls_segment_find_timestamp(segment, 1700000104592, BASE, &none, &fault), LS_END);
    CHECK_INT(ls_segment_locate(segment, 2442, &none, &fault), LS_END);
    ls_segment_free(segment);
    ls_segment_free(again);
    CHECK(file.is_closed);
    faulty_file_free(&file);
    free(log);
}

static void test_fixture_at_the_default_interval(void) {
    check_fixture(4096, FIXTURE "topic-a-0/" NAME ".index", FIXTURE "topic-a-0/" NAME ".timeindex");
}

static void test_fixture_at_a_small_interval(void) {
    check_fixture(1024, FIXTURE "interval-1024/" NAME ".index", FIXTURE "interval-1024/" NAME ".timeindex");
}

/* ---- append ---------------------------------------------------------------------------------- */

static void test_append_publishes_bytes_entries_and_state(void) {
    faulty_file file;
    ls_fault fault;
    faulty_file_init(&file, NULL, 0);
    ls_segment *segment = make_segment(&file.file, &defaults);
    CHECK_INT(append(segment, BASE, 3, 50, 600, &fault), LS_OK);
    CHECK_INT(append(segment, BASE + 3, 1, 70, 500, &fault), LS_OK);
    CHECK_INT(append(segment, BASE + 10, 2, 60, 61, &fault),
              LS_OK);         /* 1100 bytes since the start: an entry */
    CHECK_INT(file.calls, 3); /* one write each and nothing else */
    ls_segment_state state;
    ls_segment_get_state(segment, &state);
    CHECK_INT(state.size_bytes, 1161);
    CHECK_INT(ls_segment_size_bytes(segment), 1161);
    CHECK_INT(state.next_offset, BASE + 12);
    CHECK_INT(state.max_timestamp, 70);
    CHECK_INT(state.max_timestamp_offset, BASE + 3);
    CHECK_INT(state.first_batch_max_timestamp, 50);
    CHECK_INT(state.bytes_since_last_entry, 61);
    CHECK_INT(state.last_leader_epoch, 0);
    CHECK_INT(ls_offset_index_count(ls_segment_offset_index(segment)), 1);
    int64_t offset;
    int32_t position;
    ls_offset_index_entry(ls_segment_offset_index(segment), 0, &offset, &position);
    CHECK_INT(offset, BASE + 11);
    CHECK_INT(position, 1100);
    int64_t timestamp;
    ls_time_index_entry(ls_segment_time_index(segment), 0, &timestamp, &offset);
    CHECK_INT(timestamp, 70);
    CHECK_INT(offset, BASE + 3);
    ls_segment_free(segment);
    faulty_file_free(&file);
}

static void test_append_refuses_what_does_not_fit(void) {
    faulty_file file;
    ls_fault fault;
    faulty_file_init(&file, NULL, 0);
    ls_segment_options options = defaults;
    options.offset_index_capacity = 1;
    options.end_offset_max = BASE + (int64_t)INT32_MAX + 100;
    ls_segment *segment = make_segment(&file.file, &options);
    CHECK_INT(append(segment, BASE - 1, 1, 0, 100, &fault), LS_INVALID_ARGUMENT);
    CHECK_INT(append(segment, BASE + (int64_t)INT32_MAX, 2, 0, 100, &fault), LS_FULL);
    CHECK_INT(append(segment, options.end_offset_max - 1, 2, 0, 100, &fault), LS_INVALID_ARGUMENT);
    CHECK_INT(append(segment, options.end_offset_max, 1, 0, 100, &fault), LS_INVALID_ARGUMENT);
    CHECK_INT(append(segment, INT64_MAX, 1, 0, 100, &fault), LS_INVALID_ARGUMENT);
    CHECK_INT(append(segment, BASE, 5, 0, 1001, &fault), LS_OK);
    CHECK_INT(append(segment, BASE + 4, 1, 0, 100, &fault), LS_INVALID_ARGUMENT);
    CHECK_INT(fault.expected, BASE + 5);
    CHECK_INT(append(segment, BASE + 5, 1, 0, 1001, &fault), LS_OK); /* the only entry */
    CHECK_INT(append(segment, BASE + 6, 1, 0, 100, &fault), LS_FULL);
    CHECK_INT(ls_segment_size_bytes(segment), 2002);
    CHECK_INT(file.calls, 2);

    uint8_t batch[100];
    made_batch made = {BASE + 6, 1, 0, 0, sizeof batch};
    ls_batch_header header = make_batch(&made, batch);
    CHECK_INT(ls_segment_append(segment, batch, 99, &header, &fault), LS_INVALID_ARGUMENT);
    ls_segment_free(segment);
    faulty_file_free(&file);

    /* A segment of nearly 2 GiB, by its state alone. */
    faulty_file_init(&file, NULL, 0);
    ls_segment_state state = {.size_bytes = INT32_MAX - 100,
                              .next_offset = BASE + 6,
                              .max_timestamp = -1,
                              .max_timestamp_offset = -1,
                              .first_batch_max_timestamp = -1,
                              .last_leader_epoch = -1,
                              .bytes_since_last_entry = 77};
    REQUIRE_INT(ls_segment_create(&file.file, &defaults, &state, &segment, &fault), LS_OK);
    ls_segment_get_state(segment, &state);
    CHECK_INT(state.bytes_since_last_entry, 0);
    CHECK_INT(append(segment, BASE + 6, 1, 0, 101, &fault), LS_FULL);
    header.batch_length = INT32_MAX;
    CHECK_INT(ls_segment_append(segment, batch, (size_t)INT32_MAX + 12, &header, &fault), LS_FULL);
    CHECK_INT(file.calls, 0);
    ls_segment_free(segment);

    faulty_file_reopen(&file);
    segment = make_segment(&file.file, &defaults);
    CHECK_INT(ls_segment_append(segment, batch, (size_t)INT32_MAX + 12, &header, &fault), LS_TOO_LARGE);
    ls_segment_free(segment);
    faulty_file_free(&file);
}

static void test_create_refuses_impossible_options(void) {
    faulty_file file;
    ls_fault fault;
    faulty_file_init(&file, NULL, 0);
    ls_segment *segment = NULL;
    ls_segment_options options = defaults;
    options.base_offset = -1;
    CHECK_INT(ls_segment_create(&file.file, &options, NULL, &segment, &fault), LS_INVALID_ARGUMENT);
    options = defaults;
    options.end_offset_max = BASE - 1;
    CHECK_INT(ls_segment_create(&file.file, &options, NULL, &segment, &fault), LS_INVALID_ARGUMENT);
    options = defaults;
    options.time_index_capacity = SIZE_MAX;
    CHECK_INT(ls_segment_create(&file.file, &options, NULL, &segment, &fault), LS_INVALID_ARGUMENT);
    ls_segment_state state = {.size_bytes = (int64_t)INT32_MAX + 1, .next_offset = BASE};
    CHECK_INT(ls_segment_create(&file.file, &defaults, &state, &segment, &fault), LS_INVALID_ARGUMENT);
    state = (ls_segment_state){.next_offset = BASE - 1};
    CHECK_INT(ls_segment_create(&file.file, &defaults, &state, &segment, &fault), LS_INVALID_ARGUMENT);
    CHECK(!file.is_closed); /* the file stays the caller's */
    ls_segment_free(NULL);
    faulty_file_free(&file);
}

/* A full disk, or any refusal: nothing published, the file as before, and the next append works. */
static void test_a_failed_write_leaves_no_trace(void) {
    static const ls_status statuses[] = {LS_DISK_FULL, LS_IO};
    for (size_t s = 0; s < 2; s++) {
        for (size_t torn = 0; torn <= 700; torn += 50) {
            faulty_file file;
            ls_fault fault;
            faulty_file_init(&file, NULL, 0);
            ls_segment *segment = make_segment(&file.file, &defaults);
            REQUIRE_INT(append(segment, BASE, 1, 10, 1100, &fault), LS_OK);
            ls_segment_state before;
            ls_segment_get_state(segment, &before);
            faulty_file_fail(&file, 0, statuses[s], false, torn);
            CHECK_INT(append(segment, BASE + 1, 1, 20, 700, &fault), statuses[s]);
            CHECK_INT(fault.os_errno, statuses[s] == LS_DISK_FULL ? ENOSPC : EIO);
            CHECK_INT(fault.expected, 0);
            CHECK_INT(file.size, 1100);
            ls_segment_state after;
            ls_segment_get_state(segment, &after);
            CHECK_BYTES(&after, &before, sizeof after);
            CHECK_INT(ls_offset_index_count(ls_segment_offset_index(segment)), 0);
            CHECK_INT(append(segment, BASE + 1, 1, 20, 300, &fault), LS_OK);
            CHECK_INT(file.size, 1400);

            /* Where cutting back fails as well, the tail stays and appends are refused until it is cut. */
            faulty_file_fail(&file, 0, statuses[s], true, torn);
            CHECK_INT(append(segment, BASE + 2, 1, 30, 700, &fault), statuses[s]);
            CHECK_INT(fault.expected, 1);
            CHECK_INT(ls_segment_size_bytes(segment), 1400);
            CHECK_INT(file.size, 1400 + torn);
            file.fail_call = FAULTY_NEVER;
            CHECK_INT(append(segment, BASE + 2, 1, 30, 100, &fault), LS_INVALID_ARGUMENT);
            CHECK_INT(ls_segment_truncate_bytes(segment, 1400, BASE + 2, &fault), LS_OK);
            CHECK_INT(append(segment, BASE + 2, 1, 30, 100, &fault), LS_OK);
            CHECK_INT(file.size, 1500);
            ls_segment_free(segment);
            faulty_file_free(&file);
        }
    }
}

static void test_roll_conditions(void) {
    faulty_file file;
    ls_fault fault;
    faulty_file_init(&file, NULL, 0);
    ls_segment_options options = defaults;
    options.offset_index_capacity = 1;
    ls_segment *segment = make_segment(&file.file, &options);
    ls_roll_policy policy = {.segment_bytes = 2000, .segment_ms = 100, .created_ms = 5000};
    const int64_t far = BASE + (int64_t)INT32_MAX;
    CHECK(
        !ls_segment_should_roll(segment, &policy, 5000, 0, BASE, 9999)); /* empty: rolling changes nothing */
    CHECK(!ls_segment_should_roll(segment, &policy, 100, 0, far, 0));
    CHECK(ls_segment_should_roll(segment, &policy, 100, 0, far + 1, 0));
    REQUIRE_INT(append(segment, BASE, 1, 1000, 900, &fault), LS_OK);
    CHECK(!ls_segment_should_roll(segment, &policy, 1100, 1000, BASE + 1, 9999));
    CHECK(ls_segment_should_roll(segment, &policy, 1101, 1000, BASE + 1, 9999));
    CHECK(ls_segment_should_roll(segment, &policy, INT64_MAX, 1000, BASE + 1, 9999));
    CHECK(!ls_segment_should_roll(segment, &policy, 100, 1100, BASE + 1,
                                  9999)); /* record time, not the clock */
    CHECK(ls_segment_should_roll(segment, &policy, 100, 1101, BASE + 1, 0));
    CHECK(!ls_segment_should_roll(segment, &policy, 100, INT64_MIN, BASE + 1, 9999));
    CHECK(ls_segment_should_roll(segment, &policy, 100, 1000, far + 1, 0));
    policy.segment_bytes = INT64_MAX;
    CHECK(ls_segment_should_roll(segment, &policy, INT32_MAX - 899, 1000, BASE + 1, 0));
    CHECK(!ls_segment_should_roll(segment, &policy, INT32_MAX - 900, 1000, BASE + 1, 0));
    REQUIRE_INT(append(segment, BASE + 1, 1, 1000, 200, &fault), LS_OK);
    CHECK(!ls_segment_should_roll(segment, &policy, 100, 1000, BASE + 2, 0));
    REQUIRE_INT(append(segment, BASE + 2, 1, 1000, 200, &fault), LS_OK); /* the one entry */
    CHECK(ls_segment_should_roll(segment, &policy, 100, 1000, BASE + 3, 0));
    ls_segment_free(segment);
    faulty_file_free(&file);

    /* Without a timestamp, the clock and the time of creation decide. */
    faulty_file_init(&file, NULL, 0);
    segment = make_segment(&file.file, &defaults);
    REQUIRE_INT(append(segment, BASE, 1, -1, 100, &fault), LS_OK);
    CHECK(!ls_segment_should_roll(segment, &policy, 100, INT64_MAX, BASE + 1, 5100));
    CHECK(ls_segment_should_roll(segment, &policy, 100, -1, BASE + 1, 5101));
    ls_segment_free(segment);
    faulty_file_free(&file);
}

static void test_read_ends_at_the_published_size(void) {
    faulty_file file;
    ls_fault fault;
    faulty_file_init(&file, NULL, 0);
    ls_segment *segment = make_segment(&file.file, &defaults);
    REQUIRE_INT(append(segment, BASE, 1, 0, 100, &fault), LS_OK);
    const uint8_t more[50] = {0};
    REQUIRE_INT(file.file.operations->write(&file.file, 100, more, sizeof more, &fault), LS_OK);
    uint8_t bytes[200];
    size_t got = 99;
    CHECK_INT(ls_segment_read(segment, 0, bytes, sizeof bytes, &got, &fault), LS_OK);
    CHECK_INT(got, 100);
    CHECK_BYTES(bytes, file.bytes, 100);
    CHECK_INT(ls_segment_read(segment, 90, bytes, 5, &got, &fault), LS_OK);
    CHECK_INT(got, 5);
    CHECK_BYTES(bytes, file.bytes + 90, 5);
    CHECK_INT(ls_segment_read(segment, 100, bytes, sizeof bytes, &got, &fault), LS_OK);
    CHECK_INT(got, 0);
    CHECK_INT(ls_segment_read(segment, INT64_MAX, bytes, sizeof bytes, &got, &fault), LS_OK);
    CHECK_INT(got, 0);
    CHECK_INT(ls_segment_read(segment, 0, NULL, 0, &got, &fault), LS_OK);
    CHECK_INT(ls_segment_read(segment, -1, bytes, 1, &got, &fault), LS_INVALID_ARGUMENT);
    ls_segment_free(segment);
    faulty_file_free(&file);
}

int main(void) {
    RUN(test_fixture_at_the_default_interval);
    RUN(test_fixture_at_a_small_interval);
    RUN(test_append_publishes_bytes_entries_and_state);
    RUN(test_append_refuses_what_does_not_fit);
    RUN(test_create_refuses_impossible_options);
    RUN(test_a_failed_write_leaves_no_trace);
    RUN(test_roll_conditions);
    RUN(test_read_ends_at_the_published_size);
    return check_result();
}
