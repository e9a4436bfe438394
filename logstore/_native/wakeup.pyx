"""Sleeping until something happens: a signal that is kept, never lost, and costs next to nothing to give twice."""

from libc.math cimport INFINITY
from libc.stdint cimport int64_t
from cpython.pythread cimport (
    PyThread_acquire_lock,
    PyThread_allocate_lock,
    PyThread_free_lock,
    PyThread_type_lock,
)

from logstore._native.core cimport (
    ls_early_wake_announce,
    ls_early_wake_await,
    ls_early_wake_clear,
    ls_early_wake_init,
    ls_early_wake_prepare,
    ls_early_wake_publish,
    ls_early_wake_until_cleared,
)

import time


cdef extern from "Python.h" nogil:
    void PyThread_release_lock(PyThread_type_lock lock)
    ctypedef enum PyLockStatus:
        PY_LOCK_FAILURE
        PY_LOCK_ACQUIRED
        PY_LOCK_INTR
    PyLockStatus PyThread_acquire_lock_timed(PyThread_type_lock lock, long long microseconds, int intr_flag)

cdef extern from "Python.h":
    int PyErr_CheckSignals() except -1

# A month; what is longer sleeps again.
cdef long long TIMEOUT_US_MAX = 30 * 86_400 * 1_000_000

# How long the one that notifies lets it have the GIL first.
cdef int64_t YIELD_NS = 3_000


cdef class Waker:
    """What `LogState.add_waiter` and its like take: `notify` may be called from any thread, at any time."""

    cdef int signal(self) except -1:
        return 0

    cdef bint announce(self):
        return True

    cdef int follow(self, object log, object follower) except -1:
        return 0

    cdef int unfollow(self, object log) except -1:
        return 0

    def notify(self):
        """Tells of a change."""
        self.signal()

    def _follow(self, log, follower):
        """By the follower of a broker that only reads: who waits may look for itself what has come to this log."""
        self.follow(log, follower)

    def _unfollow(self, log):
        """Takes `_follow` back."""
        self.unfollow(log)

    def _announce(self):
        """What the writer of a log does before a write: tells that `notify` is likely to follow at once.

        Returns
        -------
        bool
            Whether anybody waits for it.
        """
        return self.announce()


cdef class Wakeup(Waker):
    """Something to sleep on. One thread waits, or one event loop listens; any thread may call `notify`.

    A notification that comes before the wait is kept, so that none is lost between looking and waiting. Both sides
    hold the GIL while they look at `is_set`, which is all the locking there is. What is announced wakes the sleeper early
    and notifies of nothing: without a notification it sleeps again.
    """

    def __cinit__(self):
        self.lock = PyThread_allocate_lock()
        if self.lock == NULL:
            raise MemoryError("no lock to wait on")
        PyThread_acquire_lock(self.lock, 1)
        ls_early_wake_init(&self.early)

    def __dealloc__(self):
        if self.lock != NULL:
            if not self.is_released:
                PyThread_release_lock(self.lock)
            PyThread_free_lock(self.lock)

    cdef int signal(self) except -1:
        if self.is_set:
            return 0
        self.is_set = True
        if not self.is_released:
            self.is_released = True
            with nogil:
                PyThread_release_lock(self.lock)
        elif ls_early_wake_publish(&self.early):
            # It is awake and wants the GIL: if it had to ask for it, it would sleep once more.
            with nogil:
                ls_early_wake_until_cleared(&self.early, YIELD_NS)
        if self.listener is not None:
            self.listener()
        return 0

    cdef bint announce(self):
        if self.is_set:
            return False
        if self.is_asleep and not self.is_released and ls_early_wake_announce(&self.early):
            self.is_released = True
            PyThread_release_lock(self.lock)
        return True

    cdef bint sleep(self, long long timeout_us) except -1:
        """Sleeps until signalled; False after the timeout, or where a signal of the operating system came first, or
        where something was announced and did not come."""
        cdef PyLockStatus status
        ls_early_wake_prepare(&self.early)
        self.is_asleep = True
        with nogil:
            status = PyThread_acquire_lock_timed(self.lock, timeout_us, 1)
            if status == PY_LOCK_ACQUIRED:
                # Without the GIL, which the one that announced it needs; whether anything came is decided below, with it.
                ls_early_wake_await(&self.early, LOOK_OUT_NS)
        self.is_asleep = False
        if status == PY_LOCK_ACQUIRED:
            ls_early_wake_clear(&self.early)
            self.is_released = False
            if self.is_set:
                self.is_set = False
                return True
            return False
        if status == PY_LOCK_INTR:
            PyErr_CheckSignals()
        return False

    def wait(self, timeout=None):
        """Sleeps until notified.

        Parameters
        ----------
        timeout : float, optional
            Seconds; None for ever.

        Returns
        -------
        bool
            Whether it was notified, now or before. Ctrl-C interrupts the wait at once.
        """
        return self.wait_for(INFINITY if timeout is None else timeout)

    cdef bint wait_for(self, double left) except -1:
        cdef double deadline
        if self.is_set:
            return self.clear()
        if left == INFINITY:
            while not self.sleep(TIMEOUT_US_MAX):
                pass
            return True
        if left <= 0:
            return False
        deadline = time.monotonic() + left
        while True:
            if self.sleep(TIMEOUT_US_MAX if left * 1e6 > TIMEOUT_US_MAX else <long long>(left * 1e6) + 1):
                return True
            left = deadline - <double>time.monotonic()
            if left <= 0:
                return self.clear()

    def clear(self):
        """Forgets a notification; True where there was one."""
        if not self.is_set:
            return False
        PyThread_acquire_lock(self.lock, 1)  # at once: it stays released while is_set
        ls_early_wake_clear(&self.early)
        self.is_released = False
        self.is_set = False
        return True

    def listen(self, listener):
        """Has ``listener()`` called by each notification, in the thread that notifies; None ends it.

        Where there is a notification already, the listener is called now.
        """
        self.listener = listener
        if listener is not None and self.is_set:
            listener()
