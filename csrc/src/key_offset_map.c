#include "logstore/key_offset_map.h"

#include <stdlib.h>

#include "key_offset_map_internal.h"

enum {
    PART_BYTES_MIN = 64 * 1024, /* of the limit: below, there are fewer parts */
    SLOTS_FIRST = 64
};

/* ---- the map --------------------------------------------------------------------------------- */

ls_status ls_key_offset_map_create(size_t memory_bytes_max, const uint8_t secret[LS_KEY_SECRET_BYTES],
                                   ls_key_offset_map **out, ls_fault *fault) {
    ls_key_offset_map *map = calloc(1, sizeof *map);
    if (map == NULL) return ls_fail(fault, LS_NO_MEMORY, "key map", -1, (int64_t)sizeof *map, 0);
    map->memory_bytes_max = memory_bytes_max;
    while (map->parts_bits < LS_KEY_PARTS_BITS_MAX &&
           memory_bytes_max >> (map->parts_bits + 1) >= PART_BYTES_MIN)
        map->parts_bits++;
    map->secret[0] = load_little(secret);
    map->secret[1] = load_little(secret + 8);
    *out = map;
    return LS_OK;
}

void ls_key_offset_map_free(ls_key_offset_map *map) {
    if (map == NULL) return;
    for (size_t i = 0; i < sizeof map->parts / sizeof *map->parts; i++) free(map->parts[i].slots);
    free(map);
}

size_t ls_key_offset_map_count(const ls_key_offset_map *map) { return map->count; }
size_t ls_key_offset_map_memory_bytes(const ls_key_offset_map *map) { return map->memory_bytes; }

static uint32_t keys_max(uint64_t slots_count) { return (uint32_t)(slots_count * 4 / 5); }

/* An eighth more slots, or what the limit leaves. False: too little, or no memory. */
bool ls_key_map_grow(ls_key_offset_map *map, map_part *grown) {
    uint64_t old_count = grown->slots_count;
    uint64_t slots_count = old_count == 0 ? SLOTS_FIRST : old_count + old_count / 8;
    uint64_t left = (map->memory_bytes_max - map->memory_bytes) / LS_KEY_SLOT_BYTES;
    if (slots_count > old_count + left) slots_count = old_count + left;
    if (slots_count > UINT32_MAX) slots_count = UINT32_MAX;
    if (keys_max(slots_count) <= keys_max(old_count) ||
        slots_count - old_count < old_count / 32) return false;
    slot *slots = calloc((size_t)slots_count, sizeof *slots);
    if (slots == NULL) return false;
    map_part old = *grown;
    grown->slots = slots;
    grown->slots_count = (uint32_t)slots_count;
    grown->room = keys_max(slots_count) - (keys_max(old_count) - old.room);
    for (uint64_t i = 0; i < old_count; i++) {
        if (old.slots[i].taken != 0) *find_slot(grown, old.slots[i].hash) = old.slots[i];
    }
    free(old.slots);
    map->memory_bytes += (size_t)(slots_count - old_count) * LS_KEY_SLOT_BYTES;
    return true;
}

ls_key_hash ls_key_offset_map_hash(const ls_key_offset_map *map, const uint8_t *key, size_t key_bytes) {
    return ls_key_map_hash(map, key, key_bytes);
}

bool ls_key_offset_map_put(ls_key_offset_map *map, ls_key_hash hash, int64_t offset, int64_t *previous) {
    return ls_key_map_put(map, hash, offset, previous);
}

int64_t ls_key_offset_map_get(const ls_key_offset_map *map, ls_key_hash hash) {
    return ls_key_map_get(map, hash);
}
