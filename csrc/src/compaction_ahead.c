/* Compaction with two threads: pieces of a file between entries of its offset index, each read and checked by itself.
 * For the first pass their keys are hashed ahead (compaction_map.c shares putting them), for the second all is done, since
 * the map changes no more then.
 *
 * A piece works on a compactor of its worker's, which has the rules, the map and the marks in common with the one it
 * serves. That the batches of a piece follow those of the piece before is seen when it is taken. A piece that is
 * anything but plain (damaged, compressed, of a transaction) is left to the caller, who goes over it again. */
#include <stdlib.h>
#include <string.h>

#include "compaction_keys.h"
#include "logstore/bytes.h"
#include "logstore/offset_index.h"
#include "logstore/work_ahead.h"

enum {
    PIECE_BYTES = 256 << 10,   /* and whole batches: a larger one is a piece of its own */
    PIECE_BYTES_MAX = 4 << 20, /* up to this size */
    PIECES = 6,
    FAILURES_MAX = 4 /* pieces of a file done in vain, after which there are no more */
};

typedef struct piece {
    int64_t position;
    int64_t end; /* where an index entry says that a batch starts */
    bool is_sound;
    bool is_last_gone;
    int64_t first_offset;
    ls_batch_header last_header;
    ls_compaction_counts counts;
    gathered_key *keys;
    size_t keys_count;
    size_t keys_capacity;
    ls_byte_buffer output;
} piece;

typedef struct worker {
    ls_compactor compactor; /* owns `kept`, and nothing else */
    uint8_t *buffer;
    size_t capacity;
} worker;

struct ls_compaction_ahead {
    ls_compactor *compactor;
    ls_work_ahead *work;
    ls_file *file;
    const uint8_t *index;
    size_t entries_count;
    bool rewrites;
    int failures;
    int64_t cut; /* behind the last piece put */
    worker workers[LS_WORKERS];
    piece pieces[PIECES];
    size_t next_piece;
};

/* ---- by either thread ----------------------------------------------------------------------------- */

static bool read_piece(const ls_compaction_ahead *ahead, worker *self, const piece *here) {
    size_t size = (size_t)(here->end - here->position);
    if (size < LS_BATCH_HEADER_BYTES) return false;
    if (size > self->capacity) {
        uint8_t *grown = realloc(self->buffer, size);
        if (grown == NULL) return false;
        self->buffer = grown;
        self->capacity = size;
    }
    ls_fault unused;
    size_t got = 0;
    return ls_file_read(ahead->file, here->position, self->buffer, size, &got, &unused) == LS_OK && got == size;
}

/* Room for the keys of a batch: what its header says is bounded by what is there, as a record has 7 bytes at least. */
static bool reserve_keys(piece *here, const ls_batch_header *header, size_t payload_bytes) {
    size_t count = payload_bytes / 7 + 1;
    if ((size_t)header->records_count < count) count = (size_t)header->records_count;
    if (count <= here->keys_capacity - here->keys_count) return true;
    size_t capacity = here->keys_count + count + here->keys_capacity / 2;
    gathered_key *grown = realloc(here->keys, capacity * sizeof *grown);
    if (grown == NULL) return false;
    here->keys = grown;
    here->keys_capacity = capacity;
    return true;
}

/* The first pass up to the map. False: it is for the caller. */
static bool hash_batch(ls_compactor *compactor, const uint8_t *batch, piece *here) {
    const ls_batch_header *header = &compactor->header;
    ls_fault unused;
    if (ls_compaction_validate(compactor, batch, &unused) != LS_OK || ls_compaction_needs_history(compactor) ||
        ls_is_control(header) || ls_batch_codec(header) != LS_CODEC_NONE ||
        header->base_offset >= compactor->rules.first_uncleanable_offset) {
        return false;
    }
    if (header->records_count == 0 || ls_batch_last_offset(header) < compactor->rules.first_dirty_offset) return true;
    const uint8_t *payload = batch + LS_BATCH_HEADER_BYTES;
    const uint8_t *end = batch + ls_batch_size_bytes(header);
    if (!reserve_keys(here, header, (size_t)(end - payload))) return false;
    record_walk walk = start_walk(header, payload, end);
    size_t count;
    /* There is room for one more than there may be, so that the walk comes to its end. */
    ls_status status = ls_compaction_hash_keys(compactor, &walk, here->keys + here->keys_count,
                                               (size_t)header->records_count + 1, &count, &unused);
    here->keys_count += count;
    return status == LS_END && compactor->full_offset == INT64_MAX;
}

