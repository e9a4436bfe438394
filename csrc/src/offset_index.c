#include "logstore/offset_index.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#include "index_chunks.h"
#include "logstore/bytes.h"

/* An entry is one word, relative offset above position: a reader can't see half of one, even of an entry that
 * replaces one cut off by truncate, and words compare as their offsets do. */
typedef _Atomic uint64_t entry_word;

struct ls_offset_index {
    int64_t base_offset;
    size_t capacity;
    _Atomic size_t count; /* release by the writer after the entry, acquire by readers */
    entry_word *chunks[LS_CHUNKS_MAX];
};

static uint64_t pack(int32_t relative, int32_t position) {
    return (uint64_t)relative << 32 | (uint32_t)position;
}
static int32_t relative_of(uint64_t word) { return (int32_t)(word >> 32); }
static int32_t position_of(uint64_t word) { return (int32_t)(word & INT32_MAX); }

static void prefetch(const entry_word *at) {
#if defined(__GNUC__)
    __builtin_prefetch((const void *)at);
#else
    (void)at;
#endif
}

static uint64_t word_at(const ls_offset_index *index, size_t i) {
    unsigned number = ls_chunk_number(i);
    return atomic_load_explicit(&index->chunks[number][i - ls_chunk_start(number)], memory_order_relaxed);
}

static void set_word(ls_offset_index *index, size_t i, uint64_t word) {
    unsigned number = ls_chunk_number(i);
    atomic_store_explicit(&index->chunks[number][i - ls_chunk_start(number)], word, memory_order_relaxed);
}

/* For the writer, who needs no ordering with itself. */
static size_t own_count(const ls_offset_index *index) {
    return atomic_load_explicit(&index->count, memory_order_relaxed);
}

static void publish_count(ls_offset_index *index, size_t count) {
    atomic_store_explicit(&index->count, count, memory_order_release);
}

/* Room for entries [0, count), count <= capacity. */
static ls_status make_room(ls_offset_index *index, size_t count, ls_fault *fault) {
    if (count == 0) return LS_OK;
    for (unsigned number = ls_chunk_number(count - 1);; number--) {
        if (index->chunks[number] == NULL) {
            size_t entries = ls_chunk_entries(number, index->capacity);
            index->chunks[number] = calloc(entries, sizeof(entry_word));
            if (index->chunks[number] == NULL) {
                return ls_fail(fault, LS_NO_MEMORY, "offset index", -1,
                               (int64_t)(entries * sizeof(entry_word)), 0);
            }
        }
        if (number == 0) return LS_OK;
    }
}

enum { NEAR_ENTRIES = 8, MANY_ENTRIES = 64 };

/* The same as entries_up_to, by a guess: offsets rise evenly as a rule, so the place follows from the first and the last.
 * false: it was not near. */
static bool guess_entries_up_to(const ls_offset_index *index, size_t count, uint64_t key, size_t *found) {
    uint64_t first = word_at(index, 0);
    uint64_t last = word_at(index, count - 1);
    if (key < first || key >= last) return false;
    uint64_t span = (last >> 32) - (first >> 32);
    if (span == 0) return false;
    size_t near = (size_t)(((key >> 32) - (first >> 32)) * (uint64_t)(count - 1) / span);
    size_t low = near > NEAR_ENTRIES ? near - NEAR_ENTRIES : 0;
    size_t high = near + NEAR_ENTRIES < count ? near + NEAR_ENTRIES : count - 1;
    unsigned number = ls_chunk_number(low);
    if (number != ls_chunk_number(high)) return false;
    const entry_word *at = index->chunks[number] + (low - ls_chunk_start(number));
    size_t n = high - low;
    if (atomic_load_explicit(at, memory_order_relaxed) > key ||
        atomic_load_explicit(at + n, memory_order_relaxed) <= key) {
        return false;
    }
    size_t up_to = low + 1;
    for (size_t i = 1; i < n; i++) up_to += atomic_load_explicit(at + i, memory_order_relaxed) <= key ? 1u : 0u;
    *found = up_to;
    return true;
}

