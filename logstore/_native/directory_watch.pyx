"""Sleeping until files in directories change that another process writes, without the GIL."""

from libc.limits cimport INT_MAX
from cpython.bytes cimport PyBytes_AS_STRING
from logstore._native.core cimport (
    LS_EVERY_DIRECTORY,
    LS_OK,
    ls_directory_change,
    ls_directory_watch,
    ls_directory_watch_add,
    ls_directory_watch_close,
    ls_directory_watch_open,
    ls_directory_watch_remove,
    ls_directory_watch_wait,
    ls_directory_watch_wake,
    ls_fault,
    ls_status,
)
from logstore._native.faults cimport raise_fault

import os

cdef extern from "Python.h":
    int PyErr_CheckSignals() except -1

# Directories told apart with one wake-up; where more have changed, all are looked at.
cdef enum:
    CHANGES_MAX = 64


cdef class NotifiedWatch:
    """The kernel's notifications. One thread waits; any thread may do the rest.

    Raises
    ------
    UnsupportedFormatError
        There are none on this system.
    StorageFailureError
        The system grants no more of them.
    """

    cdef ls_directory_watch *watch
    cdef dict directories       # by number
    cdef int waiting_count
    cdef bint is_closed

    def __cinit__(self):
        cdef ls_fault fault
        self.directories = {}
        if ls_directory_watch_open(&self.watch, &fault) != LS_OK:
            self.watch = NULL
            raise_fault(&fault, "inotify")

    def __dealloc__(self):
        ls_directory_watch_close(self.watch)

    def add(self, str directory not None):
        """Watches one more; one that is watched already stays so."""
        cdef int number
        cdef ls_fault fault
        cdef bytes encoded = os.fsencode(directory)
        if self.is_closed:
            return
        if ls_directory_watch_add(self.watch, PyBytes_AS_STRING(encoded), &number, &fault) != LS_OK:
            raise_fault(&fault, directory)
        self.directories[number] = directory

    def remove(self, str directory not None):
        """Takes `add` back."""
        for number, name in list(self.directories.items()):
            if name == directory:
                del self.directories[number]
                if not self.is_closed:
                    ls_directory_watch_remove(self.watch, number)

    def wait(self, timeout=None):
        """Sleeps until something changes.

        Parameters
        ----------
        timeout : float, optional
            Seconds; None for ever.

        Returns
        -------
        dict[str, bool]
            The directories where it did, perhaps too many, each with whether more has changed there than what ``.log`` files
            hold. Empty after the timeout, after `wake`, and after a signal whose handler has not raised.
        """
        cdef ls_directory_change changes[CHANGES_MAX]
        cdef size_t count = 0
        cdef size_t i
        cdef ls_fault fault
        cdef ls_status status
        cdef int timeout_ms = -1
        cdef double left_ms
        cdef dict changed = {}
        if self.is_closed:
            return changed
        if timeout is not None:
            left_ms = max(<double>timeout, 0.0) * 1000
            timeout_ms = INT_MAX if left_ms >= INT_MAX else <int>left_ms
            timeout_ms += timeout_ms < left_ms
        self.waiting_count += 1
        with nogil:
            status = ls_directory_watch_wait(self.watch, timeout_ms, changes, CHANGES_MAX, &count, &fault)
        self.waiting_count -= 1
        if self.is_closed:
            self.let_go()
            return changed
        if status != LS_OK:
            raise_fault(&fault, "inotify")
        if count == 0:
            PyErr_CheckSignals()
        for i in range(count):
            if changes[i].directory == LS_EVERY_DIRECTORY:
                return dict.fromkeys(self.directories.values(), True)
            directory = self.directories.get(changes[i].directory)
            if directory is not None:
                changed[directory] = changes[i].is_more != 0
        return changed

    def wake(self):
        """Has `wait` return, now or when it is called next."""
        if not self.is_closed:
            ls_directory_watch_wake(self.watch)

    def close(self):
        """Ends it, also for who waits. Idempotent."""
        if not self.is_closed:
            ls_directory_watch_wake(self.watch)
            self.is_closed = True
            self.let_go()

    cdef void let_go(self) noexcept:
        """The descriptors go once nobody waits on them."""
        if self.waiting_count == 0:
            ls_directory_watch_close(self.watch)
            self.watch = NULL
