/* The first pass of compaction over records: each key's last offset, and a mark on each record that a later
 * one supersedes.
 *
 * A table that outgrows the caches costs a miss for each record. So once it is larger, keys gather by the
 * part of the table that they belong to, and go in part by part, right after the part was read from front to
 * back. Parts are tables of their own: where there is a second thread, it takes some of them. */
#include <stdlib.h>

#include "compaction_keys.h"
#include "logstore/work_ahead.h"

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
    PREFETCHED_KEYS = 16,
    HASHED_KEYS = 512, /* before they go into the map */
    SHARED_PARTS_MIN = 4 /* fewer are not worth waking another thread */
};

struct ls_gathered_keys {
    size_t table_bytes; /* that it was made for */
    uint32_t keys_max;  /* of a part */
    uint32_t last_taken; /* of all that gathered: offsets rise */
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

/* Takes in keys in order of their offsets, up to one that finds no room. The round ends before that, whatever else is
 * in the table: a later offset of a key is as true. */
static LS_NOINLINE void put_keys(ls_compactor *compactor, const gathered_key *keys, size_t count) {
    uint32_t bits[WINDOW_RECORDS];
    bool has_room = true;
    for (size_t i = 0; i < count && has_room;) {
        size_t end = count - i < WINDOW_RECORDS ? count : i + WINDOW_RECORDS;
        uint32_t found = 0;
        for (; i < end && has_room; i++) {
            if (i + PREFETCHED_KEYS < count)
                ls_key_map_prefetch(compactor->map, hash_in(&keys[i + PREFETCHED_KEYS]));
            has_room = put_key(compactor, &keys[i], bits, &found);
        }
        set_superseded(compactor, bits, found);
    }
}

/* The keys of one part on their way into the table, by either thread. */
typedef struct part_job {
    uint32_t part;
    uint32_t superseded_count; /* the keys of the part begin with as many whose `taken` is that of a superseded record */
    int64_t full_offset;       /* of the key that found no room; INT64_MAX: all did */
    uint64_t read_ahead;       /* of no meaning, but nothing that may be left out */
} part_job;

static uint64_t read_ahead(const map_part *table) {
    const uint8_t *bytes = (const uint8_t *)table->slots;
    size_t table_bytes = (size_t)table->slots_count * sizeof(slot);
    uint64_t sum = 0;
    for (size_t at = 0; at < table_bytes; at += 64) sum += bytes[at];
    return sum;
}

/* Touches the part and its keys, and nothing else that another thread does. */
static void put_part(void *context, void *argument, int worker) {
    const ls_compactor *compactor = context;
    ls_key_offset_map *map = compactor->map;
    const struct ls_gathered_keys *gathered = compactor->gathered;
    part_job *job = argument;
    const map_part *table = &map->parts[job->part];
    gathered_key *keys = compactor->gathered->keys + (size_t)job->part * gathered->keys_max;
    uint32_t count = gathered->counts[job->part];
    uint32_t superseded = 0;
    (void)worker;
    job->full_offset = INT64_MAX;
    job->read_ahead = (size_t)table->slots_count * sizeof(slot) < (size_t)count * READ_AHEAD_BYTES_PER_KEY
                          ? read_ahead(table)
                          : 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t previous;
        if (i + PREFETCHED_KEYS < count) ls_key_map_prefetch(map, hash_in(&keys[i + PREFETCHED_KEYS]));
        if (LS_UNLIKELY(!ls_key_map_put(map, hash_in(&keys[i]), keys[i].taken, &previous))) {
            job->full_offset = offset_of(map, keys[i].taken);
            break;
        }
        if (previous != 0) keys[superseded++].taken = previous;
    }
    job->superseded_count = superseded;
}

/* By the caller alone, whoever has put the part: marks are shared by all of them. */
static void finish_part(ls_compactor *compactor, const part_job *job) {
    struct ls_gathered_keys *gathered = compactor->gathered;
    const gathered_key *keys = gathered->keys + (size_t)job->part * gathered->keys_max;
    uint64_t bits = (uint64_t)compactor->superseded_words * 64;
    for (uint32_t i = 0; i < job->superseded_count; i++) {
        uint32_t bit = keys[i].taken - 1u;
        if (LS_LIKELY(bit < bits)) compactor->superseded[bit / 64] |= UINT64_C(1) << (bit % 64);
    }
    if (job->full_offset < compactor->full_offset) compactor->full_offset = job->full_offset;
    compactor->read_ahead += job->read_ahead;
    gathered->counts[job->part] = 0;
}

/* Whether there is a second thread for parts, which begins with the first that are many. */
static bool shares_parts(ls_compactor *compactor) {
    if (!compactor->shares_parts) return false;
    if (compactor->parts_work == NULL) {
        compactor->parts_work = ls_work_ahead_create(put_part, compactor);
        if (compactor->parts_work == NULL) compactor->shares_parts = false; /* and is not asked for again */
    }
    return compactor->parts_work != NULL && ls_work_ahead_is_usable(compactor->parts_work);
}

