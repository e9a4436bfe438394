"""Topics: which partition a record goes to, and how partitions are read as one."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from kafka.partitioner.default import murmur2

import logstore
from logstore.errors import (
    InvalidRequestError,
    OffsetOutOfRangeError,
    RecordTooLargeError,
    UnknownTopicOrPartitionError,
)

START_MS = 1_700_000_000_000


@pytest.fixture
def broker(tmp_path):
    with logstore.open(tmp_path / "data", durability="appended") as broker:
        yield broker


# ---- partitions -------------------------------------------------------------------------------


def test_keys_go_where_kafka_sends_them(broker):
    topic = broker.create_topic("orders", partitions=7)
    keys = [b"", b"a", b"key", *(b"key-%d" % i for i in range(200))]
    for key in keys:
        topic.append(b"one", key)
    placed = topic.append_many([b"many"] * len(keys), keys)
    assert sum(len(offsets) for offsets in placed.values()) == len(keys)
    for record in topic.read():
        assert record.partition == (murmur2(record.key) & 0x7FFFFFFF) % 7
        assert record.partition == logstore.partition_for_key(record.key, 7)


def test_append_many_keeps_the_order_within_a_partition(broker):
    topic = broker.create_topic("orders", partitions=3)
    values = [b"%d" % i for i in range(500)]
    placed = topic.append_many(values, [b"%d" % (i % 17) for i in range(500)], timestamps=range(500))
    for partition, offsets in placed.items():
        records = list(topic.read(partition=partition))
        assert [record.offset for record in records] == list(offsets)
        numbers = [int(record.value) for record in records]
        assert numbers == sorted(numbers)
        assert numbers == [record.timestamp for record in records]
    assert sorted(int(record.value) for record in topic.read()) == list(range(500))


def test_records_without_keys_move_on_after_a_batch(broker):
    topic = broker.create_topic("orders", partitions=4)
    for _ in range(8):
        topic.append(b"a")
    assert [log.log_end_offset for log in topic.logs] == [2, 2, 2, 2]
    for _ in range(5):
        topic.append(b"b", durability="buffered")
    topic.flush()
    assert sorted(log.log_end_offset for log in topic.logs) == [2, 2, 2, 7]


def test_a_partition_can_be_asked_for(broker):
    topic = broker.create_topic("orders", partitions=3)
    assert topic.append(b"a", b"key", partition=2) == 0
    assert topic.append_many([b"b", b"c"], [b"x", b"y"], partition=2) == {2: range(1, 3)}
    assert [record.value for record in topic.read(partition=2)] == [b"a", b"b", b"c"]


def test_refused_records_refuse_the_call_in_all_partitions(broker):
    topic = broker.create_topic("orders", partitions=3, max_message_bytes=500)
    values = [b"a"] * 30 + [bytes(600)]
    with pytest.raises(RecordTooLargeError):
        topic.append_many(values, [b"%d" % i for i in range(31)])
    assert [log.log_end_offset for log in topic.logs] == [0, 0, 0]


# ---- reading ----------------------------------------------------------------------------------


@pytest.fixture
def topic(broker):
    topic = broker.create_topic("orders", partitions=3)
    for i in range(90):
        topic.append(b"%d" % i, partition=i % 3, timestamp=START_MS + i)
    return topic


def moment(ms):
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)


def numbers(records):
    return [int(record.value) for record in records]


def test_partitions_are_merged_by_timestamp(topic):
    assert numbers(topic.read()) == list(range(90))


def test_order_within_a_partition_goes_before_timestamps(broker):
    topic = broker.create_topic("mixed", partitions=2)
    for partition, times in enumerate([[5, 1, 9], [3, 4, 2]]):
        for timestamp in times:
            topic.append(b"%d" % timestamp, partition=partition, timestamp=timestamp)
    assert numbers(topic.read()) == [3, 4, 2, 5, 1, 9]


def test_read_by_time(topic):
    assert numbers(topic.read(moment(START_MS + 50))) == list(range(50, 90))
    assert numbers(topic.read(moment(START_MS + 50), stop=moment(START_MS + 60))) == list(range(50, 60))
    assert numbers(topic.read(moment(START_MS + 500))) == []
    assert numbers(topic.read(stop=moment(START_MS))) == []
    assert numbers(topic.read(moment(START_MS + 50).isoformat(), partition=1)) == list(range(52, 90, 3))
    assert numbers(topic.read("-1h")) == []
    assert len(numbers(topic.read("-1000w"))) == 90
    assert topic.offset_for_timestamp(START_MS + 50, partition=1) == (17, START_MS + 52)


def test_read_by_offset_needs_a_partition(topic, broker):
    for arguments in ({"start": 0}, {"stop": 5}):
        with pytest.raises(InvalidRequestError, match="partition="):
            topic.read(**arguments)
        with pytest.raises(InvalidRequestError, match="partition="):
            topic.scan(**arguments)
    assert numbers(topic.read(28, partition=0)) == [84, 87]
    assert numbers(topic.read(2, stop=4, partition=2)) == [8, 11]
    with pytest.raises(OffsetOutOfRangeError):
        topic.read(31, partition=0)
    with pytest.raises(UnknownTopicOrPartitionError):
        topic.read(partition=3)
    single = broker.create_topic("single")
    single.append(b"7")
    assert numbers(single.read(0)) == [7]


def test_a_read_ends_where_the_log_ended_when_it_began(topic):
    reader = topic.read()
    topic.append(b"90", partition=0, timestamp=START_MS + 90)
    assert numbers(reader) == list(range(90))


def test_positions_are_what_to_go_on_from(topic):
    reader = topic.read()
    seen = [next(reader) for _ in range(40)]
    positions = dict(reader.positions)
    rest = [
        int(record.value)
        for (_, partition), offset in positions.items()
        for record in topic.read(offset, partition=partition)
    ]
    assert sorted(numbers(seen) + rest) == list(range(90))


def test_scan_gives_the_same_as_read(topic):
    for arguments in ({}, {"start": moment(START_MS + 40)}, {"start": 3, "stop": 9, "partition": 1}):
        read = {(r.partition, r.offset, r.timestamp, r.key, r.value) for r in topic.read(**arguments)}
        scanned = set()
        for batch in topic.scan(**arguments):
            for offset, timestamp, key, value in zip(
                batch.offsets, batch.timestamps, batch.keys(), batch.values(), strict=True
            ):
                scanned.add((batch.partition, int(offset), int(timestamp), key, value))
        assert scanned == read


# ---- following --------------------------------------------------------------------------------


def test_following_ends_after_the_timeout(topic):
    began = time.monotonic()
    assert len(numbers(topic.read(follow=True, timeout=0.05))) == 90
    assert time.monotonic() - began >= 0.05


def test_following_gets_what_is_appended_meanwhile(topic):
    expected = [90 + i for i in range(50)]

    def write():
        for number in expected:
            topic.append(b"%d" % number, partition=number % 3)

    with topic.read("latest", follow=True, timeout=30) as reader:
        writer = threading.Thread(target=write)
        writer.start()
        got = sorted(int(next(reader).value) for _ in expected)
        writer.join()
    assert got == expected


def test_following_stops_at_its_stop(topic):
    with topic.read(follow=True, stop=moment(START_MS + 5), timeout=30) as reader:
        assert numbers(reader) == list(range(5))


def test_closing_wakes_those_who_follow(broker):
    topic = broker.create_topic("quiet")
    errors = []

    def follow():
        try:
            list(topic.read(follow=True))
        except logstore.ClosedError as error:
            errors.append(error)

    reader = threading.Thread(target=follow)
    reader.start()
    time.sleep(0.05)
    broker.close()
    reader.join(120)
    assert not reader.is_alive()
    assert len(errors) == 1


def test_a_closed_reader_gives_nothing_more(topic):
    reader = topic.read(follow=True)
    next(reader)
    reader.close()
    reader.close()
    with pytest.raises(StopIteration):
        next(reader)


@pytest.mark.fault(23, "views that outlive their log")
def test_records_outlive_their_broker(tmp_path):
    with logstore.open(tmp_path) as broker:
        topic = broker.create_topic("orders")
        topic.append_many([b"%d" % i for i in range(1000)])
        records = list(topic.read())
        batches = list(topic.scan())
    assert numbers(records) == list(range(1000))
    assert [int(value) for batch in batches for value in batch.values()] == list(range(1000))
