/* The part that x86 and ARM share, written over one CRC instruction. An instruction's result arrives
 * after 3 cycles but one can start in each, so three stretches of the input run side by side, and
 * are joined by shifting the first two over what follows them.
 *
 * Included once by a file that has defined:
 *   STREAMS_TARGET                     the function attribute that admits the instructions
 *   streams_state                      the type of the CRC instruction's result for _u64; a wider one
 *                                      than 32 bits has zeros above, and saves a step that clears them
 *   streams_u8, _u32, _u64(crc, v)     the CRC instruction
 *   streams_clmul(a, b)                optional: the low 64 bits of the carry-less product
 * A state here is the CRC instruction's, which is the complement of a CRC. */
#ifndef LOGSTORE_CRC32C_STREAMS_H
#define LOGSTORE_CRC32C_STREAMS_H

#include "crc32c_internal.h"

/* Fewer than 8 bytes in total. */
STREAMS_TARGET static inline streams_state streams_few(streams_state state, const uint8_t *at, size_t size) {
    uint32_t crc = (uint32_t)state;
    if (size & 4u) {
        crc = streams_u32(crc, ls_crc32c_load32(at));
        at += 4;
    }
    for (size &= 3u; size > 0; size--) crc = streams_u8(crc, *at++);
    return crc;
}

/* The last 0 to 7 bytes before `end`, of an input of at least 8. They are taken as the end of a word
 * that starts with zeros, which change nothing; the part of the state that lies beyond them is
 * carried over. No branch, and one step of the CRC. */
STREAMS_TARGET static inline streams_state streams_tail(streams_state crc, const uint8_t *end, size_t size) {
    unsigned bits = 8u * (unsigned)size;
    uint64_t last = ls_crc32c_load64(end - 8) >> 8 >> (56u - bits);
    uint64_t word = (last ^ crc) << 8 << (56u - bits);
    return streams_u64(0, word) ^ (streams_state)((uint64_t)crc >> bits);
}

/* One word after the other; at least 8 bytes lie before at + size. */
STREAMS_TARGET static inline streams_state streams_serial(streams_state crc, const uint8_t *at, size_t size) {
    for (; size >= 8; at += 8, size -= 8) crc = streams_u64(crc, ls_crc32c_load64(at));
    return streams_tail(crc, at + size, size);
}

#if defined(streams_clmul)

/* The longest stretch whose double is still in the table of near shifts. */
enum { STREAMS_WORDS_MAX = 127, STREAMS_BYTES_MIN = 72 };

/* Three stretches of `words` words each, 1 to STREAMS_WORDS_MAX. */
STREAMS_TARGET static inline streams_state streams_three(streams_state crc, const uint8_t *at, size_t words) {
    const uint8_t *at1 = at + 8 * words;
    const uint8_t *at2 = at + 16 * words;
    uint64_t shift0 = ls_crc32c_near[2 * words];
    uint64_t shift1 = ls_crc32c_near[words];
    streams_state crc1 = 0;
    streams_state crc2 = 0;
    for (size_t i = 0; i < words - 1; i++) {
        crc = streams_u64(crc, ls_crc32c_load64(at + 8 * i));
        crc1 = streams_u64(crc1, ls_crc32c_load64(at1 + 8 * i));
        crc2 = streams_u64(crc2, ls_crc32c_load64(at2 + 8 * i));
    }
    crc = streams_u64(crc, ls_crc32c_load64(at1 - 8));
    crc1 = streams_u64(crc1, ls_crc32c_load64(at2 - 8));
    /* The last step of the third stretch also reduces the two products. */
    uint64_t moved = streams_clmul(crc, shift0) ^ streams_clmul(crc1, shift1);
    return streams_u64(crc2, ls_crc32c_load64(at2 + 8 * words - 8) ^ moved);
}

/* Any input of at least 8 bytes. */
STREAMS_TARGET static inline streams_state streams_any(streams_state crc, const uint8_t *at, size_t size) {
    while (size >= STREAMS_BYTES_MIN) {
        size_t words = size / 24;
        if (words > STREAMS_WORDS_MAX) words = STREAMS_WORDS_MAX;
        crc = streams_three(crc, at, words);
        at += 24 * words;
        size -= 24 * words;
    }
    return streams_serial(crc, at, size);
}

/* x^(64 words - 33) for up to 65535 words (512 KiB less one): two look-ups and one product. */
STREAMS_TARGET static inline uint64_t streams_shift(size_t words) {
    return streams_u64(0, streams_clmul(ls_crc32c_near[words & 0xffu], ls_crc32c_far[words >> 8]));
}

#else

/* Without a carry-less multiply a shift costs about 100 cycles: two sizes of stretches, long and short. */
enum { STREAMS_LONG_WORDS = 512, STREAMS_SHORT_WORDS = 64 };

STREAMS_TARGET static inline streams_state streams_three(streams_state crc, const uint8_t *at, size_t words,
                                                         uint32_t shift0, uint32_t shift1) {
    streams_state crc1 = 0;
    streams_state crc2 = 0;
    for (size_t i = 0; i < words; i++) {
        crc = streams_u64(crc, ls_crc32c_load64(at + 8 * i));
        crc1 = streams_u64(crc1, ls_crc32c_load64(at + 8 * (words + i)));
        crc2 = streams_u64(crc2, ls_crc32c_load64(at + 8 * (2 * words + i)));
    }
    return ls_crc32c_multiply((uint32_t)crc, shift0) ^ ls_crc32c_multiply((uint32_t)crc1, shift1) ^ crc2;
}

/* Any input of at least 8 bytes. A stretch of 2^n words is shifted by x^(2^(n + 6)). */
STREAMS_TARGET static inline streams_state streams_any(streams_state crc, const uint8_t *at, size_t size) {
    const size_t long_bytes = 24 * STREAMS_LONG_WORDS;
    const size_t short_bytes = 24 * STREAMS_SHORT_WORDS;
    for (; size >= long_bytes; at += long_bytes, size -= long_bytes) {
        crc = streams_three(crc, at, STREAMS_LONG_WORDS, ls_crc32c_squares[16], ls_crc32c_squares[15]);
    }
    for (; size >= short_bytes; at += short_bytes, size -= short_bytes) {
        crc = streams_three(crc, at, STREAMS_SHORT_WORDS, ls_crc32c_squares[13], ls_crc32c_squares[12]);
    }
    return streams_serial(crc, at, size);
}

#endif
#endif
