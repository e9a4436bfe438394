#include "logstore/segment.h"

#include <stdlib.h>

#include "index_chunks.h"
#include "segment_internal.h"

static ls_status check_options(const ls_segment_options *options, const ls_segment_state *state,
                               ls_fault *fault) {
    if (options->base_offset < 0) {
        return ls_fail(fault, LS_INVALID_ARGUMENT, "base offset below 0", -1, 0, options->base_offset);
    }
    if (options->end_offset_max < options->base_offset) {
        return ls_fail(fault, LS_INVALID_ARGUMENT, "end of a segment's offsets below its base offset", -1,
                       options->base_offset, options->end_offset_max);
    }
    if (state != NULL && (state->size_bytes < 0 || state->size_bytes > LS_SEGMENT_BYTES_MAX)) {
        return ls_fail(fault, LS_INVALID_ARGUMENT, "size of a segment", -1, LS_SEGMENT_BYTES_MAX,
                       state->size_bytes);
    }
    if (state != NULL && state->next_offset < options->base_offset) {
        return ls_fail(fault, LS_INVALID_ARGUMENT, "next offset below the base offset", -1,
                       options->base_offset, state->next_offset);
    }
    return LS_OK;
}

ls_status ls_segment_create(ls_file *log, const ls_segment_options *options, const ls_segment_state *state,
                            ls_segment **out, ls_fault *fault) {
    ls_status status = check_options(options, state, fault);
    if (status != LS_OK) return status;
    ls_segment *segment = calloc(1, sizeof *segment);
    if (segment == NULL) return ls_fail(fault, LS_NO_MEMORY, "segment", -1, (int64_t)sizeof *segment, 0);
    segment->options = *options;
    segment->state = (ls_segment_state){
        .next_offset = options->base_offset,
        .max_timestamp = -1,
        .max_timestamp_offset = -1,
        .first_batch_max_timestamp = -1,
        .last_leader_epoch = -1,
    };
    if (state != NULL) segment->state = *state;
    segment->state.bytes_since_last_entry = 0;
    atomic_init(&segment->size_bytes, segment->state.size_bytes);
    atomic_init(&segment->is_contiguous, options->is_contiguous != 0);
    atomic_init(&segment->ahead_limit, 0);

    status = ls_offset_index_create(options->base_offset, options->offset_index_capacity,
                                    &segment->offset_index, fault);
    if (status == LS_OK) {
        status = ls_time_index_create(options->base_offset, options->time_index_capacity,
                                      &segment->time_index, fault);
    }
    if (status != LS_OK) {
        ls_segment_free(segment); /* the log is not its own yet */
        return status;
    }
    segment->log = log;
    *out = segment;
    return LS_OK;
}

void ls_segment_free(ls_segment *segment) {
    if (segment == NULL) return;
    if (segment->log != NULL) segment->log->operations->close(segment->log);
    ls_offset_index_free(segment->offset_index);
    ls_time_index_free(segment->time_index);
    free(segment);
}

int64_t ls_segment_size_bytes(const ls_segment *segment) {
    return atomic_load_explicit(&segment->size_bytes, memory_order_acquire);
}

void ls_segment_get_state(const ls_segment *segment, ls_segment_state *out) {
    *out = segment->state;
    out->size_bytes = ls_segment_own_size(segment);
}

int ls_segment_digest(const ls_segment *segment, ls_digest *out) {
    if (segment->state.digested_bytes != ls_segment_own_size(segment)) return 0;
    *out = segment->state.digest;
    return 1;
}

int64_t ls_segment_base_offset(const ls_segment *segment) { return segment->options.base_offset; }
void ls_segment_allow_gaps(ls_segment *segment) {
    atomic_store_explicit(&segment->is_contiguous, false, memory_order_relaxed);
}

ls_file *ls_segment_log_file(ls_segment *segment) { return segment->log; }

ls_status ls_segment_share_descriptor(ls_segment *segment, ls_file_pool *pool, const char *path, int mode,
                                      bool is_synced, ls_fault *fault) {
    return ls_file_pool_take(pool, segment->log, path, mode, is_synced, &segment->log, fault);
}

ls_offset_index *ls_segment_offset_index(ls_segment *segment) { return segment->offset_index; }
ls_time_index *ls_segment_time_index(ls_segment *segment) { return segment->time_index; }

int ls_segment_should_roll(const ls_segment *segment, const ls_roll_policy *policy, int64_t batch_bytes,
                           int64_t max_timestamp, int64_t last_offset, int64_t now_ms) {
    int64_t base_offset = segment->options.base_offset;
    if (last_offset < base_offset || last_offset - base_offset > INT32_MAX) return 1;
    int64_t size = ls_segment_own_size(segment);
    if (size == 0) return 0; /* the next segment would have nothing over this one */
    if (size > policy->segment_bytes - batch_bytes || size > LS_SEGMENT_BYTES_MAX - batch_bytes) return 1;
    if (ls_offset_index_is_full(segment->offset_index) || ls_time_index_is_full(segment->time_index))
        return 1;
    int64_t from_ms = segment->state.first_batch_max_timestamp;
    int64_t until_ms = max_timestamp;
    if (from_ms < 0) {
        from_ms = policy->created_ms;
        until_ms = now_ms;
    }
    return until_ms > from_ms && until_ms - from_ms > policy->segment_ms;
}

