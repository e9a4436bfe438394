/* Watches: what is told of a change, how much is told apart, and what ends a wait. */
#include "scratch_folder.h"

#include <errno.h>
#include <pthread.h>
#include <time.h>

#include "logstore/directory_watch.h"

static void change(const char *directory, const char *name) {
    char file_path[1700];
    snprintf(file_path, sizeof file_path, "%s/%s", directory, name);
    FILE *file = fopen(file_path, "a");
    REQUIRE(file != NULL && fputs("x", file) >= 0 && fclose(file) == 0);
}

static void remove_file(const char *directory, const char *name) {
    char file_path[1700];
    snprintf(file_path, sizeof file_path, "%s/%s", directory, name);
    CHECK(unlink(file_path) == 0);
}

static size_t changes_now(ls_directory_watch *watch, ls_directory_change *changes, size_t capacity) {
    ls_fault fault;
    size_t count = 9;
    REQUIRE_INT(ls_directory_watch_wait(watch, 0, changes, capacity, &count, &fault), LS_OK);
    return count;
}

static void test_changes_are_told_apart(void) {
    ls_directory_watch *watch;
    ls_fault fault;
    ls_status status = ls_directory_watch_open(&watch, &fault);
    if (status == LS_UNSUPPORTED) return;
    REQUIRE_INT(status, LS_OK);
    make_folder();
    change(folder, "7.log");
    int number = -5;
    int same = -6;
    REQUIRE_INT(ls_directory_watch_add(watch, folder, LS_WATCHED_CONTENTS, &number, &fault), LS_OK);
    REQUIRE_INT(ls_directory_watch_add(watch, folder, LS_WATCHED_CONTENTS, &same, &fault), LS_OK);
    CHECK_INT(same, number);

    ls_directory_change changes[2];
    CHECK_INT((int)changes_now(watch, changes, 2), 0);
    char name[600];
    snprintf(name, sizeof name, "%s/7.log", folder);
    FILE *file = fopen(name, "a");
    REQUIRE(file != NULL);
    for (int i = 0; i < 2; i++) CHECK(fputc('x', file) == 'x' && fflush(file) == 0);
    CHECK_INT((int)changes_now(watch, changes, 2), 1);
    CHECK_INT(changes[0].directory, number);
    CHECK_INT(changes[0].is_more, 0);
    fclose(file); /* as when its writer dies */
    CHECK_INT((int)changes_now(watch, changes, 2), 1);
    CHECK_INT(changes[0].is_more, 1);
    change(folder, "8.log"); /* a new name */
    change(folder, "7.log");
    CHECK_INT((int)changes_now(watch, changes, 2), 1);
    CHECK_INT(changes[0].is_more, 1);
    change(folder, "catalog");
    CHECK_INT((int)changes_now(watch, changes, 2), 1);
    CHECK_INT(changes[0].is_more, 1);

    ls_directory_watch_remove(watch, number);
    changes_now(watch, changes, 2);
    change(folder, "7.log");
    CHECK_INT((int)changes_now(watch, changes, 2), 0);
    ls_directory_watch_close(watch);
    remove_file(folder, "7.log");
    remove_file(folder, "8.log");
    remove_file(folder, "catalog");
    remove_folder();
}

static void test_more_directories_than_there_is_room_for_are_all_of_them(void) {
    enum { DIRECTORIES = 3 };
    char paths[DIRECTORIES][512];
    ls_directory_watch *watch;
    ls_fault fault;
    if (ls_directory_watch_open(&watch, &fault) == LS_UNSUPPORTED) return;
    int number;
    for (int i = 0; i < DIRECTORIES; i++) {
        make_folder();
        memcpy(paths[i], folder, sizeof folder);
        change(folder, "7.log");
        REQUIRE_INT(ls_directory_watch_add(watch, folder, LS_WATCHED_CONTENTS, &number, &fault), LS_OK);
    }
    for (int i = 0; i < DIRECTORIES; i++) change(paths[i], "7.log");
    ls_directory_change changes[DIRECTORIES];
    CHECK_INT((int)changes_now(watch, changes, DIRECTORIES), DIRECTORIES);
    for (int i = 0; i < DIRECTORIES; i++) change(paths[i], "7.log");
    CHECK_INT((int)changes_now(watch, changes, DIRECTORIES - 1), 1);
    CHECK_INT(changes[0].directory, LS_EVERY_DIRECTORY);
    CHECK_INT(changes[0].is_more, 1);
    ls_directory_watch_close(watch);
    for (int i = 0; i < DIRECTORIES; i++) {
        remove_file(paths[i], "7.log");
        CHECK(rmdir(paths[i]) == 0);
    }
}

