/* The map of keys, for the loops over records: hashing and looking up without a call. */
#ifndef LOGSTORE_KEY_OFFSET_MAP_INTERNAL_H
#define LOGSTORE_KEY_OFFSET_MAP_INTERNAL_H

#include <stdatomic.h>
#include <string.h>

#include "logstore/bytes.h"
#include "logstore/key_offset_map.h"

enum { LS_KEY_PARTS_BITS_MAX = 8 };

/* Open addressing with linear probing. `taken` is the distance from the first offset + 1, so that fresh memory is
 * an empty table. The hash is four words of 32 bits for the sake of the slot's size alone. */
typedef struct slot {
    uint32_t hash[4];
    uint32_t taken;
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
    atomic_size_t memory_bytes; /* parts grow side by side */
    size_t memory_bytes_max;
    int64_t first_offset;
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

/* The last 0 to 7 bytes of a key, and its size in the highest byte. Reads overlap instead of going byte by byte. */
static inline uint64_t sip_last_word(const uint8_t *key, size_t key_bytes) {
    uint64_t word = (uint64_t)key_bytes << 56;
    unsigned rest = (unsigned)(key_bytes & 7u);
    if (rest == 0) return word;
    const uint8_t *at = key + (key_bytes - rest);
    if (key_bytes >= 8) return word | load_little(key + key_bytes - 8) >> (64u - 8u * rest);
    for (unsigned i = 0; i < rest; i++) word |= (uint64_t)at[i] << (8u * i);
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
    sip_word(&s, sip_last_word(key, key_bytes));
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

#if defined(__GNUC__)
#define LS_PREFETCH_TO_WRITE(address) __builtin_prefetch((address), 1)
#else
#define LS_PREFETCH_TO_WRITE(address) ((void)(address))
#endif

static inline void ls_key_map_prefetch(const ls_key_offset_map *map, ls_key_hash hash) {
    const map_part *part = part_of(map, hash);
    if (part->slots_count != 0) LS_PREFETCH_TO_WRITE(first_slot(part, hash));
}

static inline ls_key_hash hash_in(const slot *at) {
    ls_key_hash hash;
    memcpy(&hash, at->hash, sizeof hash);
    return hash;
}

static inline void set_hash(slot *at, ls_key_hash hash) { memcpy(at->hash, &hash, sizeof at->hash); }

/* What is kept of an offset at or above the first. 0: it is too far from it. */
static inline uint32_t taken_by(const ls_key_offset_map *map, int64_t offset) {
    uint64_t distance = (uint64_t)offset - (uint64_t)map->first_offset;
    return distance < UINT32_MAX ? (uint32_t)distance + 1u : 0;
}

static inline int64_t offset_of(const ls_key_offset_map *map, uint32_t taken) {
    return taken == 0 ? -1 : map->first_offset + (int64_t)(taken - 1u);
}

/* The slot that has the hash, or the empty one where it would go: there always is one. */
static inline slot *find_slot(const map_part *part, ls_key_hash hash) {
    slot *at = first_slot(part, hash);
    const slot *end = part->slots + part->slots_count;
    while (at->taken != 0) {
        ls_key_hash found = hash_in(at);
        if (((found.low ^ hash.low) | (found.high ^ hash.high)) == 0) break;
        if (++at == end) at = part->slots;
    }
    return at;
}

/* Room for a new key. False: within the limit there is none, or no memory. Its slot is another one then. */
bool ls_key_map_grow(ls_key_offset_map *map, ls_key_hash hash);

/* The same as ls_key_offset_map_put, but for offsets as taken_by gives them: neither is 0, but *previous for a new
 * key. Once the map has parts, threads may put keys of different ones at the same time. */
static inline bool ls_key_map_put(ls_key_offset_map *map, ls_key_hash hash, uint32_t taken,
                                  uint32_t *previous) {
    map_part *part = &map->parts[part_of(map, hash) - map->parts];
    slot *at = part->slots_count == 0 ? NULL : find_slot(part, hash);
    if (at == NULL || at->taken == 0) {
        if (part->room == 0) {
            if (!ls_key_map_grow(map, hash)) return false;
            part = &map->parts[part_of(map, hash) - map->parts];
            at = find_slot(part, hash);
        }
        part->room--;
        set_hash(at, hash);
    }
    *previous = at->taken;
    at->taken = taken;
    return true;
}

static inline int64_t ls_key_map_get(const ls_key_offset_map *map, ls_key_hash hash) {
    const map_part *part = part_of(map, hash);
    return part->slots_count == 0 ? -1 : offset_of(map, find_slot(part, hash)->taken);
}

#endif
