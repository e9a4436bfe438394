"""Joining, syncing, heartbeats, leaving: each rule of the classic protocol by itself (wire-protocol, section 8.3)."""

import pytest
from group_members import REBALANCE_MS, SESSION_MS, TestMember, settle, stable
from virtual_time import VirtualTime

import logstore
from logstore import errors
from logstore.broker.group_rebalance import NEW_MEMBER_JOIN_TIMEOUT_MS
from logstore.broker.group_state import Group
from logstore.broker_api import SyncGroupRequest


@pytest.fixture
def time():
    return VirtualTime()


@pytest.fixture
def broker(tmp_path):
    with logstore.open(tmp_path / "data", durability="appended") as opened:
        opened.create_topic("orders", partitions=3)
        yield opened


@pytest.fixture
def coordinator(broker, time):
    return time.coordinator(broker)


def state_of(coordinator, group="g"):
    return coordinator.describe_group(group).state


# ---- joining --------------------------------------------------------------------------------------------


def test_the_first_member_leads_generation_1(coordinator):
    member = TestMember(coordinator)
    response = member.join()
    assert response.error is None
    assert (response.generation, response.leader, response.protocol) == (1, member.member_id, "range")
    assert response.member_id.startswith("client-")
    assert [each.member_id for each in response.members] == [member.member_id]
    assert state_of(coordinator) == "CompletingRebalance"
    settle(member)
    assert state_of(coordinator) == "Stable"
    member.heartbeat()


def test_a_second_member_waits_until_the_first_joins_again(coordinator):
    (first,) = stable(coordinator, 1)
    second = TestMember(coordinator)
    assert second.join() is None
    assert first.wakes == 1, "it learns at once, not at its next heartbeat"
    with pytest.raises(errors.RebalanceInProgressError):
        first.heartbeat()
    first.join()
    assert first.generation == second.generation == 2
    assert len(first.joined[-1].members) == 2
    assert second.joined[-1].members == (), "the leader alone sees the others"
    assert second.joined[-1].leader == first.member_id
    settle(first, second)


def test_a_member_may_be_asked_to_come_back_with_its_id(coordinator, time):
    member = TestMember(coordinator)
    response = member.join(must_know_member_id=True)
    assert isinstance(response.error, errors.MemberIdRequiredError)
    assert response.member_id
    assert state_of(coordinator) == "Empty"
    assert member.join(must_know_member_id=True).generation == 1
    late = TestMember(coordinator)
    late.join(must_know_member_id=True)
    time.advance(SESSION_MS)
    assert isinstance(late.join().error, errors.UnknownMemberIdError), "its id was kept for a session"


def test_a_rebalance_waits_for_an_id_that_was_handed_out(coordinator, time):
    (first,) = stable(coordinator, 1)
    pending = TestMember(coordinator)
    pending.join(must_know_member_id=True)
    first.join()  # the leader joins again: a rebalance
    assert state_of(coordinator) == "PreparingRebalance"
    pending.leave()
    assert first.generation == 2


def test_an_id_that_is_not_taken_up_delays_a_rebalance_by_a_session(coordinator, time):
    (first,) = stable(coordinator, 1)
    pending = TestMember(coordinator)
    pending.join(must_know_member_id=True)
    first.join()
    time.advance(SESSION_MS - 1)
    assert first.generation == 1
    time.advance(1)
    assert first.generation == 2


def test_an_unknown_member_id_is_refused(coordinator):
    stranger = TestMember(coordinator)
    stranger.member_id = "nobody"
    assert isinstance(stranger.join().error, errors.UnknownMemberIdError)
    assert coordinator.list_groups() == []
    stable(coordinator, 1)
    assert isinstance(stranger.join().error, errors.UnknownMemberIdError)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"group": ""}, errors.InvalidGroupIdError),
        ({"group": "\ud800"}, errors.InvalidGroupIdError),
        ({"client_id": "\ud800"}, errors.InvalidRequestError),
        ({"session_timeout_ms": 5_999}, errors.InvalidSessionTimeoutError),
        ({"session_timeout_ms": 1_800_001}, errors.InvalidSessionTimeoutError),
        ({"protocols": ()}, errors.InconsistentGroupProtocolError),
        ({"protocol_type": ""}, errors.InconsistentGroupProtocolError),
        ({"protocol_type": "connect"}, errors.InconsistentGroupProtocolError),
        ({"protocols": (("other", b""),)}, errors.InconsistentGroupProtocolError),
    ],
)
def test_what_can_not_join_changes_nothing(coordinator, changes, error):
    (first,) = stable(coordinator, 1)
    assert isinstance(TestMember(coordinator).join(**changes).error, error)
    assert state_of(coordinator) == "Stable"
    first.heartbeat()


