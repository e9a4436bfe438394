#include "scratch_folder.h"

#if defined(__linux__)
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#endif

#include "logstore/bytes.h"
#include "logstore/crc32c.h"
#include "logstore/file.h"
#include "logstore/open_batch.h"

static const uint8_t topic_id[LS_OPEN_BATCH_TOPIC_ID_BYTES] = "AbCdEfGhIjKlMnOpQrStUv";
static const uint8_t boot_id[LS_OPEN_BATCH_BOOT_ID_BYTES] = "0123456789abcde";
enum { BATCH_BYTES = 10000, CONTENT_BYTES = LS_OPEN_BATCH_RECORDS_AT + 3 * 4096 };

static uint8_t content[CONTENT_BYTES + 1];

/* The file's bytes, as another process sees them. */
static size_t content_of_the_file(void) {
    ls_file *file;
    ls_fault fault;
    size_t got = 0;
    REQUIRE_INT(ls_file_open(path, LS_FILE_READ, &file, &fault), LS_OK);
    REQUIRE_INT(ls_file_read(file, 0, content, sizeof content, &got, &fault), LS_OK);
    ls_file_close(file);
    return got;
}

static ls_status read_content(size_t size, ls_open_batch_content *found) {
    ls_fault fault;
    return ls_open_batch_read(content, size, topic_id, boot_id, found, &fault);
}

/* False, loudly, where the system has no such maps. */
static bool create(ls_open_batch *open_batch) {
    ls_fault fault;
    ls_status status = ls_open_batch_create(path, topic_id, boot_id, BATCH_BYTES, open_batch, &fault);
    if (status == LS_UNSUPPORTED) {
        printf("NOT TESTED: no maps of files here\n");
        return false;
    }
    REQUIRE_INT(status, LS_OK);
    return true;
}

static void put_record(ls_batch_builder *builder, int number) {
    char text[300];
    ls_fault fault;
    int size = snprintf(text, sizeof text, "%0*d", 1 + number * 37 % 250, number);
    ls_span value = {(const uint8_t *)text, size};
    REQUIRE_INT(ls_batch_builder_append(builder, 1000 + number, (ls_span){NULL, -1}, value, NULL, 0, &fault), LS_OK);
}

static void lend(ls_batch_builder *builder, const ls_open_batch *open_batch) {
    ls_batch_builder_lend(builder, ls_open_batch_buffer(open_batch), ls_open_batch_capacity_bytes(open_batch));
}

static void test_each_commit_is_in_the_file_at_once(void) {
    make_folder();
    ls_open_batch open_batch = {0};
    if (create(&open_batch)) {
        ls_batch_builder builder = {0};
        ls_open_batch_content found;
        lend(&builder, &open_batch);
        CHECK_INT(content_of_the_file(), CONTENT_BYTES);
        CHECK_INT(read_content(CONTENT_BYTES, &found), LS_END);
        for (int batch = 0; batch < 3; batch++) {
            for (int i = 0; i < 20; i++) {
                put_record(&builder, i);
                if (i == 0) ls_open_batch_begin(&open_batch, 100 + 20 * batch, builder.base_timestamp);
                if (i % 3 == 2) continue; /* several records may be acknowledged at once */
                ls_open_batch_commit(&open_batch, builder.size_bytes);
                REQUIRE_INT(read_content(content_of_the_file(), &found), LS_OK);
                CHECK_INT(found.base_offset, 100 + 20 * batch);
                CHECK_INT(found.base_timestamp, 1000);
                CHECK_INT(found.records_bytes, builder.size_bytes - LS_BATCH_HEADER_BYTES);
                CHECK_BYTES(found.records, builder.buffer + LS_BATCH_HEADER_BYTES, found.records_bytes);
                ls_batch_builder again = {0};
                ls_fault fault;
                REQUIRE_INT(ls_batch_builder_init(&again, 0, &fault), LS_OK);
                CHECK_INT(ls_batch_builder_restore(&again, found.base_timestamp, found.records,
                                                   found.records_bytes, &fault), LS_OK);
                CHECK_INT(again.records_count, i + 1);
                CHECK_INT(again.max_timestamp, 1000 + i);
                ls_batch_builder_free(&again);
            }
            ls_open_batch_clear(&open_batch);
            ls_batch_builder_reset(&builder);
            CHECK_INT(read_content(content_of_the_file(), &found), LS_END);
        }
        ls_batch_builder_free(&builder);
        ls_open_batch_free(&open_batch);
        ls_open_batch_free(&open_batch);
    }
    remove_folder();
}

