#include "record_runs.h"

enum {
    BLOCK_RECORDS = 64, /* so many offset deltas differ in their varint's first byte alone */
    DELTA_END = 8192,   /* behind the last one of two bytes */
    RECORDS_AHEAD = 4,  /* what the processor is asked to fetch meanwhile */
    RUN_READ_BYTES = 80 /* from a record's start: the word, a key of up to 63 bytes, the value's length */
};

/* Where the fields stand in the word that a record begins with, and what all of a run has in common. */
typedef struct run_shape {
    uint64_t mask;
    uint64_t pattern; /* with the varint of offset delta 0 */
    bool same_size;   /* then the length is in the pattern, too */
    uint32_t record_bytes; /* of the first */
    uint32_t length_bytes;
    uint32_t timestamp_at;
    uint32_t timestamp_bytes;
    uint32_t delta_at;
    uint32_t key_length_at;
} run_shape;

/* What is taken from the records of a block as it stands there. All that follows from it is computed for
 * several records at once. */
typedef struct raw_block {
    uint32_t starts[BLOCK_RECORDS + 1]; /* low bits of the address, also of what is behind the last */
    uint16_t timestamps[BLOCK_RECORDS];
    uint16_t keys[BLOCK_RECORDS];   /* the length, one byte */
    uint16_t values[BLOCK_RECORDS]; /* two bytes, of which the length may be the first */
} raw_block;

static LS_ALWAYS_INLINE uint16_t load_pair(const uint8_t *at) {
    return (uint16_t)(at[0] | (uint32_t)at[1] << 8);
}

static LS_ALWAYS_INLINE uint64_t load_word(const uint8_t *at) {
    uint64_t word;
    memcpy(&word, at, sizeof word);
    return LS_LITTLE_ENDIAN ? word : LS_SWAP64(word);
}

static uint64_t varint_of_delta(int32_t delta) {
    uint64_t bits = (uint64_t)delta * 2u;
    return delta < BLOCK_RECORDS ? bits : ((bits & 0x7fu) | 0x80u | (bits >> 7 << 8));
}

/* 1 or 2; 0 for more. */
static uint32_t varint_bytes(const uint8_t *at) { return at[0] < 0x80u ? 1 : at[1] < 0x80u ? 2 : 0; }

/* Of the record at `at`, whose offset delta is `i`; false where its varints are longer. */
static bool find_shape(const uint8_t *at, const uint8_t *end, int32_t i, bool may_be_same_size,
                       run_shape *out) {
    bool same_size = false;
    uint32_t length_bytes = varint_bytes(at);
    uint32_t timestamp_at = length_bytes + 1; /* behind the attributes, which mean nothing */
    uint32_t timestamp_bytes = varint_bytes(at + timestamp_at);
    if (length_bytes == 0 || timestamp_bytes == 0 || i >= DELTA_END) return false;
    uint32_t delta_at = timestamp_at + timestamp_bytes;
    uint32_t delta_bytes = i < BLOCK_RECORDS ? 1 : 2;
    uint32_t key_length_at = delta_at + delta_bytes;
    uint64_t goes_on = UINT64_C(0x80);
    uint64_t goes_on_once = UINT64_C(0x8080);
    uint64_t mask = (length_bytes == 2 ? goes_on_once : goes_on) | 1u; /* and is not negative */
    mask |= (timestamp_bytes == 2 ? goes_on_once : goes_on) << (8 * timestamp_at);
    mask |= (delta_bytes == 2 ? UINT64_C(0xffff) : UINT64_C(0xff)) << (8 * delta_at);
    mask |= goes_on << (8 * key_length_at);
    uint64_t pattern = length_bytes == 2 ? goes_on : 0;
    if (timestamp_bytes == 2) pattern |= goes_on << (8 * timestamp_at);
    uint64_t word = load_word(at);
    uint32_t second = length_bytes == 2 ? (uint32_t)(word >> 2 & 0x1fc0u) : 0;
    uint32_t record_bytes = length_bytes + (uint32_t)(word >> 1 & 0x3fu) + second;
    if (may_be_same_size && end - at - RUN_READ_BYTES > record_bytes) {
        uint64_t length_mask = length_bytes == 2 ? 0xffffu : 0xffu;
        same_size = ((word ^ load_word(at + record_bytes)) & length_mask) == 0;
        if (same_size) {
            mask |= length_mask;
            pattern |= word & length_mask;
        }
    }
    *out = (run_shape){mask,         pattern,         same_size, record_bytes, length_bytes,
                       timestamp_at, timestamp_bytes, delta_at,  key_length_at};
    return true;
}

