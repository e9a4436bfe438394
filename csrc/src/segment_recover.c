#include <stdlib.h>
#include <string.h>

#include "index_chunks.h"
#include "logstore/bytes.h"
#include "logstore/crc32c.h"
#include "segment_internal.h"

enum {
    BUFFER_BYTES_MAX = 1 << 20,
    BUFFER_BYTES_MIN = 4096,
    SECTOR_BYTES = 512,  /* what a disk writes whole or not at all */
    CATCH_UP_BYTES_MIN = 64 << 10, /* a reader's look behind the end it knows: there may be several batches */
    SHARED_BYTES_MIN = 8, /* zeros fewer than these say nothing: a record without headers ends in one */
    OLD_CRC_AT = 12, /* in an entry of magic 0 or 1 */
    OLD_ENTRY_BYTES_MIN = 26
};
static const uint32_t OLD_CRC_POLYNOMIAL = 0xEDB88320;
static const int64_t SEARCH_BYTES_MAX = (int64_t)64 << 20;
/* Candidates that a search may put through the CRC, in bytes: made-up headers must not make it quadratic. */
static const int64_t SEARCH_CRC_BYTES_MAX = (int64_t)1 << 30;

static ls_status make_buffer(int64_t wanted, uint8_t **buffer, size_t *capacity, ls_fault *fault) {
    if (wanted < BUFFER_BYTES_MIN) wanted = BUFFER_BYTES_MIN;
    if (wanted > BUFFER_BYTES_MAX) wanted = BUFFER_BYTES_MAX;
    *capacity = (size_t)wanted;
    *buffer = malloc(*capacity);
    return *buffer != NULL ? LS_OK : ls_fail(fault, LS_NO_MEMORY, "buffer to scan with", -1, wanted, 0);
}

/* ---- one batch ------------------------------------------------------------------------------- */

/* The CRC of a batch of any size, a window at a time. LS_TORN where the file ends before the batch. */
static ls_status compute_crc(ls_window *window, int64_t position, int64_t size_bytes, uint32_t *crc,
                             ls_fault *fault) {
    int64_t at_position = position + LS_BATCH_ATTRIBUTES_AT;
    int64_t end = position + size_bytes;
    *crc = 0;
    while (at_position < end) {
        const uint8_t *at;
        size_t available;
        ls_status status = ls_window_reach(window, at_position, 1, &at, &available, fault);
        if (status != LS_OK) return status;
        if (available == 0) return ls_fail(fault, LS_TORN, "batch is cut off", position, end, at_position);
        if ((int64_t)available > end - at_position) available = (size_t)(end - at_position);
        *crc = ls_crc32c_extend(*crc, at, available);
        at_position += (int64_t)available;
    }
    return LS_OK;
}

/* What ls_batch_validate checks, of a batch whose header has passed. Only a control batch has to be in memory
 * as a whole for that; one larger than the buffer is not known to exist, and is taken by its CRC. */
static ls_status check_content(ls_window *window, const ls_batch_location *batch, ls_fault *fault) {
    int64_t size_bytes = ls_batch_size_bytes(&batch->header);
    uint32_t crc;
    ls_status status = compute_crc(window, batch->position, size_bytes, &crc, fault);
    if (status != LS_OK) return status;
    if (crc != batch->header.crc) {
        return ls_fail(fault, LS_CORRUPT, "CRC does not match", batch->position + LS_BATCH_CRC_AT,
                       batch->header.crc, crc);
    }
    if ((batch->header.attributes & LS_ATTRIBUTE_CONTROL) == 0 || size_bytes > (int64_t)window->capacity)
        return LS_OK;
    const uint8_t *at;
    size_t available;
    ls_batch_header same;
    status = ls_window_reach(window, batch->position, (size_t)size_bytes, &at, &available, fault);
    return status == LS_OK ? ls_batch_validate(at, at + available, batch->position, &same, fault) : status;
}

/* ---- torn or corrupt ------------------------------------------------------------------------- */

/* What stands where the scan stopped. */
typedef struct damaged_batch {
    int64_t position;
    int64_t end;    /* as declared, or of a header alone where the length says nothing; maybe past the file */
    int64_t base_offset;
    bool is_intact; /* all there, and its CRC matches: of our format, whatever its magic byte says, or of an older one */
} damaged_batch;

/* Whether an entry of magic 0 or 1 stands there whole: its CRC-32 (not CRC-32C) is over all from the magic on. Nothing
 * fast: it looks at one entry an open, at most. */
