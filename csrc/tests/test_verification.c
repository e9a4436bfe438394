#include "logstore/verification.h"

#include <string.h>

#include "check.h"
#include "faulty_file.h"
#include "logstore/bytes.h"
#include "made_batch.h"

enum { COUNT = 40, BASE = 1000, LOG_BYTES_MAX = 64 << 10 };

static uint8_t log_bytes[LOG_BYTES_MAX];
static int64_t positions[COUNT + 1];

static void make_log(void) {
    int64_t at = 0;
    for (int i = 0; i < COUNT; i++) {
        positions[i] = at;
        made_batch batch = {BASE + 2 * i, 2, 100 + i, 0, 100 + (size_t)(i % 7) * 200};
        make_batch(&batch, log_bytes + at);
        at += (int64_t)batch.size_bytes;
    }
    positions[COUNT] = at;
    REQUIRE(at <= LOG_BYTES_MAX);
}

static ls_batch_header header_of(int i) {
    ls_batch_header header;
    ls_fault fault;
    const uint8_t *at = log_bytes + positions[i];
    REQUIRE(ls_batch_header_read(at, log_bytes + positions[i + 1], 0, &header, &fault) == LS_OK);
    return header;
}

static faulty_file file;

static ls_segment *open_bytes(const uint8_t *bytes, int64_t size) {
    ls_fault fault;
    ls_segment *segment;
    ls_segment_options options = {.base_offset = BASE,
                                  .end_offset_max = BASE + 2 * COUNT,
                                  .index_interval_bytes = 1000,
                                  .offset_index_capacity = 100,
                                  .time_index_capacity = 100,
                                  .is_contiguous = 1};
    faulty_file_init(&file, bytes, (size_t)size);
    REQUIRE(ls_segment_create(&file.file, &options, NULL, &segment, &fault) == LS_OK);
    return segment;
}

static void close_bytes(ls_segment *segment) {
    ls_segment_free(segment);
    faulty_file_free(&file);
}

static ls_status verify(ls_segment *segment, ls_verification *verification, int64_t limit, int64_t budget,
                        int deep, ls_fault *fault) {
    ls_verification_init(verification, BASE, NULL, 0, NULL, 0);
    ls_status status;
    do {
        int64_t before = verification->position;
        status = ls_segment_verify(segment, verification, limit, budget, deep, fault);
        REQUIRE(status != LS_OK || verification->position > before);
    } while (status == LS_OK);
    return status;
}

static void test_a_sound_file_in_steps_of_any_size(void) {
    ls_fault fault;
    ls_segment *segment = open_bytes(log_bytes, positions[COUNT]);
    ls_digest expected = {0, 0};
    for (int i = 0; i < COUNT; i++) {
        ls_batch_header header = header_of(i);
        ls_digest_extend(&expected, &header);
    }
    static const int64_t budgets[] = {1, 100, 5000, INT64_MAX};
    for (int i = 0; i < 8; i++) {
        ls_verification found;
        CHECK_INT(verify(segment, &found, positions[COUNT], budgets[i / 2], i % 2, &fault), LS_END);
        CHECK_INT(found.position, positions[COUNT]);
        CHECK_INT(found.next_offset, BASE + 2 * COUNT);
        CHECK_INT(found.batches_count, COUNT);
        CHECK_INT(found.records_count, 2 * COUNT);
        CHECK(found.digest.high == expected.high && found.digest.low == expected.low);
    }
    CHECK_INT(ls_segment_verify(segment, &(ls_verification){0}, 0, 1, 1, &fault), LS_END);
    close_bytes(segment);
}

static void test_every_flipped_byte_is_damage_or_another_digest(void) {
    static uint8_t bytes[LOG_BYTES_MAX];
    ls_fault fault;
    ls_verification sound;
    ls_segment *segment = open_bytes(log_bytes, positions[5]);
    CHECK_INT(verify(segment, &sound, positions[5], INT64_MAX, 1, &fault), LS_END);
    close_bytes(segment);
    memcpy(bytes, log_bytes, sizeof bytes);
    for (int64_t at = 0; at < positions[5]; at++) {
        bytes[at] ^= (uint8_t)(1 << (at % 8));
        segment = open_bytes(bytes, positions[5]);
        ls_verification found;
        ls_status status = verify(segment, &found, positions[5], 700, 1, &fault);
        bool other = found.digest.high != sound.digest.high || found.digest.low != sound.digest.low;
        bool is_damage = status == LS_CORRUPT || status == LS_TORN || status == LS_UNSUPPORTED;
        CHECK(is_damage || (status == LS_END && other));
        if (status != LS_END) {
            int batch = 0;
            while (positions[batch] != found.position) REQUIRE(++batch <= 5); /* it stands at a batch */
        }
        close_bytes(segment);
        bytes[at] ^= (uint8_t)(1 << (at % 8));
    }
}

