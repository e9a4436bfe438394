"""Assignors: Kafka's documented cases, kafka-python's and aiokafka's answers, and the promises of the sticky ones."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor as AiokafkaRoundRobin
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor

from logstore.clients.assignors import (
    CooperativeStickyAssignor,
    RangeAssignor,
    RoundRobinAssignor,
    StickyAssignor,
    check_assignment,
    find_assignors,
    is_cooperative,
)
from logstore.clients.sticky_assignment import assign_sticky
from logstore.consumer_protocol import Subscription
from logstore.errors import InvalidConfigError, InvalidRequestError
from logstore.model import TopicPartition

RANGE, ROUND_ROBIN, STICKY, COOPERATIVE = (
    RangeAssignor(),
    RoundRobinAssignor(),
    StickyAssignor(),
    CooperativeStickyAssignor(),
)

counts_of_topics = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 9), min_size=1)
member_names = st.lists(st.sampled_from([f"m{number}" for number in range(9)]), min_size=1, max_size=9, unique=True)


@st.composite
def groups(draw: st.DrawFn, equal: bool = False, static: bool = False) -> tuple[dict[str, int], dict[str, Subscription]]:
    counts = draw(counts_of_topics)
    names = st.lists(st.sampled_from("abcdefg"), max_size=6, unique=True).map(tuple)  # "g" never exists
    everyone = draw(names)
    instances = st.none() | st.integers(0, 10**6).map(lambda number: f"i{number}")
    members = {
        member: Subscription(
            everyone if equal else draw(names),
            group_instance_id=draw(instances.map(lambda i, m=member: i and i + m)) if static else None,
        )
        for member in draw(member_names)
    }
    return counts, members


def places(assigned, member):
    return " ".join(f"{topic}p{number}" for topic, number in sorted(assigned[member]))


def subscribe(**topics: str) -> dict[str, Subscription]:
    return {member: Subscription(tuple(names.split())) for member, names in topics.items()}


def loads(assigned) -> list[int]:
    return [len(partitions) for partitions in assigned.values()]


def all_of(counts, subscriptions) -> set[TopicPartition]:
    topics = {topic for subscription in subscriptions.values() for topic in subscription.topics}
    return {TopicPartition(topic, number) for topic in topics for number in range(counts.get(topic, 0))}


def check(counts, subscriptions, assigned) -> None:
    """All partitions of subscribed topics, each once, each to a subscriber; every member has an answer."""
    check_assignment("this", assigned, counts, subscriptions)
    given_out = [place for partitions in assigned.values() for place in partitions]
    assert set(given_out) == all_of(counts, subscriptions)
    assert assigned.keys() == subscriptions.keys()


def is_even(counts, subscriptions, assigned) -> bool:
    """No chain of moves leads from a member to one with two partitions fewer: nothing evener exists."""
    moves = {
        member: {
            other
            for other, subscription in subscriptions.items()
            if {place.topic for place in partitions} & set(subscription.topics)
        }
        for member, partitions in assigned.items()
    }
    for start in assigned:
        reached, todo = {start}, [start]
        while todo:
            new = moves[todo.pop()] - reached
            reached |= new
            todo += new
        if any(len(assigned[other]) <= len(assigned[start]) - 2 for other in reached):
            return False
    return True


# ---- range and round robin ------------------------------------------------------------------------


def test_range_as_kafka_documents_it():
    members = subscribe(C0="t0 t1", C1="t0 t1")
    assigned = RANGE.assign({"t0": 3, "t1": 3}, members)
    assert places(assigned, "C0") == "t0p0 t0p1 t1p0 t1p1"
    assert places(assigned, "C1") == "t0p2 t1p2"
    # Co-partitioned topics meet: equal numbers of partitions and equal members give equal numbers.
    for partitions in assigned.values():
        numbers = {topic: [number for name, number in partitions if name == topic] for topic in ("t0", "t1")}
        assert numbers["t0"] == numbers["t1"]


def test_range_orders_static_members_by_instance():
    """Kafka's example of static membership: who restarts under another member id gets the same partitions."""
    instances = {"x9": "I1", "x3": "I2", "x7": "I3"}
    before = RANGE.assign({"t": 4}, {m: Subscription(("t",), group_instance_id=i) for m, i in instances.items()})
    restarted = {"x9": "I1", "a0": "I2", "x7": "I3"}
    after = RANGE.assign({"t": 4}, {m: Subscription(("t",), group_instance_id=i) for m, i in restarted.items()})
    assert (places(before, "x9"), places(before, "x3"), places(before, "x7")) == ("tp0 tp1", "tp2", "tp3")
    assert after == {"x9": before["x9"], "a0": before["x3"], "x7": before["x7"]}


