/* Each constant of crc32c_constants.c by arithmetic that shares nothing with its generator: only
 * "times x mod P", a step at a time. */
#include "check.h"
#include "crc32c_internal.h"

static uint32_t times_x(uint32_t a, unsigned long steps) {
    for (; steps > 0; steps--) a = a & 1u ? a >> 1 ^ 0x82F63B78u : a >> 1;
    return a;
}

static const uint32_t ONE = 0x80000000u;

/* P is x^32 + ... + 1: its reflected form without x^32 is what x^32 leaves. */
static void test_polynomial(void) {
    CHECK_HEX(times_x(ONE, 31), 1);
    CHECK_HEX(times_x(ONE, 32), LS_CRC32C_POLYNOMIAL);
}

static void test_multiply(void) {
    CHECK_HEX(ls_crc32c_multiply(ONE, 0xcafef00du), 0xcafef00du);
    CHECK_HEX(ls_crc32c_multiply(0, 0xcafef00du), 0);
    for (unsigned i = 0; i < 200; i += 7) {
        CHECK_HEX(ls_crc32c_multiply(times_x(ONE, i), times_x(ONE, 3 * i)), times_x(ONE, 4 * i));
        CHECK_HEX(ls_crc32c_multiply(0xcafef00du, times_x(ONE, i)), times_x(0xcafef00du, i));
    }
}

static void test_slices(void) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        for (unsigned k = 0; k < 8; k++) CHECK_HEX(ls_crc32c_slices[k][byte], times_x(byte, 8 * k + 8));
    }
}

static void test_shifts(void) {
    CHECK_HEX(times_x(ls_crc32c_near[0], 33), ONE);
    CHECK_HEX(times_x(ls_crc32c_far[0], 33), ONE);
    for (int i = 1; i < 256; i++) {
        CHECK_HEX(ls_crc32c_near[i], times_x(ls_crc32c_near[i - 1], 64));
        CHECK_HEX(ls_crc32c_far[i], times_x(ls_crc32c_far[i - 1], 64 * 256));
    }
    CHECK_HEX(ls_crc32c_far[1], times_x(ls_crc32c_near[255], 64));
}

static void test_squares(void) {
    CHECK_HEX(ls_crc32c_squares[0], times_x(ONE, 1));
    for (int i = 1; i < 20; i++) CHECK_HEX(ls_crc32c_squares[i], times_x(ONE, 1ul << i));
    for (int i = 20; i < 31; i++) {
        uint32_t root = ls_crc32c_squares[i - 1];
        CHECK_HEX(ls_crc32c_squares[i], ls_crc32c_multiply(root, root));
    }
    /* The table ends where it would begin again. */
    CHECK_HEX(ls_crc32c_multiply(ls_crc32c_squares[30], ls_crc32c_squares[30]), ls_crc32c_squares[0]);
}

static void test_folds(void) {
    const struct {
        unsigned bytes;
        const uint64_t *pair;
    } folds[] = {
        {16, ls_crc32c_fold_16}, {32, ls_crc32c_fold_32}, {64, ls_crc32c_fold_64}, {128, ls_crc32c_fold_128}};
    for (size_t i = 0; i < sizeof folds / sizeof folds[0]; i++) {
        CHECK_HEX(folds[i].pair[0], times_x(ONE, 8 * folds[i].bytes + 31));
        CHECK_HEX(folds[i].pair[1], times_x(ONE, 8 * folds[i].bytes - 33));
    }
}

int main(void) {
    RUN(test_polynomial);
    RUN(test_multiply);
    RUN(test_slices);
    RUN(test_shifts);
    RUN(test_squares);
    RUN(test_folds);
    return check_result();
}
