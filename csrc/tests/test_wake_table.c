/* The table by which readers in other processes are woken: what is signalled is never missed, whatever the file holds. */
#include "scratch_folder.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include "logstore/wake_table.h"

static const int64_t LONG_NS = 20000000000, SHORT_NS = 1000000, LOOK_OUT_NS = 60000;

static void write_file(const uint8_t *bytes, size_t size) {
    FILE *file = fopen(path, "wb");
    REQUIRE(file != NULL && fwrite(bytes, 1, size, file) == size && fclose(file) == 0);
}

/* False where there can't be any here. */
static bool make_table(ls_wake_table *table) {
    uint8_t bytes[LS_WAKE_TABLE_BYTES];
    ls_fault fault;
    make_folder();
    ls_wake_table_format(bytes);
    write_file(bytes, sizeof bytes);
    ls_status status = ls_wake_table_open(path, table, &fault);
    if (status == LS_OK) return true;
    CHECK_INT(status, LS_UNSUPPORTED);
    remove_folder();
    return false;
}

static void drop_table(ls_wake_table *table) {
    ls_wake_table_close(table);
    ls_wake_table_close(table);
    CHECK_INT(ls_wake_is_awaited(table, 5), 0);
    remove_folder();
}

static ls_wake_reader opened(void) {
    ls_wake_reader reader = {0};
    ls_fault fault;
    REQUIRE_INT(ls_wake_reader_open(path, &reader, &fault), LS_OK);
    return reader;
}

static void test_what_is_no_table(void) {
    ls_wake_table table;
    ls_fault fault;
    if (!make_table(&table)) return;
    uint8_t bytes[LS_WAKE_TABLE_BYTES + 1] = {0};
    ls_wake_table other = {0};
    ls_wake_table_format(bytes);
    write_file(bytes, sizeof bytes);
    CHECK_INT(ls_wake_table_open(path, &other, &fault), LS_CORRUPT);
    write_file(bytes, LS_WAKE_TABLE_BYTES - 1);
    CHECK_INT(ls_wake_table_open(path, &other, &fault), LS_CORRUPT);
    write_file(bytes, 0);
    CHECK_INT(ls_wake_table_open(path, &other, &fault), LS_CORRUPT);
    bytes[0] ^= 1;
    write_file(bytes, LS_WAKE_TABLE_BYTES);
    CHECK_INT(ls_wake_table_open(path, &other, &fault), LS_CORRUPT);
    ls_wake_table_format(bytes);
    bytes[LS_WAKE_VERSION_AT + 1]++;
    write_file(bytes, LS_WAKE_TABLE_BYTES);
    CHECK_INT(ls_wake_table_open(path, &other, &fault), LS_UNSUPPORTED);
    unlink(path);
    CHECK_INT(ls_wake_table_open(path, &other, &fault), LS_IO);
    CHECK(other.map == NULL);
    drop_table(&table);
}

static void test_a_reader_is_told_of_what_it_waits_for(void) {
    ls_wake_table table;
    uint32_t changed[LS_WAKE_MARK_WORDS], more[LS_WAKE_MARK_WORDS];
    if (!make_table(&table)) return;
    ls_wake_reader reader = opened();
    CHECK_INT(ls_wake_is_awaited(&table, 77), 0);
    ls_wake_reader_follow(&reader, 77);
    CHECK_INT(ls_wake_is_awaited(&table, 77), 1);
    CHECK_INT(ls_wake_may_be_awaited(&table, 77), 1);
    CHECK_INT(ls_wake_is_awaited(&table, 78), 0);
    ls_wake_signal(&table, 78, 0);
    CHECK_INT(ls_wake_reader_sleep(&reader, SHORT_NS, LOOK_OUT_NS), LS_WAKE_NOTHING);
    CHECK_INT(ls_wake_reader_collect(&reader, changed, more), 0);

    CHECK_INT(ls_wake_reader_has_news(&reader), 0);
    ls_wake_signal(&table, 77, 0); /* kept until somebody looks */
    CHECK_INT(ls_wake_reader_has_news(&reader), 1);
    CHECK_INT(ls_wake_reader_sleep(&reader, LONG_NS, LOOK_OUT_NS), LS_WAKE_NEWS);
    CHECK_INT(ls_wake_reader_collect(&reader, changed, more), 1);
    CHECK_HEX(changed[77 / 32], 1u << 77 % 32);
    CHECK_HEX(more[77 / 32], 0);
    CHECK_INT(ls_wake_reader_collect(&reader, changed, more), 0);
    ls_wake_signal(&table, 77, 1);
    ls_wake_signal(&table, 77, 0);
    CHECK_INT(ls_wake_reader_collect(&reader, changed, more), 1);
    CHECK_HEX(more[77 / 32], 1u << 77 % 32);

    CHECK_INT(ls_wake_reader_has_news(&reader), 0);
    ls_wake_reader_ring(&reader);
    CHECK_INT(ls_wake_reader_has_news(&reader), 1);
    CHECK_INT(ls_wake_reader_sleep(&reader, -1, LOOK_OUT_NS), LS_WAKE_NEWS);
    CHECK_INT(ls_wake_reader_collect(&reader, changed, more), 0);
    CHECK_INT(ls_wake_reader_sleep(&reader, 0, LOOK_OUT_NS), LS_WAKE_NOTHING);

    ls_wake_reader_unfollow(&reader, 77);
    CHECK_INT(ls_wake_is_awaited(&table, 77), 0);
    ls_wake_reader_close(&reader);
    ls_wake_reader_close(&reader);
    drop_table(&table);
}

