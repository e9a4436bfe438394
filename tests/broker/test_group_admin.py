"""Looking after groups: listing, describing with lag, resetting offsets, deleting groups, offsets, topics and records."""

from datetime import UTC, datetime

import pytest
from group_members import TestMember, stable
from virtual_time import VirtualTime

import logstore
from logstore import OffsetAndMetadata, TopicPartition, errors
from logstore.broker.config import BROKER_SETTINGS, BrokerConfig
from logstore.broker.offsets_topic import OFFSETS_TOPIC
from logstore.consumer_protocol import Assignment, encode_assignment

ORDERS = [TopicPartition("orders", number) for number in range(3)]
HOUR_MS = 3_600_000


def at(offset, metadata=""):
    return OffsetAndMetadata(offset, metadata)


@pytest.fixture
def broker(tmp_path):
    with logstore.open(tmp_path / "data", durability="appended") as opened:
        orders = opened.create_topic("orders", partitions=3)
        now = VirtualTime().wall_clock_ms()
        for number, count in enumerate((10, 5, 0)):
            for age in range(count, 0, -1):
                orders.append(b"x", partition=number, timestamp=now - age * HOUR_MS)
        yield opened


@pytest.fixture
def coordinator(broker):
    return VirtualTime().coordinator(broker)


# ---- groups ---------------------------------------------------------------------------------------------


def test_groups_are_listed_by_state(broker, coordinator):
    coordinator.commit_offsets("b", {ORDERS[0]: at(1)})
    stable(coordinator, 1, group="a")
    TestMember(coordinator, group="c").join()
    assert broker.groups() == [
        ("a", "consumer", "Stable"), ("b", "", "Empty"), ("c", "consumer", "CompletingRebalance"),
    ]
    assert broker.groups(states=["Empty", "Stable"]) == [("a", "consumer", "Stable"), ("b", "", "Empty")]


def test_a_description_shows_members_partitions_and_lag(broker, coordinator):
    first, second = TestMember(coordinator, client="one"), TestMember(coordinator, client="two", instance="till")
    first.join()
    second.join()
    first.join()
    second.sync()
    first.sync({
        first.member_id: encode_assignment(Assignment((ORDERS[2], ORDERS[0]))),
        second.member_id: encode_assignment(Assignment((ORDERS[1],))),
    })
    first.commit({ORDERS[0]: at(7, "note")})
    second.commit({ORDERS[1]: at(5)})
    described = broker.describe_group("g")
    assert described[:5] == ("g", "Stable", "consumer", "range", 2)
    assert sorted(described.members, key=lambda each: each.client_id) == [
        (first.member_id, None, "one", "in-process", ("orders",), (ORDERS[0], ORDERS[2])),
        (second.member_id, "till", "two", "in-process", ("orders",), (ORDERS[1],)),
    ]
    lagging, done, unread = described.partitions
    assert lagging[:6] == ("orders", 0, 7, "note", 10, 3)
    assert lagging.lag_s == pytest.approx(3 * 3600, abs=60)
    assert lagging.member_id == first.member_id
    assert done == ("orders", 1, 5, "", 5, 0, 0.0, second.member_id)
    assert unread == ("orders", 2, None, "", 0, None, None, first.member_id)


def test_lag_counts_what_is_still_there(broker, coordinator):
    coordinator.commit_offsets("g", {ORDERS[0]: at(2), ORDERS[1]: at(500), ORDERS[2]: at(0)})
    broker.topic("orders").partition(0).advance_log_start_offset(6)
    gone, beyond, empty = broker.describe_group("g").partitions
    assert (gone.lag, gone.lag_s) == (4, pytest.approx(4 * 3600, abs=60))
    assert (beyond.lag, beyond.lag_s) == (0, None), "the log ends before it: somebody has cut it"
    assert (empty.lag, empty.lag_s) == (0, 0.0)


def test_a_group_in_the_making_shows_no_assignment(broker, coordinator):
    TestMember(coordinator).join()
    (member,) = broker.describe_group("g").members
    assert (member.topics, member.partitions) == (None, None)


def test_bytes_of_another_protocol_are_left_unread(broker, coordinator):
    (member,) = (TestMember(coordinator),)
    member.join(protocols=(("own", b"\xff"),))
    member.sync({member.member_id: b"\x00"})
    (described,) = broker.describe_group("g").members
    assert (described.topics, described.partitions) == (None, None)


def test_a_group_that_does_not_exist_is_dead(broker):
    assert broker.describe_group("nobody") == ("nobody", "Dead", "", "", -1, (), ())


