#include "check.h"
#include "logstore/record_batch.h"
#include "vector_file.h"

static const ls_fault no_fault = {LS_OK, 0, "", 0, 0, 0};

static void test_append_time_overrules_deltas(void) {
    vector_file vector = vector_file_read("log_append_time");
    ls_batch_header header;
    ls_fault fault = no_fault;
    REQUIRE_INT(ls_batch_validate(vector.bytes, vector.end, 0, &header, &fault), LS_OK);
    ls_record_iterator iterator;
    ls_record record;
    ls_record_iterator_init(&iterator, &header, vector.bytes + LS_BATCH_HEADER_BYTES, vector.end);
    for (int i = 0; i < 10; i++) {
        REQUIRE_INT(ls_record_iterator_next(&iterator, &record, &fault), LS_OK);
        CHECK_INT(record.offset, 77 + i);
        CHECK_INT(record.timestamp, 1800000000000);
    }
    CHECK_INT(ls_record_iterator_next(&iterator, &record, &fault), LS_END);
    free(vector.bytes);
}

static void test_record_headers(void) {
    vector_file vector = vector_file_read("headers_duplicate_keys");
    ls_batch_header header;
    ls_fault fault = no_fault;
    REQUIRE_INT(ls_batch_validate(vector.bytes, vector.end, 0, &header, &fault), LS_OK);
    ls_record_iterator iterator;
    ls_record record;
    ls_record_iterator_init(&iterator, &header, vector.bytes + LS_BATCH_HEADER_BYTES, vector.end);
    REQUIRE_INT(ls_record_iterator_next(&iterator, &record, &fault), LS_OK);
    const uint8_t *at = record.headers;
    const uint8_t *end = record.headers + record.headers_bytes;
    CHECK(end == vector.end);
    for (int i = 0; i < 3; i++) {
        static const char keys[] = {'a', 'b', 'a'};
        static const char values[] = {'1', '2', '3'};
        ls_record_header one;
        REQUIRE_INT(ls_record_header_next(&at, end, &one, &fault), LS_OK);
        CHECK(one.key_bytes == 1 && one.key[0] == (uint8_t)keys[i] &&
              one.value_bytes == 1 && one.value[0] == (uint8_t)values[i]);
    }
    CHECK(at == end);
    ls_record_header untouched = {NULL, NULL, 7, 7};
    CHECK_INT(ls_record_header_next(&at, end, &untouched, &fault), LS_CORRUPT);
    CHECK(at == end && untouched.key_bytes == 7);
    CHECK_INT(fault.position, -1);
    free(vector.bytes);
}

/* ---- records by hand ------------------------------------------------------------------------------ */

typedef struct record_case {
    const char *what;
    uint8_t bytes[40];
    int size_bytes;
    int32_t last_offset_delta;
    int32_t records_count;
    const char *reason; /* NULL: sound */
} record_case;

