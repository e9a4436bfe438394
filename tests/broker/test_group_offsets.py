"""Committed offsets: what a commit is checked for, what survives, what expires (wire-protocol, sections 8.4 and 10)."""

import struct
import threading

import pytest
from group_members import SESSION_MS, TestMember, settle, stable
from offsets_parser import parse_group, parse_key, parse_offset
from virtual_time import VirtualTime

import logstore
from logstore import OffsetAndMetadata, TopicPartition, errors
from logstore._native.record_batch_builder import RecordBatchBuilder
from logstore.broker.offsets_schema import (
    GroupValue,
    OffsetValue,
    encode_group_key,
    encode_group_value,
    encode_offset_key,
    encode_offset_value,
)
from logstore.broker.offsets_topic import OFFSETS_TOPIC, internal_topic_config

ORDERS = [TopicPartition("orders", number) for number in range(3)]
MINUTE_MS = 60_000
WEEK_MS = 10_080 * MINUTE_MS


def at(offset, metadata=""):
    return OffsetAndMetadata(offset, metadata)


@pytest.fixture
def time():
    return VirtualTime()


@pytest.fixture
def directory(tmp_path):
    with logstore.open(tmp_path / "data") as broker:
        broker.create_topic("orders", partitions=3)
        broker.create_topic("payments")
    return tmp_path / "data"


@pytest.fixture
def broker(directory):
    with logstore.open(directory, durability="appended") as opened:
        yield opened


@pytest.fixture
def coordinator(broker, time):
    return time.coordinator(broker)


def records_in(broker):
    return [(record.key, record.value) for log in broker.topic(OFFSETS_TOPIC).logs for record in log.read()]


# ---- committing -----------------------------------------------------------------------------------------


def test_without_a_group_nothing_is_committed(coordinator, broker):
    assert coordinator.committed_offsets("g") == {}
    assert coordinator.committed_offsets("g", ORDERS) == {}
    assert OFFSETS_TOPIC not in broker, "looking makes nothing"


def test_a_commit_without_members_makes_a_simple_group(coordinator, broker):
    coordinator.commit_offsets("g", {ORDERS[0]: at(5, "note"), ORDERS[2]: OffsetAndMetadata(7, "", 3)})
    assert coordinator.committed_offsets("g") == {ORDERS[0]: at(5, "note"), ORDERS[2]: OffsetAndMetadata(7, "", 3)}
    assert coordinator.committed_offsets("g", [ORDERS[0], ORDERS[1]]) == {ORDERS[0]: at(5, "note")}
    assert coordinator.list_groups() == [("g", "", "Empty")]
    assert broker.topics() == ["orders", "payments"], "the internal topic is not shown"


def test_a_member_commits_what_it_has_read_until_the_new_generation_has_its_assignment(coordinator):
    leader, other = stable(coordinator, 2)
    stranger = TestMember(coordinator)
    stranger.join()
    other.join()
    before = other.generation
    leader.join()
    assert other.generation == before + 1
    other.generation = before
    other.commit({ORDERS[0]: at(3)})
    assert coordinator.committed_offsets("g")[ORDERS[0]] == at(3)
    stranger.generation = before
    with pytest.raises(errors.IllegalGenerationError):
        stranger.commit({ORDERS[1]: at(9)})
    other.generation = before - 1
    with pytest.raises(errors.IllegalGenerationError):
        other.commit({ORDERS[1]: at(9)})
    other.generation = stranger.generation = before + 1
    settle(leader, other, stranger)
    other.generation = before
    with pytest.raises(errors.IllegalGenerationError):
        other.commit({ORDERS[0]: at(2)})


def test_one_commit_is_one_batch_of_kafkas_records(coordinator, broker, time):
    time.advance(1_000)
    coordinator.commit_offsets("g", {ORDERS[0]: at(5, "note"), ORDERS[1]: at(6)})
    (batch,) = broker.topic(OFFSETS_TOPIC).partition(0).fetch(0)
    assert (batch.records_count, batch.codec, batch.producer_id) == (2, 0, -1)
    first, second = batch
    assert parse_key(first.key) == ("offset", "g", "orders", 0)
    assert parse_offset(first.value) == {
        "version": 3, "offset": 5, "leader_epoch": -1, "metadata": "note", "commit_timestamp": time.wall_clock_ms(),
    }
    assert parse_key(second.key) == ("offset", "g", "orders", 1)
    assert first.timestamp == time.wall_clock_ms()


