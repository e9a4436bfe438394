/* Sparse offset index (log-format, 3.1): relative offset of a batch's last record -> position of that batch.
 *
 * One writer, many readers without a lock: entries live in fixed chunks that never move; `count` is stored
 * with release order after the entry is written, and loaded with acquire order by readers. truncate and load
 * require that the caller keeps readers away or tolerates their seeing the older state; they never free
 * memory. */
#ifndef LOGSTORE_OFFSET_INDEX_H
#define LOGSTORE_OFFSET_INDEX_H

#include <stddef.h>
#include <stdint.h>

#include "logstore/status.h"

enum { LS_OFFSET_INDEX_ENTRY_BYTES = 8 };

typedef struct ls_offset_index ls_offset_index;

/* capacity: entries before it is full (segment.index.bytes / 8, at least 0, at most 2^31-1). Memory grows
 * with use. */
ls_status ls_offset_index_create(int64_t base_offset, size_t capacity, ls_offset_index **out,
                                 ls_fault *fault);
void ls_offset_index_free(ls_offset_index *index); /* NULL is fine */

/* LS_FULL at capacity; LS_INVALID_ARGUMENT when offset or position is not above the last entry's, the
 * position is negative, or the offset's distance from the base is outside [0, 2^31-1]. */
ls_status ls_offset_index_append(ls_offset_index *index, int64_t offset, int32_t position, ls_fault *fault);

/* How many entries have an offset <= target. */
size_t ls_offset_index_find(const ls_offset_index *index, int64_t target);

/* The largest entry with offset <= target: (offset, position); (base offset, 0) where there is none. */
void ls_offset_index_lookup(const ls_offset_index *index, int64_t target, int64_t *offset, int32_t *position);

size_t ls_offset_index_count(const ls_offset_index *index);
int ls_offset_index_is_full(const ls_offset_index *index);
/* Entry i < count. */
void ls_offset_index_entry(const ls_offset_index *index, size_t i, int64_t *offset, int32_t *position);

/* Drops entries with offset >= target. */
void ls_offset_index_truncate(ls_offset_index *index, int64_t target);
/* Drops entries whose position is >= position. */
void ls_offset_index_truncate_position(ls_offset_index *index, int64_t position);

/* The file's bytes of entries [first, first + count): count * 8 bytes into out. */
void ls_offset_index_encode(const ls_offset_index *index, size_t first, size_t count, uint8_t *out);

/* Replaces the entries by those of a file. LS_CORRUPT (index left empty): size no multiple of 8, offsets not
 * strictly rising or below the base, positions not strictly rising from >= 0 or >= log_size_bytes. LS_FULL:
 * more than capacity. */
ls_status ls_offset_index_load(ls_offset_index *index, const uint8_t *bytes, size_t size,
                               int64_t log_size_bytes, ls_fault *fault);

#endif
