/* Shared by the CRC-32C implementations: one file for each kind of CPU, crc32c.c chooses.
 *
 * Polynomials are reflected: in a value of 32 bits, bit 31 is the coefficient of x^0. A carry-less
 * product of two such values, taken as 64 bits, is a * b * x, and a CRC instruction reduces 64 bits
 * w to w * x^32 mod P. Together they give a * b * x^33, hence the "- 33" in the constants below. */
#ifndef LOGSTORE_CRC32C_INTERNAL_H
#define LOGSTORE_CRC32C_INTERNAL_H

#include "logstore/bytes.h"
#include "logstore/crc32c.h"

#define LS_CRC32C_POLYNOMIAL 0x82F63B78u

/* The instructions are there in GCC's and clang's dialect; other compilers get the portable code. */
#if defined(__GNUC__) && defined(__x86_64__)
#define LS_CRC32C_X86 1
#elif defined(__GNUC__) && defined(__aarch64__) && (defined(__linux__) || defined(__APPLE__))
#define LS_CRC32C_ARM 1
#endif

/* crc32c_constants.c. */
extern const uint32_t ls_crc32c_slices[8][256]; /* [k][b]: the byte b followed by k zero bytes */
extern const uint32_t ls_crc32c_near[256];      /* [i]: x^(64 i - 33), a shift by i words of 8 bytes */
extern const uint32_t ls_crc32c_far[256];       /* [i]: x^(64 * 256 i - 33) */
extern const uint32_t ls_crc32c_squares[31];    /* [i]: x^(2^i); x^(2^31) is x again */
extern const uint64_t ls_crc32c_fold_16[2];     /* x^(8 n + 31), x^(8 n - 33): 16 bytes ahead by n bytes */
extern const uint64_t ls_crc32c_fold_32[2];
extern const uint64_t ls_crc32c_fold_64[2];
extern const uint64_t ls_crc32c_fold_128[2];

uint32_t ls_crc32c_portable(uint32_t crc, const uint8_t *bytes, size_t size);
#if defined(LS_CRC32C_X86)
uint32_t ls_crc32c_sse42(uint32_t crc, const uint8_t *bytes, size_t size);
uint32_t ls_crc32c_pclmul128(uint32_t crc, const uint8_t *bytes, size_t size);
uint32_t ls_crc32c_vpclmul256(uint32_t crc, const uint8_t *bytes, size_t size);
#endif
#if defined(LS_CRC32C_ARM)
uint32_t ls_crc32c_armv8(uint32_t crc, const uint8_t *bytes, size_t size);
uint32_t ls_crc32c_armv8_pmull(uint32_t crc, const uint8_t *bytes, size_t size);
#endif

/* Bytes in the order a CRC takes them: the first is the lowest. */
static inline uint32_t ls_crc32c_load32(const uint8_t *at) {
    uint32_t v;
    memcpy(&v, at, sizeof v);
    return LS_LITTLE_ENDIAN ? v : LS_SWAP32(v);
}
static inline uint64_t ls_crc32c_load64(const uint8_t *at) {
    uint64_t v;
    memcpy(&v, at, sizeof v);
    return LS_LITTLE_ENDIAN ? v : LS_SWAP64(v);
}

/* a * b mod P without special instructions. */
static inline uint32_t ls_crc32c_multiply(uint32_t a, uint32_t b) {
    uint32_t product = 0;
    for (int bit = 31; bit >= 0; bit--) {
        product ^= b & (0u - (a >> bit & 1u));
        b = b >> 1 ^ (LS_CRC32C_POLYNOMIAL & (0u - (b & 1u)));
    }
    return product;
}

#endif
