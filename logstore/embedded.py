"""The broker a program holds: the logs of this process, and the clients that use them."""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING, Any, Unpack

from logstore.broker import broker

if TYPE_CHECKING:
    import re

    from logstore.clients.consumer import Consumer
    from logstore.clients.consumer_config import ConsumerOptions

__all__ = ["Broker"]


class Broker(broker.Broker):
    """A data directory, open, with producers and consumers. Made by `logstore.open`; a context manager.

    Thread-safe. One broker writes a directory at a time; any number open it with ``read_only=True``.
    """

    def __init__(self, path: str | os.PathLike[str], **settings: Any):
        self._clients: weakref.WeakSet[Any] = weakref.WeakSet()
        super().__init__(path, **settings)

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
        consumer_timeout : float, optional
            Iteration ends where there is no record for so many seconds; without, it waits for ever.
        session_timeout, heartbeat_interval, max_poll_interval : float
            Of a member of a group, in seconds: 45, 3 and 300.
        partition_assignment_strategy : sequence
            Assignors by preference.
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

    def close(self) -> None:
        for client in list(self._clients):
            client._broker_closing()
        super().close()

    close.__doc__ = broker.Broker.close.__doc__

    def _forked(self) -> None:
        super()._forked()
        for client in list(self._clients):
            client._broker_closing()
