#include "logstore/bytes.h"
#include "made_log.h"

/* ---- sound files and torn tails ---------------------------------------------------------------- */

static void test_a_sound_file_is_taken_whole(void) {
    ls_recovery_report report = recover_bytes(NULL, 0);
    CHECK_INT(report.tail, LS_TAIL_NONE);
    CHECK_INT(report.next_offset, BASE);
    report = recover_bytes(log_bytes, positions[COUNT]);
    CHECK_INT(report.tail, LS_TAIL_NONE);
    CHECK_INT(report.valid_bytes, positions[COUNT]);
    CHECK_INT(report.next_offset, next_offsets[COUNT]);
    CHECK_INT(report.batches_count, COUNT);
    CHECK_INT(report.next_valid_position, -1);
}

static void test_every_cut_of_the_file_is_a_torn_tail(void) {
    int whole = 0;
    for (int64_t size = 0; size <= positions[5]; size++) {
        while (positions[whole + 1] <= size) whole++;
        ls_recovery_report report = recover_bytes(log_bytes, size);
        CHECK_INT(report.valid_bytes, positions[whole]);
        CHECK_INT(report.next_offset, next_offsets[whole]);
        CHECK_INT(report.tail, size == positions[whole] ? LS_TAIL_NONE : LS_TAIL_TORN);
        CHECK_INT(report.next_valid_position, -1);

        faulty_file file;
        ls_fault fault;
        faulty_file_init(&file, log_bytes, (size_t)size);
        ls_segment *segment = open_segment(&file);
        report = recover(segment, 0, BASE, 0); /* the structure tells as much */
        CHECK_INT(report.valid_bytes, positions[whole]);
        uint8_t batch[70];
        ls_batch_header header = make_batch(&(made_batch){report.next_offset, 1, 0, 9, sizeof batch}, batch);
        if (report.tail != LS_TAIL_NONE) { /* what is appended must not have the rest of the tail behind it */
            CHECK_INT(ls_segment_append(segment, batch, sizeof batch, &header, &fault), LS_INVALID_ARGUMENT);
            CHECK_INT(ls_segment_truncate_bytes(segment, report.valid_bytes, report.next_offset, &fault),
                      LS_OK);
        }
        CHECK_INT(ls_segment_append(segment, batch, sizeof batch, &header, &fault), LS_OK);
        CHECK_INT(file.size, positions[whole] + (int64_t)sizeof batch);
        ls_segment_free(segment);
        faulty_file_free(&file);
    }
}

/* The length came to the disk before the data: zeros to the end, or in one sector before sound batches. */
static void test_zeros_where_data_should_be_are_torn(void) {
    static uint8_t bytes[LOG_BYTES_MAX];
    for (int64_t from = positions[3]; from < positions[5]; from += 13) {
        memset(bytes, 0, sizeof bytes);
        memcpy(bytes, log_bytes, (size_t)from);
        ls_recovery_report report = recover_bytes(bytes, positions[5] + 3000);
        int sound = from < positions[4] ? 3 : 4; /* a batch may end in zeros of its own, but ours do not */
        CHECK_INT(report.valid_bytes, positions[sound]);
        CHECK_INT(report.tail, LS_TAIL_TORN);
        CHECK_INT(report.next_valid_position, -1);
    }
    memcpy(bytes, log_bytes, sizeof bytes);
    int64_t sector = (positions[20] / 512 + 2) * 512; /* inside of the large batch */
    REQUIRE(sector + 512 < positions[21]);
    memset(bytes + sector, 0, 512);
    ls_recovery_report report = recover_bytes(bytes, positions[COUNT]);
    CHECK_INT(report.valid_bytes, positions[20]);
    CHECK_INT(report.tail, LS_TAIL_TORN);
    CHECK_INT(report.next_valid_position, positions[21]);
    bytes[sector + 100] = 1; /* a sector that was written */
    report = recover_bytes(bytes, positions[COUNT]);
    CHECK_INT(report.tail, LS_TAIL_CORRUPT);
    CHECK_INT(report.next_valid_position, positions[21]);
}

static void test_garbage_behind_the_end_is_torn(void) {
    static uint8_t bytes[LOG_BYTES_MAX];
    memcpy(bytes, log_bytes, sizeof bytes);
    uint32_t random = 99;
    for (int64_t i = positions[5]; i < LOG_BYTES_MAX; i++) {
        random = random * 1664525u + 1013904223u;
        bytes[i] = (uint8_t)(random >> 24);
    }
    for (int64_t size = positions[5] + 1; size < positions[5] + 4000; size += 97) {
        ls_recovery_report report = recover_bytes(bytes, size);
        CHECK_INT(report.valid_bytes, positions[5]);
        CHECK_INT(report.tail, LS_TAIL_TORN);
    }
}

