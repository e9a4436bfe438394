#include <pthread.h>
#include <sched.h>
#include <stdbool.h>

#include "check.h"
#include "logstore/early_wake.h"

enum { ROUNDS = 3000 };
static const int64_t LONG_NS = 2000000000, SHORT_NS = 1000;

/* What the binding has around it: a lock that is released to wake the sleeper, and `written`, guarded by another. */
typedef struct shared {
    ls_early_wake early;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int released; /* rounds that the sleeper was woken for */
    int done;     /* rounds that it has finished */
    int written;  /* without a lock: published by `early` alone, where that is what was seen */
} shared;

static void tell(shared *with, int *what, int value) {
    pthread_mutex_lock(&with->lock);
    *what = value;
    pthread_cond_broadcast(&with->changed);
    pthread_mutex_unlock(&with->lock);
}

static void wait_for(shared *with, const int *what, int value) {
    pthread_mutex_lock(&with->lock);
    while (*what < value) pthread_cond_wait(&with->changed, &with->lock);
    pthread_mutex_unlock(&with->lock);
}

static void *sleep_and_look_out(void *argument) {
    shared *with = argument;
    for (int round = 1; round <= ROUNDS; round++) {
        wait_for(with, &with->released, round);
        /* Ample: what was announced is going to be published. On the announcer's CPU it gives up early. */
        while (!ls_early_wake_await(&with->early, LONG_NS)) {
            if (atomic_load_explicit(&with->early.stage, memory_order_acquire) == LS_EARLY_WAKE_PUBLISHED) break;
            sched_yield();
        }
        CHECK_INT(with->written, round);
        ls_early_wake_clear(&with->early);
        tell(with, &with->done, round);
    }
    return NULL;
}

/* What was written before `publish` is seen by the one that looked out for it, without another lock. */
static void test_what_is_published_is_seen(void) {
    shared with = {.released = 0, .done = 0, .written = 0};
    pthread_t sleeper;
    ls_early_wake_init(&with.early);
    pthread_mutex_init(&with.lock, NULL);
    pthread_cond_init(&with.changed, NULL);
    CHECK_INT(pthread_create(&sleeper, NULL, sleep_and_look_out, &with), 0);
    for (int round = 1; round <= ROUNDS; round++) {
        CHECK_INT(ls_early_wake_announce(&with.early), 1);
        tell(&with, &with.released, round);
        if (round % 3 == 0) sched_yield();
        with.written = round;
        if (ls_early_wake_publish(&with.early)) ls_early_wake_until_cleared(&with.early, SHORT_NS);
        wait_for(&with, &with.done, round);
    }
    CHECK_INT(pthread_join(sleeper, NULL), 0);
    pthread_cond_destroy(&with.changed);
    pthread_mutex_destroy(&with.lock);
}

static void test_nothing_announced_is_not_waited_for(void) {
    ls_early_wake early;
    ls_early_wake_init(&early);
    CHECK_INT(ls_early_wake_await(&early, INT64_MAX / 2), 0);
    CHECK_INT(ls_early_wake_publish(&early), 0);
    ls_early_wake_clear(&early);
    CHECK_INT(ls_early_wake_await(&early, INT64_MAX / 2), 0);
}

static void test_a_publication_before_the_sleeper_is_awake(void) {
    ls_early_wake early;
    ls_early_wake_init(&early);
    CHECK_INT(ls_early_wake_announce(&early), 1);
    CHECK_INT(ls_early_wake_publish(&early), 0);
    CHECK_INT(ls_early_wake_await(&early, INT64_MAX / 2), 1);
    ls_early_wake_clear(&early);
    ls_early_wake_until_cleared(&early, INT64_MAX / 2); /* returns: it is cleared */
}

static void test_waits_are_bounded(void) {
    ls_early_wake early;
    ls_early_wake_init(&early);
    CHECK_INT(ls_early_wake_announce(&early), 1);
    CHECK_INT(ls_early_wake_await(&early, SHORT_NS), 0); /* and nothing comes */
    CHECK_INT(ls_early_wake_publish(&early), 1);         /* it has not slept again yet */
    ls_early_wake_until_cleared(&early, SHORT_NS);
}

static void test_a_sleeper_on_this_cpu_is_left_asleep(void) {
    ls_early_wake early;
    int announced = 1;
    /* The scheduler may move this thread between the two: hardly ever, and not each time. */
    for (int i = 0; i < 1000 && announced; i++) {
        ls_early_wake_init(&early);
        ls_early_wake_prepare(&early);
        announced = atomic_load(&early.sleeper_cpu) < 0 ? 0 : ls_early_wake_announce(&early);
    }
    CHECK_INT(announced, 0);
    CHECK_INT(ls_early_wake_await(&early, INT64_MAX / 2), 0);
}

int main(void) {
    RUN(test_nothing_announced_is_not_waited_for);
    RUN(test_a_publication_before_the_sleeper_is_awake);
    RUN(test_waits_are_bounded);
    RUN(test_a_sleeper_on_this_cpu_is_left_asleep);
    RUN(test_what_is_published_is_seen);
    return check_result();
}
