/* Chooses the CRC-32C implementation for the CPU at hand, and joins CRCs without the bytes. */
#include "crc32c_internal.h"

#if defined(LS_CRC32C_X86) || defined(LS_CRC32C_ARM)
#include <stdatomic.h>
#define LS_CRC32C_CHOICE 1
#endif
#if defined(LS_CRC32C_ARM) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(LS_CRC32C_ARM) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

typedef struct candidate {
    ls_crc32c_implementation implementation;
    int (*runs_here)(void);
} candidate;

static int always(void) {
    return 1;
}

#if defined(LS_CRC32C_X86)
/* The compiler's check asks the CPU, and for wide registers the operating system too. */
static int has_sse42(void) {
    return __builtin_cpu_supports("sse4.2") != 0;
}
static int has_pclmul(void) {
    return has_sse42() && __builtin_cpu_supports("pclmul") != 0;
}
static int has_vpclmul(void) {
    return has_pclmul() && __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("vpclmulqdq") != 0;
}
#elif defined(LS_CRC32C_ARM) && defined(__linux__)
enum { HWCAP_BIT_PMULL = 1 << 4, HWCAP_BIT_CRC32 = 1 << 7 };

static int has_crc32(void) {
    return (getauxval(AT_HWCAP) & HWCAP_BIT_CRC32) != 0;
}
static int has_pmull(void) {
    return has_crc32() && (getauxval(AT_HWCAP) & HWCAP_BIT_PMULL) != 0;
}
#elif defined(LS_CRC32C_ARM)
static int has_feature(const char *name) {
    int value = 0;
    size_t size = sizeof value;
    return sysctlbyname(name, &value, &size, NULL, 0) == 0 && value != 0;
}
static int has_crc32(void) {
    return has_feature("hw.optional.armv8_crc32");
}
/* Every Apple CPU with the CRC instruction multiplies polynomials; the key is newer than the feature. */
static int has_pmull(void) {
    return has_crc32();
}
#endif

/* The fastest last. */
static const candidate candidates[] = {
    {{"portable", ls_crc32c_portable}, always},
#if defined(LS_CRC32C_X86)
    {{"sse42", ls_crc32c_sse42}, has_sse42},
    {{"pclmul128", ls_crc32c_pclmul128}, has_pclmul},
    {{"vpclmul256", ls_crc32c_vpclmul256}, has_vpclmul},
#elif defined(LS_CRC32C_ARM)
    {{"armv8", ls_crc32c_armv8}, has_crc32},
    {{"armv8_pmull", ls_crc32c_armv8_pmull}, has_pmull},
#endif
};
enum { CANDIDATE_COUNT = sizeof candidates / sizeof candidates[0] };

const ls_crc32c_implementation *ls_crc32c_available(int i) {
    if (i < 0) return NULL;
    for (int c = 0; c < (int)CANDIDATE_COUNT; c++) {
        if (candidates[c].runs_here() && i-- == 0) return &candidates[c].implementation;
    }
    return NULL;
}

const ls_crc32c_implementation *ls_crc32c_in_use(void) {
    int c = (int)CANDIDATE_COUNT - 1;
    while (c > 0 && !candidates[c].runs_here()) c--;
    return &candidates[c].implementation;
}

#if defined(LS_CRC32C_CHOICE)
static uint32_t choose_and_extend(uint32_t crc, const uint8_t *bytes, size_t size);

/* The one mutable global: first the function that chooses, then the choice. Threads that race here
 * all store the same value, and what it points to is constant, so no order is needed. */
static _Atomic(ls_crc32c_function) chosen = choose_and_extend;

static uint32_t choose_and_extend(uint32_t crc, const uint8_t *bytes, size_t size) {
    ls_crc32c_function extend = ls_crc32c_in_use()->extend;
    atomic_store_explicit(&chosen, extend, memory_order_relaxed);
    return extend(crc, bytes, size);
}

uint32_t ls_crc32c_extend(uint32_t crc, const uint8_t *bytes, size_t size) {
    return atomic_load_explicit(&chosen, memory_order_relaxed)(crc, bytes, size);
}
#else
uint32_t ls_crc32c_extend(uint32_t crc, const uint8_t *bytes, size_t size) {
    return ls_crc32c_portable(crc, bytes, size);
}
#endif

/* CRC(A) moves size_b bytes up, which is a product with x^(8 size_b): one factor for each bit of
 * the size. The squares of x repeat after 31, so the table serves every bit. */
uint32_t ls_crc32c_combine(uint32_t crc_a, uint32_t crc_b, uint64_t size_b) {
    for (unsigned square = 3; size_b != 0; size_b >>= 1) {
        if (size_b & 1u) crc_a = ls_crc32c_multiply(ls_crc32c_squares[square], crc_a);
        square = square == 30 ? 0 : square + 1;
    }
    return crc_a ^ crc_b;
}
