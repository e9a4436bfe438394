"""Sleeping until something happens: a signal that is kept, never lost, and costs next to nothing to give twice."""

from libc.math cimport INFINITY
from cpython.pythread cimport (
    PyThread_acquire_lock,
    PyThread_allocate_lock,
    PyThread_free_lock,
    PyThread_type_lock,
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


cdef class Waker:
    """What `LogState.add_waiter` and its like take: `notify` may be called from any thread, at any time."""

    cdef int signal(self) except -1:
        return 0

    def notify(self):
        """Tells of a change."""
        self.signal()


cdef class Wakeup(Waker):
    """Something to sleep on. One thread waits, or one event loop listens; any thread may call `notify`.

    A notification that comes before the wait is kept, so that none is lost between looking and waiting. Both sides
    hold the GIL while they look at `is_set`, which is all the locking there is.
    """

    def __cinit__(self):
        self.lock = PyThread_allocate_lock()
        if self.lock == NULL:
            raise MemoryError("no lock to wait on")
        PyThread_acquire_lock(self.lock, 1)

    def __dealloc__(self):
        if self.lock != NULL:
            if not self.is_set:
                PyThread_release_lock(self.lock)
            PyThread_free_lock(self.lock)

    cdef int signal(self) except -1:
        if self.is_set:
            return 0
        self.is_set = True
        with nogil:
            PyThread_release_lock(self.lock)
        if self.listener is not None:
            self.listener()
        return 0

    cdef bint sleep(self, long long timeout_us) except -1:
        """Sleeps until signalled; False after the timeout, or where a signal of the operating system came first."""
        cdef PyLockStatus status
        with nogil:
            status = PyThread_acquire_lock_timed(self.lock, timeout_us, 1)
        if status == PY_LOCK_ACQUIRED:
            self.is_set = False
            return True
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
        PyThread_acquire_lock(self.lock, 1)  # at once: it is released while is_set
        self.is_set = False
        return True

    def listen(self, listener):
        """Has ``listener()`` called by each notification, in the thread that notifies; None ends it.

        Where there is a notification already, the listener is called now.
        """
        self.listener = listener
        if listener is not None and self.is_set:
            listener()
