#include "scratch_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "logstore/file_pool.h"

enum { FILES = 8, THREADS = 4, ROUNDS = 4000 };

static ls_file_pool *pool;
static ls_file *files[FILES];

static const char *name_of(int number) {
    static _Thread_local char full[700];
    snprintf(full, sizeof full, "%s/%d", folder, number);
    return full;
}

static void take(int number, int mode, bool is_synced) {
    ls_fault fault;
    ls_file *plain = NULL;
    REQUIRE_INT(ls_file_open(name_of(number), mode, &plain, &fault), LS_OK);
    REQUIRE_INT(ls_file_pool_take(pool, plain, name_of(number), mode == LS_FILE_READ ? mode : LS_FILE_WRITE, is_synced,
                                  &files[number], &fault),
                LS_OK);
}

/* A pool with FILES new files in it. */
static void make_pool(int open_max, int unsynced_max) {
    ls_fault fault;
    make_folder();
    REQUIRE_INT(ls_file_pool_create(open_max, unsynced_max, &pool, &fault), LS_OK);
    for (int i = 0; i < FILES; i++) take(i, LS_FILE_CREATE, true);
}

static void remove_pool(void) {
    for (int i = 0; i < FILES; i++) {
        ls_file_close(files[i]);
        unlink(name_of(i));
    }
    CHECK_INT(ls_file_pool_open_count(pool), 0);
    ls_file_pool_free(pool);
    remove_folder();
}

static void write_byte(int number, int64_t position, char byte) {
    ls_fault fault;
    CHECK_INT(ls_file_write(files[number], position, (const uint8_t *)&byte, 1, &fault), LS_OK);
}

static void check_byte(int number, int64_t position, char expected) {
    ls_fault fault;
    uint8_t byte = 0;
    size_t got = 0;
    CHECK_INT(ls_file_read(files[number], position, &byte, 1, &got, &fault), LS_OK);
    CHECK_INT(got, 1);
    CHECK_INT(byte, expected);
    byte = 0;
    CHECK_INT(ls_file_read_once(files[number], position, &byte, 1, &got, &fault), LS_OK);
    CHECK_INT(got, 1);
    CHECK_INT(byte, expected);
}

static void test_files_that_are_on_disk_are_closed_and_opened_again(void) {
    make_pool(2, 4);
    CHECK_INT(ls_file_pool_open_count(pool), 2);
    ls_fault fault;
    for (int64_t round = 0; round < 3; round++) {
        for (int i = 0; i < FILES; i++) {
            write_byte(i, round, (char)('a' + i));
            CHECK_INT(ls_file_sync(files[i], &fault), LS_OK);
            CHECK(ls_file_pool_open_count(pool) <= 2);
        }
    }
    for (int i = FILES - 1; i >= 0; i--) {
        for (int64_t round = 0; round < 3; round++) check_byte(i, round, (char)('a' + i));
        int64_t size = 0;
        CHECK_INT(ls_file_truncate(files[i], 2, &fault), LS_OK);
        CHECK_INT(ls_file_size(files[i], &size, &fault), LS_OK);
        CHECK_INT(size, 2);
        CHECK_INT(ls_file_sync(files[i], &fault), LS_OK);
    }
    remove_pool();
}

static void test_files_that_are_not_synced_stay_open_up_to_a_limit_of_their_own(void) {
    make_pool(2, 5);
    for (int i = 0; i < 5; i++) write_byte(i, 0, 'x');
    CHECK_INT(ls_file_pool_open_count(pool), 5);
    for (int i = 5; i < FILES; i++) write_byte(i, 0, 'x'); /* one is synced for each */
    CHECK_INT(ls_file_pool_open_count(pool), 5);
    ls_fault fault;
    for (int i = 0; i < FILES; i++) CHECK_INT(ls_file_sync(files[i], &fault), LS_OK);
    CHECK_INT(ls_file_pool_open_count(pool), 2);
    for (int i = 0; i < FILES; i++) check_byte(i, 0, 'x');
    remove_pool();
}

