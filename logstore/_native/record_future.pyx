"""Futures of records: where a record stands, once it is acknowledged.

A future holds its index and points to the completion that all records of its batch share, so completing a batch costs the
same for one record and for a thousand.
"""

cimport cython
from _thread import allocate_lock
from time import monotonic

from logstore.errors import RequestTimeoutError
from logstore.model import RecordMetadata

cdef object _get_running_loop = None


cdef object running_loop():
    """The asyncio loop of this thread; asyncio loads with the first await."""
    global _get_running_loop
    if _get_running_loop is None:
        from asyncio import get_running_loop

        _get_running_loop = get_running_loop
    return _get_running_loop()


def resolve(list waiters):
    """Wakes tasks, in their loop's thread."""
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)


@cython.final
cdef class ProducerBatch:
    """The fate of one batch of a producer."""

    def __init__(self):
        raise TypeError("a ProducerBatch comes from a Producer")

    cdef bint is_complete(self):
        return self.state >= BATCH_DONE

    cdef int add_callbacks(self, list callbacks) except -1:
        if self.callbacks is None:
            self.callbacks = callbacks
        else:
            self.callbacks.extend(callbacks)
        return 0

    cdef list settle(self, object error):
        """Decides all records' fate and wakes the threads that wait. Gives the tasks that wait, for `wake_tasks`."""
        cdef list waiters = self.waiters
        cdef list awaiting = self.awaiting
        if error is not None:
            self.error = error
            self.traceback = error.__traceback__
            self.unobserved_count = self.records_count
            self.state = BATCH_FAILED
        else:
            self.state = BATCH_DONE
        self.producer = None
        self.queue = None
        self.records = None
        self.waiters = None
        self.awaiting = None
        if waiters is not None:
            for lock in waiters:
                lock.release()
        return awaiting

    cdef int wake_tasks(self, list awaiting) except -1:
        cdef dict by_loop = {}
        for loop, waiter in awaiting:
            by_loop.setdefault(loop, []).append(waiter)
        try:
            here = running_loop()
        except RuntimeError:
            here = None
        for loop, waiters in by_loop.items():
            if loop is here:
                resolve(waiters)
                continue
            try:
                loop.call_soon_threadsafe(resolve, waiters)
            except RuntimeError:
                pass  # closed meanwhile: nobody is left to wake
        return 0

    cdef int wait(self, object timeout) except -1:
        """Has the batch delivered now, and returns once it is complete; the outcome is the caller's to look at."""
        cdef object deadline = None if timeout is None else monotonic() + timeout
        if self.is_complete():
            return 0
        self.producer._deliver(self, timeout is None)
        if self.is_complete():
            return 0
        lock = allocate_lock()
        lock.acquire()
        alone = [lock]
        if self.is_complete():
            return 0
        if self.waiters is None:
            self.waiters = alone
        else:
            self.waiters.append(lock)
        try:
            if lock.acquire(True, -1 if deadline is None else max(deadline - monotonic(), 0)):
                return 0
        finally:
            if self.waiters is not None and lock in self.waiters:
                self.waiters.remove(lock)
        if self.is_complete():
            return 0
        raise RequestTimeoutError(
            f"records for {self.topic}-{self.partition} were not acknowledged within {timeout} s; they stay queued, and the "
            "future can be asked again"
        )

    cdef object completion(self):
        """An asyncio future that is resolved when the batch is complete."""
        loop = running_loop()
        waiter = loop.create_future()
        entry = (loop, waiter)
        alone = [entry]
        if self.is_complete():
            waiter.set_result(None)
            return waiter
        if self.awaiting is None:
            self.awaiting = alone
        else:
            self.awaiting.append(entry)
        if not self.is_complete():
            self.producer._deliver_soon(loop, self)
        return waiter

    def _completion(self):
        return self.completion()

    def _wait(self, timeout):
        self.wait(timeout)

    @property
    def _is_complete(self):
        return self.is_complete()