static ls_status is_old_entry(ls_window *window, int64_t position, bool *found, ls_fault *fault) {
    *found = false;
    const uint8_t *at;
    size_t available;
    ls_status status = ls_window_reach(window, position, OLD_ENTRY_BYTES_MIN, &at, &available, fault);
    if (status != LS_OK || available < OLD_ENTRY_BYTES_MIN || at[LS_BATCH_MAGIC_AT] >= LS_BATCH_MAGIC) return status;
    uint32_t stored = ls_load_u32(at + OLD_CRC_AT);
    int64_t end = position + LS_BATCH_OVERHEAD_BYTES + ls_load_i32(at + LS_BATCH_LENGTH_AT);
    if (end < position + OLD_ENTRY_BYTES_MIN || end > window->limit) return LS_OK;
    uint32_t crc = UINT32_MAX;
    for (position += LS_BATCH_MAGIC_AT; position < end; position += (int64_t)available) {
        status = ls_window_reach(window, position, 1, &at, &available, fault);
        if (status != LS_OK || available == 0) return status;
        if ((int64_t)available > end - position) available = (size_t)(end - position);
        for (size_t i = 0; i < available; i++) {
            crc ^= at[i];
            for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (OLD_CRC_POLYNOMIAL & (0 - (crc & 1)));
        }
    }
    *found = ~crc == stored;
    return LS_OK;
}

static ls_status look_at_damage(ls_window *window, int64_t position, damaged_batch *out, ls_fault *fault) {
    *out = (damaged_batch){.position = position, .end = position + LS_BATCH_HEADER_BYTES, .base_offset = -1};
    ls_status status = is_old_entry(window, position, &out->is_intact, fault);
    if (status != LS_OK || out->is_intact) return status;
    const uint8_t *at;
    size_t available;
    status = ls_window_reach(window, position, LS_BATCH_HEADER_BYTES, &at, &available, fault);
    if (status != LS_OK || available < LS_BATCH_HEADER_BYTES) return status;
    int32_t length = ls_load_i32(at + LS_BATCH_LENGTH_AT);
    out->base_offset = ls_load_i64(at);
    int64_t size_bytes = (int64_t)length + LS_BATCH_OVERHEAD_BYTES;
    if (size_bytes < LS_BATCH_HEADER_BYTES) return LS_OK;
    out->end = position + size_bytes;
    if (out->end > window->limit) return LS_OK;
    uint32_t stored = ls_load_u32(at + LS_BATCH_CRC_AT);
    uint32_t crc;
    status = compute_crc(window, position, size_bytes, &crc, fault);
    if (status != LS_OK) return status == LS_TORN ? LS_OK : status;
    out->is_intact = crc == stored;
    return LS_OK;
}

static int64_t sector_end_after(int64_t position) { return (position / SECTOR_BYTES + 1) * SECTOR_BYTES; }

/* What is left of a base offset whose first bytes were to go to a sector that never reached the disk, while the
 * rest of it did. A batch always starts in the sector where the one before it ends, or right behind. */
static int64_t torn_offset(int64_t position, int64_t base_offset) {
    int64_t lost_bytes = sector_end_after(position) - position;
    if (lost_bytes >= 8) return 0;
    return (int64_t)((uint64_t)base_offset & (UINT64_MAX >> (8 * lost_bytes)));
}

/* Whether some sector holds only zeros in what it shares with [position, end): it was never written. Where it shares
 * but a few bytes, which may be zeros anyway, it has to go on with zeros. */
static ls_status find_zero_sector(ls_window *window, int64_t position, int64_t end, bool *found,
                                  ls_fault *fault) {
    *found = false;
    while (position < end) {
        int64_t sector_end = sector_end_after(position);
        if (end - position < SHARED_BYTES_MIN && sector_end > window->limit) sector_end = window->limit;
        if (end - position >= SHARED_BYTES_MIN && sector_end > end) sector_end = end;
        const uint8_t *at;
        size_t available;
        ls_status status =
            ls_window_reach(window, position, (size_t)(sector_end - position), &at, &available, fault);
        if (status != LS_OK) return status;
        size_t size = (size_t)(sector_end - position);
        if (available < size) size = available;
        size_t i = 0;
        while (i < size && at[i] == 0) i++;
        if (i == size) {
            *found = true;
            return LS_OK;
        }
        position = sector_end;
    }
    return LS_OK;
}

