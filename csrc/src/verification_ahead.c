/* Checking a segment with two threads: pieces between entries of the offset index, each read and checked by
 * itself. That the batches of a piece follow each other, and those of the piece before, is seen when it is taken,
 * from their headers. A piece that is not sound is checked again by the caller, who says what is wrong with it. */
#include <stdlib.h>

#include "logstore/bytes.h"
#include "logstore/work_ahead.h"
#include "verification_internal.h"

enum {
    PIECE_BYTES = 128 << 10, /* and whole batches: a larger one is a piece of its own */
    PIECES = 4,
    HEADERS_MAX = PIECE_BYTES / LS_BATCH_HEADER_BYTES,
    FAILURES_MAX = 4 /* pieces checked in vain, after which there are no more */
};

typedef struct piece {
    int64_t position;
    int64_t end; /* where an index entry says that a batch starts */
    bool is_sound;
    size_t count;
    ls_batch_header *headers; /* HEADERS_MAX */
} piece;

struct ls_verification_ahead {
    ls_segment *segment;
    ls_work_ahead *work;
    uint8_t *buffers[LS_WORKERS];
    piece pieces[PIECES];
    size_t next_piece;
    int failures;
};

static void check_piece(void *context, void *argument, int worker) {
    ls_verification_ahead *ahead = context;
    piece *here = argument;
    ls_fault unused;
    ls_window window;
    ls_window_init(&window, ahead->segment->log, ahead->buffers[worker], PIECE_BYTES, here->end);
    ls_batch_location batch = {.position = here->position};
    here->is_sound = false;
    here->count = 0;
    while (batch.position < here->end) {
        const uint8_t *at;
        size_t available;
        if (ls_window_reach(&window, batch.position, LS_BATCH_HEADER_BYTES, &at, &available, &unused) != LS_OK)
            return;
        if (ls_batch_header_peek(at, at + available, batch.position, &batch.header, &unused) != LS_OK) return;
        if (ls_batch_size_bytes(&batch.header) > here->end - batch.position || here->count == HEADERS_MAX) return;
        if (ls_window_check_crc(&window, &batch, &unused) != LS_OK) return;
        here->headers[here->count++] = batch.header;
        batch.position += ls_batch_size_bytes(&batch.header);
    }
    here->is_sound = true;
}

ls_verification_ahead *ls_verification_ahead_create(ls_segment *segment) {
    ls_verification_ahead *ahead = calloc(1, sizeof *ahead);
    if (ahead == NULL) return NULL;
    ahead->segment = segment;
    bool is_made = true;
    for (int i = 0; i < LS_WORKERS; i++) {
        ahead->buffers[i] = malloc(PIECE_BYTES);
        is_made = is_made && ahead->buffers[i] != NULL;
    }
    for (int i = 0; i < PIECES; i++) {
        ahead->pieces[i].headers = malloc(HEADERS_MAX * sizeof(ls_batch_header));
        is_made = is_made && ahead->pieces[i].headers != NULL;
    }
    if (is_made) ahead->work = ls_work_ahead_create(check_piece, ahead);
    if (ahead->work != NULL) return ahead;
    ls_verification_ahead_free(ahead);
    return NULL;
}

void ls_verification_ahead_free(ls_verification_ahead *ahead) {
    if (ahead == NULL) return;
    ls_work_ahead_free(ahead->work);
    for (int i = 0; i < LS_WORKERS; i++) free(ahead->buffers[i]);
    for (int i = 0; i < PIECES; i++) free(ahead->pieces[i].headers);
    free(ahead);
}

static int64_t entry_position(const ls_index_check *index, size_t i) {
    return ls_load_i32(index->bytes + i * LS_OFFSET_INDEX_ENTRY_BYTES + 4);
}

/* The last entry up to PIECE_BYTES behind `position`, else the one behind it; `position` where there is none up to
 * `until`. The index may be damaged: any answer will do. */
static int64_t find_cut(const ls_index_check *index, int64_t position, int64_t until) {
    int64_t target = position + PIECE_BYTES < until ? position + PIECE_BYTES : until;
    size_t low = 0;
    size_t high = index->entries_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (entry_position(index, middle) <= target)
            low = middle + 1;
        else
            high = middle;
    }
    if (low > 0 && entry_position(index, low - 1) > position) return entry_position(index, low - 1);
    if (low == index->entries_count) return position;
    int64_t behind = entry_position(index, low);
    return behind > position && behind <= until ? behind : position;
}

/* Whether all batches of a sound piece are where they belong, too. */
static bool take_piece(ls_verification *verification, ls_segment *segment, const piece *taken, int64_t limit) {
    ls_fault unused;
    ls_scan scan;
    ls_scan_init(&scan, segment, NULL, 0, verification->position, limit);
    ls_verification_resume(verification, &scan);
    for (size_t i = 0; i < taken->count; i++) {
        ls_batch_location batch = {.position = scan.position, .header = taken->headers[i]};
        if (ls_scan_pass(&scan, segment, &batch.header, &unused) != LS_OK) return false;
        ls_verification_take(verification, segment, &scan, &batch);
    }
    return taken->is_sound;
}

void ls_verification_go_ahead(ls_verification *verification, ls_segment *segment, int64_t limit, int64_t until) {
    ls_verification_ahead *ahead = verification->ahead;
    if (ahead->failures == FAILURES_MAX || !ls_work_ahead_is_usable(ahead->work)) return;
    if (until > limit) until = limit;
    if (until - verification->position < (int64_t)2 * PIECE_BYTES) return;
    int64_t cut = verification->position;
    for (;;) {
        while (ls_work_ahead_count(ahead->work) < PIECES) {
            int64_t end = find_cut(&verification->offset_index, cut, until);
            if (end == cut) break;
            piece *next = &ahead->pieces[ahead->next_piece++ % PIECES];
            next->position = cut;
            next->end = end;
            ls_work_ahead_put(ahead->work, next);
            cut = end;
        }
        if (ls_work_ahead_count(ahead->work) == 0) return;
        if (!take_piece(verification, segment, ls_work_ahead_take(ahead->work), limit)) {
            ls_work_ahead_drop(ahead->work);
            ahead->failures++;
            return;
        }
    }
}
