#include "logstore/record_batch.h"

#include "check.h"
#include "logstore/bytes.h"
#include "vector_file.h"

static const ls_fault no_fault = {LS_OK, 0, "", 0, 0, 0};

/* ---- golden vectors: what is right -------------------------------------------------------------- */

typedef struct expected_record {
    int64_t offset;
    int64_t timestamp;
    const char *key; /* NULL: null */
    const char *value;
    int32_t headers_count;
} expected_record;

typedef struct expected_batch {
    const char *name;
    int64_t base_offset;
    int32_t leader_epoch;
    int16_t attributes;
    int records_count;
    expected_record records[5];
} expected_batch;

#define NOON 1700000000000

static const expected_batch expected_batches[] = {
    {"single_kv", 0, -1, 0, 1, {{0, NOON, "key", "value", 0}}},
    {"single_null_key", 0, -1, 0, 1, {{0, NOON, NULL, "value", 0}}},
    {"single_null_both", 0, -1, 0, 1, {{0, NOON, NULL, NULL, 0}}},
    {"single_empty_both", 0, -1, 0, 1, {{0, NOON, "", "", 0}}},
    {"headers_duplicate_keys", 0, -1, 0, 1, {{0, NOON, "k", "v", 3}}},
    {"ts_mixed_max_in_middle", 0, -1, 0, 4,
     {{0, NOON, "a", "", 0},
      {1, NOON + 500, "b", "", 0},
      {2, NOON - 500, "c", "", 0},
      {3, NOON + 499, "d", "", 0}}},
    {"offsets_sparse", 0, -1, 0, 5,
     {{0, NOON, "a", "1", 0},
      {5, NOON, "b", "2", 0},
      {63, NOON, "c", "3", 0},
      {64, NOON, "d", "4", 0},
      {1000000, NOON, "e", "5", 0}}},
    {"offsets_first_delta_not_zero", 0, -1, 0, 2, {{3, NOON, "a", "1", 0}, {9, NOON, "b", "2", 0}}},
    {"compacted_delete_horizon", 300, 4,
     LS_ATTRIBUTE_DELETE_HORIZON, 2,
     {{300, NOON, "k1", NULL, 0}, {304, NOON + 10, "k2", NULL, 0}}},
    {"compacted_delete_horizon_append_time", 300, 4,
     LS_ATTRIBUTE_DELETE_HORIZON | LS_ATTRIBUTE_LOG_APPEND_TIME, 1,
     {{300, NOON + 99, "k1", NULL, 0}}},
    {"compacted_empty_batch", 100, 3, 0, 0, {{0, 0, NULL, NULL, 0}}},
    {"varint_overlong", 0, 0, 0, 1, {{0, NOON, "k", "v", 0}}},
    {"record_attributes_nonzero", 0, 0, 0, 1, {{0, NOON, "k", "v", 0}}},
    {"key_length_minus_2", 0, 0, 0, 1, {{0, NOON, NULL, "v", 0}}},
};

static bool holds_text(const uint8_t *bytes, int32_t size_bytes, const char *text) {
    if (text == NULL) return size_bytes == -1;
    return size_bytes == (int32_t)strlen(text) && memcmp(bytes, text, strlen(text)) == 0;
}

