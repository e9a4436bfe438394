"""Producers number their batches, partition by partition, and go on correctly after whatever goes wrong."""

from __future__ import annotations

import errno
import shutil

import pytest
from producer_brokers import RefusingBroker

import logstore
from logstore.errors import (
    DeliveryFailedError,
    DiskFullError,
    InvalidConfigError,
    OutOfOrderSequenceError,
    StorageFailureError,
    UnexpectedOffsetError,
)

SECONDS = 120


def batches_of(broker, topic, partition):
    cursor = broker.cursor(topic, partition, 0)
    while (batch := cursor.next_batch()) is not None:
        yield batch


def identities(broker, partition=0, topic="t"):
    return [(each.producer_epoch, each.base_sequence) for each in batches_of(broker, topic, partition)]


@pytest.fixture
def broker(tmp_path):
    with logstore.open(tmp_path / "data", durability="appended") as broker:
        broker.create_topic("t", partitions=2)
        yield broker


def test_batches_are_numbered_by_partition(broker):
    with broker.producer(batch_size=0) as producer:
        for number in range(3):
            producer.send("t", b"%d" % number, partition=0).result(SECONDS)
        producer.send("t", b"a", partition=1).result(SECONDS)
        producer.send("t", b"3", partition=0, expected_offset=3).result(SECONDS)
        producer.send("t", b"4", partition=0).result(SECONDS)
    assert identities(broker) == [(0, number) for number in range(5)]
    assert identities(broker, 1) == [(0, 0)]
    (producer_id,) = {batch.producer_id for batch in batches_of(broker, "t", 0)}
    assert producer_id >= 0


def test_without_idempotence_batches_have_no_numbers(broker):
    with broker.producer(enable_idempotence=False) as producer:
        producer.send("t", b"a", partition=0)
    (batch,) = batches_of(broker, "t", 0)
    assert (batch.producer_id, batch.producer_epoch, batch.base_sequence) == (-1, -1, -1)


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_a_batch_of_several_records_counts_as_many(broker, codec):
    with broker.producer(linger_ms="1h", compression_type=codec) as producer:
        for size in (3, 5, 1):
            futures = [producer.send("t", b"x" * 500, partition=0) for _ in range(size)]
            futures[-1].result(SECONDS)
    assert identities(broker) == [(0, 0), (0, 3), (0, 8)]


def test_a_batch_that_is_tried_again_keeps_its_number(broker):
    between = RefusingBroker(broker)
    with between.producer(batch_size=0, retry_backoff=0.001) as producer:
        producer.send("t", b"a", partition=0).result(SECONDS)
        between.errors = [DiskFullError("/a", "write", errno.ENOSPC)] * 3
        producer.send("t", b"b", partition=0).result(SECONDS)
    assert identities(broker) == [(0, 0), (0, 1)]


def test_what_was_surely_not_appended_leaves_no_gap(broker):
    with broker.producer(linger_ms="1h") as producer:
        producer.send("t", b"a", partition=0)
        refused = producer.send("t", b"b", partition=0, expected_offset=7)
        producer.send("t", b"c", partition=0).result(SECONDS)
        assert isinstance(refused.exception(SECONDS), UnexpectedOffsetError)
    assert identities(broker) == [(0, 0), (0, 1)]


def test_behind_a_batch_of_unknown_fate_another_epoch_begins(broker):
    between = RefusingBroker(broker)
    with between.producer(batch_size=0, linger_ms="1h") as producer:
        producer.send("t", b"a", partition=0).result(SECONDS)
        between.errors = [StorageFailureError("/a", "write", errno.EIO)]
        lost = producer.send("t", b"b", partition=0)
        assert isinstance(lost.exception(SECONDS), StorageFailureError)
        for number in range(2):
            producer.send("t", b"%d" % number, partition=0).result(SECONDS)
        producer.send("t", b"other", partition=1).result(SECONDS)
    assert identities(broker) == [(0, 0), (1, 0), (1, 1)]
    assert identities(broker, 1) == [(0, 0)]


