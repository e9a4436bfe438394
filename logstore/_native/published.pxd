# Numbers that one thread stores and others load without a lock: what was written before the store is seen after the load.

from libc.stdint cimport int64_t


cdef extern from *:
    """
    #include <stdint.h>
    #if defined(_MSC_VER) /* volatile is acquire and release there, under /volatile:ms */
    static inline void ls_publish(int64_t *at, int64_t value) { *(volatile int64_t *)at = value; }
    static inline int64_t ls_observe(const int64_t *at) { return *(const volatile int64_t *)at; }
    static inline void ls_publish_pointer(void **at, void *value) { *(void *volatile *)at = value; }
    static inline void *ls_observe_pointer(void **at) { return *(void *volatile *)at; }
    #else
    static inline void ls_publish(int64_t *at, int64_t value) { __atomic_store_n(at, value, __ATOMIC_RELEASE); }
    static inline int64_t ls_observe(const int64_t *at) { return __atomic_load_n(at, __ATOMIC_ACQUIRE); }
    static inline void ls_publish_pointer(void **at, void *value) { __atomic_store_n(at, value, __ATOMIC_RELEASE); }
    static inline void *ls_observe_pointer(void **at) { return __atomic_load_n(at, __ATOMIC_ACQUIRE); }
    #endif
    """
    void ls_publish(int64_t *at, int64_t value) noexcept nogil
    int64_t ls_observe(const int64_t *at) noexcept nogil
    void ls_publish_pointer(void **at, void *value) noexcept nogil
    void *ls_observe_pointer(void **at) noexcept nogil
