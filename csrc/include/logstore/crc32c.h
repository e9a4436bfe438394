/* CRC-32C (Castagnoli, reflected polynomial 0x82F63B78), the checksum of record batches and
 * producer snapshots (log-format, section 1.1). Chosen once per process for the CPU at hand.
 * All functions are pure and thread-safe. */
#ifndef LOGSTORE_CRC32C_H
#define LOGSTORE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* The CRC of `bytes` appended to data whose CRC is `crc`; start with 0.
 * ls_crc32c_extend(0, "123456789", 9) == 0xe3069283. `bytes` may be NULL when size is 0. */
uint32_t ls_crc32c_extend(uint32_t crc, const uint8_t *bytes, size_t size);

/* The CRC of A followed by B, from CRC(A), CRC(B) and the size of B, without the bytes. */
uint32_t ls_crc32c_combine(uint32_t crc_a, uint32_t crc_b, uint64_t size_b);

typedef uint32_t (*ls_crc32c_function)(uint32_t crc, const uint8_t *bytes, size_t size);

typedef struct ls_crc32c_implementation {
    const char *name; /* "portable", "sse42", "pclmul128", "vpclmul256", "armv8", ... */
    ls_crc32c_function extend;
} ls_crc32c_implementation;

/* The implementation in use, and the i-th that this CPU can run (fastest last; portable is 0);
 * ls_crc32c_available returns NULL past the end. For tests, benchmarks and native_info(). */
const ls_crc32c_implementation *ls_crc32c_in_use(void);
const ls_crc32c_implementation *ls_crc32c_available(int i);

#endif