/* ---- appending ------------------------------------------------------------------------------- */

static bool entry_is_due(const ls_segment *segment, const ls_segment_state *state) {
    return state->bytes_since_last_entry > segment->options.index_interval_bytes;
}

void ls_segment_note_batch(ls_segment *segment, ls_segment_state *state, int64_t position,
                           const ls_batch_header *header) {
    int64_t last_offset = ls_batch_last_offset(header);
    if (header->max_timestamp > state->max_timestamp) {
        state->max_timestamp = header->max_timestamp;
        state->max_timestamp_offset = last_offset;
    }
    if (position == 0)
        state->first_batch_max_timestamp = header->max_timestamp < 0 ? -1 : header->max_timestamp;
    if (entry_is_due(segment, state)) {
        ls_fault ignored;
        ls_offset_index *index = segment->offset_index;
        if (ls_offset_index_append(index, last_offset, (int32_t)position, &ignored) == LS_OK) {
            ls_time_index_maybe_append(segment->time_index, state->max_timestamp, state->max_timestamp_offset,
                                       0, &ignored);
        }
        state->bytes_since_last_entry = 0;
    }
    state->bytes_since_last_entry += ls_batch_size_bytes(header);
    if (state->digested_bytes == position) {
        ls_digest_extend(&state->digest, header);
        state->digested_bytes += ls_batch_size_bytes(header);
    }
    if (header->partition_leader_epoch >= 0) state->last_leader_epoch = header->partition_leader_epoch;
    state->next_offset = last_offset < INT64_MAX ? last_offset + 1 : INT64_MAX;
    state->size_bytes = position + ls_batch_size_bytes(header);
}

/* Room for so many index entries more. */
static ls_status reserve_entries(const ls_segment *segment, size_t count, ls_fault *fault) {
    ls_status status = ls_offset_index_reserve(segment->offset_index, count, fault);
    return status == LS_OK ? ls_time_index_reserve(segment->time_index, count, fault) : status;
}

/* `size` and `next_offset` are those of the segment, or what they are going to be where other batches go before. */
static ls_status check_append(const ls_segment *segment, int64_t size, int64_t next_offset, size_t batch_bytes,
                              const ls_batch_header *header, ls_fault *fault) {
    if ((int64_t)batch_bytes != ls_batch_size_bytes(header)) {
        return ls_fail(fault, LS_INVALID_ARGUMENT, "size of the batch is not its header's", size,
                       ls_batch_size_bytes(header), (int64_t)batch_bytes);
    }
    if (header->base_offset < next_offset) {
        return ls_fail(fault, LS_INVALID_ARGUMENT, "base offset below the next offset", size, next_offset,
                       header->base_offset);
    }
    int64_t offsets_left = segment->options.end_offset_max - header->base_offset; /* both are >= 0 */
    if (header->last_offset_delta < 0 || header->last_offset_delta >= offsets_left) {
        return ls_fail(fault, LS_INVALID_ARGUMENT, "last offset outside of the segment", size,
                       segment->options.end_offset_max, header->base_offset);
    }
    if (ls_batch_last_offset(header) - segment->options.base_offset > INT32_MAX) {
        return ls_fail(fault, LS_FULL, "the offset is too far from the segment's base offset", size,
                       segment->options.base_offset, ls_batch_last_offset(header));
    }
    if (ls_batch_size_bytes(header) > LS_SEGMENT_BYTES_MAX - size) {
        ls_status status = size == 0 ? LS_TOO_LARGE : LS_FULL; /* no other segment could take it either */
        return ls_fail(fault, status, "a segment can't pass 2^31-1 bytes", size, LS_SEGMENT_BYTES_MAX - size,
                       ls_batch_size_bytes(header));
    }
    if (segment->has_tail) {
        return ls_fail(fault, LS_INVALID_ARGUMENT, "the file goes on behind the segment's end: cut it first",
                       size, size, -1);
    }
    return entry_is_due(segment, &segment->state) ? reserve_entries(segment, 1, fault) : LS_OK;
}

/* Kept out of the fast path. Takes a failed write's bytes away again. */
static ls_status undo_write(ls_segment *segment, int64_t size, ls_status status, ls_fault *fault) {
    ls_fault ignored;
    segment->filled_bytes = 0;
    segment->reserved_bytes = 0;
    segment->has_tail = segment->log->operations->truncate(segment->log, size, &ignored) != LS_OK;
    fault->expected = segment->has_tail ? 1 : 0;
    fault->actual = 0;
    return status;
}

