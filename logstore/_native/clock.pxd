# The time of day, without a call into Python.

from libc.stdint cimport int64_t


cdef extern from *:
    """
    #include <time.h>
    #include <stdint.h>
    /* Wall clock in ms; C11, so that no platform has to be named. */
    static inline int64_t ls_wall_clock_ms(void) {
        struct timespec now;
        timespec_get(&now, TIME_UTC);
        return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
    }
    /* In ns, for durations that are only estimates: the clock may be set meanwhile. */
    static inline int64_t ls_wall_clock_ns(void) {
        struct timespec now;
        timespec_get(&now, TIME_UTC);
        return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
    }

    /* Wall clock in ms by a reading that is kept: the system is asked again where that millisecond may be over, as the
     * processor's counter says. It counts evenly, and far more than 250 times a microsecond. So the answer is the system's,
     * but for a clock that was set less than a quarter of a millisecond ago. The GIL is held. */
    typedef struct {
        int64_t ms;
        uint64_t ticks;      /* when it was read */
        uint64_t ticks_left; /* so long it holds */
    } ls_recent_time;
    #if defined(__x86_64__) && defined(__GNUC__) && !defined(Py_GIL_DISABLED)
    #include <cpuid.h>
    #include <x86intrin.h>
    static inline int64_t ls_read_recent_ms(ls_recent_time *recent, uint64_t ticks) {
        static int is_even = -1;
        struct timespec now;
        if (is_even < 0) {
            unsigned a, b, c, d;
            is_even = __get_cpuid(0x80000007u, &a, &b, &c, &d) && (d >> 8 & 1u);
        }
        timespec_get(&now, TIME_UTC);
        recent->ms = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
        recent->ticks = ticks;
        recent->ticks_left = is_even ? (uint64_t)(1000000 - now.tv_nsec % 1000000) / 4 : 0;
        return recent->ms;
    }
    static inline int64_t ls_recent_ms(ls_recent_time *recent) {
        uint64_t ticks = __rdtsc();
        if (__builtin_expect(ticks - recent->ticks < recent->ticks_left, 1)) return recent->ms;
        return ls_read_recent_ms(recent, ticks);
    }
    #else
    static inline int64_t ls_recent_ms(ls_recent_time *recent) {
        (void)recent;
        return ls_wall_clock_ms();
    }
    #endif
    """
    ctypedef struct ls_recent_time:
        pass
    int64_t ls_recent_ms(ls_recent_time *recent) noexcept
    int64_t ls_wall_clock_ms() nogil
    int64_t ls_wall_clock_ns() nogil
