"""Positions that a log no longer holds, damage, and handlers that raise."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest

import logstore
from logstore import (
    CorruptDataError,
    LogTruncatedError,
    OffsetOutOfRangeError,
    TopicPartition,
    UnknownTopicOrPartitionError,
)


@pytest.fixture
def broker(tmp_path):
    with logstore.open(tmp_path / "data", durability="appended") as opened:
        yield opened


@pytest.fixture
def orders(broker):
    topic = broker.create_topic("orders", partitions=2)
    for number in range(20):
        topic.append(b"%d" % number, partition=number % 2)
    return topic


def offsets(records, partition=0):
    return [record.offset for record in records if record.partition == partition]


def drain(consumer, seen):
    """Polls until something is raised."""
    for _ in range(1000):
        seen += consumer.poll(max_records=10)


def test_earliest_passes_over_what_was_deleted_and_says_so(broker, orders, caplog):
    with broker.consumer("orders") as consumer:
        assert offsets(consumer.poll(max_records=3)) == [0, 1, 2]
        consumer.seek(("orders", 0), 3)
        orders.partition(0).advance_log_start_offset(7)
        with caplog.at_level(logging.WARNING, "logstore.consumer"):
            assert offsets(consumer.poll()) == [7, 8, 9]
        assert "orders-0" in caplog.text
        assert "offsets 3 to 7 (exclusive) are passed over" in caplog.text


def test_latest_goes_to_the_end_and_says_so(broker, orders, caplog):
    with broker.consumer("orders", auto_offset_reset="latest") as consumer:
        consumer.seek(("orders", 0), 3)
        orders.partition(0).advance_log_start_offset(7)
        with caplog.at_level(logging.WARNING, "logstore.consumer"):
            assert consumer.poll() == []
        assert "offsets 3 to 10 (exclusive) are passed over" in caplog.text
        assert consumer.position(("orders", 0)) == 10


def test_none_raises_until_the_caller_seeks(broker, orders):
    with broker.consumer("orders", auto_offset_reset="none") as consumer:
        consumer.seek(("orders", 0), 3)
        consumer.seek(("orders", 1), 0)
        orders.partition(0).advance_log_start_offset(7)
        seen = []
        for _ in range(2):
            with pytest.raises(OffsetOutOfRangeError, match="orders-0") as caught:
                drain(consumer, seen)
            assert caught.value.log_start_offset == 7
        assert offsets(seen, 1) == list(range(10))
        consumer.seek_to_beginning(("orders", 0))
        assert offsets(consumer.poll()) == [7, 8, 9]


def test_an_offset_past_the_end_is_reset(broker, orders, caplog):
    with broker.consumer("orders") as consumer:
        consumer.seek(("orders", 0), 1000)
        consumer.seek_to_end(("orders", 1))
        with caplog.at_level(logging.WARNING, "logstore.consumer"):
            assert offsets(consumer.poll()) == list(range(10))
        assert "are read again" in caplog.text


def test_what_is_written_anew_behind_a_truncation_is_read(broker, orders, caplog):
    with broker.consumer("orders") as consumer:
        assert len(consumer.poll()) == 20
        orders.partition(0).truncate_to(5)
        for number in range(8):
            orders.append(b"new %d" % number, partition=0)
        with caplog.at_level(logging.WARNING, "logstore.consumer"):
            records = consumer.poll()
        assert offsets(records) == list(range(5, 13))
        assert [record.value for record in records] == [b"new %d" % number for number in range(8)]
        assert "truncated" in caplog.text


def test_truncation_raises_without_a_reset(broker, orders):
    with broker.consumer("orders", auto_offset_reset="none") as consumer:
        consumer.seek_to_beginning()
        assert len(consumer.poll()) == 20
        orders.partition(0).truncate_to(5)
        with pytest.raises(LogTruncatedError) as caught:
            consumer.poll()
        assert caught.value.truncation_offset == 5


def test_damage_is_said_each_time_until_the_caller_seeks_past_it(tmp_path):
    with logstore.open(tmp_path / "data", durability="appended") as broker:
        topic = broker.create_topic("orders", partitions=2, segment_bytes=4096)
        for number in range(200):
            topic.append(b"%d" % number * 30, partition=number % 2)
        segment = topic.partition(0).segments[1]
        damaged = segment.base_offset
        content = bytearray(Path(segment.path).read_bytes())
        content[80] ^= 1
        with open(segment.path, "r+b") as file:
            file.write(content)
        with broker.consumer("orders") as consumer:
            seen = []
            for _ in range(3):
                with pytest.raises(CorruptDataError, match="orders-0") as caught:
                    drain(consumer, seen)
                assert f"offset {damaged}" in caught.value.__notes__[0]
            assert offsets(seen, 0) == list(range(damaged))
            assert offsets(seen, 1) == list(range(100))
            assert consumer.position(("orders", 0)) == damaged
            consumer.seek(("orders", 0), topic.partition(0).segments[2].base_offset)
            assert offsets(consumer.poll(max_records=1000)) == list(range(topic.partition(0).segments[2].base_offset, 100))


def test_records_before_damage_are_handed_out_first(tmp_path):
    with logstore.open(tmp_path / "data", durability="appended") as broker:
        topic = broker.create_topic("orders")
        for number in range(10):
            topic.append(b"%d" % number)
        segment = topic.partition(0).segments[0]
        size = segment.size_bytes // 10
        with open(segment.path, "r+b") as file:
            file.seek(6 * size - 2)
            file.write(b"!")
        with broker.consumer("orders") as consumer:
            assert offsets(consumer.poll()) == [0, 1, 2, 3, 4]
            with pytest.raises(CorruptDataError):
                consumer.poll()
            consumer.seek_to_beginning()
            assert [batch.base_offset for batch in consumer.fetch()] == [0, 1, 2, 3, 4]
            with pytest.raises(CorruptDataError):
                consumer.fetch()
            consumer.seek_to_beginning()
            (columns,) = consumer.fetch_columns()
            assert columns.offsets.tolist() == [0, 1, 2, 3, 4]
            with pytest.raises(CorruptDataError):
                consumer.fetch_columns()
            consumer.seek_to_beginning()
            assert [next(consumer).offset for _ in range(5)] == [0, 1, 2, 3, 4]
            with pytest.raises(CorruptDataError):
                next(consumer)


def test_an_assigned_partition_that_is_deleted_is_said_once(broker, orders):
    broker.create_topic("others").append(b"1")
    with broker.consumer() as consumer:
        consumer.assign([("orders", 0), ("others", 0)])
        broker.delete_topic("orders")
        with pytest.raises(UnknownTopicOrPartitionError, match="orders"):
            consumer.poll()
        assert consumer.assignment() == {TopicPartition("others", 0)}
        assert len(consumer.poll()) == 1


def test_a_topic_deleted_while_waiting_is_said(broker, orders):
    with broker.consumer("orders", auto_offset_reset="latest") as consumer:
        deleting = threading.Timer(0.05, broker.delete_topic, ["orders"])
        deleting.start()
        with pytest.raises(UnknownTopicOrPartitionError, match="deleted"):
            consumer.poll(timeout=120)
        deleting.join()


def test_a_topic_made_anew_is_read_from_its_start(broker, orders):
    with broker.consumer(pattern="orders") as consumer:
        assert len(consumer.poll()) == 20
        broker.delete_topic("orders")
        broker.create_topic("orders").append(b"new")
        assert [record.value for record in consumer.poll()] == [b"new"]
        assert consumer.assignment() == {TopicPartition("orders", 0)}


def test_listeners_are_told_and_may_seek(broker, orders):
    told = []

    class Listener:
        def on_partitions_assigned(self, partitions):
            told.append(("assigned", partitions))
            for partition in partitions:
                consumer.seek(partition, 9)

        def on_partitions_revoked(self, partitions):
            told.append(("revoked", partitions))

    with broker.consumer() as consumer:
        consumer.subscribe(pattern="orders", listener=Listener())
        both = [TopicPartition("orders", 0), TopicPartition("orders", 1)]
        assert told == [("assigned", both)]
        assert [record.offset for record in consumer.poll()] == [9, 9]
        broker.delete_topic("orders")
        assert consumer.poll() == []
        assert told[1:] == [("revoked", both)]


def test_a_listener_that_raises_or_polls_is_heard_of(broker, orders):
    def assigned(partitions):
        consumer.poll()

    with broker.consumer(pattern="none") as consumer:
        consumer.subscribe(pattern="or.*", on_partitions_assigned=lambda partitions: None)
        consumer.poll()
        consumer._listener._assigned = assigned
        broker.alter_topic("orders", partitions=3)
        with pytest.raises(logstore.InvalidRequestError, match="listeners can't poll"):
            consumer.poll()
        assert len(consumer.assignment()) == 3
