/* From the key of a record to the last offset it was seen at: what a compaction needs to know (log-format, 7.3).
 *
 * Keys are not kept, but a 128-bit hash of each (SipHash-2-4) under a secret that the caller draws at random for each
 * compaction: two keys with the same hash would be one key, and a record lost, so nobody may be able to look for
 * them. Memory is taken once and never grows: 24 bytes a slot, of which 3 in 4 are used, so 32 bytes a key.
 *
 * A map belongs to one thread at a time. */
#ifndef LOGSTORE_KEY_OFFSET_MAP_H
#define LOGSTORE_KEY_OFFSET_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "logstore/status.h"

enum { LS_KEY_SECRET_BYTES = 16, LS_KEY_SLOT_BYTES = 24 };

typedef struct ls_key_hash {
    uint64_t low;
    uint64_t high;
} ls_key_hash;

typedef struct ls_key_offset_map ls_key_offset_map;

/* As many slots as fit into memory_bytes, at least 4. LS_NO_MEMORY; LS_TOO_LARGE for more than 2^32 slots. */
ls_status ls_key_offset_map_create(size_t memory_bytes, const uint8_t secret[LS_KEY_SECRET_BYTES],
                                   ls_key_offset_map **out, ls_fault *fault);
void ls_key_offset_map_free(ls_key_offset_map *map); /* NULL is fine */
void ls_key_offset_map_clear(ls_key_offset_map *map);

size_t ls_key_offset_map_count(const ls_key_offset_map *map);
size_t ls_key_offset_map_capacity(const ls_key_offset_map *map); /* keys */

/* key may be NULL where key_bytes is 0. */
ls_key_hash ls_key_offset_map_hash(const ls_key_offset_map *map, const uint8_t *key, size_t key_bytes);

/* Has the slot of a hash brought near; worth it where other work comes between this and the access. */
void ls_key_offset_map_prefetch(const ls_key_offset_map *map, ls_key_hash hash);

/* The offset of a key becomes this one, 0 or above. False: the key is new and the map is full; nothing changed. */
bool ls_key_offset_map_put(ls_key_offset_map *map, ls_key_hash hash, int64_t offset);

/* -1 for a key that was not put. */
int64_t ls_key_offset_map_get(const ls_key_offset_map *map, ls_key_hash hash);

#endif
