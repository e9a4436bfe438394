#include "logstore/time_index.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "index_chunks.h"
#include "logstore/bytes.h"

/* Both parts are atomic, so that a reader that races with truncate and a later append sees old or new values,
 * never undefined ones. It may see the two parts of different entries: whoever looks up verifies against the
 * log. */
typedef struct time_entry {
    _Atomic int64_t timestamp;
    _Atomic int32_t relative;
} time_entry;

struct ls_time_index {
    int64_t base_offset;
    size_t capacity;
    _Atomic size_t count; /* release by the writer after the entry, acquire by readers */
    time_entry *chunks[LS_CHUNKS_MAX];
};

static time_entry *entry_at(const ls_time_index *index, size_t i) {
    unsigned number = ls_chunk_number(i);
    return &index->chunks[number][i - ls_chunk_start(number)];
}

static int64_t timestamp_of(const time_entry *entry) {
    return atomic_load_explicit(&entry->timestamp, memory_order_relaxed);
}

static int32_t relative_of(const time_entry *entry) {
    return atomic_load_explicit(&entry->relative, memory_order_relaxed);
}

static void set_entry(ls_time_index *index, size_t i, int64_t timestamp, int32_t relative) {
    time_entry *entry = entry_at(index, i);
    atomic_store_explicit(&entry->timestamp, timestamp, memory_order_relaxed);
    atomic_store_explicit(&entry->relative, relative, memory_order_relaxed);
}

static size_t own_count(const ls_time_index *index) {
    return atomic_load_explicit(&index->count, memory_order_relaxed);
}

static void publish_count(ls_time_index *index, size_t count) {
    atomic_store_explicit(&index->count, count, memory_order_release);
}

/* Room for entries [0, count), count <= capacity. */
static ls_status make_room(ls_time_index *index, size_t count, ls_fault *fault) {
    if (count == 0) return LS_OK;
    for (unsigned number = ls_chunk_number(count - 1);; number--) {
        if (index->chunks[number] == NULL) {
            size_t entries = ls_chunk_entries(number, index->capacity);
            index->chunks[number] = calloc(entries, sizeof(time_entry));
            if (index->chunks[number] == NULL) {
                return ls_fail(fault, LS_NO_MEMORY, "time index", -1, (int64_t)(entries * sizeof(time_entry)),
                               0);
            }
        }
        if (number == 0) return LS_OK;
    }
}

ls_status ls_time_index_create(int64_t base_offset, size_t capacity, ls_time_index **out, ls_fault *fault) {
    if (base_offset < 0)
        return ls_fail(fault, LS_INVALID_ARGUMENT, "base offset below 0", -1, 0, base_offset);
    if (capacity > LS_INDEX_CAPACITY_MAX) {
        return ls_fail(fault, LS_INVALID_ARGUMENT, "capacity of an index", -1, LS_INDEX_CAPACITY_MAX,
                       capacity > INT64_MAX ? INT64_MAX : (int64_t)capacity);
    }
    ls_time_index *index = calloc(1, sizeof *index);
    if (index == NULL) return ls_fail(fault, LS_NO_MEMORY, "time index", -1, (int64_t)sizeof *index, 0);
    index->base_offset = base_offset;
    index->capacity = capacity;
    atomic_init(&index->count, 0);
    *out = index;
    return LS_OK;
}

void ls_time_index_free(ls_time_index *index) {
    if (index == NULL) return;
    for (unsigned number = 0; number < LS_CHUNKS_MAX; number++) free(index->chunks[number]);
    free(index);
}

ls_status ls_time_index_reserve(ls_time_index *index, size_t entries, ls_fault *fault) {
    size_t count = own_count(index); /* the last place is kept for the closing entry */
    if (ls_time_index_is_full(index) || entries > index->capacity - count - 1) {
        return ls_fail(fault, LS_FULL, "the time index is full", -1, (int64_t)index->capacity,
                       (int64_t)count);
    }
    return make_room(index, count + entries, fault);
}

ls_status ls_time_index_maybe_append(ls_time_index *index, int64_t timestamp, int64_t offset, int closing,
                                     ls_fault *fault) {
    if (timestamp < 0) return LS_OK;
    if (offset < index->base_offset || offset - index->base_offset > INT32_MAX) {
        return ls_fail(fault, LS_INVALID_ARGUMENT, "offset too far from the index's base", -1,
                       index->base_offset, offset);
    }
    size_t count = own_count(index);
    int32_t relative = (int32_t)(offset - index->base_offset);
    if (count > 0) {
        const time_entry *last = entry_at(index, count - 1);
        if (timestamp < timestamp_of(last)) {
            return ls_fail(fault, LS_INVALID_ARGUMENT, "timestamp below the last entry's", -1,
                           timestamp_of(last), timestamp);
        }
        if (relative < relative_of(last)) {
            return ls_fail(fault, LS_INVALID_ARGUMENT, "offset below the last entry's", -1,
                           index->base_offset + relative_of(last), offset);
        }
        if (timestamp == timestamp_of(last)) return LS_OK;
    }
    if (closing ? count >= index->capacity : ls_time_index_is_full(index)) {
        return ls_fail(fault, LS_FULL, "the time index is full", -1, (int64_t)index->capacity,
                       (int64_t)count);
    }
    ls_status status = make_room(index, count + 1, fault);
    if (status != LS_OK) return status;
    set_entry(index, count, timestamp, relative);
    publish_count(index, count + 1);
    return LS_OK;
}

