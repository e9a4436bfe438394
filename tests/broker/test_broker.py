"""A data directory: topics made, changed, deleted, found again; its metadata lost, damaged or newer."""

from __future__ import annotations

import json
import logging
import shutil
import time

import pytest

import logstore
from logstore.errors import (
    ClosedError,
    CorruptDataError,
    DataDirLockedError,
    InvalidConfigError,
    InvalidRequestError,
    ReadOnlyError,
    StorageFailureError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
    UnsupportedFormatError,
)


@pytest.fixture
def broker(tmp_path):
    with logstore.open(tmp_path / "data", durability="appended") as broker:
        yield broker


def values(topic, **arguments):
    return [record.value for record in topic.read(**arguments)]


# ---- opening and closing ----------------------------------------------------------------------


def test_directories_are_made_and_found_again(tmp_path):
    path = tmp_path / "a" / "b" / "data"
    with logstore.open(path) as broker:
        assert broker.path == str(path)
        broker.create_topic("orders", partitions=2, retention="1d").append(b"a")
        topic_id = broker["orders"].id
    with logstore.open(path) as broker:
        assert broker.topics() == ["orders"]
        topic = broker["orders"]
        assert (topic.id, topic.partitions, topic.config["retention.ms"]) == (topic_id, 2, 86_400_000)
        assert values(topic) == [b"a"]
        assert broker.recovery_reports == {}


def test_a_second_broker_is_refused_and_reads_beside(broker):
    broker.create_topic("orders").append(b"a")
    with pytest.raises(DataDirLockedError, match="this process"):
        logstore.open(broker.path)
    with logstore.open(broker.path, read_only=True) as reader:
        assert values(reader["orders"]) == [b"a"]
        broker["orders"].append(b"b")
        assert values(reader["orders"]) == [b"a", b"b"]
        broker.create_topic("late", partitions=2).append(b"c")
        assert reader.topics() == ["late", "orders"]
        assert values(reader["late"]) == [b"c"]
        for call in (
            lambda: reader.create_topic("x"),
            lambda: reader.delete_topic("orders"),
            lambda: reader.alter_topic("orders", retention="1d"),
            lambda: reader["orders"].append(b"x"),
            lambda: reader["orders"].append_many([b"x"]),
        ):
            with pytest.raises(ReadOnlyError):
                call()


def test_read_only_writes_nothing(tmp_path):
    path = tmp_path / "data"
    with logstore.open(path) as broker:
        broker.create_topic("orders").append(b"a")

    def state():
        return {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in path.rglob("*") if file.is_file()}

    before = state()
    with logstore.open(path, read_only=True) as reader:
        assert values(reader["orders"]) == [b"a"]
        assert list(reader["orders"].scan())
    assert state() == before


def test_what_is_not_there_is_not_opened_for_reading(tmp_path):
    with pytest.raises(StorageFailureError, match="check the path"):
        logstore.open(tmp_path / "none", read_only=True)
    assert not (tmp_path / "none").exists()
    (tmp_path / "file").touch()
    with pytest.raises(StorageFailureError):
        logstore.open(tmp_path / "file")
    with pytest.raises(InvalidRequestError, match="durability"):
        logstore.open(tmp_path / "data", durability="fsync")


def test_closed_brokers_say_so(tmp_path):
    broker = logstore.open(tmp_path)
    topic = broker.create_topic("orders")
    topic.append(b"a")
    record = next(iter(topic.read()))
    broker.close()
    broker.close()
    assert record.value == b"a"
    for call in (
        broker.topics,
        broker.flush,
        lambda: broker["orders"],
        lambda: broker.create_topic("x"),
        lambda: topic.append(b"a"),
        lambda: list(topic.read()),
    ):
        with pytest.raises(ClosedError):
            call()


def test_buffered_records_are_there_after_close(tmp_path):
    with logstore.open(tmp_path, durability="buffered") as broker:
        topic = broker.create_topic("orders", logstore_linger_ms="1h")
        topic.append(b"a")
        assert values(topic) == []
        broker.flush()
        assert values(topic) == [b"a"]
        topic.append(b"b")
    with logstore.open(tmp_path) as broker:
        assert values(broker["orders"]) == [b"a", b"b"]


