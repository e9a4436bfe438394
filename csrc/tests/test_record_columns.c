#include "check.h"
#include "logstore/record_batch.h"
#include "record_parse.h"
#include "vector_file.h"

static const ls_fault no_fault = {LS_OK, 0, "", 0, 0, 0};

enum { CAPACITY = 9000 };

typedef struct column_arrays {
    int64_t offsets[CAPACITY];
    int64_t timestamps[CAPACITY];
    int32_t key_starts[CAPACITY];
    int32_t key_bytes[CAPACITY];
    int32_t value_starts[CAPACITY];
    int32_t value_bytes[CAPACITY];
    int32_t headers_starts[CAPACITY];
    int32_t headers_counts[CAPACITY];
} column_arrays;

static ls_columns columns_over(column_arrays *arrays, size_t count, size_t capacity, bool with_headers) {
    return (ls_columns){arrays->offsets,
                        arrays->timestamps,
                        arrays->key_starts,
                        arrays->key_bytes,
                        arrays->value_starts,
                        arrays->value_bytes,
                        with_headers ? arrays->headers_starts : NULL,
                        with_headers ? arrays->headers_counts : NULL,
                        count,
                        capacity};
}

/* Both ways through a payload, and of the iterator's records each once more by the careful parser alone: the
 * same records, or the same fault. Returns the status. */
static ls_status check_ways_agree(const ls_batch_header *header, const uint8_t *payload, const uint8_t *end,
                                  const char *what) {
    column_arrays arrays;
    ls_columns columns = columns_over(&arrays, 0, CAPACITY, true);
    ls_fault columns_fault = no_fault;
    ls_fault fault = no_fault;
    ls_status columns_status = ls_columns_append(&columns, header, payload, end, payload, &columns_fault);
    ls_record_iterator iterator;
    ls_record record;
    ls_status status;
    size_t count = 0;
    ls_record_iterator_init(&iterator, header, payload, end);
    for (;;) {
        const uint8_t *at = iterator.at;
        status = ls_record_iterator_next(&iterator, &record, &fault);
        if (status != LS_OK) break;
        ls_record_parts parts;
        ls_fault careful_fault = no_fault;
        ls_status careful = ls_record_parse_careful(at, end, payload, &parts, &careful_fault);
        CHECK_CASE(careful == LS_OK && parts.next == iterator.at && parts.key_bytes == record.key_bytes &&
                       (record.key_bytes < 0 || parts.key == record.key) &&
                       parts.value_bytes == record.value_bytes &&
                       (record.value_bytes < 0 || parts.value == record.value) &&
                       parts.headers_count == record.headers_count && parts.headers == record.headers,
                   "%s, record %zu: the careful parser sees another record", what, count);
        if (columns_status == LS_OK && count < columns.count) {
            CHECK_CASE(arrays.offsets[count] == record.offset && arrays.timestamps[count] == record.timestamp,
                       "%s, record %zu: offset or timestamp", what, count);
            CHECK_CASE(arrays.key_bytes[count] == record.key_bytes &&
                           (record.key_bytes < 0 || payload + arrays.key_starts[count] == record.key),
                       "%s, record %zu: key", what, count);
            CHECK_CASE(arrays.value_bytes[count] == record.value_bytes &&
                           (record.value_bytes < 0 || payload + arrays.value_starts[count] == record.value),
                       "%s, record %zu: value", what, count);
            CHECK_CASE(arrays.headers_counts[count] == record.headers_count &&
                           payload + arrays.headers_starts[count] == record.headers,
                       "%s, record %zu: headers", what, count);
        }
        count++;
    }
    if (columns_status == LS_OK) {
        CHECK_CASE(status == LS_END && columns.count == count,
                   "%s: columns took %zu, the iterator %zu and said %s (%s)", what, columns.count, count,
                   ls_status_name(status), fault.reason);
    } else if (columns_status != LS_FULL) {
        CHECK_CASE(status == columns_status && strcmp(fault.reason, columns_fault.reason) == 0 &&
                       fault.position == columns_fault.position && columns.count == 0,
                   "%s: columns said %s, the iterator %s", what, columns_fault.reason, fault.reason);
    }
    return status;
}

