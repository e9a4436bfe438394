#include "logstore/key_offset_map.h"

#include "check.h"

static const uint8_t secret[LS_KEY_SECRET_BYTES] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

static ls_key_offset_map *make_map(size_t memory_bytes_max) {
    ls_key_offset_map *map = NULL;
    ls_fault fault;
    REQUIRE_INT(ls_key_offset_map_create(memory_bytes_max, secret, &map, &fault), LS_OK);
    return map;
}

static ls_key_hash hash_of(const ls_key_offset_map *map, uint64_t number) {
    return ls_key_offset_map_hash(map, (const uint8_t *)&number, sizeof number);
}

static void test_holds_the_last_offset_of_each_key(void) {
    enum { KEYS = 50000 };
    ls_key_offset_map *map = make_map(64u << 20);
    int64_t previous;
    for (int64_t i = 0; i < 3 * KEYS; i++) {
        REQUIRE(ls_key_offset_map_put(map, hash_of(map, (uint64_t)(i % KEYS)), i, &previous));
        CHECK_INT(previous, i < KEYS ? -1 : i - KEYS);
    }
    CHECK_INT(ls_key_offset_map_count(map), KEYS);
    for (int64_t i = 0; i < KEYS; i++) CHECK_INT(ls_key_offset_map_get(map, hash_of(map, (uint64_t)i)),
                                                 2 * KEYS + i);
    CHECK_INT(ls_key_offset_map_get(map, hash_of(map, KEYS)), -1);
    CHECK(ls_key_offset_map_memory_bytes(map) < (size_t)30 * KEYS);
    ls_key_offset_map_free(map);
}

static void test_never_passes_its_limit(void) {
    static const size_t limits[] = {0, 19, 20, 100, 5000, 200000, 3000000};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        ls_key_offset_map *map = make_map(limits[i]);
        int64_t previous;
        uint64_t count = 0;
        while (ls_key_offset_map_put(map, hash_of(map, count), (int64_t)count, &previous)) count++;
        CHECK(ls_key_offset_map_memory_bytes(map) <= limits[i]);
        CHECK_INT(ls_key_offset_map_count(map), count);
        CHECK_CASE(limits[i] < 5000 || count > limits[i] / 40, "%llu keys in %zu bytes",
                   (unsigned long long)count,
                   limits[i]);
        /* What is there can still be changed. */
        for (uint64_t key = 0; key < count; key++) {
            CHECK_INT(ls_key_offset_map_get(map, hash_of(map, key)), key);
            CHECK(ls_key_offset_map_put(map, hash_of(map, key), (int64_t)(key + count), &previous));
        }
        for (uint64_t key = 0; key < count; key++)
            CHECK_INT(ls_key_offset_map_get(map, hash_of(map, key)), key + count);
        ls_key_offset_map_free(map);
    }
}

static void test_takes_few_bytes_a_key_at_every_size(void) {
    ls_key_offset_map *map = make_map(64u << 20);
    int64_t previous;
    for (size_t count = 1; count <= 300000; count++) {
        REQUIRE(ls_key_offset_map_put(map, hash_of(map, count), (int64_t)count, &previous));
        size_t memory_bytes = ls_key_offset_map_memory_bytes(map);
        if (count >= 500 && memory_bytes > 30 * count) REQUIRE_INT(memory_bytes / count, 30);
    }
    CHECK_INT(ls_key_offset_map_count(map), 300000);
    for (size_t key = 1; key <= 300000; key++) {
        if (ls_key_offset_map_get(map, hash_of(map, key)) != (int64_t)key) REQUIRE_INT(key, 0);
    }
    ls_key_offset_map_free(map);
}

static void test_offsets_up_to_a_distance_from_the_first(void) {
    static const int64_t firsts[] = {0, 5, INT64_MAX - UINT32_MAX, INT64_MAX - 10};
    for (size_t i = 0; i < sizeof firsts / sizeof *firsts; i++) {
        ls_key_offset_map *map = make_map(4096);
        ls_key_offset_map_start(map, firsts[i]);
        int64_t largest = INT64_MAX - firsts[i] < UINT32_MAX ? INT64_MAX : firsts[i] + UINT32_MAX - 1;
        int64_t previous;
        CHECK(ls_key_offset_map_put(map, hash_of(map, 1), largest, &previous));
        CHECK_INT(previous, -1);
        CHECK_INT(ls_key_offset_map_get(map, hash_of(map, 1)), largest);
        CHECK(ls_key_offset_map_put(map, hash_of(map, 1), firsts[i], &previous));
        CHECK_INT(previous, largest);
        CHECK_INT(ls_key_offset_map_get(map, hash_of(map, 1)), firsts[i]);
        if (largest < INT64_MAX) {
            CHECK(!ls_key_offset_map_put(map, hash_of(map, 1), largest + 1, &previous));
            CHECK(!ls_key_offset_map_put(map, hash_of(map, 2), INT64_MAX, &previous));
        }
        CHECK_INT(ls_key_offset_map_get(map, hash_of(map, 1)), firsts[i]);
        CHECK_INT(ls_key_offset_map_count(map), 1);
        ls_key_offset_map_free(map);
    }
}

static void test_hashes_depend_on_every_byte_and_on_the_secret(void) {
    ls_key_offset_map *map = make_map(4096);
    uint8_t key[24];
    for (size_t size = 0; size <= sizeof key; size++) {
        memset(key, 7, sizeof key);
        ls_key_hash plain = ls_key_offset_map_hash(map, key, size);
        for (size_t i = 0; i < size; i++) {
            key[i] ^= 1;
            ls_key_hash other = ls_key_offset_map_hash(map, key, size);
            CHECK(other.low != plain.low && other.high != plain.high);
            key[i] ^= 1;
        }
        if (size > 0) {
            ls_key_hash shorter = ls_key_offset_map_hash(map, key, size - 1);
            CHECK(shorter.low != plain.low);
        }
    }
    ls_key_hash null_key = ls_key_offset_map_hash(map, NULL, 0);
    ls_key_hash empty_key = ls_key_offset_map_hash(map, key, 0);
    CHECK(null_key.low == empty_key.low && null_key.high == empty_key.high);
    uint8_t other_secret[LS_KEY_SECRET_BYTES] = {1};
    ls_key_offset_map *other = NULL;
    ls_fault fault;
    REQUIRE_INT(ls_key_offset_map_create(4096, other_secret, &other, &fault), LS_OK);
    CHECK(ls_key_offset_map_hash(other, key, 3).low != ls_key_offset_map_hash(map, key, 3).low);
    ls_key_offset_map_free(other);
    ls_key_offset_map_free(map);
    ls_key_offset_map_free(NULL);
}

int main(void) {
    RUN(test_holds_the_last_offset_of_each_key);
    RUN(test_never_passes_its_limit);
    RUN(test_takes_few_bytes_a_key_at_every_size);
    RUN(test_offsets_up_to_a_distance_from_the_first);
    RUN(test_hashes_depend_on_every_byte_and_on_the_secret);
    return check_result();
}
