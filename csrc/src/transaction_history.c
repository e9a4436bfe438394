#include "logstore/transaction_history.h"

#include <stdlib.h>
#include <string.h>

#include "logstore/bytes.h"

enum { MARKER_KEY_BYTES_MIN = 4, MARKER_TYPE_AT = 2, TYPE_ABORT = 0, TYPE_COMMIT = 1, FIRST_CAPACITY = 16 };

ls_marker ls_transaction_marker(const uint8_t *batch, const ls_batch_header *header) {
    if ((header->attributes & LS_ATTRIBUTE_CONTROL) == 0 || header->producer_id < 0 ||
        ls_batch_codec(header) != LS_CODEC_NONE) {
        return LS_MARKER_NONE;
    }
    ls_record_iterator iterator;
    ls_record record;
    ls_fault ignored;
    ls_record_iterator_init(&iterator, header, batch + LS_BATCH_HEADER_BYTES,
                            batch + ls_batch_size_bytes(header));
    if (ls_record_iterator_next(&iterator, &record, &ignored) != LS_OK ||
        record.key_bytes < MARKER_KEY_BYTES_MIN) {
        return LS_MARKER_NONE;
    }
    int16_t type = ls_load_i16(record.key + MARKER_TYPE_AT);
    return type == TYPE_ABORT ? LS_MARKER_ABORT : type == TYPE_COMMIT ? LS_MARKER_COMMIT : LS_MARKER_NONE;
}

/* Room for one more element, by doubling. */
static ls_status reserve(void **items, size_t *capacity, size_t count, size_t item_bytes, ls_fault *fault) {
    if (count < *capacity) return LS_OK;
    size_t wanted = *capacity == 0 ? FIRST_CAPACITY : *capacity * 2;
    void *grown = wanted > SIZE_MAX / item_bytes ? NULL : realloc(*items, wanted * item_bytes);
    if (grown == NULL) return ls_fail(fault, LS_NO_MEMORY, "transactions of a log", -1, (int64_t)wanted, 0);
    *items = grown;
    *capacity = wanted;
    return LS_OK;
}

/* ---- the first walk ------------------------------------------------------------------------- */

void ls_transaction_history_free(ls_transaction_history *history) {
    free(history->aborted);
    free(history->producers);
    *history = (ls_transaction_history){0};
}

static size_t producer_place(const ls_transaction_history *history, int64_t producer_id) {
    size_t low = 0;
    size_t high = history->producers_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (history->producers[middle].producer_id < producer_id) low = middle + 1;
        else high = middle;
    }
    return low;
}

const ls_producer_last *ls_transaction_history_producer(const ls_transaction_history *history,
                                                        int64_t producer_id) {
    size_t place = producer_place(history, producer_id);
    if (place == history->producers_count ||
        history->producers[place].producer_id != producer_id) return NULL;
    return &history->producers[place];
}

static ls_status producer_of(ls_transaction_history *history, int64_t producer_id, ls_producer_last **out,
                             ls_fault *fault) {
    size_t place = producer_place(history, producer_id);
    if (place == history->producers_count || history->producers[place].producer_id != producer_id) {
        void *items = history->producers;
        ls_status status = reserve(&items, &history->producers_capacity, history->producers_count,
                                   sizeof *history->producers, fault);
        history->producers = items;
        if (status != LS_OK) return status;
        memmove(history->producers + place + 1, history->producers + place,
                (history->producers_count - place) * sizeof *history->producers);
        history->producers[place] = (ls_producer_last){
            .producer_id = producer_id, .last_data_offset = -1, .open_offset = -1, .epoch = -1};
        history->producers_count++;
    }
    *out = &history->producers[place];
    return LS_OK;
}

int64_t ls_transaction_history_first_open(const ls_transaction_history *history) {
    int64_t first = INT64_MAX;
    for (size_t i = 0; i < history->producers_count; i++) {
        int64_t offset = history->producers[i].open_offset;
        if (offset >= 0 && offset < first) first = offset;
    }
    return first;
}

ls_status ls_transaction_history_add(ls_transaction_history *history, const uint8_t *batch,
                                     const ls_batch_header *header, ls_fault *fault) {
    if (header->producer_id < 0) return LS_OK;
    ls_producer_last *producer;
    ls_status status = producer_of(history, header->producer_id, &producer, fault);
    if (status != LS_OK) return status;
    producer->epoch = header->producer_epoch;
    int64_t last_offset = ls_batch_last_offset(header);
    if ((header->attributes & LS_ATTRIBUTE_CONTROL) == 0) {
        producer->last_data_offset = last_offset;
        if ((header->attributes & LS_ATTRIBUTE_TRANSACTIONAL) != 0 && producer->open_offset < 0)
            producer->open_offset = header->base_offset;
        return LS_OK;
    }
    ls_marker marker = ls_transaction_marker(batch, header);
    if (marker == LS_MARKER_NONE || producer->open_offset < 0) return LS_OK;
    int64_t first_offset = producer->open_offset;
    producer->open_offset = -1;
    if (marker == LS_MARKER_COMMIT) return LS_OK;
    void *items = history->aborted;
    status = reserve(&items, &history->aborted_capacity, history->aborted_count, sizeof *history->aborted,
                     fault);
    history->aborted = items;
    if (status != LS_OK) return status;
    int64_t open_offset = ls_transaction_history_first_open(history);
    history->aborted[history->aborted_count++] = (ls_aborted_transaction){
        .producer_id = header->producer_id,
        .first_offset = first_offset,
        .last_offset = last_offset,
        .last_stable_offset = open_offset < last_offset ? open_offset : last_offset + 1,
    };
    return LS_OK;
}