def test_static_members_come_before_dynamic_ones():
    members = {"a": Subscription(("t",)), "z": Subscription(("t",), group_instance_id="i")}
    assert places(RANGE.assign({"t": 3}, members), "z") == "tp0 tp1"
    assert places(ROUND_ROBIN.assign({"t": 3}, members), "z") == "tp0 tp2"


def test_round_robin_as_kafka_documents_it():
    assigned = ROUND_ROBIN.assign({"t0": 3, "t1": 3}, subscribe(C0="t0 t1", C1="t0 t1"))
    assert places(assigned, "C0") == "t0p0 t0p2 t1p1"
    assert places(assigned, "C1") == "t0p1 t1p0 t1p2"
    assigned = ROUND_ROBIN.assign({"t0": 1, "t1": 2, "t2": 3}, subscribe(C0="t0", C1="t0 t1", C2="t0 t1 t2"))
    assert places(assigned, "C0") == "t0p0"
    assert places(assigned, "C1") == "t1p0"
    assert places(assigned, "C2") == "t1p1 t2p0 t2p1 t2p2"


def _cluster(counts):
    return SimpleNamespace(
        partitions_for_topic=lambda topic: set(range(counts[topic])) if counts.get(topic) else None,
        topics=lambda: set(counts),
    )


def _theirs(assignor, counts, subscriptions):
    """What another client's assignor answers; members in an order in which kafka-python groups static ones right."""
    members = [
        SimpleNamespace(
            member_id=member,
            group_instance_id=subscription.group_instance_id,
            metadata=SimpleNamespace(topics=list(subscription.topics), subscription=list(subscription.topics)),
        )
        for member, subscription in sorted(subscriptions.items(), key=lambda item: item[1].group_instance_id is None)
    ]
    answer = assignor.assign(_cluster(counts), members)
    return {
        member: sorted(TopicPartition(*place) for place in assignment.partitions()) for member, assignment in answer.items()
    }


@settings(max_examples=200)
@given(groups(static=True))
def test_range_answers_as_kafka_python(group):
    assigned = RANGE.assign(*group)
    check(*group, assigned)
    assert {member: sorted(found) for member, found in assigned.items()} == _theirs(RangePartitionAssignor, *group)


@settings(max_examples=200)
@given(groups(equal=True, static=True))
def test_round_robin_answers_as_kafka_python(group):
    """With equal subscriptions: with others kafka-python 3.0 fails with a KeyError."""
    assigned = ROUND_ROBIN.assign(*group)
    check(*group, assigned)
    assert {member: sorted(found) for member, found in assigned.items()} == _theirs(RoundRobinPartitionAssignor, *group)
    assert max(loads(assigned)) - min(loads(assigned)) <= 1


@settings(max_examples=200)
@given(groups())
def test_round_robin_answers_as_aiokafka(group):
    counts, subscriptions = group
    assigned = ROUND_ROBIN.assign(counts, subscriptions)
    check(counts, subscriptions, assigned)
    members = {
        member: SimpleNamespace(subscription=list(subscription.topics)) for member, subscription in subscriptions.items()
    }
    answer = AiokafkaRoundRobin.assign(_cluster(counts), members)
    assert {member: sorted(found) for member, found in assigned.items()} == {
        member: sorted(TopicPartition(*place) for place in found.partitions()) for member, found in answer.items()
    }


# ---- sticky ---------------------------------------------------------------------------------------


def owning(subscriptions, assigned, generation=1):
    """The same members as they join again: they tell what they own, both ways there are."""
    return {
        member: subscription._replace(
            owned_partitions=tuple(assigned.get(member, ())),
            generation=generation,
            user_data=STICKY.user_data(subscription.topics, assigned.get(member, ()), generation),
        )
        for member, subscription in subscriptions.items()
    }


def settle(assignor, counts, subscriptions, assigned, generation=2):
    """Lets the members join again until nothing moves: one round for an eager assignor, two for a cooperative one."""
    for round_number in range(4):
        following = assignor.assign(counts, owning(subscriptions, assigned, generation + round_number))
        if following == assigned:
            return assigned
        if is_cooperative(assignor):
            owner = {place: member for member, partitions in assigned.items() for place in partitions}
            for member, partitions in following.items():
                assert all(owner.get(place, member) == member for place in partitions), "given before its owner let go"
        assigned = following
    raise AssertionError("no peace after four rounds")


def moved(before, after) -> int:
    """Partitions that a member has lost who could have kept them."""
    return sum(len(set(before[member]) - set(after[member])) for member in before if member in after)


stickies = pytest.mark.parametrize("assignor", [STICKY, COOPERATIVE], ids=lambda assignor: assignor.name)


