/* Big-endian access to unaligned bytes. Everything on disk is big-endian (log-format, section 1). */
#ifndef LOGSTORE_BYTES_H
#define LOGSTORE_BYTES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(_MSC_VER)
#include <stdlib.h>
#define LS_SWAP16(v) _byteswap_ushort(v)
#define LS_SWAP32(v) _byteswap_ulong(v)
#define LS_SWAP64(v) _byteswap_uint64(v)
#define LS_LITTLE_ENDIAN 1
#else
#define LS_SWAP16(v) __builtin_bswap16(v)
#define LS_SWAP32(v) __builtin_bswap32(v)
#define LS_SWAP64(v) __builtin_bswap64(v)
#define LS_LITTLE_ENDIAN (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__)
#endif

static inline uint16_t ls_load_u16(const uint8_t *at) {
    uint16_t v;
    memcpy(&v, at, sizeof v);
    return LS_LITTLE_ENDIAN ? LS_SWAP16(v) : v;
}
static inline uint32_t ls_load_u32(const uint8_t *at) {
    uint32_t v;
    memcpy(&v, at, sizeof v);
    return LS_LITTLE_ENDIAN ? LS_SWAP32(v) : v;
}
static inline uint64_t ls_load_u64(const uint8_t *at) {
    uint64_t v;
    memcpy(&v, at, sizeof v);
    return LS_LITTLE_ENDIAN ? LS_SWAP64(v) : v;
}
static inline int16_t ls_load_i16(const uint8_t *at) { return (int16_t)ls_load_u16(at); }
static inline int32_t ls_load_i32(const uint8_t *at) { return (int32_t)ls_load_u32(at); }
static inline int64_t ls_load_i64(const uint8_t *at) { return (int64_t)ls_load_u64(at); }

static inline void ls_store_u16(uint8_t *at, uint16_t v) {
    if (LS_LITTLE_ENDIAN) v = LS_SWAP16(v);
    memcpy(at, &v, sizeof v);
}
static inline void ls_store_u32(uint8_t *at, uint32_t v) {
    if (LS_LITTLE_ENDIAN) v = LS_SWAP32(v);
    memcpy(at, &v, sizeof v);
}
static inline void ls_store_u64(uint8_t *at, uint64_t v) {
    if (LS_LITTLE_ENDIAN) v = LS_SWAP64(v);
    memcpy(at, &v, sizeof v);
}
static inline void ls_store_i16(uint8_t *at, int16_t v) { ls_store_u16(at, (uint16_t)v); }
static inline void ls_store_i32(uint8_t *at, int32_t v) { ls_store_u32(at, (uint32_t)v); }
static inline void ls_store_i64(uint8_t *at, int64_t v) { ls_store_u64(at, (uint64_t)v); }

#endif
