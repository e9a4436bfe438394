/* What the files of the segment share: its fields, and the walk from header to header. */
#ifndef LOGSTORE_SEGMENT_INTERNAL_H
#define LOGSTORE_SEGMENT_INTERNAL_H

#include <stdatomic.h>
#include <stdbool.h>

#include "logstore/segment.h"

enum {
    LS_SEGMENT_BYTES_MAX = INT32_MAX, /* positions in the offset index have 31 bits */
    /* From writes of this size on, zeros cost more than they save: each byte is written twice. */
    LS_SEGMENT_RESERVE_FOR_BYTES = 32 << 10
};

struct ls_segment {
    ls_file *log;
    ls_segment_options options;
    ls_offset_index *offset_index;
    ls_time_index *time_index;
    _Atomic int64_t size_bytes; /* release by the writer after bytes and index entries, acquire by readers */
    ls_segment_state state;     /* the writer's; its size_bytes is kept in the field above */
    atomic_bool is_contiguous;
    bool has_tail; /* the file goes on behind size_bytes: writing there would leave the rest standing */
    _Atomic int64_t ahead_limit; /* up to where the file may be filled with zeros ahead of its end; 0: it is not */
    int64_t filled_bytes;        /* where the zeros that we wrote end; below size_bytes where there are none */
    int64_t reserved_bytes;      /* and where the blocks end that the file has for more; its size is not theirs */
    bool cannot_reserve;
};

/* For the writer, who needs no ordering with itself. */
static inline int64_t ls_segment_own_size(const ls_segment *segment) {
    return atomic_load_explicit(&segment->size_bytes, memory_order_relaxed);
}

static inline void ls_segment_publish_size(ls_segment *segment, int64_t size_bytes) {
    atomic_store_explicit(&segment->size_bytes, size_bytes, memory_order_release);
}

/* Notes a batch at `position` in the state, and in the indexes if an entry is due: the part of an append that
 * recovery repeats. An index that is full or can't follow stays as it is, as it is only a cache. */
void ls_segment_note_batch(ls_segment *segment, ls_segment_state *state, int64_t position,
                           const ls_batch_header *header);

/* Before `bytes` are written that end at `end`, behind filled_bytes: zeros behind them, or blocks for them and what comes. */
ls_status ls_segment_go_ahead(ls_segment *segment, int64_t end, int64_t bytes, int64_t limit, ls_fault *fault);

/* A piece of a file in memory. */
typedef struct ls_window {
    ls_file *file;
    uint8_t *buffer;
    size_t capacity;
    int64_t start; /* of the piece in the file */
    size_t size;
    int64_t limit; /* nothing is read at or behind it */
} ls_window;

void ls_window_init(ls_window *window, ls_file *file, uint8_t *buffer, size_t capacity, int64_t limit);

/* The bytes from position on: at least `wanted` (<= capacity), or what there is before limit and the end of
 * the file. */
ls_status ls_window_reach(ls_window *window, int64_t position, size_t wanted, const uint8_t **at,
                          size_t *available, ls_fault *fault);

/* A walk over the batches of a segment. */
typedef struct ls_scan {
    ls_window window;
    int64_t position;     /* of the next batch */
    int64_t next_offset;  /* smallest base offset it may have */
    bool is_next_exact;   /* what stands before it is known, so a segment without gaps goes on just there */
    int32_t leader_epoch; /* smallest it may have; -1: any */
} ls_scan;

void ls_scan_init(ls_scan *scan, const ls_segment *segment, uint8_t *buffer, size_t capacity,
                  int64_t position, int64_t limit);

/* The next batch's header, checked by itself and against the one before, and its size against the limit; the
 * scan stands behind the batch then. LS_END exactly at the limit. LS_TORN, LS_CORRUPT, LS_UNSUPPORTED: the
 * batch at scan->position is damaged, and *out means nothing. */
ls_status ls_scan_next(ls_scan *scan, const ls_segment *segment, ls_batch_location *out, ls_fault *fault);

/* The same for a header that was read already, and holds by itself: only its place is checked. */
ls_status ls_scan_pass(ls_scan *scan, const ls_segment *segment, const ls_batch_header *header, ls_fault *fault);

static inline bool ls_is_damage(ls_status status) {
    return status == LS_TORN || status == LS_CORRUPT || status == LS_UNSUPPORTED;
}

#endif