/* Whether a sound batch with an offset >= next_offset stands at `position`, where the magic byte is right. */
static ls_status try_batch(ls_scan *scan, const ls_segment *segment, int64_t position, int64_t next_offset,
                           int64_t *crc_bytes_left, bool *sound, ls_fault *fault) {
    scan->position = position;
    scan->next_offset = next_offset;
    scan->is_next_exact = false;
    scan->leader_epoch = -1;
    *sound = false;
    ls_batch_location found;
    ls_status status = ls_scan_next(scan, segment, &found, fault);
    if (status == LS_OK) {
        *crc_bytes_left -= ls_batch_size_bytes(&found.header);
        if (*crc_bytes_left < 0) return LS_OK;
        status = check_content(&scan->window, &found, fault);
        *sound = status == LS_OK;
    }
    return status == LS_END || ls_is_damage(status) ? LS_OK : status;
}

/* Looks behind `position` for a sound batch; *found is its position or -1. *exhausted: there are so many
 * candidates that not all were tried. */
static ls_status search_sound_batch(ls_scan *scan, const ls_segment *segment, int64_t position,
                                    int64_t next_offset, int64_t *found, bool *exhausted, ls_fault *fault) {
    int64_t crc_bytes_left = SEARCH_CRC_BYTES_MAX;
    int64_t last = scan->window.limit - LS_BATCH_HEADER_BYTES; /* where a batch may start at the latest */
    if (last > position + SEARCH_BYTES_MAX) last = position + SEARCH_BYTES_MAX;
    *found = -1;
    *exhausted = false;
    for (int64_t candidate = position + 1; candidate <= last;) {
        const uint8_t *at;
        size_t available;
        ls_status status =
            ls_window_reach(&scan->window, candidate, LS_BATCH_HEADER_BYTES, &at, &available, fault);
        if (status != LS_OK) return status;
        if (available < LS_BATCH_HEADER_BYTES) return LS_OK;
        size_t starts = available - LS_BATCH_HEADER_BYTES + 1;
        const uint8_t *magic = memchr(at + LS_BATCH_MAGIC_AT, LS_BATCH_MAGIC, starts);
        if (magic == NULL) {
            candidate += (int64_t)starts;
            continue;
        }
        candidate += magic - (at + LS_BATCH_MAGIC_AT);
        if (candidate > last) return LS_OK;
        bool sound;
        status = try_batch(scan, segment, candidate, next_offset, &crc_bytes_left, &sound, fault);
        if (status != LS_OK) return status;
        if (sound) {
            *found = candidate;
            return LS_OK;
        }
        if (crc_bytes_left < 0) {
            *exhausted = true;
            return LS_OK;
        }
        candidate++;
    }
    return LS_OK;
}

/* Whether there is nothing but zeros from `position` to the end of the file. */
static ls_status is_zeros_to_end(ls_window *window, int64_t position, bool *found, ls_fault *fault) {
    *found = false;
    while (position < window->limit) {
        const uint8_t *at;
        size_t available;
        ls_status status = ls_window_reach(window, position, 1, &at, &available, fault);
        if (status != LS_OK) return status;
        if (available == 0) break;
        if (at[0] != 0 || memcmp(at, at + 1, available - 1) != 0) return LS_OK;
        position += (int64_t)available;
    }
    *found = true;
    return LS_OK;
}

/* Fills in what the report says about the tail. A file that goes on with nothing but zeros needs no rule of
 * its own: the first of its sectors that the damaged batch overlaps tells. */
