"""Random members of two groups by a clock that a test moves: the promises of a coordinator, whatever they do.

``LOGSTORE_GROUP_EXAMPLES=2000`` runs it longer.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from functools import partial

from group_members import TestMember
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from virtual_time import VirtualTime

import logstore
from logstore import OffsetAndMetadata, TopicPartition, errors

EXAMPLES = int(os.environ.get("LOGSTORE_GROUP_EXAMPLES", "25"))
GROUPS = ("g", "h")
PARTITIONS = [TopicPartition("orders", number) for number in range(3)]
REFUSALS = (
    errors.UnknownMemberIdError, errors.IllegalGenerationError, errors.FencedInstanceIdError,
    errors.RebalanceInProgressError,
)


class Once:
    """An answer that is waited for, and must come once."""

    def __init__(self, take):
        self.take = take
        self.count = 0

    def __call__(self, response):
        self.count += 1
        assert self.count == 1, "answered twice"
        self.take(response)


class Member(TestMember):
    """Counts its questions, and looks at the answers."""

    def __init__(self, machine, group, **kinds):
        super().__init__(machine.coordinator, group, **kinds)
        self.machine = machine
        self.is_alive = True
        self.is_assigned = False
        self.waiting: Once | None = None

    def ask_to_join(self, must_know):
        self.is_assigned = False
        self.waiting = self.machine.question(self._has_joined)
        self.coordinator.join_group(self.request(must_know_member_id=must_know), self.waiting)

    def _has_joined(self, response):
        super()._has_joined(response)
        self.machine.has_joined(self, response)

    def ask_to_sync(self):
        from logstore.broker_api import SyncGroupRequest

        assignments = (
            {each.member_id: each.member_id.encode() for each in self.joined[-1].members} if self.is_leader else {}
        )
        self.waiting = self.machine.question(self._has_synced)
        self.coordinator.sync_group(
            SyncGroupRequest(self.group, self.generation, self.member_id, self.instance, assignments), self.waiting
        )

    def _has_synced(self, response):
        self.synced.append(response)
        if response.error is None:
            self.is_assigned = True

    @property
    def is_waiting(self):
        return self.waiting is not None and not self.waiting.count


class GroupMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        memory = "/dev/shm"  # where there is one, nothing waits for a disk
        self.directory = tempfile.mkdtemp(prefix="groups-", dir=memory if os.access(memory, os.W_OK) else None)
        self.time = VirtualTime()
        self.members: list[Member] = []
        self.questions: list[Once] = []
        # What must be true.
        self.generations = dict.fromkeys(GROUPS, 0)
        self.written_generations = dict.fromkeys(GROUPS, 0)
        self.leaders: dict[tuple[str, int], str] = {}
        self.answered: dict[tuple[str, int], set[str]] = {}
        self.listed: dict[tuple[str, int], set[str]] = {}
        self.committed: dict[str, dict[TopicPartition, int]] = {group: {} for group in GROUPS}
        self.next_offset = 0

    @initialize(delay_ms=st.sampled_from([0, 0, 3_000]))
    def open(self, delay_ms):
        self.delay_ms = delay_ms
        self.broker = logstore.open(self.directory, durability="appended", group_initial_rebalance_delay_ms=delay_ms)
        self.broker.create_topic("orders", partitions=3, exist_ok=True)
        self.coordinator = self.time.coordinator(self.broker)

    def question(self, take):
        self.questions.append(Once(take))
        return self.questions[-1]

    def has_joined(self, member, response):
        if response.error is not None:
            return
        place = (member.group, response.generation)
        assert response.generation >= self.generations[member.group], "a generation that is over was handed out"
        assert self.leaders.setdefault(place, response.leader) == response.leader or member.instance, "two leaders"
        answered = self.answered.setdefault(place, set())
        answered.add(response.member_id)
        if response.members:
            ids = [each.member_id for each in response.members]
            assert len(set(ids)) == len(ids), "two members with one id"
            self.listed[place] = set(ids)

    # ---- what members do ----------------------------------------------------------------------------

    @rule(
        group=st.sampled_from(GROUPS), instance=st.sampled_from([None, None, None, "a", "b"]),
        session_ms=st.sampled_from([6_000, 10_000, 45_000]), rebalance_ms=st.sampled_from([5_000, 60_000]),
        must_know=st.booleans(), is_local=st.booleans(),
    )
    def newcomer(self, group, instance, session_ms, rebalance_ms, must_know, is_local):
        member = Member(
            self, group, instance=instance, session_ms=session_ms, rebalance_ms=rebalance_ms, is_local=is_local
        )
        self.members.append(member)
        member.ask_to_join(must_know)
        if must_know and not member.is_waiting and member.member_id:
            member.ask_to_join(must_know)

    def somebody(self, data):
        alive = [member for member in self.members if member.is_alive]
        return data.draw(st.sampled_from(alive)) if alive else None

    @rule(data=st.data())
    def goes_on(self, data):
        """A member does what it should do next."""
        member = self.somebody(data)
        if member is None or member.is_waiting:
            return
        last = member.joined[-1]
        if last.error is not None and not isinstance(last.error, errors.MemberIdRequiredError):
            if isinstance(last.error, errors.FencedInstanceIdError):
                member.is_alive = False
                return
            if not isinstance(last.error, errors.RebalanceInProgressError):
                member.member_id = ""
            member.ask_to_join(False)
        elif not member.is_assigned and last.error is None:
            member.ask_to_sync()
            if not member.is_waiting and member.synced[-1].error is not None:
                self.refused(member, member.synced[-1].error)
        else:
            try:
                member.heartbeat()
            except REFUSALS as error:
                self.refused(member, error)

    def refused(self, member, error):
        if isinstance(error, errors.FencedInstanceIdError):
            member.is_alive = False
            return
        if isinstance(error, errors.UnknownMemberIdError):
            member.member_id = ""
        member.ask_to_join(False)

    @rule(data=st.data())
    def joins_again(self, data):
        member = self.somebody(data)
        if member is not None and member.joined:
            member.ask_to_join(False)

    @rule(data=st.data())
    def leaves(self, data):
        member = self.somebody(data)
        if member is not None:
            member.is_alive = False
            try:
                member.leave()
            except (errors.UnknownMemberIdError, errors.FencedInstanceIdError):
                return

    @rule(data=st.data())
    def dies(self, data):
        member = self.somebody(data)
        if member is not None:
            member.is_alive = False

    @rule(data=st.data(), partition=st.sampled_from(PARTITIONS))
    def commits(self, data, partition):
        member = self.somebody(data)
        if member is None:
            return
        self.next_offset += 1
        try:
            member.commit({partition: OffsetAndMetadata(self.next_offset)})
        except REFUSALS:
            return
        described = self.coordinator.describe_group(member.group)
        if member.generation >= 0:
            # Until the new generation has its assignment, a member's last one may commit.
            assert member.generation == described.generation or described.state == "CompletingRebalance"
            assert member.member_id in {each.member_id for each in described.members}
        self.committed[member.group][partition] = self.next_offset

    @rule(data=st.data())
    def a_stale_generation_is_refused(self, data):
        member = self.somebody(data)
        if member is None or self.coordinator.describe_group(member.group).generation < 1:
            return
        own = member.generation
        # A generation that nobody was assigned in is forgotten at a restart, so the coordinator's counts.
        member.generation = self.coordinator.describe_group(member.group).generation - 1
        is_settled = self.coordinator.describe_group(member.group).state != "CompletingRebalance"
        commit = partial(member.commit, {PARTITIONS[0]: OffsetAndMetadata(999_999)})
        try:
            # Until the new generation has its assignment, a member's last one may commit.
            for call in (member.heartbeat, commit) if is_settled else (member.heartbeat,):
                try:
                    call()
                except REFUSALS:
                    continue
                raise AssertionError("a stale generation was let through")
        finally:
            member.generation = own

    @rule(group=st.sampled_from(GROUPS), partition=st.sampled_from(PARTITIONS), offset=st.integers(0, 5))
    def operator_resets(self, group, partition, offset):
        try:
            self.coordinator.commit_offsets(group, {partition: OffsetAndMetadata(offset)})
        except errors.UnknownMemberIdError:
            assert self.coordinator.describe_group(group).state != "Empty"
            return
        self.committed[group][partition] = offset

    @rule(group=st.sampled_from(GROUPS))
    def operator_deletes(self, group):
        try:
            self.coordinator.delete_group(group)
        except (errors.NonEmptyGroupError, errors.GroupIdNotFoundError):
            return
        self.committed[group] = {}
        self.start_over(group)

    def start_over(self, group):
        """The group is gone: another one of its name begins with generation 1."""
        self.written_generations[group] = 0
        self.forget_generations(group)
        for member in self.members:
            if member.group == group:
                member.is_alive = False

    def forget_generations(self, group):
        """Those that are not in the log have not been."""
        self.generations[group] = self.written_generations[group]
        for record in (self.leaders, self.answered, self.listed):
            for place in [each for each in record if each[0] == group and each[1] > self.generations[group]]:
                del record[place]

    @rule(ms=st.sampled_from([1, 500, 3_000, 6_000, 30_000, 300_000]))
    def time_passes(self, ms):
        self.time.advance(ms)

    @precondition(lambda self: self.members)
    @rule()
    def restarts(self):
        self.broker.close()
        assert all(question.count == 1 for question in self.questions), "closing answers everybody"
        self.questions.clear()
        for member in self.members:
            member.is_alive = member.is_alive and not member.is_local
        for group in GROUPS:
            self.forget_generations(group)
        self.open(self.delay_ms)
        for member in self.members:
            member.coordinator = self.coordinator

    # ---- what must be true --------------------------------------------------------------------------

    @invariant()
    def groups_are_sound(self):
        if not hasattr(self, "coordinator"):
            return
        for group in GROUPS:
            described = self.coordinator.describe_group(group)
            if described.state != "Dead":
                assert described.generation >= self.generations[group], "a generation went back"
                self.generations[group] = described.generation
                if described.state in ("Stable", "Empty"):
                    self.written_generations[group] = described.generation
            elif self.generations[group]:
                self.start_over(group)  # it was empty, without offsets, and has expired
            ids = [each.member_id for each in described.members]
            assert len(ids) == len(set(ids))
            assert (described.state in ("Empty", "Dead")) <= (not ids)
            committed = self.coordinator.committed_offsets(group)
            assert {partition: each.offset for partition, each in committed.items()} == self.committed[group]
        for place, ids in self.answered.items():
            if place in self.listed:
                assert {each for each in ids if not each.startswith(("a-", "b-"))} <= self.listed[place], place

    def teardown(self):
        try:
            if hasattr(self, "broker"):
                # Nobody says anything any more.
                self.time.advance(2_000_000)
                unanswered = [question for question in self.questions if question.count != 1]
                self.broker.close()
                assert not unanswered, "a question without an answer"
        finally:
            shutil.rmtree(self.directory)


GroupMachine.TestCase.settings = settings(
    max_examples=EXAMPLES, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
TestGroups = GroupMachine.TestCase
