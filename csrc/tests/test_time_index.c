#include "logstore/time_index.h"

#include "check.h"
#include "logstore/bytes.h"

enum { BASE = 1000 };

static ls_time_index *make_index(int64_t base_offset, size_t capacity) {
    ls_time_index *index = NULL;
    ls_fault fault;
    REQUIRE_INT(ls_time_index_create(base_offset, capacity, &index, &fault), LS_OK);
    return index;
}

static void check_lookup(const ls_time_index *index, int64_t target, int64_t timestamp, int64_t offset) {
    int64_t found_timestamp = -2;
    int64_t found_offset = -2;
    ls_time_index_lookup(index, target, &found_timestamp, &found_offset);
    CHECK_CASE(found_timestamp == timestamp && found_offset == offset,
               "lookup of %lld is (%lld, %lld), expected (%lld, %lld)", (long long)target,
               (long long)found_timestamp, (long long)found_offset, (long long)timestamp, (long long)offset);
}

static void test_lookup_finds_the_floor(void) {
    ls_fault fault;
    ls_time_index *index = make_index(BASE, 402);
    check_lookup(index, INT64_MAX, -1, BASE);
    for (int i = 0; i < 400; i++) {
        REQUIRE_INT(ls_time_index_maybe_append(index, 5 * i, BASE + i / 2, 0, &fault), LS_OK);
        check_lookup(index, INT64_MAX, 5 * i, BASE + i / 2);
    }
    CHECK_INT(ls_time_index_count(index), 400);
    check_lookup(index, -1, -1, BASE);
    for (int target = 0; target < 2010; target++) {
        int floor = target / 5 < 399 ? target / 5 : 399;
        check_lookup(index, target, 5 * floor, BASE + floor / 2);
    }
    ls_time_index_free(index);
    ls_time_index_free(NULL);
}

static void test_maybe_append_keeps_the_order(void) {
    ls_fault fault;
    ls_time_index *index = make_index(BASE, 4);
    CHECK_INT(ls_time_index_maybe_append(index, -1, BASE, 0, &fault), LS_OK);
    CHECK_INT(ls_time_index_count(index), 0);
    CHECK_INT(ls_time_index_maybe_append(index, 10, BASE - 1, 0, &fault), LS_INVALID_ARGUMENT);
    CHECK_INT(ls_time_index_maybe_append(index, 10, BASE + (int64_t)INT32_MAX + 1, 0, &fault),
              LS_INVALID_ARGUMENT);
    CHECK_INT(ls_time_index_maybe_append(index, 10, BASE + 5, 0, &fault), LS_OK);
    CHECK_INT(ls_time_index_maybe_append(index, 10, BASE + 7, 0, &fault), LS_OK); /* equal: nothing to say */
    CHECK_INT(ls_time_index_count(index), 1);
    check_lookup(index, 10, 10, BASE + 5);
    CHECK_INT(ls_time_index_maybe_append(index, 9, BASE + 7, 0, &fault), LS_INVALID_ARGUMENT);
    CHECK_INT(ls_time_index_maybe_append(index, 11, BASE + 4, 0, &fault), LS_INVALID_ARGUMENT);
    CHECK_INT(ls_time_index_maybe_append(index, 11, BASE + 5, 0, &fault), LS_OK);
    CHECK_INT(ls_time_index_count(index), 2);
    ls_time_index_free(index);
}

static void test_one_slot_is_kept_for_the_closing_entry(void) {
    ls_fault fault;
    ls_time_index *index = make_index(BASE, 3);
    CHECK_INT(ls_time_index_maybe_append(index, 1, BASE, 0, &fault), LS_OK);
    CHECK(!ls_time_index_is_full(index));
    CHECK_INT(ls_time_index_maybe_append(index, 2, BASE, 0, &fault), LS_OK);
    CHECK(ls_time_index_is_full(index));
    CHECK_INT(ls_time_index_maybe_append(index, 3, BASE, 0, &fault), LS_FULL);
    CHECK_INT(ls_time_index_maybe_append(index, 2, BASE, 0, &fault), LS_OK);
    CHECK_INT(ls_time_index_maybe_append(index, 3, BASE, 1, &fault), LS_OK);
    CHECK_INT(ls_time_index_count(index), 3);
    CHECK_INT(ls_time_index_maybe_append(index, 4, BASE, 1, &fault), LS_FULL);
    CHECK_INT(ls_time_index_count(index), 3);
    ls_time_index_free(index);

    for (size_t capacity = 0; capacity < 2; capacity++) {
        index = make_index(BASE, capacity);
        CHECK(ls_time_index_is_full(index));
        CHECK_INT(ls_time_index_maybe_append(index, 1, BASE, 0, &fault), LS_FULL);
        CHECK_INT(ls_time_index_maybe_append(index, 1, BASE, 1, &fault), capacity == 0 ? LS_FULL : LS_OK);
        ls_time_index_free(index);
    }
    CHECK_INT(ls_time_index_create(-1, 1, &index, &fault), LS_INVALID_ARGUMENT);
    CHECK_INT(ls_time_index_create(0, SIZE_MAX, &index, &fault), LS_INVALID_ARGUMENT);
}