@stickies
@settings(max_examples=150)
@given(group=groups(static=True))
def test_sticky_is_complete_and_as_even_as_can_be(assignor, group):
    assigned = assignor.assign(*group)
    check(*group, assigned)
    assert is_even(*group, assigned)


@stickies
@settings(max_examples=100)
@given(group=groups(equal=True))
def test_equal_subscriptions_differ_by_one_at_most(assignor, group):
    assigned = assignor.assign(*group)
    assert max(loads(assigned)) - min(loads(assigned)) <= 1


@stickies
@settings(max_examples=100)
@given(group=groups())
def test_nothing_moves_when_nothing_changed(assignor, group):
    counts, subscriptions = group
    assigned = assignor.assign(counts, subscriptions)
    assert assignor.assign(counts, owning(subscriptions, assigned)) == assigned


@stickies
@settings(max_examples=150)
@given(group=groups(equal=True), data=st.data())
def test_only_what_must_move_does(assignor, group, data):
    """Members come and go, partitions are added: exactly as many partitions change hands as evenness asks for."""
    counts, subscriptions = group
    assigned = settle(assignor, counts, subscriptions, assignor.assign(counts, subscriptions))
    topics = next(iter(subscriptions.values())).topics
    for round_number in range(data.draw(st.integers(1, 3))):
        leaving = data.draw(st.sets(st.sampled_from(sorted(subscriptions)), max_size=len(subscriptions) - 1))
        joining = {f"new{round_number}-{index}" for index in range(data.draw(st.integers(0, 3)))}
        counts = {topic: count + data.draw(st.integers(0, 2)) for topic, count in counts.items()}
        subscriptions = {member: Subscription(topics) for member in sorted((subscriptions.keys() - leaving) | joining)}
        held = {member: assigned.get(member, []) for member in subscriptions}
        after = settle(assignor, counts, subscriptions, held, 10 * (round_number + 1))
        check(counts, subscriptions, after)
        assert max(loads(after)) - min(loads(after)) <= 1
        share = len(all_of(counts, subscriptions)) // len(subscriptions)
        free = len(all_of(counts, subscriptions)) - sum(loads(held))
        surplus = sum(max(load - share - 1, 0) for load in loads(held))
        wanted = sum(max(share - load, 0) for load in loads(held)) - free
        assert moved(held, after) <= max(surplus, wanted, 0)
        assigned = after


@stickies
@settings(max_examples=150)
@given(group=groups(), data=st.data())
def test_unequal_subscriptions_settle_even(assignor, group, data):
    counts, subscriptions = group
    assigned = settle(assignor, counts, subscriptions, assignor.assign(counts, subscriptions))
    names = st.lists(st.sampled_from("abcdefg"), max_size=6, unique=True).map(tuple)
    subscriptions = {
        member: Subscription(data.draw(names)) if data.draw(st.booleans()) else subscription
        for member, subscription in subscriptions.items()
        if data.draw(st.booleans())
    } | {"new": Subscription(data.draw(names))}
    counts = {topic: max(count + data.draw(st.integers(-1, 2)), 0) for topic, count in counts.items()}
    after = settle(assignor, counts, subscriptions, {member: assigned.get(member, []) for member in subscriptions})
    # A cooperative member goes on holding what is not its any more only until it has joined again.
    check(counts, subscriptions, after)
    assert is_even(counts, subscriptions, after)


@given(groups(), st.data())
def test_claims_nobody_should_make_do_no_harm(group, data):
    """Partitions claimed twice, that do not exist, or of topics without a subscription, in any generation."""
    counts, subscriptions = group
    claimed = st.lists(st.builds(TopicPartition, st.sampled_from("abcdefgh"), st.integers(-1, 9)), max_size=12)
    claims = {member: (data.draw(claimed), data.draw(st.integers(-1, 3))) for member in subscriptions}
    topics = {member: subscription.topics for member, subscription in subscriptions.items()}
    assigned = assign_sticky(counts, topics, claims)
    check(counts, subscriptions, assigned)
    assert is_even(counts, subscriptions, assigned)


def test_of_two_claims_the_later_generation_counts():
    place = TopicPartition("t", 0)
    topics = {"a": ("t",), "b": ("t",)}
    assert assign_sticky({"t": 1}, topics, {"a": ([place], 3), "b": ([place], 4)})["b"] == [place]
    assert assign_sticky({"t": 1}, topics, {"a": ([place], 4), "b": ([place], 3)})["a"] == [place]
    # Of one generation neither has a right to it: as if nobody held it.
    both = [TopicPartition("t", number) for number in range(2)]
    assigned = assign_sticky({"t": 2}, topics, {"a": (both, 3), "b": (both[:1], 3)})
    assert assigned == {"a": [both[1]], "b": [both[0]]}


