"""The broker a program holds: the logs of this process, and the clients that use them."""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING, Any, Unpack

from logstore.broker import broker
from logstore.errors import LogstoreError

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Iterable

    from logstore._native.record_batch import Record
    from logstore.clients.consumer import Consumer
    from logstore.clients.consumer_config import ConsumerOptions
    from logstore.clients.processing import Processed
    from logstore.clients.producer import Producer
    from logstore.clients.producer_settings import ProducerOptions

__all__ = ["Broker"]


class Broker(broker.Broker):
    """A data directory, open, with producers and consumers. Made by `logstore.open`; a context manager.

    Thread-safe. One broker writes a directory at a time; any number open it with ``read_only=True``.
    """

    def __init__(self, path: str | os.PathLike[str], **settings: Any):
        self._processing: set[str] = set()
        self._clients: weakref.WeakSet[Any] = weakref.WeakSet()
        self._producers: weakref.WeakSet[Producer] = weakref.WeakSet()
        super().__init__(path, **settings)

    def producer(self, **settings: Unpack[ProducerOptions]) -> Producer:
        """Makes a producer.

        Parameters
        ----------
        linger_ms : int
            Longest time a record waits for others in its batch; 5. ``"1s"`` is understood, too.
        batch_size : int
            Where a batch is sealed and handed over; ``"64KiB"``.
        compression_type : {"none", "gzip", "snappy", "lz4", "zstd"}, optional
            Of whole batches, whatever the topic says; ``compression`` for short. Without: the topic's.
        compression_level : int, optional
        acks : {0, 1, "all"}, optional
            Kafka's name for the durability: ``"all"`` is ``"flushed"``, 1 is ``"appended"``, 0 is ``"buffered"``.
        durability : {"flushed", "appended", "buffered"}, optional
            When a record counts as acknowledged; the topic's, then the broker's, if not given. A future has an offset once
            its batch is in the log, so ``"buffered"`` is the same as ``"appended"`` here: `send` itself returns earlier.
        partitioner : {"murmur2", "crc32", "round_robin"} or callable
            ``"murmur2"``, Kafka's: by the key's hash; records without a key stay in one partition for a batch.
            ``"crc32"``, librdkafka's: the same with another hash; an empty key counts as none. ``"round_robin"``: in turn,
            whatever the key. A callable gets the key (bytes or None) and the number of partitions.
        buffer_memory : int
            Bytes of records that are not acknowledged yet; ``"32MiB"``. Beyond it `send` waits.
        max_block : float
            Seconds `send` waits for memory at most; 60.
        delivery_timeout : float
            Seconds after which a record that is refused again and again (a full disk) is given up; 120.
        retry_backoff : float
            Seconds between two attempts; 0.1.
        max_request_size : int, optional
            Largest batch, where that is to be less than the topic's ``max.message.bytes``.
        enable_idempotence : bool
            Numbers the batches, so that none is written twice and a gap is refused; True. Costs next to nothing.
        transactional_id : str, optional
            Lets the producer write in transactions, and names it for good: whoever takes the name over shuts it out, and
            aborts what it has open (see `Producer.transaction`).
        transaction_timeout : float
            Seconds after which an open transaction is aborted; 60.
        client_id : str, optional
            A name for messages.
        on_delivery : callable, optional
            Called for every record with ``(error, metadata)``, one of which is None, by the thread that completes its batch.
        clock : callable, optional
            Gives the time in ms; for tests.

        Returns
        -------
        Producer
            A context manager, also with ``async with``. Closing the broker closes it.

        Raises
        ------
        InvalidConfigError
            An unknown setting (the message suggests the nearest), a value out of range, both ``acks`` and ``durability``.
        ReadOnlyError, ClosedError
        """
        from logstore.clients.producer import Producer
        from logstore.clients.producer_settings import producer_settings

        checked = producer_settings(settings)
        self._check_writable()
        producer = Producer(self, checked)
        self._producers.add(producer)
        return producer

    def consumer(
        self, *topics: str, pattern: str | re.Pattern[str] | None = None, **options: Unpack[ConsumerOptions]
    ) -> Consumer:
        """Makes a consumer.

        Parameters
        ----------
        *topics : str
            What to subscribe to; or call its `subscribe` or `assign` later.
        pattern : str or re.Pattern, optional
            Subscribes to every topic whose whole name matches, also those to come.
        group : str, optional
            The consumer group that shares the topics, and whose committed offsets say where to begin. Without, the consumer
            reads all partitions, and nothing is committed.
        group_instance_id : str, optional
            Makes a static member of the group: one that comes back under this id gets its partitions back.
        auto_offset_reset : {"earliest", "latest", "none"}
            Where to begin without a committed offset, and where a position is no longer in the log: at the log start offset,
            at the log end offset, or nowhere (`NoOffsetForPartitionError`, `OffsetOutOfRangeError`). The default is
            ``"earliest"``, not Kafka's ``"latest"``, which silently skips what was appended before.
        enable_auto_commit, auto_commit_interval : bool, float
            Commits what is confirmed (see `Consumer`) every 5 seconds.
        max_poll_records : int
            Most records of one `poll`; 500.
        fetch_max_bytes, max_partition_fetch_bytes : int or str
            How much is read ahead of all partitions together (``"50MiB"``), and of one (``"1MiB"``).
        isolation_level : {"read_uncommitted", "read_committed"}
            ``"read_committed"`` hands out records of transactions once they are committed, and no others of them. It is the
            default in a group, so that nothing half-done is dealt with; without a group it is ``"read_uncommitted"``.
        consumer_timeout : float, optional
            Iteration ends where there is no record for so many seconds; without, it waits for ever.
        session_timeout, heartbeat_interval, max_poll_interval : float
            Of a member of a group, in seconds: 45, 3 and 300.
        partition_assignment_strategy : str, object or sequence
            Assignors by preference: ``"cooperative-sticky"`` (the default: only partitions that move stop being read while
            the group rebalances), ``"sticky"``, ``"range"``, ``"roundrobin"``, or objects (`logstore.clients.assignors`).
        client_id : str
            A name for logs and for descriptions of the group.
        clock : callable, optional
            Seconds since the epoch, for tests. Without: the monotonic clock for intervals, the wall clock for ages.

        Returns
        -------
        Consumer
            A context manager; iterate over it, or `poll` it.

        Raises
        ------
        UnknownTopicOrPartitionError
        InvalidConfigError
            An unknown option (the message names the nearest), or a value out of range.
        ClosedError
        """
        from logstore.clients.consumer import Consumer
        from logstore.clients.consumer_config import consumer_config

        config = consumer_config(options)
        self._check_open()
        consumer = Consumer(self, config)
        self._clients.add(consumer)
        if topics or pattern is not None:
            try:
                consumer.subscribe(topics, pattern=pattern)
            except BaseException:
                consumer.close()
                raise
        return consumer

    def process(
        self,
        topic: str | Iterable[str],
        handler: Callable[[Record], Any],
        *,
        to: str | None = None,
        group: str,
        transactional_id: str | None = None,
        exactly_once: bool = True,
        retries: int = 3,
        retry_backoff: float = 0.1,
        dead_letter: str | None = None,
        batch: int = 500,
        stop: Any = None,
    ) -> Processed:
        """Calls a handler with each record of a topic and sends what it gives, as one transaction a batch.

        Parameters
        ----------
        topic : str or iterable of str
            What is read.
        handler : callable
            Gets a `Record`; gives None, bytes (sent under the record's key), ``(key, value)``, a record, a
            `logstore.clients.processing.Output`, or any number of these, also as a generator.
        to : str, optional
            The topic that gets what it gives.
        group : str
            Shares the work: run it in several threads, and each reads some of the partitions.
        transactional_id : str, optional
            Derived from the group, if not given.
        exactly_once : bool
            False: without transactions, so that a crash repeats the last batch.
        retries : int
            How often a handler that raises is called again with the same record.
        retry_backoff : float
            Seconds before the first of these times; doubled each time.
        dead_letter : str, optional
            The topic that gets records with which the handler has failed for good, with headers ``error.type``,
            ``error.message``, ``error.attempts``, ``error.topic``, ``error.partition``, ``error.offset`` added. Without,
            the handler's exception ends the call.
        batch : int
            Most records in a transaction.
        stop : threading.Event, callable or "end", optional
            Ends the call between two transactions once it is set, or gives True; ``"end"``: when everything is read.

        Returns
        -------
        Processed
            Counts of what was committed.

        Raises
        ------
        ProducerFencedError
            Somebody else has the ``transactional_id``.
        InvalidConfigError, UnknownTopicOrPartitionError, StorageFailureError, ClosedError
            And whatever the handler raises. What was not committed will be handled again.

        Notes
        -----
        Ctrl-C interrupts it at once; the transaction in hand is taken back. A handler is called again with a record whose
        transaction was not committed: its effects elsewhere are its own to guard.
        """
        from logstore.clients.processing import process

        self._check_writable()
        topics = [topic] if isinstance(topic, str) else list(topic)
        number = 0
        with self._lock:
            while (name := transactional_id or f"{group}.{number}") in self._processing and transactional_id is None:
                number += 1
            self._processing.add(name)
        try:
            return process(
                self, topics, handler, to=to, group=group, transactional_id=name, exactly_once=exactly_once,
                retries=retries, retry_backoff=retry_backoff, dead_letter=dead_letter, batch=batch, stop=stop,
            )
        finally:
            self._processing.discard(name)

    def close(self) -> None:
        """Has its producers deliver what they hold, then flushes and closes everything. Idempotent.

        Records and arrays handed out stay valid.

        Raises
        ------
        DeliveryFailedError
            A producer could not deliver records; all else is closed in good order.
        StorageFailureError
            Something could not be flushed; all else is closed in good order.
        """
        failures: list[LogstoreError] = []
        for producer in list(self._producers):
            try:
                producer.close()
            except LogstoreError as error:
                failures.append(error)
        for client in list(self._clients):
            client._broker_closing()
        super().close()
        if failures:
            raise failures[0]

    def _forked(self) -> None:
        super()._forked()
        for client in list(self._clients):
            client._broker_closing()
