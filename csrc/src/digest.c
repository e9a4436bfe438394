#include "logstore/digest.h"

#include <string.h>

#include "logstore/bytes.h"

/* The body and the end of MurmurHash3's 128-bit variant, whose two words start as the digest so far. */

enum { BLOCK_BYTES = 16, PADDED_BYTES = 64 /* a header of 61 bytes and three zeros: four blocks */ };
static const uint64_t FACTOR_HIGH = UINT64_C(0x87c37b91114253d5);
static const uint64_t FACTOR_LOW = UINT64_C(0x4cf5ad432745937f);

static uint64_t rotate(uint64_t word, int bits) { return word << bits | word >> (64 - bits); }

static uint64_t spread(uint64_t word) {
    word ^= word >> 33;
    word *= UINT64_C(0xff51afd7ed558ccd);
    word ^= word >> 33;
    word *= UINT64_C(0xc4ceb9fe1a85ec53);
    return word ^ word >> 33;
}

void ls_digest_extend(ls_digest *digest, const ls_batch_header *header) {
    uint8_t bytes[PADDED_BYTES] = {0};
    ls_batch_header_write(header, bytes);
    uint64_t high = digest->high;
    uint64_t low = digest->low;
    for (int at = 0; at < PADDED_BYTES; at += BLOCK_BYTES) {
        high ^= rotate(ls_load_u64(bytes + at) * FACTOR_HIGH, 31) * FACTOR_LOW;
        high = (rotate(high, 27) + low) * 5 + 0x52dce729;
        low ^= rotate(ls_load_u64(bytes + at + 8) * FACTOR_LOW, 33) * FACTOR_HIGH;
        low = (rotate(low, 31) + high) * 5 + 0x38495ab5;
    }
    high ^= LS_BATCH_HEADER_BYTES;
    low ^= LS_BATCH_HEADER_BYTES;
    high += low;
    low += high;
    high = spread(high);
    low = spread(low);
    high += low;
    low += high;
    digest->high = high;
    digest->low = low;
}

void ls_digest_write(const ls_digest *digest, uint8_t *out) {
    ls_store_u64(out, digest->high);
    ls_store_u64(out + 8, digest->low);
}
