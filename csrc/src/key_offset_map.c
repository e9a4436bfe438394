#include "logstore/key_offset_map.h"

#include <stdlib.h>
#include <string.h>

#include "logstore/bytes.h"

enum { SLOTS_MIN = 4 };

/* Open addressing with linear probing. `taken` is the offset + 1, so that fresh memory is an empty map. */
typedef struct slot {
    ls_key_hash hash;
    uint64_t taken;
} slot;
_Static_assert(sizeof(slot) == LS_KEY_SLOT_BYTES, "a slot without padding");

struct ls_key_offset_map {
    slot *slots;
    uint64_t slots_count;
    size_t count;
    size_t capacity;
    uint64_t secret[2];
};

/* ---- SipHash-2-4 with 128 bits --------------------------------------------------------------- */

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
    sip_round(s);
    s->v0 ^= word;
}

static inline uint64_t sip_finish(sip_state *s) {
    for (int i = 0; i < 4; i++) sip_round(s);
    return s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
}

/* The last 0 to 7 bytes, and the size in the highest byte. */
static inline uint64_t sip_last_word(const uint8_t *at, size_t size) {
    uint64_t word = (uint64_t)size << 56;
    for (size_t i = 0; i < (size & 7u); i++) word |= (uint64_t)at[i] << (8 * i);
    return word;
}

ls_key_hash ls_key_offset_map_hash(const ls_key_offset_map *map, const uint8_t *key, size_t key_bytes) {
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

/* ---- the map --------------------------------------------------------------------------------- */

ls_status ls_key_offset_map_create(size_t memory_bytes, const uint8_t secret[LS_KEY_SECRET_BYTES],
                                   ls_key_offset_map **out, ls_fault *fault) {
    uint64_t slots_count = memory_bytes / LS_KEY_SLOT_BYTES;
    if (slots_count < SLOTS_MIN) slots_count = SLOTS_MIN;
    if (slots_count > UINT32_MAX) {
        return ls_fail(fault, LS_TOO_LARGE, "slots of a key map", -1, UINT32_MAX, (int64_t)slots_count);
    }
    ls_key_offset_map *map = calloc(1, sizeof *map);
    if (map != NULL) map->slots = calloc((size_t)slots_count, sizeof *map->slots);
    if (map == NULL || map->slots == NULL) {
        free(map);
        return ls_fail(fault, LS_NO_MEMORY, "key map", -1, (int64_t)(slots_count * LS_KEY_SLOT_BYTES), 0);
    }
    map->slots_count = slots_count;
    map->capacity = (size_t)(slots_count / 4 * 3 + slots_count % 4 * 3 / 4);
    map->secret[0] = load_little(secret);
    map->secret[1] = load_little(secret + 8);
    *out = map;
    return LS_OK;
}

void ls_key_offset_map_free(ls_key_offset_map *map) {
    if (map == NULL) return;
    free(map->slots);
    free(map);
}

void ls_key_offset_map_clear(ls_key_offset_map *map) {
    memset(map->slots, 0, (size_t)map->slots_count * sizeof *map->slots);
    map->count = 0;
}

size_t ls_key_offset_map_count(const ls_key_offset_map *map) { return map->count; }
size_t ls_key_offset_map_capacity(const ls_key_offset_map *map) { return map->capacity; }

/* Where the search for a hash begins: its upper 32 bits, scaled. */
static inline slot *first_slot(const ls_key_offset_map *map, ls_key_hash hash) {
    return map->slots + ((hash.low >> 32) * map->slots_count >> 32);
}

void ls_key_offset_map_prefetch(const ls_key_offset_map *map, ls_key_hash hash) {
#if defined(__GNUC__)
    const slot *at = first_slot(map, hash);
    __builtin_prefetch(at, 1);
    __builtin_prefetch((const uint8_t *)at + 63, 1); /* where the search goes on */
#else
    (void)map;
    (void)hash;
#endif
}

/* The slot that has the hash, or the empty one where it would go: there always is one. */
static inline slot *find_slot(const ls_key_offset_map *map, ls_key_hash hash) {
    slot *at = first_slot(map, hash);
    const slot *end = map->slots + map->slots_count;
    while (at->taken != 0 && (at->hash.low != hash.low || at->hash.high != hash.high)) {
        if (++at == end) at = map->slots;
    }
    return at;
}

bool ls_key_offset_map_put(ls_key_offset_map *map, ls_key_hash hash, int64_t offset) {
    slot *at = find_slot(map, hash);
    if (at->taken == 0) {
        if (map->count == map->capacity) return false;
        map->count++;
        at->hash = hash;
    }
    at->taken = (uint64_t)offset + 1;
    return true;
}

int64_t ls_key_offset_map_get(const ls_key_offset_map *map, ls_key_hash hash) {
    return (int64_t)(find_slot(map, hash)->taken - 1); /* 0 - 1 is -1 */
}