@cython.final
@cython.freelist(1024)
@cython.no_gc
cdef class RecordFuture:
    """Where one record will stand. Given by `Producer.send`; thread-safe, and awaitable.

    Whoever asks for the outcome has the record's batch handed over at once instead of lingering.
    """

    def __init__(self):
        raise TypeError("a RecordFuture comes from Producer.send")

    cdef object metadata(self):
        cdef ProducerBatch batch = self.batch
        return RecordMetadata(
            batch.topic, batch.partition, batch.base_offset + self.index,
            self.timestamp if batch.append_time < 0 else batch.append_time)

    cdef object failure(self):
        """The error, from now on known to someone; None without one."""
        cdef ProducerBatch batch = self.batch
        if batch.error is not None and not self.is_observed:
            self.is_observed = True
            batch.unobserved_count -= 1
        return batch.error

    def done(self):
        """Whether the record is acknowledged at its level, or has failed."""
        return self.batch.is_complete()

    def result(self, timeout=None):
        """Waits for the acknowledgement.

        Parameters
        ----------
        timeout : float, optional
            Seconds; without, as long as it takes (``delivery_timeout`` of the producer ends it).

        Returns
        -------
        RecordMetadata

        Raises
        ------
        RequestTimeoutError
            Not in this time; the record stays queued. Or, from the producer: not within ``delivery_timeout``; it is given
            up. The message says which.
        UnexpectedOffsetError
            The partition did not end at ``expected_offset``.
        StorageFailureError, UnknownTopicOrPartitionError, InvalidRecordError, ClosedError
            It was not delivered. After a `StorageFailureError` whether it is on disk is unknown.

        Notes
        -----
        Thread-safe; Ctrl-C interrupts it at once and leaves the record queued.
        """
        if not self.batch.is_complete():
            self.batch.wait(timeout)
        if self.batch.error is not None:
            raise self.failure().with_traceback(self.batch.traceback)
        return self.metadata()

    def exception(self, timeout=None):
        """Waits as `result` does, and gives the error instead of raising it; None for a record that was delivered.

        Raises
        ------
        RequestTimeoutError
            Not known within ``timeout``.
        """
        if not self.batch.is_complete():
            self.batch.wait(timeout)
        return self.failure()

    def add_done_callback(self, callback):
        """Has ``callback(future)`` called once the record is done: at once if it is, otherwise by the thread that
        completes its batch. An exception in it is logged."""
        cdef ProducerBatch batch = self.batch
        if not callable(callback):
            raise TypeError(f"a callback is called, which {type(callback).__name__} can't be")
        cdef list entry = [(self, callback, False)]
        if batch.is_complete():
            run_callback(self, callback, False)
            return
        batch.add_callbacks(entry)

    def __await__(self):
        if not self.batch.is_complete():
            yield from self.batch.completion().__await__()
        if self.batch.error is not None:
            raise self.failure().with_traceback(self.batch.traceback)
        return self.metadata()

    def __repr__(self):
        cdef ProducerBatch batch = self.batch
        if batch.error is not None:
            return f"RecordFuture({batch.topic}-{batch.partition}, failed: {batch.error!r})"
        if batch.is_complete():
            return f"RecordFuture({batch.topic}-{batch.partition}, offset={batch.base_offset + self.index})"
        return f"RecordFuture({batch.topic}-{batch.partition}, pending)"

    def __reduce__(self):
        raise TypeError("a RecordFuture belongs to its producer and can't be pickled; pickle its result()")


cdef int run_callback(RecordFuture future, object callback, bint takes_outcome) except -1:
    """Calls back for one record; what it raises is logged, so that the others are called, too."""
    try:
        if takes_outcome:
            error = future.failure()
            callback(error, None if error is not None else future.metadata())
        else:
            callback(future)
    except Exception:
        import logging

        logging.getLogger("logstore.clients").exception(
            "a delivery callback for %s-%d failed", future.batch.topic, future.batch.partition)
    return 0
