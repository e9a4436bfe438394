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
    """
    int64_t ls_wall_clock_ms() nogil
    int64_t ls_wall_clock_ns() nogil
