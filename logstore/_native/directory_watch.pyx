"""Sleeping until files in directories change that another process writes, without the GIL."""

from libc.limits cimport INT_MAX
from libc.math cimport INFINITY
from libc.stdint cimport INT64_MAX, int64_t, uint32_t
from libc.stdlib cimport calloc, free
from cpython.bytes cimport PyBytes_AS_STRING
from logstore._native.core cimport (
    LS_EVERY_DIRECTORY,
    LS_OK,
    LS_WAKE_MARK_WORDS,
    LS_WAKE_NEWS,
    LS_WAKE_SIGNAL,
    LS_WATCHED_CONTENTS,
    LS_WATCHED_END,
    LS_WATCHED_NAMES,
    ls_directory_change,
    ls_directory_watch,
    ls_directory_watch_add,
    ls_directory_watch_close,
    ls_directory_watch_end_relay,
    ls_directory_watch_is_parked,
    ls_directory_watch_open,
    ls_directory_watch_relay,
    ls_directory_watch_remove,
    ls_directory_watch_resume,
    ls_directory_watch_wait,
    ls_directory_watch_wake,
    ls_fault,
    ls_status,
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
    ls_watched,
)
from logstore._native.faults cimport raise_fault
from logstore._native.log_flusher cimport CAUGHT_SOME, LogFlusher
from logstore._native.waiting_readers cimport bucket_of, forks_count
from logstore._native.wakeup cimport LOOK_OUT_NS

import os
import time

from logstore.errors import StorageFailureError

cdef extern from "Python.h":
    int PyErr_CheckSignals() except -1

# Directories told apart with one wake-up; where more have changed, all are looked at.
cdef enum:
    CHANGES_MAX = 64

# How often a table is looked for that is not there, or has no room.
cdef double ATTACH_SECONDS = 1.0

cdef void ring(void *reader) noexcept nogil:
    ls_wake_reader_ring(<ls_wake_reader *>reader)


