/* What an active segment's file has behind its end, so that flushing costs less: zeros, or blocks without content. */
#include "segment_internal.h"

static const int64_t FILL_BYTES_MIN = (int64_t)64 << 10; /* how far ahead, at least and at most */
static const int64_t FILL_BYTES_MAX = (int64_t)4 << 20;
static const int64_t RESERVE_BYTES_MIN = (int64_t)1 << 20;
static const int64_t RESERVE_BYTES_MAX = (int64_t)16 << 20;
/* One write of zeros. Large ones make large pieces of page cache, where a small write costs more to flush. */
enum { FILL_PIECE_BYTES = 64 << 10, PAGE_BYTES = 4096 };
static const uint8_t zeros[FILL_PIECE_BYTES];

void ls_segment_fill_ahead(ls_segment *segment, int64_t limit_bytes) {
    if (limit_bytes > LS_SEGMENT_BYTES_MAX) limit_bytes = LS_SEGMENT_BYTES_MAX;
    atomic_store_explicit(&segment->ahead_limit, limit_bytes, memory_order_relaxed);
}

int64_t ls_segment_filled_bytes(const ls_segment *segment) {
    int64_t size = ls_segment_own_size(segment);
    return segment->filled_bytes > size ? segment->filled_bytes - size : 0;
}

int64_t ls_segment_reserved_bytes(const ls_segment *segment) {
    int64_t size = ls_segment_own_size(segment);
    return segment->reserved_bytes > size ? segment->reserved_bytes - size : 0;
}

void ls_segment_write_back(ls_segment *segment, int64_t position) {
    int64_t size = ls_segment_own_size(segment);
    int64_t end = size - size % PAGE_BYTES; /* what the next batch goes on in is written once, with that */
    if (position > size) position = 0; /* of the segment before */
    bool is_ahead = ls_segment_filled_bytes(segment) > 0 || ls_segment_reserved_bytes(segment) > 0;
    if (is_ahead && position < end)
        ls_file_write_back(segment->log, position, end - position);
}

ls_status ls_segment_cut_ahead(ls_segment *segment, ls_fault *fault) {
    int64_t size = ls_segment_own_size(segment);
    atomic_store_explicit(&segment->ahead_limit, 0, memory_order_relaxed);
    if (ls_segment_filled_bytes(segment) == 0 && ls_segment_reserved_bytes(segment) == 0) return LS_OK;
    ls_status status = segment->log->operations->truncate(segment->log, size, fault);
    if (status != LS_OK) return status;
    segment->filled_bytes = 0;
    segment->reserved_bytes = 0;
    return LS_OK;
}

/* Zeros from `end` on: as much again as the segment holds. A disk without room for them may have room for the batch. */
static ls_status fill(ls_segment *segment, int64_t end, int64_t limit, ls_fault *fault) {
    int64_t ahead = end < FILL_BYTES_MIN ? FILL_BYTES_MIN : end > FILL_BYTES_MAX ? FILL_BYTES_MAX : end;
    int64_t target = end + ahead; /* both are far below 2^63 */
    target -= target % FILL_PIECE_BYTES;
    if (target > limit) target = limit;
    while (end < target) {
        int64_t piece = FILL_PIECE_BYTES - end % FILL_PIECE_BYTES;
        if (piece > target - end) piece = target - end;
        ls_status status = segment->log->operations->write(segment->log, end, zeros, (size_t)piece, fault);
        if (status == LS_DISK_FULL) {
            atomic_store_explicit(&segment->ahead_limit, 0, memory_order_relaxed);
            segment->filled_bytes = end + piece; /* an unknown part of it */
            return ls_segment_cut_ahead(segment, fault);
        }
        if (status != LS_OK) return status;
        end += piece;
        segment->filled_bytes = end;
    }
    return LS_OK;
}

/* The file's size stays as it is, so there is nothing to take back; where it can't be done, the file grows as without it. */
static void reserve(ls_segment *segment, int64_t from, int64_t end, int64_t limit) {
    int64_t ahead = end < RESERVE_BYTES_MIN ? RESERVE_BYTES_MIN : end > RESERVE_BYTES_MAX ? RESERVE_BYTES_MAX : end;
    int64_t target = end + ahead < limit ? end + ahead : limit;
    if (segment->cannot_reserve || end <= segment->reserved_bytes || target <= end) return;
    segment->cannot_reserve = !ls_file_reserve(segment->log, from, target - from);
    if (!segment->cannot_reserve) segment->reserved_bytes = target;
}

ls_status ls_segment_go_ahead(ls_segment *segment, int64_t end, int64_t bytes, int64_t limit, ls_fault *fault) {
    if (bytes < LS_SEGMENT_RESERVE_FOR_BYTES) return fill(segment, end, limit, fault);
    reserve(segment, end - bytes, end, limit);
    return LS_OK;
}