def test_deleting_a_group(broker, coordinator):
    with pytest.raises(errors.GroupIdNotFoundError):
        broker.delete_group("g")
    (member,) = stable(coordinator, 1)
    member.commit({ORDERS[0]: at(1)})
    with pytest.raises(errors.NonEmptyGroupError):
        broker.delete_group("g")
    member.leave()
    broker.delete_group("g")
    assert broker.groups() == []
    assert VirtualTime().coordinator(broker).list_groups() == [], "nor does the log have it"
    assert TestMember(broker.coordinator).join().generation == 1


def test_deleting_offsets(broker, coordinator):
    with pytest.raises(errors.GroupIdNotFoundError):
        broker.delete_group_offsets("g", [ORDERS[0]])
    (member,) = stable(coordinator, 1, topics=("orders",))
    broker.create_topic("payments")
    payments = TopicPartition("payments", 0)
    member.commit({ORDERS[0]: at(1), payments: at(2)})
    with pytest.raises(errors.GroupSubscribedToTopicError):
        broker.delete_group_offsets("g", [payments, ORDERS[0]])
    broker.delete_group_offsets("g", [("payments", 0), ("payments", 1)])
    assert coordinator.committed_offsets("g") == {ORDERS[0]: at(1)}
    member.join()
    with pytest.raises(errors.NonEmptyGroupError):
        broker.delete_group_offsets("g", [payments])
    member.leave()
    broker.delete_group_offsets("g", [ORDERS[0]])
    assert coordinator.committed_offsets("g") == {}
    assert VirtualTime().coordinator(broker).committed_offsets("g") == {}


def test_deleting_a_topic_drops_its_offsets(broker, coordinator):
    broker.create_topic("payments")
    payments = TopicPartition("payments", 0)
    coordinator.commit_offsets("g", {ORDERS[0]: at(1), payments: at(2)})
    coordinator.commit_offsets("h", {ORDERS[1]: at(1)})
    broker.delete_topic("orders")
    assert coordinator.committed_offsets("g") == {payments: at(2)}
    assert coordinator.committed_offsets("h") == {}
    broker.create_topic("orders", partitions=3)
    assert VirtualTime().coordinator(broker).committed_offsets("g", [ORDERS[0]]) == {}


# ---- resetting ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("to", "after"),
    [
        (3, [3, 3, 0]),
        ("earliest", [0, 0, 0]),
        ("latest", [10, 5, 0]),
        ("-150m", [8, 3, 0]),
        (datetime(2020, 1, 1, tzinfo=UTC), [0, 0, 0]),
        (datetime(2100, 1, 1, tzinfo=UTC), [10, 5, 0]),
    ],
)
def test_offsets_are_reset(broker, coordinator, to, after):
    coordinator.commit_offsets("g", {ORDERS[0]: at(9, "note")})
    plan = broker.reset_offsets("g", "orders", to=to, dry_run=True)
    assert coordinator.committed_offsets("g") == {ORDERS[0]: at(9, "note")}
    assert [each.before for each in plan] == [9, None, None]
    assert [each.after for each in plan] == after
    assert broker.reset_offsets("g", "orders", to=to) == plan
    assert coordinator.committed_offsets("g") == dict(zip(ORDERS, map(at, after), strict=True))


def test_a_reset_says_where_the_log_did_not_hold_what_was_asked_for(broker, coordinator):
    broker.topic("orders").partition(0).advance_log_start_offset(4)
    coordinator.commit_offsets("g", {ORDERS[0]: at(9), ORDERS[1]: at(2)})
    assert broker.reset_offsets("g", [ORDERS[0], ("orders", 1)], to=7) == [
        ("orders", 0, 9, 7, 7), ("orders", 1, 2, 5, 7),
    ]
    assert broker.reset_offsets("g", shift_by=-6) == [("orders", 0, 7, 4, 1), ("orders", 1, 5, 0, -1)]
    assert broker.reset_offsets("g", [ORDERS[0]], shift_by=2) == [("orders", 0, 4, 6, 6)]


def test_a_reset_makes_the_group(broker, coordinator):
    broker.reset_offsets("new", ["orders"], to="latest")
    assert coordinator.committed_offsets("new") == {ORDERS[0]: at(10), ORDERS[1]: at(5), ORDERS[2]: at(0)}


def test_a_reset_needs_a_group_without_members(broker, coordinator):
    (member,) = stable(coordinator, 1)
    for dry_run in (True, False):
        with pytest.raises(errors.NonEmptyGroupError):
            broker.reset_offsets("g", "orders", to=0, dry_run=dry_run)
    member.leave()
    broker.reset_offsets("g", "orders", to=0)