static ls_status judge_tail(const ls_segment *segment, ls_scan *scan, ls_recovery_report *report,
                            ls_fault *fault) {
    int64_t file_size = report->file_size_bytes;
    bool is_filled;
    ls_status status = is_zeros_to_end(&scan->window, report->valid_bytes, &is_filled, fault);
    if (status != LS_OK) return status;
    report->is_filled = is_filled;
    damaged_batch damage;
    status = look_at_damage(&scan->window, report->valid_bytes, &damage, fault);
    if (status != LS_OK) return status;
    /* The first bytes of a small offset are zeros anyway: alone in their sector they say nothing. */
    bool is_torn_offset = false;
    int64_t from = damage.position;
    int64_t shared_bytes = sector_end_after(from) - from;
    if (shared_bytes < SHARED_BYTES_MIN && torn_offset(from, report->next_offset) == report->next_offset)
        from += shared_bytes;
    else if (damage.base_offset != report->next_offset) /* else the offset is right, and something else is wrong */
        is_torn_offset = damage.base_offset == torn_offset(from, report->next_offset);
    bool zero_sector;
    status = find_zero_sector(&scan->window, from, damage.end < file_size ? damage.end : file_size, &zero_sector,
                              fault);
    if (status != LS_OK) return status;
    bool exhausted;
    status = search_sound_batch(scan, segment, report->valid_bytes, report->next_offset,
                                &report->next_valid_position, &exhausted, fault);
    if (status != LS_OK) return status;

    bool may_be_unfinished = damage.end >= file_size || zero_sector;
    if (damage.is_intact) report->tail = is_torn_offset ? LS_TAIL_TORN : LS_TAIL_CORRUPT;
    else if (zero_sector) report->tail = LS_TAIL_TORN;
    else if (may_be_unfinished) report->tail = LS_TAIL_TORN;
    else report->tail = report->next_valid_position >= 0 || exhausted ? LS_TAIL_CORRUPT : LS_TAIL_TORN;
    return LS_OK;
}

/* ---- what is known of a segment's first part --------------------------------------------------- */

static void clear_state(const ls_segment *segment, ls_segment_state *state) {
    *state = (ls_segment_state){
        .next_offset = segment->options.base_offset,
        .max_timestamp = -1,
        .max_timestamp_offset = -1,
        .first_batch_max_timestamp = -1,
        .last_leader_epoch = -1,
    };
}

/* The state after the batches in [start, end) by their headers. start_offset: the last offset of the batch
 * at `start`, or -1 if any will do. LS_CORRUPT / LS_TORN where the batches don't lead from start to end. */
static ls_status walk(const ls_segment *segment, uint8_t *buffer, size_t capacity, int64_t start,
                      int64_t start_offset, int64_t end, ls_segment_state *state, ls_fault *fault) {
    ls_scan scan;
    ls_scan_init(&scan, segment, buffer, capacity, start, end);
    clear_state(segment, state);
    for (;;) {
        ls_batch_location batch;
        ls_status status = ls_scan_next(&scan, segment, &batch, fault);
        if (status == LS_END) break;
        if (status != LS_OK) return status;
        int64_t last_offset = ls_batch_last_offset(&batch.header);
        if (batch.position == start && start_offset >= 0 && last_offset != start_offset) {
            return ls_fail(fault, LS_CORRUPT, "an index entry leads to another batch", start, start_offset,
                           last_offset);
        }
        if (batch.position == 0 && batch.header.max_timestamp >= 0) {
            state->first_batch_max_timestamp = batch.header.max_timestamp;
        }
        if (batch.header.max_timestamp > state->max_timestamp) {
            state->max_timestamp = batch.header.max_timestamp;
            state->max_timestamp_offset = last_offset;
        }
    }
    state->next_offset = scan.next_offset;
    state->last_leader_epoch = scan.leader_epoch;
    state->size_bytes = end;
    return LS_OK;
}

/* walk from the last offset index entry for an offset <= target. */
static ls_status walk_from_entry(const ls_segment *segment, uint8_t *buffer, size_t capacity, int64_t target,
                                 int64_t end, ls_segment_state *state, ls_fault *fault) {
    int64_t entry_offset;
    int32_t entry_position;
    ls_offset_index_lookup_below(segment->offset_index, target, end, &entry_offset, &entry_position);
    return walk(segment, buffer, capacity, entry_position, entry_position > 0 ? entry_offset : -1, end, state,
                fault);
}

/* The last time index entry for an offset below `end_offset`; timestamp -1 where there is none. */
static void last_time_entry(const ls_segment *segment, int64_t end_offset, int64_t *timestamp,
                            int64_t *offset) {
    *timestamp = -1;
    *offset = segment->options.base_offset;
    for (size_t i = ls_time_index_count(segment->time_index); i > 0; i--) {
        ls_time_index_entry(segment->time_index, i - 1, timestamp, offset);
        if (*offset < end_offset) return;
        *timestamp = -1;
    }
}

/* The state of the part before `end`, a batch boundary, with as few headers read as the indexes allow. The
 * time index may lag behind the offset index, so it alone says from where largest timestamps have to be
 * looked for. */