static void test_damage_can_be_passed_over(void) {
    static uint8_t bytes[LOG_BYTES_MAX];
    memcpy(bytes, log_bytes, sizeof bytes);
    bytes[positions[7] + 80] ^= 1;
    ls_fault fault;
    ls_segment *segment = open_bytes(bytes, positions[COUNT]);
    ls_verification found;
    /* The header is sound. */
    CHECK_INT(verify(segment, &found, positions[COUNT], INT64_MAX, 0, &fault), LS_END);
    CHECK_INT(verify(segment, &found, positions[COUNT], INT64_MAX, 1, &fault), LS_CORRUPT);
    CHECK_INT(found.position, positions[7]);
    CHECK_INT(found.batches_count, 7);
    ls_verification_skip(&found, positions[8], BASE + 14, 0, 0);
    CHECK_INT(ls_segment_verify(segment, &found, positions[COUNT], INT64_MAX, 1, &fault), LS_END);
    CHECK_INT(found.batches_count, COUNT - 1);
    close_bytes(segment);
}

static void test_a_failed_read_is_no_damage(void) {
    ls_fault fault;
    ls_segment *segment = open_bytes(log_bytes, positions[COUNT]);
    faulty_file_fail(&file, 0, LS_IO, false, 0);
    ls_verification found;
    CHECK_INT(verify(segment, &found, positions[COUNT], INT64_MAX, 1, &fault), LS_IO);
    close_bytes(segment);
}

/* ---- indexes --------------------------------------------------------------------------------- */

static uint8_t offset_index[8 * COUNT];
static uint8_t time_index[12 * COUNT];
static size_t entries;

static void make_indexes(void) {
    entries = 0;
    for (int i = 3; i < COUNT; i += 5, entries++) {
        ls_store_i32(offset_index + 8 * entries, 2 * i + 1);
        ls_store_i32(offset_index + 8 * entries + 4, (int32_t)positions[i]);
        ls_batch_header header = header_of(i);
        ls_store_i64(time_index + 12 * entries, header.max_timestamp);
        ls_store_i32(time_index + 12 * entries + 8, 2 * i + 1);
    }
}

static ls_verification verify_indexes(size_t offset_bytes, size_t time_bytes) {
    ls_fault fault;
    ls_segment *segment = open_bytes(log_bytes, positions[COUNT]);
    ls_verification found;
    ls_verification_init(&found, BASE, offset_index, offset_bytes, time_index, time_bytes);
    CHECK_INT(ls_segment_verify(segment, &found, positions[COUNT], INT64_MAX, 0, &fault), LS_END);
    ls_verification_finish(&found);
    close_bytes(segment);
    return found;
}

static void test_every_flipped_bit_of_an_index_is_found(void) {
    make_indexes();
    ls_verification found = verify_indexes(8 * entries, 12 * entries);
    CHECK(found.offset_index.fault == NULL);
    CHECK(found.time_index.fault == NULL);
    /* Shorter is fine, and a rest is the caller's. */
    found = verify_indexes(8 * entries - 8, 12 * entries - 12 + 5);
    CHECK(found.offset_index.fault == NULL);
    CHECK(found.time_index.fault == NULL);
    for (size_t bit = 0; bit < 64 * entries; bit++) {
        offset_index[bit / 8] ^= (uint8_t)(1 << (bit % 8));
        found = verify_indexes(8 * entries, 12 * entries);
        CHECK(found.offset_index.fault != NULL);
        CHECK_INT(found.offset_index.fault_entry, bit / 64);
        CHECK(found.time_index.fault == NULL);
        offset_index[bit / 8] ^= (uint8_t)(1 << (bit % 8));
    }
    for (size_t bit = 0; bit < 96 * entries; bit++) {
        time_index[bit / 8] ^= (uint8_t)(1 << (bit % 8));
        found = verify_indexes(8 * entries, 12 * entries);
        CHECK(found.time_index.fault != NULL);
        CHECK_INT(found.time_index.fault_entry, bit / 96);
        time_index[bit / 8] ^= (uint8_t)(1 << (bit % 8));
    }
}

int main(void) {
    make_log();
    RUN(test_a_sound_file_in_steps_of_any_size);
    RUN(test_every_flipped_byte_is_damage_or_another_digest);
    RUN(test_damage_can_be_passed_over);
    RUN(test_a_failed_read_is_no_damage);
    RUN(test_every_flipped_bit_of_an_index_is_found);
    return check_result();
}
