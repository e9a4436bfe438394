/* From the key of a record to the last offset it was seen at: what a compaction needs to know (log-format,
 * 7.3).
 *
 * Keys are not kept, but a 128-bit hash of each (SipHash-1-3) under a secret that the caller draws at random
 * for each compaction: two keys with the same hash would be one key, and a record lost, so nobody may be able
 * to look for them. A slot takes 20 bytes, since offsets are kept as distances of 32 bits from a first one, and
 * four in five are used: memory is 25 to 30 bytes a key, be they few or many, and never passes the limit that it
 * was made with (but for a table of at most 1 MiB, or one part in 256 of a larger one, which is there twice while
 * it grows).
 *
 * A map belongs to one thread at a time, and to the second one that a compaction has. */
#ifndef LOGSTORE_KEY_OFFSET_MAP_H
#define LOGSTORE_KEY_OFFSET_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "logstore/status.h"

enum { LS_KEY_SECRET_BYTES = 16, LS_KEY_SLOT_BYTES = 20 };

typedef struct ls_key_hash {
    uint64_t low;
    uint64_t high;
} ls_key_hash;

typedef struct ls_key_offset_map ls_key_offset_map;

/* LS_NO_MEMORY. Nothing but the map itself is allocated until the first key comes. */
ls_status ls_key_offset_map_create(size_t memory_bytes_max, const uint8_t secret[LS_KEY_SECRET_BYTES],
                                   ls_key_offset_map **out, ls_fault *fault);
void ls_key_offset_map_free(ls_key_offset_map *map); /* NULL is fine */

/* The smallest offset that will be put, 0 or above, unless it is 0. The map must be empty. */
void ls_key_offset_map_start(ls_key_offset_map *map, int64_t first_offset);

size_t ls_key_offset_map_count(const ls_key_offset_map *map);        /* keys */
size_t ls_key_offset_map_memory_bytes(const ls_key_offset_map *map); /* allocated for them */

/* key may be NULL where key_bytes is 0. */
ls_key_hash ls_key_offset_map_hash(const ls_key_offset_map *map, const uint8_t *key, size_t key_bytes);

/* The offset of a key becomes this one, at or above the first; *previous is what it was, -1 for a new key. False:
 * the key is new, and there is no room (or no memory), or the offset is more than four billion (UINT32_MAX - 1)
 * above the first; nothing has changed. */
bool ls_key_offset_map_put(ls_key_offset_map *map, ls_key_hash hash, int64_t offset, int64_t *previous);

/* -1 for a key that was not put. */
int64_t ls_key_offset_map_get(const ls_key_offset_map *map, ls_key_hash hash);

#endif
