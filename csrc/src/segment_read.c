#include "index_chunks.h"
#include "segment_internal.h"

enum {
    /* A first read reaches from an index entry to the batch before the next one, at the default interval of
     * 4096 bytes and with small batches; a scan that goes on reads more at a time. */
    FIRST_READ_BYTES = 4608,
    SCAN_BUFFER_BYTES = 16384,
    /* Entries of the time index that may be ahead of the published size before a look-up does without. */
    ENTRIES_AHEAD_MAX = 8
};

void ls_window_init(ls_window *window, ls_file *file, uint8_t *buffer, size_t capacity, int64_t limit) {
    *window = (ls_window){.file = file, .buffer = buffer, .capacity = capacity, .limit = limit};
}

ls_status ls_window_reach(ls_window *window, int64_t position, size_t wanted, const uint8_t **at,
                          size_t *available, ls_fault *fault) {
    int64_t left = window->limit - position;
    if (left <= 0) {
        *at = window->buffer;
        *available = 0;
        return LS_OK;
    }
    if ((uint64_t)left < wanted) wanted = (size_t)left;
    int64_t inside = position - window->start;
    if (inside < 0 || inside > (int64_t)window->size || window->size - (size_t)inside < wanted) {
        size_t size = (uint64_t)left < window->capacity ? (size_t)left : window->capacity;
        ls_status status = window->file->operations->read(window->file, position, window->buffer, size,
                                                          &window->size, fault);
        if (status != LS_OK) {
            window->size = 0;
            return status;
        }
        window->start = position;
        inside = 0;
    }
    *at = window->buffer + inside;
    *available = window->size - (size_t)inside;
    return LS_OK;
}

void ls_scan_init(ls_scan *scan, const ls_segment *segment, uint8_t *buffer, size_t capacity,
                  int64_t position, int64_t limit) {
    ls_window_init(&scan->window, segment->log, buffer, capacity, limit);
    scan->position = position;
    scan->next_offset = segment->options.base_offset;
    scan->is_next_exact = position == 0;
    scan->leader_epoch = -1;
}

/* What the CRC does not cover is judged by the neighbours and the segment. */
static ls_status check_place(const ls_scan *scan, const ls_segment *segment, const ls_batch_header *header,
                             ls_fault *fault) {
    int64_t position = scan->position;
    if (header->base_offset < scan->next_offset) {
        return ls_fail(fault, LS_CORRUPT, "base offset is not above the offsets before it", position,
                       scan->next_offset, header->base_offset);
    }
    if (header->base_offset != scan->next_offset && scan->is_next_exact &&
        atomic_load_explicit(&segment->is_contiguous, memory_order_relaxed)) {
        return ls_fail(fault, LS_CORRUPT, "records are missing before this batch", position,
                       scan->next_offset, header->base_offset);
    }
    int64_t last_offset = ls_batch_last_offset(header);
    if (last_offset >= segment->options.end_offset_max ||
        last_offset - segment->options.base_offset > INT32_MAX) {
        return ls_fail(fault, LS_CORRUPT, "last offset is outside of the segment", position,
                       segment->options.end_offset_max, last_offset);
    }
    if (header->partition_leader_epoch >= 0 && header->partition_leader_epoch < scan->leader_epoch) {
        return ls_fail(fault, LS_CORRUPT, "leader epoch is below the one before it",
                       position + LS_BATCH_LEADER_EPOCH_AT, scan->leader_epoch,
                       header->partition_leader_epoch);
    }
    int64_t left = scan->window.limit - position;
    if (ls_batch_size_bytes(header) > left) {
        return ls_fail(fault, LS_TORN, "batch is cut off", position, ls_batch_size_bytes(header), left);
    }
    if (ls_batch_size_bytes(header) > INT32_MAX - position) {
        return ls_fail(fault, LS_CORRUPT, "a segment can't pass 2^31-1 bytes", position, INT32_MAX,
                       position + ls_batch_size_bytes(header));
    }
    return LS_OK;
}

ls_status ls_scan_next(ls_scan *scan, const ls_segment *segment, ls_batch_location *out, ls_fault *fault) {
    if (scan->position >= scan->window.limit) return LS_END;
    const uint8_t *at;
    size_t available;
    ls_status status =
        ls_window_reach(&scan->window, scan->position, LS_BATCH_HEADER_BYTES, &at, &available, fault);
    if (status != LS_OK) return status;
    status = ls_batch_header_peek(at, at + available, scan->position, &out->header, fault);
    if (status == LS_END) { /* the file is shorter than the limit says */
        return ls_fail(fault, LS_TORN, "batch is cut off", scan->position, LS_BATCH_HEADER_BYTES, 0);
    }
    out->position = scan->position;
    return status == LS_OK ? ls_scan_pass(scan, segment, &out->header, fault) : status;
}

