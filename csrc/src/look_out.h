/* What a thread needs that looks out for another one's store instead of sleeping. Who includes it asks for GNU's names
 * on Linux (sched_getcpu), and for POSIX's elsewhere. */
#ifndef LOGSTORE_LOOK_OUT_H
#define LOGSTORE_LOOK_OUT_H

#include <sched.h>
#include <stdint.h>
#include <time.h>

/* Looking at the clock costs as much as some looks at a word. */
enum { LS_LOOKS_A_CLOCK = 8 };

/* -1: not known. */
static inline int ls_current_cpu(void) {
#if defined(__linux__)
    return sched_getcpu();
#else
    return -1;
#endif
}

static inline int64_t ls_monotonic_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static inline void ls_relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

#endif
