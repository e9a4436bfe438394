#include "logstore/compaction.h"

#include "check.h"
#include "made_records.h"

enum { LOG_BYTES_MAX = 1 << 16, NOW = 5000, RETENTION = 100 };

static uint8_t log_bytes[LOG_BYTES_MAX];
static size_t log_size;
static int64_t next_offset;

static void start_log(void) {
    log_size = 0;
    next_offset = 0;
}

static void add(made_producer producer, const made_record *records, size_t count) {
    log_size += make_records(next_offset, producer, records, count, log_bytes + log_size);
    next_offset += (int64_t)count;
}

static void add_marker(int64_t producer_id, bool commit) {
    log_size += make_marker(next_offset++, producer_id, commit, log_bytes + log_size);
}

#define ADD(producer, ...) \
    do { \
        const made_record records_[] = {__VA_ARGS__}; \
        add(producer, records_, sizeof records_ / sizeof *records_); \
    } while (0)

static const uint8_t secret[LS_KEY_SECRET_BYTES] = {3};

typedef struct round_result {
    uint8_t bytes[LOG_BYTES_MAX];
    size_t size;
    ls_compaction_counts counts;
    int64_t mapped_end_offset;
} round_result;

static ls_transaction_history history_of(const uint8_t *bytes, size_t size) {
    ls_transaction_history history = {0};
    ls_fault fault;
    for (size_t at = 0; at < size;) {
        ls_batch_header header;
        REQUIRE_INT(ls_batch_validate(bytes + at, bytes + size, 0, &header, &fault), LS_OK);
        REQUIRE_INT(ls_transaction_history_add(&history, bytes + at, &header, &fault), LS_OK);
        at += (size_t)ls_batch_size_bytes(&header);
    }
    ls_transaction_history_finish(&history);
    return history;
}

/* Both passes, the input handed in by pieces of `piece` bytes: what is not consumed comes again with more. */
static round_result run(ls_compaction_rules rules, const uint8_t *bytes, size_t size, size_t piece,
                        size_t memory) {
    static round_result result;
    result = (round_result){.size = 0};
    ls_transaction_history history = history_of(bytes, size);
    ls_key_offset_map *map = NULL;
    ls_compactor *compactor = NULL;
    ls_fault fault;
    REQUIRE_INT(ls_key_offset_map_create(memory, secret, &map, &fault), LS_OK);
    REQUIRE_INT(ls_compactor_create(&rules, rules.erased_key == NULL ? map : NULL, &compactor, &fault),
                LS_OK);
    for (int pass = rules.erased_key == NULL ? 0 : 1; pass < 2; pass++) {
        size_t at = 0;
        size_t end = 0;
        bool is_full = false;
        ls_compactor_start_pass(compactor);
        ls_compactor_start_segment(compactor, 0, next_offset);
        while (at < size && !is_full) {
            ls_compaction_step step;
            size_t consumed;
            size_t wanted;
            end = end + piece < size ? end + piece : size;
            ls_status status = (pass == 0 ? ls_compaction_map : ls_compaction_rewrite)(
                compactor, bytes + at, bytes + end, (int64_t)at, &step, &consumed, &wanted, &fault);
            REQUIRE_INT(status, LS_OK);
            at += consumed;
            if (step == LS_COMPACTION_HISTORY) ls_compactor_set_history(compactor, &history);
            else if (step == LS_COMPACTION_FULL) is_full = true;
            else REQUIRE_INT(step, LS_COMPACTION_MORE);
        }
        if (pass == 0 && !is_full) ls_compactor_map_ended(compactor, next_offset);
    }
    REQUIRE_INT(ls_compactor_keep_last(compactor, &fault), LS_OK);
    const uint8_t *output = ls_compactor_output(compactor, &result.size);
    REQUIRE(result.size <= sizeof result.bytes);
    if (result.size > 0) memcpy(result.bytes, output, result.size);
    result.counts = *ls_compactor_counts(compactor);
    result.mapped_end_offset = ls_compactor_mapped_end_offset(compactor);
    ls_compactor_free(compactor);
    ls_key_offset_map_free(map);
    ls_transaction_history_free(&history);
    return result;
}

