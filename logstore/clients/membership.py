"""One consumer's membership in its group: joining, assigning as the leader, revoking, committing, leaving.

Nothing here waits. `GroupMembership.poll` does what can be done now; answers of the coordinator and notifications from it
are kept by the `GroupSession`, which wakes the consumer so that it polls again. Threads, tasks and tests with a clock of
their own drive it alike.

Under the *eager* protocol a member gives up all partitions before it joins. Under the *cooperative* one it goes on
reading, gives up only what is moved elsewhere once it is told so, and joins again to have that assigned. The cooperative
protocol is used where every assignor of the member is cooperative.
"""

from __future__ import annotations

import contextlib
import math
import threading
import weakref
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Literal, Protocol

from logstore.broker_api import BrokerApi, JoinGroupRequest, JoinGroupResponse, SyncGroupRequest, SyncGroupResponse, Wakeable
from logstore.clients.assignors import Assignor, assignor_user_data, find_assignors, is_cooperative
from logstore.clients.group_leader import client_logger, divide, read_subscriptions
from logstore.clients.heartbeats import (
    TIMER,
    Failed,
    GroupSession,
    HeartbeatTimer,
    Identity,
    Joined,
    Removed,
    Synced,
    check_intervals,
)
from logstore.consumer_protocol import PROTOCOL_TYPE, Subscription, decode_assignment, encode_subscription
from logstore.errors import (
    CommitFailedError,
    FencedInstanceIdError,
    IllegalGenerationError,
    InvalidConfigError,
    InvalidGroupIdError,
    LogstoreError,
    MemberIdRequiredError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)
from logstore.model import GroupMetadata, OffsetAndMetadata, TopicPartition

__all__ = ["GroupMembership", "PartitionOwner"]

RETRY_BACKOFF = 0.1
STEPS_MAX = 64
CLIENT_HOST = "/127.0.0.1"  # what Kafka's tools show for a client of the same host


class PartitionOwner(Protocol):
    """The consumer, as its membership sees it."""

    def _assign_from_group(
        self, added: Sequence[TopicPartition], revoked: Sequence[TopicPartition], lost: Sequence[TopicPartition]
    ) -> None:
        """Changes what is read; called on the consumer's thread, inside `GroupMembership.poll` or `leave`.

        ``revoked`` are still this member's until this returns: positions can be committed, and listeners are called
        before anything is given up. ``lost`` belong to others already: nothing is committed. ``added`` start at their
        committed offsets. All of it has happened when this returns or raises.
        """