/* What a batch before it has left is never taken for its own: whatever of the new block is there already. */
static void test_records_of_an_earlier_batch_do_not_come_back(void) {
    make_folder();
    ls_open_batch open_batch = {0};
    if (create(&open_batch)) {
        ls_batch_builder builder = {0};
        ls_open_batch_content found;
        lend(&builder, &open_batch);
        put_record(&builder, 1);
        ls_open_batch_begin(&open_batch, 7, builder.base_timestamp);
        ls_open_batch_commit(&open_batch, builder.size_bytes);
        content_of_the_file();
        uint8_t commit[8];
        memcpy(commit, content + LS_OPEN_BATCH_COMMIT_AT, 8);
        ls_open_batch_begin(&open_batch, 8, builder.base_timestamp);
        content_of_the_file();
        CHECK_INT(read_content(CONTENT_BYTES, &found), LS_END);
        memcpy(content + LS_OPEN_BATCH_COMMIT_AT, commit, 8);
        CHECK_INT(read_content(CONTENT_BYTES, &found), LS_CORRUPT);
        ls_batch_builder_free(&builder);
        ls_open_batch_free(&open_batch);
    }
    remove_folder();
}

static void test_a_batch_that_outgrows_its_file_moves(void) {
    make_folder();
    ls_open_batch open_batch = {0};
    if (create(&open_batch)) {
        static const uint8_t large[3 * BATCH_BYTES];
        ls_batch_builder builder = {0};
        ls_open_batch_content found;
        ls_fault fault;
        lend(&builder, &open_batch);
        put_record(&builder, 5);
        size_t size_bytes = builder.size_bytes;
        ls_open_batch_begin(&open_batch, 7, builder.base_timestamp);
        ls_open_batch_commit(&open_batch, size_bytes);
        ls_span value = {large, (int32_t)sizeof large};
        REQUIRE_INT(ls_batch_builder_append(&builder, 1, value, value, NULL, 0, &fault), LS_OK);
        CHECK(!builder.is_lent && builder.buffer != ls_open_batch_buffer(&open_batch));
        CHECK_INT(builder.records_count, 2);
        REQUIRE_INT(read_content(content_of_the_file(), &found), LS_OK);
        CHECK_INT(found.records_bytes, size_bytes - LS_BATCH_HEADER_BYTES);
        CHECK_BYTES(found.records, builder.buffer + LS_BATCH_HEADER_BYTES, found.records_bytes);
        lend(&builder, &open_batch);
        CHECK_INT(builder.records_count, 0);
        ls_batch_builder_free(&builder);
        ls_open_batch_free(&open_batch);
    }
    remove_folder();
}

