/* The CRC instruction of SSE4.2 without a carry-less multiply (Nehalem). */
#include "crc32c_internal.h"

#if defined(LS_CRC32C_X86)
#include <nmmintrin.h>

#define STREAMS_TARGET __attribute__((target("sse4.2")))
#define streams_state unsigned long long
#define streams_u8(crc, v) _mm_crc32_u8((crc), (v))
#define streams_u32(crc, v) _mm_crc32_u32((crc), (v))
#define streams_u64(crc, v) _mm_crc32_u64((crc), (v))
#include "crc32c_streams.h"

STREAMS_TARGET uint32_t ls_crc32c_sse42(uint32_t crc, const uint8_t *bytes, size_t size) {
    return ~(uint32_t)(size < 8 ? streams_few(~crc, bytes, size) : streams_any(~crc, bytes, size));
}

#else
typedef int ls_crc32c_sse42_absent; /* ISO C wants a declaration in every file */
#endif