def test_a_generation_is_one_record_of_kafkas(coordinator, broker, time):
    (member,) = stable(coordinator, 1, instance="till")
    ((key, value),) = records_in(broker)
    assert parse_key(key) == ("group", "g")
    assert parse_group(value) == {
        "version": 3, "protocol_type": "consumer", "generation": 1, "protocol": "range", "leader": member.member_id,
        "state_timestamp": time.wall_clock_ms(),
        "members": [
            {
                "member_id": member.member_id, "group_instance_id": "till", "client_id": "client0",
                "client_host": "in-process", "rebalance_timeout": 60_000, "session_timeout": 10_000,
                "subscription": member.request().protocols[0][1], "assignment": member.member_id.encode(),
            }
        ],
    }
    member.leave()
    key, value = records_in(broker)[-1]
    assert parse_group(value)["members"] == []
    assert parse_group(value)["generation"] == 2


def test_the_topic_is_kafkas(coordinator, broker):
    coordinator.commit_offsets("g", {ORDERS[0]: at(1)})
    topic = broker.topic(OFFSETS_TOPIC)
    assert topic.partitions == 1
    assert topic.config["cleanup.policy"] == "compact"
    assert topic.config["segment.bytes"] == 104_857_600
    with pytest.raises(errors.InvalidRequestError):
        broker.alter_topic(OFFSETS_TOPIC, partitions=2)
    with pytest.raises(errors.InvalidRequestError):
        broker.delete_topic(OFFSETS_TOPIC)


def test_a_group_is_in_the_partition_that_kafka_looks_in(directory):
    with logstore.open(directory, offsets_topic_num_partitions=50) as broker:
        for group in ("g1", "my-group", "test-consumer-group"):
            broker.coordinator.commit_offsets(group, {ORDERS[0]: at(1)})
        topic = broker.topic(OFFSETS_TOPIC)
        assert [log.partition for log in topic.logs if log.log_end_offset] == [17, 36, 42]
    with logstore.open(directory) as broker:
        broker.coordinator.commit_offsets("my-group", {ORDERS[0]: at(2)})
        assert broker.topic(OFFSETS_TOPIC).partition(36).log_end_offset == 2, "the number an existing topic has counts"
        assert [each.group for each in broker.groups()] == ["g1", "my-group", "test-consumer-group"]


@pytest.mark.parametrize(
    ("offsets", "error"),
    [
        ({TopicPartition("orders", 3): at(1)}, errors.UnknownTopicOrPartitionError),
        ({TopicPartition("nothing", 0): at(1)}, errors.UnknownTopicOrPartitionError),
        ({ORDERS[1]: at(-1)}, errors.InvalidRequestError),
        ({ORDERS[1]: at(2**63)}, errors.InvalidRequestError),
        ({ORDERS[1]: at(True)}, errors.InvalidRequestError),
        ({ORDERS[1]: at("5")}, errors.InvalidRequestError),
        ({ORDERS[1]: OffsetAndMetadata(1, "", 2**31)}, errors.InvalidRequestError),
        ({ORDERS[1]: at(1, b"bytes")}, errors.InvalidRequestError),
        ({ORDERS[1]: at(1, "\ud800")}, errors.InvalidRequestError),
        ({ORDERS[1]: at(1, "x" * 4_097)}, errors.OffsetMetadataTooLargeError),
    ],
)
def test_a_commit_that_is_wrong_somewhere_commits_nothing(coordinator, offsets, error):
    coordinator.commit_offsets("g", {ORDERS[0]: at(1, "ü" * 4_096)})
    with pytest.raises(error):
        coordinator.commit_offsets("g", {ORDERS[0]: at(9), **offsets})
    assert coordinator.committed_offsets("g") == {ORDERS[0]: at(1, "ü" * 4_096)}


@pytest.mark.parametrize("group", ["", None, 5, "\ud800", "x" * 40_000])
def test_a_group_needs_a_name(coordinator, group):
    with pytest.raises(errors.InvalidGroupIdError):
        coordinator.commit_offsets(group, {ORDERS[0]: at(1)})


