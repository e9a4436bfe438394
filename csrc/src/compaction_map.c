/* The first pass of compaction over records: each key's last offset, and a mark on each record that a later
 * one supersedes.
 *
 * A table that outgrows the caches costs a miss for each record. So once it is larger, keys gather by the
 * part of the table that they belong to, and go in part by part, right after the part was read from front to
 * back. */
#include <stdlib.h>

#include "compaction_walk.h"
#include "key_offset_map_internal.h"

enum {
    WINDOW_RECORDS = 64, /* whose slots are fetched at the same time */
    SUPERSEDED_WORDS_MIN = 128,
    SUPERSEDED_WORDS_MAX = 1 << 22, /* 32 MiB, for 268 million offsets */
    GATHERED_PARTS = 1 << LS_KEY_PARTS_BITS_MAX,
    GATHERED_KEYS_MAX = 4096, /* of a part */
    GATHERING_BYTES = 640 * 1024, /* of the table, from which on it pays */
    GATHERED_SHARE = 4, /* of the table's memory */
    /* Reading a line of the table ahead costs about a tenth of missing it. */
    READ_AHEAD_BYTES_PER_KEY = 10 * 64,
    PREFETCHED_KEYS = 16
};

/* Keys gather in the form that the table has them in. */
typedef slot gathered_key;

struct ls_gathered_keys {
    size_t table_bytes; /* that it was made for */
    uint32_t keys_max;  /* of a part */
    uint32_t counts[GATHERED_PARTS];
    gathered_key keys[]; /* keys_max for each part */
};

static size_t gathered_bytes(uint32_t keys_max) {
    return sizeof(struct ls_gathered_keys) + sizeof(gathered_key) * GATHERED_PARTS * keys_max;
}

size_t ls_compactor_memory_bytes(const ls_compactor *compactor) {
    return compactor->superseded_words * sizeof *compactor->superseded +
           (compactor->gathered != NULL ? gathered_bytes(compactor->gathered->keys_max) : 0);
}

/* A bit for each offset up to this one, as far as the limit goes: what does not fit is looked up again. */
static LS_NOINLINE void cover_offset(ls_compactor *compactor, int64_t offset) {
    uint64_t bits = (uint64_t)offset - (uint64_t)compactor->rules.first_dirty_offset + 1;
    size_t words = compactor->superseded_words + compactor->superseded_words / 8;
    if (words < SUPERSEDED_WORDS_MIN) words = SUPERSEDED_WORDS_MIN;
    if (words > SUPERSEDED_WORDS_MAX) words = SUPERSEDED_WORDS_MAX;
    while (words < SUPERSEDED_WORDS_MAX && words * 64 < bits) words *= 2;
    if (words > SUPERSEDED_WORDS_MAX || words * 64 < bits || !compactor->marks_superseded) {
        compactor->marks_superseded = false; /* the records behind the end are looked up */
        return;
    }
    uint64_t *grown = realloc(compactor->superseded, words * sizeof *grown);
    if (grown == NULL) {
        compactor->marks_superseded = false;
        return;
    }
    memset(grown + compactor->superseded_words, 0, (words - compactor->superseded_words) * sizeof *grown);
    compactor->superseded = grown;
    compactor->superseded_words = words;
    compactor->superseded_end_offset = ls_add_wrapping(compactor->rules.first_dirty_offset,
                                                       (int64_t)(words * 64));
}

/* False: the key is new, and there is no room. Else bits[*found] is the bit of the offset that the key had, if
 * there is one to be set, and its word is on its way into the cache. */
static LS_ALWAYS_INLINE bool put_key(ls_compactor *compactor, const gathered_key *key, uint32_t *bits,
                                     uint32_t *found) {
    uint32_t previous;
    uint64_t bit = key->taken - 1u;
    if (LS_UNLIKELY(!ls_key_map_put(compactor->map, hash_in(key), key->taken, &previous))) {
        int64_t offset = offset_of(compactor->map, key->taken);
        if (offset < compactor->full_offset) compactor->full_offset = offset;
        return false;
    }
    if (LS_UNLIKELY(bit >= (uint64_t)compactor->superseded_words * 64) && compactor->marks_superseded)
        cover_offset(compactor, offset_of(compactor->map, key->taken));
    if (previous != 0 && previous - 1u < (uint64_t)compactor->superseded_words * 64) {
        bits[(*found)++] = previous - 1u;
        LS_PREFETCH_TO_WRITE(compactor->superseded + (previous - 1u) / 64);
    }
    return true;
}

static LS_ALWAYS_INLINE void set_superseded(ls_compactor *compactor, const uint32_t *bits, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) compactor->superseded[bits[i] / 64] |= UINT64_C(1) << (bits[i] % 64);
}

static void read_ahead(ls_compactor *compactor, const map_part *table) {
    const uint8_t *bytes = (const uint8_t *)table->slots;
    size_t table_bytes = (size_t)table->slots_count * sizeof(slot);
    for (size_t at = 0; at < table_bytes; at += 64) compactor->read_ahead += bytes[at];
}

/* Takes in the keys that have gathered for a part of the table, in order of their offsets. Where one finds no
 * room, the round ends before it, whatever else is in the table: a later offset of a key is as true. */