static bool map_piece(ls_compactor *compactor, const uint8_t *at, const uint8_t *end, piece *here) {
    const uint8_t *start = at;
    here->keys_count = 0;
    while (at < end) {
        ls_fault unused;
        size_t wanted;
        if (ls_compaction_next_batch(compactor, at, end, here->position + (at - start), &wanted, &unused) != LS_OK ||
            !hash_batch(compactor, at, here)) {
            return false;
        }
        ls_compaction_batch_is_done(compactor);
        at += ls_batch_size_bytes(&compactor->header);
    }
    return true;
}

static bool rewrite_piece(ls_compactor *compactor, const uint8_t *at, const uint8_t *end, piece *here) {
    ls_compaction_step step;
    size_t consumed;
    size_t wanted;
    ls_fault unused;
    compactor->output = here->output;
    compactor->output.size = 0;
    ls_status status =
        ls_compaction_rewrite(compactor, at, end, here->position, &step, &consumed, &wanted, &unused);
    here->output = compactor->output;
    here->is_last_gone = compactor->is_gone;
    return status == LS_OK && step == LS_COMPACTION_MORE && consumed == (size_t)(end - at);
}

static void do_piece(void *context, void *argument, int number) {
    ls_compaction_ahead *ahead = context;
    piece *here = argument;
    worker *self = &ahead->workers[number];
    ls_compactor *compactor = &self->compactor;
    here->is_sound = false;
    if (!read_piece(ahead, self, here)) return;
    compactor->counts = (ls_compaction_counts){0};
    compactor->next_offset = 0;
    const uint8_t *end = self->buffer + (here->end - here->position);
    here->first_offset = ls_load_i64(self->buffer);
    here->is_sound = ahead->rewrites ? rewrite_piece(compactor, self->buffer, end, here)
                                     : map_piece(compactor, self->buffer, end, here);
    here->last_header = compactor->header;
    here->counts = compactor->counts;
}

/* ---- by the caller -------------------------------------------------------------------------------- */

ls_compaction_ahead *ls_compaction_ahead_create(ls_compactor *compactor) {
    ls_compaction_ahead *ahead = calloc(1, sizeof *ahead);
    if (ahead == NULL) return NULL;
    ahead->compactor = compactor;
    ahead->work = ls_work_ahead_create(do_piece, ahead);
    if (ahead->work != NULL) {
        compactor->shares_parts = true;
        return ahead;
    }
    free(ahead);
    return NULL;
}

void ls_compaction_ahead_free(ls_compaction_ahead *ahead) {
    if (ahead == NULL) return;
    ls_work_ahead_free(ahead->work);
    for (int i = 0; i < LS_WORKERS; i++) {
        free(ahead->workers[i].compactor.kept);
        free(ahead->workers[i].buffer);
    }
    for (int i = 0; i < PIECES; i++) {
        free(ahead->pieces[i].keys);
        free(ahead->pieces[i].output.bytes);
    }
    free(ahead);
}

/* While no piece is under way: what the caller's compactor has learnt. */
static void renew_workers(ls_compaction_ahead *ahead) {
    for (int i = 0; i < LS_WORKERS; i++) {
        ls_compactor *compactor = &ahead->workers[i].compactor;
        ls_kept_record *kept = compactor->kept;
        size_t kept_capacity = compactor->kept_capacity;
        *compactor = *ahead->compactor;
        compactor->is_ahead = true;
        compactor->kept = kept;
        compactor->kept_count = 0;
        compactor->kept_capacity = kept_capacity;
        compactor->gathered = NULL;
        compactor->shares_parts = false;
        compactor->parts_work = NULL;
        compactor->pending = (ls_byte_buffer){0};
        compactor->aborted = NULL;
        compactor->aborted_count = compactor->aborted_capacity = 0;
    }
}

void ls_compaction_ahead_start(ls_compaction_ahead *ahead, ls_file *file, const uint8_t *index, size_t entries_count,
                               bool rewrites) {
    ahead->file = file;
    ahead->index = index;
    ahead->entries_count = entries_count;
    ahead->rewrites = rewrites;
    ahead->failures = 0;
}

void ls_compaction_ahead_stop(ls_compaction_ahead *ahead) {
    if (ls_work_ahead_is_usable(ahead->work)) ls_work_ahead_drop(ahead->work);
    ahead->file = NULL;
}

