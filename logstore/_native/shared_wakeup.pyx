"""Sleeping where a writer in another process sees it, so that it is woken without anybody in between."""

from libc.stdint cimport uint32_t
from libc.stdlib cimport calloc, free
from cpython.bytes cimport PyBytes_AS_STRING
from logstore._native.core cimport (
    LS_OK,
    LS_WAKE_MARK_WORDS,
    LS_WAKE_NEWS,
    LS_WAKE_SIGNAL,
    ls_fault,
    ls_wake_reader,
    ls_wake_reader_close,
    ls_wake_reader_collect,
    ls_wake_reader_descriptor,
    ls_wake_reader_follow,
    ls_wake_reader_open,
    ls_wake_reader_ring,
    ls_wake_reader_sleep,
    ls_wake_reader_unfollow,
    ls_wake_sleep,
)
from logstore._native.log_flusher cimport CAUGHT_SOME, LogFlusher
from logstore._native.waiting_readers cimport bucket_of, forks_count
from logstore._native.wakeup cimport LOOK_OUT_NS, Wakeup

import os
import time

from logstore.errors import LogstoreError

cdef extern from "Python.h":
    int PyErr_CheckSignals() except -1

# How often a table is looked for that is not there, or has no room.
cdef double ATTACH_SECONDS = 1.0