static void test_damage_is_never_taken_for_records(void) {
    make_folder();
    ls_open_batch open_batch = {0};
    if (create(&open_batch)) {
        ls_batch_builder builder = {0};
        ls_open_batch_content found;
        lend(&builder, &open_batch);
        for (int i = 0; i < 12; i++) put_record(&builder, i);
        ls_open_batch_begin(&open_batch, 7, builder.base_timestamp);
        ls_open_batch_commit(&open_batch, builder.size_bytes);
        content_of_the_file();
        REQUIRE_INT(read_content(CONTENT_BYTES, &found), LS_OK);
        size_t end = LS_OPEN_BATCH_RECORDS_AT + found.records_bytes;
        for (size_t at = 0; at < CONTENT_BYTES; at++) {
            bool matters = at < LS_OPEN_BATCH_CRC_AT + 4 || (at >= LS_OPEN_BATCH_RECORDS_AT && at < end) ||
                           (at >= LS_OPEN_BATCH_COMMIT_AT && at < LS_OPEN_BATCH_COMMIT_AT + 8);
            for (unsigned bit = 0; bit < 8; bit++) {
                content[at] ^= (uint8_t)(1u << bit);
                ls_status status = read_content(CONTENT_BYTES, &found);
                CHECK_CASE(matters ? status == LS_CORRUPT || status == LS_TORN : status == LS_OK, "flipped byte");
                content[at] ^= (uint8_t)(1u << bit);
            }
        }
        for (size_t size = 0; size < end; size += size < 200 ? 1 : 97) {
            ls_status status = read_content(size, &found);
            CHECK_CASE(status == (size < LS_OPEN_BATCH_COMMIT_AT + 8 ? LS_END : LS_TORN), "cut off");
        }
        uint8_t other[LS_OPEN_BATCH_TOPIC_ID_BYTES] = "another";
        ls_fault fault;
        CHECK_INT(ls_open_batch_read(content, CONTENT_BYTES, other, boot_id, &found, &fault), LS_END);
        CHECK_INT(ls_open_batch_read(content, CONTENT_BYTES, topic_id, other, &found, &fault), LS_END);
        ls_batch_builder_free(&builder);
        ls_open_batch_free(&open_batch);
    }
    remove_folder();
}

/* After a power cut each sector may hold anything, but for the name of a run that was still to come. */
static void test_whatever_another_run_left_says_nothing(void) {
    make_folder();
    ls_open_batch open_batch = {0};
    if (create(&open_batch)) {
        static const uint8_t next_run[LS_OPEN_BATCH_BOOT_ID_BYTES] = "fedcba987654321";
        enum { SECTOR = 512 };
        ls_batch_builder builder = {0};
        ls_open_batch_content found;
        ls_fault fault;
        lend(&builder, &open_batch);
        for (int i = 0; i < 12; i++) put_record(&builder, i);
        ls_open_batch_begin(&open_batch, 7, builder.base_timestamp);
        ls_open_batch_commit(&open_batch, builder.size_bytes);
        content_of_the_file();
        REQUIRE_INT(read_content(CONTENT_BYTES, &found), LS_OK);
        uint8_t kept[SECTOR];
        for (size_t at = 0; at < CONTENT_BYTES; at += SECTOR) {
            memcpy(kept, content + at, SECTOR);
            for (int garbage = 0; garbage < 3; garbage++) {
                for (size_t i = 0; i < SECTOR; i++)
                    content[at + i] = (uint8_t)(garbage == 0 ? 0 : garbage == 1 ? 0xff : i * 167 + at / SECTOR);
                CHECK_INT(ls_open_batch_read(content, CONTENT_BYTES, topic_id, next_run, &found, &fault), LS_END);
            }
            memcpy(content + at, kept, SECTOR);
        }
        for (size_t at = 0; at < LS_OPEN_BATCH_COMMIT_AT + 8; at++) {
            for (unsigned bit = 0; bit < 8; bit++) {
                content[at] ^= (uint8_t)(1u << bit);
                CHECK_INT(ls_open_batch_read(content, CONTENT_BYTES, topic_id, next_run, &found, &fault), LS_END);
                content[at] ^= (uint8_t)(1u << bit);
            }
        }
        /* Of this run, also where one of its two names is lost. */
        memset(content + LS_OPEN_BATCH_BOOT_ID_AT, 0, LS_OPEN_BATCH_BOOT_ID_BYTES);
        CHECK_INT(read_content(CONTENT_BYTES, &found), LS_CORRUPT);
        memset(content + LS_OPEN_BATCH_BOOT_ID_AGAIN_AT, 0, LS_OPEN_BATCH_BOOT_ID_BYTES);
        CHECK_INT(read_content(CONTENT_BYTES, &found), LS_END);
        ls_batch_builder_free(&builder);
        ls_open_batch_free(&open_batch);
    }
    remove_folder();
}

