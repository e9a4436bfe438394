/* Kafka's key hash: murmur2, 32 bit, seed 0x9747b28c, as the Java client's default partitioner has it. */
#ifndef LOGSTORE_MURMUR2_H
#define LOGSTORE_MURMUR2_H

#include <stddef.h>
#include <stdint.h>

uint32_t ls_murmur2(const uint8_t *key, size_t key_bytes);

/* The partition of a key: (murmur2 & 0x7fffffff) % partition_count; partition_count > 0. */
static inline int32_t ls_partition_for_key(const uint8_t *key, size_t key_bytes, int32_t partition_count) {
    return (int32_t)((ls_murmur2(key, key_bytes) & 0x7fffffffu) % (uint32_t)partition_count);
}

#endif