/* Hops over records [i, stop) of one block while they are of the shape, may have no headers, and end before
 * `last`, from where on RUN_READ_BYTES can be read. Gives how many. */
static LS_ALWAYS_INLINE size_t hop_some(const run_shape *shape, const uint8_t **from, const uint8_t *last,
                                        int32_t i, size_t records_max, bool same_size, raw_block *block) {
    const uint8_t *at = *from;
    uint64_t mask = shape->mask;
    uint64_t pattern = shape->pattern + (varint_of_delta(i) << (8 * shape->delta_at));
    uint64_t delta_step = UINT64_C(2) << (8 * shape->delta_at);
    uint64_t second_mask = shape->length_bytes == 2 ? 0x1fc0u : 0;
    size_t record_bytes = shape->record_bytes;
    size_t ahead_bytes = RECORDS_AHEAD * record_bytes;
    size_t length_bytes = shape->length_bytes;
    size_t timestamp_at = shape->timestamp_at;
    size_t key_length_at = shape->key_length_at;
    size_t k = 0;
    for (; k < records_max; k++) {
        uint64_t word = load_word(at);
        if (LS_UNLIKELY((word & mask) != pattern)) break;
        /* Of the same size, the next one's place does not wait for this one's bytes. */
        size_t size_bytes =
            same_size ? record_bytes : length_bytes + (word >> 1 & 0x3fu) + (word >> 2 & second_mask);
        if (LS_UNLIKELY(size_bytes > (size_t)(last - at))) break;
        const uint8_t *next = at + size_bytes;
        if (LS_UNLIKELY(next[-1] != 0)) break;
        LS_PREFETCH((uintptr_t)next + ahead_bytes);
        const uint8_t *key_length = at + key_length_at;
        block->starts[k] = (uint32_t)(uintptr_t)at;
        block->timestamps[k] = load_pair(at + timestamp_at);
        block->keys[k] = *key_length;
        block->values[k] = load_pair(key_length + 1 + (*key_length >> 1));
        pattern += delta_step;
        at = next;
    }
    block->starts[k] = (uint32_t)(uintptr_t)at;
    *from = at;
    return k;
}

static LS_NOINLINE size_t hop(const run_shape *shape, const uint8_t **from, const uint8_t *last, int32_t i,
                              size_t records_max, raw_block *block) {
    return shape->same_size ? hop_some(shape, from, last, i, records_max, true, block)
                            : hop_some(shape, from, last, i, records_max, false, block);
}

/* Sizes and places of keys and values. False where a record is not what its shape says: has headers, a longer
 * value, sizes that do not fill it. */
static LS_NOINLINE bool settle_sizes(raw_block *block, uint32_t key_at, size_t count, uint32_t origin,
                                     int32_t *restrict key_starts, int32_t *restrict key_bytes,
                                     int32_t *restrict value_starts, int32_t *restrict value_bytes) {
    int16_t key_sizes[BLOCK_RECORDS], value_sizes[BLOCK_RECORDS];
    uint16_t value_ats[BLOCK_RECORDS], ends[BLOCK_RECORDS];
    uint16_t odd = 0;
    for (size_t k = 0; k < count; k++) {
        uint16_t key = block->keys[k];
        uint16_t value = block->values[k];
        uint16_t is_long = (uint16_t)(0u - (value >> 7 & 1u)); /* all bits */
        uint16_t key_is_null = (uint16_t)(0u - (key & 1u));
        uint16_t value_is_null = (uint16_t)(0u - (value & 1u));
        uint16_t size = (uint16_t)((value >> 1 & 0x3fu) | (value >> 2 & 0x1fc0u & is_long));
        uint16_t value_at = (uint16_t)((key >> 1) + 1u - is_long);
        /* Of what is negative only -1 has its place here; a third byte has none. */
        odd |= (uint16_t)((key_is_null & (key ^ 1u)) | (value_is_null & ((value & 0xffu) ^ 1u)) |
                          (value & 0x8000u & is_long));
        key_sizes[k] = (int16_t)(key >> 1 | key_is_null);
        value_sizes[k] = (int16_t)(size | value_is_null);
        value_ats[k] = value_at;
        ends[k] = (uint16_t)(value_at + size + 1u);
    }
    uint32_t apart = 0;
    for (size_t k = 0; k < count; k++) {
        uint32_t key_start = block->starts[k] + key_at;
        apart |= (key_start + ends[k]) ^ block->starts[k + 1];
        key_starts[k] = (int32_t)(key_start - origin);
        value_starts[k] = (int32_t)(key_start - origin + value_ats[k]);
        key_bytes[k] = key_sizes[k];
        value_bytes[k] = value_sizes[k];
    }
    return (odd | apart) == 0;
}