static void test_truncate_drops_from_the_offset_on(void) {
    ls_fault fault;
    for (int target = -3; target < 310; target += 5) {
        ls_time_index *index = make_index(BASE, 400);
        for (int i = 0; i < 300; i++)
            REQUIRE_INT(ls_time_index_maybe_append(index, i, BASE + i, 0, &fault), LS_OK);
        ls_time_index_truncate(index, BASE + target);
        int kept = target < 0 ? 0 : target < 300 ? target : 300;
        CHECK_INT(ls_time_index_count(index), kept);
        CHECK_INT(ls_time_index_maybe_append(index, 5000, BASE + 5000, 0, &fault), LS_OK);
        check_lookup(index, 5000, 5000, BASE + 5000);
        ls_time_index_free(index);
    }
}

static void test_encode_and_load_are_inverse(void) {
    ls_fault fault;
    enum { ENTRIES = 300 };
    static uint8_t bytes[ENTRIES * LS_TIME_INDEX_ENTRY_BYTES];
    static uint8_t again[ENTRIES * LS_TIME_INDEX_ENTRY_BYTES];
    const int64_t start = 1700000000000;
    ls_time_index *index = make_index(BASE, ENTRIES + 1);
    for (int i = 0; i < ENTRIES; i++) {
        REQUIRE_INT(ls_time_index_maybe_append(index, start + i, BASE + 70000 * i, 0, &fault), LS_OK);
    }
    ls_time_index_encode(index, 0, ENTRIES, bytes);
    CHECK_INT(ls_load_i64(bytes + 12), start + 1);
    CHECK_INT(ls_load_i32(bytes + 20), 70000);
    ls_time_index_encode(index, 299, 1, again);
    CHECK_BYTES(again, bytes + 299 * 12, 12);

    ls_time_index *loaded = make_index(BASE, ENTRIES);
    CHECK_INT(ls_time_index_load(loaded, bytes, sizeof bytes, BASE + 70000 * 299 + 1, &fault), LS_OK);
    CHECK_INT(ls_time_index_count(loaded), ENTRIES);
    ls_time_index_encode(loaded, 0, ENTRIES, again);
    CHECK_BYTES(again, bytes, sizeof bytes);
    CHECK_INT(ls_time_index_load(loaded, NULL, 0, BASE, &fault), LS_OK);
    CHECK_INT(ls_time_index_count(loaded), 0);
    ls_time_index_free(loaded);
    loaded = make_index(BASE, ENTRIES - 1);
    CHECK_INT(ls_time_index_load(loaded, bytes, sizeof bytes, INT64_MAX, &fault), LS_FULL);
    ls_time_index_free(loaded);
    ls_time_index_free(index);
}

static void check_refused(const int64_t (*entries)[2], size_t count, size_t size, int64_t end_offset,
                          const char *what) {
    ls_fault fault;
    uint8_t bytes[64];
    for (size_t i = 0; i < count; i++) {
        ls_store_i64(bytes + 12 * i, entries[i][0]);
        ls_store_i32(bytes + 12 * i + 8, (int32_t)entries[i][1]);
    }
    ls_time_index *index = make_index(BASE, 8);
    REQUIRE_INT(ls_time_index_maybe_append(index, 1, BASE, 0, &fault), LS_OK);
    CHECK_CASE(ls_time_index_load(index, bytes, size, end_offset, &fault) == LS_CORRUPT, "%s", what);
    CHECK_CASE(ls_time_index_count(index) == 0, "%s leaves entries", what);
    ls_time_index_free(index);
}

static void test_load_refuses_a_damaged_file(void) {
    check_refused((const int64_t[][2]){{1, 1}}, 1, 11, BASE + 9, "size");
    check_refused((const int64_t[][2]){{5, 1}, {5, 2}}, 2, 24, BASE + 9, "equal timestamps");
    check_refused((const int64_t[][2]){{5, 1}, {4, 2}}, 2, 24, BASE + 9, "falling timestamps");
    check_refused((const int64_t[][2]){{-1, 1}}, 1, 12, BASE + 9, "negative timestamp");
    check_refused((const int64_t[][2]){{5, 2}, {6, 1}}, 2, 24, BASE + 9, "falling offsets");
    check_refused((const int64_t[][2]){{5, -1}}, 1, 12, BASE + 9, "offset below the base");
    check_refused((const int64_t[][2]){{5, 9}}, 1, 12, BASE + 9, "offset behind the log");
    check_refused((const int64_t[][2]){{5, 0}}, 1, 12, INT64_MIN, "end below the base");
    check_refused((const int64_t[][2]){{5, 1}, {0, 0}}, 2, 24, BASE + 9, "padding");
}

int main(void) {
    RUN(test_lookup_finds_the_floor);
    RUN(test_maybe_append_keeps_the_order);
    RUN(test_one_slot_is_kept_for_the_closing_entry);
    RUN(test_truncate_drops_from_the_offset_on);
    RUN(test_encode_and_load_are_inverse);
    RUN(test_load_refuses_a_damaged_file);
    return check_result();
}