/* Sixteen bytes and more let the fast parser run; the short ones are the careful one's. */
static const record_case record_cases[] = {
    {"smallest", {12, 0, 0, 0, 1, 1, 0}, 7, 0, 1, NULL},
    {"over the batch's last offset",
     {12, 0, 0, 2, 1, 1, 0}, 7, 0, 1, "offset delta is past the batch's last"},
    {"negative offset delta", {12, 0, 0, 1, 1, 1, 0}, 7, 0, 1, "offset deltas do not rise"},
    {"equal offset deltas",
     {12, 0, 0, 0, 1, 1, 0, 12, 0, 0, 0, 1, 1, 0}, 14, 5, 2, "offset deltas do not rise"},
    {"falling offset deltas, fast",
     {40, 0, 0, 4, 1, 28, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0, 12, 0, 0, 2, 1, 1, 0}, 28, 5, 2,
     "offset deltas do not rise"},
    {"past the last offset, fast",
     {40, 0, 0, 12, 1, 28, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0}, 21, 5, 1,
     "offset delta is past the batch's last"},
    {"length 0", {0}, 1, 0, 1, "record is empty"},
    {"length 1", {2, 0}, 2, 0, 1, "varint is cut off"},
    {"no bytes at all", {0}, 0, 0, 1, "records are missing"},
    {"second record missing", {12, 0, 0, 0, 1, 1, 0}, 7, 5, 2, "records are missing"},
    {"left over inside", {14, 0, 0, 0, 1, 1, 0, 0}, 8, 0, 1, "bytes are left over inside a record"},
    {"left over inside, fast",
     {34, 0, 0, 0, 1, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0, 0}, 18, 0, 1,
     "bytes are left over inside a record"},
    {"left over behind", {12, 0, 0, 0, 1, 1, 0, 9}, 8, 0, 1, "bytes are left over after the last record"},
    {"key into the next record",
     {12, 0, 0, 0, 6, 1, 0, 12, 0, 0, 2, 1, 1, 0, 12, 0, 0, 4, 1, 1, 0}, 21, 2, 3,
     "key is longer than its record"},
    {"value into the next record",
     {12, 0, 0, 0, 1, 2, 0, 12, 0, 0, 2, 1, 1, 0, 12, 0, 0, 4, 1, 1, 0}, 21, 2, 3, "varint is cut off"},
    {"long value into the next record",
     {12, 0, 0, 0, 1, 8, 0, 12, 0, 0, 2, 1, 1, 0, 12, 0, 0, 4, 1, 1, 0}, 21, 2, 3,
     "value is longer than its record"},
    {"header value beyond, fast",
     {34, 0, 0, 0, 1, 1, 2, 2, 'h', 18, 1, 2, 3, 4, 5, 6, 7, 8}, 18, 0, 1,
     "header value is longer than its record"},
    {"header key beyond, fast",
     {34, 0, 0, 0, 1, 1, 2, 24, 'h', 16, 1, 2, 3, 4, 5, 6, 7, 8}, 18, 0, 1,
     "header key is longer than its record"},
    {"header, fast", {34, 0, 0, 0, 1, 1, 2, 2, 'h', 16, 1, 2, 3, 4, 5, 6, 7, 8}, 18, 0, 1, NULL},
    {"null header value, fast", {34, 0, 0, 0, 1, 1, 2, 18, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1}, 18, 0, 1, NULL},
    {"six-byte varint", {18, 0, 0, 0x80, 0x80, 0x80, 0x80, 0x80, 0, 0}, 10, 0, 1, "varint is too long"},
};

static void test_records_by_hand(void) {
    for (size_t i = 0; i < sizeof record_cases / sizeof record_cases[0]; i++) {
        const record_case *one = &record_cases[i];
        uint8_t *payload = malloc((size_t)one->size_bytes + 1);
        REQUIRE(payload != NULL);
        uint8_t *start = payload + 1; /* so that the end is the allocation's, also of nothing */
        memcpy(start, one->bytes, (size_t)one->size_bytes);
        ls_batch_header header = {.last_offset_delta = one->last_offset_delta,
                                  .records_count = one->records_count};
        ls_record_iterator iterator;
        ls_record_iterator_init(&iterator, &header, start, start + one->size_bytes);
        ls_record record;
        ls_fault fault = no_fault;
        ls_status status;
        while ((status = ls_record_iterator_next(&iterator, &record, &fault)) == LS_OK) {
        }
        if (one->reason == NULL) {
            CHECK_CASE(status == LS_END, "%s: %s", one->what, fault.reason);
        } else {
            CHECK_CASE(status == LS_CORRUPT && strcmp(fault.reason, one->reason) == 0, "%s: %s, \"%s\"",
                       one->what, ls_status_name(status), fault.reason);
            CHECK_CASE(fault.position >= LS_BATCH_HEADER_BYTES &&
                           fault.position <= LS_BATCH_HEADER_BYTES + one->size_bytes,
                       "%s: position %lld", one->what, (long long)fault.position);
            /* A failure does not advance: the same call gives the same answer. */
            const uint8_t *at = iterator.at;
            CHECK_CASE(ls_record_iterator_next(&iterator, &record, &fault) == LS_CORRUPT && iterator.at == at,
                       "%s: a failed call moved on", one->what);
        }
        free(payload);
    }
}

/* Near 2^63 offsets and timestamps are computed without overflow, whatever the deltas are. */
static void test_extreme_bases(void) {
    static const uint8_t payload[] = {12, 0, 1, 4, 1, 1, 0}; /* timestamp delta -1, offset delta 2 */
    ls_batch_header header = {.base_offset = INT64_MAX - 2,
                              .base_timestamp = INT64_MIN,
                              .last_offset_delta = 2,
                              .records_count = 1};
    ls_record_iterator iterator;
    ls_record record;
    ls_fault fault = no_fault;
    ls_record_iterator_init(&iterator, &header, payload, payload + sizeof payload);
    REQUIRE_INT(ls_record_iterator_next(&iterator, &record, &fault), LS_OK);
    CHECK_INT(record.offset, INT64_MAX);
    CHECK_INT(record.timestamp, INT64_MAX); /* wraps */
}

int main(void) {
    RUN(test_append_time_overrules_deltas);
    RUN(test_record_headers);
    RUN(test_records_by_hand);
    RUN(test_extreme_bases);
    return check_result();
}
