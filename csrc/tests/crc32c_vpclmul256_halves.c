/* The 256-bit implementation with its one rare instruction made of two halves, so that everything
 * else in it is tested on any CPU with AVX2. Linked into test_crc32c. */
#if defined(__GNUC__) && defined(__x86_64__)
#include <immintrin.h>

__attribute__((target("pclmul,avx2"))) static inline __m256i clmul_halves(__m256i a, __m256i b, int which) {
    __m128i a0 = _mm256_castsi256_si128(a);
    __m128i b0 = _mm256_castsi256_si128(b);
    __m128i a1 = _mm256_extracti128_si256(a, 1);
    __m128i b1 = _mm256_extracti128_si256(b, 1);
    __m128i low = which == 0x00 ? _mm_clmulepi64_si128(a0, b0, 0x00) : _mm_clmulepi64_si128(a0, b0, 0x11);
    __m128i high = which == 0x00 ? _mm_clmulepi64_si128(a1, b1, 0x00) : _mm_clmulepi64_si128(a1, b1, 0x11);
    return _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
}

#undef _mm256_clmulepi64_epi128
#define _mm256_clmulepi64_epi128(a, b, which) clmul_halves((a), (b), (which))
#define ls_crc32c_vpclmul256 crc32c_vpclmul256_halves
#include "../src/crc32c_vpclmul256.c"
#else
typedef int crc32c_vpclmul256_halves_absent; /* ISO C wants a declaration in every file */
#endif
