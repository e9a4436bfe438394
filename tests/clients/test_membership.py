"""One member against a coordinator that answers what the test says, when it says so."""

from __future__ import annotations

import gc
import math
import threading
import time
from typing import Any

import pytest

from logstore.broker_api import JoinedMember, JoinGroupRequest, JoinGroupResponse, SyncGroupRequest, SyncGroupResponse
from logstore.clients.assignors import CooperativeStickyAssignor
from logstore.clients.heartbeats import HeartbeatTimer
from logstore.clients.membership import GroupMembership
from logstore.consumer_protocol import Assignment, decode_assignment, decode_subscription, encode_assignment
from logstore.errors import (
    ClosedError,
    CommitFailedError,
    DiskFullError,
    FencedInstanceIdError,
    IllegalGenerationError,
    InconsistentGroupProtocolError,
    InvalidConfigError,
    InvalidGroupIdError,
    InvalidRequestError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)
from logstore.model import OffsetAndMetadata, TopicPartition


def place(name: str) -> TopicPartition:
    topic, number = name.split("-")
    return TopicPartition(topic, int(number))


def as_places(names: str) -> tuple[TopicPartition, ...]:
    return tuple(map(place, names.split()))


def as_bytes(names: str) -> bytes:
    return encode_assignment(Assignment(as_places(names)))


class ScriptedBroker:
    """Both broker and coordinator: keeps what it is asked until the test answers."""

    def __init__(self, **topics: int) -> None:
        self.topics = topics
        self.metadata_version = 1
        self.waiters: list[Any] = []
        self.joins: list[tuple[JoinGroupRequest, Any]] = []
        self.syncs: list[tuple[SyncGroupRequest, Any]] = []
        self.heartbeats: list[tuple[int, str]] = []
        self.left: list[tuple[str, str | None]] = []
        self.commits: list[tuple[int, str, dict]] = []
        self.heartbeat_error: Exception | None = None
        self.commit_error: Exception | None = None

    coordinator = property(lambda self: self)

    def add_metadata_waiter(self, waiter):
        self.waiters.append(waiter)

    def remove_metadata_waiter(self, waiter):
        if waiter in self.waiters:
            self.waiters.remove(waiter)

    def partition_counts(self, topics=None):
        return {topic: count for topic, count in self.topics.items() if topics is None or topic in topics}

    def change_topics(self, **topics: int) -> None:
        self.topics.update(topics)
        self.metadata_version += 1
        for waiter in self.waiters:
            waiter.notify()

    def join_group(self, request, done):
        self.joins.append((request, done))

    def sync_group(self, request, done):
        self.syncs.append((request, done))

    def heartbeat(self, group, generation, member_id, group_instance_id=None):
        self.heartbeats.append((generation, member_id))
        if self.heartbeat_error is not None:
            raise self.heartbeat_error

    def leave_group(self, group, member_id, group_instance_id=None):
        self.left.append((member_id, group_instance_id))

    def commit_offsets(self, group, offsets, *, generation=-1, member_id="", group_instance_id=None):
        if self.commit_error is not None:
            raise self.commit_error
        self.commits.append((generation, member_id, dict(offsets)))

    # ---- answers

    def answer_join(self, generation: int, member_id: str = "me", *, leader: str = "other", protocol: str = "") -> Any:
        request, done = self.joins.pop()
        members = ()
        if leader == member_id:
            members = tuple(JoinedMember(member_id, request.group_instance_id, data) for _, data in request.protocols[:1])
        done(
            JoinGroupResponse(None, member_id, generation, "consumer", protocol or request.protocols[0][0], leader, members)
        )
        return request

    def refuse_join(self, error: Exception) -> None:
        self.joins.pop()[1](JoinGroupResponse(error))

    def answer_sync(self, assignment: str) -> Any:
        request, done = self.syncs.pop()
        done(SyncGroupResponse(None, as_bytes(assignment)))
        return request

    def refuse_sync(self, error: Exception) -> None:
        self.syncs.pop()[1](SyncGroupResponse(error))


