#include <errno.h>

#include "check.h"
#include "faulty_file.h"
#include "logstore/bytes.h"
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

static void make_log(void) {
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

static ls_segment *open_segment(faulty_file *file) {
    ls_segment *segment = NULL;
    ls_fault fault;
    REQUIRE_INT(ls_segment_create(&file->file, &defaults, NULL, &segment, &fault), LS_OK);
    return segment;
}

static ls_recovery_report recover(ls_segment *segment, int64_t position, int64_t next_offset, int deep) {
    ls_recovery_report report;
    ls_fault fault;
    REQUIRE_INT(ls_segment_recover(segment, position, next_offset, deep, &report, &fault), LS_OK);
    ls_segment_state state;
    ls_segment_get_state(segment, &state);
    CHECK_INT(state.size_bytes, report.valid_bytes);
    CHECK_INT(state.next_offset, report.next_offset);
    return report;
}

static ls_recovery_report recover_bytes(const uint8_t *bytes, int64_t size) {
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

static void check_same_indexes(ls_segment *a, ls_segment *b) {
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

static void check_same_content(ls_segment *a, ls_segment *b) {
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

/* ---- sound files and torn tails ---------------------------------------------------------------- */

static void test_a_sound_file_is_taken_whole(void) {
    ls_recovery_report report = recover_bytes(NULL, 0);
    CHECK_INT(report.tail, LS_TAIL_NONE);
    CHECK_INT(report.next_offset, BASE);
    report = recover_bytes(log_bytes, positions[COUNT]);
    CHECK_INT(report.tail, LS_TAIL_NONE);
    CHECK_INT(report.valid_bytes, positions[COUNT]);
    CHECK_INT(report.next_offset, next_offsets[COUNT]);
    CHECK_INT(report.batches_count, COUNT);
    CHECK_INT(report.next_valid_position, -1);
}

static void test_every_cut_of_the_file_is_a_torn_tail(void) {
    int whole = 0;
    for (int64_t size = 0; size <= positions[5]; size++) {
        while (positions[whole + 1] <= size) whole++;
        ls_recovery_report report = recover_bytes(log_bytes, size);
        CHECK_INT(report.valid_bytes, positions[whole]);
        CHECK_INT(report.next_offset, next_offsets[whole]);
        CHECK_INT(report.tail, size == positions[whole] ? LS_TAIL_NONE : LS_TAIL_TORN);
        CHECK_INT(report.next_valid_position, -1);
    }
}

/* The length came to the disk before the data: zeros to the end, or in one sector before sound batches. */
static void test_zeros_where_data_should_be_are_torn(void) {
    static uint8_t bytes[LOG_BYTES_MAX];
    for (int64_t from = positions[3]; from < positions[5]; from += 13) {
        memset(bytes, 0, sizeof bytes);
        memcpy(bytes, log_bytes, (size_t)from);
        ls_recovery_report report = recover_bytes(bytes, positions[5] + 3000);
        int sound = from < positions[4] ? 3 : 4; /* a batch may end in zeros of its own, but ours do not */
        CHECK_INT(report.valid_bytes, positions[sound]);
        CHECK_INT(report.tail, LS_TAIL_TORN);
        CHECK_INT(report.next_valid_position, -1);
    }
    memcpy(bytes, log_bytes, sizeof bytes);
    int64_t sector = (positions[20] / 512 + 2) * 512; /* inside of the large batch */
    REQUIRE(sector + 512 < positions[21]);
    memset(bytes + sector, 0, 512);
    ls_recovery_report report = recover_bytes(bytes, positions[COUNT]);
    CHECK_INT(report.valid_bytes, positions[20]);
    CHECK_INT(report.tail, LS_TAIL_TORN);
    CHECK_INT(report.next_valid_position, positions[21]);
    bytes[sector + 100] = 1; /* a sector that was written */
    report = recover_bytes(bytes, positions[COUNT]);
    CHECK_INT(report.tail, LS_TAIL_CORRUPT);
    CHECK_INT(report.next_valid_position, positions[21]);
}

static void test_garbage_behind_the_end_is_torn(void) {
    static uint8_t bytes[LOG_BYTES_MAX];
    memcpy(bytes, log_bytes, sizeof bytes);
    uint32_t random = 99;
    for (int64_t i = positions[5]; i < LOG_BYTES_MAX; i++) {
        random = random * 1664525u + 1013904223u;
        bytes[i] = (uint8_t)(random >> 24);
    }
    for (int64_t size = positions[5] + 1; size < positions[5] + 4000; size += 97) {
        ls_recovery_report report = recover_bytes(bytes, size);
        CHECK_INT(report.valid_bytes, positions[5]);
        CHECK_INT(report.tail, LS_TAIL_TORN);
    }
}

/* ---- corruption ------------------------------------------------------------------------------ */

static void test_every_flipped_bit_in_the_middle_is_found(void) {
    static uint8_t bytes[LOG_BYTES_MAX];
    memcpy(bytes, log_bytes, sizeof bytes);
    enum { DAMAGED = 12 };
    int64_t start = positions[DAMAGED];
    for (int64_t at = start; at < positions[DAMAGED + 1]; at++) {
        for (int bit = 0; bit < 8; bit++) {
            bytes[at] ^= (uint8_t)(1 << bit);
            ls_recovery_report report = recover_bytes(bytes, positions[COUNT]);
            bytes[at] ^= (uint8_t)(1 << bit);
            int64_t field = at - start;
            if (field < LS_BATCH_LENGTH_AT) {
                /* A base offset may have gone up and still fit: then the next batch is out of order, or none
                 * is. */
                bool is_found =
                    report.tail == LS_TAIL_CORRUPT && report.valid_bytes <= positions[DAMAGED + 1];
                CHECK(is_found || (report.tail == LS_TAIL_NONE && field == 7));
            } else if (field < LS_BATCH_LEADER_EPOCH_AT) {
                /* A length past the end of the file looks like a torn tail; that sound batches follow is
                 * said. */
                CHECK_INT(report.valid_bytes, start);
                CHECK(report.tail != LS_TAIL_NONE);
                CHECK_INT(report.next_valid_position, positions[DAMAGED + 1]);
            } else if (field < LS_BATCH_MAGIC_AT) {
                /* An epoch that went up is found by the first batch of a lower one; the sign bit makes it
                 * unknown. */
                bool is_hidden = field == LS_BATCH_LEADER_EPOCH_AT && bit == 7;
                bool is_next = report.tail == LS_TAIL_CORRUPT && report.valid_bytes <= positions[DAMAGED + 1];
                CHECK(is_next || is_hidden);
            } else {
                CHECK_INT(report.valid_bytes, start);
                CHECK_INT(report.tail, LS_TAIL_CORRUPT);
                CHECK_INT(report.next_valid_position, positions[DAMAGED + 1]);
                CHECK_INT(report.next_offset, next_offsets[DAMAGED]);
                CHECK(report.tail_fault.position >= start && report.tail_fault.position < start + 61);
            }
        }
    }
}

static void test_what_no_unfinished_write_leaves_is_corrupt(void) {
    static uint8_t bytes[LOG_BYTES_MAX];
    memcpy(bytes, log_bytes, sizeof bytes);
    uint8_t *last = bytes + positions[9];

    /* A batch with all its bytes, at the wrong place. */
    ls_store_i64(last, next_offsets[9] - 1);
    ls_recovery_report report = recover_bytes(bytes, positions[10]);
    CHECK_INT(report.valid_bytes, positions[9]);
    CHECK_INT(report.tail, LS_TAIL_CORRUPT);
    CHECK_INT(report.tail_fault.status, LS_CORRUPT);
    CHECK_INT(report.next_valid_position, -1);
    ls_store_i64(last, BASE + (int64_t)INT32_MAX + 1);
    CHECK_INT(recover_bytes(bytes, positions[10]).tail, LS_TAIL_CORRUPT);
    memcpy(bytes, log_bytes, sizeof bytes);

    /* Another format's entry, whole; an unlikely one, and one that is cut off, are garbage. */
    for (int magic = 0; magic < 5; magic++) {
        if (magic == LS_BATCH_MAGIC) continue;
        last[LS_BATCH_MAGIC_AT] = (uint8_t)magic;
        report = recover_bytes(bytes, positions[10]);
        CHECK_INT(report.valid_bytes, positions[9]);
        CHECK_INT(report.tail_fault.status, LS_UNSUPPORTED);
        CHECK_INT(report.tail, magic < 4 ? LS_TAIL_CORRUPT : LS_TAIL_TORN);
        CHECK_INT(recover_bytes(bytes, positions[10] - 1).tail, LS_TAIL_TORN);
        CHECK_INT(recover_bytes(bytes, positions[COUNT]).tail, LS_TAIL_CORRUPT);
        last[LS_BATCH_MAGIC_AT] = LS_BATCH_MAGIC;
    }

    /* A wrong CRC at the very end is an unfinished write, with sound batches behind it damage. */
    last[70] ^= 1;
    CHECK_INT(recover_bytes(bytes, positions[10]).tail, LS_TAIL_TORN);
    CHECK_INT(recover_bytes(bytes, positions[11]).tail, LS_TAIL_CORRUPT);
    CHECK_INT(recover_bytes(bytes, positions[11] - 1).tail, LS_TAIL_TORN);
}

static void test_a_malformed_control_batch_is_corrupt(void) {
    uint8_t batch[80];
    made_batch made = {BASE, 1, 0, 0, sizeof batch};
    ls_batch_header header = make_batch(&made, batch);
    header.attributes = LS_ATTRIBUTE_CONTROL;
    ls_batch_header_write(&header, batch);
    header.crc = ls_batch_crc(batch, sizeof batch);
    ls_batch_header_write(&header, batch);
    ls_recovery_report report = recover_bytes(batch, sizeof batch);
    CHECK_INT(report.valid_bytes, 0);
    CHECK_INT(report.tail, LS_TAIL_CORRUPT);
}

/* Batches larger than the buffer are checked piece by piece; a length that is a lie costs no memory. */
static void test_memory_does_not_follow_declared_lengths(void) {
    enum { LARGE = 3500000, TOTAL = 500 + LARGE + 300 };
    uint8_t *bytes = malloc(TOTAL);
    REQUIRE(bytes != NULL);
    make_batch(&(made_batch){BASE, 1, 1, 0, 500}, bytes);
    make_batch(&(made_batch){BASE + 1, 9, 3, 0, LARGE}, bytes + 500);
    make_batch(&(made_batch){BASE + 10, 1, 2, 0, 300}, bytes + 500 + LARGE);
    faulty_file file;
    faulty_file_init(&file, bytes, TOTAL);
    ls_segment *segment = open_segment(&file);
    ls_recovery_report report = recover(segment, 0, BASE, 1);
    CHECK_INT(report.tail, LS_TAIL_NONE);
    CHECK_INT(report.batches_count, 3);
    CHECK(file.largest_read <= 1 << 20);
    CHECK(file.bytes_read < TOTAL + 1000); /* read once */
    ls_segment_free(segment);
    faulty_file_reopen(&file);
    segment = open_segment(&file);
    CHECK_INT(recover(segment, 0, BASE, 0).batches_count, 3);
    ls_segment_free(segment);
    faulty_file_free(&file);

    bytes[500 + LARGE - 1] ^= 4;
    report = recover_bytes(bytes, TOTAL);
    CHECK_INT(report.valid_bytes, 500);
    CHECK_INT(report.tail, LS_TAIL_CORRUPT);
    CHECK_INT(report.next_valid_position, 500 + LARGE);
    ls_store_i32(bytes + 500 + LS_BATCH_LENGTH_AT, INT32_MAX);
    report = recover_bytes(bytes, TOTAL);
    CHECK_INT(report.valid_bytes, 500);
    CHECK_INT(report.tail, LS_TAIL_TORN);

    /* Nothing but plausible headers: the search gives up before the time is gone, and cuts nothing. */
    for (size_t at = 0; at + LS_BATCH_HEADER_BYTES < TOTAL; at += LS_BATCH_HEADER_BYTES) {
        make_batch(&(made_batch){BASE, 1, 1, 0, LS_BATCH_HEADER_BYTES}, bytes + at);
        ls_store_i32(bytes + at + LS_BATCH_LENGTH_AT, at == 0 ? 100 : (int32_t)(TOTAL - at - 12));
    }
    report = recover_bytes(bytes, TOTAL);
    CHECK_INT(report.tail, LS_TAIL_CORRUPT);
    CHECK_INT(report.next_valid_position, -1);
    free(bytes);
}

static void test_structure_alone_is_checked_when_not_deep(void) {
    static uint8_t bytes[LOG_BYTES_MAX];
    memcpy(bytes, log_bytes, sizeof bytes);
    bytes[positions[7] + 80] ^= 1;
    faulty_file file;
    faulty_file_init(&file, bytes, (size_t)positions[COUNT]);
    ls_segment *segment = open_segment(&file);
    CHECK_INT(recover(segment, 0, BASE, 0).tail, LS_TAIL_NONE);
    CHECK_INT(recover(segment, 0, BASE, 1).tail, LS_TAIL_CORRUPT);
    file.bytes[positions[8] + LS_BATCH_LAST_OFFSET_DELTA_AT] = 0xff;
    ls_recovery_report report = recover(segment, 0, BASE, 0);
    CHECK_INT(report.valid_bytes, positions[8]);
    CHECK_INT(report.tail, LS_TAIL_CORRUPT);
    ls_segment_free(segment);
    faulty_file_free(&file);
}

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
        REQUIRE_INT(ls_segment_catch_up(segment, &grew, &fault), LS_OK);
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

int main(void) {
    make_log();
    RUN(test_a_sound_file_is_taken_whole);
    RUN(test_every_cut_of_the_file_is_a_torn_tail);
    RUN(test_zeros_where_data_should_be_are_torn);
    RUN(test_garbage_behind_the_end_is_torn);
    RUN(test_every_flipped_bit_in_the_middle_is_found);
    RUN(test_what_no_unfinished_write_leaves_is_corrupt);
    RUN(test_a_malformed_control_batch_is_corrupt);
    RUN(test_memory_does_not_follow_declared_lengths);
    RUN(test_structure_alone_is_checked_when_not_deep);
    RUN(test_recovery_from_anywhere_gives_the_same_indexes);
    RUN(test_truncation_leaves_what_recovery_would_find);
    RUN(test_catching_up_takes_only_whole_batches);
    RUN(test_each_failing_call_is_reported_and_survived);
    return check_result();
}
