/* One suite, run on every implementation that this CPU has, against the definition bit by bit. */
#include <pthread.h>

#include "check.h"
#include "logstore/crc32c.h"

/* Past the longest stretch of the streams and several steps of both folding loops. */
enum { EVERY_LENGTH_MAX = 3200, ALIGNMENTS = 16 };

static const ls_crc32c_implementation *under_test;

#if defined(__GNUC__) && defined(__x86_64__)
uint32_t crc32c_vpclmul256_halves(uint32_t crc, const uint8_t *bytes, size_t size);
#endif

static uint32_t reference_extend(uint32_t crc, const uint8_t *bytes, size_t size) {
    crc = ~crc;
    for (size_t i = 0; i < size; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++) crc = crc & 1u ? crc >> 1 ^ 0x82F63B78u : crc >> 1;
    }
    return ~crc;
}

static void fill(uint8_t *bytes, size_t size, uint32_t seed) {
    uint32_t state = seed;
    for (size_t i = 0; i < size; i++) {
        state = state * 1664525u + 1013904223u;
        bytes[i] = (uint8_t)(state >> 24);
    }
}

static void test_published_vectors(void) {
    uint8_t bytes[48];
    CHECK_HEX(under_test->extend(0, NULL, 0), 0);
    CHECK_HEX(under_test->extend(0x12345678u, NULL, 0), 0x12345678u);
    CHECK_HEX(under_test->extend(0, (const uint8_t *)"123456789", 9), 0xe3069283u);
    memset(bytes, 0, sizeof bytes);
    CHECK_HEX(under_test->extend(0, bytes, 4), 0x48674bc7u);
    CHECK_HEX(under_test->extend(0, bytes, 32), 0x8a9136aau);
    memset(bytes, 0xff, sizeof bytes);
    CHECK_HEX(under_test->extend(0, bytes, 32), 0x62a8ab43u);
    for (uint8_t i = 0; i < 32; i++) bytes[i] = i;
    CHECK_HEX(under_test->extend(0, bytes, 32), 0x46dd794eu);
    for (uint8_t i = 0; i < 32; i++) bytes[i] = (uint8_t)(31 - i);
    CHECK_HEX(under_test->extend(0, bytes, 32), 0x113fdb5cu);
    /* RFC 3720, B.4: an iSCSI SCSI Read (10) command. */
    static const uint8_t iscsi_read[48] = {0x01, 0xc0, [16] = 0x14, [22] = 0x04, [27] = 0x14, [31] = 0x18,
                                           0x28, [40] = 0x02};
    CHECK_HEX(under_test->extend(0, iscsi_read, sizeof iscsi_read), 0xd9963a56u);
}

/* Every length at every alignment, in blocks that end where the input does: a sanitizer sees a
 * read beyond. The CRC to start from is not zero. */
static void test_every_length_and_alignment(void) {
    static uint8_t input[EVERY_LENGTH_MAX];
    fill(input, sizeof input, 1);
    uint32_t expected = 0xdeadbeefu;
    for (size_t size = 0; size <= EVERY_LENGTH_MAX; size++) {
        for (size_t alignment = 0; alignment < ALIGNMENTS; alignment++) {
            uint8_t *block = (uint8_t *)malloc(alignment + size + 1);
            REQUIRE(block != NULL);
            uint8_t *bytes = block + 1 + alignment;
            if (size > 0) memcpy(bytes, input, size);
            uint32_t crc = under_test->extend(0xdeadbeefu, bytes, size);
            CHECK_CASE(crc == expected, "%s: %zu bytes at alignment %zu: %#x, expected %#x", under_test->name,
                       size, (alignment + 1) % ALIGNMENTS, (unsigned)crc, (unsigned)expected);
            free(block);
        }
        if (size < EVERY_LENGTH_MAX) expected = reference_extend(expected, input + size, 1);
    }
}

/* Around the longest run that one shift can span, and around sizes that files have. */
static void test_long_inputs(void) {
    static const size_t sizes[] = {4096,   16384,  65535,  65536,  595599,  595600,  595601,  636615,
                                   636616, 636617, 637640, 784387, 1048576, 1048579, 1273232, 1300000};
    size_t size_max = sizes[sizeof sizes / sizeof sizes[0] - 1];
    uint8_t *input = (uint8_t *)malloc(size_max + 3);
    REQUIRE(input != NULL);
    fill(input, size_max + 3, 2);
    uint32_t expected = 0;
    size_t done = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        expected = reference_extend(expected, input + 3 + done, sizes[i] - done);
        done = sizes[i];
        uint32_t crc = under_test->extend(0, input + 3, done);
        CHECK_CASE(crc == expected, "%s: %zu bytes: %#x, expected %#x", under_test->name, done, (unsigned)crc,
                   (unsigned)expected);
    }
    free(input);
}