static ls_compaction_rules everything(void) {
    return (ls_compaction_rules){.first_uncleanable_offset = INT64_MAX, .now_ms = NOW,
                                 .delete_retention_ms = RETENTION};
}

/* "offset:key=value" of every record, batches in brackets; each batch is validated. */
static const char *text_of(const uint8_t *bytes, size_t size) {
    static char text[4096];
    size_t length = 0;
    ls_fault fault;
    text[0] = 0;
    for (size_t at = 0; at < size;) {
        ls_batch_header header;
        REQUIRE_INT(ls_batch_validate(bytes + at, bytes + size, (int64_t)at, &header, &fault), LS_OK);
        ls_record_iterator iterator;
        ls_record record;
        ls_record_iterator_init(&iterator, &header, bytes + at + LS_BATCH_HEADER_BYTES,
                                bytes + at + ls_batch_size_bytes(&header));
        bool is_control = (header.attributes & LS_ATTRIBUTE_CONTROL) != 0;
        bool has_horizon = (header.attributes & LS_ATTRIBUTE_DELETE_HORIZON) != 0;
        length += (size_t)snprintf(text + length, sizeof text - length, "%s%s[", is_control ? "control" : "",
                                   has_horizon ? "horizon" : "");
        int64_t max_timestamp = -1;
        while (ls_record_iterator_next(&iterator, &record, &fault) == LS_OK) {
            CHECK_INT(record.timestamp, 1000 + record.offset);
            if (record.timestamp > max_timestamp) max_timestamp = record.timestamp;
            if (is_control) continue;
            length += (size_t)snprintf(text + length, sizeof text - length, "%lld:%.*s=%.*s ",
                                       (long long)record.offset, record.key_bytes < 0 ? 1 : record.key_bytes,
                                       record.key_bytes < 0 ? "-" : (const char *)record.key,
                                       record.value_bytes < 0 ? 1 : record.value_bytes,
                                       record.value_bytes < 0 ? "-" : (const char *)record.value);
        }
        if (header.records_count > 0) CHECK_INT(header.max_timestamp, max_timestamp);
        if (has_horizon) CHECK_INT(header.base_timestamp, NOW + RETENTION);
        length += (size_t)snprintf(text + length, sizeof text - length, "]");
        at += (size_t)ls_batch_size_bytes(&header);
    }
    return text;
}

static void test_the_last_record_of_each_key_stays_however_the_input_comes(void) {
    start_log();
    ADD(nobody, {"a", "1"}, {"b", "2"}, {"a", "3"});
    ADD(nobody, {"c", "4"}, {"d", "5"});
    ADD(nobody, {"b", "6"}, {NULL, "7"}, {"", "8"});
    ADD(nobody, {"a", "9"});
    for (size_t piece = 1; piece <= log_size; piece += piece < 80 ? 1 : 61) {
        round_result result = run(everything(), log_bytes, log_size, piece, 1 << 16);
        CHECK_TEXT(text_of(result.bytes, result.size), "[3:c=4 4:d=5 ][5:b=6 7:=8 ][8:a=9 ]");
        CHECK_INT(result.counts.records_read, 9);
        CHECK_INT(result.counts.records_kept, 5);
        CHECK_INT(result.counts.records_superseded, 3);
        CHECK_INT(result.counts.records_without_key, 1);
        CHECK_INT(result.mapped_end_offset, 9);
    }
}

static void test_what_is_kept_whole_is_kept_byte_for_byte(void) {
    start_log();
    ADD(nobody, {"a", "1"}, {"b", "2"});
    ADD(nobody, {"c", "3"});
    round_result result = run(everything(), log_bytes, log_size, log_size, 1 << 16);
    REQUIRE_INT(result.size, log_size);
    CHECK_BYTES(result.bytes, log_bytes, log_size);
    CHECK_INT(result.counts.batches_copied, 2);
}