def test_a_group_has_a_largest_size(tmp_path, time):
    with logstore.open(tmp_path / "data", group_max_size=2) as broker:
        coordinator = time.coordinator(broker)
        _, second = stable(coordinator, 2)
        assert isinstance(TestMember(coordinator).join().error, errors.GroupMaxSizeReachedError)
        second.leave()
        assert TestMember(coordinator).join() is None


def test_the_assignor_most_members_prefer_is_chosen_among_those_all_have(coordinator):
    members = [
        TestMember(coordinator, assignors=assignors)
        for assignors in (("range", "sticky"), ("sticky", "range"), ("own", "sticky", "range"))
    ]
    for member in members:
        member.join()
    members[0].join()
    members[1].join() if members[1].generation < 2 else None
    for member in members:
        if state_of(coordinator) == "PreparingRebalance":
            member.join()
    assert {member.joined[-1].protocol for member in members} == {"sticky"}


def test_a_follower_that_has_nothing_new_to_say_causes_no_rebalance(coordinator):
    _, second = stable(coordinator, 2)
    response = second.join()
    assert (response.generation, response.members) == (2, ())
    assert state_of(coordinator) == "Stable"


def test_the_leader_and_a_changed_subscription_do(coordinator):
    first, second = stable(coordinator, 2)
    assert first.join() is None
    second.join()
    assert first.generation == 3
    settle(first, second)
    second.topics = ("orders", "payments")
    assert second.join() is None
    first.join()
    assert first.generation == 4


def test_a_lost_answer_is_given_again(coordinator):
    first, second = (TestMember(coordinator) for _ in range(2))
    first.join()
    second.join()
    first.join()
    assert state_of(coordinator) == "CompletingRebalance"
    assert len(first.join().members) == 2
    assert second.join().members == ()
    assert first.generation == second.generation == 2


def test_who_joins_twice_is_answered_twice(coordinator):
    (first,) = stable(coordinator, 1)
    second = TestMember(coordinator, is_local=False)
    second.join()
    first.join()
    settle(first, second)
    first.join()
    first.join()
    assert isinstance(first.joined[-1].error, errors.RebalanceInProgressError)
    second.join()
    assert first.joined[-1].generation == 3


# ---- rebalances end -------------------------------------------------------------------------------------


def test_a_member_that_does_not_come_back_is_dropped_after_its_rebalance_timeout(coordinator, time):
    first, second = stable(coordinator, 2, session_ms=100_000)
    first.join()
    time.advance(REBALANCE_MS - 1)
    assert first.generation == 2
    time.advance(1)
    assert first.generation == 3
    assert second.wakes == 2, "told of the rebalance, and that it is out"
    with pytest.raises(errors.UnknownMemberIdError):
        second.heartbeat()


def test_a_new_leader_is_elected_where_the_old_one_is_gone(coordinator, time):
    first, second = stable(coordinator, 2)
    first.leave()
    second.join()
    assert second.is_leader
    assert second.generation == 3
    settle(second)


def test_a_member_that_does_not_sync_in_time_is_dropped(coordinator, time):
    first, second = (TestMember(coordinator, session_ms=100_000) for _ in range(2))
    first.join()
    second.join()
    first.join()
    assert first.sync({}).error is None
    time.advance(REBALANCE_MS)
    assert state_of(coordinator) == "PreparingRebalance"
    with pytest.raises(errors.UnknownMemberIdError):
        second.heartbeat()
    assert first.join().generation == 3