def test_a_commit_that_is_too_large_commits_nothing(broker, coordinator):
    coordinator.commit_offsets("other", {ORDERS[0]: at(1)})
    broker.alter_topic(OFFSETS_TOPIC, max_message_bytes=2_000)
    with pytest.raises(errors.RecordTooLargeError):
        coordinator.commit_offsets("g", {partition: at(1, "x" * 1_000) for partition in ORDERS})
    assert [each.group for each in coordinator.list_groups()] == ["other"], "nor does it leave a group behind"


def test_committing_nothing_does_nothing(coordinator, broker):
    coordinator.commit_offsets("g", {})
    assert OFFSETS_TOPIC not in broker


def test_members_commit_in_their_generation_alone(coordinator):
    first, second = stable(coordinator, 2)
    first.commit({ORDERS[0]: at(1)})
    with pytest.raises(errors.UnknownMemberIdError, match="has members"):
        coordinator.commit_offsets("g", {ORDERS[0]: at(2)})
    with pytest.raises(errors.UnknownMemberIdError):
        coordinator.commit_offsets("g", {ORDERS[0]: at(2)}, generation=2, member_id="nobody")
    with pytest.raises(errors.IllegalGenerationError):
        coordinator.commit_offsets("g", {ORDERS[0]: at(2)}, generation=1, member_id=first.member_id)
    with pytest.raises(errors.IllegalGenerationError):
        coordinator.commit_offsets("other", {ORDERS[0]: at(2)}, generation=1, member_id=first.member_id)
    first.join()
    first.commit({ORDERS[0]: at(3)})  # a rebalance has begun, but it owns its partitions until the next generation
    second.join()
    first.commit({ORDERS[0]: at(4)})  # nobody reads by the new generation's assignment yet; Kafka refuses this one
    assert coordinator.committed_offsets("g") == {ORDERS[0]: at(4)}
    settle(first, second)
    first.commit({ORDERS[0]: at(5)})


def test_a_fenced_member_can_not_commit(coordinator):
    (older,) = stable(coordinator, 1, instance="till")
    newer = TestMember(coordinator, instance="till")
    newer.join()
    with pytest.raises(errors.FencedInstanceIdError):
        older.commit({ORDERS[0]: at(1)})
    newer.commit({ORDERS[0]: at(2)})


def test_a_commit_keeps_a_session_alive(coordinator, time):
    (member,) = stable(coordinator, 1)
    for number in range(5):
        time.advance(SESSION_MS - 1)
        member.commit({ORDERS[0]: at(number)})


def test_an_empty_group_of_consumers_takes_commits_from_anybody(coordinator):
    (member,) = stable(coordinator, 1)
    member.leave()
    coordinator.commit_offsets("g", {ORDERS[0]: at(1)})
    with pytest.raises(errors.UnknownMemberIdError):
        member.commit({ORDERS[0]: at(2)})


# ---- failures and races ---------------------------------------------------------------------------------


def test_an_append_or_a_flush_that_fails_commits_nothing(directory, time, monkeypatch):
    with logstore.open(directory) as broker:
        coordinator = time.coordinator(broker)
        coordinator.commit_offsets("g", {ORDERS[0]: at(1)})

        def refuse(*_, **__):
            raise errors.DiskFullError("/data", "write", 28)

        for step in ("append", "flush"):
            with monkeypatch.context() as patched:
                patched.setattr(coordinator._topic, step, refuse)
                with pytest.raises(errors.DiskFullError):
                    coordinator.commit_offsets("g", {ORDERS[0]: at(2)})
                with pytest.raises(errors.DiskFullError):
                    coordinator.commit_offsets("new", {ORDERS[0]: at(2)})
            assert coordinator.committed_offsets("g") == {ORDERS[0]: at(1)}
            assert [each.group for each in coordinator.list_groups()] == ["g"]


def test_the_later_of_two_commits_in_the_log_counts(coordinator, monkeypatch):
    """The first one's flush returns after the second one's."""
    real_flush = coordinator._topic.flush

    def flush(log, offsets):
        monkeypatch.setattr(coordinator._topic, "flush", real_flush)
        coordinator.commit_offsets("g", {ORDERS[0]: at(2)})
        assert coordinator.committed_offsets("g") == {ORDERS[0]: at(2)}
        real_flush(log, offsets)

    monkeypatch.setattr(coordinator._topic, "flush", flush)
    coordinator.commit_offsets("g", {ORDERS[0]: at(1), ORDERS[1]: at(1)})
    assert coordinator.committed_offsets("g") == {ORDERS[0]: at(2), ORDERS[1]: at(1)}