static void test_each_slot_has_one_reader(void) {
    ls_wake_table table;
    ls_fault fault;
    if (!make_table(&table)) return;
    ls_wake_reader readers[LS_WAKE_SLOTS];
    ls_wake_reader other = {0};
    for (size_t i = 0; i < LS_WAKE_SLOTS; i++) {
        readers[i] = opened();
        ls_wake_reader_follow(&readers[i], 5);
    }
    CHECK_INT(ls_wake_reader_open(path, &other, &fault), LS_FULL);
    CHECK(other.table.map == NULL);
    ls_wake_table_sweep(&table); /* all are there */
    ls_wake_signal(&table, 5, 0);
    for (size_t i = 0; i < LS_WAKE_SLOTS; i++) {
        uint32_t changed[LS_WAKE_MARK_WORDS], more[LS_WAKE_MARK_WORDS];
        CHECK_INT(ls_wake_reader_collect(&readers[i], changed, more), 1);
        CHECK_HEX(changed[0], 1u << 5);
    }
    ls_wake_signal(&table, 5, 0);
    ls_wake_reader_close(&readers[7]);
    other = opened();
    CHECK_INT(other.slot, 7);
    CHECK_INT(ls_wake_reader_sleep(&other, 0, LOOK_OUT_NS), LS_WAKE_NOTHING); /* nothing of the one before */
    ls_wake_reader_close(&other);
    for (size_t i = 0; i < LS_WAKE_SLOTS; i++) ls_wake_reader_close(&readers[i]);
    CHECK_INT(ls_wake_is_awaited(&table, 5), 0);
    drop_table(&table);
}

/* A process that has a slot, in a sleep without end, and is killed there. */
static void test_a_killed_reader_leaves_nothing_that_counts(void) {
    ls_wake_table table;
    int pipe_ends[2];
    char byte;
    if (!make_table(&table)) return;
    REQUIRE(pipe(pipe_ends) == 0);
    pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        ls_wake_reader reader = opened();
        ls_wake_reader_follow(&reader, 9);
        if (write(pipe_ends[1], "x", 1) != 1) _exit(1);
        ls_wake_reader_sleep(&reader, LONG_NS, LOOK_OUT_NS);
        _exit(0);
    }
    REQUIRE(read(pipe_ends[0], &byte, 1) == 1);
    kill(child, SIGKILL);
    REQUIRE(waitpid(child, NULL, 0) == child);
    close(pipe_ends[0]);
    close(pipe_ends[1]);
    CHECK_INT(ls_wake_is_awaited(&table, 9), 1);
    for (int i = 0; i < 3; i++) {
        ls_wake_announce(&table, 9);
        ls_wake_signal(&table, 9, 1);
    }
    ls_wake_table_sweep(&table);
    CHECK_INT(ls_wake_is_awaited(&table, 9), 0);
    ls_wake_reader reader = opened();
    CHECK_INT(reader.slot, 0);
    CHECK_INT(ls_wake_reader_sleep(&reader, 0, LOOK_OUT_NS), LS_WAKE_NOTHING);
    ls_wake_reader_close(&reader);
    drop_table(&table);
}

/* In a child the slot is the parent's: what the child lets go of is its own. */
static void test_a_forked_child_leaves_the_slot_alone(void) {
    ls_wake_table table;
    int status = -1;
    if (!make_table(&table)) return;
    ls_wake_reader reader = opened();
    ls_wake_reader_follow(&reader, 3);
    pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        ls_wake_reader_close(&reader);
        _exit(0);
    }
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK_INT(status, 0);
    CHECK_INT(ls_wake_is_awaited(&table, 3), 1);
    ls_wake_table_sweep(&table);
    CHECK_INT(ls_wake_is_awaited(&table, 3), 1);
    ls_wake_reader_close(&reader);
    drop_table(&table);
}