static const char *const vector_names[] = {
    "many10_none", "many200_none", "headers_100", "headers_unicode", "ts_varlong_boundaries",
    "ts_negative_deltas", "ts_delta_negative_10_bytes", "offsets_sparse", "offsets_delta_max",
    "log_append_time", "single_null_both", "key_length_minus_2", "varint_overlong",
    "compacted_delete_horizon", "compacted_empty_batch", "value_len_8192",
};

static void test_agrees_with_iterator(void) {
    for (size_t v = 0; v < sizeof vector_names / sizeof vector_names[0]; v++) {
        vector_file vector = vector_file_read(vector_names[v]);
        ls_batch_header header;
        ls_fault fault = no_fault;
        REQUIRE_INT(ls_batch_validate(vector.bytes, vector.end, 0, &header, &fault), LS_OK);
        ls_status status =
            check_ways_agree(&header, vector.bytes + LS_BATCH_HEADER_BYTES, vector.end, vector_names[v]);
        CHECK_CASE(status == LS_END, "%s: %s", vector_names[v], ls_status_name(status));
        free(vector.bytes);
    }
}

/* Damage of one to three bytes, and payloads cut short, without a CRC in the way. The generator is fixed, so
 * that a failure comes back. */
static void test_agrees_on_damage(void) {
    enum { ROUNDS = 3000 };
    uint64_t state = 20261122;
    size_t refused = 0;
    for (size_t v = 0; v < sizeof vector_names / sizeof vector_names[0]; v++) {
        vector_file vector = vector_file_read(vector_names[v]);
        ls_batch_header header;
        ls_fault fault = no_fault;
        REQUIRE_INT(ls_batch_validate(vector.bytes, vector.end, 0, &header, &fault), LS_OK);
        size_t size = (size_t)(vector.end - vector.bytes) - LS_BATCH_HEADER_BYTES;
        if (size == 0 || size > 2000) {
            free(vector.bytes);
            continue;
        }
        for (int round = 0; round < ROUNDS; round++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            uint64_t dice = state >> 16;
            size_t kept = round % 4 == 0 ? (size_t)(dice % (size + 1)) : size;
            uint8_t *payload = malloc(kept + 1);
            REQUIRE(payload != NULL);
            uint8_t *start = payload + 1;
            memcpy(start, vector.bytes + LS_BATCH_HEADER_BYTES, kept);
            for (int hit = 0; hit <= round % 3 && kept > 0; hit++) {
                state = state * 6364136223846793005u + 1442695040888963407u;
                uint8_t *byte = start + (state >> 33) % kept;
                unsigned damaged = *byte ^ (1u << ((state >> 24) % 8));
                if ((state >> 20) % 2 == 0) damaged = (unsigned)(state >> 24);
                *byte = (uint8_t)(damaged & 0xffu);
            }
            char what[80];
            snprintf(what, sizeof what, "%s, round %d", vector_names[v], round);
            if (check_ways_agree(&header, start, start + kept, what) == LS_CORRUPT) refused++;
            free(payload);
        }
        free(vector.bytes);
    }
    CHECK(refused > 1000);
}

static void test_appends_behind_others(void) {
    vector_file vector = vector_file_read("many10_none");
    ls_batch_header header;
    ls_fault fault = no_fault;
    REQUIRE_INT(ls_batch_validate(vector.bytes, vector.end, 0, &header, &fault), LS_OK);
    const uint8_t *payload = vector.bytes + LS_BATCH_HEADER_BYTES;
    column_arrays arrays;
    ls_columns columns = columns_over(&arrays, 0, 25, false);
    CHECK_INT(ls_columns_append(&columns, &header, payload, vector.end, vector.bytes, &fault), LS_OK);
    header.base_offset = 10;
    CHECK_INT(ls_columns_append(&columns, &header, payload, vector.end, vector.bytes, &fault), LS_OK);
    CHECK_INT(columns.count, 20);
    for (int i = 0; i < 20; i++) CHECK_INT(arrays.offsets[i], i);
    CHECK_INT(arrays.key_starts[10], arrays.key_starts[0]);
    CHECK_BYTES(vector.bytes + arrays.key_starts[19], "key-9", 5);
    /* What does not fit leaves everything as it was. */
    fault = no_fault;
    CHECK_INT(ls_columns_append(&columns, &header, payload, vector.end, vector.bytes, &fault), LS_FULL);
    CHECK_INT(fault.expected, 5);
    CHECK_INT(fault.actual, 10);
    CHECK_INT(columns.count, 20);
    free(vector.bytes);
}