def test_a_commit_under_way_does_not_bring_back_what_was_deleted(coordinator, monkeypatch):
    coordinator.commit_offsets("g", {ORDERS[1]: at(1)})
    real_flush = coordinator._topic.flush

    def flush(log, offsets):
        monkeypatch.setattr(coordinator._topic, "flush", real_flush)
        coordinator.delete_offsets("g", [ORDERS[1]])
        coordinator.forget_topic("orders")

    monkeypatch.setattr(coordinator._topic, "flush", flush)
    coordinator.commit_offsets("g", {ORDERS[1]: at(5)})
    assert coordinator.committed_offsets("g") == {}
    coordinator.commit_offsets("g", {ORDERS[1]: at(6)})
    assert coordinator.committed_offsets("g") == {ORDERS[1]: at(6)}


def test_threads_that_commit_at_once_share_flushes_and_lose_nothing(directory):
    with logstore.open(directory) as broker:
        coordinator = broker.coordinator
        coordinator.commit_offsets("g", {ORDERS[0]: at(0)})
        log = broker.topic(OFFSETS_TOPIC).partition(0)
        real_sync, syncs = log._sync, []
        log._sync = lambda: (syncs.append(1), real_sync())

        def run(number):
            for offset in range(20):
                coordinator.commit_offsets(f"g{number}", {ORDERS[0]: at(offset)})

        threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(syncs) < 160, "160 commits"
    with logstore.open(directory) as broker:
        for number in range(8):
            assert broker.coordinator.committed_offsets(f"g{number}") == {ORDERS[0]: at(19)}


# ---- reading the log back -------------------------------------------------------------------------------


def test_offsets_and_generations_survive(directory, time):
    with logstore.open(directory) as broker:
        coordinator = time.coordinator(broker)
        first, second = stable(coordinator, 2)
        first.commit({ORDERS[0]: at(5, "note"), ORDERS[1]: at(6)})
        first.commit({ORDERS[1]: at(7)})
        coordinator.commit_offsets("simple", {ORDERS[0]: at(1)})
    with logstore.open(directory) as broker:
        coordinator = time.coordinator(broker)
        assert coordinator.committed_offsets("g") == {ORDERS[0]: at(5, "note"), ORDERS[1]: at(7)}
        assert coordinator.list_groups() == [("g", "consumer", "Empty"), ("simple", "", "Empty")], "their process has ended"
        second.coordinator = coordinator
        with pytest.raises(errors.UnknownMemberIdError):
            second.heartbeat()
        assert TestMember(coordinator).join().generation == 3


def test_members_of_other_processes_survive_their_broker(directory, time):
    with logstore.open(directory) as broker:
        first, second = stable(time.coordinator(broker), 2, is_local=False)
    with logstore.open(directory) as broker:
        coordinator = time.coordinator(broker)
        first.coordinator = second.coordinator = coordinator
        assert coordinator.describe_group("g").state == "Stable"
        first.heartbeat()
        assert second.sync().assignment == second.member_id.encode()
        first.commit({ORDERS[0]: at(1)})
        time.advance(SESSION_MS - 1)
        first.heartbeat()
        time.advance(1)
        with pytest.raises(errors.UnknownMemberIdError):
            second.heartbeat()
        assert first.join().generation == 3


def test_a_static_member_of_this_process_may_come_back_after_it_has_ended(directory, time):
    with logstore.open(directory) as broker:
        (older,) = stable(time.coordinator(broker), 1, instance="till")
    with logstore.open(directory) as broker:
        newer = TestMember(time.coordinator(broker), instance="till")
        assert newer.join().generation == 1
        assert newer.sync().assignment == older.member_id.encode()


def test_where_some_members_ended_with_their_process_the_others_rebalance(directory, time):
    with logstore.open(directory) as broker:
        coordinator = time.coordinator(broker)
        local, remote = TestMember(coordinator), TestMember(coordinator, is_local=False)
        local.join()
        remote.join()
        local.join()
        settle(local, remote)
    with logstore.open(directory) as broker:
        remote.coordinator = time.coordinator(broker)
        with pytest.raises(errors.RebalanceInProgressError):
            remote.heartbeat()
        assert remote.join().generation == 3