def test_a_member_that_comes_between_plan_and_reset_is_not_overruled(broker, coordinator, monkeypatch):
    from logstore.broker import group_admin

    real_plan = group_admin.plan_reset

    def plan(*args, **kwargs):
        made = real_plan(*args, **kwargs)
        stable(coordinator, 1)
        return made

    monkeypatch.setattr(group_admin, "plan_reset", plan)
    with pytest.raises(errors.NonEmptyGroupError):
        broker.reset_offsets("g", "orders", to=0)
    assert coordinator.committed_offsets("g") == {}


@pytest.mark.parametrize(
    ("wanted", "how", "error"),
    [
        ("orders", {}, errors.InvalidRequestError),
        ("orders", {"to": 1, "shift_by": 1}, errors.InvalidRequestError),
        ("orders", {"to": -1}, errors.InvalidRequestError),
        ("orders", {"to": "yesterday"}, errors.InvalidRequestError),
        ("orders", {"shift_by": True}, errors.InvalidRequestError),
        ("orders", {"shift_by": 1}, errors.InvalidRequestError),
        ("nothing", {"to": 1}, errors.UnknownTopicOrPartitionError),
        ([("orders", 3)], {"to": 1}, errors.UnknownTopicOrPartitionError),
    ],
)
def test_a_reset_that_makes_no_sense_changes_nothing(broker, coordinator, wanted, how, error):
    coordinator.commit_offsets("g", {ORDERS[0]: at(9)})
    with pytest.raises(error):
        broker.reset_offsets("g", wanted, **how)
    assert coordinator.committed_offsets("g") == {ORDERS[0]: at(9)}


# ---- deleting records -----------------------------------------------------------------------------------


def test_records_are_deleted_before_an_offset_or_a_time(broker):
    assert broker.delete_records("orders", {0: 4, 1: -1}) == {0: 4, 1: 5}
    assert [record.offset for record in broker["orders"].read(partition=0)] == list(range(4, 10))
    assert broker.delete_records("orders", before="-150m") == {0: 8, 1: 5, 2: 0}
    assert broker.delete_records("orders", {0: 2}) == {0: 8}, "the start never goes back"


@pytest.mark.parametrize(
    ("offsets", "error"),
    [
        ({0: 1, 1: 6}, errors.OffsetOutOfRangeError),
        ({0: 1, 1: -2}, errors.OffsetOutOfRangeError),
        ({0: 1, 3: 0}, errors.UnknownTopicOrPartitionError),
    ],
)
def test_records_are_deleted_everywhere_or_nowhere(broker, offsets, error):
    with pytest.raises(error):
        broker.delete_records("orders", offsets)
    assert broker.topic("orders").partition(0).log_start_offset == 0


def test_records_of_compacted_topics_are_not_deleted(broker, coordinator):
    broker.create_topic("table", config={"cleanup.policy": "compact"})
    coordinator.commit_offsets("g", {ORDERS[0]: at(1)})
    for topic in ("table", OFFSETS_TOPIC):
        with pytest.raises(errors.InvalidRequestError):
            broker.delete_records(topic, before="latest")
    with pytest.raises(errors.InvalidRequestError):
        broker.delete_records("orders")


# ---- settings -------------------------------------------------------------------------------------------


def test_settings_of_a_broker(tmp_path):
    with logstore.open(tmp_path / "a", config={"offsets.retention.minutes": 60}, group_max_size=3) as broker:
        assert broker.config["offsets.retention.minutes"] == 60
        assert broker.config["group.max.size"] == 3
        assert broker.config["group.min.session.timeout.ms"] == 6_000
        assert set(broker.config.as_dict()) == set(BROKER_SETTINGS)
        assert "group.max.size" in repr(broker.config)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"offsets_retention_minuts": 5}, "did you mean offsets.retention.minutes?"),
        ({"xyzzy": 5}, "docs/guide/settings.md"),
        ({"offsets_retention_minutes": "90s"}, "minutes"),
        ({"offsets_retention_minutes": 0}, "must be in"),
        ({"offsets_topic_num_partitions": 1.5}, "whole number"),
        ({"config": {"group.max.size": 1}, "group_max_size": 2}, "given twice"),
        ({"group_min_session_timeout_ms": "1h"}, "must not exceed"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path, settings, message):
    with pytest.raises(errors.InvalidConfigError, match=message):
        logstore.open(tmp_path / "a", **settings)
    assert not (tmp_path / "a").exists()


def test_none_is_the_default():
    assert BrokerConfig(group_max_size=None).as_dict() == BrokerConfig().as_dict()
    assert BrokerConfig(offsets_retention_minutes="1d")["offsets.retention.minutes"] == 1_440