def test_followers_wait_for_the_leader_and_learn_when_it_leaves(coordinator):
    first, second = (TestMember(coordinator) for _ in range(2))
    first.join()
    second.join()
    first.join()
    assert second.sync() is None
    first.leave()
    assert isinstance(second.synced[-1].error, errors.RebalanceInProgressError)
    assert second.join().generation == 3


def test_a_sync_of_another_generation_is_refused(coordinator):
    first, second = stable(coordinator, 2)
    second.generation -= 1
    assert isinstance(second.sync().error, errors.IllegalGenerationError)
    second.generation += 1
    assert second.sync().assignment == second.member_id.encode(), "asked again, answered again"
    stranger = TestMember(coordinator)
    stranger.member_id, stranger.generation = "nobody", 2
    assert isinstance(stranger.sync().error, errors.UnknownMemberIdError)
    first.join()
    assert isinstance(second.sync().error, errors.RebalanceInProgressError)


def test_a_member_the_leader_forgot_gets_an_empty_assignment(coordinator):
    first, second = (TestMember(coordinator) for _ in range(2))
    first.join()
    second.join()
    first.join()
    second.sync()
    first.sync({first.member_id: b"all"})
    assert second.synced[-1] == (None, b"")


def test_the_first_members_of_a_group_may_wait_for_more(tmp_path, time):
    with logstore.open(tmp_path / "data", group_initial_rebalance_delay_ms=3_000) as broker:
        coordinator = time.coordinator(broker)
        first, second = TestMember(coordinator), TestMember(coordinator)
        assert first.join() is None
        time.advance(2_000)
        assert second.join() is None
        time.advance(1_000)
        assert not first.joined, "a member has come meanwhile: as long again"
        time.advance(3_000)
        assert first.generation == second.generation == 1
        settle(first, second)


def test_that_wait_ends_with_the_rebalance_timeout(tmp_path, time):
    with logstore.open(tmp_path / "data", group_initial_rebalance_delay_ms=3_000) as broker:
        coordinator = time.coordinator(broker)
        first = TestMember(coordinator, rebalance_ms=7_000)
        first.join()
        others = []
        for _ in range(6):
            others.append(TestMember(coordinator, rebalance_ms=7_000))
            others[-1].join()
            time.advance(1_000)
        assert not first.joined
        time.advance(1_000)
        assert first.generation == 1


# ---- sessions -------------------------------------------------------------------------------------------


def test_a_session_ends_without_heartbeats(coordinator, time):
    first, second = stable(coordinator, 2)
    for _ in range(5):
        time.advance(SESSION_MS - 1)
        first.heartbeat()
        second.heartbeat()
    time.advance(SESSION_MS - 1)
    first.heartbeat()
    time.advance(1)
    with pytest.raises(errors.UnknownMemberIdError):
        second.heartbeat()
    assert second.wakes == 1
    assert state_of(coordinator) == "PreparingRebalance"
    assert first.join().generation == 3


def test_a_shorter_session_counts_from_the_next_join(coordinator, time):
    (first,) = stable(coordinator, 1, session_ms=100_000)
    first.session_ms = 6_000
    first.join()
    settle(first)
    time.advance(6_000)
    with pytest.raises(errors.UnknownMemberIdError):
        first.heartbeat()


def test_waiting_for_an_answer_keeps_a_session_alive(coordinator, time):
    first, second = stable(coordinator, 2, session_ms=SESSION_MS, rebalance_ms=200_000)
    first.join()
    for _ in range(15):
        time.advance(SESSION_MS - 1)
        with pytest.raises(errors.RebalanceInProgressError):
            second.heartbeat()
    second.join()
    assert first.generation == second.generation == 3
    second.sync()
    for _ in range(5):
        time.advance(SESSION_MS - 1)
        first.heartbeat()
    first.sync({second.member_id: b"half"})
    assert second.synced[-1] == (None, b"half")