def write(broker, records, **kinds):
    """Appends a batch to the topic of offsets as another engine would."""
    if OFFSETS_TOPIC not in broker:
        broker.create_topic(OFFSETS_TOPIC, config=internal_topic_config(OFFSETS_TOPIC).overrides())
    log = broker.topic(OFFSETS_TOPIC).partition(0)
    builder = RecordBatchBuilder()
    for key, value in records:
        builder.append(value, key)
    log.append_as_follower(builder.build(base_offset=log.log_end_offset, partition_leader_epoch=0, **kinds))


def offset_record(group, partition, offset, **changes):
    value = OffsetValue(offset, -1, "", 1)._replace(**changes)
    return encode_offset_key(group, *partition), encode_offset_value(value)


def test_the_last_record_of_a_key_counts_and_tombstones_delete(broker, coordinator):
    write(broker, [offset_record("g", ORDERS[0], offset) for offset in range(5)])
    write(broker, [offset_record("g", ORDERS[1], 9), (encode_offset_key("g", *ORDERS[0]), None)])
    write(broker, [(encode_group_key("gone"), encode_group_value(GroupValue("consumer", 3, None, None, 1, ())))])
    write(broker, [(encode_group_key("gone"), None)])
    assert coordinator.committed_offsets("g") == {ORDERS[1]: at(9)}
    assert [each.group for each in coordinator.list_groups()] == ["g"]


def test_bytes_that_make_no_sense_are_said_and_skipped(broker, coordinator, caplog):
    good = offset_record("g", ORDERS[0], 5)
    write(broker, [
        good,
        (b"\x00\x01\x7f\xff", b"x"), (b"", b""), (b"\x00\x02\x00\x01g", b"\x00\x63"),
        (encode_offset_key("h", *ORDERS[0]), b"\x00\x03short"),
        (struct.pack(">h", 5) + b"\x00\x01g\x00\x01m", b"another protocol's"),
    ])
    write(broker, [(None, b"no key")])
    assert coordinator.committed_offsets("g") == {ORDERS[0]: at(5)}
    assert [each.group for each in coordinator.list_groups()] == ["g"]
    assert len(caplog.records) == 5, "the record of another protocol is none of our business"


def marker(broker, producer_id, commit):
    key, value = struct.pack(">hh", 0, 1 if commit else 0), struct.pack(">hi", 0, 0)
    write(broker, [(key, value)], control=True, transactional=True, producer_id=producer_id, producer_epoch=0)


def test_offsets_of_transactions_count_when_these_are_committed(broker, time):
    def in_transaction(producer_id, *records, sequence=0):
        write(broker, records, transactional=True, producer_id=producer_id, producer_epoch=0, base_sequence=sequence)

    in_transaction(1, offset_record("g", ORDERS[0], 5))
    in_transaction(2, offset_record("g", ORDERS[1], 6))
    in_transaction(3, offset_record("g", ORDERS[2], 7))
    marker(broker, 1, True)
    marker(broker, 2, False)
    coordinator = time.coordinator(broker)
    assert coordinator.committed_offsets("g") == {ORDERS[0]: at(5)}
    in_transaction(4, offset_record("h", ORDERS[0], 3))
    write(broker, [offset_record("h", ORDERS[0], 4)])
    marker(broker, 4, True)
    coordinator = time.coordinator(broker)
    assert coordinator.committed_offsets("h") == {ORDERS[0]: at(4)}, "written later, committed earlier"


def test_nothing_expires_that_an_open_transaction_has_written_to(broker, time):
    time.advance(0)
    old = time.wall_clock_ms() - 2 * WEEK_MS
    write(broker, [offset_record("g", partition, 1, commit_timestamp=old) for partition in ORDERS[:2]])
    write(broker, [offset_record("g", ORDERS[0], 5)], transactional=True, producer_id=1, producer_epoch=0, base_sequence=0)
    coordinator = time.coordinator(broker)
    assert coordinator.expire_offsets() == 1
    assert coordinator.committed_offsets("g") == {ORDERS[0]: at(1)}


def test_a_damaged_batch_does_not_hide_the_others(directory, caplog):
    with logstore.open(directory, offsets_topic_segment_bytes=1024) as broker:
        for offset in range(40):
            broker.coordinator.commit_offsets(f"g{offset}", {ORDERS[0]: at(offset)})
        log = broker.topic(OFFSETS_TOPIC).partition(0)
        path = log.segments[0].path
        assert len(log.segments) > 3
    with open(path, "r+b") as file:
        file.seek(200)
        file.write(b"\xff" * 20)
    with logstore.open(directory) as broker:
        groups = {each.group for each in broker.groups()}
        assert {f"g{offset}" for offset in range(20, 40)} <= groups
        assert "damaged" in caplog.text or broker.damages


