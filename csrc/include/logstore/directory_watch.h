/* Sleeping until files in directories change that another process writes.
 *
 * Linux's inotify; elsewhere `ls_directory_watch_open` says LS_UNSUPPORTED, and the caller has to look now and then.
 *
 * Who sleeps on something else has a thread *relay*: it sleeps here, rings the caller, and goes on when the caller has
 * taken all there is by a `wait` without time, and says `resume`.
 *
 * Threads: one at a time in `wait` and `resume`; `add`, `remove` and `wake` from any. `close` while nobody is in any of
 * them; in a forked child it lets go of what is the child's. */
#ifndef LOGSTORE_DIRECTORY_WATCH_H
#define LOGSTORE_DIRECTORY_WATCH_H

#include <stddef.h>

#include "logstore/status.h"

typedef struct ls_directory_watch ls_directory_watch;

enum { LS_EVERY_DIRECTORY = -1 }; /* events were lost, or are too many to tell apart */

typedef enum ls_watched {
    LS_WATCHED_CONTENTS, /* names, what is written into files, and when a file's writer is done */
    LS_WATCHED_NAMES,    /* the same without what is written */
    LS_WATCHED_END       /* when a writer is done, of a file, which is given instead of a directory */
} ls_watched;

typedef struct ls_directory_change {
    int directory; /* as `add` has numbered it, or LS_EVERY_DIRECTORY */
    int is_more;   /* more has changed than what files named *.log hold: other files, names, or a file's writer is done */
} ls_directory_change;

ls_status ls_directory_watch_open(ls_directory_watch **out, ls_fault *fault);
void ls_directory_watch_close(ls_directory_watch *watch);

/* One that is watched already gets its number again, and what is watched there is what is said now. */
ls_status ls_directory_watch_add(ls_directory_watch *watch, const char *path, ls_watched watched, int *directory,
                                 ls_fault *fault);
/* One that is gone already is none to remove. */
void ls_directory_watch_remove(ls_directory_watch *watch, int directory);

/* Sleeps until something changes, for `timeout_ms` at most, below 0 without end. `count` changes are filled in, one
 * a directory, `capacity` at most, which is 1 or more; none after the timeout, after `wake`, and where a signal came. */
ls_status ls_directory_watch_wait(ls_directory_watch *watch, int timeout_ms, ls_directory_change *changes,
                                  size_t capacity, size_t *count, ls_fault *fault);

/* Has `wait` return, now or when it is called next. */
void ls_directory_watch_wake(ls_directory_watch *watch);

/* Starts the thread that relays, which is not there yet; LS_IO where there is none. It calls `ring`, which must be quick. */
ls_status ls_directory_watch_relay(ls_directory_watch *watch, void (*ring)(void *context), void *context,
                                   ls_fault *fault);
/* Whether it has rung since the last `resume`. */
int ls_directory_watch_is_parked(const ls_directory_watch *watch);
void ls_directory_watch_resume(ls_directory_watch *watch);
/* Ends the thread; none there is none to end. */
void ls_directory_watch_end_relay(ls_directory_watch *watch);

#endif
