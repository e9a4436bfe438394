#if !defined(__APPLE__)
#define _XOPEN_SOURCE 700
#endif
#include "logstore/work_ahead.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

/* Each piece is a number, and the work is its square. A gate holds the second thread back. */
enum { COUNT = 500 };

typedef struct square {
    uint64_t number;
    uint64_t result;
    int worker;
} square;

typedef struct works {
    square pieces[COUNT];
    atomic_int done_count;
    atomic_bool is_second_held;
    atomic_bool has_second_begun;
} works;

static void compute(void *context, void *piece, int worker) {
    works *all = context;
    square *here = piece;
    if (worker == 1) {
        atomic_store(&all->has_second_begun, true);
        while (atomic_load(&all->is_second_held)) sched_yield();
    }
    here->result = here->number * here->number;
    here->worker = worker;
    atomic_fetch_add(&all->done_count, 1);
}

static works all;

static ls_work_ahead *start(bool is_second_held) {
    memset(&all, 0, sizeof all);
    for (uint64_t i = 0; i < COUNT; i++) all.pieces[i].number = i;
    atomic_store(&all.is_second_held, is_second_held);
    return ls_work_ahead_create(compute, &all);
}

static void test_pieces_come_back_done_and_in_order(void) {
    for (size_t room = 1; room <= LS_WORK_AHEAD_MAX; room++) {
        ls_work_ahead *ahead = start(false);
        if (ahead == NULL) return; /* one processor */
        CHECK(ls_work_ahead_is_usable(ahead));
        size_t put = 0;
        for (size_t taken = 0; taken < COUNT; taken++) {
            while (put < COUNT && ls_work_ahead_count(ahead) < room) ls_work_ahead_put(ahead, &all.pieces[put++]);
            square *done = ls_work_ahead_take(ahead);
            CHECK(done == &all.pieces[taken]);
            CHECK_INT(done->result, taken * taken);
        }
        CHECK_INT(ls_work_ahead_count(ahead), 0);
        CHECK_INT(atomic_load(&all.done_count), COUNT);
        ls_work_ahead_free(ahead);
    }
}

static void wait_for_second(void) {
    while (!atomic_load(&all.has_second_begun)) sched_yield();
}

static void *open_gate_after_four(void *unused) {
    (void)unused;
    while (atomic_load(&all.done_count) < 4) sched_yield();
    atomic_store(&all.is_second_held, false);
    return NULL;
}

static void test_the_caller_does_what_nobody_has_begun(void) {
    ls_work_ahead *ahead = start(true);
    if (ahead == NULL) return;
    ls_work_ahead_put(ahead, &all.pieces[0]);
    wait_for_second();
    for (int i = 1; i < 5; i++) ls_work_ahead_put(ahead, &all.pieces[i]);
    pthread_t opener;
    /* The first piece is held in the second thread; asked for it, the caller does the others meanwhile. */
    REQUIRE(pthread_create(&opener, NULL, open_gate_after_four, NULL) == 0);
    for (int i = 0; i < 5; i++) CHECK(ls_work_ahead_take(ahead) == &all.pieces[i]);
    pthread_join(opener, NULL);
    CHECK_INT(all.pieces[0].worker, 1);
    for (int i = 1; i < 5; i++) CHECK_INT(all.pieces[i].worker, 0);
    ls_work_ahead_free(ahead);
}

static void *open_gate(void *unused) {
    (void)unused;
    atomic_store(&all.is_second_held, false);
    return NULL;
}

static void test_dropped_pieces_are_left_alone(void) {
    ls_work_ahead *ahead = start(true);
    if (ahead == NULL) return;
    for (int i = 0; i < 4; i++) ls_work_ahead_put(ahead, &all.pieces[i]);
    wait_for_second();
    pthread_t opener;
    REQUIRE(pthread_create(&opener, NULL, open_gate, NULL) == 0);
    ls_work_ahead_drop(ahead);
    CHECK_INT(ls_work_ahead_count(ahead), 0);
    int done = atomic_load(&all.done_count);
    CHECK(done >= 1); /* what was begun is finished */
    /* Nothing of them comes back. */
    ls_work_ahead_put(ahead, &all.pieces[9]);
    CHECK(ls_work_ahead_take(ahead) == &all.pieces[9]);
    CHECK_INT(atomic_load(&all.done_count), done + 1);
    pthread_join(opener, NULL);
    ls_work_ahead_free(ahead);
}

static void test_it_ends_with_pieces_in_hand(void) {
    for (int round = 0; round < 50; round++) {
        ls_work_ahead *ahead = start(false);
        if (ahead == NULL) return;
        for (int i = 0; i < round % (LS_WORK_AHEAD_MAX + 1); i++) ls_work_ahead_put(ahead, &all.pieces[i]);
        ls_work_ahead_free(ahead);
        CHECK(atomic_load(&all.done_count) <= round % (LS_WORK_AHEAD_MAX + 1));
    }
    ls_work_ahead_free(NULL);
}

static atomic_bool is_mask_noted;

static void note_mask(void *context, void *piece, int worker) {
    (void)context;
    if (worker == 1) pthread_sigmask(SIG_SETMASK, NULL, (sigset_t *)piece);
    atomic_store(&is_mask_noted, true);
}

static void test_the_second_thread_takes_no_signals(void) {
    sigset_t before, after, found;
    pthread_sigmask(SIG_SETMASK, NULL, &before);
    ls_work_ahead *ahead = ls_work_ahead_create(note_mask, NULL);
    if (ahead == NULL) return;
    pthread_sigmask(SIG_SETMASK, NULL, &after);
    CHECK_INT(sigismember(&after, SIGINT), sigismember(&before, SIGINT));
    sigemptyset(&found);
    ls_work_ahead_put(ahead, &found);
    while (!atomic_load(&is_mask_noted)) sched_yield(); /* nobody has asked for it, so the second thread did it */
    CHECK(ls_work_ahead_take(ahead) == &found);
    CHECK_INT(sigismember(&found, SIGINT), 1);
    CHECK_INT(sigismember(&found, SIGTERM), 1);
    ls_work_ahead_free(ahead);
}

static void test_a_forked_child_has_none(void) {
    ls_work_ahead *ahead = start(false);
    if (ahead == NULL) return;
    ls_work_ahead_put(ahead, &all.pieces[3]);
    fflush(stdout);
    pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        bool is_usable = ls_work_ahead_is_usable(ahead);
        ls_work_ahead_free(ahead); /* returns */
        _exit(is_usable ? 1 : 0);
    }
    int state;
    REQUIRE(waitpid(child, &state, 0) == child);
    CHECK(WIFEXITED(state) && WEXITSTATUS(state) == 0);
    CHECK(ls_work_ahead_take(ahead) == &all.pieces[3]);
    ls_work_ahead_free(ahead);
}

int main(void) {
    RUN(test_pieces_come_back_done_and_in_order);
    RUN(test_the_caller_does_what_nobody_has_begun);
    RUN(test_dropped_pieces_are_left_alone);
    RUN(test_it_ends_with_pieces_in_hand);
    RUN(test_the_second_thread_takes_no_signals);
    RUN(test_a_forked_child_has_none);
    return check_result();
}