def test_a_directory_without_our_settings_keeps_the_internal_topic_compacted(directory):
    with logstore.open(directory) as broker:
        broker.coordinator.commit_offsets("g", {ORDERS[0]: at(1)})
    (directory / "logstore.topics").unlink()
    with logstore.open(directory) as broker:
        assert broker.topic(OFFSETS_TOPIC).config["cleanup.policy"] == "compact"
        assert broker.coordinator.committed_offsets("g") == {ORDERS[0]: at(1)}


# ---- a process that reads -------------------------------------------------------------------------------


def test_a_reader_sees_what_the_writer_commits(directory):
    with logstore.open(directory, durability="appended") as broker, logstore.open(directory, read_only=True) as reader:
        assert reader.groups() == []
        broker.coordinator.commit_offsets("g", {ORDERS[0]: at(1)})
        assert reader.coordinator.committed_offsets("g") == {ORDERS[0]: at(1)}
        broker.coordinator.commit_offsets("g", {ORDERS[0]: at(2), ORDERS[1]: at(1)})
        assert reader.coordinator.committed_offsets("g") == {ORDERS[0]: at(2), ORDERS[1]: at(1)}
        (member,) = stable(broker.coordinator, 1, group="h")
        assert reader.groups() == [("g", "", "Empty"), ("h", "consumer", "Stable")]
        assert [each.member_id for each in reader.describe_group("h").members] == [member.member_id]
        broker.delete_group("g")
        assert [each.group for each in reader.groups()] == ["h"]
        member.leave()
        assert reader.groups(["Empty"]) == [("h", "consumer", "Empty")]


def test_a_reader_changes_nothing(directory):
    with logstore.open(directory) as broker:
        broker.coordinator.commit_offsets("g", {ORDERS[0]: at(1)})
    with logstore.open(directory, read_only=True) as reader:
        for call in (
            lambda: reader.coordinator.commit_offsets("g", {ORDERS[0]: at(2)}),
            lambda: reader.delete_group("g"),
            lambda: reader.delete_group_offsets("g", [ORDERS[0]]),
            lambda: reader.reset_offsets("g", "orders", to="earliest"),
            lambda: reader.delete_records("orders", {0: 0}),
            reader.coordinator.expire_offsets,
        ):
            with pytest.raises(errors.ReadOnlyError):
                call()
        assert reader.reset_offsets("g", [ORDERS[0]], to=0, dry_run=True) == [("orders", 0, 1, 0, 0)]


# ---- expiry ---------------------------------------------------------------------------------------------


def test_offsets_of_a_simple_group_expire_a_week_after_their_commit(coordinator, time, broker):
    coordinator.commit_offsets("g", {ORDERS[0]: at(1)})
    time.advance(WEEK_MS / 2)
    coordinator.commit_offsets("g", {ORDERS[1]: at(1)})
    time.advance(WEEK_MS / 2 - 1)
    assert coordinator.expire_offsets() == 0
    time.advance(1)
    assert coordinator.committed_offsets("g") == {ORDERS[1]: at(1)}, "looked for every ten minutes"
    assert records_in(broker)[-1] == (encode_offset_key("g", *ORDERS[0]), None)
    time.advance(WEEK_MS / 2)
    assert coordinator.list_groups() == []


