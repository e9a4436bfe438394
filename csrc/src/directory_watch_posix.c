/* Watching directories on Linux; elsewhere not at all. */
#if defined(__linux__)
#define _GNU_SOURCE
#endif

#include "logstore/directory_watch.h"

#if defined(__linux__)

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <unistd.h>

enum {
    /* The last one comes when a writer dies, too: it may have left records for whoever looks. */
    NAMES_WATCHED = IN_CREATE | IN_MOVED_TO | IN_DELETE | IN_CLOSE_WRITE,
    EVENTS_BYTES = 4096 /* at a time; what is left is there for the next wait */
};

struct ls_directory_watch {
    int events;
    int woken;
    /* Of the thread that relays: */
    int resumed; /* -1: there is none */
    pthread_t thread;
    pid_t process;
    void (*ring)(void *context);
    void *context;
    atomic_bool is_parked; /* has rung, and waits for `resume` */
    atomic_bool is_ending;
};

static ls_status fail_with_errno(ls_fault *fault, const char *operation, int os_errno) {
    ls_fail(fault, LS_IO, operation, -1, 0, 0);
    fault->os_errno = os_errno;
    return LS_IO;
}

static void post(int descriptor) {
    uint64_t one = 1;
    ssize_t written;
    do written = write(descriptor, &one, sizeof one);
    while (written < 0 && errno == EINTR);
}

ls_status ls_directory_watch_open(ls_directory_watch **out, ls_fault *fault) {
    ls_directory_watch *watch = malloc(sizeof *watch);
    if (watch == NULL)
        return ls_fail(fault, LS_NO_MEMORY, "watch of directories", -1, (int64_t)sizeof *watch, 0);
    watch->resumed = -1;
    atomic_init(&watch->is_parked, false);
    atomic_init(&watch->is_ending, false);
    watch->events = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    int os_errno = errno;
    watch->woken = watch->events < 0 ? -1 : eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (watch->woken < 0) {
        if (watch->events >= 0) {
            os_errno = errno;
            close(watch->events);
        }
        free(watch);
        return fail_with_errno(fault, "watch directories", os_errno);
    }
    *out = watch;
    return LS_OK;
}

void ls_directory_watch_close(ls_directory_watch *watch) {
    if (watch == NULL) return;
    ls_directory_watch_end_relay(watch);
    close(watch->events);
    close(watch->woken);
    free(watch);
}

ls_status ls_directory_watch_add(ls_directory_watch *watch, const char *path, ls_watched watched, int *directory,
                                 ls_fault *fault) {
    static const uint32_t events[] = {
        [LS_WATCHED_CONTENTS] = NAMES_WATCHED | IN_MODIFY,
        [LS_WATCHED_NAMES] = NAMES_WATCHED,
        [LS_WATCHED_END] = IN_CLOSE_WRITE,
    };
    int added = inotify_add_watch(watch->events, path, events[watched]);
    if (added < 0) return fail_with_errno(fault, "watch the directory", errno);
    *directory = added;
    return LS_OK;
}

void ls_directory_watch_remove(ls_directory_watch *watch, int directory) {
    inotify_rm_watch(watch->events, directory);
}

static bool is_of_log_file(const struct inotify_event *event, const char *name) {
    size_t length = strnlen(name, event->len);
    return event->mask == IN_MODIFY && length >= 4 && memcmp(name + length - 4, ".log", 4) == 0;
}

static size_t note(ls_directory_change *changes, size_t capacity, size_t count, int directory, bool is_more) {
    for (size_t i = 0; i < count; i++) {
        if (changes[i].directory == directory) {
            changes[i].is_more |= is_more;
            return count;
        }
    }
    if (count < capacity && directory >= 0) {
        changes[count] = (ls_directory_change){directory, is_more};
        return count + 1;
    }
    changes[0] = (ls_directory_change){LS_EVERY_DIRECTORY, 1};
    return 1;
}

ls_status ls_directory_watch_wait(ls_directory_watch *watch, int timeout_ms, ls_directory_change *changes,
                                  size_t capacity, size_t *count, ls_fault *fault) {
    _Alignas(struct inotify_event) char bytes[EVENTS_BYTES];
    struct pollfd ready[2] = {{watch->events, POLLIN, 0}, {watch->woken, POLLIN, 0}};
    *count = 0;
    if (poll(ready, 2, timeout_ms) < 0) {
        return errno == EINTR ? LS_OK : fail_with_errno(fault, "wait for a change", errno);
    }
    if (ready[1].revents != 0) {
        uint64_t ignored;
        if (read(watch->woken, &ignored, sizeof ignored) < 0 && errno != EAGAIN && errno != EINTR)
            return fail_with_errno(fault, "wait for a change", errno);
    }
    if (ready[0].revents == 0) return LS_OK;
    ssize_t got = read(watch->events, bytes, sizeof bytes);
    if (got < 0) {
        return errno == EAGAIN || errno == EINTR ? LS_OK
                                                 : fail_with_errno(fault, "read what has changed", errno);
    }
    size_t found = 0;
    for (size_t at = 0; at + sizeof(struct inotify_event) <= (size_t)got;) {
        struct inotify_event event;
        memcpy(&event, bytes + at, sizeof event);
        at += sizeof event;
        if (event.len > (size_t)got - at) break;
        int directory = event.mask & IN_Q_OVERFLOW ? LS_EVERY_DIRECTORY : event.wd;
        if (found == 0 || changes[0].directory != LS_EVERY_DIRECTORY)
            found = note(changes, capacity, found, directory, !is_of_log_file(&event, bytes + at));
        at += event.len;
    }
    *count = found;
    return LS_OK;
}

