#include "logstore/segment.h"

#include <errno.h>

#include "made_segment.h"

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
        CHECK_INT(ls_segment_find_entry(segment, offset), plan.from_position);
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

static int batch_at(const looked_up *batches, int64_t position) {
    for (int i = 0; i < LOOKED_UP; i++)
        if (batches[i].position == position) return i;
    return -1;
}

static void test_cuts_are_where_batches_start(void) {
    static looked_up batches[LOOKED_UP];
    faulty_file file;
    ls_segment *segment = make_varied(&file, batches);
    int64_t end = ls_segment_size_bytes(segment);
    static const int64_t sizes[] = {0, 1, 3000, 10000, 100000, INT64_MAX - INT32_MAX};
    for (int i = 0; i < 6; i++) {
        int64_t position = 0;
        int64_t cut, last_offset;
        int cuts = 0;
        while (ls_segment_find_cut(segment, position, sizes[i], &cut, &last_offset)) {
            REQUIRE(cut > position && cut < end);
            int batch = batch_at(batches, cut);
            REQUIRE(batch > 0);
            CHECK_INT(last_offset, batches[batch].last_offset);
            int64_t farther, unused;
            /* The next one is too far, or there is none. */
            if (cut - position <= sizes[i] && ls_segment_find_cut(segment, cut, 0, &farther, &unused))
                CHECK(farther - position > sizes[i]);
            position = cut;
            cuts++;
        }
        CHECK(i == 5 ? cuts == 1 : cuts > 1);
    }
    CHECK(!ls_segment_find_cut(segment, end, 1000, &(int64_t){0}, &(int64_t){0}));
    ls_segment_free(segment);
    faulty_file_free(&file);
}

int main(void) {
    RUN(test_locate_and_find_timestamp_agree_with_a_plain_search);
    RUN(test_wrong_index_entries_give_no_wrong_answer);
    RUN(test_lookups_report_damage_by_position);
    RUN(test_cuts_are_where_batches_start);
    return check_result();
}
