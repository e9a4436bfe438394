"""Groups of real consumers on a real broker, in one thread and in a time of their own."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from virtual_time import VirtualTime

import logstore
from logstore.errors import CommitFailedError, FencedInstanceIdError, RebalanceInProgressError
from logstore.model import TopicPartition

HEARTBEAT, SESSION, MAX_POLL = 3.0, 10.0, 60.0


class Member:
    """A consumer, and what it was handed; checks that nothing is skipped while it is handed."""

    names = itertools.count()

    def __init__(self, world: World, strategy, *, auto_commit=True, instance=None, topics=("t",), **options) -> None:
        self.world = world
        self.name = instance or f"m{next(self.names)}"
        self.expected: dict[TopicPartition, int] = {}
        self.gave_up: list[tuple[str, tuple[TopicPartition, ...]]] = []
        self.is_polling = True
        self.is_alive = True
        self.consumer = world.broker.consumer(
            group="g",
            group_instance_id=instance,
            client_id=self.name,
            clock=world.now,
            partition_assignment_strategy=strategy,
            enable_auto_commit=auto_commit,
            session_timeout=SESSION,
            heartbeat_interval=HEARTBEAT,
            max_poll_interval=MAX_POLL,
            **options,
        )
        self.consumer.subscribe(
            topics,
            on_partitions_assigned=self.assigned,
            on_partitions_revoked=lambda places: self.revoked("revoked", places),
            on_partitions_lost=lambda places: self.revoked("lost", places),
        )
        world.members.append(self)

    @property
    def membership(self):
        return self.consumer._membership

    def assigned(self, places) -> None:
        """Each starts at its committed offset."""
        for place in places:
            assert place not in self.expected, "assigned twice"
            self.expected[place] = self.world.committed().get(place, 0)

    def revoked(self, how: str, places) -> None:
        self.gave_up.append((how, tuple(places)))
        for place in places:
            del self.expected[place]

    def poll(self, max_records: int | None = None) -> int:
        records = self.consumer.poll(0.0, max_records)
        for record in records:
            self.take(record)
        assert self.consumer.assignment() == set(self.membership.assigned) == self.expected.keys()
        return len(records)

    def take(self, record) -> None:
        place = TopicPartition(record.topic, record.partition)
        assert record.offset == self.expected[place], f"{place}: {record.offset} after {self.expected[place] - 1}"
        self.expected[place] += 1
        self.world.handed(self, self.membership._assigned_generation, place, record.offset)

    def holds(self) -> tuple[int, frozenset[TopicPartition]]:
        """The generation it acts in, and what it would hand out."""
        identity = self.membership._session.identity
        generation = self.membership.generation if identity is None else identity.generation
        return generation, frozenset(self.membership.assigned)


class World:
    """A broker, its time, the members of group g, and what they may not do."""

    def __init__(self, **topics: int) -> None:
        self.time = VirtualTime()
        self.path = tempfile.mkdtemp()
        self.broker = logstore.open(self.path, durability="appended")
        for topic, count in (topics or {"t": 3}).items():
            self.broker.create_topic(topic, partitions=count)
        self.coordinator = self.time.coordinator(self.broker)
        self.members: list[Member] = []
        self.owners: dict[tuple[int, TopicPartition], str] = {}
        self.seen: dict[TopicPartition, set[int]] = {}
        self.before: dict[TopicPartition, int] = {}

    def now(self) -> float:
        return self.time.clock_ms() / 1000

    def committed(self) -> dict[TopicPartition, int]:
        return {place: entry.offset for place, entry in self.coordinator.committed_offsets("g").items()}

    def append(self, topic: str, partition: int, count: int = 1) -> None:
        log = self.broker.topic(topic).partition(partition)
        for _ in range(count):
            log.append(b"x")

    def ends(self) -> dict[TopicPartition, int]:
        return {
            TopicPartition(topic, number): self.broker.partition_offsets(topic, number)[1]
            for topic, count in self.broker.partition_counts().items()
            for number in range(count)
        }

    def advance(self, seconds: float, poll: bool = False) -> None:
        """Heartbeats of the living every two seconds on the way; their polls as well, if asked."""
        end_ms = self.time.clock_ms() + seconds * 1000  # in whole halves of a second, so without rounding
        while self.time.clock_ms() < end_ms:
            self.time.advance(min(2000.0, end_ms - self.time.clock_ms()))
            for member in list(self.members):
                if member.is_alive:
                    member.membership.tick(self.now())
            if poll:
                self.poll_all()

    def poll_all(self) -> int:
        return sum(member.poll() for member in list(self.members) if member.is_alive)

    def settle(self) -> None:
        """Everybody polls, and time passes where that is waited for, until nothing happens any more."""
        for _ in range(100):
            count = self.poll_all()
            living = [member for member in self.members if member.is_alive]
            known = {member.member_id for member in self.coordinator.describe_group("g").members}
            is_stable = all(member.membership.is_stable for member in living)
            if not count and is_stable and known == {member.membership.member_id for member in living}:
                return
            if not count and is_stable:
                self.advance(1.0)
            elif not count:
                self.advance(0.5)
        raise AssertionError("no peace")

    def handed(self, member: Member, generation: int, place: TopicPartition, offset: int) -> None:
        # A static member that comes back stays in its generation, under another member id.
        owner = self.owners.setdefault((generation, place), member.name)
        assert owner == member.name, f"{place} has two owners in generation {generation}"
        self.seen.setdefault(place, set()).add(offset)

    def check(self) -> None:
        """At any time: nobody owns what another one owns, and what is committed has been handed out, and stays."""
        held: dict[TopicPartition, str] = {}
        current = self.coordinator.describe_group("g").generation
        for member in self.members:
            if not member.is_alive:
                continue
            generation, places = member.holds()
            for place in places if generation == current else ():
                assert place not in held, f"{place}: {held[place]} and {member.name} in generation {generation}"
                held[place] = member.name
        committed = self.committed()
        for place, offset in committed.items():
            assert self.seen.get(place, set()) >= set(range(offset)), f"{place}: committed but never handed out"
        for place, offset in self.before.items():
            assert committed[place] >= offset, f"{place}: the committed offset went back"
        self.before = committed

    def check_settled(self, topics=None) -> None:
        """Every partition has exactly one owner, and everything was handed out."""
        living = [member for member in self.members if member.is_alive]
        owned = [place for member in living for place in member.consumer.assignment()]
        wanted = {place for place in self.ends() if topics is None or place.topic in topics}
        assert len(owned) == len(set(owned))
        assert set(owned) == (wanted if living else set())
        if living:
            for place in wanted:
                assert self.seen.get(place, set()) == set(range(self.ends()[place])), f"{place}: skipped"

    def close(self) -> None:
        try:
            for member in self.members:
                with suppress(FencedInstanceIdError):
                    member.consumer.close()
        finally:
            self.broker.close()
            shutil.rmtree(self.path)


@pytest.fixture
def world():
    made = World(t=4)
    yield made
    made.close()


def assignments(world: World) -> dict[str, set[int]]:
    return {m.name: {number for _, number in m.consumer.assignment()} for m in world.members if m.is_alive}


COOPERATIVE = ["cooperative-sticky"]
STRATEGIES = [["range"], ["roundrobin"], ["sticky"], COOPERATIVE, ["range", "cooperative-sticky"]]
strategies = pytest.mark.parametrize("strategy", STRATEGIES, ids="+".join)


# ---- one thing at a time --------------------------------------------------------------------------


@strategies
def test_members_share_and_take_over(world, strategy):
    first = Member(world, strategy)
    world.settle()
    assert len(first.consumer.assignment()) == 4
    second = Member(world, strategy)
    world.settle()
    assert sorted(map(len, assignments(world).values())) == [2, 2]
    first.consumer.close()
    first.is_alive = False
    world.settle()
    assert len(second.consumer.assignment()) == 4
    world.check_settled()


def test_a_member_that_joins_moves_only_what_must(world):
    first, second = Member(world, COOPERATIVE), Member(world, COOPERATIVE)
    world.settle()
    before = assignments(world)
    first.gave_up.clear()
    second.gave_up.clear()
    Member(world, COOPERATIVE)
    world.settle()
    assert sorted(map(len, assignments(world).values())) == [1, 1, 2]
    assert sum(len(places) for member in (first, second) for _, places in member.gave_up) == 1
    assert all(assignments(world)[name] <= numbers for name, numbers in before.items())


def test_a_cooperative_member_reads_on_while_others_join(world):
    member = Member(world, COOPERATIVE)
    world.settle()
    world.append("t", 0, 3)
    late = Member(world, COOPERATIVE)
    late.poll()  # parked: the group waits for the first member
    assert world.coordinator.describe_group("g").state == "PreparingRebalance"
    assert member.poll() == 3
    world.settle()
    world.check_settled()


@strategies
def test_what_a_member_was_handed_is_committed_when_it_moves(world, strategy):
    """The new owner goes on where the old one stopped: once each, since nobody died. No auto commit came due."""
    first = Member(world, strategy, auto_commit_interval=1e6)
    world.settle()
    for number in range(4):
        world.append("t", number, 5)
    assert first.poll() == 20
    second = Member(world, strategy, auto_commit_interval=1e6)
    assert world.committed() == {}
    for _ in range(6):
        assert world.poll_all() == 0
    assert len(second.consumer.assignment()) == 2
    assert all(world.committed()[place] == 5 for place in second.consumer.assignment())
    for number in range(4):
        world.append("t", number)
    assert world.poll_all() == 4
    world.check()


@strategies
def test_partitions_that_move_are_nobodys_in_between(world, strategy):
    """Whoever polls first after a rebalance: nobody is given what another one has not given up yet."""
    for order in itertools.permutations(range(4)):
        for member in world.members:
            member.consumer.close()
        world.members.clear()
        two = [Member(world, strategy), Member(world, strategy)]
        world.settle()
        for number in range(4):
            world.append("t", number, 2)
        four = [*two, Member(world, strategy), Member(world, strategy)]
        for _ in range(6):
            for who in order:
                four[who].poll(1)
                world.check()
        world.settle()
        world.check_settled()
        assert sorted(map(len, assignments(world).values())) == [1, 1, 1, 1]


@strategies
def test_the_dead_are_replaced_and_their_records_come_again(world, strategy):
    first, second = Member(world, strategy), Member(world, strategy)
    world.settle()
    for number in range(4):
        world.append("t", number, 5)
    assert first.poll() + second.poll() == 20
    first.is_alive = False  # with ten records in hand
    world.advance(SESSION - 2, poll=True)
    assert len(second.consumer.assignment()) == 2
    world.settle()
    assert len(second.consumer.assignment()) == 4
    world.check_settled()
    assert second.consumer.position(("t", 0)) == 5
    # The dead one comes back to life: it has lost everything, commits nothing, and joins anew.
    before = world.committed()
    first.is_alive = True
    assert first.poll() == 0
    assert first.gave_up[-1][0] == "lost"
    assert world.committed() == before
    world.settle()
    assert len(first.consumer.assignment()) == 2


@strategies
def test_who_does_not_poll_loses_its_place(world, strategy):
    first, second = Member(world, strategy), Member(world, strategy)
    world.settle()
    for _ in range(int(MAX_POLL) + 2):
        world.advance(1.0)
        second.poll()
    assert len(second.consumer.assignment()) == 4
    with pytest.raises(CommitFailedError):
        first.consumer.commit({("t", 0): 0})
    world.settle()
    assert len(first.consumer.assignment()) == 2
    assert first.gave_up[-1][0] == "lost" or first.gave_up[0][0] == "lost"


def test_a_static_member_restarts_without_a_rebalance(world):
    first = Member(world, ["range"], instance="i1")
    second = Member(world, ["range"], instance="i2")
    world.settle()
    mine = first.consumer.assignment()
    generation = world.coordinator.describe_group("g").generation
    first.consumer.close()
    first.is_alive = False
    world.advance(2.0, poll=True)
    assert len(second.consumer.assignment()) == 2
    again = Member(world, ["range"], instance="i1")
    again.poll()
    world.advance(1.0, poll=True)
    assert again.consumer.assignment() == mine
    assert world.coordinator.describe_group("g").generation == generation
    world.check_settled()


def test_a_second_consumer_with_the_same_instance_fences_the_first(world):
    first = Member(world, ["range"], instance="i1")
    world.settle()
    second = Member(world, ["range"], instance="i1")
    second.poll()
    with pytest.raises(FencedInstanceIdError):
        first.poll()
    assert first.gave_up[-1][0] == "lost"
    first.is_alive = False
    world.settle()
    assert len(second.consumer.assignment()) == 4


@strategies
def test_partitions_added_are_given_out(world, strategy):
    Member(world, strategy)
    Member(world, strategy)
    world.settle()
    world.broker.alter_topic("t", partitions=7)
    world.append("t", 6, 2)
    world.settle()
    world.check_settled()
    assert sorted(map(len, assignments(world).values())) == [3, 4]


@strategies
def test_a_pattern_finds_topics_to_come(world, strategy):
    consumer = world.broker.consumer(group="p", pattern="t.*", clock=world.now, partition_assignment_strategy=strategy)
    consumer.poll()
    assert len(consumer.assignment()) == 4
    world.broker.create_topic("tt", partitions=2)
    world.broker.create_topic("other", partitions=2)
    consumer.poll()
    assert {topic for topic, _ in consumer.assignment()} == {"t", "tt"}
    world.broker.delete_topic("t")
    consumer.poll()
    assert {topic for topic, _ in consumer.assignment()} == {"tt"}
    consumer.close()


@strategies
def test_an_iteration_goes_on_across_a_rebalance(world, strategy):
    """Records of what was revoked are not handed out afterwards, though they had been read ahead."""
    first = Member(world, strategy, consumer_timeout=0.0)
    world.settle()
    for number in range(4):
        world.append("t", number, 20)
    count = 0
    for record in first.consumer:
        first.take(record)  # which it could not, were the partition not its own
        count += 1
        if count == 7:
            second = Member(world, strategy)
        if count in (7, 9, 11, 13):
            second.poll()
        world.check()
    assert 20 <= count < 80
    world.settle()
    world.check_settled()


def test_a_rebalance_waits_for_no_heartbeat(world):
    """However many members give something up: each is woken when it has to join again."""
    world.broker.create_topic("many", partitions=40)
    for _ in range(10):
        Member(world, COOPERATIVE, topics="many")
    world.settle()
    began = world.now()
    late = Member(world, COOPERATIVE, topics="many")
    for _ in range(15):
        world.poll_all()
    assert len(late.consumer.assignment()) == 3
    assert world.now() == began


# ---- anything at any time -------------------------------------------------------------------------


class Groups(RuleBasedStateMachine):
    """Members join, leave, die, stall and commit while records and partitions are added and time passes."""

    strategies = [COOPERATIVE]

    @initialize(data=st.data())
    def begin(self, data):
        self.strategy = data.draw(st.sampled_from(self.strategies))
        self.world = World(t=4, u=1)
        self.instances = 0
        for _ in range(2):
            self.join(auto=True, is_static=False, topics=("t", "u"))
        self.world.settle()

    def living(self):
        return [member for member in self.world.members if member.is_alive]

    @rule(auto=st.booleans(), is_static=st.booleans(), topics=st.sampled_from([("t",), ("t", "u"), ("u", "t")]))
    def join(self, auto, is_static, topics):
        if len(self.living()) < 5:
            self.instances += is_static
            instance = f"i{self.instances}" if is_static else None
            Member(self.world, self.strategy, auto_commit=auto, instance=instance, topics=topics)

    @precondition(lambda self: self.living())
    @rule(turns=st.lists(st.tuples(st.integers(0, 4), st.integers(1, 6)), min_size=1, max_size=20))
    def poll(self, turns):
        """In any order, so that every message of a rebalance finds every member at every point of it."""
        for who, max_records in turns:
            living = self.living()
            living[who % len(living)].poll(max_records)
            self.world.check()

    @rule(count=st.integers(1, 3), turns=st.permutations(range(5)))
    def several_join(self, count, turns):
        """At once, and then everybody polls in some order, time and again."""
        for _ in range(count):
            self.join(auto=True, is_static=False, topics=("t", "u"))
        for who in turns * 3:
            living = self.living()
            living[who % len(living)].poll(2)
            self.world.check()

    @precondition(lambda self: self.living())
    @rule(data=st.data())
    def leave(self, data):
        member = data.draw(st.sampled_from(self.living()))
        member.consumer.close()
        member.is_alive = False

    @precondition(lambda self: self.living())
    @rule(data=st.data())
    def die(self, data):
        data.draw(st.sampled_from(self.living())).is_alive = False

    @precondition(lambda self: any(not m.is_alive and not m.consumer._closed for m in self.world.members))
    @rule(data=st.data())
    def come_back_to_life(self, data):
        dead = [m for m in self.world.members if not m.is_alive and not m.consumer._closed]
        member = data.draw(st.sampled_from(dead))
        member.is_alive = True
        member.poll()

    @precondition(lambda self: self.living())
    @rule(data=st.data())
    def commit(self, data):
        with suppress(CommitFailedError, RebalanceInProgressError):
            data.draw(st.sampled_from(self.living())).consumer.commit()

    @rule(topic=st.sampled_from("tu"), partition=st.integers(0, 2), count=st.integers(1, 10))
    def append(self, topic, partition, count):
        self.world.append(topic, partition if topic == "t" else 0, count)

    @precondition(lambda self: self.world.broker.partition_counts()["t"] < 6)
    @rule()
    def add_a_partition(self):
        self.world.broker.alter_topic("t", partitions=self.world.broker.partition_counts()["t"] + 1)

    @rule(seconds=st.sampled_from([0.5, 2.0, 4.0, 11.0, 61.0]), poll=st.booleans())
    def time_passes(self, seconds, poll):
        self.world.advance(seconds, poll)

    @rule()
    def peace_returns(self):
        self.world.settle()
        topics = {topic for member in self.living() for topic in member.consumer.subscription()}
        self.world.check_settled(topics)

    @invariant()
    def nothing_is_owned_twice(self):
        self.world.check()

    def teardown(self):
        if hasattr(self, "world"):
            try:
                self.peace_returns()
                self.world.check()
            finally:
                self.world.close()


class EagerGroups(Groups):
    strategies = [strategy for strategy in STRATEGIES if strategy != COOPERATIVE]


TestCooperativeGroups, TestEagerGroups = Groups.TestCase, EagerGroups.TestCase
TestCooperativeGroups.settings = TestEagerGroups.settings = settings(
    max_examples=int(os.environ.get("LOGSTORE_GROUP_EXAMPLES", "8")),
    stateful_step_count=int(os.environ.get("LOGSTORE_GROUP_STEPS", "25")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
