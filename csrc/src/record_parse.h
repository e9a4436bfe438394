/* Parsing one record (log-format, sections 1.4 and 1.5): shared by the iterator, the columns and the leader's check.
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
#else
#define LS_LIKELY(condition) (condition)
#define LS_UNLIKELY(condition) (condition)
#define LS_NOINLINE
#define LS_ALWAYS_INLINE inline
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

/* Decides on the record at `at`: LS_OK or LS_CORRUPT, with the position counted from `start`, behind a batch header. */
ls_status ls_record_parse_careful(const uint8_t *at, const uint8_t *end, const uint8_t *start, ls_record_parts *out,
                                  ls_fault *fault);

/* Whether exactly [at, end) holds `count` headers of lengths below 8192; false gives no verdict. */
bool ls_record_headers_fill(const uint8_t *at, const uint8_t *end, int32_t count);

enum {
    /* Bytes the fast parser may read before it knows the record's length: length 2, attributes 1, timestamp
     * delta 8, offset delta 3, key length 2. */
    LS_RECORD_FAST_BYTES = 16,
    LS_VARINT_LONG = 0x8080 /* both continuation bits: more than two bytes */
};

static LS_ALWAYS_INLINE uint32_t ls_load_two(const uint8_t *at) {
    uint16_t word;
    memcpy(&word, at, sizeof word);
    return LS_LITTLE_ENDIAN ? word : LS_SWAP16(word);
}

/* The bits of a varint of one or two bytes, without a branch: lengths around 64 would be mispredicted. */
static LS_ALWAYS_INLINE uint32_t ls_short_varint_bits(uint32_t word) {
    uint32_t more = (word >> 7) & 1u;
    return (word & 0x7fu) | ((word >> 1) & 0x3f80u & (0u - more));
}

static LS_ALWAYS_INLINE size_t ls_short_varint_size_bytes(uint32_t word) {
    return 1u + ((word >> 7) & 1u);
}

/* A length from its zigzag bits: every negative one is null, -1. */
static LS_ALWAYS_INLINE int32_t ls_nullable_length(uint32_t bits) {
    return (int32_t)((bits >> 1) | (0u - (bits & 1u)));
}

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

static LS_ALWAYS_INLINE bool ls_record_parse_fast(const uint8_t *at, const uint8_t *end, ls_record_parts *out) {
    if (LS_UNLIKELY(end - at < LS_RECORD_FAST_BYTES)) return false;
    uint32_t word = ls_load_two(at);
    uint32_t length_bits = ls_short_varint_bits(word);
    const uint8_t *body = at + ls_short_varint_size_bytes(word);
    ptrdiff_t length = (ptrdiff_t)(length_bits >> 1);
    if (LS_UNLIKELY((word & LS_VARINT_LONG) == LS_VARINT_LONG || (length_bits & 1u) != 0 || length > end - body)) {
        return false;
    }
    /* From here on the next record can be looked at, whatever this one holds. */
    const uint8_t *next = body + length;

    const uint8_t *field = body + 1; /* behind the attributes, which mean nothing */
    if (LS_LIKELY(*field < 0x80u)) {
        out->timestamp_delta = ls_zigzag_decode(*field++);
    } else {
        uint64_t bits = 0;
        size_t size_bytes = ls_wide_varint_bits(field, &bits);
        if (LS_UNLIKELY(size_bytes == 0)) return false;
        out->timestamp_delta = ls_zigzag_decode(bits);
        field += size_bytes;
    }

    uint32_t offset_bits = field[0];
    if (offset_bits < 0x80u) {
        field += 1;
    } else {
        offset_bits = (offset_bits & 0x7fu) | (uint32_t)field[1] << 7;
        if (LS_LIKELY(offset_bits < 0x4000u)) {
            field += 2;
        } else {
            offset_bits = (offset_bits & 0x3fffu) | (uint32_t)field[2] << 14;
            if (LS_UNLIKELY(offset_bits >= 0x200000u)) return false;
            field += 3;
        }
    }
    out->offset_delta = (int32_t)ls_zigzag_decode(offset_bits);

    word = ls_load_two(field);
    uint32_t bits = ls_short_varint_bits(word);
    out->key_bytes = ls_nullable_length(bits);
    out->key = field + ls_short_varint_size_bytes(word);
    /* Behind the key there must be two bytes at least, the value's length and the headers' count. That is both
     * the rule and what makes the next load safe. */
    ptrdiff_t skip = (ptrdiff_t)((bits >> 1) & ((bits & 1u) - 1u));
    if (LS_UNLIKELY((word & LS_VARINT_LONG) == LS_VARINT_LONG || next - out->key < skip + 2)) return false;

    field = out->key + skip;
    word = ls_load_two(field);
    bits = ls_short_varint_bits(word);
    out->value_bytes = ls_nullable_length(bits);
    out->value = field + ls_short_varint_size_bytes(word);
    skip = (ptrdiff_t)((bits >> 1) & ((bits & 1u) - 1u));
    if (LS_UNLIKELY((word & LS_VARINT_LONG) == LS_VARINT_LONG || next - out->value < skip + 1)) return false;

    field = out->value + skip;
    uint32_t count_bits = *field++;
    out->headers = field;
    out->headers_count = (int32_t)(count_bits >> 1);
    out->next = next;
    if (LS_LIKELY(count_bits == 0)) return field == next;
    if (LS_UNLIKELY((count_bits & 0x81u) != 0)) return false;
    return ls_record_headers_fill(field, next, out->headers_count);
}

/* The record's header counts by its own rules; what the batch asks of it is one comparison more. */
static LS_ALWAYS_INLINE bool ls_offset_delta_fits(int32_t delta, int32_t previous_delta, int32_t last_offset_delta) {
    return delta > previous_delta && delta <= last_offset_delta;
}

static LS_ALWAYS_INLINE int64_t ls_add_wrapping(int64_t base, int64_t delta) {
    return (int64_t)((uint64_t)base + (uint64_t)delta);
}

#endif