static void test_refusals(void) {
    vector_file vector = vector_file_read("many10_none");
    ls_batch_header header;
    ls_fault fault = no_fault;
    REQUIRE_INT(ls_batch_validate(vector.bytes, vector.end, 0, &header, &fault), LS_OK);
    const uint8_t *payload = vector.bytes + LS_BATCH_HEADER_BYTES;
    column_arrays arrays;
    ls_columns columns = columns_over(&arrays, 0, CAPACITY, false);
    header.attributes = 6;
    CHECK_INT(ls_columns_append(&columns, &header, payload, vector.end, payload, &fault), LS_CORRUPT);
    CHECK_TEXT(fault.reason, "codec is unknown");
    header.attributes = 0;
    header.records_count = -1;
    CHECK_INT(ls_columns_append(&columns, &header, payload, vector.end, payload, &fault), LS_CORRUPT);
    CHECK_TEXT(fault.reason, "records count is negative");
    header.records_count = 0;
    CHECK_INT(ls_columns_append(&columns, &header, payload, vector.end, payload, &fault), LS_OK);
    header.records_count = 10;
    header.last_offset_delta = 8;
    CHECK_INT(ls_columns_append(&columns, &header, payload, vector.end, payload, &fault), LS_CORRUPT);
    CHECK_TEXT(fault.reason, "offset delta is past the batch's last");
    CHECK_INT(columns.count, 0);
    free(vector.bytes);
}

/* Records that a run can take, or just not. */
typedef struct kind {
    const char *name;
    int records_count;
    int value_bytes_min;
    int value_bytes_max;
    int nulls;     /* of so many values, and keys, one is null; 0: none */
    int headers;   /* of so many records one has headers; 0: none */
    int jitter_ms; /* timestamps differ by up to so much */
    int key_bytes_max;
} kind;

static const kind kinds[] = {
    {"one size", 700, 100, 100, 0, 0, 0, 16},
    {"one size, large", 300, 1000, 1000, 0, 0, 1, 16},
    {"around two bytes of length", 600, 20, 90, 0, 0, 0, 8},
    {"around three bytes of length", 200, 8150, 8230, 0, 0, 0, 8},
    {"tiny", 9000, 0, 3, 0, 0, 0, 0},
    {"nulls", 700, 0, 80, 3, 0, 0, 70},
    {"all null", 300, 0, 0, 1, 0, 0, 16},
    {"headers", 300, 100, 100, 0, 1, 0, 16},
    {"some headers", 700, 100, 100, 0, 50, 0, 16},
    {"later and earlier", 700, 100, 100, 0, 0, 100, 16},
    {"much later", 700, 60, 70, 0, 0, 20000, 16},
};