static void test_what_ends_a_wait_and_what_can_not_be_watched(void) {
    ls_directory_watch *watch;
    ls_fault fault;
    if (ls_directory_watch_open(&watch, &fault) == LS_UNSUPPORTED) return;
    ls_directory_change changes[1];
    size_t count = 9;
    ls_directory_watch_wake(watch);
    REQUIRE_INT(ls_directory_watch_wait(watch, -1, changes, 1, &count, &fault), LS_OK);
    CHECK_INT((int)count, 0);
    CHECK_INT((int)changes_now(watch, changes, 1), 0);
    int number = -5;
    CHECK_INT(ls_directory_watch_add(watch, "/no/such/directory", LS_WATCHED_CONTENTS, &number, &fault), LS_IO);
    CHECK_INT(fault.os_errno, ENOENT);
    CHECK_INT(number, -5);
    ls_directory_watch_remove(watch, 77);
    ls_directory_watch_close(watch);
    ls_directory_watch_close(NULL);
}

typedef struct bell {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int rings;
} bell;

static void ring(void *context) {
    bell *rung = context;
    pthread_mutex_lock(&rung->lock);
    rung->rings++;
    pthread_cond_signal(&rung->changed);
    pthread_mutex_unlock(&rung->lock);
}

static void wait_for_rings(bell *rung, int count) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 60;
    int refused = 0;
    pthread_mutex_lock(&rung->lock);
    while (rung->rings < count && refused == 0)
        refused = pthread_cond_timedwait(&rung->changed, &rung->lock, &until);
    CHECK_INT(rung->rings, count);
    pthread_mutex_unlock(&rung->lock);
}

static void test_changes_are_relayed_once_until_they_are_taken(void) {
    bell rung = {.rings = 0};
    ls_directory_watch *watch;
    ls_directory_change changes[2];
    ls_fault fault;
    int number;
    if (ls_directory_watch_open(&watch, &fault) == LS_UNSUPPORTED) return;
    make_folder();
    pthread_mutex_init(&rung.lock, NULL);
    pthread_cond_init(&rung.changed, NULL);
    REQUIRE_INT(ls_directory_watch_add(watch, folder, LS_WATCHED_CONTENTS, &number, &fault), LS_OK);
    change(folder, "7.log");
    REQUIRE_INT(ls_directory_watch_relay(watch, ring, &rung, &fault), LS_OK);
    wait_for_rings(&rung, 1); /* for what was there before, too */
    change(folder, "8.log");
    CHECK(ls_directory_watch_is_parked(watch));
    CHECK_INT((int)changes_now(watch, changes, 2), 1);
    CHECK_INT(changes[0].directory, number);
    ls_directory_watch_resume(watch);
    change(folder, "7.log");
    wait_for_rings(&rung, 2);

    /* Names alone: a write into a file that stays open is nothing. */
    char name[600];
    snprintf(name, sizeof name, "%s/7.log", folder);
    FILE *file = fopen(name, "a");
    REQUIRE(file != NULL);
    REQUIRE_INT(ls_directory_watch_add(watch, folder, LS_WATCHED_NAMES, &number, &fault), LS_OK);
    changes_now(watch, changes, 2);
    CHECK(fputc('x', file) == 'x' && fflush(file) == 0);
    CHECK_INT((int)changes_now(watch, changes, 2), 0);
    int same;
    REQUIRE_INT(ls_directory_watch_add(watch, name, LS_WATCHED_END, &same, &fault), LS_OK);
    CHECK(same != number);
    fclose(file);
    CHECK_INT((int)changes_now(watch, changes, 2), 2); /* of the folder, and of the file */
    ls_directory_watch_end_relay(watch);
    ls_directory_watch_end_relay(watch);
    ls_directory_watch_close(watch);
    pthread_cond_destroy(&rung.changed);
    pthread_mutex_destroy(&rung.lock);
    remove_file(folder, "7.log");
    remove_file(folder, "8.log");
    remove_folder();
}

int main(void) {
    RUN(test_changes_are_relayed_once_until_they_are_taken);
    RUN(test_changes_are_told_apart);
    RUN(test_more_directories_than_there_is_room_for_are_all_of_them);
    RUN(test_what_ends_a_wait_and_what_can_not_be_watched);
    return check_result();
}