# ---- topics -----------------------------------------------------------------------------------


def test_topics_are_made_once(broker):
    made = broker.create_topic("orders", partitions=2, retention="1d")
    with pytest.raises(TopicAlreadyExistsError, match="exist_ok"):
        broker.create_topic("orders")
    again = broker.create_topic("orders", partitions=5, retention="2d", exist_ok=True)
    assert again is made
    assert (again.partitions, again.config["retention.ms"]) == (2, 86_400_000)
    assert "orders" in broker
    assert list(broker) == ["orders"]


@pytest.mark.parametrize("partitions", [0, -1, 100_001, 1.0, "1", True, None])
def test_wrong_numbers_of_partitions(broker, partitions):
    with pytest.raises(InvalidRequestError, match="partitions"):
        broker.create_topic("orders", partitions)
    assert broker.topics() == []


@pytest.mark.parametrize("name", ["", ".", "../x", "a/b", "x" * 250, None])
@pytest.mark.fault(30, "hostile topic names")
def test_wrong_names(broker, name):
    with pytest.raises(InvalidRequestError, match="topic name"):
        broker.create_topic(name)


@pytest.mark.fault(30, "hostile topic names")
def test_names_that_kafka_takes_for_the_same(broker):
    broker.create_topic("a.b")
    with pytest.raises(InvalidRequestError, match="collide"):
        broker.create_topic("a_b")


def test_wrong_settings_leave_nothing(broker, tmp_path):
    with pytest.raises(InvalidConfigError, match=r"retention\.ms"):
        broker.create_topic("orders", retension_ms=1)
    assert broker.topics() == []
    assert not list((tmp_path / "data").glob("orders*"))


def test_unknown_topics_and_partitions(broker):
    topic = broker.create_topic("orders", partitions=2)
    with pytest.raises(UnknownTopicOrPartitionError, match="did you mean 'orders'"):
        broker.topic("order")
    with pytest.raises(UnknownTopicOrPartitionError, match="create_topic"):
        broker["zzz"]
    with pytest.raises(LookupError):
        broker.delete_topic("order")
    for number in (2, -1, True, "0"):
        with pytest.raises(UnknownTopicOrPartitionError):
            topic.partition(number)


def test_internal_topics_are_not_listed(broker):
    broker.create_topic("__consumer_offsets")
    broker.create_topic("b")
    broker.create_topic("a")
    assert broker.topics() == ["a", "b"]
    assert broker["__consumer_offsets"].partitions == 1


def test_settings_change(broker, tmp_path):
    topic = broker.create_topic("orders", retention="1d", segment_bytes="1KiB")
    assert broker.alter_topic("orders", {"retention.ms": "2d"}, max_message_bytes=500) is topic
    assert topic.config.overrides() == {
        "max.message.bytes": 500, "retention.ms": 172_800_000, "segment.bytes": 1024,
    }  # fmt: skip
    with pytest.raises(InvalidRequestError):
        topic.append(bytes(600))
    broker.alter_topic("orders", retention=None, max_message_bytes=None)
    topic.append(bytes(600))
    with pytest.raises(InvalidConfigError):
        broker.alter_topic("orders", retention="soon")
    broker.close()
    with logstore.open(tmp_path / "data") as again:
        assert again["orders"].config.overrides() == {"segment.bytes": 1024}


def test_partitions_are_added(broker, tmp_path):
    topic = broker.create_topic("orders", partitions=1)
    topic.append(b"a", b"key")
    broker.alter_topic("orders", partitions=4)
    assert topic.partitions == 4
    topic.append_many([b"b"] * 100, [b"%d" % i for i in range(100)])
    assert all(log.log_end_offset for log in topic.logs)
    for count in (3, 0, True, "5", 100_001):
        with pytest.raises(InvalidRequestError, match="only rise"):
            broker.alter_topic("orders", partitions=count)
    broker.close()
    with logstore.open(tmp_path / "data") as again:
        assert again["orders"].partitions == 4
        assert len(values(again["orders"])) == 101