static void test_bounds_are_kept(void) {
    start_log();
    ADD(nobody, {"a", "1"});
    ADD(nobody, {"a", "2"});
    ADD(nobody, {"a", "3"});
    ADD(nobody, {"a", "4"});
    ls_compaction_rules rules = everything();
    rules.first_uncleanable_offset = 2;
    round_result result = run(rules, log_bytes, log_size, log_size, 1 << 16);
    CHECK_TEXT(text_of(result.bytes, result.size), "[1:a=2 ][2:a=3 ][3:a=4 ]");
    CHECK_INT(result.mapped_end_offset, 2);
    rules.first_dirty_offset = 2; /* nothing is dirty: no key is known */
    result = run(rules, log_bytes, log_size, log_size, 1 << 16);
    CHECK_TEXT(text_of(result.bytes, result.size), "[0:a=1 ][1:a=2 ][2:a=3 ][3:a=4 ]");
}

static void test_a_full_map_ends_the_round(void) {
    start_log();
    ADD(nobody, {"a", "1"}, {"b", "2"}, {"a", "3"}, {"c", "4"}, {"a", "5"});
    ADD(nobody, {"b", "6"});
    round_result result = run(everything(), log_bytes, log_size, log_size,
                              3 * LS_KEY_SLOT_BYTES); /* two keys */
    CHECK_INT(result.mapped_end_offset, 3);
    CHECK_TEXT(text_of(result.bytes, result.size), "[1:b=2 2:a=3 3:c=4 4:a=5 ][5:b=6 ]");
}

static void test_a_gap_of_billions_ends_the_round(void) {
    static const int64_t far = INT64_C(5) << 32;
    start_log();
    ADD(nobody, {"a", "1"}, {"b", "2"}, {"a", "3"});
    next_offset = far;
    ADD(nobody, {"a", "4"});
    ADD(nobody, {"a", "5"});
    round_result result = run(everything(), log_bytes, log_size, log_size, 1 << 16);
    CHECK_INT(result.mapped_end_offset, far);
    char expected[200];
    snprintf(expected, sizeof expected, "[1:b=2 2:a=3 ][%lld:a=4 ][%lld:a=5 ]", (long long)far, (long long)far + 1);
    CHECK_TEXT(text_of(result.bytes, result.size), expected);
    ls_compaction_rules rules = everything();
    rules.first_dirty_offset = far;
    uint8_t bytes[LOG_BYTES_MAX];
    size_t size = result.size;
    memcpy(bytes, result.bytes, size);
    result = run(rules, bytes, size, size, 1 << 16);
    CHECK_INT(result.mapped_end_offset, far + 2);
    snprintf(expected, sizeof expected, "[1:b=2 ][%lld:a=5 ]", (long long)far + 1);
    CHECK_TEXT(text_of(result.bytes, result.size), expected);
}

static void test_tombstones_get_a_horizon_and_go_after_it(void) {
    start_log();
    ADD(nobody, {"a", "1"}, {"a", NULL}, {"b", "2"});
    ADD(nobody, {"c", "3"});
    round_result first = run(everything(), log_bytes, log_size, log_size, 1 << 16);
    CHECK_TEXT(text_of(first.bytes, first.size), "horizon[1:a=- 2:b=2 ][3:c=3 ]");
    uint8_t bytes[LOG_BYTES_MAX];
    memcpy(bytes, first.bytes, first.size);
    size_t size = first.size;
    ls_compaction_rules rules = everything();
    rules.first_dirty_offset = next_offset;
    rules.now_ms = NOW + RETENTION - 1;
    round_result second = run(rules, bytes, size, size, 1 << 16);
    CHECK_INT(second.size, size);
    CHECK_BYTES(second.bytes, bytes, size);
    rules.now_ms++;
    second = run(rules, bytes, size, size, 1 << 16);
    CHECK_INT(second.counts.tombstones_expired, 1);
    /* The horizon stays with the batch: it says nothing about values. */
    CHECK_TEXT(text_of(second.bytes, second.size), "horizon[2:b=2 ][3:c=3 ]");
}