cdef class NotifiedWatch:
    """The kernel's notifications, and the signals of a writer that knows of us. One thread waits; any may do the rest.

    The writer's come first, by memory shared with it, and ahead of what they tell of (`ls_wake_reader`). A thread relays the
    kernel's. Of a directory whose writer has signalled, the kernel is no longer asked to tell of each write, which makes a
    write slower; until the writer is done, of which it tells, since the next one may not know of us.

    Parameters
    ----------
    table_path : str, optional
        Where the writer of the directories beside it looks who waits; there may be no such file.

    Raises
    ------
    UnsupportedFormatError
        There are no notifications on this system.
    StorageFailureError
        The system grants no more of them.
    """

    cdef ls_directory_watch *watch
    cdef ls_wake_reader *reader     # NULL: nobody signals
    cdef str table_path
    cdef str parent                 # of the directories whose writer may signal
    cdef double attach_at
    cdef int table_number           # of the table's file among what is watched; -1: it is not
    cdef dict directories           # by number
    cdef dict watched               # by directory: its number, and its encoded path
    cdef dict followed              # directories whose writer may signal, by bucket
    cdef Py_ssize_t followed_count
    cdef set signalled              # of those, the ones whose writer does
    cdef set served                 # of which all who wait have places of their own in the table
    cdef readonly int table_changes     # how often we came into a table, or left one
    cdef int forks_count
    cdef int waiting_count
    cdef bint is_closed

    def __cinit__(self, str table_path=None):
        self.table_path = table_path
        self.parent = "" if table_path is None else os.path.dirname(table_path)
        self.open()

    def __dealloc__(self):
        self.release()

    cdef int open(self) except -1:
        cdef ls_fault fault
        self.directories = {}
        self.watched = {}
        self.followed = {}
        self.followed_count = 0
        self.signalled = set()
        self.served = set()
        self.table_number = -1
        self.attach_at = 0.0
        self.forks_count = forks_count()
        if ls_directory_watch_open(&self.watch, &fault) != LS_OK:
            self.watch = NULL
            raise_fault(&fault, "inotify")
        return 0

    cdef void release(self) noexcept:
        ls_directory_watch_close(self.watch)  # first: its thread rings the reader
        self.watch = NULL
        self.release_reader()

    cdef void release_reader(self) noexcept:
        if self.reader != NULL:
            ls_wake_reader_close(self.reader)
            free(self.reader)
            self.reader = NULL

    cdef int watch_path(self, bytes path, object name, ls_watched what) except? -1:
        """Number of the watch. One step: other threads come in before or after it."""
        cdef int number
        cdef ls_fault fault
        if ls_directory_watch_add(self.watch, PyBytes_AS_STRING(path), what, &number, &fault) != LS_OK:
            raise_fault(&fault, name)
        return number

    # ---- what is watched ----------------------------------------------------------------------------

    def add(self, str directory not None):
        """Watches one more; one that is watched already stays so."""
        cdef bytes path = os.fsencode(directory)
        cdef bint is_followed = bool(self.parent) and os.path.dirname(directory) == self.parent
        cdef object bucket = bucket_of(directory)
        if self.is_closed or directory in self.watched:
            return
        number = self.watch_path(path, directory, LS_WATCHED_CONTENTS)
        self.directories[number] = directory
        self.watched[directory] = (number, path)
        if is_followed:
            self.followed[bucket] = (*self.followed.get(bucket, ()), directory)
            self.followed_count += 1
            if self.reader != NULL:
                ls_wake_reader_follow(self.reader, bucket)

    def remove(self, str directory not None):
        """Takes `add` back."""
        cdef object bucket = bucket_of(directory)
        found = self.watched.pop(directory, None)
        if found is None:
            return
        self.directories.pop(found[0], None)
        self.signalled.discard(directory)
        self.served.discard(directory)
        before = self.followed.pop(bucket, ())
        left = tuple([other for other in before if other != directory])
        self.followed_count -= len(before) - len(left)
        if left:
            self.followed[bucket] = left
        if not self.is_closed:
            if before and not left and self.reader != NULL:
                ls_wake_reader_unfollow(self.reader, bucket)
            ls_directory_watch_remove(self.watch, found[0])

    cdef int attach(self) except -1:
        """Takes a place in the writer's table, if there is one to be had."""
        cdef ls_wake_reader *reader
        cdef ls_fault fault
        cdef bytes path = os.fsencode(self.table_path)
        self.attach_at = <double>time.monotonic() + ATTACH_SECONDS
        reader = <ls_wake_reader *>calloc(1, sizeof(ls_wake_reader))
        if reader == NULL:
            return 0
        if ls_wake_reader_open(PyBytes_AS_STRING(path), reader, &fault) != LS_OK:
            free(reader)
            return 0
        self.reader = reader
        try:
            self.table_number = self.watch_path(path, self.table_path, LS_WATCHED_END)
        except StorageFailureError:
            self.release_reader()
            return 0
        # Watched by its name: it must still be the file that we have open.
        if not self.is_in_table() or ls_directory_watch_relay(self.watch, ring, reader, &fault) != LS_OK:
            self.detach()
            return 0
        for bucket in list(self.followed):
            ls_wake_reader_follow(reader, bucket)
        self.table_changes += 1
        ls_wake_reader_ring(reader)  # what came before is for the caller to look at
        return 0

    cdef int detach(self) except -1:
        ls_directory_watch_end_relay(self.watch)
        ls_directory_watch_remove(self.watch, self.table_number)
        self.table_number = -1
        self.release_reader()
        self.served.clear()
        self.table_changes += 1
        return 0

    # ---- who looks for himself ----------------------------------------------------------------------

    def is_in(self, int descriptor):
        """Whether the table that this watch is in is the file that is open as ``descriptor``."""
        cdef int changes = self.table_changes
        if self.is_closed or self.reader == NULL or self.forks_count != forks_count():
            return False
        ours = os.fstat(ls_wake_reader_descriptor(self.reader))
        return os.path.samestat(os.fstat(descriptor), ours) and changes == self.table_changes

    def serve(self, str directory not None):
        """All who wait for a directory's log have places of their own in the table that this watch is in. What the writer
        signals is theirs from here on; all else is told as before, and all of it once the watch is in another table."""
        if not self.is_closed and self.reader != NULL and directory in self.watched:
            self.served.add(directory)
            self.rest(directory)

    def unserve(self, str directory not None):
        """Takes `serve` back."""
        if directory in self.served:
            self.served.discard(directory)
            if not self.is_closed and self.reader != NULL:
                ls_wake_reader_follow(self.reader, bucket_of(directory))

    cdef int rest(self, object directory) except -1:
        """Has signals pass us by that others look at. Not before the first one has come: it says that the writer does."""
        cdef object bucket = bucket_of(directory)
        for other in self.followed.get(bucket, ()):
            if other not in self.served or other not in self.signalled:
                return 0
        ls_wake_reader_unfollow(self.reader, bucket)
        return 0

    cdef bint is_in_table(self) except -1:
        """Whether the table we are in is the one that a writer finds who opens it now."""
        try:
            return os.path.samestat(os.stat(self.table_path), os.fstat(ls_wake_reader_descriptor(self.reader)))
        except OSError:
            return False

    cdef bint has_another_table(self) except -1:
        """Whether a table stands in the place of ours, deleted perhaps when no writer had it open. Asked where a change was
        not signalled; not often, as there are writers that do not."""
        cdef double now = time.monotonic()
        if now < self.attach_at:
            return False
        self.attach_at = now + ATTACH_SECONDS
        return os.path.exists(self.table_path) and not self.is_in_table()

    cdef int begin_again(self) except -1:
        """In a forked child, where all that we have is the parent's."""
        cdef list directories = list(self.watched)
        self.release()
        self.open()
        for directory in directories:
            self.add(directory)
        return 0

    # ---- waiting ------------------------------------------------------------------------------------

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
            hold. Empty after the timeout, after `wake`, after a signal whose handler has not raised, and also for nothing.
        """
        cdef dict changed = {}
        self.wait_once(-1.0 if timeout is None else max(<double>timeout, 0.0) * 1000, changed, None)
        return changed

    def follow(self, dict logs not None, timeout=None):
        """Sleeps until there is something new in one of some logs, which are those that are watched.

        Parameters
        ----------
        logs : dict[str, Log]
            By directory; of a process that only reads.
        timeout : float, optional
            Seconds; None for ever.

        Returns
        -------
        bool
            Whether there is. False after the timeout, and where the watch was closed.
        """
        cdef double left_ms = -1.0
        cdef double deadline = INFINITY
        cdef dict changed
        cdef bint is_new
        if timeout is not None:
            left_ms = max(<double>timeout, 0.0) * 1000
            deadline = <double>time.monotonic() + <double>timeout
        while not self.is_closed:
            changed = {}
            is_new = self.wait_once(left_ms, changed, logs)
            for directory, is_more in changed.items():
                log = logs[directory]
                if log.refresh() if is_more else log.catch_up():
                    is_new = True
            if is_new:
                return True
            if deadline != INFINITY:
                left_ms = (deadline - <double>time.monotonic()) * 1000
                if left_ms <= 0:
                    break
        return False

    cdef bint wait_once(self, double left_ms, dict changed, dict logs) except -1:
        """Notes what has changed. Where there are ``logs``, those of which only this is to be known catch up instead; says
        whether one of them has something new."""
        cdef bint is_new = False
        if self.is_closed:
            return False
        self.waiting_count += 1
        try:
            if self.forks_count != forks_count():
                self.begin_again()
                changed.update(dict.fromkeys(self.watched, True))
                return False
            if self.reader == NULL and self.parent and <double>time.monotonic() >= self.attach_at:
                self.attach()
                if self.reader != NULL and self.followed:
                    # What was staged before needs a whole look: the kernel does not tell of it (storage/open_batch.py).
                    changed.update({name: True for directories in self.followed.values() for name in directories})
                    return False
            if self.reader != NULL:
                is_new = self.wait_for_signals(left_ms, changed, logs)
            else:
                self.wait_for_events(left_ms, changed)
        finally:
            self.waiting_count -= 1
            if self.is_closed:
                self.let_go()
        return is_new

    cdef bint wait_for_signals(self, double left_ms, dict changed, dict logs) except -1:
        cdef ls_wake_sleep how
        cdef int64_t timeout_ns = -1
        if left_ms >= 0:
            timeout_ns = INT64_MAX if left_ms >= 9e12 else <int64_t>(left_ms * 1e6)
        with nogil:
            how = ls_wake_reader_sleep(self.reader, timeout_ns, LOOK_OUT_NS)
        if self.is_closed:
            return False
        if how == LS_WAKE_NEWS:
            return self.collect(changed, logs)
        if how == LS_WAKE_SIGNAL:
            PyErr_CheckSignals()
        return False

    cdef int wait_for_events(self, double left_ms, dict changed) except -1:
        cdef ls_directory_change changes[CHANGES_MAX]
        cdef size_t count = 0
        cdef ls_fault fault
        cdef ls_status status
        cdef int timeout_ms = -1
        if left_ms >= 0:
            timeout_ms = INT_MAX if left_ms >= INT_MAX else <int>left_ms
            timeout_ms += timeout_ms < left_ms
        with nogil:
            status = ls_directory_watch_wait(self.watch, timeout_ms, changes, CHANGES_MAX, &count, &fault)
        if self.is_closed:
            return 0
        if status != LS_OK:
            raise_fault(&fault, "inotify")
        if count == 0:
            PyErr_CheckSignals()
        self.tell(changed, changes, count)
        return 0

    cdef bint tell(self, dict changed, const ls_directory_change *changes, size_t count) except -1:
        """Adds what the kernel has told; returns whether a writer may be done."""
        cdef bint is_done = False
        cdef size_t i
        for i in range(count):
            if changes[i].directory == LS_EVERY_DIRECTORY:
                changed.update(dict.fromkeys(self.watched, True))
                return True
            if changes[i].directory == self.table_number:
                is_done = True
                continue
            directory = self.directories.get(changes[i].directory)
            if directory is not None:
                changed[directory] = changes[i].is_more != 0
        return is_done

    cdef bint collect(self, dict changed, dict logs) except -1:
        """Adds what was signalled, or rung for."""
        cdef uint32_t marked[LS_WAKE_MARK_WORDS]
        cdef uint32_t more[LS_WAKE_MARK_WORDS]
        cdef ls_directory_change changes[CHANGES_MAX]
        cdef size_t count = 0
        cdef ls_fault fault
        cdef bint is_signalled = ls_wake_reader_collect(self.reader, marked, more)
        cdef bint is_done = False
        cdef bint is_new = False
        # What was written before a signal is told of now, so that nobody is woken for it once more.
        if ls_directory_watch_is_parked(self.watch) or len(self.signalled) < self.followed_count:
            if ls_directory_watch_wait(self.watch, 0, changes, CHANGES_MAX, &count, &fault) != LS_OK:
                raise_fault(&fault, "inotify")
            ls_directory_watch_resume(self.watch)
            is_done = self.tell(changed, changes, count)
            if count and not is_signalled and not is_done:
                is_done = self.has_another_table()
        if is_done:
            logs = None
        if is_signalled:
            is_new = self.tell_signalled(changed, logs, marked, more, not is_done)
        if is_done:
            self.writer_is_done(changed)
        return is_new

    cdef bint tell_signalled(self, dict changed, dict logs, const uint32_t *marked, const uint32_t *more,
                             bint is_by_writer) except -1:
        cdef int i, j
        cdef bint is_new = False
        for i in range(LS_WAKE_MARK_WORDS):
            if not marked[i]:
                continue
            for j in range(32):
                if not marked[i] >> j & 1:
                    continue
                for directory in self.followed.get(32 * i + j, ()):
                    if (logs is not None and directory in self.signalled and not more[i] >> j & 1
                            and directory not in changed):
                        if (<LogFlusher?>logs[directory]).catch_up_now() == CAUGHT_SOME:
                            is_new = True
                            continue
                    changed[directory] = changed.get(directory, False) or (more[i] >> j & 1) != 0
                    if is_by_writer and directory not in self.signalled and self.watch_again(directory, LS_WATCHED_NAMES):
                        self.signalled.add(directory)
                        self.rest(directory)
        return is_new

    cdef int writer_is_done(self, dict changed) except -1:
        """Or a reader is, which looks the same. The next one may not signal: each write is watched, from before the look."""
        for directory in list(self.signalled):
            self.watch_again(directory, LS_WATCHED_CONTENTS)
            self.signalled.discard(directory)
            changed[directory] = True
            if directory in self.served:
                ls_wake_reader_follow(self.reader, bucket_of(directory))
        if not self.is_in_table():
            self.detach()
            self.attach_at = 0.0
        return 0

    cdef bint watch_again(self, object directory, ls_watched what) except -1:
        """Watches something else of a directory; False where it is gone, or no longer watched."""
        found = self.watched.get(directory)
        if found is None:
            return False
        try:
            self.watch_path(found[1], directory, what)
        except StorageFailureError:
            return False
        return True

    def wake(self):
        """Has `wait` return, now or when it is called next."""
        if not self.is_closed:
            ls_directory_watch_wake(self.watch)
            if self.reader != NULL:
                ls_wake_reader_ring(self.reader)

    def close(self):
        """Ends it, also for who waits. Idempotent."""
        if not self.is_closed:
            self.wake()
            self.is_closed = True
            self.let_go()

    cdef void let_go(self) noexcept:
        """The descriptors go once nobody waits on them."""
        if self.waiting_count == 0:
            self.release()
