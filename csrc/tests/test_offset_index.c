#include "logstore/offset_index.h"

#include "check.h"
#include "index_chunks.h"
#include "logstore/bytes.h"

enum { BASE = 1000 };

static ls_offset_index *make_index(int64_t base_offset, size_t capacity) {
    ls_offset_index *index = NULL;
    ls_fault fault;
    REQUIRE_INT(ls_offset_index_create(base_offset, capacity, &index, &fault), LS_OK);
    return index;
}

static void check_lookup(const ls_offset_index *index, int64_t target, int64_t offset, int32_t position) {
    int64_t found_offset = -2;
    int32_t found_position = -2;
    ls_offset_index_lookup(index, target, &found_offset, &found_position);
    CHECK_CASE(found_offset == offset && found_position == position,
               "lookup of %lld is (%lld, %d), expected (%lld, %d)", (long long)target,
               (long long)found_offset, found_position, (long long)offset, position);
}

static void test_lookup_without_entries_is_the_base(void) {
    ls_offset_index *index = make_index(BASE, 4);
    check_lookup(index, INT64_MIN, BASE, 0);
    check_lookup(index, BASE, BASE, 0);
    check_lookup(index, INT64_MAX, BASE, 0);
    ls_offset_index_free(index);
    ls_offset_index_free(NULL);
}

/* Entry i has offset BASE + 3 i + 2 and position 10 i + 5; every size crosses the chunks' edges somewhere. */
static void test_lookup_finds_the_floor_at_every_size(void) {
    ls_fault fault;
    enum { ENTRIES = 1100 };
    ls_offset_index *index = make_index(BASE, ENTRIES);
    for (int i = 0; i < ENTRIES; i++) {
        REQUIRE_INT(ls_offset_index_append(index, BASE + 3 * i + 2, 10 * i + 5, &fault), LS_OK);
        CHECK_INT(ls_offset_index_count(index), i + 1);
        bool is_edge = i < 3 || (i & (i - 1)) == 0 || (i & (i + 1)) == 0;
        if (!is_edge && i != ENTRIES - 1) continue;
        for (int distance = -1; distance < 3 * i + 6; distance++) {
            int floor = distance < 2 ? -1 : (distance - 2) / 3;
            if (floor > i) floor = i;
            if (floor < 0) check_lookup(index, BASE + distance, BASE, 0);
            else check_lookup(index, BASE + distance, BASE + 3 * floor + 2, 10 * floor + 5);
        }
    }
    CHECK(ls_offset_index_is_full(index));
    check_lookup(index, INT64_MAX, BASE + 3 * (ENTRIES - 1) + 2, 10 * (ENTRIES - 1) + 5);
    ls_offset_index_free(index);
}

/* A guess from the first and the last entry is wrong by more and more, or by one entry that is far off. */
static void test_lookup_where_offsets_rise_unevenly(void) {
    ls_fault fault;
    enum { ENTRIES = 300 };
    for (int kind = 0; kind < 3; kind++) {
        static int64_t offsets[ENTRIES];
        ls_offset_index *index = make_index(BASE, ENTRIES);
        for (int64_t i = 0; i < ENTRIES; i++) {
            offsets[i] = BASE + (kind == 0 ? i * i : kind == 1 ? i + (i == ENTRIES - 1) * INT64_C(1000000000) : i + (i > 0) * 70000);
            REQUIRE_INT(ls_offset_index_append(index, offsets[i], (int32_t)(10 * i + 5), &fault), LS_OK);
        }
        for (int i = 0; i < ENTRIES; i++) {
            check_lookup(index, offsets[i], offsets[i], 10 * i + 5);
            if (i > 0) check_lookup(index, offsets[i] - 1, offsets[i - 1], 10 * i - 5);
        }
        ls_offset_index_free(index);
    }
}

/* Entries of bytes that a reader may not see yet are passed over. */
static void test_lookup_below_a_position(void) {
    ls_fault fault;
    ls_offset_index *index = make_index(BASE, 300);
    for (int i = 0; i < 300; i++)
        REQUIRE_INT(ls_offset_index_append(index, BASE + i, 10 * i + 5, &fault), LS_OK);
    for (int limit = 0; limit < 3010; limit += 3) {
        for (int target = 0; target < 300; target += 23) {
            int floor = limit < 6 ? -1 : (limit - 6) / 10;
            if (floor > target) floor = target;
            int64_t offset;
            int32_t position;
            ls_offset_index_lookup_below(index, BASE + target, limit, &offset, &position);
            CHECK_INT(offset, floor < 0 ? BASE : BASE + floor);
            CHECK_INT(position, floor < 0 ? 0 : 10 * floor + 5);
        }
    }
    ls_offset_index_free(index);
}