void ls_time_index_lookup(const ls_time_index *index, int64_t target, int64_t *timestamp, int64_t *offset) {
    size_t low = 0; /* entries below it have a timestamp <= target, those from `high` on a larger one */
    size_t high = ls_time_index_count(index);
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (timestamp_of(entry_at(index, middle)) <= target) low = middle + 1;
        else high = middle;
    }
    if (low == 0) {
        *timestamp = -1;
        *offset = index->base_offset;
    } else {
        ls_time_index_entry(index, low - 1, timestamp, offset);
    }
}

size_t ls_time_index_count(const ls_time_index *index) {
    return atomic_load_explicit(&index->count, memory_order_acquire);
}

int ls_time_index_is_full(const ls_time_index *index) { return own_count(index) + 1 >= index->capacity; }

void ls_time_index_entry(const ls_time_index *index, size_t i, int64_t *timestamp, int64_t *offset) {
    const time_entry *entry = entry_at(index, i);
    *timestamp = timestamp_of(entry);
    *offset = index->base_offset + relative_of(entry);
}

void ls_time_index_truncate(ls_time_index *index, int64_t target_offset) {
    size_t count = own_count(index);
    size_t low = 0;
    while (low < count) {
        size_t middle = low + (count - low) / 2;
        if (index->base_offset + relative_of(entry_at(index, middle)) < target_offset) low = middle + 1;
        else count = middle;
    }
    publish_count(index, low);
}

void ls_time_index_encode(const ls_time_index *index, size_t first, size_t count, uint8_t *out) {
    for (size_t i = 0; i < count; i++) {
        const time_entry *entry = entry_at(index, first + i);
        ls_store_i64(out + i * LS_TIME_INDEX_ENTRY_BYTES, timestamp_of(entry));
        ls_store_i32(out + i * LS_TIME_INDEX_ENTRY_BYTES + 8, relative_of(entry));
    }
}

static ls_status check_entries(const ls_time_index *index, const uint8_t *bytes, size_t size,
                               int64_t end_offset, ls_fault *fault) {
    if (size % LS_TIME_INDEX_ENTRY_BYTES != 0) {
        return ls_fail(fault, LS_CORRUPT, "size of a time index is no multiple of 12", 0,
                       LS_TIME_INDEX_ENTRY_BYTES, (int64_t)size);
    }
    int64_t last_timestamp = -1;
    int32_t last_relative = 0;
    for (size_t at = 0; at < size; at += LS_TIME_INDEX_ENTRY_BYTES) {
        int64_t timestamp = ls_load_i64(bytes + at);
        int32_t relative = ls_load_i32(bytes + at + 8);
        if (timestamp <= last_timestamp) {
            return ls_fail(fault, LS_CORRUPT, "timestamps of a time index do not rise", (int64_t)at,
                           last_timestamp, timestamp);
        }
        if (relative < last_relative) {
            return ls_fail(fault, LS_CORRUPT, "offsets of a time index fall", (int64_t)at + 8, last_relative,
                           relative);
        }
        if (relative >= end_offset - index->base_offset) {
            return ls_fail(fault, LS_CORRUPT, "offset behind the end of the log", (int64_t)at + 8,
                           end_offset - index->base_offset, relative);
        }
        last_timestamp = timestamp;
        last_relative = relative;
    }
    return LS_OK;
}

ls_status ls_time_index_load(ls_time_index *index, const uint8_t *bytes, size_t size, int64_t end_offset,
                             ls_fault *fault) {
    if (end_offset < index->base_offset) end_offset = index->base_offset;
    ls_status status = check_entries(index, bytes, size, end_offset, fault);
    if (status != LS_OK) {
        publish_count(index, 0);
        return status;
    }
    size_t count = size / LS_TIME_INDEX_ENTRY_BYTES;
    if (count > index->capacity) {
        return ls_fail(fault, LS_FULL, "more entries than the time index can hold", -1,
                       (int64_t)index->capacity, (int64_t)count);
    }
    status = make_room(index, count, fault);
    if (status != LS_OK) return status;
    publish_count(index, 0);
    for (size_t i = 0; i < count; i++) {
        const uint8_t *at = bytes + i * LS_TIME_INDEX_ENTRY_BYTES;
        set_entry(index, i, ls_load_i64(at), ls_load_i32(at + 8));
    }
    publish_count(index, count);
    return LS_OK;
}