/* The base offset is outside of the CRC: the batch is sound but for a sector that did not reach the disk. */
static void test_a_base_offset_torn_at_a_sector_is_torn(void) {
    static uint8_t bytes[4096];
    for (int before = 1; before <= 16; before++) { /* bytes of the second batch in the first one's last sector */
        memset(bytes, 0, sizeof bytes);
        size_t size = (size_t)(512 - before);
        make_batch(&(made_batch){BASE, 1, 0, 1, size}, bytes);
        make_batch(&(made_batch){BASE + 1, 1, 0, 1, 300}, bytes + size);
        ls_store_i64(bytes + size, BASE + 0x1); /* 1001: its two low bytes are not zero */
        memset(bytes + size, 0, (size_t)before);
        ls_recovery_report report = recover_bytes(bytes, (int64_t)size + 300);
        if (before < 7) { /* zeros that belong there */
            CHECK_INT(report.tail, LS_TAIL_NONE);
            continue;
        }
        CHECK_INT(report.tail, LS_TAIL_TORN);
        CHECK_INT(report.valid_bytes, size);
        bytes[size + 7] = (uint8_t)(before < 8 ? BASE : 1); /* not what a lost sector leaves */
        if (before > 10) continue; /* its length was lost as well */
        CHECK_INT(recover_bytes(bytes, (int64_t)size + 300).tail, LS_TAIL_CORRUPT);
    }
}

/* Also where the offset that is missing is 0 itself. */
static void test_a_first_sector_that_was_never_written_is_torn(void) {
    static uint8_t bytes[2048];
    ls_segment_options options = defaults;
    options.base_offset = 0;
    make_batch(&(made_batch){0, 1, 0, 1, 700}, bytes);
    make_batch(&(made_batch){1, 1, 0, 1, 700}, bytes + 700);
    memset(bytes, 0, 512);
    faulty_file file;
    ls_fault fault;
    ls_segment *segment = NULL;
    faulty_file_init(&file, bytes, 1400);
    REQUIRE_INT(ls_segment_create(&file.file, &options, NULL, &segment, &fault), LS_OK);
    ls_recovery_report report = recover(segment, 0, 0, 1);
    CHECK_INT(report.tail, LS_TAIL_TORN);
    CHECK_INT(report.valid_bytes, 0);
    CHECK_INT(report.next_valid_position, 700);
    ls_segment_free(segment);
    faulty_file_free(&file);
}

/* Zeros that a sound batch holds anyway are no sign of a sector that was never written. */
static void test_zeros_that_belong_there_do_not_excuse_damage(void) {
    static uint8_t bytes[4096];
    for (int before = 1; before <= 8; before++) {
        size_t size = (size_t)(512 - before);
        make_batch(&(made_batch){BASE, 1, 0, 1, size}, bytes);
        make_batch(&(made_batch){BASE + 1, 1, 0, 1, 513 + (size_t)before}, bytes + size); /* one byte in the third */
        int64_t third = (int64_t)size + 513 + before;
        make_batch(&(made_batch){BASE + 2, 1, 0, 1, 200}, bytes + third);
        bytes[size + 300] ^= 1;
        ls_recovery_report report = recover_bytes(bytes, third + 200);
        CHECK_INT(report.tail, LS_TAIL_CORRUPT);
        CHECK_INT(report.next_valid_position, third);
    }
}

/* ---- corruption ------------------------------------------------------------------------------ */