static void test_known_records(void) {
    for (size_t b = 0; b < sizeof expected_batches / sizeof expected_batches[0]; b++) {
        const expected_batch *expected = &expected_batches[b];
        vector_file vector = vector_file_read(expected->name);
        ls_batch_header header;
        ls_fault fault = no_fault;
        ls_status status = ls_batch_validate(vector.bytes, vector.end, 0, &header, &fault);
        CHECK_CASE(status == LS_OK, "%s: %s", expected->name, fault.reason);
        if (status != LS_OK) continue;
        CHECK_CASE(header.base_offset == expected->base_offset, "%s: base offset %lld", expected->name,
                   (long long)header.base_offset);
        CHECK_CASE(header.attributes == expected->attributes, "%s: attributes %d", expected->name,
                   header.attributes);
        CHECK_CASE(header.partition_leader_epoch == expected->leader_epoch,
                   "%s: leader epoch %d", expected->name, header.partition_leader_epoch);
        ls_record_iterator iterator;
        ls_record_iterator_init(&iterator, &header, vector.bytes + LS_BATCH_HEADER_BYTES, vector.end);
        for (int i = 0; i < expected->records_count; i++) {
            const expected_record *wanted = &expected->records[i];
            ls_record record;
            status = ls_record_iterator_next(&iterator, &record, &fault);
            CHECK_CASE(status == LS_OK, "%s, record %d: %s", expected->name, i, fault.reason);
            if (status != LS_OK) break;
            CHECK_CASE(record.offset == wanted->offset && record.timestamp == wanted->timestamp,
                       "%s, record %d: offset %lld, timestamp %lld", expected->name, i,
                       (long long)record.offset, (long long)record.timestamp);
            CHECK_CASE(holds_text(record.key, record.key_bytes, wanted->key), "%s, record %d: key",
                       expected->name, i);
            CHECK_CASE(holds_text(record.value, record.value_bytes, wanted->value), "%s, record %d: value",
                       expected->name, i);
            CHECK_CASE(record.headers_count == wanted->headers_count, "%s, record %d: %d headers",
                       expected->name, i, record.headers_count);
        }
        ls_record none;
        CHECK_CASE(ls_record_iterator_next(&iterator, &none, &fault) == LS_END, "%s: no end", expected->name);
        CHECK_CASE(fault.status == LS_OK, "%s: the end filled in a fault", expected->name);
        free(vector.bytes);
    }
}

static void test_header_fields(void) {
    vector_file vector = vector_file_read("idempotent_max");
    ls_batch_header header;
    ls_fault fault = no_fault;
    REQUIRE_INT(ls_batch_validate(vector.bytes, vector.end, 0, &header, &fault), LS_OK);
    CHECK_INT(ls_batch_size_bytes(&header), vector.end - vector.bytes);
    CHECK_INT(header.partition_leader_epoch, -1);
    CHECK_INT(header.magic, 2);
    CHECK_INT(header.last_offset_delta, 2);
    CHECK_INT(header.base_timestamp, NOON);
    CHECK_INT(header.max_timestamp, NOON + 2);
    CHECK_INT(header.producer_id, INT64_MAX);
    CHECK_INT(header.producer_epoch, INT16_MAX);
    CHECK_INT(header.base_sequence, INT32_MAX - 1);
    CHECK_INT(header.records_count, 3);
    CHECK_HEX(header.crc, ls_load_u32(vector.bytes + LS_BATCH_CRC_AT));

    uint8_t written[LS_BATCH_HEADER_BYTES];
    ls_batch_header_write(&header, written);
    CHECK_BYTES(written, vector.bytes, sizeof written);
    free(vector.bytes);
}

/* ---- golden vectors: what is wrong -------------------------------------------------------------- */

enum { NOT_REACHED = -1 };

typedef struct expected_verdict {
    const char *name;
    int validate;
    int iterate; /* to the end */
    int check;   /* as a leader */
    const char *reason; /* of the first refusal */
} expected_verdict;

/* What other layers refuse (a base offset or a control bit from a client, null keys in a compacted topic, a
 * codec's payload) is sound here. */
