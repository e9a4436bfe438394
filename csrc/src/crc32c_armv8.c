/* ARMv8 with the CRC32 extension, and with its 64-bit polynomial multiply where there is one.
 * In assembler text, because compilers disagree on how to name the extensions for one function. */
#include "crc32c_internal.h"

#if defined(LS_CRC32C_ARM)
#include <arm_neon.h>

static inline uint32_t arm_crc32cb(uint32_t crc, uint8_t value) {
    __asm__(".arch_extension crc\n\tcrc32cb %w0, %w0, %w1" : "+r"(crc) : "r"(value));
    return crc;
}
static inline uint32_t arm_crc32cw(uint32_t crc, uint32_t value) {
    __asm__(".arch_extension crc\n\tcrc32cw %w0, %w0, %w1" : "+r"(crc) : "r"(value));
    return crc;
}
static inline uint32_t arm_crc32cx(uint32_t crc, uint64_t value) {
    __asm__(".arch_extension crc\n\tcrc32cx %w0, %w0, %x1" : "+r"(crc) : "r"(value));
    return crc;
}

#define STREAMS_TARGET
#define streams_state uint32_t
#define streams_u8(crc, v) arm_crc32cb((crc), (v))
#define streams_u32(crc, v) arm_crc32cw((crc), (v))
#define streams_u64(crc, v) arm_crc32cx((crc), (v))
#if defined(LS_CRC32C_ARM_PMULL)
static inline uint64_t arm_pmull_low(uint64_t a, uint64_t b) {
    uint64x2_t va = vdupq_n_u64(a);
    uint64x2_t vb = vdupq_n_u64(b);
    uint64x2_t product;
    __asm__(".arch_extension aes\n\tpmull %0.1q, %1.1d, %2.1d" : "=w"(product) : "w"(va), "w"(vb));
    return vgetq_lane_u64(product, 0);
}
#define streams_clmul(a, b) arm_pmull_low((a), (b))
#define EXTEND ls_crc32c_armv8_pmull
#else
#define EXTEND ls_crc32c_armv8
#endif
#include "crc32c_streams.h"

uint32_t EXTEND(uint32_t crc, const uint8_t *bytes, size_t size) {
    return ~(size < 8 ? streams_few(~crc, bytes, size) : streams_any(~crc, bytes, size));
}

#else
typedef int ls_crc32c_armv8_absent; /* ISO C wants a declaration in every file */
#endif