static LS_NOINLINE void settle_timestamps(const raw_block *block, size_t count, bool two_bytes,
                                          int64_t base_timestamp, int64_t *restrict timestamps) {
    uint16_t second_mask = two_bytes ? 0x3f80u : 0;
    for (size_t k = 0; k < count; k++) {
        uint16_t raw = block->timestamps[k];
        uint16_t bits = (uint16_t)((raw & 0x7fu) | (raw >> 1 & second_mask));
        int16_t delta = (int16_t)((bits >> 1) ^ (0u - (bits & 1u)));
        timestamps[k] = ls_add_wrapping(base_timestamp, delta);
    }
}

static LS_NOINLINE void settle_rest(const raw_block *block, size_t count, uint32_t origin, int64_t offset,
                                    int64_t *restrict offsets, int32_t *restrict headers_starts,
                                    int32_t *restrict headers_counts) {
    for (size_t k = 0; k < count; k++) offsets[k] = ls_add_wrapping(offset, (int64_t)k);
    if (headers_starts == NULL) return;
    for (size_t k = 0; k < count; k++) {
        headers_starts[k] = (int32_t)(block->starts[k + 1] - origin);
        headers_counts[k] = 0;
    }
}

int32_t ls_take_run(const uint8_t **from, const uint8_t *end, const uint8_t *origin, int32_t i,
                    int32_t records_count, bool *same_size, const ls_batch_rows *rows,
                    const ls_batch_header *header) {
    run_shape shape;
    if (end - *from < RUN_READ_BYTES || !find_shape(*from, end, i, *same_size, &shape)) return i;
    raw_block block;
    int32_t run_end = i < BLOCK_RECORDS ? BLOCK_RECORDS : DELTA_END;
    if (run_end > records_count) run_end = records_count;
    uint32_t low_origin = (uint32_t)(uintptr_t)origin;
    const uint8_t *at = *from;
    while (i < run_end) {
        int32_t stop = (i | (BLOCK_RECORDS - 1)) + 1;
        if (stop > run_end) stop = run_end;
        size_t count = hop(&shape, &at, end - RUN_READ_BYTES, i, (size_t)(stop - i), &block);
        if (count == 0) break;
        if (!settle_sizes(&block, shape.key_length_at + 1, count, low_origin, rows->key_starts + i,
                          rows->key_bytes + i, rows->value_starts + i, rows->value_bytes + i)) {
            break;
        }
        if ((header->attributes & LS_ATTRIBUTE_LOG_APPEND_TIME) != 0) {
            for (size_t k = 0; k < count; k++) rows->timestamps[(size_t)i + k] = header->max_timestamp;
        } else {
            settle_timestamps(&block, count, shape.timestamp_bytes == 2, header->base_timestamp,
                              rows->timestamps + i);
        }
        bool with_headers = rows->headers_starts != NULL;
        settle_rest(&block, count, low_origin, ls_add_wrapping(header->base_offset, i), rows->offsets + i,
                    with_headers ? rows->headers_starts + i : NULL,
                    with_headers ? rows->headers_counts + i : NULL);
        *from = at;
        i += (int32_t)count;
        if (i < stop) break;
    }
    *same_size = *same_size && i == run_end;
    return i;
}