ls_status ls_scan_pass(ls_scan *scan, const ls_segment *segment, const ls_batch_header *header,
                       ls_fault *fault) {
    ls_status status = check_place(scan, segment, header, fault);
    if (status != LS_OK) return status;
    scan->position += ls_batch_size_bytes(header);
    int64_t last_offset = ls_batch_last_offset(header);
    scan->next_offset = last_offset < INT64_MAX ? last_offset + 1 : INT64_MAX;
    scan->is_next_exact = true;
    if (header->partition_leader_epoch >= 0) scan->leader_epoch = header->partition_leader_epoch;
    return LS_OK;
}

/* Goes on from a location to the first batch with last offset >= offset and max timestamp >= timestamp. */
static ls_status scan_for(ls_scan *scan, const ls_segment *segment, int64_t offset, int64_t timestamp,
                          ls_batch_location *out, ls_fault *fault) {
    ls_batch_location location;
    for (;;) {
        ls_status status = ls_scan_next(scan, segment, &location, fault);
        if (status != LS_OK) return status;
        if (ls_batch_last_offset(&location.header) >= offset && location.header.max_timestamp >= timestamp) {
            *out = location;
            return LS_OK;
        }
        scan->window.capacity = SCAN_BUFFER_BYTES;
    }
}

/* Scan and *out stand at the first batch whose last offset is >= offset. */
static ls_status locate(const ls_segment *segment, ls_scan *scan, uint8_t *buffer, int64_t limit,
                        int64_t offset, ls_batch_location *out, ls_fault *fault) {
    int64_t entry_offset;
    int32_t entry_position;
    ls_offset_index_lookup_below(segment->offset_index, offset, limit, &entry_offset, &entry_position);
    ls_scan_init(scan, segment, buffer, FIRST_READ_BYTES, entry_position, limit);
    if (entry_position > 0) {
        ls_batch_location entered;
        ls_status status = ls_scan_next(scan, segment, &entered, fault);
        if (status == LS_OK && ls_batch_last_offset(&entered.header) == entry_offset) {
            if (entry_offset < offset) return scan_for(scan, segment, offset, INT64_MIN, out, fault);
            *out = entered;
            return LS_OK;
        }
        if (status != LS_OK && status != LS_END && !ls_is_damage(status)) return status;
        /* There is no such batch: the index is wrong, or the log is damaged just there, which the scan will
         * find. */
        ls_scan_init(scan, segment, buffer, SCAN_BUFFER_BYTES, 0, limit);
    }
    return scan_for(scan, segment, offset, INT64_MIN, out, fault);
}

ls_status ls_segment_locate(ls_segment *segment, int64_t offset, ls_batch_location *out, ls_fault *fault) {
    uint8_t buffer[SCAN_BUFFER_BYTES];
    ls_scan scan;
    return locate(segment, &scan, buffer, ls_segment_size_bytes(segment), offset, out, fault);
}

/* Where entry i stands, or the limit where there is none below it. */
static int64_t entry_position_or(const ls_offset_index *index, size_t i, size_t count, int64_t limit) {
    if (i >= count) return limit;
    int64_t offset;
    int32_t position;
    ls_offset_index_entry(index, i, &offset, &position);
    return position < limit ? position : limit;
}

int64_t ls_segment_find_entry(const ls_segment *segment, int64_t offset) {
    int64_t entry_offset;
    int32_t position;
    ls_offset_index_lookup(segment->offset_index, offset > INT64_MIN ? offset - 1 : offset, &entry_offset, &position);
    return position;
}

void ls_segment_plan_fetch(ls_segment *segment, int64_t offset, bool expect_at_entry, ls_fetch_plan *out) {
    int64_t limit = ls_segment_size_bytes(segment);
    const ls_offset_index *index = segment->offset_index;
    size_t count = ls_offset_index_count(index);
    size_t below = offset > INT64_MIN ? ls_offset_index_find(index, offset - 1) : 0;
    if (below > count) below = count; /* another was published meanwhile */
    int64_t lower_offset = -1;
    int32_t lower = 0;
    if (below > 0) ls_offset_index_entry(index, below - 1, &lower_offset, &lower);
    int64_t upper = entry_position_or(index, below, count, limit);
    *out = (ls_fetch_plan){.position = lower,
                           .after_offset = -1,
                           .last_offset = lower_offset,
                           .from_position = lower,
                           .upto_position = upper};
    if (lower >= limit) return;
    int64_t size = upper - lower;
    int64_t room = size;
    if (upper < limit) {
        room = entry_position_or(index, below + 1, count, limit) - upper;
        if (expect_at_entry) {
            int32_t position;
            ls_offset_index_entry(index, below, &out->last_offset, &position);
            out->position = upper;
            out->after_offset = lower_offset;
            size = room;
        }
    }
    if (room < size) room = size;
    if (size > LS_FETCH_BYTES_MAX) size = LS_FETCH_BYTES_MAX;
    if (room > LS_FETCH_BYTES_MAX) room = LS_FETCH_BYTES_MAX;
    out->size_bytes = (size_t)size;
    out->room_bytes = (size_t)room;
}

