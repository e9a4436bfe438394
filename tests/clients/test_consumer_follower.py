"""Consumers of a broker that was opened with ``read_only=True``, beside the one that writes."""

from __future__ import annotations

import threading
import time

import pytest

import logstore
from logstore import ClosedError, TopicPartition, UnknownTopicOrPartitionError


@pytest.fixture
def writer(tmp_path):
    with logstore.open(tmp_path / "data", durability="appended") as opened:
        opened.create_topic("orders", partitions=2, segment_bytes=4096)
        yield opened


@pytest.fixture
def follower(writer):
    with logstore.open(writer.path, read_only=True) as opened:
        yield opened


def follower_threads():
    return [thread for thread in threading.enumerate() if thread.name == "logstore-follower"]


def test_it_sees_what_is_appended_across_rolls(writer, follower):
    orders = writer["orders"]
    with follower.consumer("orders") as consumer:
        for number in range(100):
            orders.append(b"%d" % number * 50, partition=number % 2)
            (record,) = consumer.poll(timeout=120)
            assert (record.partition, record.offset) == (number % 2, number // 2)
    assert len(orders.partition(0).segments) > 1


def test_it_sleeps_until_something_is_appended(writer, follower):
    with follower.consumer() as consumer:
        consumer.assign([("orders", 1)])
        before = time.process_time()
        appender = threading.Timer(0.4, writer["orders"].append, [b"late"], {"partition": 1})
        appender.start()
        (record,) = consumer.poll(timeout=120)
        appender.join()
        assert record.value == b"late"
        assert time.process_time() - before < 0.1


def test_latest_is_the_end_the_writer_knows(writer, follower):
    writer["orders"].append(b"before", partition=0)
    with follower.consumer("orders", auto_offset_reset="latest") as consumer:
        assert consumer.poll() == []
        assert consumer.end_offsets()[TopicPartition("orders", 0)] == 1
        writer["orders"].append(b"after", partition=0)
        assert [record.value for record in consumer.poll(timeout=120)] == [b"after"]


def test_it_sees_topics_and_partitions_come_and_go(writer, follower):
    with follower.consumer(pattern="or.*") as consumer:
        consumer.poll()
        writer.alter_topic("orders", partitions=3)
        writer["orders"].append(b"third", partition=2)
        assert [record.value for record in consumer.poll(timeout=120)] == [b"third"]
        writer.create_topic("organs").append(b"organ")
        assert [record.value for record in consumer.poll(timeout=120)] == [b"organ"]
        writer.delete_topic("orders")
        deadline = time.monotonic() + 120
        while consumer.assignment() != {TopicPartition("organs", 0)} and time.monotonic() < deadline:
            assert consumer.poll(timeout=0.05) == []
        assert consumer.assignment() == {TopicPartition("organs", 0)}


def test_a_deleted_topic_is_said(writer, follower):
    with follower.consumer("orders") as consumer:
        consumer.poll()
        writer.delete_topic("orders")
        with pytest.raises(UnknownTopicOrPartitionError, match="deleted"):
            consumer.poll(timeout=120)


def test_a_topic_made_anew_is_read_from_its_start(writer, follower):
    with follower.consumer(pattern="orders") as consumer:
        writer["orders"].append(b"old", partition=0)
        assert len(consumer.poll(timeout=120)) == 1
        writer.delete_topic("orders")
        writer.create_topic("orders").append(b"new")
        assert [record.value for record in consumer.poll(timeout=120)] == [b"new"]


def test_the_thread_ends_with_the_broker(writer):
    before = len(follower_threads())
    follower = logstore.open(writer.path, read_only=True)
    assert len(follower_threads()) == before
    consumer = follower.consumer("orders")
    assert len(follower_threads()) == before + 1
    closing = threading.Timer(0.05, follower.close)
    closing.start()
    with pytest.raises(ClosedError):
        consumer.poll(timeout=120)
    closing.join()
    consumer.close()
    assert len(follower_threads()) == before