static LS_NOINLINE void put_gathered(ls_compactor *compactor, size_t part) {
    struct ls_gathered_keys *gathered = compactor->gathered;
    const gathered_key *keys = gathered->keys + part * gathered->keys_max;
    uint32_t count = gathered->counts[part];
    const map_part *table = &compactor->map->parts[part];
    uint32_t bits[WINDOW_RECORDS];
    if ((size_t)table->slots_count * sizeof(slot) < (size_t)count * READ_AHEAD_BYTES_PER_KEY)
        read_ahead(compactor, table);
    for (uint32_t i = 0; i < count;) {
        uint32_t end = count - i < WINDOW_RECORDS ? count : i + WINDOW_RECORDS;
        uint32_t found = 0;
        for (; i < end; i++) {
            if (i + PREFETCHED_KEYS < count)
                ls_key_map_prefetch(compactor->map, hash_in(&keys[i + PREFETCHED_KEYS]));
            put_key(compactor, &keys[i], bits, &found);
        }
        set_superseded(compactor, bits, found);
    }
    gathered->counts[part] = 0;
}

void ls_compaction_put_all_gathered(ls_compactor *compactor) {
    if (compactor->gathered != NULL) {
        for (size_t part = 0; part < GATHERED_PARTS; part++) put_gathered(compactor, part);
    }
    free(compactor->gathered);
    compactor->gathered = NULL;
    if (compactor->full_offset < compactor->mapped_end_offset)
        compactor->mapped_end_offset = compactor->full_offset;
}

/* How many keys are to gather for each part of a table of this size. */
static uint32_t keys_to_gather(size_t table_bytes) {
    size_t keys = table_bytes / GATHERED_SHARE / sizeof(gathered_key) / GATHERED_PARTS;
    return keys < GATHERED_KEYS_MAX ? (uint32_t)keys : GATHERED_KEYS_MAX;
}

/* Has keys gather from here on, or more of them, as the table grows. Without memory for it they go the slow
 * way. */
static void adapt_gathering(ls_compactor *compactor) {
    size_t table_bytes = ls_key_offset_map_memory_bytes(compactor->map);
    struct ls_gathered_keys *gathered = compactor->gathered;
    if (compactor->map->parts_bits != LS_KEY_PARTS_BITS_MAX || table_bytes < GATHERING_BYTES) return;
    if (gathered != NULL &&
        (gathered->keys_max == GATHERED_KEYS_MAX || table_bytes / 5 < gathered->table_bytes / 4)) return;
    ls_compaction_put_all_gathered(compactor);
    uint32_t keys_max = keys_to_gather(table_bytes);
    gathered = malloc(gathered_bytes(keys_max));
    if (gathered == NULL) return;
    gathered->table_bytes = table_bytes;
    gathered->keys_max = keys_max;
    memset(gathered->counts, 0, sizeof gathered->counts);
    compactor->gathered = gathered;
}

typedef struct map_window {
    gathered_key keys[WINDOW_RECORDS];
    int count;
} map_window;

/* False: the map is full. */
static bool put_window(ls_compactor *compactor, map_window *window) {
    uint32_t bits[WINDOW_RECORDS];
    uint32_t found = 0;
    bool has_room = true;
    for (int i = 0; i < window->count && has_room; i++)
        has_room = put_key(compactor, &window->keys[i], bits, &found);
    set_superseded(compactor, bits, found);
    window->count = 0;
    return has_room;
}

/* False: the map is full. */
static LS_ALWAYS_INLINE bool take_key(ls_compactor *compactor, map_window *window, ls_key_hash hash,
                                      int64_t offset) {
    gathered_key key;
    set_hash(&key, hash);
    key.taken = taken_by(compactor->map, offset);
    if (LS_UNLIKELY(key.taken == 0)) {
        if (offset < compactor->full_offset) compactor->full_offset = offset;
        return false;
    }
    struct ls_gathered_keys *gathered = compactor->gathered;
    if (gathered == NULL) {
        ls_key_map_prefetch(compactor->map, hash);
        window->keys[window->count++] = key;
        return window->count < WINDOW_RECORDS || put_window(compactor, window);
    }
    size_t part = (size_t)(hash.low >> (64 - LS_KEY_PARTS_BITS_MAX));
    uint32_t count = gathered->counts[part]++;
    gathered->keys[part * gathered->keys_max + count] = key;
    if (LS_LIKELY(count + 1 < gathered->keys_max)) return true;
    put_gathered(compactor, part);
    return compactor->full_offset == INT64_MAX;
}

ls_status ls_compaction_map_records(ls_compactor *compactor, const ls_batch_header *header,
                                    const uint8_t *payload, const uint8_t *payload_end, bool *is_full,
                                    ls_fault *fault) {
    ls_status status = check_codec(header, fault);
    if (status != LS_OK) return status;
    adapt_gathering(compactor);
    *is_full = compactor->full_offset != INT64_MAX; /* what had gathered did not fit */
    if (*is_full) {
        compactor->mapped_end_offset = compactor->full_offset;
        return LS_OK;
    }
    record_walk walk = start_walk(header, payload, payload_end);
    map_window window;
    window.count = 0;
    for (;;) {
        const uint8_t *start;
        ls_record_parts parts;
        status = next_record(&walk, &start, &parts, fault);
        if (status == LS_END) break;
        if (status != LS_OK) return status;
        int64_t offset = header->base_offset + parts.offset_delta;
        if (parts.key_bytes < 0 || offset < compactor->rules.first_dirty_offset ||
            offset >= compactor->rules.first_uncleanable_offset) {
            continue;
        }
        ls_key_hash hash = ls_key_map_hash(compactor->map, parts.key, (size_t)parts.key_bytes);
        compactor->counts.keys_mapped++;
        if (LS_UNLIKELY(!take_key(compactor, &window, hash, offset))) {
            *is_full = true;
            break;
        }
    }
    if (!put_window(compactor, &window)) *is_full = true;
    if (*is_full) compactor->mapped_end_offset = compactor->full_offset;
    return LS_OK;
}
