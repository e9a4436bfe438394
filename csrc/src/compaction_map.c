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
    GATHERED_KEYS_MAX = 512, /* of a part */
    GATHERING_BYTES = 768 * 1024, /* of the table, from which on it pays */
    GATHERED_SHARE = 6, /* of the table's memory: a 16th at most */
    /* Reading a line of the table ahead costs about a tenth of missing it. */
    READ_AHEAD_BYTES_PER_KEY = 10 * 64
};

typedef struct gathered_key {
    ls_key_hash hash;
    int64_t offset;
} gathered_key;

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

/* False: the key is new, and there is no room. */
static LS_ALWAYS_INLINE bool put_key(ls_compactor *compactor, ls_key_hash hash, int64_t offset) {
    int64_t previous;
    if (LS_UNLIKELY(!ls_key_map_put(compactor->map, hash, offset, &previous))) {
        if (offset < compactor->full_offset) compactor->full_offset = offset;
        return false;
    }
    if (LS_UNLIKELY(offset >= compactor->superseded_end_offset) && compactor->marks_superseded)
        cover_offset(compactor, offset);
    if (previous >= 0 && previous < compactor->superseded_end_offset) {
        uint64_t bit = (uint64_t)previous - (uint64_t)compactor->rules.first_dirty_offset;
        compactor->superseded[bit / 64] |= UINT64_C(1) << (bit % 64);
    }
    return true;
}

/* Takes in the keys that have gathered for a part of the table, in order of their offsets. Where one finds no
 * room, the round ends before it, whatever else is in the table: a later offset of a key is as true. */
static LS_NOINLINE void put_gathered(ls_compactor *compactor, size_t part) {
    struct ls_gathered_keys *gathered = compactor->gathered;
    const gathered_key *keys = gathered->keys + part * gathered->keys_max;
    uint32_t count = gathered->counts[part];
    const map_part *table = &compactor->map->parts[part];
    size_t table_bytes = (size_t)table->slots_count * sizeof(slot);
    if (table_bytes < (size_t)count * READ_AHEAD_BYTES_PER_KEY) {
        const uint8_t *bytes = (const uint8_t *)table->slots;
        for (size_t at = 0; at < table_bytes; at += 64) compactor->read_ahead += bytes[at];
    }
    for (uint32_t i = 0; i < count; i++) put_key(compactor, keys[i].hash, keys[i].offset);
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
    for (int i = 0; i < window->count; i++) {
        if (!put_key(compactor, window->keys[i].hash, window->keys[i].offset)) return false;
    }
    window->count = 0;
    return true;
}

static LS_ALWAYS_INLINE bool take_key(ls_compactor *compactor, map_window *window, ls_key_hash hash,
                                      int64_t offset) {
    struct ls_gathered_keys *gathered = compactor->gathered;
    if (gathered == NULL) {
        ls_key_map_prefetch(compactor->map, hash);
        window->keys[window->count++] = (gathered_key){hash, offset};
        return window->count < WINDOW_RECORDS || put_window(compactor, window);
    }
    size_t part = (size_t)(hash.low >> (64 - LS_KEY_PARTS_BITS_MAX));
    uint32_t count = gathered->counts[part]++;
    gathered->keys[part * gathered->keys_max + count] = (gathered_key){hash, offset};
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
    if (!*is_full) *is_full = !put_window(compactor, &window);
    if (*is_full) compactor->mapped_end_offset = compactor->full_offset;
    return LS_OK;
}