class Owner:
    """A consumer that writes down what happens to it."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.raises: dict[str, Exception] = {}
        self.during: Any = None

    def _assign_from_group(self, added, revoked, lost) -> None:
        for what, partitions in (("lost", lost), ("revoked", revoked), ("added", added)):
            if partitions:
                self.said.append(f"{what} " + " ".join(f"{topic}-{number}" for topic, number in partitions))
                if self.during is not None:
                    self.during(what)
                if what in self.raises:
                    raise self.raises.pop(what)


class Bell:
    def __init__(self) -> None:
        self.rung = 0

    def notify(self) -> None:
        self.rung += 1


class Member:
    """A membership and all around it, at a time of its own."""

    def __init__(self, *, topics="t", assignors="cooperative-sticky", broker=None, **settings) -> None:
        self.broker = broker or ScriptedBroker(t=4, u=2)
        self.owner, self.bell, self.now = Owner(), Bell(), 1000.0
        settings.setdefault("timer", None)
        self.membership = GroupMembership(self.owner, self.broker, "g", self.bell, assignors=assignors, **settings)
        self.membership.subscribe(topics.split())

    def poll(self) -> list[str]:
        self.owner.said.clear()
        self.membership.poll(self.now)
        return list(self.owner.said)

    def join(self, generation: int, assignment: str, **answer) -> list[str]:
        """A whole round; the leader is somebody else."""
        self.poll()
        self.broker.answer_join(generation, **answer)
        self.poll()
        self.broker.answer_sync(assignment)
        return self.poll()

    def tell_of_rebalance(self) -> None:
        self.broker.heartbeat_error = RebalanceInProgressError("join again")
        self.membership._session.notify()

    def tick(self, seconds: float = 0.0) -> float | None:
        self.now += seconds
        return self.membership.tick(self.now)


EAGER = "range"
COOPERATIVE = "cooperative-sticky"


# ---- joining and leaving --------------------------------------------------------------------------


def test_a_member_joins_syncs_and_reads():
    member = Member(client_id="c", session_timeout=30, max_poll_interval=60, group_instance_id=None)
    assert member.poll() == []
    (request, _) = member.broker.joins[0]
    assert (request.group, request.member_id, request.client_id) == ("g", "", "c")
    assert (request.session_timeout_ms, request.rebalance_timeout_ms, request.protocol_type) == (30000, 60000, "consumer")
    assert [name for name, _ in request.protocols] == ["cooperative-sticky"]
    assert decode_subscription(request.protocols[0][1]).topics == ("t",)
    rung = member.bell.rung
    member.broker.answer_join(1)
    assert member.bell.rung > rung
    assert member.poll() == []
    assert member.broker.syncs[0][0] == SyncGroupRequest("g", 1, "me")
    member.broker.answer_sync("t-0 t-1")
    assert member.poll() == ["added t-0 t-1"]
    assert member.membership.assigned == as_places("t-0 t-1")
    assert member.membership.is_stable
    assert (member.membership.generation, member.membership.member_id) == (1, "me")
    assert member.poll() == []


def test_the_leader_assigns_for_all():
    member = Member(topics="t u", assignors=EAGER)
    member.poll()
    other = member.broker.joins[0][0].protocols[0][1]
    request, done = member.broker.joins.pop()
    members = (JoinedMember("me", None, request.protocols[0][1]), JoinedMember("you", None, other))
    done(JoinGroupResponse(None, "me", 1, "consumer", "range", "me", members))
    member.poll()
    assignments = member.broker.syncs[0][0].assignments
    assert {who: decode_assignment(data).partitions for who, data in assignments.items()} == {
        "me": as_places("t-0 t-1 u-0"),
        "you": as_places("t-2 t-3 u-1"),
    }


def test_a_leader_gives_nothing_to_whom_it_cannot_read(caplog):
    member = Member(assignors=EAGER)
    member.poll()
    request, done = member.broker.joins.pop()
    members = (JoinedMember("me", None, request.protocols[0][1]), JoinedMember("odd", None, b"\x00\x03garbage"))
    done(JoinGroupResponse(None, "me", 1, "consumer", "range", "me", members))
    member.poll()
    assignments = member.broker.syncs[0][0].assignments
    assert len(decode_assignment(assignments["me"]).partitions) == 4
    assert decode_assignment(assignments["odd"]).partitions == ()
    assert "odd gets nothing" in caplog.text


def test_a_leader_that_came_back_does_not_assign_again():
    member = Member(group_instance_id="i")
    member.poll()
    request, done = member.broker.joins.pop()
    members = (JoinedMember("me", "i", request.protocols[0][1]),)
    done(JoinGroupResponse(None, "me", 7, "consumer", COOPERATIVE, "me", members, skip_assignment=True))
    member.poll()
    assert member.broker.syncs[0][0].assignments == {}
    member.broker.answer_sync("t-0")
    assert member.poll() == ["added t-0"]
    member.broker.change_topics(t=5)  # it is the leader all the same
    member.poll()
    assert member.broker.joins


def test_closing_gives_up_and_leaves():
    member = Member()
    member.join(1, "t-0")
    member.owner.during = lambda what: member.broker.left.append(("still here", what))
    member.owner.said.clear()
    member.membership.leave()
    assert member.owner.said == ["revoked t-0"]
    assert member.broker.left == [("still here", "revoked"), ("me", None)]
    assert member.broker.waiters == []
    member.membership.leave()
    member.poll()
    assert len(member.broker.left) == 2
    assert member.tick(5) is None


def test_a_static_member_does_not_leave():
    member = Member(group_instance_id="i")
    member.join(1, "t-0")
    member.membership.leave()
    assert member.broker.left == []


def test_closing_while_joining_leaves_once_joined():
    member = Member()
    member.poll()
    member.membership.leave()
    assert member.broker.left == []  # it has no member id yet
    member.broker.answer_join(1, "late")
    assert member.broker.left == [("late", None)]


def test_closing_what_is_lost_already_commits_nothing():
    member = Member()
    member.join(1, "t-0")
    member.broker.heartbeat_error = UnknownMemberIdError("gone")
    member.membership._session.notify()
    member.owner.said.clear()
    member.membership.leave()
    assert member.owner.said == ["lost t-0"]


def test_a_listener_that_raises_at_close_still_leaves():
    member = Member()
    member.join(1, "t-0")
    member.owner.raises["revoked"] = KeyError("mine")
    with pytest.raises(KeyError):
        member.membership.leave()
    assert member.broker.left == [("me", None)]


# ---- eager and cooperative ------------------------------------------------------------------------


def test_an_eager_member_gives_up_everything_before_it_joins():
    member = Member(assignors=EAGER)
    assert member.join(1, "t-0 t-1") == ["added t-0 t-1"]
    member.tell_of_rebalance()
    member.owner.during = lambda what: member.membership.commit({place("t-0"): OffsetAndMetadata(5)})
    assert member.poll() == ["revoked t-0 t-1"]
    assert member.broker.commits == [(1, "me", {place("t-0"): OffsetAndMetadata(5)})]
    assert member.membership.assigned == ()
    request = member.broker.joins[0][0]
    assert request.member_id == "me"
    assert decode_subscription(request.protocols[0][1]).owned_partitions == ()
    member.owner.during = None
    assert member.join(2, "t-1") == ["added t-1"]


def test_a_cooperative_member_gives_up_only_what_moves():
    member = Member()
    member.join(1, "t-0 t-1")
    member.tell_of_rebalance()
    assert member.poll() == []
    subscription = decode_subscription(member.broker.joins[0][0].protocols[0][1])
    assert (subscription.owned_partitions, subscription.generation) == (as_places("t-0 t-1"), 1)
    assert member.membership.assigned == as_places("t-0 t-1")  # goes on reading
    member.broker.heartbeat_error = None
    member.broker.answer_join(2)
    member.poll()
    member.owner.during = lambda what: member.membership.commit({place("t-1"): OffsetAndMetadata(9)})
    member.broker.answer_sync("t-0 t-2")
    # Both in one call: revoked first, so that it can be committed while it is this member's; then it joins again.
    assert member.poll() == ["revoked t-1", "added t-2"]
    assert member.broker.commits[0][0] == 2
    subscription = decode_subscription(member.broker.joins[0][0].protocols[0][1])
    assert (subscription.owned_partitions, subscription.generation) == (as_places("t-0 t-2"), 2)


def test_one_eager_assignor_makes_the_member_eager():
    member = Member(assignors=[COOPERATIVE, EAGER])
    member.join(1, "t-0")
    member.tell_of_rebalance()
    assert member.poll() == ["revoked t-0"]


def test_the_eager_sticky_assignor_is_told_what_was_held():
    member = Member(assignors="sticky")
    member.join(3, "t-0 t-1")
    member.tell_of_rebalance()
    member.poll()
    subscription = decode_subscription(member.broker.joins[0][0].protocols[0][1])
    from logstore.consumer_protocol import decode_sticky_user_data

    assert decode_sticky_user_data(subscription.user_data) == (as_places("t-0 t-1"), 3)


def test_a_notification_is_looked_into_before_more_is_read():
    """Within one process no heartbeat has to come due first."""
    member = Member()
    member.join(1, "t-0")
    beats = len(member.broker.heartbeats)
    member.membership._session.notify()
    assert member.poll() == []
    assert len(member.broker.heartbeats) == beats + 1
    assert member.broker.joins == []
    member.tell_of_rebalance()
    member.poll()
    assert len(member.broker.joins) == 1


def test_a_notification_during_a_rebalance_is_not_forgotten():
    """The next rebalance has begun before this member has heard of its assignment in the last one."""
    member = Member()
    member.poll()
    member.broker.answer_join(1)
    member.poll()
    member.tell_of_rebalance()
    member.poll()
    assert member.broker.heartbeats == []
    member.broker.answer_sync("t-0")
    assert member.poll() == ["added t-0"]
    assert len(member.broker.heartbeats) == 1
    assert len(member.broker.joins) == 1


# ---- subscriptions and topics ---------------------------------------------------------------------


@pytest.mark.parametrize("assignors", [EAGER, COOPERATIVE])
def test_a_changed_subscription_rebalances(assignors):
    member = Member(assignors=assignors, topics="t u")
    member.join(1, "t-0 u-0")
    member.membership.subscribe(["u", "t"])
    assert member.poll() == []
    assert member.broker.joins == []
    member.membership.subscribe(["t"])
    assert member.poll() == (["revoked t-0 u-0"] if assignors == EAGER else ["revoked u-0"])
    subscription = decode_subscription(member.broker.joins[0][0].protocols[0][1])
    assert subscription.topics == ("t",)


def test_what_was_unsubscribed_while_joining_is_not_taken():
    member = Member(topics="t u")
    member.poll()
    member.broker.answer_join(1)
    member.poll()
    member.membership.subscribe(["t"])
    member.broker.answer_sync("t-0 u-0")
    assert member.poll() == ["added t-0"]
    assert decode_subscription(member.broker.joins[0][0].protocols[0][1]).topics == ("t",)


def test_the_leader_sees_partitions_added():
    member = Member()
    member.join(1, "t-0", leader="me")
    assert member.broker.joins == []
    rung = member.bell.rung
    member.broker.change_topics(u=9)  # not the group's
    member.poll()
    assert member.broker.joins == []
    member.broker.change_topics(t=5)
    assert member.bell.rung > rung
    member.poll()
    assert len(member.broker.joins) == 1


def test_partitions_added_while_the_leader_assigned_are_seen():
    member = Member()
    member.poll()
    member.broker.answer_join(1, leader="me")
    member.poll()
    member.broker.change_topics(t=6)
    member.broker.answer_sync("t-0 t-1 t-2 t-3")
    assert member.poll() == ["added t-0 t-1 t-2 t-3"]
    assert len(member.broker.joins) == 1


def test_others_leave_topics_to_the_leader():
    member = Member()
    member.join(1, "t-0")
    member.broker.change_topics(t=5)
    member.poll()
    assert member.broker.joins == []


# ---- heartbeats, and what becomes of who does not poll ------------------------------------------------


def test_heartbeats_keep_the_interval():
    member = Member(heartbeat_interval=3.0)
    assert member.tick() == member.now + 3
    assert member.broker.heartbeats == []
    member.join(1, "t-0")
    member.tick()
    assert member.broker.heartbeats == [(1, "me")]
    due = member.tick(1)
    assert due == pytest.approx(member.now + 2)
    assert len(member.broker.heartbeats) == 1
    member.tick(2)
    assert len(member.broker.heartbeats) == 2


def test_a_session_lives_from_the_answer_on_before_the_consumer_polls():
    member = Member()
    member.poll()
    member.broker.answer_join(4)
    member.tick(1)
    assert member.broker.heartbeats == [(4, "me")]


@pytest.mark.parametrize("assignors", [EAGER, COOPERATIVE])
@pytest.mark.parametrize("error", [UnknownMemberIdError, IllegalGenerationError])
def test_a_lost_session_loses_partitions_without_commit(assignors, error, caplog):
    member = Member(assignors=assignors)
    member.join(1, "t-0")
    member.broker.heartbeat_error = error("no")
    member.tick(5)
    rung = member.bell.rung
    assert rung
    assert member.poll() == ["lost t-0"]
    assert "has lost 1 partitions" in caplog.text
    request = member.broker.joins[0][0]
    assert request.member_id == ("" if error is UnknownMemberIdError else "me")
    assert decode_subscription(request.protocols[0][1]).owned_partitions == ()
    assert member.membership.generation == -1


def test_a_silent_session_is_asked_about_before_records_are_handed_out():
    member = Member(session_timeout=10)
    member.join(1, "t-0")
    member.now += 11  # and no tick: the machine slept
    member.broker.heartbeat_error = UnknownMemberIdError("gone")
    assert member.poll() == ["lost t-0"]


def test_who_does_not_poll_leaves_the_group(caplog):
    member = Member(max_poll_interval=60)
    member.join(1, "t-0")
    member.tick(59)
    assert member.broker.left == []
    member.tick(1)
    assert member.broker.left == [("me", None)]
    beats = len(member.broker.heartbeats)
    member.tick(10)
    assert len(member.broker.heartbeats) == beats
    assert member.poll() == ["lost t-0"]
    with pytest.raises(CommitFailedError, match="not a member"):
        member.membership.commit({place("t-0"): OffsetAndMetadata(1)})
    assert "has not polled for 60 s" in caplog.text
    assert member.broker.joins[0][0].member_id == ""


def test_a_static_member_that_does_not_poll_falls_silent():
    member = Member(max_poll_interval=60, group_instance_id="i")
    member.join(1, "t-0")
    member.tick(60)
    beats = len(member.broker.heartbeats)
    member.tick(10)
    assert (member.broker.left, len(member.broker.heartbeats)) == ([], beats)
    assert member.poll() == ["lost t-0"]


def test_a_sleeping_consumer_is_nudged_in_time():
    member = Member(max_poll_interval=60, heartbeat_interval=3)
    member.join(1, "t-0")
    rung = member.bell.rung
    at = member.tick()
    while at < 1000 + 30:
        assert member.bell.rung == rung
        member.now = at
        at = member.tick()
    member.now = at
    member.tick()
    assert member.bell.rung == rung + 1
    member.poll()
    member.tick(29)
    assert member.bell.rung == rung + 1
    member.tick(1)
    assert member.bell.rung == rung + 2
    member.tick(1)
    assert member.bell.rung == rung + 2


def test_the_session_of_a_dead_thread_falls_silent():
    member = Member()
    member.join(1, "t-0")
    thread = threading.Thread(target=member.poll)
    thread.start()
    thread.join()
    member.tick(5)
    assert member.broker.heartbeats == []
    member.poll()
    member.tick(5)
    assert len(member.broker.heartbeats) == 1


def test_a_collected_consumer_leaves_at_the_next_tick():
    member = Member()
    member.join(1, "t-0")
    session, broker = member.membership._session, member.broker
    assert broker.waiters == [session]
    del member.membership
    gc.collect()
    assert session.tick(1001.0) is None
    assert (broker.left, broker.waiters) == ([("me", None)], [])


def test_a_consumer_collected_while_joining_leaves_once_joined():
    member = Member()
    member.poll()
    broker = member.broker
    del member.membership
    gc.collect()
    broker.answer_join(1, "late")
    assert broker.left == [("late", None)]


# ---- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["join", "sync"])
@pytest.mark.parametrize("error", [UnknownMemberIdError, IllegalGenerationError, RebalanceInProgressError])
def test_a_member_that_is_turned_away_joins_again(when, error):
    member = Member()
    member.join(1, "t-0")
    member.tell_of_rebalance()
    member.poll()
    if when == "join":
        member.broker.refuse_join(error("no"))
    else:
        member.broker.answer_join(2)
        member.poll()
        member.broker.refuse_sync(error("no"))
    said = member.poll()
    (request, _) = member.broker.joins[0]
    owned = decode_subscription(request.protocols[0][1]).owned_partitions
    if error is RebalanceInProgressError:
        assert (said, owned, request.member_id) == ([], as_places("t-0"), "me")
    else:
        assert (said, owned) == (["lost t-0"], ())
        assert request.member_id == ("" if error is UnknownMemberIdError else "me")


@pytest.mark.parametrize("when", ["heartbeat", "join", "sync", "commit"])
def test_a_fenced_member_says_so_for_good(when):
    member = Member(group_instance_id="i")
    member.join(1, "t-0")
    error = FencedInstanceIdError("another one")
    if when == "heartbeat":
        member.broker.heartbeat_error = error
        member.tick(5)
    elif when == "commit":
        member.broker.commit_error = error
        with pytest.raises(FencedInstanceIdError):
            member.membership.commit({place("t-0"): OffsetAndMetadata(1)})
    else:
        member.tell_of_rebalance()
        member.poll()
        if when == "join":
            member.broker.refuse_join(error)
        else:
            member.broker.answer_join(2)
            member.poll()
            member.broker.refuse_sync(error)
    with pytest.raises(FencedInstanceIdError):
        member.poll()
    assert member.owner.said == ["lost t-0"]
    for again in (member.poll, lambda: member.membership.commit({})):
        with pytest.raises(FencedInstanceIdError):
            again()
    member.membership.leave()
    assert member.broker.left == []


def test_a_group_that_does_not_take_the_member():
    member = Member()
    member.poll()
    member.broker.refuse_join(InconsistentGroupProtocolError("range here"))
    with pytest.raises(InconsistentGroupProtocolError):
        member.poll()
    assert member.poll() == []
    assert member.broker.joins == []  # not at once
    member.now += 1
    member.poll()
    assert len(member.broker.joins) == 1


def test_what_may_pass_is_tried_again_later():
    member = Member()
    member.poll()
    member.broker.refuse_join(DiskFullError("x", "write", 28))
    assert member.poll() == []
    assert member.broker.joins == []
    assert member.membership.poll(member.now) == pytest.approx(member.now + 0.1)
    member.now += 0.1
    assert member.membership.poll(member.now) == math.inf
    assert len(member.broker.joins) == 1


def test_a_broker_that_is_closed_says_so():
    member = Member()

    def closed(request, done):
        raise ClosedError("closed")

    member.broker.join_group = closed
    for _ in range(2):
        with pytest.raises(ClosedError):
            member.poll()


def test_answers_to_earlier_requests_count_no_more():
    member = Member()
    member.poll()
    (_, late) = member.broker.joins[0]
    member.broker.refuse_join(UnknownMemberIdError("again"))
    member.poll()
    late(JoinGroupResponse(None, "old", 1, "consumer", COOPERATIVE, "old"))
    assert member.poll() == []
    assert member.broker.syncs == []
    assert member.join(2, "t-1") == ["added t-1"]


@pytest.mark.parametrize("what", ["revoked", "added", "lost"])
def test_a_listener_that_raises_stops_nothing(what):
    member = Member(assignors=EAGER)
    member.owner.raises[what] = KeyError("mine")
    if what == "added":
        with pytest.raises(KeyError):
            member.join(1, "t-0")
        assert member.membership.assigned == as_places("t-0")
        assert member.poll() == []
        return
    member.join(1, "t-0")
    if what == "revoked":
        member.tell_of_rebalance()
    else:
        member.broker.heartbeat_error = UnknownMemberIdError("gone")
        member.tick(5)
    with pytest.raises(KeyError):
        member.poll()
    assert member.membership.assigned == ()
    member.broker.heartbeat_error = None
    assert member.join(2, "t-0") == ["added t-0"]


class Wrong:
    name = "wrong"

    def assign(self, partition_counts, subscriptions):
        return {"stranger": [TopicPartition("t", 0)]}


def test_an_assignor_that_errs_is_told_to_the_leaders_user():
    member = Member(assignors=Wrong())
    for _ in range(2):
        member.poll()
        member.broker.answer_join(1, leader="me")
        with pytest.raises(InvalidRequestError, match="'wrong' assigned partitions to 'stranger'"):
            member.poll()
    assert member.broker.syncs == []


class Restless(CooperativeStickyAssignor):
    name = "restless"

    def assign(self, partition_counts, subscriptions):
        (member,) = subscriptions
        owned = subscriptions[member].owned_partitions
        return {member: [TopicPartition("t", 1 if TopicPartition("t", 0) in owned else 0)]}


def test_an_assignor_that_never_rests_lets_the_consumer_poll():
    member = Member(assignors=Restless())
    broker, generation = member.broker, 0

    def join(request, done):
        nonlocal generation
        generation += 1
        members = (JoinedMember("me", None, request.protocols[0][1]),)
        done(JoinGroupResponse(None, "me", generation, "consumer", "restless", "me", members))

    broker.join_group = join
    broker.sync_group = lambda request, done: done(SyncGroupResponse(None, request.assignments["me"]))
    member.poll()
    assert generation == 1
    member.membership.request_rejoin()
    member.poll()
    assert 5 < generation < 100
    assert len(member.membership.assigned) == 1


# ---- commits --------------------------------------------------------------------------------------


def test_commits_of_a_stale_generation_fail_with_advice():
    member = Member()
    with pytest.raises(CommitFailedError, match="poll to join"):
        member.membership.commit({})
    member.join(1, "t-0")
    for error in (UnknownMemberIdError("no"), IllegalGenerationError("no")):
        member.broker.commit_error = error
        with pytest.raises(CommitFailedError, match="max_poll_records") as caught:
            member.membership.commit({place("t-0"): OffsetAndMetadata(1)})
        assert caught.value.__cause__ is error
    assert member.poll() == ["lost t-0"]


def test_commits_during_a_rebalance_may_be_tried_again():
    member = Member()
    member.join(1, "t-0")
    member.broker.commit_error = RebalanceInProgressError("wait")
    with pytest.raises(RebalanceInProgressError):
        member.membership.commit({})
    # The generation has moved on while the answer is under way: this is no loss.
    member.tell_of_rebalance()
    member.poll()
    member.broker.commit_error = IllegalGenerationError("2 now")
    with pytest.raises(RebalanceInProgressError, match="commit again"):
        member.membership.commit({})
    member.broker.commit_error = member.broker.heartbeat_error = None
    assert member.join(2, "t-0") == []
    member.membership.commit({place("t-0"): OffsetAndMetadata(1)})


def test_a_commit_hears_the_answers_of_a_rebalance_and_commits_in_the_new_generation():
    member = Member()
    member.join(1, "t-0 t-1")
    member.tell_of_rebalance()
    member.poll()
    member.broker.heartbeat_error = None
    member.broker.answer_join(2)
    member.owner.said.clear()
    member.membership.commit({place("t-1"): OffsetAndMetadata(5)})
    member.broker.answer_sync("t-0 t-3")
    member.membership.commit({place("t-1"): OffsetAndMetadata(6)})
    assert [generation for generation, _, _ in member.broker.commits] == [2, 2]
    assert member.owner.said == [], "t-1 is this member's until it polls"
    assert member.poll() == ["revoked t-1", "added t-3"]


@pytest.mark.parametrize("end", ["leave", "lose"])
def test_what_the_owner_was_not_told_of_is_not_taken_from_it(end):
    member = Member()
    member.join(1, "t-0 t-1")
    member.tell_of_rebalance()
    member.poll()
    member.broker.heartbeat_error = None
    member.broker.answer_join(2)
    member.membership.commit({})
    member.broker.answer_sync("t-0 t-3")
    member.membership.commit({})
    member.owner.said.clear()
    if end == "leave":
        member.membership.leave()
        assert member.owner.said == ["revoked t-0 t-1"]
    else:
        member.broker.commit_error = FencedInstanceIdError("another one")
        with pytest.raises(FencedInstanceIdError):
            member.membership.commit({})
        with pytest.raises(FencedInstanceIdError):
            member.poll()
        assert member.owner.said == ["revoked t-1", "added t-3", "lost t-0 t-3"]


# ---- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", ["", None, 7])
def test_a_group_needs_a_name(group):
    with pytest.raises(InvalidGroupIdError):
        GroupMembership(Owner(), ScriptedBroker(), group, Bell(), timer=None)


@pytest.mark.parametrize(
    "settings",
    [
        {"session_timeout": 0},
        {"session_timeout": 5.0, "heartbeat_interval": 5.0},
        {"max_poll_interval": -1.0},
        {"heartbeat_interval": float("nan")},
        {"max_poll_interval": "5m"},
        {"session_timeout": True},
        {"group_instance_id": ""},
    ],
)
def test_settings_that_contradict_are_refused(settings):
    with pytest.raises(InvalidConfigError):
        GroupMembership(Owner(), ScriptedBroker(), "g", Bell(), timer=None, **settings)


# ---- the timer ------------------------------------------------------------------------------------


def until(condition, seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.001)


def test_the_timer_beats_and_ends_with_the_last_session():
    timer = HeartbeatTimer()
    member = Member(timer=timer, heartbeat_interval=0.01)
    member.now = time.monotonic()
    member.join(1, "t-0")
    until(lambda: len(member.broker.heartbeats) >= 3)
    assert timer._is_running
    member.membership.leave()
    until(lambda: not timer._is_running)
    again = Member(timer=timer, heartbeat_interval=0.01)
    again.now = time.monotonic()
    again.join(1, "t-0")
    until(lambda: len(again.broker.heartbeats) >= 2)
    again.membership.leave()
    until(lambda: not timer._is_running)


def test_the_timer_outlives_what_one_tick_raises(caplog):
    timer = HeartbeatTimer()
    member = Member(timer=timer, heartbeat_interval=0.01)
    member.broker.heartbeat_error = ZeroDivisionError()
    member.now = time.monotonic()
    member.join(1, "t-0")
    until(lambda: "a heartbeat failed" in caplog.text)
    other = Member(timer=timer, heartbeat_interval=0.01)
    other.now = time.monotonic()
    other.join(1, "t-0")
    until(lambda: len(other.broker.heartbeats) >= 2)
    other.membership.leave()
    member.membership.leave()


def test_a_collected_consumer_leaves_at_once():
    timer = HeartbeatTimer()
    member = Member(timer=timer, heartbeat_interval=30.0)
    member.now = time.monotonic()
    member.join(1, "t-0")
    broker = member.broker
    del member
    gc.collect()
    until(lambda: broker.left == [("me", None)])
    until(lambda: not timer._is_running)
