"""One fdatasync for all who wait for one.

Whoever comes first leads: flushes all that is in the log, for itself and for those who came meanwhile. Threads wait
without the GIL, and wake up once, when their own records are on disk; who leads next is decided without the GIL as well,
so that the disk never waits for it.

A round that begins as soon as one writer is there leaves out those whom the last round has just let go, and each of them
would wait for two. So the leader first sleeps until as many are there as in the last round: for the time of one flush at
most, and less and less often where they don't come. The one who completes the round takes over the lead, which spares
waking the leader.
"""

from libc.stdint cimport INT64_MAX, int64_t
from cpython.pythread cimport (
    PyThread_acquire_lock,
    PyThread_allocate_lock,
    PyThread_free_lock,
)

import threading

cdef extern from "Python.h" nogil:
    void PyThread_release_lock(PyThread_type_lock lock)
    int PyThread_lock_now "PyThread_acquire_lock"(PyThread_type_lock lock, int waits)
    PyThread_type_lock PyThread_new_lock "PyThread_allocate_lock"()
    void PyThread_drop_lock "PyThread_free_lock"(PyThread_type_lock lock)
    ctypedef enum PyLockStatus:
        PY_LOCK_FAILURE
        PY_LOCK_ACQUIRED
        PY_LOCK_INTR
    PyLockStatus PyThread_acquire_lock_timed(PyThread_type_lock lock, long long microseconds, int intr_flag)

cdef extern from "Python.h":
    int PyErr_CheckSignals() except -1

# However slow the disk: nobody waits longer than this for others.
cdef int64_t PATIENCE_US_MAX = 2_000
# Below it, waking up again takes longer than what is waited for.
cdef int64_t PATIENCE_US_MIN = 20
cdef int MISSES_MAX = 6
# A signal that comes just before a thread falls asleep does not wake it: who waits longer looks up so often.
cdef int64_t SIGNAL_CHECK_US = 50_000


cdef bint open_waiting(Waiting *me) noexcept nogil:
    """Readies a thread to wait; False without memory."""
    me.is_released = False
    me.is_collected = False
    me.lock = PyThread_new_lock()
    if me.lock == NULL:
        return False
    PyThread_lock_now(me.lock, 1)
    return True


cdef void close_waiting(Waiting *me) noexcept nogil:
    PyThread_drop_lock(me.lock)
    me.lock = NULL


cdef void wake(Waiting *woken) noexcept nogil:
    cdef Waiting *following
    while woken != NULL:
        following = woken.following  # first: once released, it is gone
        PyThread_release_lock(woken.lock)
        woken = following


