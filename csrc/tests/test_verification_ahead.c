#include "scratch_folder.h"

#include <fcntl.h>

#include "logstore/bytes.h"
#include "logstore/verification.h"
#include "made_batch.h"

/* Some MiB of batches of sizes from a header's to above a piece's, with an index entry for each that begins 4096
 * bytes or more behind the last: checking with a second thread gives what checking without does. */
enum { BASE = 1000, LOG_BYTES = 5 << 20, ENTRIES_MAX = 2000, LARGE_EVERY = 700 };

static uint8_t *log_bytes;
static int64_t log_end;
static int32_t batches_count;
static int64_t some_positions[ENTRIES_MAX]; /* of batches, one an entry */
static uint8_t offset_index[8 * ENTRIES_MAX];
static size_t entries;

static void make_log(void) {
    log_bytes = malloc((size_t)LOG_BYTES + (1 << 20));
    REQUIRE(log_bytes != NULL);
    int64_t last_entry = 0;
    for (int32_t i = 0; log_end < LOG_BYTES; i++, batches_count++) {
        size_t size = i % LARGE_EVERY == LARGE_EVERY - 1 ? 300000 : 61 + (size_t)(i % 97) * 37;
        if (log_end - last_entry >= 4096) {
            some_positions[entries] = log_end;
            ls_store_i32(offset_index + 8 * entries, 2 * i + 1);
            ls_store_i32(offset_index + 8 * entries++ + 4, (int32_t)log_end);
            last_entry = log_end;
        }
        made_batch made = {BASE + 2 * i, 2, 100 + i, i / 1000, size};
        make_batch(&made, log_bytes + log_end);
        log_end += (int64_t)size;
        REQUIRE(entries < ENTRIES_MAX);
    }
}

static void write_log(void) {
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    REQUIRE(file >= 0);
    for (int64_t at = 0; at < log_end;) {
        ssize_t written = write(file, log_bytes + at, (size_t)(log_end - at));
        REQUIRE(written > 0);
        at += written;
    }
    close(file);
}

typedef struct outcome {
    ls_status status;
    ls_fault fault;
    ls_verification at;
} outcome;

static outcome verify(size_t index_entries, int64_t limit, int64_t budget, bool with_ahead) {
    outcome found;
    memset(&found, 0, sizeof found);
    ls_file *file;
    ls_segment *segment;
    ls_segment_options options = {.base_offset = BASE,
                                  .end_offset_max = INT64_MAX,
                                  .index_interval_bytes = 4096,
                                  .offset_index_capacity = 1,
                                  .time_index_capacity = 1,
                                  .is_contiguous = 1};
    REQUIRE(ls_file_open(path, LS_FILE_READ, &file, &found.fault) == LS_OK);
    REQUIRE(ls_segment_create(file, &options, NULL, &segment, &found.fault) == LS_OK);
    ls_verification_init(&found.at, BASE, offset_index, 8 * index_entries, NULL, 0);
    if (with_ahead) found.at.ahead = ls_verification_ahead_create(segment);
    do found.status = ls_segment_verify(segment, &found.at, limit, budget, 1, &found.fault);
    while (found.status == LS_OK);
    ls_verification_ahead_free(found.at.ahead);
    ls_segment_free(segment);
    return found;
}

static void check_same(const outcome *one, const outcome *other) {
    CHECK_INT(one->status, other->status);
    if (one->status != LS_END) {
        CHECK_TEXT(one->fault.reason, other->fault.reason);
        CHECK_INT(one->fault.position, other->fault.position);
        CHECK_INT(one->fault.expected, other->fault.expected);
        CHECK_INT(one->fault.actual, other->fault.actual);
    }
    CHECK_INT(one->at.position, other->at.position);
    CHECK_INT(one->at.next_offset, other->at.next_offset);
    CHECK_INT(one->at.leader_epoch, other->at.leader_epoch);
    CHECK_INT(one->at.batches_count, other->at.batches_count);
    CHECK_INT(one->at.records_count, other->at.records_count);
    CHECK_INT(one->at.max_timestamp, other->at.max_timestamp);
    CHECK_INT(one->at.max_timestamp_offset, other->at.max_timestamp_offset);
    CHECK(one->at.digest.high == other->at.digest.high && one->at.digest.low == other->at.digest.low);
    CHECK_INT(one->at.offset_index.next, other->at.offset_index.next);
    CHECK((one->at.offset_index.fault == NULL) == (other->at.offset_index.fault == NULL));
}

static outcome check_both(int64_t limit, int64_t budget) {
    outcome alone = verify(entries, limit, budget, false);
    outcome ahead = verify(entries, limit, budget, true);
    check_same(&ahead, &alone);
    return ahead;
}