static void test_append_refuses_what_breaks_the_order(void) {
    ls_fault fault;
    ls_offset_index *index = make_index(BASE, 3);
    CHECK_INT(ls_offset_index_append(index, BASE - 1, 0, &fault), LS_INVALID_ARGUMENT);
    CHECK_INT(ls_offset_index_append(index, BASE + (int64_t)INT32_MAX + 1, 0, &fault), LS_INVALID_ARGUMENT);
    CHECK_INT(ls_offset_index_append(index, BASE, -1, &fault), LS_INVALID_ARGUMENT);
    CHECK_INT(ls_offset_index_append(index, BASE + 5, 50, &fault), LS_OK);
    CHECK_INT(ls_offset_index_append(index, BASE + 5, 60, &fault), LS_INVALID_ARGUMENT);
    CHECK_INT(fault.expected, BASE + 5);
    CHECK_INT(fault.actual, BASE + 5);
    CHECK_INT(ls_offset_index_append(index, BASE + 6, 50, &fault), LS_INVALID_ARGUMENT);
    CHECK_INT(ls_offset_index_append(index, BASE + 6, 51, &fault), LS_OK);
    CHECK(!ls_offset_index_is_full(index));
    CHECK_INT(ls_offset_index_append(index, BASE + (int64_t)INT32_MAX, INT32_MAX, &fault), LS_OK);
    CHECK(ls_offset_index_is_full(index));
    check_lookup(index, INT64_MAX, BASE + (int64_t)INT32_MAX, INT32_MAX);
    CHECK_INT(ls_offset_index_count(index), 3);
    ls_offset_index_free(index);

    index = make_index(BASE, 1);
    CHECK_INT(ls_offset_index_append(index, BASE, 1, &fault), LS_OK);
    CHECK_INT(ls_offset_index_append(index, BASE + 1, 2, &fault), LS_FULL);
    ls_offset_index_free(index);
    index = make_index(BASE, 0);
    CHECK(ls_offset_index_is_full(index));
    CHECK_INT(ls_offset_index_append(index, BASE, 1, &fault), LS_FULL);
    ls_offset_index_free(index);

    CHECK_INT(ls_offset_index_create(-1, 1, &index, &fault), LS_INVALID_ARGUMENT);
    CHECK_INT(ls_offset_index_create(0, SIZE_MAX, &index, &fault), LS_INVALID_ARGUMENT);
}

static void test_truncate_drops_from_the_target_on(void) {
    ls_fault fault;
    for (int target = -2; target < 620; target += 7) {
        ls_offset_index *index = make_index(BASE, 400);
        for (int i = 0; i < 300; i++)
            REQUIRE_INT(ls_offset_index_append(index, BASE + 2 * i, 3 * i, &fault), LS_OK);
        ls_offset_index_truncate(index, BASE + target);
        int kept = target <= 0 ? 0 : target > 600 ? 300 : (target + 1) / 2;
        CHECK_INT(ls_offset_index_count(index), kept);
        /* What was dropped can be replaced. */
        CHECK_INT(ls_offset_index_append(index, BASE + 5000, 5000, &fault), LS_OK);
        check_lookup(index, BASE + 5000, BASE + 5000, 5000);
        ls_offset_index_truncate_position(index, 5000);
        CHECK_INT(ls_offset_index_count(index), kept);
        ls_offset_index_truncate_position(index, target < 0 ? 0 : target);
        int below = target <= 0 ? 0 : (target + 2) / 3;
        CHECK_INT(ls_offset_index_count(index), below < kept ? below : kept);
        ls_offset_index_truncate(index, INT64_MIN);
        CHECK_INT(ls_offset_index_count(index), 0);
        ls_offset_index_free(index);
    }
}