/* Has all parts of so many gathered keys put, and no others. */
static LS_NOINLINE void put_parts(ls_compactor *compactor, uint32_t count_min) {
    struct ls_gathered_keys *gathered = compactor->gathered;
    part_job jobs[LS_WORK_AHEAD_MAX];
    size_t begun = 0;
    size_t due = 0;
    if (compactor->marks_superseded && gathered->last_taken > (uint64_t)compactor->superseded_words * 64)
        cover_offset(compactor, offset_of(compactor->map, gathered->last_taken));
    for (size_t part = 0; part < GATHERED_PARTS; part++) due += gathered->counts[part] >= count_min;
    ls_work_ahead *work = due >= SHARED_PARTS_MIN && shares_parts(compactor) ? compactor->parts_work : NULL;
    for (uint32_t part = 0; part < GATHERED_PARTS; part++) {
        if (gathered->counts[part] < count_min) continue;
        if (work != NULL && ls_work_ahead_count(work) == LS_WORK_AHEAD_MAX)
            finish_part(compactor, ls_work_ahead_take(work));
        part_job *job = &jobs[begun++ % LS_WORK_AHEAD_MAX];
        job->part = part;
        if (work != NULL) {
            ls_work_ahead_put(work, job);
        } else {
            put_part(compactor, job, 0);
            finish_part(compactor, job);
        }
    }
    while (work != NULL && ls_work_ahead_count(work) > 0) finish_part(compactor, ls_work_ahead_take(work));
}

/* Where one part is full the others nearly are, unless some keys come far more often than most. */
static void put_full_parts(ls_compactor *compactor) {
    uint32_t keys_max = compactor->gathered->keys_max;
    put_parts(compactor, compactor->shares_parts ? keys_max - keys_max / 4 : keys_max);
}

void ls_compaction_put_all_gathered(ls_compactor *compactor) {
    if (compactor->gathered != NULL) put_parts(compactor, 1);
    free(compactor->gathered);
    compactor->gathered = NULL;
    if (compactor->full_offset < compactor->mapped_end_offset)
        compactor->mapped_end_offset = compactor->full_offset;
}

void ls_compaction_share_no_parts(ls_compactor *compactor) {
    ls_work_ahead_free(compactor->parts_work);
    compactor->parts_work = NULL;
    compactor->shares_parts = false;
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
    gathered->last_taken = 0;
    memset(gathered->counts, 0, sizeof gathered->counts);
    compactor->gathered = gathered;
}

bool ls_compaction_map_keys(ls_compactor *compactor, const gathered_key *keys, size_t count) {
    compactor->counts.keys_mapped += (int64_t)count;
    adapt_gathering(compactor);
    struct ls_gathered_keys *gathered = compactor->gathered;
    if (gathered == NULL) {
        put_keys(compactor, keys, count);
    } else {
        for (size_t i = 0; i < count; i++) {
            size_t part = (size_t)(hash_in(&keys[i]).low >> (64 - LS_KEY_PARTS_BITS_MAX));
            uint32_t gathered_count = gathered->counts[part]++;
            gathered->keys[part * gathered->keys_max + gathered_count] = keys[i];
            if (LS_UNLIKELY(gathered_count + 1 == gathered->keys_max)) {
                gathered->last_taken = keys[i].taken;
                put_full_parts(compactor);
            }
        }
        if (count > 0) gathered->last_taken = keys[count - 1].taken;
    }
    if (LS_LIKELY(compactor->full_offset == INT64_MAX)) return true;
    compactor->mapped_end_offset = compactor->full_offset;
    return false;
}

ls_status ls_compaction_hash_keys(ls_compactor *compactor, record_walk *walk, gathered_key *keys, size_t keys_max,
                                  size_t *count, ls_fault *fault) {
    size_t taken_in = 0;
    ls_status status = LS_OK;
    while (taken_in < keys_max) {
        const uint8_t *start;
        ls_record_parts parts;
        status = next_record(walk, &start, &parts, fault);
        if (status != LS_OK) break;
        int64_t offset = walk->header->base_offset + parts.offset_delta;
        if (parts.key_bytes < 0 || offset < compactor->rules.first_dirty_offset ||
            offset >= compactor->rules.first_uncleanable_offset) {
            continue;
        }
        gathered_key *key = &keys[taken_in];
        key->taken = taken_by(compactor->map, offset);
        if (LS_UNLIKELY(key->taken == 0)) {
            if (offset < compactor->full_offset) compactor->full_offset = offset;
            status = LS_END; /* what comes behind it is even farther away */
            break;
        }
        set_hash(key, ls_key_map_hash(compactor->map, parts.key, (size_t)parts.key_bytes));
        taken_in++;
    }
    *count = taken_in;
    return status;
}

ls_status ls_compaction_map_records(ls_compactor *compactor, const ls_batch_header *header,
                                    const uint8_t *payload, const uint8_t *payload_end, bool *is_full,
                                    ls_fault *fault) {
    *is_full = false;
    ls_status status = check_codec(header, fault);
    record_walk walk = start_walk(header, payload, payload_end);
    while (status == LS_OK && !*is_full) {
        gathered_key keys[HASHED_KEYS];
        size_t count;
        status = ls_compaction_hash_keys(compactor, &walk, keys, HASHED_KEYS, &count, fault);
        *is_full = !ls_compaction_map_keys(compactor, keys, count);
    }
    return status == LS_END ? LS_OK : status;
}
