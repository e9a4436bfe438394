/* The carry-less multiply of x86, and what its two folding implementations share. */
#ifndef LOGSTORE_CRC32C_X86_H
#define LOGSTORE_CRC32C_X86_H

#include <immintrin.h>

#define STREAMS_TARGET __attribute__((target("sse4.2,pclmul")))
#define streams_state unsigned long long
#define streams_u8(crc, v) _mm_crc32_u8((crc), (v))
#define streams_u32(crc, v) _mm_crc32_u32((crc), (v))
#define streams_u64(crc, v) _mm_crc32_u64((crc), (v))
#define streams_clmul(a, b) clmul_low((a), (b))

STREAMS_TARGET static inline uint64_t clmul_low(uint64_t a, uint64_t b) {
    __m128i va = _mm_cvtsi64_si128((long long)a);
    __m128i vb = _mm_cvtsi64_si128((long long)b);
    return (uint64_t)_mm_cvtsi128_si64(_mm_clmulepi64_si128(va, vb, 0x00));
}

#include "crc32c_streams.h"

STREAMS_TARGET static inline __m128i load128(const void *at) {
    return _mm_loadu_si128((const __m128i *)at);
}

/* `ahead` moved as many bytes towards the end as the constant says, added to what is there. */
STREAMS_TARGET static inline __m128i fold128(__m128i ahead, __m128i constant, __m128i there) {
    __m128i low = _mm_clmulepi64_si128(ahead, constant, 0x00);
    __m128i high = _mm_clmulepi64_si128(ahead, constant, 0x11);
    return _mm_xor_si128(_mm_xor_si128(low, there), high);
}

/* Four neighbours of 16 bytes into the last of them. */
STREAMS_TARGET static inline __m128i fold_four(__m128i x0, __m128i x1, __m128i x2, __m128i x3) {
    __m128i by16 = load128(ls_crc32c_fold_16);
    x1 = fold128(x0, by16, x1);
    x3 = fold128(x2, by16, x3);
    return fold128(x1, load128(ls_crc32c_fold_32), x3);
}

/* The three streams run ahead of the folded bytes: nine words a step, in three stretches. */
#define STREAMS_STEP_NINE(at0, at1, at2, crc0, crc1, crc2) \
    do { \
        crc0 = streams_u64(crc0, ls_crc32c_load64(at0)); \
        crc1 = streams_u64(crc1, ls_crc32c_load64(at1)); \
        crc2 = streams_u64(crc2, ls_crc32c_load64(at2)); \
        crc0 = streams_u64(crc0, ls_crc32c_load64((at0) + 8)); \
        crc1 = streams_u64(crc1, ls_crc32c_load64((at1) + 8)); \
        crc2 = streams_u64(crc2, ls_crc32c_load64((at2) + 8)); \
        crc0 = streams_u64(crc0, ls_crc32c_load64((at0) + 16)); \
        crc1 = streams_u64(crc1, ls_crc32c_load64((at1) + 16)); \
        crc2 = streams_u64(crc2, ls_crc32c_load64((at2) + 16)); \
        (at0) += 24; \
        (at1) += 24; \
        (at2) += 24; \
    } while (0)

#endif
