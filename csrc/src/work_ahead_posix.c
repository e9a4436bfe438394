/* Work ahead with POSIX threads; on other systems there is no second thread. */
#if defined(__linux__)
#define _GNU_SOURCE /* CPU_COUNT */
#else
#define _POSIX_C_SOURCE 200809L
#if defined(__APPLE__)
#define _DARWIN_C_SOURCE /* _SC_NPROCESSORS_ONLN */
#endif
#endif

#include "logstore/work_ahead.h"

#if defined(__unix__) || defined(__APPLE__)

#include <assert.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

/* Pieces are counted, and stand in their number's slot: taken <= begun <= put <= taken + MAX. */
struct ls_work_ahead {
    ls_work work;
    void *context;
    pid_t process;
    pthread_t thread;
    pthread_mutex_t lock; /* of all below */
    pthread_cond_t has_work;
    pthread_cond_t has_result;
    size_t put_count; /* the caller's to change, as is taken_count */
    size_t taken_count;
    size_t begun_count;
    bool is_ending;
    bool is_waiting;    /* the second thread, for work */
    bool is_waited_for; /* the piece that the second thread has in hand */
    bool is_done[LS_WORK_AHEAD_MAX];
    void *pieces[LS_WORK_AHEAD_MAX];
};

/* Begins the next piece and comes back with the lock when it is done. */
static void do_next(ls_work_ahead *ahead, int worker) {
    size_t slot = ahead->begun_count++ % LS_WORK_AHEAD_MAX;
    void *piece = ahead->pieces[slot];
    pthread_mutex_unlock(&ahead->lock);
    ahead->work(ahead->context, piece, worker);
    pthread_mutex_lock(&ahead->lock);
    ahead->is_done[slot] = true;
}

static void *work_on(void *argument) {
    ls_work_ahead *ahead = argument;
    pthread_mutex_lock(&ahead->lock);
    while (!ahead->is_ending) {
        if (ahead->begun_count == ahead->put_count) {
            ahead->is_waiting = true;
            pthread_cond_wait(&ahead->has_work, &ahead->lock);
            ahead->is_waiting = false;
            continue;
        }
        do_next(ahead, 1);
        if (ahead->is_waited_for) pthread_cond_signal(&ahead->has_result);
    }
    pthread_mutex_unlock(&ahead->lock);
    return NULL;
}

static bool has_second_processor(void) {
#if defined(__linux__)
    cpu_set_t processors;
    if (sched_getaffinity(0, sizeof processors, &processors) == 0) return CPU_COUNT(&processors) > 1;
#endif
    return sysconf(_SC_NPROCESSORS_ONLN) > 1;
}

/* Signals are for the threads that know of them. */
static bool start_thread(ls_work_ahead *ahead) {
    sigset_t all, before;
    sigfillset(&all);
    if (pthread_sigmask(SIG_SETMASK, &all, &before) != 0) return false;
    bool is_started = pthread_create(&ahead->thread, NULL, work_on, ahead) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return is_started;
}

ls_work_ahead *ls_work_ahead_create(ls_work work, void *context) {
    if (!has_second_processor()) return NULL;
    ls_work_ahead *ahead = calloc(1, sizeof *ahead);
    if (ahead == NULL) return NULL;
    ahead->work = work;
    ahead->context = context;
    ahead->process = getpid();
    if (pthread_mutex_init(&ahead->lock, NULL) == 0) {
        if (pthread_cond_init(&ahead->has_work, NULL) == 0) {
            if (pthread_cond_init(&ahead->has_result, NULL) == 0) {
                if (start_thread(ahead)) return ahead;
                pthread_cond_destroy(&ahead->has_result);
            }
            pthread_cond_destroy(&ahead->has_work);
        }
        pthread_mutex_destroy(&ahead->lock);
    }
    free(ahead);
    return NULL;
}

bool ls_work_ahead_is_usable(const ls_work_ahead *ahead) { return ahead->process == getpid(); }

size_t ls_work_ahead_count(const ls_work_ahead *ahead) { return ahead->put_count - ahead->taken_count; }

void ls_work_ahead_put(ls_work_ahead *ahead, void *piece) {
    assert(ls_work_ahead_count(ahead) < LS_WORK_AHEAD_MAX);
    pthread_mutex_lock(&ahead->lock);
    size_t slot = ahead->put_count++ % LS_WORK_AHEAD_MAX;
    ahead->pieces[slot] = piece;
    ahead->is_done[slot] = false;
    bool wakes = ahead->is_waiting;
    pthread_mutex_unlock(&ahead->lock);
    if (wakes) pthread_cond_signal(&ahead->has_work);
}

/* With the lock: until piece number `number`, which is begun, is done. */
static void wait_for(ls_work_ahead *ahead, size_t number) {
    ahead->is_waited_for = true;
    while (!ahead->is_done[number % LS_WORK_AHEAD_MAX]) pthread_cond_wait(&ahead->has_result, &ahead->lock);
    ahead->is_waited_for = false;
}

void *ls_work_ahead_take(ls_work_ahead *ahead) {
    assert(ls_work_ahead_count(ahead) > 0);
    pthread_mutex_lock(&ahead->lock);
    size_t slot = ahead->taken_count % LS_WORK_AHEAD_MAX;
    while (!ahead->is_done[slot] && ahead->begun_count < ahead->put_count) do_next(ahead, 0);
    if (!ahead->is_done[slot]) wait_for(ahead, ahead->taken_count);
    ahead->taken_count++;
    void *piece = ahead->pieces[slot];
    pthread_mutex_unlock(&ahead->lock);
    return piece;
}

void ls_work_ahead_drop(ls_work_ahead *ahead) {
    pthread_mutex_lock(&ahead->lock);
    ahead->put_count = ahead->begun_count;
    for (size_t number = ahead->taken_count; number < ahead->put_count; number++) wait_for(ahead, number);
    ahead->taken_count = ahead->put_count;
    pthread_mutex_unlock(&ahead->lock);
}

void ls_work_ahead_free(ls_work_ahead *ahead) {
    if (ahead == NULL || !ls_work_ahead_is_usable(ahead)) return;
    pthread_mutex_lock(&ahead->lock);
    ahead->put_count = ahead->begun_count;
    ahead->is_ending = true;
    pthread_mutex_unlock(&ahead->lock);
    pthread_cond_signal(&ahead->has_work);
    pthread_join(ahead->thread, NULL);
    pthread_cond_destroy(&ahead->has_result);
    pthread_cond_destroy(&ahead->has_work);
    pthread_mutex_destroy(&ahead->lock);
    free(ahead);
}

#else

ls_work_ahead *ls_work_ahead_create(ls_work work, void *context) {
    (void)work;
    (void)context;
    return NULL;
}
bool ls_work_ahead_is_usable(const ls_work_ahead *ahead) {
    (void)ahead;
    return false;
}
size_t ls_work_ahead_count(const ls_work_ahead *ahead) {
    (void)ahead;
    return 0;
}
void ls_work_ahead_put(ls_work_ahead *ahead, void *piece) {
    (void)ahead;
    (void)piece;
}
void *ls_work_ahead_take(ls_work_ahead *ahead) {
    (void)ahead;
    return NULL;
}
void ls_work_ahead_drop(ls_work_ahead *ahead) { (void)ahead; }
void ls_work_ahead_free(ls_work_ahead *ahead) { (void)ahead; }

#endif