static void test_what_is_used_stays_open(void) {
    make_pool(3, 3);
    ls_fault fault;
    write_byte(0, 0, 'x');
    CHECK_INT(ls_file_sync(files[0], &fault), LS_OK);
    REQUIRE(rename(name_of(0), path) == 0); /* whoever opens it again does not find it */
    for (int i = 1; i < FILES; i++) {
        check_byte(0, 0, 'x');
        write_byte(i, 0, 'x');
        CHECK_INT(ls_file_sync(files[i], &fault), LS_OK);
    }
    check_byte(0, 0, 'x');
    remove_pool();
}

static void test_a_sync_that_fails_when_a_file_is_closed_is_not_lost(void) {
    make_pool(1, 1);
    ls_fault fault;
    uint8_t byte;
    size_t got;
    write_byte(0, 0, 'x');
    /* A device can't be synced: it stands in for a disk that fails. */
    int device = open("/dev/null", O_RDWR);
    struct stat about;
    ino_t inode = stat(name_of(0), &about) == 0 ? about.st_ino : 0;
    int found = -1;
    for (int descriptor = 3; descriptor < 256 && found < 0; descriptor++)
        if (fstat(descriptor, &about) == 0 && about.st_ino == inode) found = descriptor;
    REQUIRE(device >= 0 && found >= 0 && dup2(device, found) == found);
    close(device);
    write_byte(1, 0, 'y'); /* has the other one closed */
    CHECK_INT(ls_file_sync(files[1], &fault), LS_OK);
    CHECK_INT(ls_file_sync(files[0], &fault), LS_IO);
    CHECK_TEXT(fault.reason, "sync");
    CHECK_INT(fault.os_errno, EINVAL);
    CHECK_INT(ls_file_write(files[0], 1, (const uint8_t *)"x", 1, &fault), LS_IO);
    CHECK_TEXT(fault.reason, "sync");
    CHECK_INT(ls_file_read(files[0], 0, &byte, 1, &got, &fault), LS_OK); /* reads go on */
    CHECK_INT(ls_file_sync(files[0], &fault), LS_IO);                   /* and however often it is opened */
    check_byte(1, 0, 'y');
    remove_pool();
}

static void test_another_file_is_no_substitute(void) {
    make_pool(1, 1);
    ls_fault fault;
    uint8_t byte;
    size_t got;
    REQUIRE(rename(name_of(0), path) == 0);
    CHECK_INT(ls_file_read(files[0], 0, &byte, 1, &got, &fault), LS_CORRUPT);
    CHECK_TEXT(fault.reason, "the file is gone");
    CHECK_INT(ls_file_write(files[0], 0, &byte, 1, &fault), LS_CORRUPT);
    CHECK_INT(ls_file_sync(files[0], &fault), LS_OK); /* nothing was written since */
    char other[700];
    snprintf(other, sizeof other, "%s/other", folder);
    fclose(fopen(other, "w"));
    REQUIRE(rename(other, name_of(0)) == 0);
    CHECK_INT(ls_file_read(files[0], 0, &byte, 1, &got, &fault), LS_CORRUPT);
    CHECK_TEXT(fault.reason, "another file stands in the place of this one");
    unlink(name_of(0));
    REQUIRE(symlink(path, name_of(0)) == 0);
    CHECK_INT(ls_file_read(files[0], 0, &byte, 1, &got, &fault), LS_IO);
    CHECK_INT(fault.os_errno, ELOOP);
    unlink(name_of(0));
    REQUIRE(rename(path, name_of(0)) == 0);
    CHECK_INT(ls_file_read(files[0], 0, &byte, 1, &got, &fault), LS_OK);
    remove_pool();
}