void ls_directory_watch_wake(ls_directory_watch *watch) { post(watch->woken); }

static void *relay(void *argument) {
    ls_directory_watch *watch = argument;
    while (!atomic_load(&watch->is_ending)) {
        /* What is not taken yet would be told of again and again. */
        bool is_parked = atomic_load(&watch->is_parked);
        struct pollfd ready[2] = {{watch->resumed, POLLIN, 0}, {watch->events, POLLIN, 0}};
        if (poll(ready, is_parked ? 1 : 2, -1) < 0 && errno != EINTR && errno != ENOMEM) break;
        if (ready[0].revents != 0) {
            uint64_t ignored;
            if (read(watch->resumed, &ignored, sizeof ignored) < 0 && errno != EAGAIN && errno != EINTR) break;
        }
        if (!is_parked && ready[1].revents != 0) {
            atomic_store(&watch->is_parked, true);
            watch->ring(watch->context);
        }
    }
    return NULL;
}

ls_status ls_directory_watch_relay(ls_directory_watch *watch, void (*ring)(void *context), void *context,
                                   ls_fault *fault) {
    watch->ring = ring;
    watch->context = context;
    watch->process = getpid();
    atomic_store(&watch->is_parked, false);
    atomic_store(&watch->is_ending, false);
    watch->resumed = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (watch->resumed < 0) return fail_with_errno(fault, "relay changes", errno);
    /* Signals are for the threads that know of them. */
    sigset_t all, before;
    sigfillset(&all);
    int refused = pthread_sigmask(SIG_SETMASK, &all, &before);
    if (refused == 0) {
        refused = pthread_create(&watch->thread, NULL, relay, watch);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    if (refused == 0) return LS_OK;
    close(watch->resumed);
    watch->resumed = -1;
    return fail_with_errno(fault, "relay changes", refused);
}

void ls_directory_watch_end_relay(ls_directory_watch *watch) {
    if (watch->resumed < 0) return;
    if (watch->process == getpid()) {
        atomic_store(&watch->is_ending, true);
        post(watch->resumed);
        pthread_join(watch->thread, NULL);
    }
    close(watch->resumed);
    watch->resumed = -1;
}

int ls_directory_watch_is_parked(const ls_directory_watch *watch) { return atomic_load(&watch->is_parked); }

void ls_directory_watch_resume(ls_directory_watch *watch) {
    if (!atomic_load(&watch->is_parked)) return;
    atomic_store(&watch->is_parked, false);
    post(watch->resumed);
}

#else

ls_status ls_directory_watch_open(ls_directory_watch **out, ls_fault *fault) {
    (void)out;
    return ls_fail(fault, LS_UNSUPPORTED, "watch of directories", -1, 0, 0);
}

void ls_directory_watch_close(ls_directory_watch *watch) { (void)watch; }

ls_status ls_directory_watch_add(ls_directory_watch *watch, const char *path, ls_watched watched, int *directory,
                                 ls_fault *fault) {
    (void)watch;
    (void)path;
    (void)watched;
    (void)directory;
    return ls_fail(fault, LS_UNSUPPORTED, "watch of directories", -1, 0, 0);
}

void ls_directory_watch_remove(ls_directory_watch *watch, int directory) {
    (void)watch;
    (void)directory;
}

ls_status ls_directory_watch_wait(ls_directory_watch *watch, int timeout_ms, ls_directory_change *changes,
                                  size_t capacity, size_t *count, ls_fault *fault) {
    (void)watch;
    (void)timeout_ms;
    (void)changes;
    (void)capacity;
    (void)count;
    return ls_fail(fault, LS_UNSUPPORTED, "watch of directories", -1, 0, 0);
}

void ls_directory_watch_wake(ls_directory_watch *watch) { (void)watch; }

ls_status ls_directory_watch_relay(ls_directory_watch *watch, void (*ring)(void *context), void *context,
                                   ls_fault *fault) {
    (void)watch;
    (void)ring;
    (void)context;
    return ls_fail(fault, LS_UNSUPPORTED, "watch of directories", -1, 0, 0);
}

int ls_directory_watch_is_parked(const ls_directory_watch *watch) {
    (void)watch;
    return 0;
}

void ls_directory_watch_resume(ls_directory_watch *watch) { (void)watch; }

void ls_directory_watch_end_relay(ls_directory_watch *watch) { (void)watch; }

#endif