static const expected_verdict expected_verdicts[] = {
    {"bad_crc_payload_bit", LS_CORRUPT, NOT_REACHED, NOT_REACHED, "CRC does not match"},
    {"bad_crc_stored_bit", LS_CORRUPT, NOT_REACHED, NOT_REACHED, "CRC does not match"},
    {"bad_crc_zero", LS_CORRUPT, NOT_REACHED, NOT_REACHED, "CRC does not match"},
    {"bad_crc_wrong_polynomial", LS_CORRUPT, NOT_REACHED, NOT_REACHED, "CRC does not match"},
    {"bad_crc_attribute_bit", LS_CORRUPT, NOT_REACHED, NOT_REACHED, "CRC does not match"},
    {"bad_length_too_small_by_1", LS_CORRUPT, NOT_REACHED, NOT_REACHED, "CRC does not match"},
    {"bad_truncated_payload", LS_TORN, NOT_REACHED, NOT_REACHED, "batch is cut off"},
    {"bad_length_too_big_by_1", LS_TORN, NOT_REACHED, NOT_REACHED, "batch is cut off"},
    {"bad_length_max", LS_TORN, NOT_REACHED, NOT_REACHED, "batch is cut off"},
    {"bad_truncated_header_60", LS_TORN, NOT_REACHED, NOT_REACHED, "batch header is cut off"},
    {"bad_truncated_17", LS_TORN, NOT_REACHED, NOT_REACHED, "batch header is cut off"},
    {"bad_truncated_11", LS_TORN, NOT_REACHED, NOT_REACHED, "batch header is cut off"},
    {"bad_all_zeros", LS_CORRUPT, NOT_REACHED, NOT_REACHED, "batch length is below the smallest possible"},
    {"bad_length_zero", LS_CORRUPT, NOT_REACHED, NOT_REACHED, "batch length is below the smallest possible"},
    {"bad_length_13", LS_CORRUPT, NOT_REACHED, NOT_REACHED, "batch length is below the smallest possible"},
    {"bad_length_48", LS_CORRUPT, NOT_REACHED, NOT_REACHED, "batch length is below the smallest possible"},
    {"bad_length_negative", LS_CORRUPT, NOT_REACHED, NOT_REACHED,
     "batch length is below the smallest possible"},
    {"bad_magic_0", LS_UNSUPPORTED, NOT_REACHED, NOT_REACHED, "magic is not 2"},
    {"bad_magic_1", LS_UNSUPPORTED, NOT_REACHED, NOT_REACHED, "magic is not 2"},
    {"bad_magic_3", LS_UNSUPPORTED, NOT_REACHED, NOT_REACHED, "magic is not 2"},
    {"bad_magic_127", LS_UNSUPPORTED, NOT_REACHED, NOT_REACHED, "magic is not 2"},
    {"bad_magic_minus_1", LS_UNSUPPORTED, NOT_REACHED, NOT_REACHED, "magic is not 2"},
    {"bad_last_offset_delta_negative", LS_CORRUPT, NOT_REACHED, NOT_REACHED, "last offset delta is negative"},
    {"bad_count_negative", LS_CORRUPT, NOT_REACHED, NOT_REACHED, "records count is negative"},
    {"bad_count_huge", LS_CORRUPT, NOT_REACHED, NOT_REACHED, "more records than offsets"},
    {"bad_count_plus_1", LS_OK, LS_CORRUPT, LS_CORRUPT, "records are missing"},
    {"bad_control_key_short", LS_CORRUPT, NOT_REACHED, NOT_REACHED, "control record's key is too short"},
    {"bad_control_value_short", LS_CORRUPT, NOT_REACHED, NOT_REACHED,
     "transaction marker's value is too short"},
    {"bad_codec_5", LS_OK, LS_CORRUPT, LS_CORRUPT, "codec is unknown"},
    {"bad_codec_6", LS_OK, LS_CORRUPT, LS_CORRUPT, "codec is unknown"},
    {"bad_codec_7", LS_OK, LS_CORRUPT, LS_CORRUPT, "codec is unknown"},
    {"bad_count_minus_1", LS_OK, LS_CORRUPT, LS_CORRUPT, "bytes are left over after the last record"},
    {"bad_count_offset_mismatch", LS_OK, LS_END, LS_CORRUPT, "records count is not the number of offsets"},
    {"bad_count_zero", LS_OK, LS_END, LS_CORRUPT, "batch holds no records"},
    {"offsets_sparse", LS_OK, LS_END, LS_CORRUPT, "records count is not the number of offsets"},
    {"compacted_empty_batch", LS_OK, LS_END, LS_CORRUPT, "batch holds no records"},
    {"bad_varint_record_length_unterminated", LS_OK, LS_CORRUPT, LS_CORRUPT, "varint is too long"},
    {"bad_varint_offset_delta_unterminated", LS_OK, LS_CORRUPT, LS_CORRUPT, "varint is too long"},
    {"bad_varlong_timestamp_unterminated", LS_OK, LS_CORRUPT, LS_CORRUPT, "varint is too long"},
    {"bad_record_length_short", LS_OK, LS_CORRUPT, LS_CORRUPT, NULL},
    {"bad_record_length_long", LS_OK, LS_CORRUPT, LS_CORRUPT, "record is longer than its batch"},
    {"bad_record_length_huge", LS_OK, LS_CORRUPT, LS_CORRUPT, "record is longer than its batch"},
    {"bad_record_length_negative", LS_OK, LS_CORRUPT, LS_CORRUPT, "record length is negative"},
    {"bad_key_length_overrun", LS_OK, LS_CORRUPT, LS_CORRUPT, "key is longer than its record"},
    {"bad_header_count_negative", LS_OK, LS_CORRUPT, LS_CORRUPT, "headers count is impossible"},
    {"bad_header_count_huge", LS_OK, LS_CORRUPT, LS_CORRUPT, "headers count is impossible"},
    {"bad_header_key_null", LS_OK, LS_CORRUPT, LS_CORRUPT, "header key is null"},
    {"bad_header_value_missing", LS_OK, LS_CORRUPT, LS_CORRUPT, "varint is cut off"},
    {"bad_base_offset_nonzero_from_client", LS_OK, LS_END, LS_OK, NULL},
    {"bad_control_from_client", LS_OK, LS_END, LS_OK, NULL},
    {"bad_log_append_time_from_client", LS_OK, LS_END, LS_OK, NULL},
    {"bad_pid_without_sequence", LS_OK, LS_END, LS_OK, NULL},
    {"bad_null_key_on_compacted_topic", LS_OK, LS_END, LS_OK, NULL},
    {"bad_good_bad_good", LS_OK, LS_END, LS_OK, NULL},
    {"bad_second_batch_torn", LS_OK, LS_END, LS_OK, NULL},
    {"bad_trailing_zeros", LS_OK, LS_END, LS_OK, NULL},
    {"control_unknown_type", LS_OK, LS_END, LS_OK, NULL},
    {"control_abort_future_version", LS_OK, LS_END, LS_OK, NULL},
    {"control_commit", LS_OK, LS_END, LS_OK, NULL},
    {"compacted_empty_control", LS_OK, LS_END, LS_CORRUPT, "batch holds no records"},
};