static ls_status state_before(const ls_segment *segment, uint8_t *buffer, size_t capacity, int64_t end,
                              ls_segment_state *state, ls_fault *fault) {
    clear_state(segment, state);
    if (end == 0) return LS_OK;
    ls_status status = walk_from_entry(segment, buffer, capacity, INT64_MAX, end, state, fault);
    if (status == LS_OK) {
        int64_t timestamp;
        int64_t offset;
        last_time_entry(segment, state->next_offset, &timestamp, &offset);
        if (timestamp >= 0) {
            status = walk_from_entry(segment, buffer, capacity, offset, end, state, fault);
            bool agrees = status == LS_OK && (state->max_timestamp > timestamp ||
                                              (state->max_timestamp == timestamp &&
                                               state->max_timestamp_offset == offset));
            if (agrees) {
                ls_scan scan;
                ls_batch_location first;
                ls_scan_init(&scan, segment, buffer, LS_BATCH_HEADER_BYTES, 0, end);
                status = ls_scan_next(&scan, segment, &first, fault);
                if (status == LS_OK && first.header.max_timestamp >= 0) {
                    state->first_batch_max_timestamp = first.header.max_timestamp;
                }
                return status;
            }
        }
    }
    if (status != LS_OK && !ls_is_damage(status)) return status;
    return walk(segment, buffer, capacity, 0, -1, end, state, fault); /* without the indexes */
}

static void drop_entries(ls_segment *segment, int64_t position, int64_t next_offset) {
    ls_offset_index_truncate_position(segment->offset_index, position);
    ls_time_index_truncate(segment->time_index, next_offset);
}

/* ---- recovery -------------------------------------------------------------------------------- */

/* Scans from the state's end and takes the sound batches into state and indexes. *stopped: LS_END, or the
 * kind of damage at the state's end, described by fault. Other failures are returned. */
static ls_status take_batches(ls_segment *segment, ls_scan *scan, bool deep, bool publish,
                              ls_segment_state *state, int64_t *batches_count, ls_status *stopped,
                              ls_fault *fault) {
    scan->next_offset = state->next_offset;
    scan->leader_epoch = state->last_leader_epoch;
    *batches_count = 0;
    for (;;) {
        ls_batch_location batch;
        ls_status status = ls_scan_next(scan, segment, &batch, fault);
        if (status == LS_OK && deep) status = check_content(&scan->window, &batch, fault);
        if (status == LS_END || ls_is_damage(status)) {
            *stopped = status;
            return LS_OK;
        }
        if (status != LS_OK) return status;
        ls_segment_note_batch(segment, state, batch.position, &batch.header);
        if (publish) ls_segment_publish_size(segment, state->size_bytes);
        ++*batches_count;
    }
}

/* Bytes since the last index entry, as if every append had been made in one go. */
static int64_t bytes_since_last_entry(const ls_segment *segment, int64_t position) {
    int64_t entry_offset;
    int32_t entry_position;
    ls_offset_index_lookup(segment->offset_index, INT64_MAX, &entry_offset, &entry_position);
    return position - entry_position;
}

static ls_status recover_with(ls_segment *segment, uint8_t *buffer, size_t capacity, int64_t position,
                              int64_t next_offset, bool deep, ls_recovery_report *report, ls_fault *fault) {
    ls_segment_state state = segment->state;
    if (position != ls_segment_own_size(segment)) {
        ls_status status = state_before(segment, buffer, capacity, position, &state, fault);
        if (ls_is_damage(status)) { /* before our part: whoever reads it will be told */
            clear_state(segment, &state);
            last_time_entry(segment, next_offset, &state.max_timestamp, &state.max_timestamp_offset);
        } else if (status != LS_OK) {
            return status;
        }
    }
    drop_entries(segment, position, next_offset);
    state.size_bytes = position;
    state.next_offset = next_offset;
    state.bytes_since_last_entry = bytes_since_last_entry(segment, position);

    ls_scan scan;
    ls_scan_init(&scan, segment, buffer, capacity, position, report->file_size_bytes);
    ls_status stopped;
    ls_status status = take_batches(segment, &scan, deep, false, &state, &report->batches_count, &stopped,
                                    &report->tail_fault);
    if (status != LS_OK) {
        *fault = report->tail_fault;
        return status;
    }
    report->valid_bytes = state.size_bytes;
    report->next_offset = state.next_offset;
    report->next_valid_position = -1;
    report->tail = LS_TAIL_NONE;
    if (stopped != LS_END) {
        status = judge_tail(segment, &scan, report, fault);
        if (status != LS_OK) return status;
    }
    segment->state = state;
    segment->has_tail = stopped != LS_END;
    ls_segment_publish_size(segment, state.size_bytes);
    return LS_OK;
}

