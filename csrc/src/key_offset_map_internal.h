/* The map of keys, for the loops over records: hashing and looking up without a call. */
#ifndef LOGSTORE_KEY_OFFSET_MAP_INTERNAL_H
#define LOGSTORE_KEY_OFFSET_MAP_INTERNAL_H

#include <string.h>

#include "logstore/bytes.h"
#include "logstore/key_offset_map.h"

enum { LS_KEY_PARTS_BITS_MAX = 8 };

/* Open addressing with linear probing. `taken` is the offset + 1, so that fresh memory is an empty table. */
typedef struct slot {
    ls_key_hash hash;
    uint64_t taken;
} slot;
_Static_assert(sizeof(slot) == LS_KEY_SLOT_BYTES, "a slot without padding");

/* Grown by itself, so that little is there twice while it is copied. */
typedef struct map_part {
    slot *slots;
    uint32_t slots_count;
    uint32_t room; /* for so many keys more */
} map_part;

struct ls_key_offset_map {
    map_part *parts; /* the whole alone, until it is large */
    map_part whole;
    unsigned parts_bits;
    size_t memory_bytes;
    size_t memory_bytes_max;
    size_t count;
    uint64_t secret[2];
};

/* ---- SipHash-1-3 with 128 bits --------------------------------------------------------------- */

static inline uint64_t load_little(const uint8_t *at) {
    uint64_t word;
    memcpy(&word, at, sizeof word);
    return LS_LITTLE_ENDIAN ? word : LS_SWAP64(word);
}

static inline uint64_t rotate(uint64_t word, unsigned bits) { return word << bits | word >> (64u - bits); }

typedef struct sip_state {
    uint64_t v0, v1, v2, v3;
} sip_state;

static inline void sip_round(sip_state *s) {
    s->v0 += s->v1;
    s->v1 = rotate(s->v1, 13) ^ s->v0;
    s->v0 = rotate(s->v0, 32);
    s->v2 += s->v3;
    s->v3 = rotate(s->v3, 16) ^ s->v2;
    s->v0 += s->v3;
    s->v3 = rotate(s->v3, 21) ^ s->v0;
    s->v2 += s->v1;
    s->v1 = rotate(s->v1, 17) ^ s->v2;
    s->v2 = rotate(s->v2, 32);
}

static inline void sip_word(sip_state *s, uint64_t word) {
    s->v3 ^= word;
    sip_round(s);
    s->v0 ^= word;
}

static inline uint64_t sip_finish(sip_state *s) {
    for (int i = 0; i < 3; i++) sip_round(s);
    return s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
}

/* The last 0 to 7 bytes, and the size in the highest byte. */
static inline uint64_t sip_last_word(const uint8_t *at, size_t size) {
    uint64_t word = (uint64_t)size << 56;
    for (size_t i = 0; i < (size & 7u); i++) word |= (uint64_t)at[i] << (8 * i);
    return word;
}

static inline ls_key_hash ls_key_map_hash(const ls_key_offset_map *map, const uint8_t *key,
                                          size_t key_bytes) {
    sip_state s = {
        map->secret[0] ^ 0x736f6d6570736575u,
        map->secret[1] ^ 0x646f72616e646f6du ^ 0xeeu,
        map->secret[0] ^ 0x6c7967656e657261u,
        map->secret[1] ^ 0x7465646279746573u,
    };
    size_t words_bytes = key_bytes & ~(size_t)7;
    for (size_t i = 0; i < words_bytes; i += 8) sip_word(&s, load_little(key + i));
    sip_word(&s, sip_last_word(words_bytes < key_bytes ? key + words_bytes : key, key_bytes));
    ls_key_hash hash;
    s.v2 ^= 0xeeu;
    hash.low = sip_finish(&s);
    s.v1 ^= 0xddu;
    hash.high = sip_finish(&s);
    return hash;
}

/* ---- look-ups ----------------------------------------------------------------------------------- */

/* The upper bits choose the part, the lower 32 the slot. */
static inline const map_part *part_of(const ls_key_offset_map *map, ls_key_hash hash) {
    return &map->parts[map->parts_bits == 0 ? 0 : hash.low >> (64u - map->parts_bits)];
}

/* Where the search for a hash begins. The part must have slots. */
static inline slot *first_slot(const map_part *part, ls_key_hash hash) {
    return part->slots + ((hash.low & UINT32_MAX) * part->slots_count >> 32);
}

static inline void ls_key_map_prefetch(const ls_key_offset_map *map, ls_key_hash hash) {
#if defined(__GNUC__)
    const map_part *part = part_of(map, hash);
    if (part->slots_count == 0) return;
    const slot *at = first_slot(part, hash);
    __builtin_prefetch(at, 1);
#else
    (void)map;
    (void)hash;
#endif
}

/* The slot that has the hash, or the empty one where it would go: there always is one. */
static inline slot *find_slot(const map_part *part, ls_key_hash hash) {
    slot *at = first_slot(part, hash);
    const slot *end = part->slots + part->slots_count;
    while (at->taken != 0 && (at->hash.low != hash.low || at->hash.high != hash.high)) {
        if (++at == end) at = part->slots;
    }
    return at;
}

/* Room for a new key. False: within the limit there is none, or no memory. Its slot is another one then. */
bool ls_key_map_grow(ls_key_offset_map *map, ls_key_hash hash);

static inline bool ls_key_map_put(ls_key_offset_map *map, ls_key_hash hash, int64_t offset,
                                  int64_t *previous) {
    map_part *part = &map->parts[part_of(map, hash) - map->parts];
    slot *at = part->slots_count == 0 ? NULL : find_slot(part, hash);
    if (at == NULL || at->taken == 0) {
        if (part->room == 0) {
            if (!ls_key_map_grow(map, hash)) return false;
            part = &map->parts[part_of(map, hash) - map->parts];
            at = find_slot(part, hash);
        }
        part->room--;
        map->count++;
        at->hash = hash;
    }
    *previous = (int64_t)(at->taken - 1); /* 0 - 1 is -1 */
    at->taken = (uint64_t)offset + 1;
    return true;
}

static inline int64_t ls_key_map_get(const ls_key_offset_map *map, ls_key_hash hash) {
    const map_part *part = part_of(map, hash);
    return part->slots_count == 0 ? -1 : (int64_t)(find_slot(part, hash)->taken - 1);
}

#endif