def test_a_new_member_is_not_waited_for_longer_than_five_minutes(coordinator, time):
    (first,) = stable(coordinator, 1, rebalance_ms=1_000_000)
    second = TestMember(coordinator)
    second.join()
    for _ in range(int(NEW_MEMBER_JOIN_TIMEOUT_MS / 5_000)):
        assert not second.joined
        time.advance(5_000)
        with pytest.raises(errors.RebalanceInProgressError):
            first.heartbeat()
    assert isinstance(second.joined[-1].error, errors.UnknownMemberIdError)


def test_heartbeats_are_checked(coordinator):
    first, second = stable(coordinator, 2)
    with pytest.raises(errors.UnknownMemberIdError):
        coordinator.heartbeat("other", 1, first.member_id)
    with pytest.raises(errors.IllegalGenerationError):
        coordinator.heartbeat("g", 1, first.member_id)
    first.join()
    second.join()
    assert state_of(coordinator) == "CompletingRebalance"
    first.heartbeat()  # it has an answer to its join: nothing is wrong


def test_a_group_whose_members_have_left_is_empty_and_goes_on_counting(coordinator):
    (first,) = stable(coordinator, 1)
    first.leave()
    assert state_of(coordinator) == "Empty"
    with pytest.raises(errors.UnknownMemberIdError):
        first.leave()
    assert TestMember(coordinator).join().generation == 3


# ---- static members -------------------------------------------------------------------------------------


def test_a_static_member_that_comes_back_gets_its_partitions_without_a_rebalance(coordinator):
    first, second = *stable(coordinator, 1), TestMember(coordinator, instance="till-2")
    second.join()
    first.join()
    settle(first, second)
    again = TestMember(coordinator, instance="till-2")
    response = again.join()
    assert response.error is None
    assert (response.generation, response.leader, response.members) == (2, first.member_id, ())
    assert response.member_id.startswith("till-2-")
    assert again.sync().assignment == second.member_id.encode()
    assert state_of(coordinator) == "Stable"
    assert second.wakes == 1
    with pytest.raises(errors.FencedInstanceIdError):
        second.heartbeat()
    with pytest.raises(errors.FencedInstanceIdError):
        second.leave()
    assert isinstance(second.sync().error, errors.FencedInstanceIdError)
    assert isinstance(second.join().error, errors.FencedInstanceIdError)


def test_a_static_leader_is_told_not_to_assign(coordinator):
    stable(coordinator, 1, instance="till-1")
    again = TestMember(coordinator, instance="till-1")
    response = again.join()
    assert response.skip_assignment
    assert response.leader == again.member_id
    assert [each.member_id for each in response.members] == [again.member_id]


def test_a_static_member_with_other_topics_causes_a_rebalance(coordinator):
    first, second = *stable(coordinator, 1), TestMember(coordinator, instance="till-2")
    second.join()
    first.join()
    settle(first, second)
    again = TestMember(coordinator, instance="till-2", topics=("payments",))
    assert again.join() is None
    first.join()
    assert again.generation == 3


def test_two_of_one_instance_id_fence_the_older_while_it_waits(coordinator):
    stable(coordinator, 1)
    older, newer = TestMember(coordinator, instance="till"), TestMember(coordinator, instance="till")
    assert older.join() is None
    assert newer.join() is None
    assert isinstance(older.joined[-1].error, errors.FencedInstanceIdError)


def test_a_static_member_keeps_its_place_until_its_session_ends(coordinator, time):
    first, second = *stable(coordinator, 1), TestMember(coordinator, instance="till-2", session_ms=100_000)
    second.join()
    first.join()
    settle(first, second)
    first.join()
    for _ in range(6):
        time.advance(10_000)
        assert state_of(coordinator) in ("PreparingRebalance", "CompletingRebalance")
    assert first.generation == 3
    assert {each.group_instance_id for each in first.joined[-1].members} == {None, "till-2"}


def test_an_operator_removes_a_static_member_by_its_instance_id(coordinator):
    stable(coordinator, 1, instance="till")
    coordinator.leave_group("g", "", "till")
    assert state_of(coordinator) == "Empty"
    with pytest.raises(errors.UnknownMemberIdError):
        coordinator.leave_group("g", "", "till")


