"""A consumer without a group: what it reads, where it stands, what it says when it can't."""

from __future__ import annotations

import threading
import time

import pytest

import logstore
from logstore import (
    ClosedError,
    InvalidConfigError,
    InvalidRequestError,
    TopicPartition,
    UnknownTopicOrPartitionError,
)


@pytest.fixture
def broker(tmp_path):
    with logstore.open(tmp_path / "data", durability="appended") as opened:
        yield opened


@pytest.fixture
def orders(broker):
    topic = broker.create_topic("orders", partitions=3)
    for number in range(30):
        topic.append(b"%d" % number, partition=number % 3)
    return topic


def values(records):
    return [int(record.value) for record in records]


def test_iteration_hands_out_every_partition_in_order(broker, orders):
    with broker.consumer("orders", consumer_timeout=0) as consumer:
        records = list(consumer)
    assert sorted(values(records)) == list(range(30))
    for partition in range(3):
        assert [record.offset for record in records if record.partition == partition] == list(range(10))


def test_poll_returns_what_there_is_up_to_a_limit(broker, orders):
    with broker.consumer("orders") as consumer:
        first = consumer.poll(max_records=7)
        assert len(first) == 7
        assert len(consumer.poll()) == 23
        assert consumer.poll() == []
        started = time.monotonic()
        assert consumer.poll(timeout=0.05) == []
        assert time.monotonic() - started >= 0.05


def test_poll_has_a_default_limit(broker, orders):
    with broker.consumer("orders", max_poll_records=4) as consumer:
        assert [len(consumer.poll()) for _ in range(9)] == [4] * 7 + [2, 0]


@pytest.mark.parametrize("limit", [0, -1, True, 1.5, "7"])
def test_a_limit_on_records_is_a_positive_int(broker, orders, limit):
    with broker.consumer("orders") as consumer, pytest.raises(InvalidRequestError, match="max_records"):
        consumer.poll(max_records=limit)


@pytest.mark.parametrize("timeout", [-1, float("nan"), "1", True])
def test_a_timeout_is_seconds(broker, orders, timeout):
    with broker.consumer("orders") as consumer, pytest.raises(InvalidRequestError, match="timeout"):
        consumer.poll(timeout)


def test_positions_are_exact_wherever_reading_stops(broker, orders):
    with broker.consumer("orders") as consumer:
        seen = dict.fromkeys(range(3), 0)
        for _ in range(30):
            record = next(consumer)
            assert record.offset == seen[record.partition]
            seen[record.partition] += 1
            assert {number: consumer.position(("orders", number)) for number in range(3)} == seen


def test_poll_wakes_for_an_append(broker, orders):
    with broker.consumer("orders", auto_offset_reset="latest") as consumer:
        appender = threading.Timer(0.05, orders.append, [b"late"])
        appender.start()
        (record,) = consumer.poll(timeout=120)
        appender.join()
        assert record.value == b"late"


def test_latest_is_the_end_when_the_consumer_was_made(broker, orders):
    with broker.consumer("orders", auto_offset_reset="latest") as consumer:
        orders.append(b"99", partition=1)
        assert values(consumer.poll()) == [99]


def test_no_reset_asks_where_to_begin(broker, orders):
    with broker.consumer("orders", auto_offset_reset="none") as consumer:
        with pytest.raises(logstore.NoOffsetForPartitionError, match="seek"):
            consumer.poll()
        for partition in consumer.assignment():
            consumer.seek(partition, 9)
        assert sorted(values(consumer.poll())) == [27, 28, 29]


def test_wakeup_ends_a_wait(broker, orders):
    with broker.consumer("orders", auto_offset_reset="latest") as consumer:
        threading.Timer(0.05, consumer.wakeup).start()
        assert consumer.poll(timeout=120) == []
        consumer.wakeup()
        assert consumer.poll(timeout=120) == []
        threading.Timer(0.05, consumer.wakeup).start()
        assert list(consumer) == []
        orders.append(b"99")
        assert values(consumer.poll(timeout=120)) == [99]


def test_partitions_that_appear_are_read_from_their_start(broker, orders):
    with broker.consumer("orders", auto_offset_reset="latest") as consumer:
        broker.alter_topic("orders", partitions=4)
        orders.append(b"99", partition=3)
        assert values(consumer.poll(timeout=120)) == [99]
        assert TopicPartition("orders", 3) in consumer.assignment()