def test_batches_that_wait_behind_a_failure_are_numbered_anew(broker):
    between = RefusingBroker(broker)
    with between.producer(batch_size=0, linger_ms="1h", retry_backoff=0.02, delivery_timeout=0.05) as producer:
        producer.send("t", b"a", partition=0).result(SECONDS)
        between.errors = [DiskFullError("/a", "write", errno.ENOSPC)] * 5
        futures = [producer.send("t", b"%d" % number, partition=0) for number in range(4)]
        outcomes = [future.exception(SECONDS) for future in futures]
        producer.send("t", b"z", partition=0).result(SECONDS)
    assert outcomes[0] is not None
    kept = [b"a", *(b"%d" % number for number in range(4) if outcomes[number] is None), b"z"]
    assert [record.value for record in broker.topic("t").read(partition=0)] == kept
    epochs = {epoch for epoch, _ in identities(broker)}
    assert len(epochs) == 2


def test_an_epoch_that_is_used_up_is_followed_by_another_id(broker):
    between = RefusingBroker(broker)
    with between.producer(batch_size=0, linger_ms="1h") as producer:
        first_id = producer.producer_id
        producer._take_producer_id(first_id, 32767)
        producer.send("t", b"a", partition=0).result(SECONDS)
        between.errors = [StorageFailureError("/a", "write", errno.EIO)]
        assert producer.send("t", b"b", partition=0).exception(SECONDS)
        producer.send("t", b"c", partition=0).result(SECONDS)
    first, second = batches_of(broker, "t", 0)
    assert (first.producer_id, first.producer_epoch) == (first_id, 32767)
    assert second.producer_id > first_id
    assert (second.producer_epoch, second.base_sequence) == (0, 0)


def test_a_log_that_lost_records_under_its_producer_is_noticed(broker):
    with broker.producer(batch_size=0, linger_ms="1h") as producer:
        for number in range(3):
            producer.send("t", b"%d" % number, partition=0).result(SECONDS)
        broker.topic("t").partition(0).truncate_to(1)
        assert isinstance(producer.send("t", b"x", partition=0).exception(SECONDS), OutOfOrderSequenceError)
        assert producer.send("t", b"y", partition=0).result(SECONDS).offset == 1
    assert identities(broker) == [(0, 0), (1, 0)]


@pytest.mark.fault(42, "producers sent twice, transactions cut short")
def test_ids_are_never_given_twice(tmp_path):
    seen: list[int] = []
    for _ in range(3):
        with logstore.open(tmp_path / "data") as broker:
            broker.create_topic("t", exist_ok=True)
            for _ in range(3):
                with broker.producer() as producer:
                    producer.send("t", b"")
                    seen.append(producer.producer_id)
            shutil.copytree(tmp_path / "data", tmp_path / f"killed{len(seen)}")
    for killed in sorted(tmp_path.glob("killed*")):
        (killed / ".lock").unlink(missing_ok=True)
        with logstore.open(killed) as broker, broker.producer() as producer:
            assert producer.producer_id not in seen[: int(killed.name[6:])]
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize("content", [None, b"", b"0\nx\n", b"1\n5\n", b"\xff\xfe"])
def test_without_the_file_ids_go_on_behind_those_in_the_logs(tmp_path, content, caplog):
    with logstore.open(tmp_path / "data") as broker:
        broker.create_topic("t")
        with broker.producer() as producer:
            producer._take_producer_id(4321, 0)
            producer.send("t", b"")
    path = tmp_path / "data" / "logstore.producer-ids"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with logstore.open(tmp_path / "data") as broker, broker.producer() as producer:
        assert producer.producer_id == 4322
    assert ("unreadable" in caplog.text) is (content is not None)


def test_settings_that_contradict_are_refused(broker):
    with pytest.raises(InvalidConfigError, match="rest on idempotence"):
        broker.producer(transactional_id="x", enable_idempotence=False)
    with pytest.raises(InvalidConfigError, match="at least one character"):
        broker.producer(transactional_id="")
    with pytest.raises(InvalidConfigError, match="True or False"):
        broker.producer(enable_idempotence=1)


def test_failures_are_reported_as_before(broker):
    between = RefusingBroker(broker)
    producer = between.producer(batch_size=0, linger_ms="1h")
    between.errors = [StorageFailureError("/a", "write", errno.EIO)]
    producer.send("t", b"b", partition=0)
    with pytest.raises(DeliveryFailedError):
        producer.close()
