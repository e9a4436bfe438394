/* Time index (log-format, 3.2): (largest timestamp so far, last offset of the earliest batch that has it).
 * The same rules on threads as offset_index.h. */
#ifndef LOGSTORE_TIME_INDEX_H
#define LOGSTORE_TIME_INDEX_H

#include <stddef.h>
#include <stdint.h>

#include "logstore/status.h"

enum { LS_TIME_INDEX_ENTRY_BYTES = 12 };

typedef struct ls_time_index ls_time_index;

ls_status ls_time_index_create(int64_t base_offset, size_t capacity, ls_time_index **out, ls_fault *fault);
void ls_time_index_free(ls_time_index *index); /* NULL is fine */

/* Kafka's maybeAppend: appends only when timestamp is above the last entry's (equal is a no-op). LS_FULL at
 * capacity - 1 (one slot is kept for the closing entry) unless `closing`; LS_INVALID_ARGUMENT when offset
 * or timestamp fall. A negative timestamp is a no-op. */
ls_status ls_time_index_maybe_append(ls_time_index *index, int64_t timestamp, int64_t offset, int closing,
                                     ls_fault *fault);

/* The largest entry with timestamp <= target: (timestamp, offset); (-1, base offset) where there is none. */
void ls_time_index_lookup(const ls_time_index *index, int64_t target, int64_t *timestamp, int64_t *offset);

size_t ls_time_index_count(const ls_time_index *index);
int ls_time_index_is_full(const ls_time_index *index); /* count >= capacity - 1 */
void ls_time_index_entry(const ls_time_index *index, size_t i, int64_t *timestamp, int64_t *offset);
void ls_time_index_truncate(ls_time_index *index, int64_t target_offset); /* drops entries with offset >= target */
void ls_time_index_encode(const ls_time_index *index, size_t first, size_t count, uint8_t *out);

/* LS_CORRUPT (index left empty): size no multiple of 12, timestamps not strictly rising from >= 0, offsets falling,
 * below the base, or >= end_offset. LS_FULL: more than capacity. */
ls_status ls_time_index_load(ls_time_index *index, const uint8_t *bytes, size_t size, int64_t end_offset,
                             ls_fault *fault);

#endif