static void test_every_flipped_bit_in_the_middle_is_found(void) {
    static uint8_t bytes[LOG_BYTES_MAX];
    memcpy(bytes, log_bytes, sizeof bytes);
    enum { DAMAGED = 12 };
    int64_t start = positions[DAMAGED];
    for (int64_t at = start; at < positions[DAMAGED + 1]; at++) {
        for (int bit = 0; bit < 8; bit++) {
            bytes[at] ^= (uint8_t)(1 << bit);
            ls_recovery_report report = recover_bytes(bytes, positions[COUNT]);
            bytes[at] ^= (uint8_t)(1 << bit);
            int64_t field = at - start;
            if (field < LS_BATCH_LENGTH_AT) {
                /* A base offset may have gone up and still fit: then the next batch is out of order, or none
                 * is. */
                bool is_found =
                    report.tail == LS_TAIL_CORRUPT && report.valid_bytes <= positions[DAMAGED + 1];
                CHECK(is_found || (report.tail == LS_TAIL_NONE && field == 7));
            } else if (field < LS_BATCH_LEADER_EPOCH_AT) {
                /* A length past the end of the file looks like a torn tail; that sound batches follow is
                 * said. */
                CHECK_INT(report.valid_bytes, start);
                CHECK(report.tail != LS_TAIL_NONE);
                CHECK_INT(report.next_valid_position, positions[DAMAGED + 1]);
            } else if (field < LS_BATCH_MAGIC_AT) {
                /* An epoch that went up is found by the first batch of a lower one; the sign bit makes it
                 * unknown. */
                bool is_hidden = field == LS_BATCH_LEADER_EPOCH_AT && bit == 7;
                bool is_next = report.tail == LS_TAIL_CORRUPT && report.valid_bytes <= positions[DAMAGED + 1];
                CHECK(is_next || is_hidden);
            } else {
                CHECK_INT(report.valid_bytes, start);
                CHECK_INT(report.tail, LS_TAIL_CORRUPT);
                CHECK_INT(report.next_valid_position, positions[DAMAGED + 1]);
                CHECK_INT(report.next_offset, next_offsets[DAMAGED]);
                CHECK(report.tail_fault.position >= start && report.tail_fault.position < start + 61);
            }
        }
    }
}

/* Without gaps a base offset is known, though no CRC covers it. */
static void test_a_raised_base_offset_is_found_where_no_offsets_are_missing(void) {
    static uint8_t bytes[1024];
    ls_segment_options options = defaults;
    options.is_contiguous = 1;
    for (int64_t raised = 0; raised < 3; raised++) {
        int64_t position = 0;
        for (int64_t i = 0; i < 3; i++, position += 100)
            make_batch(&(made_batch){BASE + i + (i == raised ? 4 : 0), 1, 0, 1, 100}, bytes + position);
        for (int allowed = 0; allowed < 2; allowed++) {
            faulty_file file;
            ls_fault fault;
            ls_segment *segment = NULL;
            ls_batch_location found;
            faulty_file_init(&file, bytes, 300);
            REQUIRE_INT(ls_segment_create(&file.file, &options, NULL, &segment, &fault), LS_OK);
            if (allowed) ls_segment_allow_gaps(segment);
            ls_recovery_report report = recover(segment, 0, BASE, 1);
            CHECK_INT(report.valid_bytes, allowed ? 100 * (raised + 1) : 100 * raised);
            CHECK_INT(report.tail, allowed && raised == 2 ? LS_TAIL_NONE : LS_TAIL_CORRUPT);
            ls_segment_free(segment);
            faulty_file_free(&file);
            faulty_file_init(&file, bytes, 300);
            ls_segment_state state = {.size_bytes = 300, .next_offset = BASE + 3};
            REQUIRE_INT(ls_segment_create(&file.file, &options, &state, &segment, &fault), LS_OK);
            if (allowed) ls_segment_allow_gaps(segment);
            ls_status status = ls_segment_locate(segment, BASE + raised + 4, &found, &fault);
            CHECK_INT(status, allowed ? LS_OK : LS_CORRUPT);
            ls_segment_free(segment);
            faulty_file_free(&file);
        }
    }
}

/* Entries as Kafka wrote them before 0.11, made with Python's zlib. */
static void test_an_entry_of_an_old_format_is_no_unfinished_write(void) {
    static uint8_t bytes[LOG_BYTES_MAX];
    /* Offset, length, CRC, magic, attributes, a timestamp in magic 1, key length -1, value length 5, "hello". */
    static const uint8_t old[2][39] = {
        {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 19, 135, 167, 122, 178, 0, 0, 255, 255, 255, 255, 0, 0, 0, 5, 104,
         101, 108, 108, 111},
        {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 27, 142, 227, 11, 186, 1, 0, 0, 0, 1, 139, 207, 229, 104, 0, 255,
         255, 255, 255, 0, 0, 0, 5, 104, 101, 108, 108, 111}
    };
    static const int64_t sizes[2] = {31, 39};
    for (int magic = 0; magic < 2; magic++) {
        memcpy(bytes, log_bytes, (size_t)positions[9]);
        uint8_t *entry = bytes + positions[9];
        memcpy(entry, old[magic], (size_t)sizes[magic]);
        int64_t end = positions[9] + sizes[magic];
        ls_recovery_report report = recover_bytes(bytes, end);
        CHECK_INT(report.valid_bytes, positions[9]);
        CHECK_INT(report.tail_fault.status, LS_UNSUPPORTED);
        CHECK_INT(report.tail, LS_TAIL_CORRUPT);
        CHECK_INT(recover_bytes(bytes, end - 1).tail, LS_TAIL_TORN);
        for (int64_t at = 12; at < sizes[magic]; at++) {
            entry[at] ^= 4;
            CHECK_INT(recover_bytes(bytes, end).tail, LS_TAIL_TORN);
            entry[at] ^= 4;
        }
    }
}