static void test_verdicts(void) {
    for (size_t v = 0; v < sizeof expected_verdicts / sizeof expected_verdicts[0]; v++) {
        const expected_verdict *expected = &expected_verdicts[v];
        vector_file vector = vector_file_read(expected->name);
        const char *reason = NULL;
        ls_batch_header header;
        memset(&header, 0x5a, sizeof header);
        const ls_batch_header before = header;
        ls_fault fault = no_fault;
        int status = (int)ls_batch_validate(vector.bytes, vector.end, 0, &header, &fault);
        CHECK_CASE(status == expected->validate, "%s: validate says %s (%s)", expected->name,
                   ls_status_name((ls_status)status), fault.reason);
        if (status != LS_OK) {
            reason = fault.reason;
            CHECK_CASE(fault.status == (ls_status)status, "%s: the fault's status", expected->name);
            CHECK_CASE(memcmp(&header, &before, sizeof header) == 0, "%s: a refusal wrote its output",
                       expected->name);
        } else {
            const uint8_t *payload = vector.bytes + LS_BATCH_HEADER_BYTES;
            const uint8_t *end = vector.bytes + ls_batch_size_bytes(&header);
            ls_record_iterator iterator;
            ls_record record;
            ls_record_iterator_init(&iterator, &header, payload, end);
            int64_t taken = 0;
            do {
                status = (int)ls_record_iterator_next(&iterator, &record, &fault);
            } while (status == LS_OK && ++taken <= header.records_count);
            CHECK_CASE(status == expected->iterate, "%s: iteration says %s (%s)", expected->name,
                       ls_status_name((ls_status)status), fault.reason);
            if (status != LS_END) reason = fault.reason;
            int64_t max_timestamp;
            int32_t null_key;
            status = (int)ls_batch_check_records(&header, payload, end, &max_timestamp, &null_key, &fault);
            CHECK_CASE(status == expected->check, "%s: the leader's check says %s (%s)", expected->name,
                       ls_status_name((ls_status)status), fault.reason);
            if (status != LS_OK && reason == NULL) reason = fault.reason;
        }
        CHECK_CASE(expected->reason == NULL || (reason != NULL && strcmp(reason, expected->reason) == 0),
                   "%s: \"%s\", expected \"%s\"", expected->name, reason ? reason : "(none)",
                   expected->reason ? expected->reason : "");
        free(vector.bytes);
    }
}