cdef class GroupCommit:
    """Who flushes a log and who waits for it; as a context manager, a lock that keeps everybody from flushing.

    Thread-safe. It is no re-entrant lock. Ctrl-C interrupts who waits, not who flushes.
    """

    def __cinit__(self):
        self.state_lock = PyThread_allocate_lock()
        if self.state_lock == NULL:
            raise MemoryError("no lock to wait on")
        self.expected_count = 1
        self.main_thread = threading.main_thread().ident

    def __dealloc__(self):
        if self.state_lock != NULL:
            PyThread_free_lock(self.state_lock)

    # ---- who waits ----------------------------------------------------------------------------------

    cdef void enqueue(self, Waiting *one) noexcept nogil:
        one.following = NULL
        if self.last == NULL:
            self.first = one
        else:
            self.last.following = one
        self.last = one
        self.waiting_count += 1

    cdef bint dequeue(self, Waiting *one) noexcept nogil:
        cdef Waiting *before = NULL
        cdef Waiting *at = self.first
        while at != NULL and at != one:
            before = at
            at = at.following
        if at == NULL:
            return False
        if before == NULL:
            self.first = one.following
        else:
            before.following = one.following
        if self.last == one:
            self.last = before
        self.waiting_count -= 1
        return True

    cdef int64_t patience_us(self) noexcept nogil:
        """How long the one who leads may wait for others; 0 for not at all. The state lock is held."""
        cdef int64_t patience
        if self.waiting_count + 1 >= self.expected_count:
            return 0
        if self.rounds_to_skip > 0:
            self.rounds_to_skip -= 1
            return 0
        patience = self.sync_ns // 1000
        if patience < PATIENCE_US_MIN:
            return 0
        return patience if patience < PATIENCE_US_MAX else PATIENCE_US_MAX

    cdef Turn arrive(self, Waiting *me, int64_t offset, bint gathers) noexcept nogil:
        """Says what this thread has to do until records below an offset are on disk: flush, `sleep`, or nothing.

        Without ``gathers``, no other thread's records are waited for.
        """
        cdef Turn turn = TURN_WAITS
        PyThread_lock_now(self.state_lock, 1)
        me.offset = offset
        me.turn = TURN_WAITS
        if offset <= self.flushed_offset:
            turn = TURN_OVER
        elif not self.is_led:
            self.is_led = True
            self.leader = me
            self.is_gathering = gathers and self.expected_count > 1 and self.patience_us() > 0
            if not self.is_gathering:
                turn = TURN_LEADS
        elif gathers and self.is_gathering and self.waiting_count + 2 >= self.expected_count:
            self.enqueue(self.leader)
            self.leader = me
            self.is_gathering = False
            self.misses = 0
            turn = TURN_LEADS
        else:
            self.enqueue(me)
        PyThread_release_lock(self.state_lock)
        return turn

    cdef Turn join(self, Waiting *me, int64_t offset, bint gathers) noexcept nogil:
        """Waits until records below an offset are on disk, or until it is this thread's turn to see to that."""
        cdef Turn turn = self.arrive(me, offset, gathers)
        return turn if turn != TURN_WAITS else self.sleep(me)

    cdef Turn sleep(self, Waiting *me) noexcept nogil:
        """After `arrive`. Where a signal comes, one whose records are collected stays in the queue until `withdraw`."""
        cdef PyLockStatus status
        cdef int64_t patience
        cdef Turn turn
        cdef bint is_released
        while True:
            patience = SIGNAL_CHECK_US
            PyThread_lock_now(self.state_lock, 1)
            if self.is_gathering and self.leader == me:
                patience = self.patience_us()
                if patience == 0:
                    self.is_gathering = False
                    me.turn = TURN_LEADS
            turn = me.turn
            is_released = me.is_released
            PyThread_release_lock(self.state_lock)
            if turn != TURN_WAITS:
                if is_released:
                    PyThread_lock_now(me.lock, 1)  # the one who releases it must be done with it
                return turn
            status = PyThread_acquire_lock_timed(me.lock, patience, 1)
            PyThread_lock_now(self.state_lock, 1)
            if me.is_released and status != PY_LOCK_ACQUIRED:
                # By one who does not hold the state lock any more: it must be done with this lock.
                PyThread_release_lock(self.state_lock)
                PyThread_lock_now(me.lock, 1)
                PyThread_lock_now(self.state_lock, 1)
                status = PY_LOCK_ACQUIRED
            me.is_released = False
            if status != PY_LOCK_ACQUIRED:
                if self.leader == me and self.is_gathering:
                    # They don't come. What is here is flushed, also where a signal waits: it costs one flush.
                    self.is_gathering = False
                    me.turn = TURN_LEADS
                    if status == PY_LOCK_FAILURE:
                        self.misses += self.misses < MISSES_MAX
                        self.rounds_to_skip = 1 << self.misses
                elif me.is_collected:
                    if me.turn == TURN_WAITS:
                        PyThread_release_lock(self.state_lock)
                        return TURN_INTERRUPTED
                elif self.dequeue(me):
                    me.turn = TURN_INTERRUPTED
            turn = me.turn
            PyThread_release_lock(self.state_lock)
            if turn != TURN_WAITS:
                return turn

    cdef bint withdraw(self, Waiting *me) noexcept nogil:
        """After an interruption: whether it waits no longer; otherwise its turn has come meanwhile, as `sleep` says."""
        cdef bint waited
        PyThread_lock_now(self.state_lock, 1)
        waited = self.dequeue(me)
        PyThread_release_lock(self.state_lock)
        return waited

    cdef void leave(self, Waiting *me) noexcept nogil:
        """Whatever its turn: an exception is on its way. If it leads, or is about to, another one does."""
        cdef bint leads
        PyThread_lock_now(self.state_lock, 1)
        self.dequeue(me)
        leads = self.is_led and self.leader == me
        PyThread_release_lock(self.state_lock)
        if leads:
            self.finish(-1, -1)
        PyThread_lock_now(self.state_lock, 1)
        leads = me.is_released
        PyThread_release_lock(self.state_lock)
        if leads:
            PyThread_lock_now(me.lock, 1)  # the one who releases it must be done with it

    cdef void refuse(self, int64_t end_offset) noexcept nogil:
        """What was collected from an offset on was taken back: those who wait for it go on, and find out."""
        cdef Waiting *woken = NULL
        cdef Waiting *at
        cdef Waiting *following
        PyThread_lock_now(self.state_lock, 1)
        at = self.first
        while at != NULL:
            following = at.following
            if at.is_collected and at.offset > end_offset:
                self.dequeue(at)
                at.turn = TURN_REFUSED
                if not at.is_released:
                    at.is_released = True
                    at.following = woken
                    woken = at
            at = following
        PyThread_release_lock(self.state_lock)
        wake(woken)

    cdef void finish(self, int64_t flushed_offset, int64_t sync_ns) noexcept nogil:
        """The leader is done: those whose records are on disk go on, and another one leads.

        ``flushed_offset`` and ``sync_ns``, how long the flush took, are -1 where there was none.
        """
        cdef Waiting *woken = NULL
        cdef Waiting *at
        cdef Waiting *following
        cdef Waiting *kept = NULL
        cdef Waiting *kept_last = NULL
        cdef int over_count = 0
        PyThread_lock_now(self.state_lock, 1)
        if flushed_offset > self.flushed_offset:
            self.flushed_offset = flushed_offset
        at = self.first
        while at != NULL:
            following = at.following
            at.following = NULL
            if at.offset <= self.flushed_offset:
                over_count += 1
                at.turn = TURN_OVER
                if not at.is_released:
                    at.is_released = True
                    at.following = woken
                    woken = at
            elif kept == NULL:
                kept = kept_last = at
            else:
                kept_last.following = at
                kept_last = at
            at = following
        self.waiting_count -= over_count
        if sync_ns >= 0:
            self.sync_ns += (sync_ns - self.sync_ns) // 8
            self.expected_count = over_count + 1 + self.waiting_count
        self.first = kept
        self.last = kept_last
        self.leader = kept
        self.is_led = kept != NULL
        self.is_gathering = False
        if kept != NULL:
            self.dequeue(kept)
            self.is_gathering = kept.offset != INT64_MAX and self.expected_count > 1
            if not self.is_gathering:
                kept.turn = TURN_LEADS
            if not kept.is_released:
                kept.is_released = True
                kept.following = woken  # to be woken first
                woken = kept
        PyThread_release_lock(self.state_lock)
        wake(woken)

    cdef void restart(self, int64_t flushed_offset) noexcept:
        """What is on disk, when nobody else flushes: at opening, after a truncation."""
        PyThread_acquire_lock(self.state_lock, 1)
        self.flushed_offset = flushed_offset
        PyThread_release_lock(self.state_lock)

    # ---- as a lock ------------------------------------------------------------------------------------

    cdef int lead(self) except -1:
        """Until it is this thread's turn, whatever is on disk."""
        cdef Waiting me
        cdef Turn turn
        if not open_waiting(&me):
            raise MemoryError("no lock to wait on")
        try:
            while True:
                with nogil:
                    turn = self.join(&me, INT64_MAX, False)
                if turn == TURN_LEADS:
                    return 0
                PyErr_CheckSignals()
        finally:
            close_waiting(&me)

    cdef bint lead_now(self) noexcept nogil:
        """`lead`, where nobody else does; False otherwise."""
        cdef bint leads
        PyThread_lock_now(self.state_lock, 1)
        leads = not self.is_led
        if leads:
            self.is_led = True
            self.leader = NULL
            self.is_gathering = False
        PyThread_release_lock(self.state_lock)
        return leads

    def acquire(self):
        """Keeps everybody from flushing until `release`."""
        self.lead()
        return True

    def release(self):
        """Takes `acquire` back."""
        with nogil:
            self.finish(-1, -1)

    def __enter__(self):
        self.lead()
        return self

    def __exit__(self, *exception):
        with nogil:
            self.finish(-1, -1)

    def forget(self):
        """In a forked child, where whoever held it or waited does not exist."""
        self.state_lock = PyThread_allocate_lock()  # the old one may be held for ever
        if self.state_lock == NULL:
            raise MemoryError("no lock to wait on")
        self.first = self.last = self.leader = NULL
        self.waiting_count = 0
        self.is_led = self.is_gathering = False
