#include "scratch_folder.h"

#include <fcntl.h>
#include <stdlib.h>

#include "logstore/bytes.h"
#include "logstore/compaction.h"
#include "made_records.h"

/* Some MiB of batches with an index entry for each that begins 4096 bytes or more behind the last: what two threads
 * come to is what one does, byte for byte. */
enum {
    LOG_BYTES = 3 << 20,
    ENTRIES_MAX = 6000,
    RECORDS = 25, /* of a batch */
    KEYS = 5000,
    MANY_KEYS = 60000, /* more than a table of one part has */
    MANY_LOG_BYTES = 20 << 20,
    CHUNK_BYTES = 100000,
    NOW = 5000,
    RETENTION = 100
};

typedef struct made_log {
    uint8_t *bytes;
    size_t size;
    size_t capacity;
    int64_t end_offset;
    uint8_t index[8 * ENTRIES_MAX];
    size_t entries;
} made_log;

static const uint8_t secret[LS_KEY_SECRET_BYTES] = {9};

/* Of every `producers_every`th batch a producer is known, and of every `transactions_every`th it is a transaction's,
 * with a marker behind it, each third of which aborts; 0 for none. */
static made_log make_log_of(uint32_t keys_count, size_t log_bytes, uint32_t tombstones_in_40, int producers_every,
                            int transactions_every) {
    static char keys[RECORDS][16];
    static char value[RECORDS][120];
    made_log log = {.capacity = log_bytes + (1 << 16)};
    log.bytes = malloc(log.capacity);
    REQUIRE(log.bytes != NULL);
    size_t last_entry = 0;
    uint32_t chance = 1;
    for (int batch = 1; log.size < log_bytes; batch++) {
        if (log.size - last_entry >= 4096) {
            REQUIRE(log.entries < ENTRIES_MAX);
            ls_store_i32(log.index + 8 * log.entries, (int32_t)log.end_offset);
            ls_store_i32(log.index + 8 * log.entries++ + 4, (int32_t)log.size);
            last_entry = log.size;
        }
        made_record records[RECORDS];
        for (int i = 0; i < RECORDS; i++) {
            chance = chance * 1664525u + 1013904223u;
            snprintf(keys[i], sizeof keys[i], "key-%u", (chance >> 8) % keys_count);
            memset(value[i], 'x', sizeof value[i] - 1);
            value[i][(chance >> 4) % (sizeof value[i] - 1)] = 0;
            records[i] = (made_record){chance % 50 == 0 ? NULL : keys[i], chance % 40 < tombstones_in_40 ? NULL : value[i]};
        }
        bool is_transaction = transactions_every > 0 && batch % transactions_every == 0;
        made_producer producer = nobody;
        if (is_transaction) producer = (made_producer){.id = 7, .attributes = LS_ATTRIBUTE_TRANSACTIONAL};
        else if (producers_every > 0 && batch % producers_every == 0)
            producer = (made_producer){.id = batch % 3};
        log.size += make_records(log.end_offset, producer, records, RECORDS, log.bytes + log.size);
        log.end_offset += RECORDS;
        if (is_transaction)
            log.size += make_marker(log.end_offset++, 7, batch / transactions_every % 3 != 0, log.bytes + log.size);
    }
    return log;
}

static made_log make_log(int producers_every, int transactions_every) {
    return make_log_of(KEYS, LOG_BYTES, 1, producers_every, transactions_every);
}

static ls_file *written(const made_log *log) {
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    REQUIRE(file >= 0);
    for (size_t at = 0; at < log->size;) {
        ssize_t part = write(file, log->bytes + at, log->size - at);
        REQUIRE(part > 0);
        at += (size_t)part;
    }
    close(file);
    ls_file *opened;
    ls_fault fault;
    REQUIRE_INT(ls_file_open(path, LS_FILE_READ, &opened, &fault), LS_OK);
    return opened;
}

typedef struct outcome {
    ls_status status;
    ls_fault fault;
    uint8_t *bytes;
    size_t size;
    size_t capacity;
    size_t keys_count;
    int64_t mapped_end_offset;
    int64_t end_offset;
    ls_compaction_counts counts;
    int64_t ahead_bytes; /* done by go_ahead */
} outcome;