/* ---- the header's own rules --------------------------------------------------------------------- */

/* Whatever is cut off, a prefix is torn and never sound; nothing is the end. */
static void test_every_prefix_is_torn(void) {
    vector_file vector = vector_file_read("many10_none");
    size_t size = (size_t)(vector.end - vector.bytes);
    for (size_t keep = 0; keep < size; keep++) {
        uint8_t *prefix = malloc(keep + 1);
        REQUIRE(prefix != NULL);
        memcpy(prefix, vector.bytes, keep);
        ls_batch_header header;
        ls_fault fault = no_fault;
        ls_status expected = keep == 0 ? LS_END : LS_TORN;
        CHECK_CASE(ls_batch_validate(prefix, prefix + keep, 1000, &header, &fault) == expected,
                   "first %zu bytes", keep);
        CHECK_CASE(keep == 0 || (fault.position == 1000 && fault.actual == (int64_t)keep),
                   "fault of %zu bytes", keep);
        expected = keep >= LS_BATCH_HEADER_BYTES ? LS_OK : expected;
        CHECK_CASE(ls_batch_header_peek(prefix, prefix + keep, 0, &header, &fault) == expected, "peek at %zu",
                   keep);
        free(prefix);
    }
    free(vector.bytes);
}

/* Each bit of a batch is guarded by the CRC or a rule, save those outside the CRC that may be anything: the
 * base offset's lower bits and a leader epoch of -1 or more. (A lower length leaves a CRC over fewer bytes.) */
static void test_every_flipped_bit(void) {
    vector_file vector = vector_file_read("many10_none");
    size_t size = (size_t)(vector.end - vector.bytes);
    for (size_t bit = 0; bit < size * 8; bit++) {
        size_t byte = bit / 8;
        vector.bytes[byte] ^= (uint8_t)(1u << (bit % 8));
        ls_batch_header header;
        ls_fault fault = no_fault;
        ls_status status = ls_batch_validate(vector.bytes, vector.end, 0, &header, &fault);
        bool sign_of_base_offset = byte == 0 && bit % 8 == 7;
        bool unguarded = (byte < LS_BATCH_LENGTH_AT && !sign_of_base_offset) ||
                         (byte >= LS_BATCH_LEADER_EPOCH_AT && byte < LS_BATCH_MAGIC_AT &&
                          ls_load_i32(vector.bytes + LS_BATCH_LEADER_EPOCH_AT) >= -1);
        CHECK_CASE((status == LS_OK) == unguarded, "bit %zu of byte %zu: %s", bit % 8, byte,
                   ls_status_name(status));
        vector.bytes[byte] ^= (uint8_t)(1u << (bit % 8));
    }
    free(vector.bytes);
}

typedef struct header_case {
    const char *what;
    size_t at;
    size_t size_bytes;
    int64_t value;
    ls_status status;
} header_case;