static void test_garbage_in_the_file_does_no_harm(void) {
    ls_wake_table table;
    uint32_t changed[LS_WAKE_MARK_WORDS], more[LS_WAKE_MARK_WORDS];
    if (!make_table(&table)) return;
    ls_wake_reader reader = opened();
    for (uint32_t seed = 1; seed < 200; seed++) {
        uint32_t number = seed;
        for (size_t at = LS_WAKE_AWAITED_AT; at < LS_WAKE_TABLE_BYTES; at++) {
            number = number * 1664525 + 1013904223;
            table.map[at] = (uint8_t)(number >> 24);
        }
        ls_wake_announce(&table, seed % LS_WAKE_BUCKETS);
        ls_wake_signal(&table, seed % LS_WAKE_BUCKETS, 1);
        ls_wake_reader_collect(&reader, changed, more);
        ls_wake_reader_sleep(&reader, 1000, 1000);
        ls_wake_reader_follow(&reader, 200);
        ls_wake_signal(&table, 200, 0);
        CHECK_INT(ls_wake_reader_sleep(&reader, LONG_NS, LOOK_OUT_NS), LS_WAKE_NEWS);
        CHECK_INT(ls_wake_reader_collect(&reader, changed, more), 1);
        CHECK(changed[200 / 32] >> 200 % 32 & 1);
    }
    ls_wake_reader_close(&reader);
    drop_table(&table);
}

enum { ROUNDS = 4000, WRITERS = 2 };

typedef struct wake_race {
    ls_wake_table table;
    atomic_int written[WRITERS];
    atomic_int seen[WRITERS];
} wake_race;

typedef struct racing_writer {
    wake_race *race;
    int number;
} racing_writer;

/* Every third round waits until the one before was seen, so that the reader is asleep, or about to be. */
static void *write_and_signal(void *argument) {
    const racing_writer *writer = argument;
    wake_race *race = writer->race;
    uint32_t bucket = 100 + (uint32_t)writer->number;
    for (int round = 1; round <= ROUNDS; round++) {
        for (int i = 0; round % 3 == 0 && atomic_load(&race->seen[writer->number]) < round - 1; i++)
            if (i > 1000) sched_yield();
        if (round % 2 == 0 && ls_wake_may_be_awaited(&race->table, bucket)) ls_wake_announce(&race->table, bucket);
        atomic_store(&race->written[writer->number], round);
        if (ls_wake_is_awaited(&race->table, bucket)) ls_wake_signal(&race->table, bucket, round % 5 == 0);
    }
    return NULL;
}

static void test_no_signal_is_missed(void) {
    wake_race race = {0};
    racing_writer writers[WRITERS];
    pthread_t threads[WRITERS];
    uint32_t changed[LS_WAKE_MARK_WORDS], more[LS_WAKE_MARK_WORDS];
    if (!make_table(&race.table)) return;
    ls_wake_reader reader = opened();
    for (int i = 0; i < WRITERS; i++) ls_wake_reader_follow(&reader, 100 + (uint32_t)i);
    for (int i = 0; i < WRITERS; i++) {
        writers[i] = (racing_writer){&race, i};
        REQUIRE_INT(pthread_create(&threads[i], NULL, write_and_signal, &writers[i]), 0);
    }
    /* Whoever looks only where it was told to sees the end of both. */
    while (atomic_load(&race.seen[0]) < ROUNDS || atomic_load(&race.seen[1]) < ROUNDS) {
        time_t started = time(NULL);
        if (ls_wake_reader_sleep(&reader, LONG_NS, LOOK_OUT_NS) != LS_WAKE_NEWS) {
            REQUIRE(time(NULL) - started < LONG_NS / 1000000000 - 1); /* asleep, with something to tell */
            continue;
        }
        ls_wake_reader_collect(&reader, changed, more);
        for (int i = 0; i < WRITERS; i++) {
            uint32_t bucket = 100 + (uint32_t)i;
            if (changed[bucket / 32] >> bucket % 32 & 1)
                atomic_store(&race.seen[i], atomic_load(&race.written[i]));
        }
    }
    for (int i = 0; i < WRITERS; i++) pthread_join(threads[i], NULL);
    ls_wake_reader_close(&reader);
    drop_table(&race.table);
}

int main(void) {
    RUN(test_what_is_no_table);
    RUN(test_a_reader_is_told_of_what_it_waits_for);
    RUN(test_each_slot_has_one_reader);
    RUN(test_a_killed_reader_leaves_nothing_that_counts);
    RUN(test_a_forked_child_leaves_the_slot_alone);
    RUN(test_garbage_in_the_file_does_no_harm);
    RUN(test_no_signal_is_missed);
    CHECK(1);
    return check_result();
}
