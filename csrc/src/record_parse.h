/* Parsing one record (log-format, sections 1.4 and 1.5): shared by the iterator, the columns and the leader's
 * check.
 *
 * Two parsers with the same verdicts. The fast one is inlined, checks the buffer's end once for everything in
 * front of the key, and gives up (without a verdict) on what is rare or wrong: the end of the buffer near,
 * varints longer than usual, any broken rule. The careful one then decides, and names the rule. */
#ifndef LOGSTORE_RECORD_PARSE_H
#define LOGSTORE_RECORD_PARSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "logstore/bytes.h"
#include "logstore/record_batch.h"

#if defined(__GNUC__)
#define LS_LIKELY(condition) __builtin_expect(!!(condition), 1)
#define LS_UNLIKELY(condition) __builtin_expect(!!(condition), 0)
#define LS_NOINLINE __attribute__((noinline))
#define LS_ALWAYS_INLINE inline __attribute__((always_inline))
#define LS_PREFETCH(address) __builtin_prefetch((const void *)(address))
#else
#define LS_LIKELY(condition) (condition)
#define LS_UNLIKELY(condition) (condition)
#define LS_NOINLINE
#define LS_ALWAYS_INLINE inline
#define LS_PREFETCH(address) ((void)(address))
#endif

/* One record, before the batch's header gives its deltas a meaning. */
typedef struct ls_record_parts {
    const uint8_t *next; /* behind the record */
    const uint8_t *key;
    const uint8_t *value;
    const uint8_t *headers; /* behind the count */
    int64_t timestamp_delta;
    int32_t offset_delta;
    int32_t key_bytes;   /* -1: null */
    int32_t value_bytes; /* -1: null */
    int32_t headers_count;
} ls_record_parts;

/* Decides on the record at `at`: LS_OK or LS_CORRUPT, with the position counted from `start`, behind a batch
 * header. */
ls_status ls_record_parse_careful(const uint8_t *at, const uint8_t *end, const uint8_t *start,
                                  ls_record_parts *out, ls_fault *fault);

/* Whether exactly [at, end) holds `count` headers of lengths below 8192; false gives no verdict. */
bool ls_record_headers_fill(const uint8_t *at, const uint8_t *end, int32_t count);

/* Bytes the fast parser may read in front of the key: length 2, attributes 1, timestamp delta 8, offset
 * delta 3, key length 2. */
enum { LS_RECORD_FAST_BYTES = 16 };

static LS_ALWAYS_INLINE int64_t ls_zigzag_decode(uint64_t bits) {
    return (int64_t)((bits >> 1) ^ (0u - (bits & 1u)));
}

/* A varint of up to eight bytes, all of which can be read; returns its size, or 0 where it is longer. */
static LS_ALWAYS_INLINE size_t ls_wide_varint_bits(const uint8_t *at, uint64_t *bits) {
#if defined(__GNUC__)
    uint64_t word;
    memcpy(&word, at, sizeof word);
    if (!LS_LITTLE_ENDIAN) word = LS_SWAP64(word);
    uint64_t stops = ~word & 0x8080808080808080u;
    if (LS_UNLIKELY(stops == 0)) return 0;
    word &= stops ^ (stops - 1u); /* up to the first byte without a continuation bit */
    /* Groups of 7 bits close up to 14, 28, 56. */
    word = ((word & 0x7f007f007f007f00u) >> 1) | (word & 0x007f007f007f007fu);
    word = ((word & 0x3fff00003fff0000u) >> 2) | (word & 0x00003fff00003fffu);
    *bits = ((word & 0x0fffffff00000000u) >> 4) | (word & 0x000000000fffffffu);
    return ((size_t)__builtin_ctzll(stops) >> 3) + 1u;
#else
    uint64_t word = 0;
    for (unsigned i = 0; i < 8; i++) {
        word |= (uint64_t)(at[i] & 0x7fu) << (7u * i);
        if (at[i] < 0x80u) {
            *bits = word;
            return i + 1u;
        }
    }
    return 0;
#endif
}

