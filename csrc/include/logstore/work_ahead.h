/* Pieces of work whose results are wanted in order, done by the caller and, ahead of it, by a second thread.
 *
 * The caller puts pieces in, and takes them out in the same order, done. Where the next one is not, the caller
 * does what nobody has begun, and sleeps only for a piece that the second thread has in hand: on a busy machine
 * it is about as fast as without. The second thread sleeps where there is nothing to do, receives no signals,
 * and ends with ls_work_ahead_free.
 *
 * Threads: all calls by one thread at a time. After a fork the child has no second thread: there every call but
 * ls_work_ahead_is_usable and ls_work_ahead_free is forbidden, and free leaves the memory as it is. */
#ifndef LOGSTORE_WORK_AHEAD_H
#define LOGSTORE_WORK_AHEAD_H

#include <stdbool.h>
#include <stddef.h>

typedef struct ls_work_ahead ls_work_ahead;

enum { LS_WORK_AHEAD_MAX = 8, LS_WORKERS = 2 };

/* Does one piece; `worker` is 0 in the caller and 1 in the second thread, for memory that each has of its own.
 * What the caller stored before it put the piece is seen, and what is stored here is seen by who takes it. */
typedef void (*ls_work)(void *context, void *piece, int worker);

/* With its thread running. NULL where there is no second processor to run on, no thread, or no memory: the work
 * is done without, then. `context` stays the caller's, and outlives it. */
ls_work_ahead *ls_work_ahead_create(ls_work work, void *context);

/* Whether this process has the second thread: false in a forked child. */
bool ls_work_ahead_is_usable(const ls_work_ahead *ahead);

/* Pieces put and not taken yet; at most LS_WORK_AHEAD_MAX. */
size_t ls_work_ahead_count(const ls_work_ahead *ahead);

/* The caller still owns the piece, and leaves it alone until it is taken or dropped. */
void ls_work_ahead_put(ls_work_ahead *ahead, void *piece);

/* The piece put first, done. Some must have been put. */
void *ls_work_ahead_take(ls_work_ahead *ahead);

/* Forgets all pieces; returns when none is being worked on. */
void ls_work_ahead_drop(ls_work_ahead *ahead);

/* Drops all pieces and ends the thread. NULL is fine. */
void ls_work_ahead_free(ls_work_ahead *ahead);

#endif