static void take_output(ls_compactor *compactor, outcome *out) {
    size_t size;
    const uint8_t *at = ls_compactor_output(compactor, &size);
    REQUIRE(out->size + size <= out->capacity);
    if (size > 0) memcpy(out->bytes + out->size, at, size);
    out->size += size;
    ls_compactor_clear_output(compactor);
}

/* One pass over a file, as the package makes it. False: it was full, or failed. */
static bool pass_over(const made_log *log, ls_file *file, ls_compactor *compactor, ls_compaction_ahead *ahead,
                      const ls_transaction_history *history, bool rewrites, outcome *out) {
    ls_compactor_start_segment(compactor, 0, log->end_offset);
    int64_t size = (int64_t)log->size;
    int64_t resume = ahead == NULL ? size : 0;
    if (ahead != NULL) ls_compaction_ahead_start(ahead, file, log->index, log->entries, rewrites);
    bool goes_on = true;
    for (int64_t position = 0; position < size && goes_on;) {
        ls_compaction_step step = LS_COMPACTION_MORE;
        size_t consumed = 0;
        size_t wanted;
        if (position >= resume) {
            int64_t reached;
            out->status = ls_compaction_go_ahead(ahead, position, size, &step, &reached, &resume, &out->fault);
            REQUIRE(reached > position || resume > position);
            consumed = (size_t)(reached - position);
            out->ahead_bytes += reached - position;
        } else {
            int64_t end = position + CHUNK_BYTES < resume ? position + CHUNK_BYTES : resume;
            out->status = (rewrites ? ls_compaction_rewrite : ls_compaction_map)(
                compactor, log->bytes + position, log->bytes + end, position, &step, &consumed, &wanted, &out->fault);
            if (end == resume && consumed == 0 && step == LS_COMPACTION_MORE && out->status == LS_OK) resume = size;
        }
        position += (int64_t)consumed;
        if (step == LS_COMPACTION_HISTORY) ls_compactor_set_history(compactor, history);
        if (step == LS_COMPACTION_OUTPUT) take_output(compactor, out);
        goes_on = out->status == LS_OK && step != LS_COMPACTION_FULL;
    }
    if (ahead != NULL) ls_compaction_ahead_stop(ahead);
    if (goes_on && !rewrites) ls_compactor_map_ended(compactor, log->end_offset);
    return goes_on;
}

static outcome compact(const made_log *log, ls_compaction_rules rules, size_t memory, bool with_ahead) {
    outcome out = {.bytes = malloc(log->capacity), .capacity = log->capacity};
    REQUIRE(out.bytes != NULL);
    ls_transaction_history history = {0};
    for (size_t at = 0; at < log->size;) {
        ls_batch_header header;
        ls_fault fault;
        if (ls_batch_validate(log->bytes + at, log->bytes + log->size, 0, &header, &fault) != LS_OK) break;
        REQUIRE_INT(ls_transaction_history_add(&history, log->bytes + at, &header, &fault), LS_OK);
        at += (size_t)ls_batch_size_bytes(&header);
    }
    ls_transaction_history_finish(&history);
    ls_file *file = written(log);
    ls_key_offset_map *map;
    ls_compactor *compactor;
    REQUIRE_INT(ls_key_offset_map_create(memory, secret, &map, &out.fault), LS_OK);
    REQUIRE_INT(ls_compactor_create(&rules, rules.erased_key == NULL ? map : NULL, &compactor, &out.fault), LS_OK);
    ls_compaction_ahead *ahead = with_ahead ? ls_compaction_ahead_create(compactor) : NULL;
    if (rules.erased_key == NULL) pass_over(log, file, compactor, ahead, &history, false, &out);
    if (out.status == LS_OK) {
        ls_compactor_start_pass(compactor);
        pass_over(log, file, compactor, ahead, &history, true, &out);
    }
    if (out.status == LS_OK) {
        take_output(compactor, &out);
        REQUIRE_INT(ls_compactor_keep_last(compactor, &out.fault), LS_OK);
        take_output(compactor, &out);
    }
    out.mapped_end_offset = ls_compactor_mapped_end_offset(compactor);
    out.end_offset = log->end_offset;
    out.counts = *ls_compactor_counts(compactor);
    out.keys_count = ls_key_offset_map_count(map);
    if (with_ahead && ahead == NULL) out.ahead_bytes = -1; /* a single processor */
    ls_compaction_ahead_free(ahead);
    ls_compactor_free(compactor);
    ls_key_offset_map_free(map);
    ls_transaction_history_free(&history);
    ls_file_close(file);
    return out;
}