ls_status ls_segment_recover(ls_segment *segment, int64_t position, int64_t next_offset, int deep,
                             ls_recovery_report *report, ls_fault *fault) {
    ls_recovery_report found = {0};
    ls_status status = segment->log->operations->size(segment->log, &found.file_size_bytes, fault);
    if (status != LS_OK) return status;
    if (position < 0 || position > found.file_size_bytes || position > INT32_MAX) {
        return ls_fail(fault, LS_INVALID_ARGUMENT, "position to recover from is not in the file", position,
                       found.file_size_bytes, position);
    }
    if (next_offset < segment->options.base_offset) {
        return ls_fail(fault, LS_INVALID_ARGUMENT, "next offset below the base offset", position,
                       segment->options.base_offset, next_offset);
    }
    uint8_t *buffer;
    size_t capacity;
    status = make_buffer(found.file_size_bytes, &buffer, &capacity, fault);
    if (status != LS_OK) return status;
    status = recover_with(segment, buffer, capacity, position, next_offset, deep != 0, &found, fault);
    free(buffer);
    if (status == LS_OK) *report = found;
    else drop_entries(segment, position, next_offset); /* those of batches that are not published */
    return status;
}

static ls_status truncate_with(ls_segment *segment, uint8_t *buffer, size_t capacity, int64_t size_bytes,
                               int64_t next_offset, ls_segment_state *state, int64_t *kept_next_offset,
                               ls_fault *fault) {
    ls_status status = state_before(segment, buffer, capacity, size_bytes, state, fault);
    if (status == LS_TORN) {
        return ls_fail(fault, LS_INVALID_ARGUMENT, "no batch ends at the size to cut to", fault->position,
                       fault->expected, size_bytes);
    }
    if (status != LS_OK) return status;
    *kept_next_offset = state->next_offset;
    if (next_offset < state->next_offset) {
        return ls_fail(fault, LS_INVALID_ARGUMENT, "next offset below that of what is kept", size_bytes,
                       state->next_offset, next_offset);
    }
    state->next_offset = next_offset;
    return LS_OK;
}

ls_status ls_segment_truncate_bytes(ls_segment *segment, int64_t size_bytes, int64_t next_offset,
                                    ls_fault *fault) {
    int64_t old_size = ls_segment_own_size(segment);
    if (size_bytes < 0 || size_bytes > old_size) {
        return ls_fail(fault, LS_INVALID_ARGUMENT, "size to cut to is not in the segment", size_bytes,
                       old_size, size_bytes);
    }
    ls_segment_state state = segment->state;
    int64_t kept_next_offset = state.next_offset;
    ls_status status = LS_OK;
    if (size_bytes < old_size) {
        uint8_t *buffer;
        size_t capacity;
        status = make_buffer(size_bytes, &buffer, &capacity, fault);
        if (status != LS_OK) return status;
        status = truncate_with(segment, buffer, capacity, size_bytes, next_offset, &state, &kept_next_offset,
                               fault);
        free(buffer);
    } else if (next_offset < state.next_offset) {
        status = ls_fail(fault, LS_INVALID_ARGUMENT, "next offset below that of what is kept", size_bytes,
                         state.next_offset, next_offset);
    }
    if (status != LS_OK) return status;

    /* Readers first: none may start on bytes that are about to go. */
    ls_segment_publish_size(segment, size_bytes);
    status = segment->log->operations->truncate(segment->log, size_bytes, fault);
    if (status != LS_OK) {
        ls_segment_publish_size(segment, old_size);
        return status;
    }
    drop_entries(segment, size_bytes, kept_next_offset);
    state.next_offset = next_offset;
    state.size_bytes = size_bytes;
    segment->state = state;
    segment->has_tail = false;
    segment->filled_bytes = 0;
    segment->reserved_bytes = 0;
    return LS_OK;
}

/* Why the next batch can't be had is nobody's business before it is whole. */
static ls_status take_what_is_whole(ls_segment *segment, ls_scan *scan, ls_fault *fault) {
    int64_t batches_count;
    ls_status stopped;
    ls_fault not_yet = {0};
    ls_status status = take_batches(segment, scan, true, true, &segment->state, &batches_count, &stopped, &not_yet);
    if (status != LS_OK) *fault = not_yet;
    return status;
}