void ls_segment_expect_append(const ls_segment *segment) {
#if defined(__GNUC__)
    enum { LINE_BYTES = 64 };
    for (size_t at = 0; at < sizeof *segment; at += LINE_BYTES) __builtin_prefetch((const char *)segment + at, 1);
    __builtin_prefetch(segment->log, 1);
    __builtin_prefetch(segment->offset_index, 1);
    __builtin_prefetch(segment->time_index, 1);
#else
    (void)segment;
#endif
}

/* Writes behind the end. Where that fails, the file is as it was, or has a tail. */
static inline ls_status write_at_end(ls_segment *segment, int64_t size, const uint8_t *batches, size_t bytes,
                                     ls_fault *fault) {
    int64_t limit = atomic_load_explicit(&segment->ahead_limit, memory_order_relaxed);
    ls_status status = LS_OK;
    if (limit != 0 && size + (int64_t)bytes > segment->filled_bytes)
        status = ls_segment_go_ahead(segment, size + (int64_t)bytes, (int64_t)bytes, limit, fault);
    if (status == LS_OK) status = segment->log->operations->write(segment->log, size, batches, bytes, fault);
    if (status == LS_OK || status == LS_NO_DESCRIPTOR) return status;
    return undo_write(segment, size, status, fault);
}

ls_status ls_segment_append(ls_segment *segment, const uint8_t *batch, size_t batch_bytes,
                            const ls_batch_header *header, ls_fault *fault) {
    int64_t size = ls_segment_own_size(segment);
    ls_status status = check_append(segment, size, segment->state.next_offset, batch_bytes, header, fault);
    if (status == LS_OK) status = write_at_end(segment, size, batch, batch_bytes, fault);
    if (status != LS_OK) return status;
    ls_segment_note_batch(segment, &segment->state, size, header);
    ls_segment_publish_size(segment, segment->state.size_bytes);
    return LS_OK;
}

ls_status ls_segment_append_run(ls_segment *segment, const uint8_t *batches, size_t bytes, ls_fault *fault) {
    int64_t start = ls_segment_own_size(segment);
    int64_t next_offset = segment->state.next_offset;
    size_t count = 0;
    ls_batch_header header;
    ls_status status = LS_OK;
    for (size_t at = 0; at < bytes && status == LS_OK; at += (size_t)ls_batch_size_bytes(&header), count++) {
        int64_t position = start + (int64_t)at;
        status = ls_batch_header_read(batches + at, batches + bytes, position, &header, fault);
        if (status != LS_OK) return status;
        status = check_append(segment, position, next_offset, (size_t)ls_batch_size_bytes(&header), &header, fault);
        if (status == LS_OK) next_offset = ls_batch_last_offset(&header) + 1; /* at most end_offset_max */
    }
    if (status == LS_OK) status = reserve_entries(segment, count, fault);
    if (status == LS_OK) status = write_at_end(segment, start, batches, bytes, fault);
    if (status != LS_OK) return status;
    for (size_t at = 0; at < bytes; at += (size_t)ls_batch_size_bytes(&header)) {
        int64_t position = start + (int64_t)at;
        (void)ls_batch_header_read(batches + at, batches + bytes, position, &header, fault); /* as above */
        ls_segment_note_batch(segment, &segment->state, position, &header);
    }
    ls_segment_publish_size(segment, segment->state.size_bytes);
    return LS_OK;
}

ls_status ls_segment_append_batches(ls_segment *segment, const uint8_t *batches, size_t size,
                                    size_t *appended, ls_fault *fault) {
    int64_t start = ls_segment_own_size(segment);
    size_t done = 0;
    ls_status status = LS_OK;
    while (done < size && status == LS_OK) {
        int64_t position = start + (int64_t)done;
        ls_batch_header header;
        status = ls_batch_header_read(batches + done, batches + size, position, &header, fault);
        if (status != LS_OK) return status;
        size_t batch_bytes = (size_t)ls_batch_size_bytes(&header);
        status = check_append(segment, position, segment->state.next_offset, batch_bytes, &header, fault);
        if (status != LS_OK) break;
        ls_segment_note_batch(segment, &segment->state, position, &header);
        done += batch_bytes;
    }
    if (status != LS_OK && status != LS_FULL) return status;
    *appended = done;
    if (done == 0) return status;
    ls_fault refused;
    ls_status written = segment->log->operations->write(segment->log, start, batches, done, &refused);
    if (written != LS_OK) {
        *fault = refused;
        return written;
    }
    ls_segment_publish_size(segment, segment->state.size_bytes);
    return status;
}

void ls_segment_close_time_index(ls_segment *segment) {
    ls_fault ignored; /* the entry is there already, or a cache stays one entry short */
    if (segment->state.max_timestamp < 0) return;
    ls_time_index_maybe_append(segment->time_index, segment->state.max_timestamp,
                               segment->state.max_timestamp_offset, 1, &ignored);
}