static void check_same(const outcome *one, const outcome *two) {
    CHECK_INT(one->status, two->status);
    CHECK_INT((int64_t)one->size, (int64_t)two->size);
    CHECK(one->size == two->size && memcmp(one->bytes, two->bytes, one->size) == 0);
    CHECK_INT(one->mapped_end_offset, two->mapped_end_offset);
    if (one->mapped_end_offset == one->end_offset) CHECK_INT((int64_t)one->keys_count, (int64_t)two->keys_count);
    ls_compaction_counts counts = two->counts;
    if (one->mapped_end_offset != one->end_offset) { /* a full map is noticed a few batches later, ahead */
        counts.batches_read = one->counts.batches_read;
        counts.keys_mapped = one->counts.keys_mapped;
    }
    CHECK(memcmp(&one->counts, &counts, sizeof counts) == 0);
    if (one->status != LS_OK) {
        CHECK_TEXT(one->fault.reason, two->fault.reason);
        CHECK_INT(one->fault.position, two->fault.position);
    }
}

static ls_compaction_rules everything(void) {
    return (ls_compaction_rules){.first_uncleanable_offset = INT64_MAX, .now_ms = NOW,
                                 .delete_retention_ms = RETENTION};
}

/* Gives how much of both passes went ahead. */
static double share_ahead(const made_log *log, ls_compaction_rules rules, size_t memory) {
    outcome alone = compact(log, rules, memory, false);
    outcome ahead = compact(log, rules, memory, true);
    check_same(&alone, &ahead);
    double share = ahead.ahead_bytes < 0 ? -1 : (double)ahead.ahead_bytes / (double)log->size;
    free(alone.bytes);
    free(ahead.bytes);
    return share;
}

/* Where there is one processor only. */
static bool is_alone(double share) { return share < 0; }

static void test_two_threads_come_to_what_one_does(void) {
    made_log log = make_log(0, 0);
    double share = share_ahead(&log, everything(), 1 << 20);
    CHECK(is_alone(share) || share == 2.0);
    ls_compaction_rules rules = everything();
    rules.first_dirty_offset = log.end_offset / 3;
    share = share_ahead(&log, rules, 1 << 20);
    CHECK(is_alone(share) || share == 2.0);
    rules.first_uncleanable_offset = log.end_offset / 3 * 2 + 7;
    share = share_ahead(&log, rules, 1 << 20);
    CHECK(is_alone(share) || share > 1.0);
    rules = everything();
    rules.erased_key = (const uint8_t *)"key-77";
    rules.erased_key_bytes = 6;
    share = share_ahead(&log, rules, 1 << 20);
    CHECK(is_alone(share) || share == 1.0);
    free(log.bytes);
}

/* Parts of a large table are put by both threads. */
static void test_a_table_in_parts_is_filled_by_both_threads(void) {
    made_log log = make_log_of(MANY_KEYS, MANY_LOG_BYTES, 1, 0, 0);
    double share = share_ahead(&log, everything(), 64 << 20);
    CHECK(is_alone(share) || share == 2.0);
    ls_compaction_rules rules = everything();
    rules.first_dirty_offset = log.end_offset / 2;
    share = share_ahead(&log, rules, 64 << 20);
    CHECK(is_alone(share) || share == 2.0);
    free(log.bytes);
}

