#include "crc32c_internal.h"

static const ls_crc32c_implementation portable = {"portable", ls_crc32c_portable};

uint32_t ls_crc32c_extend(uint32_t crc, const uint8_t *bytes, size_t size) {
    return ls_crc32c_portable(crc, bytes, size);
}

/* a * b mod P, all reflected. */
static uint32_t multiply(uint32_t a, uint32_t b) {
    uint32_t product = 0;
    for (int bit = 0; bit < 32; bit++) {
        product ^= b & (0u - (a >> 31));
        a <<= 1;
        b = b >> 1 ^ (LS_CRC32C_POLYNOMIAL & (0u - (b & 1u)));
    }
    return product;
}

uint32_t ls_crc32c_combine(uint32_t crc_a, uint32_t crc_b, uint64_t size_b) {
    uint32_t power = UINT32_C(1) << 23; /* x^8: one byte */
    for (; size_b != 0; size_b >>= 1) {
        if (size_b & 1u) crc_a = multiply(crc_a, power);
        power = multiply(power, power);
    }
    return crc_a ^ crc_b;
}

const ls_crc32c_implementation *ls_crc32c_in_use(void) {
    return &portable;
}

const ls_crc32c_implementation *ls_crc32c_available(int i) {
    return i == 0 ? &portable : NULL;
}