static void test_what_are_no_records_is_not_restored(void) {
    ls_batch_builder builder = {0};
    ls_fault fault;
    REQUIRE_INT(ls_batch_builder_init(&builder, 0, &fault), LS_OK);
    put_record(&builder, 3);
    put_record(&builder, 4);
    uint8_t records[600];
    size_t size = builder.size_bytes - LS_BATCH_HEADER_BYTES;
    REQUIRE(size < sizeof records);
    memcpy(records, builder.buffer + LS_BATCH_HEADER_BYTES, size);
    for (size_t cut = 0; cut < size; cut++) {
        ls_batch_builder_reset(&builder);
        ls_status status = ls_batch_builder_restore(&builder, 1003, records, cut, &fault);
        CHECK(status == LS_CORRUPT || (status == LS_OK && builder.records_count == 1));
    }
    ls_batch_builder_reset(&builder);
    CHECK_INT(ls_batch_builder_restore(&builder, 1003, records, size, &fault), LS_OK);
    CHECK_INT(builder.records_count, 2);
    put_record(&builder, 5); /* and it goes on */
    CHECK_INT(builder.records_count, 3);
    ls_batch_builder_free(&builder);
}

#if defined(__linux__)
/* A process is killed while it stores; what it had acknowledged is in the file, and nothing that it had not begun. */
static void test_a_killed_process_leaves_what_it_acknowledged(void) {
    make_folder();
    ls_open_batch open_batch = {0};
    if (create(&open_batch)) {
        int ends[2];
        REQUIRE(pipe(ends) == 0);
        for (int round = 0; round < 20; round++) {
            pid_t child = fork();
            REQUIRE(child >= 0);
            if (child == 0) {
                ls_batch_builder builder = {0};
                for (int64_t base_offset = 1;; base_offset += 30) {
                    lend(&builder, &open_batch);
                    for (int i = 0; i < 30; i++) {
                        put_record(&builder, i);
                        if (i == 0) ls_open_batch_begin(&open_batch, base_offset, builder.base_timestamp);
                        ls_open_batch_commit(&open_batch, builder.size_bytes);
                        int64_t acknowledged = base_offset + i;
                        if (write(ends[1], &acknowledged, sizeof acknowledged) != sizeof acknowledged) _exit(1);
                    }
                    ls_open_batch_clear(&open_batch);
                }
            }
            int64_t acknowledged = 0;
            for (int i = 0; i < 200 + 37 * round; i++) {
                REQUIRE(read(ends[0], &acknowledged, sizeof acknowledged) == sizeof acknowledged);
            }
            REQUIRE(kill(child, SIGKILL) == 0);
            REQUIRE(waitpid(child, NULL, 0) == child);
            /* All it had said before it died. */
            int64_t said;
            REQUIRE(fcntl(ends[0], F_SETFL, O_NONBLOCK) == 0);
            while (read(ends[0], &said, sizeof said) == sizeof said) acknowledged = said;
            REQUIRE(fcntl(ends[0], F_SETFL, 0) == 0);
            ls_open_batch_content found;
            ls_status status = read_content(content_of_the_file(), &found);
            if (status == LS_END) { /* between two batches: the last one was full */
                CHECK_INT(acknowledged % 30, 0);
                continue;
            }
            REQUIRE_INT(status, LS_OK);
            ls_batch_builder again = {0};
            ls_fault fault;
            REQUIRE_INT(ls_batch_builder_init(&again, 0, &fault), LS_OK);
            REQUIRE_INT(ls_batch_builder_restore(&again, found.base_timestamp, found.records, found.records_bytes,
                                                 &fault), LS_OK);
            int64_t last = found.base_offset + again.records_count - 1;
            CHECK(last == acknowledged || last == acknowledged + 1);
            ls_batch_builder_free(&again);
        }
        close(ends[0]);
        close(ends[1]);
        ls_open_batch_free(&open_batch);
    }
    remove_folder();
}
#endif

int main(void) {
    RUN(test_each_commit_is_in_the_file_at_once);
    RUN(test_records_of_an_earlier_batch_do_not_come_back);
    RUN(test_a_batch_that_outgrows_its_file_moves);
    RUN(test_damage_is_never_taken_for_records);
    RUN(test_whatever_another_run_left_says_nothing);
    RUN(test_what_are_no_records_is_not_restored);
#if defined(__linux__)
    RUN(test_a_killed_process_leaves_what_it_acknowledged);
#endif
    return check_result();
}
