/* Loops in C around the smallest functions of the core, so that a call from Python is not what is measured. Compiled at
 * run time with the sources of csrc/. */
#include <stddef.h>
#include <stdint.h>

#include "logstore/offset_index.h"
#include "logstore/time_index.h"
#include "logstore/varint.h"

/* Encodes `count` values one after the other, and gives the size. */
size_t loop_varint_write(const int64_t *values, size_t count, uint8_t *out) {
    uint8_t *at = out;
    for (size_t i = 0; i < count; i++) {
        at = ls_varint64_write(at, values[i]);
    }
    return (size_t)(at - out);
}

/* Decodes them, and gives their sum; -1 where the bytes are not what was encoded. */
int64_t loop_varint_read(const uint8_t *bytes, size_t size, size_t count) {
    const uint8_t *at = bytes;
    int64_t sum = 0;
    for (size_t i = 0; i < count; i++) {
        int64_t value = 0;
        if (ls_varint64_read(&at, bytes + size, &value) != LS_OK) {
            return -1;
        }
        sum += value;
    }
    return at == bytes + size ? sum : -1;
}

size_t loop_varint_size(const int64_t *values, size_t count) {
    size_t size = 0;
    for (size_t i = 0; i < count; i++) {
        size += ls_varint64_size_bytes(values[i]);
    }
    return size;
}

/* An index with `count` entries, every `step` offsets and 4,096 bytes; NULL without memory. */
ls_offset_index *loop_offset_index(size_t count, int64_t step) {
    ls_offset_index *index = NULL;
    ls_fault fault;
    if (ls_offset_index_create(0, count, &index, &fault) != LS_OK) {
        return NULL;
    }
    for (size_t i = 0; i < count; i++) {
        if (ls_offset_index_append(index, (int64_t)(i + 1) * step, (int32_t)(i + 1) * 4096, &fault) != LS_OK) {
            ls_offset_index_free(index);
            return NULL;
        }
    }
    return index;
}

void loop_offset_index_free(ls_offset_index *index) { ls_offset_index_free(index); }

/* Looks up each target, and gives the sum of the offsets found. */
int64_t loop_offset_index_lookup(const ls_offset_index *index, const int64_t *targets, size_t count) {
    int64_t sum = 0;
    for (size_t i = 0; i < count; i++) {
        int64_t offset = 0;
        int32_t position = 0;
        ls_offset_index_lookup(index, targets[i], &offset, &position);
        sum += offset;
    }
    return sum;
}

/* The same for times: entries every `step` ms. */
ls_time_index *loop_time_index(size_t count, int64_t step) {
    ls_time_index *index = NULL;
    ls_fault fault;
    if (ls_time_index_create(0, count + 1, &index, &fault) != LS_OK) {
        return NULL;
    }
    for (size_t i = 0; i < count; i++) {
        if (ls_time_index_maybe_append(index, (int64_t)(i + 1) * step, (int64_t)(i + 1), 0, &fault) != LS_OK) {
            ls_time_index_free(index);
            return NULL;
        }
    }
    return index;
}

void loop_time_index_free(ls_time_index *index) { ls_time_index_free(index); }

int64_t loop_time_index_lookup(const ls_time_index *index, const int64_t *targets, size_t count) {
    int64_t sum = 0;
    for (size_t i = 0; i < count; i++) {
        int64_t timestamp = 0;
        int64_t offset = 0;
        ls_time_index_lookup(index, targets[i], &timestamp, &offset);
        sum += offset;
    }
    return sum;
}