static void test_header_rules(void) {
    static const header_case cases[] = {
        {"base offset -1", LS_BATCH_BASE_OFFSET_AT, 8, -1, LS_CORRUPT},
        {"last offset 2^63-1", LS_BATCH_BASE_OFFSET_AT, 8, INT64_MAX - 9, LS_OK},
        {"last offset 2^63", LS_BATCH_BASE_OFFSET_AT, 8, INT64_MAX - 8, LS_CORRUPT},
        {"last offset delta -1", LS_BATCH_LAST_OFFSET_DELTA_AT, 4, -1, LS_CORRUPT},
        {"last offset delta 8, 10 records", LS_BATCH_LAST_OFFSET_DELTA_AT, 4, 8, LS_CORRUPT},
        {"last offset delta 2^31-1", LS_BATCH_LAST_OFFSET_DELTA_AT, 4, INT32_MAX, LS_OK},
        {"count 11 of 10 offsets", LS_BATCH_RECORDS_COUNT_AT, 4, 11, LS_CORRUPT},
        {"count -1", LS_BATCH_RECORDS_COUNT_AT, 4, -1, LS_CORRUPT},
        {"count 0", LS_BATCH_RECORDS_COUNT_AT, 4, 0, LS_OK},
        {"codec 7", LS_BATCH_ATTRIBUTES_AT, 2, 7, LS_OK},
        {"all attribute bits", LS_BATCH_ATTRIBUTES_AT, 2, -1, LS_OK},
        {"producer id without sequence", LS_BATCH_PRODUCER_ID_AT, 8, 5, LS_OK},
        {"length 14 with magic 2", LS_BATCH_LENGTH_AT, 4, 14, LS_CORRUPT},
        {"length 49", LS_BATCH_LENGTH_AT, 4, 49, LS_OK},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        vector_file vector = vector_file_read("many10_none");
        uint8_t *field = vector.bytes + cases[i].at;
        if (cases[i].size_bytes == 8) ls_store_i64(field, cases[i].value);
        if (cases[i].size_bytes == 4) ls_store_i32(field, (int32_t)cases[i].value);
        if (cases[i].size_bytes == 2) ls_store_i16(field, (int16_t)cases[i].value);
        ls_batch_header header;
        ls_fault fault = no_fault;
        ls_status status = ls_batch_header_read(vector.bytes, vector.end, 100, &header, &fault);
        CHECK_CASE(status == cases[i].status, "%s: %s (%s)", cases[i].what, ls_status_name(status),
                   fault.reason);
        if (status != LS_OK) {
            CHECK_CASE(fault.position >= 100 && fault.position < 100 + LS_BATCH_HEADER_BYTES,
                       "%s: position %lld", cases[i].what, (long long)fault.position);
        }
        free(vector.bytes);
    }
}

/* Another magic is another version only in an entry that is framed; else it is garbage. */
static void test_other_magics(void) {
    uint8_t entry[12 + 14] = {0};
    ls_store_i32(entry + LS_BATCH_LENGTH_AT, 14);
    ls_batch_header header;
    ls_fault fault = no_fault;
    CHECK_INT(ls_batch_header_read(entry, entry + sizeof entry, 0, &header, &fault), LS_UNSUPPORTED);
    CHECK_INT(fault.position, LS_BATCH_MAGIC_AT);
    CHECK_INT(ls_batch_header_read(entry, entry + sizeof entry - 1, 0, &header, &fault), LS_CORRUPT);
    CHECK_INT(ls_batch_header_peek(entry, entry + sizeof entry - 1, 0, &header, &fault), LS_UNSUPPORTED);
    ls_store_i32(entry + LS_BATCH_LENGTH_AT, 13);
    CHECK_INT(ls_batch_header_read(entry, entry + sizeof entry, 0, &header, &fault), LS_CORRUPT);
}

/* ---- stamping ------------------------------------------------------------------------------------ */

static void test_stamp_leaves_crc(void) {
    vector_file vector = vector_file_read("many10_none");
    ls_batch_stamp(vector.bytes, 12345678901, 42);
    ls_batch_header header;
    ls_fault fault = no_fault;
    REQUIRE_INT(ls_batch_validate(vector.bytes, vector.end, 0, &header, &fault), LS_OK);
    CHECK_INT(header.base_offset, 12345678901);
    CHECK_INT(header.partition_leader_epoch, 42);
    CHECK_INT(ls_batch_last_offset(&header), 12345678910);
    free(vector.bytes);
}

