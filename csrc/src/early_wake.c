#if defined(__linux__)
#define _GNU_SOURCE /* sched_getcpu */
#else
#define _POSIX_C_SOURCE 200809L
#endif
#include "logstore/early_wake.h"

#include "look_out.h"

void ls_early_wake_init(ls_early_wake *wake) {
    atomic_init(&wake->stage, LS_EARLY_WAKE_NONE);
    atomic_init(&wake->sleeper_cpu, -1);
    atomic_init(&wake->announcer_cpu, -1);
}

void ls_early_wake_prepare(ls_early_wake *wake) {
    atomic_store_explicit(&wake->sleeper_cpu, ls_current_cpu(), memory_order_relaxed);
}

int ls_early_wake_announce(ls_early_wake *wake) {
    int cpu = ls_current_cpu();
    if (cpu >= 0 && cpu == atomic_load_explicit(&wake->sleeper_cpu, memory_order_relaxed)) return 0;
    atomic_store_explicit(&wake->announcer_cpu, cpu, memory_order_relaxed);
    atomic_store_explicit(&wake->stage, LS_EARLY_WAKE_ANNOUNCED, memory_order_release);
    return 1;
}

int ls_early_wake_publish(ls_early_wake *wake) {
    return atomic_exchange_explicit(&wake->stage, LS_EARLY_WAKE_PUBLISHED, memory_order_acq_rel) ==
           LS_EARLY_WAKE_AWAITED;
}

/* Until the stage is no longer `stage`, or the time is over; the stage seen last. */
static int look_out(ls_early_wake *wake, int stage, int64_t limit_ns) {
    int64_t until_ns = ls_monotonic_ns() + limit_ns;
    int seen = stage;
    do {
        for (int i = 0; i < LS_LOOKS_A_CLOCK; i++) {
            seen = atomic_load_explicit(&wake->stage, memory_order_acquire);
            if (seen != stage) return seen;
            ls_relax();
        }
    } while (ls_monotonic_ns() < until_ns);
    return seen;
}

int ls_early_wake_await(ls_early_wake *wake, int64_t limit_ns) {
    int stage = LS_EARLY_WAKE_ANNOUNCED;
    if (!atomic_compare_exchange_strong_explicit(&wake->stage, &stage, LS_EARLY_WAKE_AWAITED,
                                                 memory_order_acq_rel, memory_order_acquire))
        return stage == LS_EARLY_WAKE_PUBLISHED;
    int announcer_cpu = atomic_load_explicit(&wake->announcer_cpu, memory_order_relaxed);
    if (announcer_cpu >= 0 && announcer_cpu == ls_current_cpu()) {
        sched_yield();
        limit_ns = 0;
    }
    return look_out(wake, LS_EARLY_WAKE_AWAITED, limit_ns) == LS_EARLY_WAKE_PUBLISHED;
}

void ls_early_wake_until_cleared(ls_early_wake *wake, int64_t limit_ns) {
    look_out(wake, LS_EARLY_WAKE_PUBLISHED, limit_ns);
}

void ls_early_wake_clear(ls_early_wake *wake) {
    atomic_store_explicit(&wake->stage, LS_EARLY_WAKE_NONE, memory_order_release);
}