static void test_without_descriptors_others_are_closed_first(void) {
    make_pool(FILES, FILES);
    for (int i = 0; i < FILES; i++) write_byte(i, 0, 'x');
    ls_fault fault;
    REQUIRE(ls_file_pool_make_room(pool));
    CHECK_INT(ls_file_pool_open_count(pool), FILES - 1);
    int taken[1024];
    int count = 0;
    struct rlimit before, less;
    REQUIRE(getrlimit(RLIMIT_NOFILE, &before) == 0);
    less = before;
    less.rlim_cur = 64;
    REQUIRE(setrlimit(RLIMIT_NOFILE, &less) == 0);
    CHECK_INT(ls_descriptors_max(), 64);
    while (count < 1024 && (taken[count] = dup(2)) >= 0) count++;
    for (int i = 0; i < FILES; i++) check_byte(i, 0, 'x'); /* room for one less than there are */
    CHECK_INT(ls_file_pool_open_count(pool), FILES - 1);
    while (ls_file_pool_make_room(pool)) continue;
    CHECK_INT(ls_file_pool_open_count(pool), 0);
    while (count < 1024 && (taken[count] = dup(2)) >= 0) count++;
    uint8_t byte = 0;
    size_t got;
    CHECK_INT(ls_file_read(files[0], 0, &byte, 1, &got, &fault), LS_NO_DESCRIPTOR);
    CHECK_TEXT(fault.reason, "open");
    CHECK_INT(fault.os_errno, EMFILE);
    CHECK_INT(ls_file_write(files[0], 0, &byte, 1, &fault), LS_NO_DESCRIPTOR);
    while (count > 0) close(taken[--count]);
    REQUIRE(setrlimit(RLIMIT_NOFILE, &before) == 0);
    check_byte(0, 0, 'x');
    remove_pool();
}

static void test_limits_and_files_of_another_kind(void) {
    ls_fault fault;
    ls_file *out = NULL;
    CHECK_INT(ls_file_pool_create(0, 1, &pool, &fault), LS_INVALID_ARGUMENT);
    CHECK_INT(ls_file_pool_create(2, 1, &pool, &fault), LS_INVALID_ARGUMENT);
    make_pool(2, 2);
    CHECK_INT(ls_file_pool_take(pool, files[0], name_of(0), LS_FILE_WRITE, true, &out, &fault), LS_UNSUPPORTED);
    ls_file_pool_limit(pool, 4, 4);
    for (int i = 0; i < FILES; i++) write_byte(i, 0, 'x');
    CHECK_INT(ls_file_pool_open_count(pool), 4);
    remove_pool();
}

static void *use_all(void *argument) {
    unsigned chance = (unsigned)(uintptr_t)argument * 2654435761u + 1;
    ls_fault fault;
    for (int round = 0; round < ROUNDS; round++) {
        chance = chance * 1664525u + 1013904223u;
        int i = (int)(chance >> 16) % FILES;
        int64_t position = (int64_t)(uintptr_t)argument;
        write_byte(i, position, (char)('a' + i));
        check_byte(i, position, (char)('a' + i));
        if (round % 64 == 0) CHECK_INT(ls_file_sync(files[i], &fault), LS_OK);
    }
    return NULL;
}

static void test_threads_share_files_and_descriptors(void) {
    make_pool(2, 3);
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++) REQUIRE(pthread_create(&threads[i], NULL, use_all, (void *)i) == 0);
    for (int i = 0; i < THREADS; i++) REQUIRE(pthread_join(threads[i], NULL) == 0);
    CHECK(ls_file_pool_open_count(pool) <= 3 + THREADS);
    remove_pool();
}

static void test_a_forked_child_opens_none_of_them(void) {
    make_pool(2, 2);
    ls_fault fault;
    uint8_t byte;
    size_t got;
    ls_file_pool_forget(pool);
    CHECK_INT(ls_file_read(files[0], 0, &byte, 1, &got, &fault), LS_IO);
    CHECK_INT(ls_file_read(files[FILES - 1], 0, &byte, 1, &got, &fault), LS_OK); /* which is open */
    for (int i = 0; i < FILES; i++) {
        ls_file_close(files[i]);
        unlink(name_of(i));
    }
    ls_file_pool_free(pool);
    remove_folder();
}

int main(void) {
    RUN(test_files_that_are_on_disk_are_closed_and_opened_again);
    RUN(test_files_that_are_not_synced_stay_open_up_to_a_limit_of_their_own);
    RUN(test_what_is_used_stays_open);
    RUN(test_a_sync_that_fails_when_a_file_is_closed_is_not_lost);
    RUN(test_another_file_is_no_substitute);
    RUN(test_without_descriptors_others_are_closed_first);
    RUN(test_limits_and_files_of_another_kind);
    RUN(test_threads_share_files_and_descriptors);
    RUN(test_a_forked_child_opens_none_of_them);
    return check_result();
}
