/* As crc32c_pclmul128.c, with two carry-less multiplies in one 256-bit instruction: a step takes
 * 4 x 32 bytes by folding, 3 x 24 by the streams. */
#include "crc32c_internal.h"

#if defined(LS_CRC32C_X86)
#include "crc32c_x86.h"

#define TARGET_256 __attribute__((target("sse4.2,pclmul,avx2,vpclmulqdq")))

enum {
    FOLD_STEP_BYTES = 4 * 32,
    STEP_BYTES = 3 * 24 + FOLD_STEP_BYTES,
    FOLDING_BYTES_MIN = 4 * STEP_BYTES, /* below, the streams alone are as fast */
    /* The first stream is shifted over 48 + 128 bytes, 22 words, a step; streams_shift takes 65535. */
    STEPS_MAX = 65535 / 22
};

TARGET_256 static inline __m256i load256(const uint8_t *at) {
    return _mm256_loadu_si256((const __m256i *)(const void *)at);
}

TARGET_256 static inline __m256i fold256(__m256i ahead, __m256i constant, __m256i there) {
    __m256i low = _mm256_clmulepi64_epi128(ahead, constant, 0x00);
    __m256i high = _mm256_clmulepi64_epi128(ahead, constant, 0x11);
    return _mm256_xor_si256(_mm256_xor_si256(low, there), high);
}

/* An input of at least 2 steps. Returns the state behind steps * STEP_BYTES. */
TARGET_256 static streams_state fold_steps(streams_state crc, const uint8_t *bytes, size_t steps) {
    const uint8_t *at0 = bytes;
    const uint8_t *at1 = at0 + 24 * steps;
    const uint8_t *at2 = at1 + 24 * steps;
    const uint8_t *folded = at2 + 24 * steps;
    uint64_t shift0 = streams_shift(22 * steps);
    uint64_t shift1 = streams_shift(19 * steps);
    uint64_t shift2 = streams_shift(16 * steps);
    streams_state crc1 = 0;
    streams_state crc2 = 0;
    const __m256i by128 = _mm256_broadcastsi128_si256(load128(ls_crc32c_fold_128));
    __m256i y0 = load256(folded);
    __m256i y1 = load256(folded + 32);
    __m256i y2 = load256(folded + 64);
    __m256i y3 = load256(folded + 96);
    for (size_t i = 1; i < steps; i++) {
        folded += FOLD_STEP_BYTES;
        y0 = fold256(y0, by128, load256(folded));
        y1 = fold256(y1, by128, load256(folded + 32));
        y2 = fold256(y2, by128, load256(folded + 64));
        y3 = fold256(y3, by128, load256(folded + 96));
        STREAMS_STEP_NINE(at0, at1, at2, crc, crc1, crc2);
    }
    STREAMS_STEP_NINE(at0, at1, at2, crc, crc1, crc2);
    const __m256i by64 = _mm256_broadcastsi128_si256(load128(ls_crc32c_fold_64));
    y2 = fold256(y0, by64, y2);
    y3 = fold256(y1, by64, y3);
    __m128i x3 = fold_four(_mm256_castsi256_si128(y2), _mm256_extracti128_si256(y2, 1),
                           _mm256_castsi256_si128(y3), _mm256_extracti128_si256(y3, 1));
    uint64_t moved = streams_clmul(crc, shift0) ^ streams_clmul(crc1, shift1) ^ streams_clmul(crc2, shift2);
    crc = streams_u64(0, (uint64_t)_mm_cvtsi128_si64(x3));
    return streams_u64(crc, (uint64_t)_mm_extract_epi64(x3, 1) ^ moved);
}

TARGET_256 uint32_t ls_crc32c_vpclmul256(uint32_t crc, const uint8_t *bytes, size_t size) {
    streams_state state = ~crc;
    if (size < 8) return ~(uint32_t)streams_few(state, bytes, size);
    while (size >= FOLDING_BYTES_MIN) {
        size_t steps = size / STEP_BYTES;
        if (steps > STEPS_MAX) steps = STEPS_MAX;
        state = fold_steps(state, bytes, steps);
        bytes += steps * STEP_BYTES;
        size -= steps * STEP_BYTES;
    }
    return ~(uint32_t)streams_any(state, bytes, size);
}

#else
typedef int ls_crc32c_vpclmul256_absent; /* ISO C wants a declaration in every file */
#endif