static void test_encode_and_load_are_inverse(void) {
    ls_fault fault;
    enum { ENTRIES = 300 };
    static uint8_t bytes[ENTRIES * LS_OFFSET_INDEX_ENTRY_BYTES];
    static uint8_t again[ENTRIES * LS_OFFSET_INDEX_ENTRY_BYTES];
    ls_offset_index *index = make_index(BASE, ENTRIES);
    for (int i = 0; i < ENTRIES; i++) {
        REQUIRE_INT(ls_offset_index_append(index, BASE + 70000 * i, 4100 * i, &fault), LS_OK);
    }
    ls_offset_index_encode(index, 0, ENTRIES, bytes);
    CHECK_INT(ls_load_i32(bytes + 8), 70000);
    CHECK_INT(ls_load_i32(bytes + 12), 4100);
    ls_offset_index_encode(index, 299, 1, again);
    CHECK_BYTES(again, bytes + 299 * 8, 8);

    ls_offset_index *loaded = make_index(BASE, ENTRIES);
    CHECK_INT(ls_offset_index_append(loaded, BASE, 0, &fault), LS_OK);
    CHECK_INT(ls_offset_index_load(loaded, bytes, sizeof bytes, 4100 * 299 + 1, &fault), LS_OK);
    CHECK_INT(ls_offset_index_count(loaded), ENTRIES);
    ls_offset_index_encode(loaded, 0, ENTRIES, again);
    CHECK_BYTES(again, bytes, sizeof bytes);
    int64_t offset;
    int32_t position;
    ls_offset_index_entry(loaded, 200, &offset, &position);
    CHECK_INT(offset, BASE + 70000 * 200);
    CHECK_INT(position, 4100 * 200);

    CHECK_INT(ls_offset_index_load(loaded, NULL, 0, 0, &fault), LS_OK);
    CHECK_INT(ls_offset_index_count(loaded), 0);
    ls_offset_index_free(loaded);
    loaded = make_index(BASE, ENTRIES - 1);
    CHECK_INT(ls_offset_index_load(loaded, bytes, sizeof bytes, INT32_MAX, &fault), LS_FULL);
    ls_offset_index_free(loaded);
    ls_offset_index_free(index);
}

static void check_refused(const int32_t *words, size_t words_count, size_t size, int64_t base,
                          int64_t log_size, const char *what) {
    ls_fault fault;
    uint8_t bytes[64];
    for (size_t i = 0; i < words_count; i++) ls_store_i32(bytes + 4 * i, words[i]);
    ls_offset_index *index = make_index(base, 8);
    REQUIRE_INT(ls_offset_index_append(index, base + 1, 1, &fault), LS_OK);
    CHECK_CASE(ls_offset_index_load(index, bytes, size, log_size, &fault) == LS_CORRUPT, "%s", what);
    CHECK_CASE(ls_offset_index_count(index) == 0, "%s leaves entries", what);
    ls_offset_index_free(index);
}

static void test_load_refuses_a_damaged_file(void) {
    check_refused((int32_t[]){1, 2}, 2, 7, BASE, 100, "size");
    check_refused((int32_t[]){5, 10, 5, 20}, 4, 16, BASE, 100, "equal offsets");
    check_refused((int32_t[]){5, 10, 4, 20}, 4, 16, BASE, 100, "falling offsets");
    check_refused((int32_t[]){-1, 10}, 2, 8, BASE, 100, "offset below the base");
    check_refused((int32_t[]){5, 10, 6, 10}, 4, 16, BASE, 100, "equal positions");
    check_refused((int32_t[]){5, -10}, 2, 8, BASE, 100, "negative position");
    check_refused((int32_t[]){5, 10, 6, 100}, 4, 16, BASE, 100, "position behind the log");
    check_refused((int32_t[]){5, 10, 0, 0}, 4, 16, BASE, 100, "padding");
    check_refused((int32_t[]){11, 10}, 2, 8, INT64_MAX - 10, 100, "offset past 2^63-1");
}

int main(void) {
    RUN(test_lookup_without_entries_is_the_base);
    RUN(test_lookup_finds_the_floor_at_every_size);
    RUN(test_lookup_where_offsets_rise_unevenly);
    RUN(test_lookup_below_a_position);
    RUN(test_append_refuses_what_breaks_the_order);
    RUN(test_truncate_drops_from_the_target_on);
    RUN(test_encode_and_load_are_inverse);
    RUN(test_load_refuses_a_damaged_file);
    return check_result();
}
