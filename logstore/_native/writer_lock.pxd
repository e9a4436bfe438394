# The lock of a log's writer: taken and let go with the GIL held, kept while it is let go in between.
#
# Nearly always nobody else has it. Then it costs next to nothing: an ordinary lock asks the clock twice and makes two atomic
# operations, more than encoding a record. From Python 3.13 on it is a PyMutex, which needs no GIL. Before, the GIL is what
# keeps the numbers together, and threads that have to wait sleep at a gate.
# Who lets go does not hand on: whoever comes first has it. Handing on would cost two threads that append a turn of the GIL
# each record.


cdef extern from *:
    """
    #include <pythread.h>
    #if PY_VERSION_HEX >= 0x030D0000
    typedef struct { PyMutex mutex; } ls_writer_lock;
    static inline int ls_writer_lock_init(ls_writer_lock *lock) {
        *lock = (ls_writer_lock){{0}};
        return 0;
    }
    static inline void ls_writer_lock_free(ls_writer_lock *lock) { (void)lock; }
    static inline void ls_writer_lock_acquire(ls_writer_lock *lock) { PyMutex_Lock(&lock->mutex); }
    static inline void ls_writer_lock_release(ls_writer_lock *lock) { PyMutex_Unlock(&lock->mutex); }
    #else
    typedef struct {
        PyThread_type_lock gate; /* free while somebody is called */
        int is_held;
        int waiting;   /* threads at the gate */
        int is_called; /* one of them is, and has not come yet */
    } ls_writer_lock;
    static inline int ls_writer_lock_init(ls_writer_lock *lock) {
        *lock = (ls_writer_lock){PyThread_allocate_lock(), 0, 0, 0};
        if (lock->gate == NULL) return -1;
        PyThread_acquire_lock(lock->gate, NOWAIT_LOCK);
        return 0;
    }
    static inline void ls_writer_lock_free(ls_writer_lock *lock) {
        if (lock->gate == NULL) return;
        PyThread_free_lock(lock->gate);
        lock->gate = NULL;
    }
    static inline void ls_writer_lock_wait(ls_writer_lock *lock) {
        lock->waiting++;
        do {
            Py_BEGIN_ALLOW_THREADS
            PyThread_acquire_lock(lock->gate, WAIT_LOCK);
            Py_END_ALLOW_THREADS
            lock->is_called = 0;
        } while (lock->is_held);
        lock->waiting--;
        lock->is_held = 1;
    }
    static inline void ls_writer_lock_acquire(ls_writer_lock *lock) {
        if (lock->is_held) {
            ls_writer_lock_wait(lock);
        } else {
            lock->is_held = 1;
        }
    }
    static inline void ls_writer_lock_release(ls_writer_lock *lock) {
        lock->is_held = 0;
        if (lock->waiting && !lock->is_called) {
            lock->is_called = 1;
            PyThread_release_lock(lock->gate);
        }
    }
    #endif
    """
    ctypedef struct ls_writer_lock:
        pass
    int ls_writer_lock_init(ls_writer_lock *lock)
    void ls_writer_lock_free(ls_writer_lock *lock)
    void ls_writer_lock_acquire(ls_writer_lock *lock) noexcept
    void ls_writer_lock_release(ls_writer_lock *lock) noexcept
