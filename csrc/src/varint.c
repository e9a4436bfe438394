#include "logstore/varint.h"

/* Zigzag keeps small negatives small: 0, -1, 1, -2 become 0, 1, 2, 3. The sign is spread by
 * negating an unsigned bit, because shifting a negative value right is up to the compiler. */
static uint64_t zigzag_encode(int64_t value) {
    uint64_t bits = (uint64_t)value;
    return (bits << 1) ^ (0u - (bits >> 63));
}

static int64_t zigzag_decode(uint64_t bits) {
    return (int64_t)((bits >> 1) ^ (0u - (bits & 1u)));
}

/* Bits shifted past the 64th fall off by themselves; the caller narrows for 32. */
static ls_status read_base128(const uint8_t **at, const uint8_t *end, int bytes_max, uint64_t *bits) {
    const uint8_t *next = *at;
    uint64_t value = 0;
    for (int i = 0; i < bytes_max; i++) {
        if (next == end) return LS_TORN;
        uint8_t byte = *next++;
        value |= (uint64_t)(byte & 0x7fu) << (7 * i);
        if (byte < 0x80u) {
            *at = next;
            *bits = value;
            return LS_OK;
        }
    }
    return LS_CORRUPT;
}

static uint8_t *write_base128(uint8_t *at, uint64_t bits) {
    while (bits >= 0x80u) {
        *at++ = (uint8_t)(bits | 0x80u);
        bits >>= 7;
    }
    *at++ = (uint8_t)bits;
    return at;
}

static size_t base128_size_bytes(uint64_t bits) {
    size_t size_bytes = 1;
    while (bits >= 0x80u) {
        bits >>= 7;
        size_bytes++;
    }
    return size_bytes;
}

ls_status ls_varint32_read(const uint8_t **at, const uint8_t *end, int32_t *value) {
    uint64_t bits;
    ls_status status = read_base128(at, end, LS_VARINT32_BYTES_MAX, &bits);
    if (status == LS_OK) *value = (int32_t)zigzag_decode(bits & UINT32_MAX);
    return status;
}

ls_status ls_varint64_read(const uint8_t **at, const uint8_t *end, int64_t *value) {
    uint64_t bits;
    ls_status status = read_base128(at, end, LS_VARINT64_BYTES_MAX, &bits);
    if (status == LS_OK) *value = zigzag_decode(bits);
    return status;
}

/* The zigzag of an int32 is the same number at 32 and at 64 bits, so one writer serves both. */
uint8_t *ls_varint32_write(uint8_t *at, int32_t value) {
    return write_base128(at, zigzag_encode(value));
}

uint8_t *ls_varint64_write(uint8_t *at, int64_t value) {
    return write_base128(at, zigzag_encode(value));
}

size_t ls_varint32_size_bytes(int32_t value) {
    return base128_size_bytes(zigzag_encode(value));
}

size_t ls_varint64_size_bytes(int64_t value) {
    return base128_size_bytes(zigzag_encode(value));
}