static void test_what_no_unfinished_write_leaves_is_corrupt(void) {
    static uint8_t bytes[LOG_BYTES_MAX];
    memcpy(bytes, log_bytes, sizeof bytes);
    uint8_t *last = bytes + positions[9];

    /* A batch with all its bytes, at the wrong place. */
    ls_store_i64(last, next_offsets[9] - 1);
    ls_recovery_report report = recover_bytes(bytes, positions[10]);
    CHECK_INT(report.valid_bytes, positions[9]);
    CHECK_INT(report.tail, LS_TAIL_CORRUPT);
    CHECK_INT(report.tail_fault.status, LS_CORRUPT);
    CHECK_INT(report.next_valid_position, -1);
    ls_store_i64(last, BASE + (int64_t)INT32_MAX + 1);
    CHECK_INT(recover_bytes(bytes, positions[10]).tail, LS_TAIL_CORRUPT);
    memcpy(bytes, log_bytes, sizeof bytes);

    /* Another magic in front of what has its CRC; the same, cut off or with garbage behind, is an unfinished write. */
    for (int magic = 0; magic < 256; magic++) {
        if (magic == LS_BATCH_MAGIC) continue;
        last[LS_BATCH_MAGIC_AT] = (uint8_t)magic;
        report = recover_bytes(bytes, positions[10]);
        CHECK_INT(report.valid_bytes, positions[9]);
        CHECK_INT(report.tail_fault.status, LS_UNSUPPORTED);
        CHECK_INT(report.tail, LS_TAIL_CORRUPT);
        CHECK_INT(recover_bytes(bytes, positions[10] - 1).tail, LS_TAIL_TORN);
        last[70] ^= 1;
        CHECK_INT(recover_bytes(bytes, positions[10]).tail, LS_TAIL_TORN);
        last[70] ^= 1;
        CHECK_INT(recover_bytes(bytes, positions[COUNT]).tail, LS_TAIL_CORRUPT);
        last[LS_BATCH_MAGIC_AT] = LS_BATCH_MAGIC;
    }

    /* A wrong CRC at the very end is an unfinished write, with sound batches behind it damage. */
    last[70] ^= 1;
    CHECK_INT(recover_bytes(bytes, positions[10]).tail, LS_TAIL_TORN);
    CHECK_INT(recover_bytes(bytes, positions[11]).tail, LS_TAIL_CORRUPT);
    CHECK_INT(recover_bytes(bytes, positions[11] - 1).tail, LS_TAIL_TORN);

    /* A batch that stands inside of the last one, as its payload, is not behind it. */
    make_batch(&(made_batch){next_offsets[9] + 9, 1, 0, 5, 70}, last + 65);
    report = recover_bytes(bytes, positions[10]);
    CHECK_INT(report.tail, LS_TAIL_TORN);
    CHECK_INT(report.next_valid_position, positions[9] + 65);
}

static void test_a_malformed_control_batch_is_corrupt(void) {
    uint8_t batch[80];
    made_batch made = {BASE, 1, 0, 0, sizeof batch};
    ls_batch_header header = make_batch(&made, batch);
    header.attributes = LS_ATTRIBUTE_CONTROL;
    ls_batch_header_write(&header, batch);
    header.crc = ls_batch_crc(batch, sizeof batch);
    ls_batch_header_write(&header, batch);
    ls_recovery_report report = recover_bytes(batch, sizeof batch);
    CHECK_INT(report.valid_bytes, 0);
    CHECK_INT(report.tail, LS_TAIL_CORRUPT);
}