/* Where it is full depends on which part came first; that nothing is lost does not: another round, with more memory, comes
 * to what a single one does. */
static void test_a_table_in_parts_that_is_full_loses_nothing(void) {
    made_log log = make_log_of(MANY_KEYS, MANY_LOG_BYTES, 0, 0, 0); /* a delete horizon changes bytes */
    outcome wanted = compact(&log, everything(), 64 << 20, false);
    for (size_t memory = 900000; memory < 1700000; memory += 100000) {
        outcome first = compact(&log, everything(), memory, true);
        CHECK_INT(first.status, LS_OK);
        CHECK(first.mapped_end_offset > log.end_offset / 20 && first.mapped_end_offset < log.end_offset);
        made_log left = {.bytes = first.bytes, .size = first.size, .capacity = log.capacity, .end_offset = log.end_offset};
        outcome second = compact(&left, everything(), 64 << 20, true);
        CHECK_INT(second.status, LS_OK);
        CHECK_INT((int64_t)second.size, (int64_t)wanted.size);
        CHECK(second.size == wanted.size && memcmp(second.bytes, wanted.bytes, wanted.size) == 0);
        free(first.bytes);
        free(second.bytes);
    }
    free(wanted.bytes);
    free(log.bytes);
}

static void test_a_map_that_is_full_is_so_at_the_same_record(void) {
    made_log log = make_log(0, 0);
    for (size_t memory = 2000; memory < 100000; memory += 9000) share_ahead(&log, everything(), memory);
    free(log.bytes);
}

static void test_what_knows_producers_goes_ahead_and_transactions_do_not(void) {
    made_log log = make_log(5, 0);
    double share = share_ahead(&log, everything(), 1 << 20);
    CHECK(is_alone(share) || share > 1.5);
    free(log.bytes);
    log = make_log(3, 400);
    share = share_ahead(&log, everything(), 1 << 20);
    CHECK(is_alone(share) || (share > 0.5 && share < 2.0));
    free(log.bytes);
    log = make_log(3, 10);
    share_ahead(&log, everything(), 1 << 20);
    free(log.bytes);
}

static void test_damage_is_named_as_without(void) {
    made_log log = make_log(0, 0);
    for (size_t at = 50000; at < log.size; at += 611111) {
        log.bytes[at] ^= 0x10;
        outcome alone = compact(&log, everything(), 1 << 20, false);
        outcome ahead = compact(&log, everything(), 1 << 20, true);
        CHECK_INT(alone.status, LS_CORRUPT);
        CHECK_INT(ahead.status, LS_CORRUPT);
        CHECK_TEXT(alone.fault.reason, ahead.fault.reason);
        CHECK_INT(alone.fault.position, ahead.fault.position);
        free(alone.bytes);
        free(ahead.bytes);
        log.bytes[at] ^= 0x10;
    }
    free(log.bytes);
}

static void test_a_wrong_index_changes_nothing(void) {
    made_log log = make_log(0, 0);
    for (size_t i = 3; i < log.entries; i += 90) ls_store_i32(log.index + 8 * i + 4, (int32_t)(i * 4099));
    share_ahead(&log, everything(), 1 << 20);
    for (size_t i = 0; i < log.entries; i++) ls_store_i32(log.index + 8 * i + 4, (int32_t)(i * 5000 - 20000));
    share_ahead(&log, everything(), 1 << 20);
    log.entries = 1;
    share_ahead(&log, everything(), 1 << 20);
    log.entries = 0;
    share_ahead(&log, everything(), 1 << 20);
    free(log.bytes);
}

int main(void) {
    make_folder();
    RUN(test_two_threads_come_to_what_one_does);
    RUN(test_a_table_in_parts_is_filled_by_both_threads);
    RUN(test_a_table_in_parts_that_is_full_loses_nothing);
    RUN(test_a_map_that_is_full_is_so_at_the_same_record);
    RUN(test_what_knows_producers_goes_ahead_and_transactions_do_not);
    RUN(test_damage_is_named_as_without);
    RUN(test_a_wrong_index_changes_nothing);
    remove_folder();
    return check_result();
}