static void test_aborted_records_go_and_the_marker_two_rounds_later(void) {
    const made_producer one = {7, 0, 0, LS_ATTRIBUTE_TRANSACTIONAL};
    start_log();
    ADD(one, {"a", "1"});
    add_marker(7, true);
    ADD(one, {"a", "2"}, {"b", "3"});
    add_marker(7, false);
    ADD(one, {"c", "4"});
    add_marker(7, true);
    ADD(nobody, {"d", "5"});
    round_result first = run(everything(), log_bytes, log_size, log_size, 1 << 16);
    CHECK_TEXT(text_of(first.bytes, first.size), "[0:a=1 ]control[]control[][5:c=4 ]control[][7:d=5 ]");
    CHECK_INT(first.counts.records_aborted, 2);
    uint8_t bytes[LOG_BYTES_MAX];
    memcpy(bytes, first.bytes, first.size);
    size_t size = first.size;
    ls_compaction_rules rules = everything();
    rules.first_dirty_offset = next_offset;
    round_result second = run(rules, bytes, size, size, 1 << 16);
    CHECK_TEXT(text_of(second.bytes, second.size),
               "[0:a=1 ]control[]controlhorizon[][5:c=4 ]control[][7:d=5 ]");
    memcpy(bytes, second.bytes, second.size);
    size = second.size;
    rules.now_ms = NOW + RETENTION;
    round_result third = run(rules, bytes, size, size, 1 << 16);
    CHECK_TEXT(text_of(third.bytes, third.size), "[0:a=1 ]control[][5:c=4 ]control[][7:d=5 ]");
    CHECK_INT(third.counts.markers_dropped, 1);
}

static void test_the_header_of_a_producers_last_batch_stays(void) {
    const made_producer one = {7, 2, 40, 0};
    start_log();
    ADD(one, {"a", "1"}, {"b", "2"});
    ADD(one, {"a", "3"}, {"b", "4"});
    ADD(nobody, {"a", "5"}, {"b", "6"});
    round_result result = run(everything(), log_bytes, log_size, log_size, 1 << 16);
    CHECK_TEXT(text_of(result.bytes, result.size), "[][4:a=5 5:b=6 ]");
    ls_batch_header header;
    ls_fault fault;
    REQUIRE_INT(ls_batch_validate(result.bytes, result.bytes + result.size, 0, &header, &fault), LS_OK);
    CHECK_INT(header.base_offset, 2);
    CHECK_INT(header.last_offset_delta, 1);
    CHECK_INT(header.producer_id, 7);
    CHECK_INT(header.producer_epoch, 2);
    CHECK_INT(header.base_sequence, 40);
    CHECK_INT(header.records_count, 0);
    CHECK_INT(header.base_timestamp, -1);
    CHECK_INT(ls_batch_size_bytes(&header), LS_BATCH_HEADER_BYTES);
}

static void test_the_last_batch_of_all_stays(void) {
    start_log();
    ADD(nobody, {"a", "1"});
    ADD(nobody, {NULL, "no key"});
    round_result result = run(everything(), log_bytes, log_size, log_size, 1 << 16);
    CHECK_TEXT(text_of(result.bytes, result.size), "[0:a=1 ][]");
}

static void test_erasing_takes_one_key_and_no_batch(void) {
    start_log();
    ADD(nobody, {"a", "1"}, {"b", "2"}, {"a", NULL});
    ADD(nobody, {"b", "3"}, {NULL, "4"}, {"", "5"});
    ADD(nobody, {"a", "6"});
    ls_compaction_rules rules = {.erased_key = (const uint8_t *)"a", .erased_key_bytes = 1};
    round_result result = run(rules, log_bytes, log_size, log_size, 1 << 16);
    CHECK_TEXT(text_of(result.bytes, result.size), "[1:b=2 ][3:b=3 4:-=4 5:=5 ][]");
    CHECK_INT(result.counts.records_superseded, 3);
    rules.erased_key_bytes = 0;
    result = run(rules, log_bytes, log_size, log_size, 1 << 16);
    CHECK_TEXT(text_of(result.bytes, result.size), "[0:a=1 1:b=2 2:a=- ][3:b=3 4:-=4 ][6:a=6 ]");
}

