#include "logstore/key_offset_map.h"

#include <stdlib.h>

#include "key_offset_map_internal.h"

enum {
    SLOTS_FIRST = 64,
    SLOTS_OF_PART_MIN = 8,
    SPLIT_SLOTS = 32 * 1024 /* 640 KiB: what is there twice while it grows stays as small */
};

/* ---- the map --------------------------------------------------------------------------------- */

ls_status ls_key_offset_map_create(size_t memory_bytes_max, const uint8_t secret[LS_KEY_SECRET_BYTES],
                                   ls_key_offset_map **out, ls_fault *fault) {
    ls_key_offset_map *map = calloc(1, sizeof *map);
    if (map == NULL) return ls_fail(fault, LS_NO_MEMORY, "key map", -1, (int64_t)sizeof *map, 0);
    map->parts = &map->whole;
    map->memory_bytes_max = memory_bytes_max;
    map->secret[0] = load_little(secret);
    map->secret[1] = load_little(secret + 8);
    *out = map;
    return LS_OK;
}

void ls_key_offset_map_start(ls_key_offset_map *map, int64_t first_offset) { map->first_offset = first_offset; }

static void free_parts(map_part *parts, size_t count) {
    for (size_t i = 0; i < count; i++) free(parts[i].slots);
}

void ls_key_offset_map_free(ls_key_offset_map *map) {
    if (map == NULL) return;
    free_parts(map->parts, (size_t)1 << map->parts_bits);
    if (map->parts != &map->whole) free(map->parts);
    free(map);
}

static uint32_t keys_max(uint64_t slots_count) { return (uint32_t)(slots_count * 4 / 5); }

size_t ls_key_offset_map_count(const ls_key_offset_map *map) {
    size_t count = 0;
    for (size_t i = 0; i < (size_t)1 << map->parts_bits; i++)
        count += keys_max(map->parts[i].slots_count) - map->parts[i].room;
    return count;
}

size_t ls_key_offset_map_memory_bytes(const ls_key_offset_map *map) {
    return atomic_load_explicit(&map->memory_bytes, memory_order_relaxed);
}

/* Cuts the one table into parts, each a little larger than what it holds. False: not within the limit, or no
 * memory; nothing has changed. */
static bool split(ls_key_offset_map *map) {
    enum { PARTS = 1 << LS_KEY_PARTS_BITS_MAX };
    const map_part whole = map->whole;
    uint32_t counts[PARTS] = {0};
    for (uint32_t i = 0; i < whole.slots_count; i++) {
        if (whole.slots[i].taken != 0) counts[hash_in(&whole.slots[i]).low >> (64 - LS_KEY_PARTS_BITS_MAX)]++;
    }
    map_part *parts = calloc(PARTS, sizeof *parts);
    if (parts == NULL) return false;
    size_t memory_bytes = PARTS * sizeof *parts;
    for (size_t part = 0; part < PARTS; part++) {
        uint32_t slots_count = counts[part] + counts[part] / 3 + SLOTS_OF_PART_MIN;
        parts[part].slots_count = slots_count;
        parts[part].room = keys_max(slots_count) - counts[part];
        parts[part].slots = calloc(slots_count, sizeof *parts[part].slots);
        memory_bytes += slots_count * sizeof *parts[part].slots;
        if (parts[part].slots == NULL || memory_bytes > map->memory_bytes_max) {
            free_parts(parts, PARTS);
            free(parts);
            return false;
        }
    }
    map->parts = parts;
    map->parts_bits = LS_KEY_PARTS_BITS_MAX;
    atomic_store_explicit(&map->memory_bytes, memory_bytes, memory_order_relaxed);
    for (uint32_t i = 0; i < whole.slots_count; i++) {
        const slot *taken = &whole.slots[i];
        if (taken->taken != 0) *find_slot(part_of(map, hash_in(taken)), hash_in(taken)) = *taken;
    }
    free(whole.slots);
    map->whole = (map_part){0};
    return true;
}

/* False: another part has grown meanwhile, and there is less left. */
static bool reserve_memory(ls_key_offset_map *map, size_t more_bytes) {
    size_t before = ls_key_offset_map_memory_bytes(map);
    do {
        if (more_bytes > map->memory_bytes_max - before) return false;
    } while (!atomic_compare_exchange_weak_explicit(&map->memory_bytes, &before, before + more_bytes,
                                                    memory_order_relaxed, memory_order_relaxed));
    return true;
}

/* A sixth more slots, or what the limit leaves. */
bool ls_key_map_grow(ls_key_offset_map *map, ls_key_hash hash) {
    if (map->parts_bits == 0 && map->whole.slots_count >= SPLIT_SLOTS && split(map) &&
        part_of(map, hash)->room > 0) {
        return true;
    }
    map_part *grown = &map->parts[part_of(map, hash) - map->parts];
    uint64_t old_count = grown->slots_count;
    uint64_t slots_count = old_count == 0 ? SLOTS_FIRST : old_count + old_count / 6;
    uint64_t left = (map->memory_bytes_max - ls_key_offset_map_memory_bytes(map)) / LS_KEY_SLOT_BYTES;
    if (slots_count > old_count + left) slots_count = old_count + left;
    if (slots_count > UINT32_MAX) slots_count = UINT32_MAX;
    if (keys_max(slots_count) <= keys_max(old_count) ||
        slots_count - old_count < old_count / 32) return false;
    size_t more_bytes = (size_t)(slots_count - old_count) * LS_KEY_SLOT_BYTES;
    if (!reserve_memory(map, more_bytes)) return false;
    slot *slots = calloc((size_t)slots_count, sizeof *slots);
    if (slots == NULL) {
        atomic_fetch_sub_explicit(&map->memory_bytes, more_bytes, memory_order_relaxed);
        return false;
    }
    map_part old = *grown;
    grown->slots = slots;
    grown->slots_count = (uint32_t)slots_count;
    grown->room = keys_max(slots_count) - (keys_max(old_count) - old.room);
    for (uint64_t i = 0; i < old_count; i++) {
        if (old.slots[i].taken != 0) *find_slot(grown, hash_in(&old.slots[i])) = old.slots[i];
    }
    free(old.slots);
    return true;
}

ls_key_hash ls_key_offset_map_hash(const ls_key_offset_map *map, const uint8_t *key, size_t key_bytes) {
    return ls_key_map_hash(map, key, key_bytes);
}

bool ls_key_offset_map_put(ls_key_offset_map *map, ls_key_hash hash, int64_t offset, int64_t *previous) {
    uint32_t taken = taken_by(map, offset);
    uint32_t previously_taken;
    if (taken == 0 || !ls_key_map_put(map, hash, taken, &previously_taken)) return false;
    *previous = offset_of(map, previously_taken);
    return true;
}

int64_t ls_key_offset_map_get(const ls_key_offset_map *map, ls_key_hash hash) {
    return ls_key_map_get(map, hash);
}
