"""Appending to a topic: the partitioner, and then the partition's log."""

cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport calloc, free, malloc
from logstore._native.append_arguments cimport (
    LEVEL_APPENDED,
    LEVEL_FLUSHED,
    expected_of,
    level_of,
    timestamp_of,
    timestamps_view,
)
from logstore._native.core cimport ls_partition_for_key, ls_span
from logstore._native.log_appender cimport LogAppender
from logstore._native.quick_call cimport ls_method, ls_put_in_front
from logstore._native.record_lookup cimport committed_record_at, record_at
from logstore._native.record_rules cimport check_spans
from logstore._native.spans cimport HeaderList, SpanArray, span_of, takes_bytes

from logstore.errors import InvalidRequestError, UnknownTopicOrPartitionError

cdef extern from "Python.h":
    bint is_int "PyLong_CheckExact"(PyObject *value) noexcept
    int64_t int_value "PyLong_AsLongLongAndOverflow"(PyObject *value, int *overflow) noexcept

cdef str READ_UNCOMMITTED = "read_uncommitted"


cdef class TopicAppender:
    """The writer's half of a topic. `logstore.Topic` is what is used."""

    cdef readonly str name
    cdef tuple appenders            # of LogAppender, by partition
    cdef Py_ssize_t count
    cdef Py_ssize_t sticky          # partition of records without a key
    cdef int64_t sticky_batch       # that partition's batches_count when it was chosen

    def _set_logs(self, str name, tuple logs not None):
        """Takes over the logs of all partitions, in order."""
        for log in logs:
            if not isinstance(log, LogAppender):
                raise TypeError(f"a log is expected, not {type(log).__name__}")
        self.name = name
        self.appenders = logs
        self.count = len(logs)
        self.sticky = 0
        self.sticky_batch = (<LogAppender>logs[0]).batches_count if logs else 0

    @cython.binding(False)
    def append(self, value, key=None, *, headers=None, timestamp=None, partition=None, durability=None,
               expected_offset=None):
        """Appends one record and returns its offset once it is acknowledged.

        Parameters
        ----------
        value : bytes-like or None
            None is a tombstone.
        key : bytes-like, optional
            Records with the same key go to the same partition, by Kafka's murmur2. Without a key, a partition is kept
            until its batch is handed over.
        headers : sequence of (str, bytes or None), optional
        timestamp : int, optional
            Milliseconds UTC; now, if not given.
        partition : int, optional
            Goes there, whatever the key.
        durability : {"flushed", "appended", "buffered"}, optional
            What the acknowledgement means; the topic's own if not given.
        expected_offset : int, optional
            Appends only if the record gets this offset. Needs ``partition=``, unless the topic has one partition.

        Returns
        -------
        int
            The record's offset in its partition.

        Raises
        ------
        InvalidRequestError
            A wrong argument, a record over ``max.message.bytes``; nothing was appended.
        UnknownTopicOrPartitionError
            No such partition.
        UnexpectedOffsetError
            The partition does not end at ``expected_offset``; nothing was appended.
        DiskFullError
            Nothing was appended; works again once there is space.
        StorageFailureError
            The partition is closed for writing. At ``flushed``, whether the record is on disk is unknown.
        ReadOnlyError, ClosedError

        Notes
        -----
        Thread-safe.
        """
        cdef ls_span key_span, value_span
        cdef HeaderList header_list = None
        cdef LogAppender log
        cdef int64_t given = -1
        if not takes_bytes(<PyObject *>value, &value_span):
            _keep_value = span_of(value, "value", &value_span)
        if not takes_bytes(<PyObject *>key, &key_span):
            _keep_key = span_of(key, "key", &key_span)
        if partition is not None:
            log = self.log_of(partition)
        elif self.count == 1:
            log = <LogAppender>self.appenders[0]
        elif expected_offset is not None:
            raise self.needs_partition()
        elif key_span.size_bytes >= 0:
            log = <LogAppender>self.appenders[partition_of(&key_span, self.count)]
        else:
            log = self.sticky_log()
        if headers is not None:
            header_list = HeaderList.create(headers)
        if timestamp is not None:
            given = timestamp_of(timestamp)
        return log.append_one(&key_span, &value_span, header_list, given, timestamp is not None,
                              log.default_level if durability is None else level_of(durability, 0),
                              -1 if expected_offset is None else expected_of(expected_offset))

    @cython.binding(False)
    def get(self, offset, partition=None, *, isolation_level="read_uncommitted"):
        """One record by its offset.

        Parameters
        ----------
        offset : int
        partition : int, optional
            Needed unless the topic has one partition.
        isolation_level : {"read_uncommitted", "read_committed"}
            With ``"read_committed"``, records of transactions that were aborted, or are still open, are none.

        Returns
        -------
        Record or None
            None where the offset is of no record any more, since it was compacted away, or never was, as transaction markers
            have offsets too.

        Raises
        ------
        OffsetOutOfRangeError
            Before the log start offset, or not appended yet.
        CorruptDataError
            The record's batch is damaged.
        InvalidRequestError, UnknownTopicOrPartitionError, ClosedError

        Notes
        -----
        Thread-safe. One read of the record's batch, whose CRC is verified; batches that were read so are kept in memory, up
        to a 128th of the machine's (32 to 256 MiB) in the process, and serve the look-ups that follow. Small batches
        (``logstore.batch.bytes``, with ``index.interval.bytes`` below it) make look-ups quicker.
        """
        cdef LogAppender log
        cdef int64_t wanted
        if partition is not None:
            log = self.log_of(partition)
        elif self.count == 1:
            log = <LogAppender>self.appenders[0]
        else:
            raise InvalidRequestError(
                f"an offset needs partition=, since each of the {self.count} partitions of {self.name!r} counts for itself"
            )
        if type(offset) is not int:
            raise InvalidRequestError(f"an offset must be an int, not {offset!r}")
        try:
            wanted = offset
        except OverflowError:
            raise InvalidRequestError(f"an offset must be between 0 and 2^63-1, not {offset}") from None
        if isolation_level is READ_UNCOMMITTED or isolation_level == READ_UNCOMMITTED:
            return record_at(log, wanted)
        return committed_record_at(log, wanted, isolation_level)

    @cython.final
    cdef inline int64_t append_now(self, const ls_span *key, const ls_span *value) except -1:
        """A record of bytes, to where its key says, without anything else."""
        cdef LogAppender log
        if self.count == 1:
            log = <LogAppender>self.appenders[0]
        elif key.size_bytes >= 0:
            log = <LogAppender>self.appenders[partition_of(key, self.count)]
        else:
            log = self.sticky_log()
        return log.append_now(key, value)

    cdef LogAppender log_of(self, object partition):
        if not isinstance(partition, int) or not 0 <= partition < self.count:
            raise UnknownTopicOrPartitionError(
                f"topic {self.name!r} has no partition {partition!r}; it has 0 to {self.count - 1}"
            )
        return <LogAppender>self.appenders[partition]

    cdef object needs_partition(self):
        return InvalidRequestError(
            f"expected_offset needs partition=, since each of the {self.count} partitions of {self.name!r} counts for itself"
        )

    cdef LogAppender sticky_log(self):
        """KIP-480: records without a key fill one batch before they move on to the next partition."""
        cdef LogAppender log = <LogAppender>self.appenders[self.sticky]
        if log.batches_count != self.sticky_batch:
            self.sticky = (self.sticky + 1) % self.count
            log = <LogAppender>self.appenders[self.sticky]
            self.sticky_batch = log.batches_count
        return log

    def append_many(self, values, keys=None, *, timestamps=None, headers=None, partition=None, durability=None,
                    expected_offset=None):
        """Appends many records in one call, as few batches; each goes where `append` would send it.

        Parameters
        ----------
        values, keys : list of bytes-like or None, numpy array, or Arrow array
            A numpy array gives the bytes of its elements (dtype S without trailing NULs), a 2-D uint8 array its rows.
            An Arrow array must be of binary, string, fixed-size binary or a view type.
        timestamps : sequence of int, optional
            Milliseconds UTC, one a record (numpy datetime64 works, too); now, for all of them, if not given.
        headers : sequence of (str, bytes or None), optional
            Every record gets these.
        partition : int, optional
            All go there, whatever their keys.
        durability : {"flushed", "appended", "buffered"}, optional
        expected_offset : int, optional
            Appends only if the first record gets this offset. Needs ``partition=``, unless the topic has one partition.

        Returns
        -------
        dict[int, range]
            The offsets by partition, each range without a gap; within a partition in the order given.

        Raises
        ------
        As `append`. After a `DiskFullError` or `StorageFailureError` notes on the exception say how many records
        were appended before it.

        Notes
        -----
        Thread-safe; encoding and writing happen without the GIL.
        """
        cdef SpanArray value_spans = SpanArray.create(values, "value")
        cdef SpanArray key_spans = None
        cdef HeaderList header_list = None
        cdef LogAppender log
        cdef const int64_t[::1] times = None
        cdef Py_ssize_t count = value_spans.count
        cdef const ls_span *key_at = NULL
        cdef const int64_t *time_at = NULL
        cdef int64_t first
        if keys is not None:
            key_spans = SpanArray.create(keys, "key")
            if key_spans.count != count:
                raise InvalidRequestError(f"{key_spans.count} keys for {count} values")
            key_at = key_spans.spans
        if timestamps is not None:
            times = timestamps_view(timestamps, count)
            time_at = &times[0] if count else NULL
        if headers is not None:
            header_list = HeaderList.create(headers)
        if partition is not None:
            log = self.log_of(partition)
        elif self.count == 1:
            log = <LogAppender>self.appenders[0]
        elif expected_offset is not None:
            raise self.needs_partition()
        elif key_at == NULL:
            log = self.sticky_log()
        else:
            log = None
        if count == 0:
            log = log if log is not None else <LogAppender>self.appenders[0]
            log.check_writable()
            log.check_expected(expected_of(expected_offset))
            return {}
        if log is not None:
            first = log.append_spans(key_at, value_spans.spans, time_at, count, header_list,
                                     level_of(durability, log.default_level), expected_of(expected_offset))
            return {log.partition: range(first, first + count)}
        return self.append_by_key(key_at, value_spans.spans, time_at, count, header_list, durability)

    cdef dict append_by_key(self, const ls_span *keys, const ls_span *values, const int64_t *timestamps,
                            Py_ssize_t count, HeaderList headers, object durability):
        """Sorts the records by partition, stably, and appends each partition's in one go."""
        cdef Py_ssize_t i, at
        cdef Py_ssize_t partitions = self.count
        cdef int32_t sticky = <int32_t>self.sticky_log().partition
        cdef int32_t *partition_of_record = <int32_t *>malloc(count * sizeof(int32_t))
        cdef Py_ssize_t *starts = <Py_ssize_t *>calloc(partitions + 1, sizeof(Py_ssize_t))
        cdef Py_ssize_t *filled = <Py_ssize_t *>calloc(partitions, sizeof(Py_ssize_t))
        cdef ls_span *sorted_keys = <ls_span *>malloc(count * sizeof(ls_span))
        cdef ls_span *sorted_values = <ls_span *>malloc(count * sizeof(ls_span))
        cdef int64_t *sorted_times = NULL
        cdef LogAppender log
        cdef int64_t first
        cdef int level
        cdef dict placed = {}
        cdef list flush = []
        if timestamps != NULL:
            sorted_times = <int64_t *>malloc(count * sizeof(int64_t))
        try:
            if (partition_of_record == NULL or starts == NULL or filled == NULL or sorted_keys == NULL
                    or sorted_values == NULL or (timestamps != NULL and sorted_times == NULL)):
                raise MemoryError(f"no memory to sort {count} records by partition")
            with nogil:
                for i in range(count):
                    partition_of_record[i] = sticky if keys[i].size_bytes < 0 else partition_of(&keys[i], partitions)
                    starts[partition_of_record[i] + 1] += 1
                for i in range(partitions):
                    starts[i + 1] += starts[i]
                    filled[i] = starts[i]
                for i in range(count):
                    at = filled[partition_of_record[i]]
                    filled[partition_of_record[i]] += 1
                    sorted_keys[at] = keys[i]
                    sorted_values[at] = values[i]
                    if timestamps != NULL:
                        sorted_times[at] = timestamps[i]
            # Refused records refuse the whole call, before anything of it is appended.
            for i in range(partitions):
                if starts[i + 1] > starts[i]:
                    log = <LogAppender>self.appenders[i]
                    log.check_writable()
                    check_spans(&log.rules, log.topic, sorted_keys + starts[i], sorted_values + starts[i],
                                sorted_times + starts[i] if timestamps != NULL else NULL,
                                starts[i + 1] - starts[i], headers, log.now_ms())
            for i in range(partitions):
                if starts[i + 1] == starts[i]:
                    continue
                log = <LogAppender>self.appenders[i]
                level = level_of(durability, log.default_level)
                try:
                    first = log.append_spans(sorted_keys + starts[i], sorted_values + starts[i],
                                             sorted_times + starts[i] if timestamps != NULL else NULL,
                                             starts[i + 1] - starts[i], headers, <int>min(level, <int>LEVEL_APPENDED))
                except Exception as error:
                    if placed:
                        error.add_note(f"Appended before it, by partition: {placed}.")
                    raise
                placed[i] = range(first, first + starts[i + 1] - starts[i])
                if level == LEVEL_FLUSHED:
                    flush.append(log)
            for log in flush:
                log._flush_until(placed[log.partition].stop)
        finally:
            free(partition_of_record)
            free(starts)
            free(filled)
            free(sorted_keys)
            free(sorted_values)
            free(sorted_times)
        return placed