static uint64_t next_random(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

static int between(uint64_t *state, int least, int most) {
    return least + (int)(next_random(state) % (uint64_t)(most - least + 1));
}

static void make_kind(const kind *made, uint64_t *state, ls_batch_builder *builder, ls_batch_header *header) {
    static uint8_t bytes[9000];
    ls_fault fault = no_fault;
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)(next_random(state) % 3 * 85);
    ls_batch_builder_init(builder, 4096, &fault);
    int64_t timestamp = 1700000000000;
    for (int i = 0; i < made->records_count; i++) {
        ls_span key = {bytes, between(state, 0, made->key_bytes_max)};
        ls_span value = {bytes, between(state, made->value_bytes_min, made->value_bytes_max)};
        ls_record_header named = {.key = bytes, .key_bytes = 2, .value = bytes, .value_bytes = 5};
        if (made->nulls != 0 && next_random(state) % (uint64_t)made->nulls == 0) key.size_bytes = -1;
        if (made->nulls != 0 && next_random(state) % (uint64_t)made->nulls == 0) value.size_bytes = -1;
        bool with_headers = made->headers != 0 && next_random(state) % (uint64_t)made->headers == 0;
        int jitter_ms = between(state, -made->jitter_ms, made->jitter_ms);
        int64_t at = timestamp + (made->jitter_ms == 0 ? i / 50 : jitter_ms);
        REQUIRE_INT(ls_batch_builder_append(builder, at, key, value, with_headers ? &named : NULL,
                                            with_headers ? 1 : 0, &fault),
                    LS_OK);
    }
    ls_batch_stamp_fields fields = {
        .base_offset = 5000, .producer_id = -1, .producer_epoch = -1, .base_sequence = -1};
    ls_batch_builder_seal(builder, &fields, header);
}

static void test_runs_agree_with_iterator(void) {
    enum { ROUNDS = 60 };
    uint64_t state = 20261123;
    size_t refused = 0;
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        ls_batch_builder builder = {0};
        ls_batch_header header;
        make_kind(&kinds[k], &state, &builder, &header);
        size_t size = builder.size_bytes - LS_BATCH_HEADER_BYTES;
        uint8_t *payload = malloc(size + 1);
        REQUIRE(payload != NULL);
        for (int round = 0; round < ROUNDS; round++) {
            /* Its end at the end of the memory, so that a sanitizer sees what is read behind it. */
            uint8_t *start = payload + 1;
            memcpy(start, builder.buffer + LS_BATCH_HEADER_BYTES, size);
            char what[80];
            snprintf(what, sizeof what, "%s, round %d", kinds[k].name, round);
            if (round == 0) {
                CHECK_INT(check_ways_agree(&header, start, start + size, what), LS_END);
                continue;
            }
            if (round == 1) {
                header.attributes |= LS_ATTRIBUTE_LOG_APPEND_TIME;
                CHECK_INT(check_ways_agree(&header, start, start + size, what), LS_END);
                continue;
            }
            header.attributes = 0;
            /* In front, where a run begins, or anywhere. */
            size_t within = round % 2 == 0 && size > 400 ? 400 : size;
            for (int hit = 0; hit <= round % 3; hit++) {
                uint8_t *byte = start + next_random(&state) % within;
                unsigned damaged = *byte ^ (1u << next_random(&state) % 8);
                *byte = (uint8_t)(damaged & 0xffu);
            }
            if (check_ways_agree(&header, start, start + size, what) == LS_CORRUPT) refused++;
        }
        free(payload);
        ls_batch_builder_free(&builder);
    }
    CHECK(refused > 20);
}

/* The fast varints against the plain ones, at each width's edges. */
static void test_wide_varints(void) {
    for (unsigned width = 0; width < 56; width++) {
        for (int64_t nudge = -2; nudge <= 2; nudge++) {
            uint64_t bits = ((uint64_t)1 << width) + (uint64_t)nudge;
            if (bits >> 56 != 0) continue;
            uint8_t bytes[16];
            memset(bytes, 0xff, sizeof bytes);
            size_t size = 0;
            for (uint64_t rest = bits;; rest >>= 7) {
                bytes[size++] = (uint8_t)(rest >= 0x80u ? rest | 0x80u : rest);
                if (rest < 0x80u) break;
            }
            uint64_t read = 0;
            CHECK_INT(ls_wide_varint_bits(bytes, &read), size);
            CHECK_HEX(read, bits);
        }
    }
    uint8_t endless[8];
    memset(endless, 0x80, sizeof endless);
    uint64_t unused;
    CHECK_INT(ls_wide_varint_bits(endless, &unused), 0);
}

int main(void) {
    RUN(test_agrees_with_iterator);
    RUN(test_agrees_on_damage);
    RUN(test_runs_agree_with_iterator);
    RUN(test_appends_behind_others);
    RUN(test_refusals);
    RUN(test_wide_varints);
    return check_result();
}
