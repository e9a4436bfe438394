#include "logstore/murmur2.h"

static uint32_t load_little_endian(const uint8_t *at) {
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

uint32_t ls_murmur2(const uint8_t *key, size_t key_bytes) {
    const uint32_t multiplier = 0x5bd1e995u;
    /* Java's length is an int, so only its low 32 bits enter the seed. */
    uint32_t hash = 0x9747b28cu ^ (uint32_t)key_bytes;
    size_t rest_bytes = key_bytes;
    for (; rest_bytes >= 4; key += 4, rest_bytes -= 4) {
        uint32_t word = load_little_endian(key) * multiplier;
        word ^= word >> 24;
        hash = hash * multiplier ^ word * multiplier;
    }
    if (rest_bytes > 0) {
        for (size_t i = 0; i < rest_bytes; i++) hash ^= (uint32_t)key[i] << (8 * i);
        hash *= multiplier;
    }
    hash ^= hash >> 13;
    hash *= multiplier;
    hash ^= hash >> 15;
    return hash;
}