/* How many of the first `count` entries have a word <= key. */
static size_t entries_up_to(const ls_offset_index *index, size_t count, uint64_t key) {
    if (count == 0) return 0;
    size_t found;
    if (count >= MANY_ENTRIES && guess_entries_up_to(index, count, key, &found)) return found;
    unsigned number = ls_chunk_number(count - 1);
    while (number > 0 && atomic_load_explicit(&index->chunks[number][0], memory_order_relaxed) > key)
        number--;
    size_t start = ls_chunk_start(number);
    size_t n = ls_chunk_entries(number, count);
    const entry_word *chunk = index->chunks[number];
    const entry_word *at = chunk;
    while (n > 1) { /* the answer is in [at, at + n]; no branch depends on the entries */
        size_t half = n / 2;
        prefetch(at + half / 2); /* the next step takes one of the two */
        prefetch(at + half + half / 2);
        at = atomic_load_explicit(at + half, memory_order_relaxed) <= key ? at + half : at;
        n -= half;
    }
    return start + (size_t)(at - chunk) + (atomic_load_explicit(at, memory_order_relaxed) <= key ? 1u : 0u);
}

/* How many of the first `count` entries have a position below the limit. */
static size_t entries_below_position(const ls_offset_index *index, size_t count, int64_t limit) {
    size_t low = 0;
    size_t high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (position_of(word_at(index, middle)) < limit) low = middle + 1;
        else high = middle;
    }
    return low;
}

/* How many of the first `count` entries have an offset <= target. */
static size_t entries_up_to_offset(const ls_offset_index *index, size_t count, int64_t target) {
    if (target < index->base_offset) return 0;
    int64_t distance = target - index->base_offset; /* both are >= 0 */
    int32_t relative = distance < INT32_MAX ? (int32_t)distance : INT32_MAX;
    return entries_up_to(index, count, pack(relative, INT32_MAX));
}

ls_status ls_offset_index_create(int64_t base_offset, size_t capacity, ls_offset_index **out,
                                 ls_fault *fault) {
    if (base_offset < 0)
        return ls_fail(fault, LS_INVALID_ARGUMENT, "base offset below 0", -1, 0, base_offset);
    if (capacity > LS_INDEX_CAPACITY_MAX) {
        return ls_fail(fault, LS_INVALID_ARGUMENT, "capacity of an index", -1, LS_INDEX_CAPACITY_MAX,
                       capacity > INT64_MAX ? INT64_MAX : (int64_t)capacity);
    }
    ls_offset_index *index = calloc(1, sizeof *index);
    if (index == NULL) return ls_fail(fault, LS_NO_MEMORY, "offset index", -1, (int64_t)sizeof *index, 0);
    index->base_offset = base_offset;
    index->capacity = capacity;
    atomic_init(&index->count, 0);
    *out = index;
    return LS_OK;
}

void ls_offset_index_free(ls_offset_index *index) {
    if (index == NULL) return;
    for (unsigned number = 0; number < LS_CHUNKS_MAX; number++) free(index->chunks[number]);
    free(index);
}

ls_status ls_offset_index_reserve(ls_offset_index *index, size_t entries, ls_fault *fault) {
    size_t count = own_count(index);
    if (count > index->capacity || entries > index->capacity - count) {
        return ls_fail(fault, LS_FULL, "the offset index is full", -1, (int64_t)index->capacity,
                       (int64_t)count);
    }
    return make_room(index, count + entries, fault);
}

ls_status ls_offset_index_append(ls_offset_index *index, int64_t offset, int32_t position, ls_fault *fault) {
    if (offset < index->base_offset || offset - index->base_offset > INT32_MAX) {
        return ls_fail(fault, LS_INVALID_ARGUMENT, "offset too far from the index's base", position,
                       index->base_offset, offset);
    }
    if (position < 0) return ls_fail(fault, LS_INVALID_ARGUMENT, "position below 0", position, 0, position);
    size_t count = own_count(index);
    int32_t relative = (int32_t)(offset - index->base_offset);
    if (count > 0) {
        uint64_t last = word_at(index, count - 1);
        if (relative <= relative_of(last)) {
            return ls_fail(fault, LS_INVALID_ARGUMENT, "offset not above the last entry's", position,
                           index->base_offset + relative_of(last), offset);
        }
        if (position <= position_of(last)) {
            return ls_fail(fault, LS_INVALID_ARGUMENT, "position not above the last entry's", position,
                           position_of(last), position);
        }
    }
    ls_status status = ls_offset_index_reserve(index, 1, fault);
    if (status != LS_OK) return status;
    set_word(index, count, pack(relative, position));
    publish_count(index, count + 1);
    return LS_OK;
}

/* Entry number `found`, counted from 1; 0 is the base. */
static void take_entry(const ls_offset_index *index, size_t found, int64_t *offset, int32_t *position) {
    uint64_t word = found == 0 ? 0 : word_at(index, found - 1);
    *offset = index->base_offset + relative_of(word);
    *position = position_of(word);
}