static void test_every_flipped_bit_is_found_before_anything_is_decided(void) {
    start_log();
    ADD(nobody, {"a", "1"}, {"b", "2"});
    ADD(nobody, {"a", "3"});
    for (size_t bit = 0; bit < log_size * 8; bit++) {
        size_t at = bit / 8 >= log_size ? 0 : bit / 8;
        log_bytes[at] ^= (uint8_t)(1u << bit % 8);
        ls_compaction_rules rules = everything();
        ls_key_offset_map *map = NULL;
        ls_compactor *compactor = NULL;
        ls_fault fault;
        ls_compaction_step step = LS_COMPACTION_FULL;
        size_t consumed = 0;
        size_t wanted = 0;
        REQUIRE_INT(ls_key_offset_map_create(4096, secret, &map, &fault), LS_OK);
        REQUIRE_INT(ls_compactor_create(&rules, map, &compactor, &fault), LS_OK);
        ls_compactor_start_segment(compactor, 0, next_offset);
        ls_status status =
            ls_compaction_map(compactor, log_bytes, log_bytes + log_size, 0, &step, &consumed, &wanted,
                              &fault);
        /* The leader epoch is of no consequence; a smaller base offset is told by the batch before it. */
        size_t first_size = (size_t)ls_load_i32(log_bytes + LS_BATCH_LENGTH_AT) + LS_BATCH_OVERHEAD_BYTES;
        size_t in_batch = first_size < log_size && at >= first_size ? at - first_size : at;
        bool is_epoch = in_batch >= LS_BATCH_LEADER_EPOCH_AT && in_batch < LS_BATCH_MAGIC_AT;
        bool is_offset = in_batch < LS_BATCH_LENGTH_AT;
        bool is_cut = status == LS_OK && step == LS_COMPACTION_MORE && consumed < log_size && wanted > 0;
        CHECK_CASE(status != LS_OK || is_epoch || is_offset || is_cut, "bit %zu", bit);
        ls_compactor_free(compactor);
        ls_key_offset_map_free(map);
        log_bytes[at] ^= (uint8_t)(1u << bit % 8);
    }
}

enum { MANY = 700000, MANY_IN_BATCH = 100 };

/* The batch from an offset on: key i % keys for each offset i. */
static size_t make_numbered(int64_t base_offset, int64_t keys, uint8_t *out) {
    ls_batch_builder builder = {0};
    ls_fault fault;
    ls_batch_header header;
    ls_batch_builder_init(&builder, 4096, &fault);
    for (int64_t i = base_offset; i < base_offset + MANY_IN_BATCH; i++) {
        uint8_t key[8];
        ls_store_i64(key, i % keys);
        ls_batch_builder_append(&builder, 1000 + i, (ls_span){key, 8}, (ls_span){key, 8}, NULL, 0, &fault);
    }
    ls_batch_stamp_fields fields = {.base_offset = base_offset, .producer_id = -1, .producer_epoch = -1,
                                    .base_sequence = -1};
    ls_batch_builder_seal(&builder, &fields, &header);
    size_t size = builder.size_bytes;
    memcpy(out, builder.buffer, size);
    ls_batch_builder_free(&builder);
    return size;
}