class GroupMembership:
    """A consumer's place in a group. One thread at a time, the consumer's; other threads only reach its session.

    Parameters
    ----------
    owner : PartitionOwner
        The consumer; referred to weakly.
    broker : BrokerApi
    group : str
    wakeable : Wakeable
        Notified, from any thread, when `poll` has something to do. Must not refer to the owner strongly.
    assignors : str, Assignor, or several of them
        By preference.
    group_instance_id : str, optional
        Makes a static member: closing does not leave the group, and who comes back in time gets the same partitions.
    client_id : str
    session_timeout, heartbeat_interval, max_poll_interval : float
        Seconds.
    timer : HeartbeatTimer, optional
        None leaves it to the caller to call `tick`.

    Raises
    ------
    InvalidGroupIdError, InvalidConfigError
    """

    def __init__(
        self,
        owner: PartitionOwner,
        broker: BrokerApi,
        group: str,
        wakeable: Wakeable,
        *,
        assignors: str | Assignor | Iterable[str | Assignor] = "cooperative-sticky",
        group_instance_id: str | None = None,
        client_id: str = "consumer",
        session_timeout: float = 45.0,
        heartbeat_interval: float = 3.0,
        max_poll_interval: float = 300.0,
        timer: HeartbeatTimer | None = TIMER,
    ):
        if not isinstance(group, str) or not group:
            raise InvalidGroupIdError(f"a group id is a string of at least one character, not {group!r}")
        if group_instance_id is not None and (not isinstance(group_instance_id, str) or not group_instance_id):
            raise InvalidConfigError(f"group_instance_id is a string of at least one character, not {group_instance_id!r}")
        check_intervals(session_timeout, heartbeat_interval, max_poll_interval)
        self.group = group
        self.group_instance_id = group_instance_id
        self.client_id = client_id
        self.topics: tuple[str, ...] = ()
        self.assigned: tuple[TopicPartition, ...] = ()
        self.assignors = find_assignors(assignors)
        self.is_cooperative = all(map(is_cooperative, self.assignors))
        self.member_id = ""
        self.generation = -1
        self.is_leader = False
        self.protocol = ""
        self._owner = weakref.ref(owner)
        self._broker = broker
        self._state: Literal["unjoined", "joining", "syncing", "stable"] = "unjoined"
        self._rejoin_reason = ""
        self._joined_topics: tuple[str, ...] = ()
        self._assigned_last: tuple[TopicPartition, ...] = ()
        self._assigned_generation = -1
        self._group_topics: dict[str, int] = {}  # the leader's: topics of the whole group as they were when assigned
        self._metadata_version = -1
        self._request = 0
        self._retry_at = -math.inf
        self._fatal: LogstoreError | None = None
        # Partitions added and revoked that the owner does not know of yet; `assigned` counts them already.
        self._change: tuple[tuple[TopicPartition, ...], tuple[TopicPartition, ...]] | None = None
        self._timer = timer
        self._is_scheduled = False
        self._session = GroupSession(
            broker,
            group,
            group_instance_id,
            wakeable,
            session_timeout=session_timeout,
            heartbeat_interval=heartbeat_interval,
            max_poll_interval=max_poll_interval,
        )
        self._session.watch(self, timer)
        broker.add_metadata_waiter(self._session)

    # ---- the consumer's calls -----------------------------------------------------------------------

    @property
    def is_stable(self) -> bool:
        """The member has its assignment and knows of no reason to join again."""
        return (
            self._state == "stable" and not self._rejoin_reason and not self._session.events and self._change is None
        )

    def subscribe(self, topics: Iterable[str]) -> None:
        """Sets the topics; the next `poll` joins the group with them."""
        self.topics = tuple(sorted(set(topics)))
        if self._state != "unjoined" and self.topics != self._joined_topics:
            self._rejoin_reason = "its subscription has changed"

    def request_rejoin(self, reason: str = "the application asked for it") -> None:
        """Has the group rebalance."""
        self._rejoin_reason = reason

    def poll(self, now: float) -> float:
        """Does what can be done at a time (``time.monotonic``) without waiting.

        Returns
        -------
        float
            When to poll again even if nothing notifies; ``math.inf`` for never.

        Raises
        ------
        FencedInstanceIdError
            Another consumer has joined with the same ``group_instance_id``; this one has lost its place for good.
        InconsistentGroupProtocolError, GroupMaxSizeReachedError, InvalidSessionTimeoutError
            The group does not take this member.
        InvalidRequestError
            The assignor of this member, who is the leader, assigned what it must not.
        """
        session = self._session
        session.polled(now)
        if self._fatal is not None:
            raise self._fatal
        if self._state == "stable" and now - session.last_heartbeat >= session.session_timeout:
            session.is_notified = True  # the session may have ended unheard: ask before records are handed out
        session.polling_thread = threading.get_ident()
        try:
            for _ in range(STEPS_MAX):
                if not self._step(now):
                    return self._retry_at if self._state == "unjoined" and not session.is_closed else math.inf
        finally:
            session.polling_thread = 0
        return now  # an assignor that never comes to rest: records and others have their turn before it goes on

    def tick(self, now: float) -> float | None:
        """Heartbeats, and leaving where the consumer does not poll; for whoever drives a membership without a timer."""
        return self._session.tick(now)

    def commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        """Commits offsets as this member of its newest generation; what that one takes away is its own until it polls.

        Raises
        ------
        CommitFailedError
            The group has given the partitions to others.
        RebalanceInProgressError
            The generation is about to change; poll, and commit again what is still assigned.
        FencedInstanceIdError
        """
        if self._fatal is not None:
            raise self._fatal
        events = self._session.events
        while self._state in ("joining", "syncing") and events and isinstance(events[0], (Joined, Synced)):
            self._hear(self._session.last_poll)
        identity = Identity(self.generation, self.member_id)
        if self.generation < 0:
            raise CommitFailedError(
                f"group {self.group!r}: nothing was committed, because this consumer is not a member (any more). Its "
                "partitions, if it had any, are read by others from their committed offsets on; poll to join again."
            )
        try:
            self._session.coordinator.commit_offsets(
                self.group,
                offsets,
                generation=identity.generation,
                member_id=identity.member_id,
                group_instance_id=self.group_instance_id,
            )
        except FencedInstanceIdError as error:
            self._session.events.append(Failed(identity, error))
            raise
        except (UnknownMemberIdError, IllegalGenerationError) as error:
            if self._state in ("joining", "syncing") and isinstance(error, IllegalGenerationError):
                raise RebalanceInProgressError(
                    f"group {self.group!r} is rebalancing: nothing was committed. Poll, then commit again what is still "
                    "assigned."
                ) from error
            self._session.events.append(Failed(identity, error))
            raise CommitFailedError(
                f"group {self.group!r}: nothing was committed, because the group has rebalanced without member "
                f"{self.member_id!r} and has given its partitions to others, who read them from their committed offsets on. "
                "This happens when polls are further apart than max_poll_interval, or heartbeats than session_timeout: poll "
                "more often, take fewer records at a time (max_poll_records), or raise max_poll_interval."
            ) from error

    def group_metadata(self) -> GroupMetadata:
        """Who the member is now."""
        return GroupMetadata(self.group, self.generation, self.member_id, self.group_instance_id)

    def leave(self) -> None:
        """Gives up all partitions and leaves the group; a static member keeps its place until its session ends."""
        session = self._session
        if session.is_closed:
            return
        try:
            self._look_for_loss()
            revoked = self._take_back()
            if revoked:
                self._give_to_owner(revoked=revoked)
        finally:
            self._broker.remove_metadata_waiter(self._session)
            session.close()
            if self._timer is not None and self._is_scheduled:
                self._timer.schedule(0.0, session.tick)  # which ends it
            if self.member_id and self.group_instance_id is None and self._fatal is None:
                try:
                    self._session.coordinator.leave_group(self.group, self.member_id)
                except LogstoreError as error:  # removed already, or the broker is closed: there is nothing to leave
                    client_logger().debug("group %r: left without the coordinator: %s", self.group, error)
            self._state = "unjoined"
            self.generation = -1

    # ---- one step at a time -------------------------------------------------------------------------

    def _step(self, now: float) -> bool:
        """Whether anything was done, so that there may be more to do."""
        session = self._session
        if session.is_closed:
            return False
        if self._change is not None:
            (added, revoked), self._change = self._change, None
            self._give_to_owner(added=added, revoked=revoked)
            return True
        if session.is_notified and self._state == "stable":  # before, it would not be told: kept until it is
            session.is_notified = False
            session.beat(now)
        if self._metadata_version != self._broker.metadata_version:
            self._look_at_topics()
        if session.events:
            self._hear(now)
            return True
        if (self._state == "unjoined" and now >= self._retry_at) or (self._state == "stable" and self._rejoin_reason):
            self._join(now)
            return True
        return False

    def _hear(self, now: float) -> None:
        """Takes the oldest answer or notification."""
        try:
            self._handle(self._session.events[0], now)
        except BaseException:
            if self._state in ("joining", "syncing"):
                self._state = "unjoined"  # an answer half heard, or an assignor's error: ask again at the next poll
            raise
        finally:
            self._session.events.popleft()

    def _look_at_topics(self) -> None:
        self._metadata_version = self._broker.metadata_version
        if self.is_leader and self._state == "stable":
            counts = self._broker.partition_counts(self._group_topics)
            if any(counts.get(topic, 0) != count for topic, count in self._group_topics.items()):
                self._rejoin_reason = "topics have come or gone, or have gained partitions"

    def _look_for_loss(self) -> None:
        """Before closing: what is lost already is not committed."""
        session = self._session
        if session.is_notified and self._state == "stable":
            session.beat(session.last_poll)
        for event in tuple(session.events):
            if isinstance(event, Removed) or (
                isinstance(event, Failed) and not isinstance(event.error, RebalanceInProgressError)
            ):
                with contextlib.suppress(FencedInstanceIdError):
                    self._handle(event, session.last_poll)

    def _handle(self, event: Joined | Synced | Failed | Removed, now: float) -> None:
        if isinstance(event, Joined):
            if event.request == self._request and self._state == "joining":
                self._joined(event.response, now)
        elif isinstance(event, Synced):
            if event.request == self._request and self._state == "syncing":
                self._synced(event.response, now)
        elif event.identity != (self.generation, self.member_id):
            return  # of an earlier generation
        elif isinstance(event, Removed):
            self._lose(event.reason, forget_member=True)
        elif isinstance(event.error, RebalanceInProgressError):
            if self._state == "stable":
                self._rejoin_reason = self._rejoin_reason or "the group is rebalancing"
        elif self._state == "stable" or isinstance(event.error, FencedInstanceIdError):
            self._refused(event.error, now)

    def _refused(self, error: LogstoreError, now: float) -> None:
        """The coordinator does not go on with this member in this generation."""
        if isinstance(error, FencedInstanceIdError):
            self._fatal = error
            self._lose(str(error))
            raise error
        if isinstance(error, IllegalGenerationError):
            self._lose("the group has rebalanced without it")
        elif isinstance(error, UnknownMemberIdError):
            self._lose("its session has ended", forget_member=True)
        elif isinstance(error, (RebalanceInProgressError, MemberIdRequiredError)):
            self._state = "unjoined"  # join again at once, still holding what is held
        else:
            self._state = "unjoined"
            self._session.identity = None
            self._retry_at = now + RETRY_BACKOFF
            if not error.retriable:
                raise error

    def _lose(self, reason: str, *, forget_member: bool = False) -> None:
        """This member is none any more: what it had belongs to others."""
        lost = self._take_back()
        self._session.identity = None
        self._state = "unjoined"
        self.generation = -1
        if forget_member:
            self.member_id = ""
        if lost:
            client_logger().warning(
                "group %r: consumer %r has lost %d partitions: %s", self.group, self.client_id, len(lost), reason
            )
            self._give_to_owner(lost=lost)

    def _take_back(self) -> tuple[TopicPartition, ...]:
        """Nothing is assigned any more; returns what the owner holds."""
        added, revoked = self._change or ((), ())
        held = tuple(sorted({*self.assigned, *revoked} - {*added}))
        self.assigned, self._change = (), None
        return held

    def _give_to_owner(
        self,
        added: tuple[TopicPartition, ...] = (),
        revoked: tuple[TopicPartition, ...] = (),
        lost: tuple[TopicPartition, ...] = (),
    ) -> None:
        owner = self._owner()
        if owner is not None:
            owner._assign_from_group(added, revoked, lost)

    # ---- joining ------------------------------------------------------------------------------------

    def _join(self, now: float) -> None:
        kept = tuple(place for place in self.assigned if self.is_cooperative and place.topic in self.topics)
        if kept != self.assigned:
            revoked = tuple(place for place in self.assigned if place not in kept)
            self.assigned = kept
            self._give_to_owner(revoked=revoked)
        session = self._session
        self._request = session.next_request()
        self._rejoin_reason = ""
        self._joined_topics = self.topics
        self._state = "joining"
        request = JoinGroupRequest(
            self.group,
            self.member_id,
            self.group_instance_id,
            self.client_id,
            CLIENT_HOST,
            round(session.session_timeout * 1000),
            round(session.max_poll_interval * 1000),
            PROTOCOL_TYPE,
            tuple((assignor.name, self._subscription_for(assignor)) for assignor in self.assignors),
            wakeable=session,
        )
        try:
            session.coordinator.join_group(request, partial(session.joined, self._request))
        except BaseException:
            self._state = "unjoined"
            raise
        if self._timer is not None and not self._is_scheduled:
            self._timer.schedule(now + session.heartbeat_interval, session.tick)
            self._is_scheduled = True

    def _subscription_for(self, assignor: Assignor) -> bytes:
        user_data = assignor_user_data(assignor, self.topics, self._assigned_last, self._assigned_generation)
        return encode_subscription(Subscription(self.topics, user_data, self.assigned, self._assigned_generation))

    def _joined(self, response: JoinGroupResponse, now: float) -> None:
        if response.error is not None:
            self.member_id = response.member_id or self.member_id
            self._refused(response.error, now)
            return
        self.generation, self.member_id = response.generation, response.member_id
        self.protocol = response.protocol
        self.is_leader = response.leader == response.member_id
        self._session.last_heartbeat = now
        self._state = "syncing"
        assignments: dict[str, bytes] = {}
        if self.is_leader and (response.members or not response.skip_assignment):
            assignments = self._assign(response)
        request = SyncGroupRequest(self.group, self.generation, self.member_id, self.group_instance_id, assignments)
        self._session.coordinator.sync_group(request, partial(self._session.synced, self._request))

    def _assign(self, response: JoinGroupResponse) -> dict[str, bytes]:
        """The leader's work: everyone's assignment."""
        assignor = next((one for one in self.assignors if one.name == response.protocol), None)
        if assignor is None:
            raise InvalidConfigError(f"group {self.group!r} chose assignor {response.protocol!r}, which its leader lacks")
        subscriptions = read_subscriptions(self.group, response.members)
        topics = {topic for subscription in subscriptions.values() for topic in subscription.topics}
        self._metadata_version = self._broker.metadata_version
        counts = self._broker.partition_counts(topics)
        self._group_topics = {topic: counts.get(topic, 0) for topic in topics}
        return {} if response.skip_assignment else divide(assignor, counts, subscriptions)

    def _synced(self, response: SyncGroupResponse, now: float) -> None:
        if response.error is not None:
            self._refused(response.error, now)
            return
        before = self.assigned
        # What was unsubscribed while this was under way is not taken; the next join says so to the others.
        found = {place for place in decode_assignment(response.assignment).partitions if place.topic in self.topics}
        self.assigned = self._assigned_last = tuple(sorted(found))
        self._assigned_generation = self.generation
        self._state = "stable"
        if self.topics != self._joined_topics:
            self._rejoin_reason = "its subscription has changed"
        held = frozenset(before)
        revoked = tuple(place for place in before if place not in found)
        if revoked:
            self._rejoin_reason = "it has given up partitions for others"
        self._look_at_topics()
        self._change = (tuple(place for place in self.assigned if place not in held), revoked)