size_t ls_offset_index_find(const ls_offset_index *index, int64_t target) {
    return entries_up_to_offset(index, ls_offset_index_count(index), target);
}

void ls_offset_index_lookup(const ls_offset_index *index, int64_t target, int64_t *offset,
                            int32_t *position) {
    size_t count = ls_offset_index_count(index);
    take_entry(index, entries_up_to_offset(index, count, target), offset, position);
}

void ls_offset_index_lookup_below(const ls_offset_index *index, int64_t target, int64_t position_limit,
                                  int64_t *offset, int32_t *position) {
    size_t found = entries_up_to_offset(index, ls_offset_index_count(index), target);
    if (found > 0 && position_of(word_at(index, found - 1)) >= position_limit) {
        found = entries_below_position(index, found, position_limit);
    }
    take_entry(index, found, offset, position);
}

size_t ls_offset_index_count(const ls_offset_index *index) {
    return atomic_load_explicit(&index->count, memory_order_acquire);
}

int ls_offset_index_is_full(const ls_offset_index *index) { return own_count(index) >= index->capacity; }

void ls_offset_index_entry(const ls_offset_index *index, size_t i, int64_t *offset, int32_t *position) {
    take_entry(index, i + 1, offset, position);
}

void ls_offset_index_truncate(ls_offset_index *index, int64_t target) {
    if (target == INT64_MIN) target++; /* below every offset all the same */
    publish_count(index, entries_up_to_offset(index, own_count(index), target - 1));
}

void ls_offset_index_truncate_position(ls_offset_index *index, int64_t position) {
    publish_count(index, entries_below_position(index, own_count(index), position));
}

void ls_offset_index_encode(const ls_offset_index *index, size_t first, size_t count, uint8_t *out) {
    for (size_t i = 0; i < count; i++) {
        /* The word's halves stand in the file's order already. */
        ls_store_u64(out + i * LS_OFFSET_INDEX_ENTRY_BYTES, word_at(index, first + i));
    }
}

static ls_status check_entries(const ls_offset_index *index, const uint8_t *bytes, size_t size,
                               int64_t log_size_bytes, ls_fault *fault) {
    if (size % LS_OFFSET_INDEX_ENTRY_BYTES != 0) {
        return ls_fail(fault, LS_CORRUPT, "size of an offset index is no multiple of 8", 0,
                       LS_OFFSET_INDEX_ENTRY_BYTES, (int64_t)size);
    }
    int32_t last_relative = -1;
    int32_t last_position = -1;
    for (size_t at = 0; at < size; at += LS_OFFSET_INDEX_ENTRY_BYTES) {
        int32_t relative = ls_load_i32(bytes + at);
        int32_t position = ls_load_i32(bytes + at + 4);
        if (relative <= last_relative || relative > INT64_MAX - index->base_offset) {
            return ls_fail(fault, LS_CORRUPT, "offsets of an offset index do not rise", (int64_t)at,
                           last_relative, relative);
        }
        if (position <= last_position) {
            return ls_fail(fault, LS_CORRUPT, "positions of an offset index do not rise", (int64_t)at + 4,
                           last_position, position);
        }
        if (position >= log_size_bytes) {
            return ls_fail(fault, LS_CORRUPT, "position behind the end of the log", (int64_t)at + 4,
                           log_size_bytes, position);
        }
        last_relative = relative;
        last_position = position;
    }
    return LS_OK;
}

ls_status ls_offset_index_load(ls_offset_index *index, const uint8_t *bytes, size_t size,
                               int64_t log_size_bytes, ls_fault *fault) {
    ls_status status = check_entries(index, bytes, size, log_size_bytes, fault);
    if (status != LS_OK) {
        publish_count(index, 0);
        return status;
    }
    size_t count = size / LS_OFFSET_INDEX_ENTRY_BYTES;
    if (count > index->capacity) {
        return ls_fail(fault, LS_FULL, "more entries than the offset index can hold", -1,
                       (int64_t)index->capacity, (int64_t)count);
    }
    status = make_room(index, count, fault);
    if (status != LS_OK) return status;
    publish_count(index, 0);
    for (size_t i = 0; i < count; i++)
        set_word(index, i, ls_load_u64(bytes + i * LS_OFFSET_INDEX_ENTRY_BYTES));
    publish_count(index, count);
    return LS_OK;
}