cdef class SharedWakeup(Wakeup):
    """A `Wakeup` of which the thread that waits may have a place of its own in the table of a data directory's writer.

    It takes one with its first sleep, if logs are followed that another process writes, and sleeps there from then on:
    signals within the process come there, too. The writer's are looked at by that thread alone, before it sleeps, and
    whenever it has nothing else to hand out. Where there is no place, and for event loops, the broker's follower
    looks, as it does for whatever the table does not tell.
    """

    def __cinit__(self):
        self.logs = {}
        self.directories = {}
        self.forks = forks_count()

    def __dealloc__(self):
        self.release()

    cdef void release(self) noexcept:
        if self.reader != NULL:
            ls_wake_reader_close(self.reader)  # of a parent's place it touches nothing
            free(self.reader)
            self.reader = NULL

    # ---- from any thread ----------------------------------------------------------------------------

    cdef int signal(self) except -1:
        if self.reader == NULL:
            return Wakeup.signal(self)
        if not self.is_set:
            self.is_set = True
            if not self.is_looking and self.forks == forks_count():
                ls_wake_reader_ring(self.reader)
        return 0

    cdef bint announce(self):
        return Wakeup.announce(self) if self.reader == NULL else False  # the writer has done so itself

    def _look_again(self):
        """For the follower: its table is another one now, or that may be."""
        self.is_stale = True
        if self.reader != NULL and self.forks == forks_count():
            ls_wake_reader_ring(self.reader)

    # ---- what is followed ---------------------------------------------------------------------------

    cdef int follow(self, object log, object follower) except -1:
        """Looks for what comes to one more log, as soon as there is a place to sleep in."""
        cdef str directory = log.path
        cdef object bucket = bucket_of(directory)
        self.follower = follower
        self.logs[directory] = log
        if directory not in self.directories.get(bucket, ()):
            self.directories[bucket] = (*self.directories.get(bucket, ()), directory)
        if self.reader != NULL:
            ls_wake_reader_follow(self.reader, bucket)
            self.offer()
        return 0

    cdef int unfollow(self, object log) except -1:
        """Takes `follow` back."""
        cdef str directory = log.path
        cdef object bucket = bucket_of(directory)
        if self.logs.pop(directory, None) is None:
            return 0
        self.follower.unserve(directory, self)
        left = tuple([other for other in self.directories[bucket] if other != directory])
        if left:
            self.directories[bucket] = left
            return 0
        del self.directories[bucket]
        if self.reader != NULL:
            if self.logs:
                ls_wake_reader_unfollow(self.reader, bucket)
            else:
                self.detach()
        return 0

    # ---- the place in the table ---------------------------------------------------------------------

    cdef int attach(self) except -1:
        """Takes a place, if there is one to be had."""
        cdef ls_fault fault
        cdef bytes path
        cdef ls_wake_reader *reader
        if self.has_listened or not self.logs or self.forks != forks_count() or <double>time.monotonic() < self.attach_at:
            return 0
        self.attach_at = <double>time.monotonic() + ATTACH_SECONDS
        path = os.fsencode(self.follower.table_path)
        reader = <ls_wake_reader *>calloc(1, sizeof(ls_wake_reader))
        if reader == NULL:
            return 0
        if ls_wake_reader_open(PyBytes_AS_STRING(path), reader, &fault) != LS_OK:
            free(reader)
            return 0
        was_set = self.clear()
        self.reader = reader
        self.is_stale = False
        if was_set:
            self.signal()
        for bucket in list(self.directories):
            ls_wake_reader_follow(reader, bucket)
        self.offer()
        for log in list(self.logs.values()):
            self.follower.look(log, True)  # what was staged before is told by nobody
        return 0

    cdef int offer(self) except -1:
        """From here on the follower need not tell what the writer signals, if it goes by the same table."""
        for directory in list(self.logs):
            if self.reader != NULL:
                self.follower.serve(directory, self, ls_wake_reader_descriptor(self.reader))
        return 0

    cdef int detach(self) except -1:
        """Gives the place back: the follower tells everything again."""
        for directory in list(self.logs):
            self.follower.unserve(directory, self)
        was_set = self.clear()
        self.release()
        if was_set:
            self.signal()
        for log in list(self.logs.values()):
            self.follower.look(log, True)  # what was signalled up to now
        return 0

    cdef int renew(self) except -1:
        """After a change of tables: is the place that we have in the one that writers look at?"""
        self.is_stale = False
        try:
            found = os.stat(self.follower.table_path)
            is_there = os.path.samestat(found, os.fstat(ls_wake_reader_descriptor(self.reader)))
        except OSError:
            is_there = False
        if is_there:
            return self.offer()
        self.detach()
        self.attach_at = 0.0
        return self.attach()

    # ---- waiting: one thread ------------------------------------------------------------------------

    cdef int look(self) except -1:
        """Has the logs catch up that the writer has signalled; they notify whoever waits, us as well."""
        cdef uint32_t changed[LS_WAKE_MARK_WORDS]
        cdef uint32_t more[LS_WAKE_MARK_WORDS]
        cdef int i, j
        cdef bint found
        if self.forks != forks_count():
            self.release()
            return 0
        found = ls_wake_reader_collect(self.reader, changed, more)
        if self.is_stale:
            self.renew()  # has the follower look at all of it, where we were in another table
        if not found:
            return 0
        self.is_looking = True
        try:
            for i in range(LS_WAKE_MARK_WORDS):
                if not changed[i]:
                    continue
                for j in range(32):
                    if changed[i] >> j & 1:
                        for directory in self.directories.get(32 * i + j, ()):
                            self.look_at(self.logs[directory], (more[i] >> j & 1) != 0)
        finally:
            self.is_looking = False
        return 0

    cdef int look_at(self, LogFlusher log, bint is_more) except -1:
        if not is_more:
            try:
                if log.catch_up_now() == CAUGHT_SOME:
                    return 0
            except LogstoreError:
                pass  # which the follower finds once more, and tells of
        self.follower.look(log, is_more)
        return 0

    cdef bint sleep(self, long long timeout_us) except -1:
        cdef ls_wake_sleep how
        if self.reader != NULL and self.forks != forks_count():
            self.release()
        if self.reader == NULL:
            self.attach()
        if self.reader == NULL:
            return Wakeup.sleep(self, timeout_us)
        with nogil:
            how = ls_wake_reader_sleep(self.reader, timeout_us * 1000, LOOK_OUT_NS)
        if how == LS_WAKE_SIGNAL:
            PyErr_CheckSignals()
        elif how == LS_WAKE_NEWS:
            self.look()
        if self.is_set:
            self.is_set = False
            return True
        return False

    def clear(self):
        """Forgets a notification; True where there was one."""
        if self.reader == NULL:
            return Wakeup.clear(self)
        was_set = self.is_set
        self.is_set = False
        return was_set

    def listen(self, listener):
        """As for any other; an event loop is told by the follower from then on."""
        if listener is not None and not self.has_listened:
            self.has_listened = True
            if self.reader != NULL:
                self.detach()
        return Wakeup.listen(self, listener)
