#include "scratch_folder.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "logstore/segment.h"
#include "made_batch.h"

enum { BASE = 1000, BATCHES = 6000, BATCH_BYTES = 150, READERS = 3 };

typedef struct shared {
    ls_segment *segment;
    atomic_bool writer_is_done;
    atomic_int ready_readers;
} shared;

static int64_t timestamp_of(int64_t offset) { return 5 * (offset - BASE); }

static void *write_all(void *argument) {
    shared *with = argument;
    ls_fault fault;
    uint8_t batch[BATCH_BYTES];
    while (atomic_load(&with->ready_readers) < READERS) sched_yield();
    for (int64_t offset = BASE; offset < BASE + BATCHES; offset++) {
        made_batch made = {offset, 1, timestamp_of(offset), 0, sizeof batch};
        ls_batch_header header = make_batch(&made, batch);
        CHECK_INT(ls_segment_append(with->segment, batch, sizeof batch, &header, &fault), LS_OK);
    }
    atomic_store(&with->writer_is_done, true);
    return NULL;
}

/* Whatever is below the published size can be found by offset and by time, and is whole. */
static void *read_all(void *argument) {
    shared *with = argument;
    ls_fault fault;
    uint32_t random = (uint32_t)(uintptr_t)&fault;
    bool is_last_round = false;
    atomic_fetch_add(&with->ready_readers, 1);
    for (int64_t rounds = 0; !is_last_round; rounds++) {
        is_last_round = atomic_load(&with->writer_is_done);
        int64_t size = ls_segment_size_bytes(with->segment);
        int64_t count = size / BATCH_BYTES;
        CHECK_INT(size % BATCH_BYTES, 0);
        if (count == 0) continue;
        random = random * 1664525u + 1013904223u;
        int64_t offset = BASE + (rounds % 2 == 0 ? count - 1 : (int64_t)(random >> 8) % count);
        ls_batch_location found;
        CHECK_INT(ls_segment_locate(with->segment, offset, &found, &fault), LS_OK);
        CHECK_INT(found.position, (offset - BASE) * BATCH_BYTES);
        uint8_t batch[BATCH_BYTES];
        size_t got = 0;
        CHECK_INT(ls_segment_read(with->segment, found.position, batch, sizeof batch, &got, &fault), LS_OK);
        ls_batch_header header;
        CHECK_INT(ls_batch_validate(batch, batch + got, found.position, &header, &fault), LS_OK);
        CHECK_INT(header.base_offset, offset);
        CHECK_INT(ls_segment_find_timestamp(with->segment, timestamp_of(offset) - 2, BASE, &found, &fault),
                  LS_OK);
        CHECK_INT(found.header.base_offset, offset);
        CHECK_INT(ls_segment_locate(with->segment, BASE + BATCHES, &found, &fault), LS_END);
    }
    return NULL;
}

static void test_readers_see_only_whole_batches_while_one_writes(void) {
    make_folder();
    ls_file *file = NULL;
    ls_fault fault;
    REQUIRE_INT(ls_file_open(path, LS_FILE_CREATE, &file, &fault), LS_OK);
    ls_segment_options options = {.base_offset = BASE,
                                  .end_offset_max = INT64_MAX,
                                  .index_interval_bytes = 500,
                                  .offset_index_capacity = BATCHES,
                                  .time_index_capacity = BATCHES};
    shared with = {0};
    REQUIRE_INT(ls_segment_create(file, &options, NULL, &with.segment, &fault), LS_OK);
    pthread_t threads[READERS + 1];
    for (int i = 0; i < READERS; i++) REQUIRE(pthread_create(&threads[i], NULL, read_all, &with) == 0);
    REQUIRE(pthread_create(&threads[READERS], NULL, write_all, &with) == 0);
    for (int i = 0; i <= READERS; i++) REQUIRE(pthread_join(threads[i], NULL) == 0);
    CHECK_INT(ls_segment_size_bytes(with.segment), (int64_t)BATCHES * BATCH_BYTES);
    ls_segment_free(with.segment);
    remove_folder();
}

/* A second segment over the same file, as in another process, follows the first by catching up. */
static void *follow(void *argument) {
    shared *with = argument;
    ls_file *file = NULL;
    ls_segment *segment = NULL;
    ls_fault fault;
    ls_segment_options options = {.base_offset = BASE,
                                  .end_offset_max = INT64_MAX,
                                  .index_interval_bytes = 500,
                                  .offset_index_capacity = BATCHES,
                                  .time_index_capacity = BATCHES};
    REQUIRE_INT(ls_file_open(path, LS_FILE_READ, &file, &fault), LS_OK);
    REQUIRE_INT(ls_segment_create(file, &options, NULL, &segment, &fault), LS_OK);
    atomic_fetch_add(&with->ready_readers, READERS);
    int64_t total = 0;
    while (total < (int64_t)BATCHES * BATCH_BYTES) {
        int64_t grew = 0;
        REQUIRE_INT(ls_segment_catch_up(segment, &grew, &fault), LS_OK);
        CHECK_INT(grew % BATCH_BYTES, 0);
        total += grew;
        CHECK_INT(ls_segment_size_bytes(segment), total);
    }
    ls_batch_location found;
    CHECK_INT(ls_segment_locate(segment, BASE + BATCHES - 1, &found, &fault), LS_OK);
    CHECK_INT(ls_offset_index_count(ls_segment_offset_index(segment)),
              ls_offset_index_count(ls_segment_offset_index(with->segment)));
    ls_segment_free(segment);
    return NULL;
}

static void test_a_follower_catches_up_with_a_live_writer(void) {
    make_folder();
    ls_file *file = NULL;
    ls_fault fault;
    REQUIRE_INT(ls_file_open(path, LS_FILE_CREATE, &file, &fault), LS_OK);
    ls_segment_options options = {.base_offset = BASE,
                                  .end_offset_max = INT64_MAX,
                                  .index_interval_bytes = 500,
                                  .offset_index_capacity = BATCHES,
                                  .time_index_capacity = BATCHES};
    shared with = {0};
    REQUIRE_INT(ls_segment_create(file, &options, NULL, &with.segment, &fault), LS_OK);
    pthread_t follower;
    REQUIRE(pthread_create(&follower, NULL, follow, &with) == 0);
    write_all(&with);
    REQUIRE(pthread_join(follower, NULL) == 0);
    ls_segment_free(with.segment);
    remove_folder();
}

int main(void) {
    RUN(test_readers_see_only_whole_batches_while_one_writes);
    RUN(test_a_follower_catches_up_with_a_live_writer);
    return check_result();
}