ls_status ls_segment_fetch(ls_segment *segment, int64_t offset, const ls_fetch_plan *plan, uint8_t *buffer,
                           ls_batch_location *out, const uint8_t **batch, ls_fault *fault) {
    if (plan->size_bytes < LS_BATCH_HEADER_BYTES) return LS_END;
    ls_scan scan;
    ls_scan_init(&scan, segment, buffer, plan->size_bytes, plan->position, ls_segment_size_bytes(segment));
    ls_status status = ls_scan_next(&scan, segment, out, fault);
    if (status != LS_OK) return status;
    if (plan->last_offset >= 0 && ls_batch_last_offset(&out->header) != plan->last_offset) return LS_END;
    if (out->header.base_offset <= plan->after_offset) return LS_END;
    scan.window.capacity = plan->room_bytes;
    while (ls_batch_last_offset(&out->header) < offset) {
        if (scan.position > plan->upto_position) return LS_END;
        status = ls_scan_next(&scan, segment, out, fault);
        if (status != LS_OK) return status;
    }
    int64_t size = ls_batch_size_bytes(&out->header);
    if (out->header.base_offset > offset || size > (int64_t)plan->room_bytes) return LS_END;
    size_t available;
    status = ls_window_reach(&scan.window, out->position, (size_t)size, batch, &available, fault);
    if (status != LS_OK) return status;
    return available >= (size_t)size ? LS_OK : LS_END;
}

bool ls_segment_find_cut(ls_segment *segment, int64_t position, int64_t size_bytes, int64_t *cut,
                         int64_t *last_offset) {
    int64_t limit = ls_segment_size_bytes(segment);
    const ls_offset_index *index = segment->offset_index;
    int64_t offset = -1;
    int32_t found = -1;
    size_t low = 0;
    size_t high = ls_offset_index_count(index);
    size_t count = high;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        ls_offset_index_entry(index, middle, &offset, &found);
        if (found - position <= size_bytes)
            low = middle + 1;
        else
            high = middle;
    }
    if (low > 0) ls_offset_index_entry(index, low - 1, &offset, &found);
    if (low == 0 || found <= position) {
        if (low == count) return false;
        ls_offset_index_entry(index, low, &offset, &found);
    }
    if (found <= position || found >= limit) return false;
    *cut = found;
    *last_offset = offset;
    return true;
}

ls_status ls_segment_find_timestamp(ls_segment *segment, int64_t timestamp, int64_t from_offset,
                                    ls_batch_location *out, ls_fault *fault) {
    uint8_t buffer[SCAN_BUFFER_BYTES];
    ls_scan scan;
    ls_batch_location location;
    int64_t limit = ls_segment_size_bytes(segment);
    int64_t target = timestamp;
    for (int i = 0; i < ENTRIES_AHEAD_MAX; i++) {
        int64_t entry_timestamp;
        int64_t entry_offset;
        ls_time_index_lookup(segment->time_index, target, &entry_timestamp, &entry_offset);
        if (entry_timestamp < 0 || entry_offset < from_offset) break;
        ls_status status = locate(segment, &scan, buffer, limit, entry_offset, &location, fault);
        if (status == LS_OK && ls_batch_last_offset(&location.header) == entry_offset &&
            location.header.max_timestamp == entry_timestamp) {
            /* Every earlier batch is below the entry's timestamp, which is not above the one we look for. */
            if (entry_timestamp < timestamp)
                return scan_for(&scan, segment, entry_offset, timestamp, out, fault);
            *out = location;
            return LS_OK;
        }
        if (status != LS_END) break; /* wrong, or not to be reached: the scan from `from_offset` decides */
        target = entry_timestamp - 1; /* not published to us yet: the one before */
    }
    ls_status status = locate(segment, &scan, buffer, limit, from_offset, &location, fault);
    if (status != LS_OK) return status;
    if (location.header.max_timestamp < timestamp) {
        return scan_for(&scan, segment, from_offset, timestamp, out, fault);
    }
    *out = location;
    return LS_OK;
}

ls_status ls_segment_read(ls_segment *segment, int64_t position, uint8_t *out, size_t size, size_t *got,
                          ls_fault *fault) {
    if (position < 0) return ls_fail(fault, LS_INVALID_ARGUMENT, "position below 0", position, 0, position);
    int64_t left = ls_segment_size_bytes(segment) - position;
    if (left <= 0 || size == 0) {
        *got = 0;
        return LS_OK;
    }
    if ((uint64_t)left < size) size = (size_t)left;
    return segment->log->operations->read(segment->log, position, out, size, got, fault);
}