static int64_t entry_position(const ls_compaction_ahead *ahead, size_t i) {
    return ls_load_i32(ahead->index + i * LS_OFFSET_INDEX_ENTRY_BYTES + 4);
}

/* The last entry up to PIECE_BYTES behind `position`, else the one behind it, else the end; `position` where that would
 * be too large a piece. The index may be damaged: any answer will do. */
static int64_t find_cut(const ls_compaction_ahead *ahead, int64_t position, int64_t size_bytes) {
    if (size_bytes - position <= PIECE_BYTES) return size_bytes;
    size_t low = 0;
    size_t high = ahead->entries_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (entry_position(ahead, middle) <= position + PIECE_BYTES) low = middle + 1;
        else high = middle;
    }
    if (low > 0 && entry_position(ahead, low - 1) > position) return entry_position(ahead, low - 1);
    int64_t behind = low < ahead->entries_count ? entry_position(ahead, low) : size_bytes;
    return behind > position && behind <= size_bytes && behind - position <= PIECE_BYTES_MAX ? behind : position;
}

static void add_counts(ls_compaction_counts *sum, const ls_compaction_counts *counts) {
    sum->batches_read += counts->batches_read;
    sum->batches_copied += counts->batches_copied;
    sum->batches_rebuilt += counts->batches_rebuilt;
    sum->batches_emptied += counts->batches_emptied;
    sum->records_read += counts->records_read;
    sum->records_kept += counts->records_kept;
    sum->records_superseded += counts->records_superseded;
    sum->records_without_key += counts->records_without_key;
    sum->records_aborted += counts->records_aborted;
    sum->tombstones_expired += counts->tombstones_expired;
    sum->markers_dropped += counts->markers_dropped;
}

/* What a piece comes to goes where the caller's own work would have gone. */
static ls_status take_in(ls_compactor *compactor, piece *taken, bool rewrites, ls_compaction_step *step,
                         ls_fault *fault) {
    *step = LS_COMPACTION_MORE;
    if (!rewrites) {
        if (!ls_compaction_map_keys(compactor, taken->keys, taken->keys_count)) *step = LS_COMPACTION_FULL;
    } else if (compactor->output.size == 0) {
        ls_byte_buffer emptied = compactor->output;
        compactor->output = taken->output;
        taken->output = emptied;
    } else {
        ls_status status = ls_byte_buffer_reserve(&compactor->output, taken->output.size, fault);
        if (status != LS_OK) return status;
        memcpy(compactor->output.bytes + compactor->output.size, taken->output.bytes, taken->output.size);
        compactor->output.size += taken->output.size;
    }
    if (rewrites && compactor->output.size >= LS_COMPACTION_OUTPUT_BYTES) *step = LS_COMPACTION_OUTPUT;
    add_counts(&compactor->counts, &taken->counts);
    compactor->header = taken->last_header;
    compactor->is_gone = rewrites ? taken->is_last_gone : true;
    compactor->next_offset = ls_batch_last_offset(&taken->last_header) + 1;
    return LS_OK;
}

ls_status ls_compaction_go_ahead(ls_compaction_ahead *ahead, int64_t position, int64_t size_bytes,
                                 ls_compaction_step *step, int64_t *reached, int64_t *resume, ls_fault *fault) {
    ls_compactor *compactor = ahead->compactor;
    *step = LS_COMPACTION_MORE;
    *reached = position;
    *resume = size_bytes;
    if (ahead->failures == FAILURES_MAX || !ls_work_ahead_is_usable(ahead->work)) return LS_OK;
    if (ls_work_ahead_count(ahead->work) == 0) {
        renew_workers(ahead);
        ahead->cut = position;
    }
    while (ls_work_ahead_count(ahead->work) < PIECES) {
        int64_t end = find_cut(ahead, ahead->cut, size_bytes);
        if (end == ahead->cut) break;
        piece *next = &ahead->pieces[ahead->next_piece++ % PIECES];
        next->position = ahead->cut;
        next->end = ahead->cut = end;
        ls_work_ahead_put(ahead->work, next);
    }
    if (ls_work_ahead_count(ahead->work) == 0) return LS_OK;
    piece *taken = ls_work_ahead_take(ahead->work);
    if (taken->is_sound && taken->first_offset >= compactor->next_offset) {
        *reached = *resume = taken->end;
        return take_in(compactor, taken, ahead->rewrites, step, fault);
    }
    ls_work_ahead_drop(ahead->work);
    if (++ahead->failures < FAILURES_MAX) *resume = taken->end;
    return LS_OK;
}
