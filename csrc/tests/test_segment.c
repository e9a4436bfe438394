#include "logstore/segment.h"

#include <errno.h>

#include "check.h"
#include "faulty_file.h"
#include "made_batch.h"

enum { BASE = 1000, NO_LIMIT = 1 << 20 };
static const ls_segment_options defaults = {.base_offset = BASE, .end_offset_max = INT64_MAX,
                                            .index_interval_bytes = 1000, .offset_index_capacity = NO_LIMIT,
                                            .time_index_capacity = NO_LIMIT};

static ls_segment *make_segment(ls_file *file, const ls_segment_options *options) {
    ls_segment *segment = NULL;
    ls_fault fault;
    REQUIRE_INT(ls_segment_create(file, options, NULL, &segment, &fault), LS_OK);
    return segment;
}

static ls_status append(ls_segment *segment, int64_t base_offset, int32_t records, int64_t timestamp,
                        size_t size, ls_fault *fault) {
    static uint8_t batch[1 << 16];
    REQUIRE(size <= sizeof batch);
    made_batch made = {base_offset, records, timestamp, 0, size};
    ls_batch_header header = make_batch(&made, batch);
    return ls_segment_append(segment, batch, size, &header, fault);
}

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

/* ---- look-ups -------------------------------------------------------------------------------- */

enum { LOOKED_UP = 400 };
typedef struct looked_up {
    int64_t position, base_offset, last_offset, timestamp;
} looked_up;

/* Batches of all kinds of sizes, with gaps between offsets and timestamps that jump about. */
static ls_segment *make_varied(faulty_file *file, looked_up *batches) {
    ls_fault fault;
    faulty_file_init(file, NULL, 0);
    ls_segment *segment = make_segment(&file->file, &defaults);
    int64_t next = BASE;
    uint32_t random = 12345;
    for (int i = 0; i < LOOKED_UP; i++) {
        random = random * 1664525u + 1013904223u;
        size_t size = random >> 29 == 0 ? 20000 + (random >> 16) % 9000 : 61 + (random >> 20) % 400;
        int32_t records = 1 + (int32_t)((random >> 10) % 5);
        next += random >> 30 == 0 ? 3 : 0;
        int64_t timestamp = 10 * i + (int64_t)((random >> 5) % 90) - 40;
        batches[i] = (looked_up){ls_segment_size_bytes(segment), next, next + records - 1, timestamp};
        REQUIRE_INT(append(segment, next, records, timestamp, size, &fault), LS_OK);
        next += records;
    }
    return segment;
}

/* With the right guess and with the wrong one. */
static void check_fetch(ls_segment *segment, int64_t offset, const looked_up *expected, bool sound_index) {
    static uint8_t buffer[LS_FETCH_BYTES_MAX];
    ls_fault fault;
    ls_fetch_plan plan;
    ls_batch_location found;
    ls_batch_header header;
    int found_count = 0;
    for (int expect_at_entry = 0; expect_at_entry < 2; expect_at_entry++) {
        const uint8_t *batch = NULL;
        ls_segment_plan_fetch(segment, offset, expect_at_entry == 1, &plan);
        CHECK(plan.room_bytes >= plan.size_bytes);
        if (ls_segment_fetch(segment, offset, &plan, buffer, &found, &batch, &fault) != LS_OK) continue;
        found_count++;
        CHECK_INT(found.position, expected->position);
        REQUIRE_INT(ls_batch_validate(batch, buffer + plan.room_bytes, found.position, &header, &fault), LS_OK);
        CHECK_INT(header.base_offset, expected->base_offset);
    }
    if (offset < expected->base_offset) CHECK_INT(found_count, 0); /* in a gap */
    else if (sound_index) CHECK(found_count > 0);
}

static void check_every_fetch(ls_segment *segment, const looked_up *batches, bool sound_index) {
    int i = 0;
    for (int64_t offset = BASE; offset <= batches[LOOKED_UP - 1].last_offset; offset++) {
        while (batches[i].last_offset < offset) i++;
        check_fetch(segment, offset, &batches[i], sound_index);
    }
}

static void check_every_lookup(ls_segment *segment, const looked_up *batches) {
    ls_fault fault;
    ls_batch_location found;
    int i = 0;
    for (int64_t offset = BASE - 2; offset <= batches[LOOKED_UP - 1].last_offset; offset++) {
        while (batches[i].last_offset < offset) i++;
        REQUIRE_INT(ls_segment_locate(segment, offset, &found, &fault), LS_OK);
        CHECK_INT(found.position, batches[i].position);
        CHECK_INT(found.header.base_offset, batches[i].base_offset);
    }
    CHECK_INT(ls_segment_locate(segment, batches[LOOKED_UP - 1].last_offset + 1, &found, &fault), LS_END);
    CHECK_INT(ls_segment_locate(segment, INT64_MAX, &found, &fault), LS_END);
    for (int64_t timestamp = -60; timestamp < 10 * LOOKED_UP + 60; timestamp += 7) {
        for (int64_t from = BASE - 5; from < BASE + 1500; from += 333) {
            int expected = 0;
            while (expected < LOOKED_UP &&
                   (batches[expected].last_offset < from || batches[expected].timestamp < timestamp)) {
                expected++;
            }
            ls_status status = ls_segment_find_timestamp(segment, timestamp, from, &found, &fault);
            REQUIRE_INT(status, expected == LOOKED_UP ? LS_END : LS_OK);
            if (status == LS_OK) CHECK_INT(found.position, batches[expected].position);
        }
    }
}