/* A varint of one or two bytes, both of which can be read; leaves the function with false where it is longer.
 * Branches, not masks: the sizes in a batch are much alike, and each guessed size makes the next place a
 * constant. */
#define LS_SHORT_VARINT(at, bits) \
    do { \
        (bits) = *(at)++; \
        if ((bits) >= 0x80u) { \
            uint32_t second_ = *(at)++; \
            if (LS_UNLIKELY(second_ >= 0x80u)) return false; \
            (bits) += (second_ << 7) - 0x80u; \
        } \
    } while (0)

static LS_ALWAYS_INLINE bool ls_record_parse_fast(const uint8_t *at, const uint8_t *end,
                                                  ls_record_parts *out) {
    if (LS_UNLIKELY(end - at < LS_RECORD_FAST_BYTES)) return false;
    uint32_t bits;
    LS_SHORT_VARINT(at, bits);
    ptrdiff_t length = (ptrdiff_t)(bits >> 1);
    if (LS_UNLIKELY((bits & 1u) != 0 || length > end - at)) return false;
    /* From here on the processor can start on the next record, whatever this one holds. */
    const uint8_t *next = at + length;

    at++; /* attributes, which mean nothing */
    if (LS_LIKELY(*at < 0x80u)) {
        out->timestamp_delta = ls_zigzag_decode(*at++);
    } else if (at[1] < 0x80u) {
        out->timestamp_delta = ls_zigzag_decode(at[0] + ((uint32_t)at[1] << 7) - 0x80u);
        at += 2;
    } else {
        uint64_t wide_bits = 0;
        size_t size_bytes = ls_wide_varint_bits(at, &wide_bits);
        if (LS_UNLIKELY(size_bytes == 0)) return false;
        out->timestamp_delta = ls_zigzag_decode(wide_bits);
        at += size_bytes;
    }

    bits = *at++;
    if (bits >= 0x80u) {
        bits += ((uint32_t)*at++ << 7) - 0x80u;
        if (LS_UNLIKELY(bits >= 0x4000u)) {
            bits += ((uint32_t)*at++ << 14) - 0x4000u;
            if (LS_UNLIKELY(bits >= 0x200000u)) return false;
        }
    }
    if (LS_UNLIKELY((bits & 1u) != 0)) return false; /* negative, so wrong */
    out->offset_delta = (int32_t)(bits >> 1);

    LS_SHORT_VARINT(at, bits);
    out->key = at;
    out->key_bytes = -1;
    ptrdiff_t key_bytes = 0;
    if (LS_LIKELY((bits & 1u) == 0)) {
        key_bytes = (ptrdiff_t)(bits >> 1);
        out->key_bytes = (int32_t)key_bytes;
    }
    /* Behind the key the value's length and the headers' count need two bytes at least: that is the rule, and
     * makes reading two of them safe. */
    if (LS_UNLIKELY(next - at < key_bytes + 2)) return false;
    at += key_bytes;

    LS_SHORT_VARINT(at, bits);
    out->value = at;
    out->value_bytes = -1;
    out->next = next;
    ptrdiff_t value_bytes = 0;
    if (LS_LIKELY((bits & 1u) == 0)) {
        value_bytes = (ptrdiff_t)(bits >> 1);
        out->value_bytes = (int32_t)value_bytes;
    }
    ptrdiff_t behind_value = next - at - value_bytes;
    out->headers_count = 0;
    out->headers = next;
    if (LS_LIKELY(behind_value == 1)) return next[-1] == 0;
    if (LS_UNLIKELY(behind_value < 1)) return false;
    at += value_bytes;
    bits = *at++;
    if (LS_UNLIKELY((bits & 0x81u) != 0)) return false;
    out->headers_count = (int32_t)(bits >> 1);
    out->headers = at;
    return ls_record_headers_fill(at, next, out->headers_count);
}

/* Offsets and timestamps of a hostile batch may leave their range, but not the language's rules. */
static LS_ALWAYS_INLINE int64_t ls_add_wrapping(int64_t base, int64_t delta) {
    return (int64_t)((uint64_t)base + (uint64_t)delta);
}

#endif