/* Batches larger than the buffer are checked piece by piece; a length that is a lie costs no memory. */
static void test_memory_does_not_follow_declared_lengths(void) {
    enum { LARGE = 3500000, TOTAL = 500 + LARGE + 300 };
    uint8_t *bytes = malloc(TOTAL);
    REQUIRE(bytes != NULL);
    make_batch(&(made_batch){BASE, 1, 1, 0, 500}, bytes);
    make_batch(&(made_batch){BASE + 1, 9, 3, 0, LARGE}, bytes + 500);
    make_batch(&(made_batch){BASE + 10, 1, 2, 0, 300}, bytes + 500 + LARGE);
    faulty_file file;
    faulty_file_init(&file, bytes, TOTAL);
    ls_segment *segment = open_segment(&file);
    ls_recovery_report report = recover(segment, 0, BASE, 1);
    CHECK_INT(report.tail, LS_TAIL_NONE);
    CHECK_INT(report.batches_count, 3);
    CHECK(file.largest_read <= 1 << 20);
    CHECK(file.bytes_read < TOTAL + 1000); /* read once */
    ls_segment_free(segment);
    faulty_file_reopen(&file);
    segment = open_segment(&file);
    CHECK_INT(recover(segment, 0, BASE, 0).batches_count, 3);
    ls_segment_free(segment);
    faulty_file_free(&file);

    bytes[500 + LARGE - 1] ^= 4;
    report = recover_bytes(bytes, TOTAL);
    CHECK_INT(report.valid_bytes, 500);
    CHECK_INT(report.tail, LS_TAIL_CORRUPT);
    CHECK_INT(report.next_valid_position, 500 + LARGE);
    ls_store_i32(bytes + 500 + LS_BATCH_LENGTH_AT, INT32_MAX);
    report = recover_bytes(bytes, TOTAL);
    CHECK_INT(report.valid_bytes, 500);
    CHECK_INT(report.tail, LS_TAIL_TORN);

    /* Nothing but plausible headers: the search gives up before the time is gone, and cuts nothing. */
    for (size_t at = 0; at + LS_BATCH_HEADER_BYTES < TOTAL; at += LS_BATCH_HEADER_BYTES) {
        make_batch(&(made_batch){BASE, 1, 1, 0, LS_BATCH_HEADER_BYTES}, bytes + at);
        ls_store_i32(bytes + at + LS_BATCH_LENGTH_AT, at == 0 ? 100 : (int32_t)(TOTAL - at - 12));
    }
    report = recover_bytes(bytes, TOTAL);
    CHECK_INT(report.tail, LS_TAIL_CORRUPT);
    CHECK_INT(report.next_valid_position, -1);
    free(bytes);
}

static void test_structure_alone_is_checked_when_not_deep(void) {
    static uint8_t bytes[LOG_BYTES_MAX];
    memcpy(bytes, log_bytes, sizeof bytes);
    bytes[positions[7] + 80] ^= 1;
    faulty_file file;
    faulty_file_init(&file, bytes, (size_t)positions[COUNT]);
    ls_segment *segment = open_segment(&file);
    CHECK_INT(recover(segment, 0, BASE, 0).tail, LS_TAIL_NONE);
    CHECK_INT(recover(segment, 0, BASE, 1).tail, LS_TAIL_CORRUPT);
    file.bytes[positions[8] + LS_BATCH_LAST_OFFSET_DELTA_AT] = 0xff;
    ls_recovery_report report = recover(segment, 0, BASE, 0);
    CHECK_INT(report.valid_bytes, positions[8]);
    CHECK_INT(report.tail, LS_TAIL_CORRUPT);
    ls_segment_free(segment);
    faulty_file_free(&file);
}

int main(void) {
    make_log();
    RUN(test_a_sound_file_is_taken_whole);
    RUN(test_every_cut_of_the_file_is_a_torn_tail);
    RUN(test_zeros_where_data_should_be_are_torn);
    RUN(test_garbage_behind_the_end_is_torn);
    RUN(test_a_base_offset_torn_at_a_sector_is_torn);
    RUN(test_a_first_sector_that_was_never_written_is_torn);
    RUN(test_zeros_that_belong_there_do_not_excuse_damage);
    RUN(test_every_flipped_bit_in_the_middle_is_found);
    RUN(test_a_raised_base_offset_is_found_where_no_offsets_are_missing);
    RUN(test_an_entry_of_an_old_format_is_no_unfinished_write);
    RUN(test_what_no_unfinished_write_leaves_is_corrupt);
    RUN(test_a_malformed_control_batch_is_corrupt);
    RUN(test_memory_does_not_follow_declared_lengths);
    RUN(test_structure_alone_is_checked_when_not_deep);
    return check_result();
}