def test_cooperative_gives_what_moves_to_nobody_at_first():
    first = COOPERATIVE.assign({"t": 4}, subscribe(a="t"))
    assert len(first["a"]) == 4
    joined = owning(subscribe(a="t"), first) | subscribe(b="t")
    second = COOPERATIVE.assign({"t": 4}, joined)
    assert (len(second["a"]), second["b"]) == (2, [])
    third = COOPERATIVE.assign({"t": 4}, owning(subscribe(a="t", b="t"), second, 2))
    assert third["a"] == second["a"]
    assert set(third["b"]) == set(first["a"]) - set(second["a"])


def test_a_chain_of_moves_evens_out_what_one_move_cannot():
    """a has t alone to give, and b takes it; b gives u on to c."""
    topics = {"a": ("t",), "b": ("t", "u"), "c": ("u",)}
    t = [TopicPartition("t", number) for number in range(4)]
    u = [TopicPartition("u", number) for number in range(3)]
    assigned = assign_sticky({"t": 4, "u": 3}, topics, {"a": (t, 1), "b": (u, 1), "c": ([], 1)})
    assert sorted(map(len, assigned.values())) == [2, 2, 3]
    assert len(assigned["c"]) >= 2


def test_sticky_ignores_user_data_it_cannot_read():
    subscriptions = {"a": Subscription(("t",), b"\x7f\xff\xff\xff"), "b": Subscription(("t",), b"??")}
    check({"t": 3}, subscriptions, STICKY.assign({"t": 3}, subscriptions))


@pytest.mark.parametrize("assignor", [RANGE, ROUND_ROBIN, STICKY, COOPERATIVE], ids=lambda assignor: assignor.name)
@pytest.mark.parametrize("kind", ["equal", "unequal"])
def test_a_thousand_partitions_and_a_hundred_members_are_assigned_at_once(assignor, kind):
    """No assignor tries combinations: one that did would not end within the test's limit."""
    counts = {f"t{number}": 10 for number in range(100)}
    subscriptions = {
        f"m{number:03}": Subscription(
            tuple(counts) if kind == "equal" else tuple(list(counts)[number % 60 :: 1 + number % 4])
        )
        for number in range(100)
    }
    first = assignor.assign(counts, subscriptions)
    joined = owning(subscriptions, first) | {"new": Subscription(tuple(counts))}
    best = 10.0
    for _ in range(5):
        began = time.process_time()  # not the clock, which runs on while others have the processor
        assignor.assign(counts, joined)
        best = min(best, time.process_time() - began)
    assert best < 0.1


# ---- choosing -------------------------------------------------------------------------------------


class Everything:
    name = "everything-to-the-first"

    def assign(self, partition_counts, subscriptions):
        return {min(subscriptions): sorted(all_of(partition_counts, subscriptions))}


def test_assignors_by_name_and_as_objects():
    own = Everything()
    found = find_assignors(["range", own])
    assert ([one.name for one in found], is_cooperative(found[0]), is_cooperative(own)) == (
        ["range", own.name],
        False,
        False,
    )
    assert found[1] is own
    assert [one.name for one in find_assignors("cooperative-sticky")] == ["cooperative-sticky"]
    assert find_assignors(own) == (own,)
    assert is_cooperative(COOPERATIVE)


@pytest.mark.parametrize(
    ("strategy", "said"),
    [
        ("cooperative_sticky", "did you mean 'cooperative-sticky'"),
        ("round-robin", "did you mean 'roundrobin'"),
        ("zzz", "there are 'cooperative-sticky', 'sticky', 'range', 'roundrobin'"),
        ([], "is empty"),
        (["range", "range"], "comes twice"),
        ([7], "is no assignor"),
        ([SimpleNamespace(name="x")], "is no assignor"),
        ([Everything], "is no assignor"),
    ],
)
def test_what_is_no_assignor_is_refused(strategy, said):
    with pytest.raises(InvalidConfigError, match=said):
        find_assignors(strategy)


@pytest.mark.parametrize(
    ("assigned", "said"),
    [
        ({"x": []}, "not in the group"),
        ({"a": [TopicPartition("u", 0)]}, "not subscribed"),
        ({"a": [TopicPartition("t", 2)]}, "does not"),
        ({"a": [TopicPartition("t", -1)]}, "does not"),
        ({"a": [TopicPartition("t", 0)], "b": [TopicPartition("t", 0)]}, "to 'a' and to 'b'"),
        ({"a": [TopicPartition("t", 0), TopicPartition("t", 0)]}, "to 'a' and to 'a'"),
    ],
)
def test_what_an_assignor_must_not_do(assigned, said):
    with pytest.raises(InvalidRequestError, match=said):
        check_assignment("mine", assigned, {"t": 2, "u": 1}, subscribe(a="t", b="t"))