def test_topics_are_deleted(broker, tmp_path):
    topic = broker.create_topic("orders", partitions=2)
    topic.append(b"a", partition=0)
    record = next(iter(topic.read()))
    reader = topic.read(follow=True)
    old_id = topic.id
    broker.delete_topic("orders")
    assert broker.topics() == []
    assert record.value == b"a"
    assert not [path for path in (tmp_path / "data").glob("orders*") if not path.name.endswith("-delete")]
    for call in (lambda: next(reader), lambda: topic.append(b"b")):
        with pytest.raises(ClosedError):
            call()
    again = broker.create_topic("orders")
    assert again.id != old_id
    assert values(again) == []


@pytest.mark.parametrize("ends_by", ["delay", "close", "crash"])
def test_directories_of_deleted_topics_wait_for_a_while(tmp_path, ends_by):
    path = tmp_path / "data"
    broker = logstore.open(path)
    topic = broker.create_topic("orders", partitions=2, file_delete_delay_ms=0 if ends_by == "delay" else 60_000)
    topic.append(b"a", partition=0)
    if ends_by == "delay":
        broker.delete_topic("orders")
        deadline = time.monotonic() + 120
        while list(path.glob("orders*")) and time.monotonic() < deadline:
            time.sleep(0.005)
    else:
        broker.delete_topic("orders")
        assert len(list(path.glob("orders-*-delete"))) == 2
        assert list(path.glob("orders-0.*-delete/*.log"))
    if ends_by == "crash":
        shutil.copytree(path, path := tmp_path / "left")
        with logstore.open(path) as again:
            assert again.topics() == []
            assert not list(path.glob("orders*"))
    if ends_by == "close":
        broker.close()
    assert not list(path.glob("orders*"))
    broker.close()


def test_what_deleted_topics_hold_counts_as_free(tmp_path):
    """Else retention would delete more than it has to."""
    with logstore.open(tmp_path / "data", housekeeping=False) as broker:
        broker.housekeeping._disk = lambda: (1_000_000, 0)
        broker.create_topic("gone").append(bytes(600_000))
        kept = broker.create_topic("kept", logstore_retention_disk_free_percent=50, segment_bytes=1024)
        for _ in range(5):
            kept.append(bytes(900))
        (plan,) = broker.housekeeping.retention_plans(["kept"])
        assert plan.changes_anything
        broker.delete_topic("gone")
        (plan,) = broker.housekeeping.retention_plans(["kept"])
        assert not plan.changes_anything
        with logstore.open(tmp_path / "data", read_only=True) as reader:
            reader.housekeeping._disk = lambda: (1_000_000, 0)
            (plan,) = reader.housekeeping.retention_plans(["kept"])
            assert not plan.changes_anything


def test_half_deleted_topics_do_not_come_back(broker, tmp_path):
    broker.create_topic("orders").append(b"a")
    broker.close()
    path = tmp_path / "data"
    (path / "logstore.topics").unlink()
    (path / "orders-0").rename(path / "orders-0.0123456789abcdef0123456789abcdef-delete")
    with logstore.open(path) as again:
        assert again.topics() == []


def test_topics_belong_to_their_broker(broker):
    import pickle

    with pytest.raises(TypeError, match="belongs to its broker"):
        pickle.dumps(broker.create_topic("orders"))


# ---- metadata ---------------------------------------------------------------------------------


@pytest.fixture
def made(tmp_path):
    with logstore.open(tmp_path) as broker:
        topic = broker.create_topic("orders", partitions=3, retention="1d")
        for partition in range(3):
            topic.append(b"%d" % partition, partition=partition)
        made_id = topic.id
    return tmp_path, made_id