cdef inline int32_t partition_of(const ls_span *key, Py_ssize_t partitions) noexcept nogil:
    return ls_partition_for_key(key.bytes if key.size_bytes else <const uint8_t *>b"", key.size_bytes,
                                <int32_t>partitions)


cdef ls_method any_append


cdef object quick_append(object topic, PyObject *const *arguments, Py_ssize_t count, PyObject *names):
    """`TopicAppender.append` of a value and perhaps a key, both bytes; the method has all others."""
    cdef ls_span key, value
    key.bytes = NULL
    key.size_bytes = -1
    if (names == NULL and 1 <= count <= 2 and takes_bytes(arguments[0], &value)
            and (count == 1 or takes_bytes(arguments[1], &key))):
        return (<TopicAppender>topic).append_now(&key, &value)
    return any_append(topic, arguments, count, names)


any_append = ls_put_in_front(TopicAppender, b"append", quick_append)


cdef ls_method any_get


cdef object quick_get(object topic, PyObject *const *arguments, Py_ssize_t count, PyObject *names):
    """`TopicAppender.get` of an offset alone, in a topic with one partition."""
    cdef int64_t offset
    cdef int overflow = 0
    if names == NULL and count == 1 and (<TopicAppender>topic).count == 1 and is_int(arguments[0]):
        offset = int_value(arguments[0], &overflow)
        if not overflow:
            return record_at(<LogAppender>(<TopicAppender>topic).appenders[0], offset)
    return any_get(topic, arguments, count, names)


any_get = ls_put_in_front(TopicAppender, b"get", quick_get)