# ---- the end, and failures ------------------------------------------------------------------------------


def test_closing_the_broker_answers_all_that_wait(tmp_path, time):
    with logstore.open(tmp_path / "data") as broker:
        coordinator = time.coordinator(broker)
        (first,) = stable(coordinator, 1)
        second = TestMember(coordinator)
        second.join()
    assert isinstance(second.joined[-1].error, errors.ClosedError)
    assert isinstance(TestMember(coordinator).join().error, errors.ClosedError)
    with pytest.raises(errors.ClosedError):
        first.heartbeat()
    time.advance(1_000_000)


def test_a_generation_that_can_not_be_written_is_not_handed_out(coordinator, broker, monkeypatch):
    first, second = (TestMember(coordinator) for _ in range(2))
    first.join()
    second.join()
    first.join()
    second.sync()
    failure = errors.StorageFailureError("/a", "write", 5)

    def refuse(*_):
        raise failure

    monkeypatch.setattr(coordinator._topic, "append", refuse)
    assert first.sync({}).error is failure
    assert second.synced[-1].error is failure
    assert state_of(coordinator) == "PreparingRebalance"
    monkeypatch.undo()
    monkeypatch.setattr(coordinator._topic, "flush", refuse)
    first.join()
    second.join()
    second.sync()
    assert first.sync({}).error is failure
    assert second.synced[-1].error is failure
    monkeypatch.undo()
    first.join()
    second.join()
    settle(first, second)


def test_an_answer_that_fails_does_not_keep_others_from_theirs(coordinator, caplog):
    (first,) = stable(coordinator, 1)
    second = TestMember(coordinator)

    def fail(_):
        raise RuntimeError("no")

    coordinator.join_group(second.request(), fail)
    first.join()
    assert first.generation == 2
    assert "RuntimeError" in caplog.text


def test_an_interrupt_in_an_answer_comes_out_after_the_others(coordinator):
    (first,) = stable(coordinator, 1)
    second = TestMember(coordinator)

    def interrupt(_):
        raise KeyboardInterrupt

    coordinator.join_group(second.request(), lambda response: None)
    with pytest.raises(KeyboardInterrupt):
        coordinator.join_group(first.request(), interrupt)
    assert state_of(coordinator) == "CompletingRebalance"


@pytest.mark.parametrize(
    ("step", "call"),
    [("elect_joined_leader", 1), ("next_generation", 1), ("voted_protocol", 1), ("join_response", 1), ("join_response", 2)],
)
def test_an_interrupt_half_way_through_a_rebalance_is_mended(coordinator, monkeypatch, step, call):
    first, second = stable(coordinator, 2)
    first.join()
    real, calls = getattr(Group, step), []

    def interrupt_once(*arguments, **kinds):
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return real(*arguments, **kinds)

    monkeypatch.setattr(Group, step, interrupt_once)
    with pytest.raises(KeyboardInterrupt):
        second.join()
    if state_of(coordinator) == "PreparingRebalance":
        assert first.wakes == 2, "one had its answer already, so it is told to come again"
        first.join()
    assert first.generation == second.generation > 2
    settle(first, second)


def test_no_lock_is_held_when_answers_come(coordinator):
    seen = []
    member = TestMember(coordinator)
    coordinator.join_group(member.request(), lambda response: seen.append(coordinator.describe_group("g").state))
    assert seen == ["CompletingRebalance"]
    (listing,) = coordinator.list_groups()
    assert listing.group == "g"


def test_a_reader_process_has_no_members(tmp_path):
    with logstore.open(tmp_path / "data"):
        pass
    with logstore.open(tmp_path / "data", read_only=True) as reader:
        member = TestMember(reader.coordinator)
        assert isinstance(member.join().error, errors.ReadOnlyError)
        responses = []
        reader.coordinator.sync_group(SyncGroupRequest("g", 1, "m"), responses.append)
        assert isinstance(responses[0].error, errors.ReadOnlyError)
        for call in (member.heartbeat, member.leave):
            with pytest.raises(errors.ReadOnlyError):
                call()
