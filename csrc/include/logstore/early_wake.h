/* Waking a thread ahead of what it waits for, so that its waking up and our work go on side by side.
 *
 * A thread that was asleep takes longer to be on its way than a small batch takes to be written. Whoever is about to
 * publish something *announces* it, wakes the sleeper by a lock, and *publishes*; the sleeper, once awake, looks out for
 * the publication for a bounded time. This is a courtesy between the two and no signal: who goes by it alone may miss
 * something; the caller has a flag of its own under a lock of its own, and looks at that one in the end.
 *
 * Threads: `announce` and `publish` by one thread at a time, `prepare`, `await` and `clear` by the one that
 * sleeps; `until_cleared` by any. */
#ifndef LOGSTORE_EARLY_WAKE_H
#define LOGSTORE_EARLY_WAKE_H

#include <stdatomic.h>
#include <stdint.h>

typedef enum ls_early_wake_stage {
    LS_EARLY_WAKE_NONE,      /* nothing was announced */
    LS_EARLY_WAKE_ANNOUNCED, /* and the sleeper is not awake yet */
    LS_EARLY_WAKE_AWAITED,   /* the sleeper is awake, and looks out */
    LS_EARLY_WAKE_PUBLISHED
} ls_early_wake_stage;

typedef struct ls_early_wake {
    atomic_int stage;
    atomic_int sleeper_cpu; /* where it went to sleep; -1: not known */
    atomic_int announcer_cpu;
} ls_early_wake;

void ls_early_wake_init(ls_early_wake *wake);

/* By the sleeper, before it sleeps. */
void ls_early_wake_prepare(ls_early_wake *wake);

/* Before the sleeper is woken. Returns 0, having announced nothing, where it sleeps on the caller's own CPU: there it
 * could only take turns with the caller, and waking it early costs time. */
int ls_early_wake_announce(ls_early_wake *wake);

/* Returns whether the sleeper is looking out: then `ls_early_wake_until_cleared` may let it go first. */
int ls_early_wake_publish(ls_early_wake *wake);

/* Looks out for the publication of what was announced, for `limit_ns` at most; returns whether it was published. At
 * once, with 0, where nothing was announced. Where the announcer was on this very CPU, looking out would keep it from
 * its work: this gives up the CPU once instead. */
int ls_early_wake_await(ls_early_wake *wake, int64_t limit_ns);

/* Waits until the sleeper has called `clear`, for `limit_ns` at most. */
void ls_early_wake_until_cleared(ls_early_wake *wake, int64_t limit_ns);

/* The sleeper goes on to do what it waited for, or sleeps again. */
void ls_early_wake_clear(ls_early_wake *wake);

#endif