static void test_a_sound_log(void) {
    write_log();
    static const int64_t budgets[] = {INT64_MAX, 1 << 20, 600000, 1000};
    for (int i = 0; i < 4; i++) {
        outcome found = check_both(log_end, budgets[i]);
        CHECK_INT(found.status, LS_END);
        CHECK_INT(found.at.batches_count, batches_count);
        CHECK_INT(found.at.records_count, 2 * batches_count);
    }
    /* Up to anywhere, also inside of a batch. */
    for (int64_t limit = log_end - 3000; limit < log_end; limit += 331) check_both(limit, INT64_MAX);
}

static uint32_t random_state = 7;
static uint32_t random_below(uint32_t bound) {
    random_state = random_state * 1664525u + 1013904223u;
    return (random_state >> 8) % bound;
}

static void test_damage_is_the_same(void) {
    int damaged_count = 0;
    for (int round = 0; round < 60; round++) {
        /* Anywhere, or in a header: every field of one. */
        int64_t at = round % 2 == 0 ? (int64_t)random_below((uint32_t)log_end)
                                    : some_positions[random_below((uint32_t)entries)] + round / 2 * 2;
        uint8_t before = log_bytes[at];
        log_bytes[at] ^= (uint8_t)(1u << random_below(8));
        write_log();
        outcome found = check_both(log_end, round % 3 == 0 ? 1 << 20 : INT64_MAX);
        damaged_count += found.status != LS_END;
        log_bytes[at] = before;
    }
    CHECK(damaged_count > 50); /* some fields may have other values */
}

static void test_a_damaged_index_only_costs_time(void) {
    write_log();
    for (int round = 0; round < 40; round++) {
        size_t at = round < 8 ? 4 + (size_t)round : random_below((uint32_t)(8 * entries));
        uint8_t before = offset_index[at];
        offset_index[at] ^= (uint8_t)(1u << random_below(8));
        CHECK_INT(check_both(log_end, INT64_MAX).status, LS_END);
        offset_index[at] = before;
    }
    static uint8_t kept[sizeof offset_index];
    memcpy(kept, offset_index, sizeof kept);
    for (size_t i = 0; i < sizeof offset_index; i++) offset_index[i] = (uint8_t)random_below(256);
    CHECK_INT(check_both(log_end, INT64_MAX).status, LS_END);
    memset(offset_index, 0xff, sizeof offset_index);
    CHECK_INT(check_both(log_end, INT64_MAX).status, LS_END);
    memcpy(offset_index, kept, sizeof kept);
}

static void test_it_goes_on_behind_damage(void) {
    int64_t at = some_positions[entries / 3] + 70;
    log_bytes[at] ^= 1;
    write_log();
    for (int with_ahead = 0; with_ahead < 2; with_ahead++) {
        ls_fault fault;
        ls_file *file;
        ls_segment *segment;
        ls_segment_options options = {.base_offset = BASE, .end_offset_max = INT64_MAX, .index_interval_bytes = 4096};
        options.offset_index_capacity = options.time_index_capacity = 1;
        REQUIRE(ls_file_open(path, LS_FILE_READ, &file, &fault) == LS_OK);
        REQUIRE(ls_segment_create(file, &options, NULL, &segment, &fault) == LS_OK);
        ls_verification found;
        ls_verification_init(&found, BASE, offset_index, 8 * entries, NULL, 0);
        if (with_ahead) found.ahead = ls_verification_ahead_create(segment);
        CHECK_INT(ls_segment_verify(segment, &found, log_end, INT64_MAX, 1, &fault), LS_CORRUPT);
        CHECK_TEXT(fault.reason, "CRC does not match");
        int32_t size = ls_load_i32(log_bytes + found.position + LS_BATCH_LENGTH_AT) + LS_BATCH_OVERHEAD_BYTES;
        ls_verification_skip(&found, found.position + size, found.next_offset + 2, found.leader_epoch, 1);
        CHECK_INT(ls_segment_verify(segment, &found, log_end, INT64_MAX, 1, &fault), LS_END);
        CHECK_INT(found.batches_count, batches_count - 1);
        ls_verification_finish(&found);
        CHECK(found.offset_index.fault == NULL);
        ls_verification_ahead_free(found.ahead);
        ls_segment_free(segment);
    }
    log_bytes[at] ^= 1;
}

int main(void) {
    make_folder();
    make_log();
    RUN(test_a_sound_log);
    RUN(test_damage_is_the_same);
    RUN(test_a_damaged_index_only_costs_time);
    RUN(test_it_goes_on_behind_damage);
    remove_folder();
    free(log_bytes);
    return check_result();
}