def test_offsets_of_consumers_expire_a_week_after_the_last_one_left(coordinator, time, broker):
    (member,) = stable(coordinator, 1, session_ms=1_800_000)
    member.commit({ORDERS[0]: at(1)})
    for _ in range(2 * 10_080 // 20):
        time.advance(20 * MINUTE_MS)
        member.heartbeat()
    member.leave()
    time.advance(WEEK_MS - 1)
    assert coordinator.committed_offsets("g") == {ORDERS[0]: at(1)}
    time.advance(600_000)
    assert coordinator.committed_offsets("g") == {}
    assert coordinator.list_groups() == []
    assert [parse_key(key) for key, value in records_in(broker) if value is None] == [
        ("offset", "g", "orders", 0), ("group", "g"),
    ]


def test_a_group_that_nobody_ever_joined_leaves_nothing(coordinator, time, broker):
    TestMember(coordinator).join(must_know_member_id=True)
    assert coordinator.list_groups() == [("g", "", "Empty")]
    time.advance(600_000)
    assert coordinator.list_groups() == []
    assert OFFSETS_TOPIC not in broker


def test_the_week_goes_on_over_a_restart(directory, time):
    with logstore.open(directory) as broker:
        coordinator = time.coordinator(broker)
        (member,) = stable(coordinator, 1)
        member.commit({ORDERS[0]: at(1)})
        member.leave()
    time.advance(WEEK_MS)
    with logstore.open(directory) as broker:
        coordinator = time.coordinator(broker)
        assert coordinator.expire_offsets() == 1
        assert coordinator.list_groups() == []


def test_an_active_group_loses_offsets_of_topics_it_no_longer_reads(coordinator, time):
    (member,) = stable(coordinator, 1, topics=("orders",), session_ms=1_800_000)
    payments = TopicPartition("payments", 0)
    member.commit({ORDERS[0]: at(1), payments: at(1)})
    for _ in range(10_080 // 20):
        time.advance(20 * MINUTE_MS)
        member.heartbeat()
    assert coordinator.committed_offsets("g") == {ORDERS[0]: at(1)}


def test_a_group_whose_bytes_are_not_kafkas_keeps_its_offsets(coordinator, time, caplog):
    (member,) = (TestMember(coordinator, session_ms=1_800_000),)
    member.join(protocols=(("own", b"\xff"),))
    member.sync({})
    member.commit({ORDERS[0]: at(1)})
    for _ in range(10_080 // 20):
        time.advance(20 * MINUTE_MS)
        member.heartbeat()
    assert coordinator.committed_offsets("g") == {ORDERS[0]: at(1)}
    assert len([each for each in caplog.records if "subscription" in each.getMessage()]) == 1


def test_an_expire_time_of_an_old_commit_counts(broker, time):
    soon = time.wall_clock_ms() + 5 * MINUTE_MS
    key = encode_offset_key("g", *ORDERS[0])
    value = struct.pack(">hqhqq", 1, 5, 0, time.wall_clock_ms(), soon)
    write(broker, [(key, value)])
    coordinator = time.coordinator(broker)
    assert coordinator.committed_offsets("g") == {ORDERS[0]: at(5)}
    time.advance(10 * MINUTE_MS)
    assert coordinator.committed_offsets("g") == {}


def test_expiry_leaves_a_commit_under_way_alone(coordinator, time, monkeypatch):
    coordinator.commit_offsets("g", {ORDERS[0]: at(1)})
    real_flush = coordinator._topic.flush

    def flush(log, offsets):
        time.advance(2 * WEEK_MS)
        real_flush(log, offsets)

    monkeypatch.setattr(coordinator._topic, "flush", flush)
    coordinator.commit_offsets("g", {ORDERS[0]: at(2)})
    assert coordinator.committed_offsets("g") == {ORDERS[0]: at(2)}


def test_retention_is_a_setting(directory, time):
    with logstore.open(directory, config={"offsets.retention.minutes": "2h"}) as broker:
        coordinator = time.coordinator(broker)
        coordinator.commit_offsets("g", {ORDERS[0]: at(1)})
        time.advance(110 * MINUTE_MS)
        assert coordinator.committed_offsets("g")
        time.advance(10 * MINUTE_MS)
        assert not coordinator.committed_offsets("g")


def test_expiry_that_fails_is_said_and_tried_again(coordinator, time, monkeypatch, caplog):
    coordinator.commit_offsets("g", {ORDERS[0]: at(1)})

    def refuse(*_):
        raise errors.DiskFullError("/data", "write", 28)

    with monkeypatch.context() as patched:
        patched.setattr(coordinator._topic, "append", refuse)
        time.advance(WEEK_MS)
    assert "No space" in caplog.text
    time.advance(600_000)
    assert coordinator.list_groups() == []


def test_many_offsets_expire_in_batches_that_fit(broker, time):
    broker.create_topic("wide", partitions=2)
    old = time.wall_clock_ms() - 2 * WEEK_MS
    for first in range(0, 20_000, 5_000):
        write(broker, [
            offset_record("g", ("wide", number), 1, commit_timestamp=old) for number in range(first, first + 5_000)
        ])
    coordinator = time.coordinator(broker)
    assert coordinator.expire_offsets() == 20_000
    assert coordinator.list_groups() == []