static void test_locate_and_find_timestamp_agree_with_a_plain_search(void) {
    static looked_up batches[LOOKED_UP];
    faulty_file file;
    ls_segment *segment = make_varied(&file, batches);
    check_every_lookup(segment, batches);
    CHECK(file.largest_read <= 16384);
    check_every_fetch(segment, batches, true);
    ls_segment_free(segment);
    faulty_file_free(&file);
}

/* Index entries that lead anywhere but to their batch make look-ups slower, not wrong. */
static void test_wrong_index_entries_give_no_wrong_answer(void) {
    static looked_up batches[LOOKED_UP];
    faulty_file file;
    ls_fault fault;
    ls_segment *segment = make_varied(&file, batches);
    ls_offset_index *index = ls_segment_offset_index(segment);
    ls_time_index *time_index = ls_segment_time_index(segment);
    ls_offset_index_truncate(index, 0);
    ls_time_index_truncate(time_index, 0);
    const looked_up *latest = &batches[0];
    for (int i = 1; i < 60; i++) { /* right and wrong ones in turn */
        const looked_up *batch = &batches[i * 5];
        for (const looked_up *one = batch - 4; one <= batch; one++) {
            if (one->timestamp > latest->timestamp) latest = one;
        }
        int64_t offset = i % 3 == 0 ? batch->last_offset : batch->last_offset + 1;
        int64_t position = i % 3 == 1 ? batch->position : batch->position + i % 2;
        REQUIRE_INT(ls_offset_index_append(index, offset, (int32_t)position, &fault), LS_OK);
        ls_time_index_maybe_append(time_index, latest->timestamp + i % 2, latest->last_offset, 0, &fault);
    }
    check_every_lookup(segment, batches);
    check_every_fetch(segment, batches, false);
    ls_segment_free(segment);
    faulty_file_free(&file);
}

static void test_lookups_report_damage_by_position(void) {
    faulty_file file;
    ls_fault fault;
    ls_batch_location found;
    faulty_file_init(&file, NULL, 0);
    ls_segment *segment = make_segment(&file.file, &defaults);
    for (int i = 0; i < 20; i++) REQUIRE_INT(append(segment, BASE + i, 1, i, 200, &fault), LS_OK);
    file.bytes[200 * 3 + LS_BATCH_MAGIC_AT] = 9;
    CHECK_INT(ls_segment_locate(segment, BASE + 2, &found, &fault), LS_OK);
    CHECK_INT(ls_segment_locate(segment, BASE + 3, &found, &fault), LS_UNSUPPORTED);
    CHECK_INT(fault.position, 200 * 3 + LS_BATCH_MAGIC_AT);
    CHECK_INT(ls_segment_locate(segment, BASE + 19, &found, &fault),
              LS_OK); /* an index entry stands behind it */
    file.bytes[200 * 3 + LS_BATCH_MAGIC_AT] = LS_BATCH_MAGIC;
    file.bytes[200 * 3 + 7] = (uint8_t)(file.bytes[200 * 3 + 7] - 1); /* base offset as of the batch before */
    CHECK_INT(ls_segment_locate(segment, BASE + 4, &found, &fault), LS_CORRUPT);
    CHECK_INT(fault.position, 200 * 3);
    CHECK_INT(fault.expected, BASE + 3);
    file.bytes[200 * 3 + 7]++;
    file.size = 200 * 19 + 30; /* the file lost its end behind the segment's back */
    CHECK_INT(ls_segment_locate(segment, BASE + 19, &found, &fault), LS_TORN);
    CHECK_INT(fault.position, 200 * 19);
    file.size = 200 * 19;
    CHECK_INT(ls_segment_locate(segment, BASE + 19, &found, &fault), LS_TORN);
    faulty_file_fail(&file, 0, LS_IO, true, 0);
    CHECK_INT(ls_segment_locate(segment, BASE + 12, &found, &fault), LS_IO);
    CHECK_INT(ls_segment_find_timestamp(segment, 12, BASE, &found, &fault), LS_IO);
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
    RUN(test_locate_and_find_timestamp_agree_with_a_plain_search);
    RUN(test_wrong_index_entries_give_no_wrong_answer);
    RUN(test_lookups_report_damage_by_position);
    RUN(test_read_ends_at_the_published_size);
    return check_result();
}
