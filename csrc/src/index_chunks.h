/* How the entries of an index are cut into chunks: the first holds LS_CHUNK_FIRST_ENTRIES, each further one
 * as many as all before it. So a small index is small, a large one has few chunks, no entry ever moves. */
#ifndef LOGSTORE_INDEX_CHUNKS_H
#define LOGSTORE_INDEX_CHUNKS_H

#include <stddef.h>
#include <stdint.h>

#include "logstore/offset_index.h"
#include "logstore/status.h"
#include "logstore/time_index.h"

enum {
    LS_CHUNK_FIRST_LOG2 = 4,
    LS_CHUNK_FIRST_ENTRIES = 1 << LS_CHUNK_FIRST_LOG2,
    LS_CHUNKS_MAX = 32 - LS_CHUNK_FIRST_LOG2, /* enough for INT32_MAX entries */
    LS_INDEX_CAPACITY_MAX = INT32_MAX
};

/* The chunk of entry i. */
static inline unsigned ls_chunk_number(size_t i) {
    uint64_t rest = (uint64_t)i >> LS_CHUNK_FIRST_LOG2;
#if defined(__GNUC__)
    return rest == 0 ? 0 : 64u - (unsigned)__builtin_clzll(rest);
#else
    unsigned number = 0;
    for (; rest != 0; rest >>= 1) number++;
    return number;
#endif
}

/* The first entry of a chunk. */
static inline size_t ls_chunk_start(unsigned number) {
    return number == 0 ? 0 : (size_t)LS_CHUNK_FIRST_ENTRIES << (number - 1);
}

/* Entries a chunk needs room for in an index of this capacity. */
static inline size_t ls_chunk_entries(unsigned number, size_t capacity) {
    size_t start = ls_chunk_start(number);
    size_t entries = number == 0 ? (size_t)LS_CHUNK_FIRST_ENTRIES : start;
    return entries < capacity - start ? entries : capacity - start;
}

/* Makes sure that the next `entries` appends need no memory, so that they can't fail between the log's bytes and
 * their publication. LS_FULL where they would pass the capacity. */
ls_status ls_offset_index_reserve(ls_offset_index *index, size_t entries, ls_fault *fault);
ls_status ls_time_index_reserve(ls_time_index *index, size_t entries, ls_fault *fault);

/* ls_offset_index_lookup among the entries whose position is below `position_limit`: for readers, who must
 * not follow entries of bytes that are not published to them yet. */
void ls_offset_index_lookup_below(const ls_offset_index *index, int64_t target, int64_t position_limit,
                                  int64_t *offset, int32_t *position);

#endif
