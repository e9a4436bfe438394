"""Consumers: what is read, by whom, and what has been dealt with."""

from __future__ import annotations

import math
import re
import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeAlias

from logstore.clients.consumer_config import ConsumerConfig
from logstore.clients.consumer_positions import Partition, PositionedConsumer, topic_partition
from logstore.errors import InvalidRequestError, LogstoreError, UnknownTopicOrPartitionError
from logstore.model import GroupMetadata, OffsetAndMetadata, TopicPartition

if TYPE_CHECKING:
    from logstore._native.partition_turns import PartitionReader
    from logstore.broker_api import BrokerApi
    from logstore.clients.membership import GroupMembership

__all__ = ["Consumer", "RebalanceListener"]

Listener: TypeAlias = Callable[[list[TopicPartition]], object]


class RebalanceListener(Protocol):
    """Told of changes of the assignment, by the thread that polls, during a poll. May seek and commit; can't poll."""

    def on_partitions_assigned(self, partitions: list[TopicPartition]) -> object:
        """These are read from now on."""

    def on_partitions_revoked(self, partitions: list[TopicPartition]) -> object:
        """These are about to be given up; what has been dealt with can be committed still."""


class Consumer(PositionedConsumer):
    """Reads topics. Made by `logstore.Broker.consumer`; a context manager and an iterator, for ``async`` as well.

    One thread or task uses a consumer at a time, and another call meanwhile is refused; `wakeup` alone may be called from
    anywhere.

    Notes
    -----
    *Positions and commits.* The position of a partition is the offset of the next record to hand out. Coming back for more,
    by the next step of an iteration or the next `poll`, confirms what was handed out before; so does closing the consumer,
    unless an exception is on its way. Auto commit commits what is confirmed, every ``auto_commit_interval``, before
    partitions are given up, and on close. So the records of a handler that raises are handed out again::

        with broker.consumer("orders", group="billing") as consumer:
            for record in consumer:
                bill(record)        # raises at offset 7: the group goes on at offset 7
    """

    _membership: GroupMembership | None = None

    def __init__(self, broker: BrokerApi, config: ConsumerConfig):
        super().__init__(broker, config)
        self._topics: frozenset[str] = frozenset()
        self._pattern: re.Pattern[str] | None = None
        self._by_hand = False
        self._metadata_version = -1
        self._listener: _Listeners = _Listeners(None, None, None)
        self._commit_at = math.inf
        # Not in flight: the consumer is made by a handler of it. By identity, so as not to keep it.
        self._handled_before = id(sys.exc_info()[1])
        broker.add_metadata_waiter(self._notifier)
        self._ask_attention()

    # ---- what is read -------------------------------------------------------------------------------

    def subscribe(
        self,
        topics: str | Iterable[str] = (),
        *,
        pattern: str | re.Pattern[str] | None = None,
        listener: RebalanceListener | None = None,
        on_partitions_assigned: Listener | None = None,
        on_partitions_revoked: Listener | None = None,
        on_partitions_lost: Listener | None = None,
    ) -> None:
        """Reads topics, in place of what was subscribed before.

        Without a group, all partitions of these topics, also those they gain, from then on from their start. In a group,
        the share that its members agree on, from the next poll on.

        Parameters
        ----------
        topics : str or iterable of str
            Topics that exist.
        pattern : str or re.Pattern, optional
            A regular expression: reads every topic whose whole name it matches, also those to come. Internal topics
            never match.
        listener : RebalanceListener, optional
            Told of partitions assigned and revoked; one with ``on_partitions_lost`` is told of partitions that the group
            has given to others already, when it is too late to commit, and otherwise they count as revoked.
        on_partitions_assigned, on_partitions_revoked, on_partitions_lost : callable, optional
            The same as functions.

        Raises
        ------
        InvalidRequestError
            Both topics and a pattern, or neither; or partitions were assigned with `assign`.
        UnknownTopicOrPartitionError
        ClosedError
        """
        self._check_usable()
        if self._by_hand:
            raise InvalidRequestError("partitions were assigned by assign(); unsubscribe() first")
        names = frozenset([topics] if isinstance(topics, str) else topics)
        if bool(names) == (pattern is not None):
            raise InvalidRequestError("subscribe to topics or to a pattern=, one of them")
        if not all(isinstance(name, str) for name in names):
            raise InvalidRequestError(f"topics must be names, not {sorted(names, key=repr)!r}")
        for name in sorted(names):
            self._broker.topic_limits(name)  # raises where there is none, and names the nearest
        self._listener = _Listeners(on_partitions_assigned, on_partitions_revoked, on_partitions_lost, listener)
        self._topics = names
        try:
            self._pattern = None if pattern is None else re.compile(pattern)
        except re.error as error:
            raise InvalidRequestError(f"pattern {pattern!r} is no regular expression: {error}") from None
        if self._config.group is not None and self._membership is None:
            self._membership = self._new_membership(self._config.group)
        self._metadata_version = self._broker.metadata_version
        self._take_topics(first=True)
        if self._config.group is None and self._config.auto_offset_reset != "none":
            self._locate()  # "latest" means now, not whenever the first poll comes
        self._ask_attention()

    def assign(self, partitions: Iterable[Partition]) -> None:
        """Reads exactly these partitions, in place of those assigned before; no other member of a group is asked.

        Raises
        ------
        InvalidRequestError
            Topics are subscribed.
        UnknownTopicOrPartitionError, ClosedError
        """
        self._check_usable()
        if self._topics or self._pattern is not None:
            raise InvalidRequestError("topics are subscribed; unsubscribe() before assign()")
        wanted = [topic_partition(partition) for partition in partitions]
        for partition in wanted:
            self._broker.partition_offsets(*partition)
        gone = [partition for partition in self._readers if partition not in wanted]
        self._commit_if_auto()
        self._stop_reading(gone)
        self._start_reading(partition for partition in dict.fromkeys(wanted) if partition not in self._readers)
        self._by_hand = True
        if self._config.auto_offset_reset != "none":
            self._locate()
        self._ask_attention()

    def unsubscribe(self) -> None:
        """Reads nothing any more, and leaves the group."""
        self._check_usable()
        self._give_up()
        self._topics = frozenset()
        self._pattern = None
        self._by_hand = False
        self._ask_attention()

    def subscription(self) -> set[str]:
        """The topics subscribed, by name or by pattern; empty after `assign`."""
        return set(self._subscribed())

    def assignment(self) -> set[TopicPartition]:
        """The partitions that are read now."""
        return set(self._readers)

    # ---- metadata -----------------------------------------------------------------------------------

    def _subscribed(self) -> dict[str, int]:
        """Number of partitions of each topic subscribed that exists."""
        if self._pattern is not None:
            matches = self._pattern.fullmatch
            return {name: count for name, count in self._broker.partition_counts().items() if matches(name)}
        return self._broker.partition_counts(self._topics) if self._topics else {}

    def _take_topics(self, *, first: bool = False) -> None:
        """Brings the assignment in line with the topics there are."""
        counts = self._subscribed()
        if self._membership is not None:
            self._membership.subscribe(counts)
            return
        wanted = {TopicPartition(name, number) for name, count in counts.items() for number in range(count)}
        gone = sorted(partition for partition in self._readers if partition not in wanted)
        added = sorted(partition for partition in wanted if partition not in self._readers)
        if gone:
            try:
                self._listener.revoked(gone)
            finally:
                self._stop_reading(gone)
        if added:
            self._start_reading(added, from_start=not first)
            self._listener.assigned(added)
        if gone and not first:
            _logger().warning("no longer read, since deleted: %s", ", ".join(f"{name}-{number}" for name, number in gone))
        if self._topics and not counts:
            raise UnknownTopicOrPartitionError(
                f"every topic this consumer is subscribed to was deleted: {', '.join(sorted(self._topics))}; "
                "subscribe to others, or close it"
            )

    def _partition_deleted(self, reader: PartitionReader, error: LogstoreError) -> None:
        if self._by_hand:
            self._stop_reading([reader.topic_partition])
            raise error
        if self._membership is not None:
            self._stop_reading([reader.topic_partition])
        self._take_topics()

    # ---- groups -------------------------------------------------------------------------------------

    def _new_membership(self, group: str) -> GroupMembership:
        from logstore.clients.heartbeats import TIMER
        from logstore.clients.membership import GroupMembership

        config = self._config
        return GroupMembership(
            self,
            self._broker,
            group,
            self._notifier,
            assignors=config.partition_assignment_strategy,
            group_instance_id=config.group_instance_id,
            client_id=config.client_id,
            session_timeout=config.session_timeout,
            heartbeat_interval=config.heartbeat_interval,
            max_poll_interval=config.max_poll_interval,
            timer=TIMER if config.clock is None else None,
        )

    def _assign_from_group(
        self,
        added: Collection[TopicPartition] = (),
        revoked: Collection[TopicPartition] = (),
        lost: Collection[TopicPartition] = (),
    ) -> None:
        """For the membership: first what is given up, then what comes."""
        if lost:
            self._stop_reading(lost)
            self._listener.lost(sorted(lost))
        if revoked:
            self._commit_if_auto()
            try:
                self._listener.revoked(sorted(revoked))
            finally:
                self._stop_reading(revoked)
        if added:
            self._start_reading(added)
            self._listener.assigned(sorted(added))

    def _commit_if_auto(self) -> None:
        """Commits what is confirmed, if that is the consumer's doing; a refusal is logged, since records come again."""
        if self._config.group is None or not self._config.enable_auto_commit or not self._readers:
            return
        self._commit_at = self._clock() + self._config.auto_commit_interval
        try:
            self._commit(self._positions(confirmed=True))
        except LogstoreError as error:
            _logger().warning("auto commit for group %r failed: %s", self._config.group, error)

    def group_metadata(self) -> GroupMetadata:
        """The group, and which member of which generation this consumer is; for `Producer.send_offsets_to_transaction`.

        Raises
        ------
        InvalidRequestError
            The consumer has no group.
        ClosedError
        """
        group = self._group()
        if self._membership is None:
            return GroupMetadata(group)
        return self._membership.group_metadata()

    def _send_commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        if self._membership is not None:
            self._membership.commit(offsets)
        else:
            super()._send_commit(offsets)

    # ---- attention ----------------------------------------------------------------------------------

    def _attend(self) -> None:
        self._check_open()
        if not self._by_hand and not self._topics and self._pattern is None:
            raise InvalidRequestError("this consumer reads nothing yet; subscribe() to topics or assign() partitions")
        now = self._clock()
        if self._commit_at == math.inf and self._config.group is not None and self._config.enable_auto_commit:
            self._commit_at = now + self._config.auto_commit_interval
        if now >= self._commit_at:
            self._commit_if_auto()
        version = self._broker.metadata_version
        if version != self._metadata_version:
            self._metadata_version = version
            if not self._by_hand:
                self._take_topics()
        due = math.inf if self._membership is None else self._membership.poll(now)
        if self._membership is not None:
            due = min(due, now + self._config.max_poll_interval / 3)  # iterating is polling
        self._attend_at = min(due, self._commit_at)
        if self._is_unlocated:
            self._locate()

    # ---- the end ------------------------------------------------------------------------------------

    def close(self) -> None:
        """Commits what is confirmed, if ``enable_auto_commit``, and leaves the group. Idempotent.

        Where an exception is being handled, the record in hand, or what the last poll handed out, is not confirmed.

        Raises
        ------
        InvalidRequestError
            Another thread is in a call; have it return with `wakeup` first.
        """
        in_flight = sys.exc_info()[1]
        self._close(is_confirmed=in_flight is None or id(in_flight) == self._handled_before)

    def _close(self, *, is_confirmed: bool) -> None:
        self._check_thread()
        if self._closed:
            return
        if is_confirmed:
            self._confirm()
        self._end("this consumer is closed; make another")

    def _end(self, reason: str) -> None:
        try:
            self._give_up()
        finally:
            self._closed = reason
            self._ask_attention()
            self._stop_reading(list(self._readers))
            self._broker.remove_metadata_waiter(self._notifier)

    def _give_up(self) -> None:
        if self._membership is not None:
            self._membership.leave()
            self._membership = None
        else:
            self._commit_if_auto()
        self._stop_reading(list(self._readers))

    def _broker_closing(self) -> None:
        """For the broker: whoever waits here finds out. From any thread."""
        self._closed = "the broker of this consumer is closed; open it again"
        self._notifier.notify()

    def _check_usable(self) -> None:
        self._check_open()
        self._check_thread()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._close(is_confirmed=exception[0] is None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._close(is_confirmed=exception[0] is None)

    def __del__(self) -> None:
        if getattr(self, "_closed", "not made"):
            return
        warnings.warn(f"{self!r} was not closed; what is confirmed may not be committed", ResourceWarning, stacklevel=2)
        self._closed = "this consumer was collected"
        self._stop_reading(list(self._readers))
        self._broker.remove_metadata_waiter(self._notifier)

    def __repr__(self) -> str:
        group = "" if self._config.group is None else f", group={self._config.group!r}"
        names = [f"{topic}-{number}" for topic, number in sorted(self._readers)]
        shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        return f"Consumer([{shown}]{group}{', closed' if self._closed else ''})"

    def __reduce__(self) -> Any:
        raise TypeError("a Consumer belongs to its broker and can't be pickled")


class _Listeners:
    """A listener object, or functions in its place."""

    __slots__ = ("_assigned", "_lost", "_revoked")

    def __init__(
        self, assigned: Listener | None, revoked: Listener | None, lost: Listener | None,
        listener: RebalanceListener | None = None,
    ):  # fmt: skip
        self._assigned = assigned or getattr(listener, "on_partitions_assigned", None)
        self._revoked = revoked or getattr(listener, "on_partitions_revoked", None)
        self._lost = lost or getattr(listener, "on_partitions_lost", None) or self._revoked

    def assigned(self, partitions: list[TopicPartition]) -> None:
        if self._assigned is not None:
            self._assigned(partitions)

    def revoked(self, partitions: list[TopicPartition]) -> None:
        if self._revoked is not None:
            self._revoked(partitions)

    def lost(self, partitions: list[TopicPartition]) -> None:
        if self._lost is not None:
            self._lost(partitions)


def _logger() -> Any:
    import logging

    return logging.getLogger("logstore.consumer")