/* How much to read behind the published end; 0 where no batch has begun, as in a file that is filled ahead. */
static ls_status next_batch_bytes(const ls_segment *segment, int64_t position, int64_t file_size_bytes,
                                  int64_t *wanted, ls_fault *fault) {
    uint8_t header[LS_BATCH_HEADER_BYTES];
    size_t got;
    *wanted = 0;
    ls_status status =
        segment->log->operations->read(segment->log, position, header, sizeof header, &got, fault);
    if (status != LS_OK || got < sizeof header || header[LS_BATCH_MAGIC_AT] != LS_BATCH_MAGIC) return status;
    int64_t batch_bytes = (int64_t)ls_load_i32(header + LS_BATCH_LENGTH_AT) + LS_BATCH_OVERHEAD_BYTES;
    int64_t left = file_size_bytes - position;
    *wanted = batch_bytes < CATCH_UP_BYTES_MIN ? CATCH_UP_BYTES_MIN : batch_bytes;
    if (*wanted > left) *wanted = left;
    return LS_OK;
}

/* Goes on from `size_bytes`, the published end. */
static ls_status catch_up_from(ls_segment *segment, int64_t size_bytes, ls_fault *fault) {
    int64_t file_size_bytes;
    ls_status status = segment->log->operations->size(segment->log, &file_size_bytes, fault);
    if (status != LS_OK || file_size_bytes == size_bytes) return status;
    if (file_size_bytes < size_bytes) {
        return ls_fail(fault, LS_TORN, "the file is shorter than it was", file_size_bytes, size_bytes,
                       file_size_bytes);
    }
    int64_t wanted;
    status = next_batch_bytes(segment, size_bytes, file_size_bytes, &wanted, fault);
    if (status != LS_OK || wanted == 0) return status;
    uint8_t *buffer;
    size_t capacity;
    status = make_buffer(wanted, &buffer, &capacity, fault);
    if (status != LS_OK) return status;
    ls_scan scan;
    ls_scan_init(&scan, segment, buffer, capacity, size_bytes, file_size_bytes);
    status = take_what_is_whole(segment, &scan, fault);
    free(buffer);
    return status;
}

ls_status ls_segment_catch_up(ls_segment *segment, int64_t *grew, ls_fault *fault) {
    uint8_t first[LS_CATCH_UP_FIRST_BYTES];
    size_t taken;
    return ls_segment_catch_up_into(segment, first, &taken, grew, fault);
}

/* As a rule a reader looks for one small batch: that one takes one read, and no memory. */
ls_status ls_segment_catch_up_into(ls_segment *segment, uint8_t first[LS_CATCH_UP_FIRST_BYTES], size_t *taken,
                                   int64_t *grew, ls_fault *fault) {
    int64_t size_bytes = ls_segment_own_size(segment);
    size_t got;
    *grew = 0;
    *taken = 0;
    /* Where it ends with a batch, that is the end of the file: no second call has to say so. */
    ls_status status = ls_file_read_once(segment->log, size_bytes, first, LS_CATCH_UP_FIRST_BYTES, &got, fault);
    if (status != LS_OK) return status;
    bool is_done = got >= LS_BATCH_HEADER_BYTES && first[LS_BATCH_MAGIC_AT] != LS_BATCH_MAGIC;
    if (got >= LS_BATCH_HEADER_BYTES && !is_done) {
        ls_scan scan;
        ls_scan_init(&scan, segment, first, LS_CATCH_UP_FIRST_BYTES, size_bytes, size_bytes + (int64_t)got);
        scan.window.start = size_bytes;
        scan.window.size = got; /* all there is up to the scan's limit: it reads nothing more into `first` */
        status = take_what_is_whole(segment, &scan, fault);
        *taken = (size_t)(ls_segment_own_size(segment) - size_bytes);
        is_done = got - *taken >= LS_BATCH_HEADER_BYTES ? first[*taken + LS_BATCH_MAGIC_AT] != LS_BATCH_MAGIC
                                                        : got == *taken && got < LS_CATCH_UP_FIRST_BYTES;
    }
    if (status == LS_OK && !is_done)
        status = catch_up_from(segment, ls_segment_own_size(segment), fault);
    *grew = ls_segment_own_size(segment) - size_bytes;
    return status;
}