def test_a_pattern_takes_topics_as_they_come(broker, orders):
    with broker.consumer(pattern="or.*s") as consumer:
        assert consumer.subscription() == {"orders"}
        consumer.poll()
        broker.create_topic("organs").append(b"98")
        broker.create_topic("organ").append(b"97")
        assert values(consumer.poll(timeout=120)) == [98]
        assert consumer.subscription() == {"orders", "organs"}
        broker.delete_topic("orders")
        assert consumer.poll() == []
        assert consumer.assignment() == {TopicPartition("organs", 0)}


def test_a_topic_must_exist_and_the_nearest_is_named(broker, orders):
    with pytest.raises(UnknownTopicOrPartitionError, match="orders"):
        broker.consumer("ordrs")


def test_an_unknown_option_is_answered_with_the_nearest(broker):
    with pytest.raises(InvalidConfigError, match="did you mean group"):
        broker.consumer(grop="billing")


@pytest.mark.parametrize(
    "options",
    [
        {"auto_offset_reset": "first"},
        {"max_poll_records": 0},
        {"fetch_max_bytes": "much"},
        {"isolation_level": "serializable"},
        {"session_timeout": 0},
        {"consumer_timeout": -1},
        {"group": ""},
        {"group_instance_id": "a"},
        {"partition_assignment_strategy": ()},
    ],
    ids=lambda options: next(iter(options)),
)
def test_options_are_checked(broker, options):
    with pytest.raises(InvalidRequestError, match=next(iter(options))):
        broker.consumer(**options)


def test_a_consumer_that_reads_nothing_says_so(broker):
    with broker.consumer() as consumer, pytest.raises(InvalidRequestError, match="subscribe"):
        consumer.poll()


def test_assign_reads_exactly_these(broker, orders):
    with broker.consumer() as consumer:
        consumer.assign([("orders", 1), TopicPartition("orders", 2)])
        assert consumer.subscription() == set()
        assert len(consumer.poll()) == 20
        consumer.assign([("orders", 1), ("orders", 0)])
        assert consumer.position(("orders", 1)) == 10
        assert {record.partition for record in consumer.poll()} == {0}
        with pytest.raises(InvalidRequestError, match="unsubscribe"):
            consumer.subscribe("orders")
        with pytest.raises(UnknownTopicOrPartitionError):
            consumer.assign([("orders", 3)])
        consumer.unsubscribe()
        assert consumer.assignment() == set()
        consumer.subscribe("orders")
        with pytest.raises(InvalidRequestError, match="unsubscribe"):
            consumer.assign([("orders", 1)])


def test_closing_ends_it(broker, orders):
    consumer = broker.consumer("orders")
    next(consumer)
    consumer.close()
    consumer.close()
    for call in (consumer.poll, consumer.fetch, consumer.fetch_columns, consumer.__next__, consumer.seek_to_end):
        with pytest.raises(ClosedError, match="closed"):
            call()


def test_closing_the_broker_wakes_and_ends_it(tmp_path):
    broker = logstore.open(tmp_path / "data")
    broker.create_topic("orders")
    consumer = broker.consumer("orders")
    closing = threading.Timer(0.05, broker.close)
    closing.start()
    with pytest.raises(ClosedError, match="broker"):
        consumer.poll(timeout=120)
    closing.join()
    with pytest.raises(ClosedError, match="broker"):
        next(consumer)
    consumer.close()


def test_a_consumer_left_open_warns_and_lets_go(broker, orders):
    consumer = broker.consumer("orders")
    with pytest.warns(ResourceWarning, match="not closed"):
        del consumer
    orders.append(b"1")


def test_a_second_thread_is_refused(broker, orders):
    with broker.consumer("orders", auto_offset_reset="latest") as consumer:
        waiting = threading.Thread(target=consumer.poll, args=[20])
        waiting.start()
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                consumer.seek_to_end()
            except InvalidRequestError as error:
                assert "one thread" in str(error)
                break
        for call in (consumer.poll, consumer.__next__, consumer.close):
            with pytest.raises(InvalidRequestError, match="one thread"):
                call()
        consumer.wakeup()
        waiting.join()
        assert consumer.poll() == []