static int by_first_offset(const void *a, const void *b) {
    int64_t left = ((const ls_aborted_transaction *)a)->first_offset;
    int64_t right = ((const ls_aborted_transaction *)b)->first_offset;
    return (left > right) - (left < right);
}

void ls_transaction_history_finish(ls_transaction_history *history) {
    if (history->aborted_count > 1)
        qsort(history->aborted, history->aborted_count, sizeof *history->aborted, by_first_offset);
}

static int by_producer_id(const void *a, const void *b) {
    int64_t left = ((const ls_producer_last *)a)->producer_id;
    int64_t right = ((const ls_producer_last *)b)->producer_id;
    return (left > right) - (left < right);
}

ls_status ls_transaction_history_set_producers(ls_transaction_history *history,
                                               const ls_producer_last *producers, size_t count,
                                               ls_fault *fault) {
    ls_producer_last *copied = calloc(count + 1, sizeof *copied);
    if (copied == NULL) return ls_fail(fault, LS_NO_MEMORY, "producers of a log", -1, (int64_t)count, 0);
    if (count > 0) {
        memcpy(copied, producers, count * sizeof *copied);
        qsort(copied, count, sizeof *copied, by_producer_id);
    }
    free(history->producers);
    history->producers = copied;
    history->producers_count = count;
    history->producers_capacity = count + 1;
    return LS_OK;
}

/* ---- a walk that knows how it went on -------------------------------------------------------- */

void ls_transaction_walk_start(ls_transaction_walk *walk, const ls_transaction_history *history) {
    walk->history = history;
    walk->next_aborted = 0;
    walk->count = 0;
}

void ls_transaction_walk_free(ls_transaction_walk *walk) {
    free(walk->ongoing);
    *walk = (ls_transaction_walk){0};
}

static size_t ongoing_place(const ls_transaction_walk *walk, int64_t producer_id) {
    size_t low = 0;
    size_t high = walk->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (walk->ongoing[middle].producer_id < producer_id) low = middle + 1;
        else high = middle;
    }
    return low;
}

static ls_ongoing_transaction *find_ongoing(const ls_transaction_walk *walk, int64_t producer_id) {
    size_t place = ongoing_place(walk, producer_id);
    return place < walk->count && walk->ongoing[place].producer_id == producer_id ? &walk->ongoing[place] :
        NULL;
}

static ls_status begin(ls_transaction_walk *walk, int64_t producer_id, size_t aborted, ls_fault *fault) {
    ls_ongoing_transaction *known = find_ongoing(walk, producer_id);
    if (known == NULL) {
        size_t place = ongoing_place(walk, producer_id);
        void *items = walk->ongoing;
        ls_status status = reserve(&items, &walk->capacity, walk->count, sizeof *walk->ongoing, fault);
        walk->ongoing = items;
        if (status != LS_OK) return status;
        memmove(walk->ongoing + place + 1, walk->ongoing + place,
                (walk->count - place) * sizeof *walk->ongoing);
        walk->count++;
        known = &walk->ongoing[place];
    }
    *known = (ls_ongoing_transaction){.producer_id = producer_id, .aborted = aborted, .has_data = false};
    return LS_OK;
}

/* The aborted transactions that have begun by an offset, and not ended before it: the walk may start late. */
static ls_status begin_aborted(ls_transaction_walk *walk, int64_t offset, ls_fault *fault) {
    const ls_transaction_history *history = walk->history;
    while (walk->next_aborted < history->aborted_count &&
           history->aborted[walk->next_aborted].first_offset <= offset) {
        const ls_aborted_transaction *aborted = &history->aborted[walk->next_aborted];
        if (aborted->last_offset >= offset) {
            ls_status status = begin(walk, aborted->producer_id, walk->next_aborted, fault);
            if (status != LS_OK) return status;
        }
        walk->next_aborted++;
    }
    return LS_OK;
}

ls_status ls_transaction_walk_data(ls_transaction_walk *walk, const ls_batch_header *header, bool *is_aborted,
                                   ls_fault *fault) {
    ls_status status = begin_aborted(walk, header->base_offset, fault);
    if (status != LS_OK) return status;
    ls_ongoing_transaction *known = find_ongoing(walk, header->producer_id);
    if (known == NULL) {
        status = begin(walk, header->producer_id, SIZE_MAX, fault);
        if (status != LS_OK) return status;
        known = find_ongoing(walk, header->producer_id);
    }
    known->has_data = true;
    *is_aborted = known->aborted != SIZE_MAX;
    return LS_OK;
}

ls_status ls_transaction_walk_marker(ls_transaction_walk *walk, const ls_batch_header *header,
                                     ls_marker marker,
                                     bool *has_data, const ls_aborted_transaction **aborted,
                                         ls_fault *fault) {
    ls_status status = begin_aborted(walk, header->base_offset, fault);
    if (status != LS_OK) return status;
    *has_data = false;
    *aborted = NULL;
    ls_ongoing_transaction *known = find_ongoing(walk, header->producer_id);
    if (known == NULL) return LS_OK;
    *has_data = known->has_data;
    if (marker == LS_MARKER_ABORT && known->aborted != SIZE_MAX)
        *aborted = &walk->history->aborted[known->aborted];
    size_t place = (size_t)(known - walk->ongoing);
    memmove(known, known + 1, (walk->count - place - 1) * sizeof *known);
    walk->count--;
    return LS_OK;
}