/* Compacts MANY numbered records; each key's last one must stay, and everything the map does not cover. */
static int64_t compact_numbered(int64_t keys, size_t memory, int64_t *kept) {
    ls_compaction_rules rules = everything();
    ls_key_offset_map *map = NULL;
    ls_compactor *compactor = NULL;
    ls_fault fault;
    uint8_t batch[8192];
    REQUIRE_INT(ls_key_offset_map_create(memory, secret, &map, &fault), LS_OK);
    REQUIRE_INT(ls_compactor_create(&rules, map, &compactor, &fault), LS_OK);
    int64_t end_offset = 0;
    for (int pass = 0; pass < 2; pass++) {
        bool is_full = false;
        int64_t last_kept = -1;
        *kept = 0;
        if (pass == 1) {
            /* With all that goes with the map. */
            CHECK(ls_key_offset_map_memory_bytes(map) + ls_compactor_memory_bytes(compactor) <=
                  40 * ls_key_offset_map_count(map));
        }
        ls_compactor_start_pass(compactor);
        if (pass == 1) end_offset = ls_compactor_mapped_end_offset(compactor);
        ls_compactor_start_segment(compactor, 0, MANY);
        for (int64_t base = 0; base < MANY && !is_full; base += MANY_IN_BATCH) {
            size_t size = make_numbered(base, keys, batch);
            ls_compaction_step step;
            size_t consumed;
            size_t wanted;
            REQUIRE_INT((pass == 0 ? ls_compaction_map : ls_compaction_rewrite)(
                            compactor, batch, batch + size, 0, &step, &consumed, &wanted, &fault),
                        LS_OK);
            is_full = step == LS_COMPACTION_FULL;
            const uint8_t *output = ls_compactor_output(compactor, &size);
            if (size == 0) continue;
            ls_batch_header header;
            REQUIRE_INT(ls_batch_validate(output, output + size, 0, &header, &fault), LS_OK);
            ls_record_iterator iterator;
            ls_record record;
            ls_record_iterator_init(&iterator, &header, output + LS_BATCH_HEADER_BYTES, output + size);
            while (ls_record_iterator_next(&iterator, &record, &fault) == LS_OK) {
                for (int64_t gone = last_kept + 1; gone < record.offset; gone++) {
                    if (gone >= end_offset || gone + keys >= MANY) REQUIRE_INT(gone, -1);
                }
                last_kept = record.offset;
                ++*kept;
            }
            ls_compactor_clear_output(compactor);
        }
        if (pass == 0 && !is_full) ls_compactor_map_ended(compactor, MANY);
        if (pass == 1) CHECK_INT(last_kept, MANY - 1);
    }
    CHECK(ls_key_offset_map_memory_bytes(map) <= memory);
    ls_compactor_free(compactor);
    ls_key_offset_map_free(map);
    return end_offset;
}

static void test_a_table_larger_than_the_caches(void) {
    int64_t kept;
    CHECK_INT(compact_numbered(200000, 64u << 20, &kept), MANY);
    CHECK_INT(kept, 200000);
    CHECK_INT(compact_numbered(MANY, 64u << 20, &kept), MANY);
    CHECK_INT(kept, MANY);
    int64_t end_offset = compact_numbered(MANY, 14u << 20, &kept); /* room for some 560,000 */
    CHECK(end_offset > 400000 && end_offset < 600000);
    CHECK_INT(kept, MANY);
    /* What was on its way into the map may supersede what the map covers. */
    end_offset = compact_numbered(600000, 14u << 20, &kept);
    CHECK(end_offset > 400000 && end_offset < 600000);
    CHECK(kept >= 600000);
}

int main(void) {
    RUN(test_a_table_larger_than_the_caches);
    RUN(test_the_last_record_of_each_key_stays_however_the_input_comes);
    RUN(test_what_is_kept_whole_is_kept_byte_for_byte);
    RUN(test_bounds_are_kept);
    RUN(test_a_full_map_ends_the_round);
    RUN(test_a_gap_of_billions_ends_the_round);
    RUN(test_tombstones_get_a_horizon_and_go_after_it);
    RUN(test_aborted_records_go_and_the_marker_two_rounds_later);
    RUN(test_the_header_of_a_producers_last_batch_stays);
    RUN(test_the_last_batch_of_all_stays);
    RUN(test_erasing_takes_one_key_and_no_batch);
    RUN(test_every_flipped_bit_is_found_before_anything_is_decided);
    return check_result();
}