/* A single bit anywhere changes the CRC as the reference says: no byte is left out or taken twice. */
static void test_every_byte_counts(void) {
    enum { SIZE = 2048 };
    static uint8_t zeros[SIZE];
    for (size_t i = 0; i < SIZE; i++) {
        zeros[i] = (uint8_t)(1u << (i & 7u));
        uint32_t crc = under_test->extend(0, zeros, SIZE);
        CHECK_CASE(crc == reference_extend(0, zeros, SIZE), "%s: bit %zu of byte %zu", under_test->name,
                   i & 7u, i);
        zeros[i] = 0;
    }
}

static void test_extend_and_combine_agree_with_the_whole(void) {
    enum { SIZE = 2500 };
    static uint8_t input[SIZE];
    fill(input, SIZE, 3);
    uint32_t whole = reference_extend(0, input, SIZE);
    for (size_t split = 0; split <= SIZE; split++) {
        uint32_t first = under_test->extend(0, input, split);
        uint32_t second = under_test->extend(0, input + split, SIZE - split);
        CHECK_CASE(under_test->extend(first, input + split, SIZE - split) == whole, "%s: extend at %zu",
                   under_test->name, split);
        CHECK_CASE(ls_crc32c_combine(first, second, SIZE - split) == whole, "%s: combine at %zu",
                   under_test->name, split);
    }
}

/* Sizes that no buffer has: by steps of sizes that can be added, and by the period of x^n mod P. */
static void test_combine_takes_any_size(void) {
    CHECK_HEX(ls_crc32c_combine(0, 0, UINT64_MAX), 0);
    CHECK_HEX(ls_crc32c_combine(0x12345678u, 0x9abcdef0u, 0), 0x12345678u ^ 0x9abcdef0u);
    for (int bit = 0; bit < 63; bit++) {
        uint64_t half = UINT64_C(1) << bit;
        uint32_t twice = ls_crc32c_combine(ls_crc32c_combine(0x12345678u, 0, half), 0, half);
        CHECK_CASE(ls_crc32c_combine(0x12345678u, 0, 2 * half) == twice, "2^%d bytes", bit + 1);
    }
    uint64_t period = (UINT64_C(1) << 31) - 1;
    CHECK_HEX(ls_crc32c_combine(0x12345678u, 0, period), 0x12345678u);
    CHECK_HEX(ls_crc32c_combine(0x12345678u, 0, 5 * period + 1000), ls_crc32c_combine(0x12345678u, 0, 1000));
    CHECK(ls_crc32c_combine(0x12345678u, 0, period - 1) != 0x12345678u);
}

static void *first_use(void *crc) {
    *(uint32_t *)crc = ls_crc32c_extend(0, (const uint8_t *)"123456789", 9);
    return NULL;
}

/* Has to run before anything else asked: the first calls of several threads choose at once. */
static void test_first_use_by_several_threads(void) {
    enum { THREADS = 8 };
    pthread_t threads[THREADS];
    uint32_t crcs[THREADS] = {0};
    for (int i = 0; i < THREADS; i++) REQUIRE_INT(pthread_create(&threads[i], NULL, first_use, &crcs[i]), 0);
    for (int i = 0; i < THREADS; i++) {
        REQUIRE_INT(pthread_join(threads[i], NULL), 0);
        CHECK_HEX(crcs[i], 0xe3069283u);
    }
}

static void test_the_fastest_is_in_use(void) {
    REQUIRE(ls_crc32c_available(0) != NULL);
    CHECK_TEXT(ls_crc32c_available(0)->name, "portable");
    CHECK(ls_crc32c_available(-1) == NULL);
    int count = 0;
    while (ls_crc32c_available(count) != NULL) count++;
    CHECK(ls_crc32c_available(count + 1) == NULL);
    CHECK(ls_crc32c_in_use() == ls_crc32c_available(count - 1));
    for (int i = 0; i < count; i++) {
        const char *name = ls_crc32c_available(i)->name;
        for (int j = 0; j < i; j++) CHECK(strcmp(name, ls_crc32c_available(j)->name) != 0);
    }
#if defined(__GNUC__) && defined(__x86_64__)
    /* Found independently of the library: where the CPU has them, they are offered. */
    if (__builtin_cpu_supports("sse4.2")) CHECK(count >= 2);
    if (__builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul")) CHECK(count >= 3);
#endif
}

static void run_suite(const ls_crc32c_implementation *implementation) {
    under_test = implementation;
    printf("%s, ", under_test->name);
    RUN(test_published_vectors);
    RUN(test_every_length_and_alignment);
    RUN(test_long_inputs);
    RUN(test_every_byte_counts);
    RUN(test_extend_and_combine_agree_with_the_whole);
}

int main(void) {
    RUN(test_first_use_by_several_threads);
    RUN(test_the_fastest_is_in_use);
    RUN(test_combine_takes_any_size);
    for (int i = 0; ls_crc32c_available(i) != NULL; i++) run_suite(ls_crc32c_available(i));
#if defined(__GNUC__) && defined(__x86_64__)
    if (__builtin_cpu_supports("pclmul") && __builtin_cpu_supports("avx2")) {
        static const ls_crc32c_implementation halves = {"vpclmul256 in halves", crc32c_vpclmul256_halves};
        run_suite(&halves);
    }
#endif
    return check_result();
}
