# The lock of a log's writer: taken and let go with the GIL held, kept while it is let go in between.
#
# Nearly always nobody else has it. Then it costs next to nothing: an ordinary lock asks the clock twice and makes two atomic
# operations, more than encoding a record. From Python 3.13 on it is a PyMutex, which needs no GIL. Before, the GIL is what
# keeps the numbers together, and threads that have to wait sleep at a gate.
# Who lets go does not hand on: whoever comes first has it. Handing on would cost two threads that append a turn of the GIL
# each record. But a thread that writes lets go of the GIL just while it has the lock, so that others would find it taken
# each time they look: who has looked in vain too often is passed over no longer, and newcomers let it go first.
# A thread that has it and asks again, in a signal handler or a finalizer, is told so: it would wait for itself.


cdef extern from *:
    """
    #include <pythread.h>
    #if PY_VERSION_HEX >= 0x030D0000
    typedef struct {
        PyMutex mutex;
        unsigned long owner; /* its thread; 0 for none */
    } ls_writer_lock;
    static inline int ls_writer_lock_init(ls_writer_lock *lock) {
        *lock = (ls_writer_lock){{0}, 0};
        return 0;
    }
    static inline void ls_writer_lock_free(ls_writer_lock *lock) { (void)lock; }
    static inline int ls_writer_lock_acquire(ls_writer_lock *lock) {
        unsigned long thread = PyThread_get_thread_ident();
        if (__atomic_load_n(&lock->owner, __ATOMIC_RELAXED) == thread) return -1;
        PyMutex_Lock(&lock->mutex);
        __atomic_store_n(&lock->owner, thread, __ATOMIC_RELAXED);
        return 0;
    }
    static inline void ls_writer_lock_release(ls_writer_lock *lock) {
        __atomic_store_n(&lock->owner, 0, __ATOMIC_RELAXED);
        PyMutex_Unlock(&lock->mutex);
    }
    static inline int ls_writer_lock_is_free(const ls_writer_lock *lock) {
    #ifdef Py_GIL_DISABLED
        (void)lock;
        return 0; /* nothing would keep others away */
    #else
        return __atomic_load_n(&lock->owner, __ATOMIC_RELAXED) == 0;
    #endif
    }
    #else
    typedef struct {
        PyThread_type_lock gate; /* free while somebody is called */
        unsigned long owner; /* the thread that holds it, while it is held */
        int is_held;
        int waiting;   /* threads at the gate */
        int is_called; /* one of them is, and has not come yet */
        int starving;  /* those of them that have come in vain too often */
    } ls_writer_lock;
    enum { LS_VAIN_CALLS_MAX = 32, LS_NAP_US = 50 };
    static inline int ls_writer_lock_init(ls_writer_lock *lock) {
        *lock = (ls_writer_lock){.gate = PyThread_allocate_lock()};
        if (lock->gate == NULL) return -1;
        PyThread_acquire_lock(lock->gate, NOWAIT_LOCK);
        return 0;
    }
    static inline void ls_writer_lock_free(ls_writer_lock *lock) {
        if (lock->gate == NULL) return;
        PyThread_free_lock(lock->gate);
        lock->gate = NULL;
    }
    /* A newcomer naps while others starve, apart from the gate, where it might take what calls them. */
    static inline void ls_writer_lock_let_others(ls_writer_lock *lock) {
        PyThread_type_lock nap = PyThread_allocate_lock();
        if (nap == NULL) return;
        PyThread_acquire_lock(nap, NOWAIT_LOCK);
        while (lock->starving) {
            Py_BEGIN_ALLOW_THREADS
            PyThread_acquire_lock_timed(nap, LS_NAP_US, 0);
            Py_END_ALLOW_THREADS
        }
        PyThread_release_lock(nap);
        PyThread_free_lock(nap);
    }
    static inline void ls_writer_lock_wait(ls_writer_lock *lock) {
        int calls = 0;
        if (lock->starving) ls_writer_lock_let_others(lock);
        if (lock->is_held) {
            lock->waiting++;
            do {
                if (calls++ == LS_VAIN_CALLS_MAX) lock->starving++;
                Py_BEGIN_ALLOW_THREADS
                PyThread_acquire_lock(lock->gate, WAIT_LOCK);
                Py_END_ALLOW_THREADS
                lock->is_called = 0;
            } while (lock->is_held);
            lock->waiting--;
            if (calls > LS_VAIN_CALLS_MAX) lock->starving--;
        }
        lock->is_held = 1;
    }
    static inline int ls_writer_lock_acquire(ls_writer_lock *lock) {
        unsigned long thread = PyThread_get_thread_ident();
        if (lock->is_held | lock->starving) {
            if (lock->is_held && lock->owner == thread) return -1;
            ls_writer_lock_wait(lock);
        } else {
            lock->is_held = 1;
        }
        lock->owner = thread;
        return 0;
    }
    static inline void ls_writer_lock_release(ls_writer_lock *lock) {
        lock->is_held = 0;
        if (lock->waiting && !lock->is_called) {
            lock->is_called = 1;
            PyThread_release_lock(lock->gate);
        }
    }
    static inline int ls_writer_lock_is_free(const ls_writer_lock *lock) { return !(lock->is_held | lock->starving); }
    #endif
    """
    ctypedef struct ls_writer_lock:
        pass
    int ls_writer_lock_init(ls_writer_lock *lock)
    void ls_writer_lock_free(ls_writer_lock *lock)
    int ls_writer_lock_acquire(ls_writer_lock *lock) noexcept  # -1: the calling thread has it
    void ls_writer_lock_release(ls_writer_lock *lock) noexcept
    # For a step that neither lets go of the GIL nor runs Python code: where nobody has the lock, it need not be taken.
    bint ls_writer_lock_is_free(const ls_writer_lock *lock) noexcept