static void test_stamp_timestamps_both_ways(void) {
    vector_file vector = vector_file_read("many10_none");
    vector_file original = vector_file_read("many10_none");
    size_t size = (size_t)(vector.end - vector.bytes);
    ls_batch_header header;
    ls_fault fault = no_fault;
    ls_batch_stamp_timestamps(vector.bytes, size, true, 99);
    REQUIRE_INT(ls_batch_validate(vector.bytes, vector.end, 0, &header, &fault), LS_OK);
    CHECK_INT(header.attributes, LS_ATTRIBUTE_LOG_APPEND_TIME);
    CHECK_INT(header.max_timestamp, 99);
    ls_batch_stamp_timestamps(vector.bytes, size, false, NOON + 9);
    CHECK_BYTES(vector.bytes, original.bytes, size);
    free(vector.bytes);
    free(original.bytes);
}

static void test_stamp_producer_both_ways(void) {
    vector_file vector = vector_file_read("many10_none");
    vector_file original = vector_file_read("many10_none");
    size_t size = (size_t)(vector.end - vector.bytes);
    ls_batch_header before, header;
    ls_fault fault = no_fault;
    REQUIRE_INT(ls_batch_validate(vector.bytes, vector.end, 0, &before, &fault), LS_OK);
    ls_batch_stamp_producer(vector.bytes, size, true, 12345678901, 32767, 2147483647);
    REQUIRE_INT(ls_batch_validate(vector.bytes, vector.end, 0, &header, &fault), LS_OK);
    CHECK_INT(header.attributes, LS_ATTRIBUTE_TRANSACTIONAL);
    CHECK_INT(header.producer_id, 12345678901);
    CHECK_INT(header.producer_epoch, 32767);
    CHECK_INT(header.base_sequence, 2147483647);
    ls_batch_stamp_producer(vector.bytes, size, false, before.producer_id, before.producer_epoch,
                            before.base_sequence);
    CHECK_BYTES(vector.bytes, original.bytes, size);
    free(vector.bytes);
    free(original.bytes);
}

/* ---- the leader's check -------------------------------------------------------------------------- */

static void test_check_reports_timestamp_and_null_key(void) {
    vector_file vector = vector_file_read("ts_mixed_max_in_middle");
    ls_batch_header header;
    ls_fault fault = no_fault;
    int64_t max_timestamp = 0;
    int32_t null_key = 0;
    REQUIRE_INT(ls_batch_validate(vector.bytes, vector.end, 0, &header, &fault), LS_OK);
    const uint8_t *payload = vector.bytes + LS_BATCH_HEADER_BYTES;
    REQUIRE_INT(ls_batch_check_records(&header, payload, vector.end, &max_timestamp, &null_key, &fault),
                LS_OK);
    CHECK_INT(max_timestamp, NOON + 500);
    CHECK_INT(null_key, -1);
    /* The same records, as if the first were of time 499: the third is of time -1, then of time -2. */
    header.base_timestamp = 499;
    CHECK_INT(ls_batch_check_records(&header, payload, vector.end, &max_timestamp, &null_key, &fault), LS_OK);
    header.base_timestamp = 498;
    CHECK_INT(ls_batch_check_records(&header, payload, vector.end, &max_timestamp, &null_key, &fault),
              LS_CORRUPT);
    CHECK_TEXT(fault.reason, "timestamp is below -1");
    CHECK_INT(fault.actual, -2);
    CHECK_INT(max_timestamp, 999); /* of the call before */
    free(vector.bytes);

    vector = vector_file_read("bad_null_key_on_compacted_topic");
    REQUIRE_INT(ls_batch_validate(vector.bytes, vector.end, 0, &header, &fault), LS_OK);
    payload = vector.bytes + LS_BATCH_HEADER_BYTES;
    REQUIRE_INT(ls_batch_check_records(&header, payload, vector.end, &max_timestamp, &null_key, &fault),
                LS_OK);
    CHECK_INT(null_key, 1);
    free(vector.bytes);
}

int main(void) {
    RUN(test_known_records);
    RUN(test_header_fields);
    RUN(test_verdicts);
    RUN(test_every_prefix_is_torn);
    RUN(test_every_flipped_bit);
    RUN(test_header_rules);
    RUN(test_other_magics);
    RUN(test_stamp_leaves_crc);
    RUN(test_stamp_timestamps_both_ways);
    RUN(test_stamp_producer_both_ways);
    RUN(test_check_reports_timestamp_and_null_key);
    return check_result();
}