def damaged_metadata(text):
    yield ""
    yield "logstore.topics 1 00000000\n{}\n"
    yield text[: len(text) // 2]
    yield text.replace("retention", "Retention")
    yield "\x00" * 100


@pytest.mark.parametrize("case", range(5))
@pytest.mark.fault(16, "checkpoint or metadata damaged")
def test_damaged_metadata_loses_settings_alone(made, case, caplog):
    path, made_id = made
    text = (path / "logstore.topics").read_text()
    (path / "logstore.topics").write_text(list(damaged_metadata(text))[case])
    with caplog.at_level(logging.WARNING), logstore.open(path) as broker:
        topic = broker["orders"]
        assert (topic.id, topic.partitions) == (made_id, 3)
        assert topic.config.overrides() == {}
        assert sorted(values(topic)) == [b"0", b"1", b"2"]
    assert "default settings" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING), logstore.open(path) as broker:
        assert broker["orders"].partitions == 3
    assert caplog.text == ""


def test_lost_metadata_is_found_in_the_directories(made):
    path, made_id = made
    (path / "logstore.topics").unlink()
    with logstore.open(path, read_only=True) as broker:
        assert (broker["orders"].id, broker["orders"].partitions) == (made_id, 3)
    with logstore.open(path) as broker:
        assert (broker["orders"].id, broker["orders"].partitions) == (made_id, 3)
        assert sorted(values(broker["orders"])) == [b"0", b"1", b"2"]


@pytest.mark.fault(36, "files of a newer version")
def test_newer_metadata_is_refused(made):
    path, _ = made
    text = (path / "logstore.topics").read_text()
    (path / "logstore.topics").write_text(text.replace("logstore.topics 1", "logstore.topics 2", 1))
    for read_only in (True, False):
        with pytest.raises(UnsupportedFormatError, match="version 2"):
            logstore.open(path, read_only=read_only)
    (path / "logstore.topics").write_text(text)
    logstore.open(path).close()


def test_metadata_is_json_behind_a_line_with_its_crc(made):
    head, _, body = (made[0] / "logstore.topics").read_text().partition("\n")
    assert head.startswith("logstore.topics 1 ")
    assert json.loads(body)["orders"]["partitions"] == 3


@pytest.mark.fault(35, "strangers' files")
def test_strange_directories_are_left_alone(made, caplog):
    path, _ = made
    for name in ("notes", "orders-x", "x-0.0123456789abcdef0123456789abcdef-future"):
        (path / name).mkdir()
        (path / name / "keep").touch()
    (path / "file-0").touch()
    with caplog.at_level(logging.WARNING), logstore.open(path) as broker:
        assert broker.topics() == ["orders"]
    assert "notes" in caplog.text
    assert (path / "notes" / "keep").exists()


@pytest.mark.fault(35, "strangers' files")
def test_strange_files_in_a_partition_are_left_alone(made):
    path, _ = made
    for name in ("readme.txt", "00.log", "00000000000000000000.log.bak"):
        (path / "orders-0" / name).write_text("mine")
    with logstore.open(path) as broker:
        assert len(values(broker["orders"])) == 3
    assert (path / "orders-0" / "00.log").read_text() == "mine"


def test_damage_in_one_partition_leaves_the_others(made):
    path, _ = made
    segment = path / "orders-1" / f"{0:020d}.log"
    data = bytearray(segment.read_bytes())
    data[-2] ^= 1
    segment.write_bytes(data)
    with logstore.open(path) as broker:
        topic = broker["orders"]
        assert set(broker.damages) == {("orders", 1)}
        topic.append(b"more", partition=0)
        with pytest.raises(CorruptDataError) as caught:
            topic.append(b"more", partition=1)
        assert caught.value.path == str(segment)
        assert values(topic, partition=2) == [b"2"]
        with pytest.raises(CorruptDataError):
            values(topic, partition=1)
    assert segment.read_bytes() == data


def test_torn_tails_are_reported(made):
    path, _ = made
    segment = path / "orders-1" / f"{0:020d}.log"
    data = segment.read_bytes()
    segment.write_bytes(data + data[:40])
    (path / "orders-1" / "logstore.checkpoint").unlink()
    (path / ".kafka_cleanshutdown").unlink()
    with logstore.open(path) as broker:
        report = broker.recovery_reports["orders", 1]
        assert (report.path, report.cut_bytes, report.cut_offset) == (str(segment), 40, 1)
        with open(report.kept_as, "rb") as kept:
            assert kept.read() == data[:40]
    assert segment.read_bytes() == data
