"""A producer whose broker is slow, refuses, or is interrupted; and a disk without space."""

from __future__ import annotations

import contextlib
import errno
import shutil
import subprocess
import threading
import time

import pytest
from producer_brokers import GatedBroker, RefusingBroker

import logstore
from logstore.errors import DeliveryFailedError, DiskFullError, RequestTimeoutError, StorageFailureError

SECONDS = 120


def disk_full():
    return DiskFullError("/a/b.log", "write", errno.ENOSPC)


def broken():
    return StorageFailureError("/a/b.log", "write", errno.EIO)


@pytest.fixture
def broker(tmp_path):
    with logstore.open(tmp_path / "data", durability="appended") as broker:
        broker.create_topic("orders", partitions=2)
        yield broker


def values_of(broker, partition):
    return [record.value for record in broker.topic("orders").read(partition=partition)]


def test_retriable_refusals_are_tried_again_in_order(broker):
    between = RefusingBroker(broker)
    between.errors = [disk_full(), disk_full(), None, disk_full()]
    with between.producer(linger_ms="1h", retry_backoff=0.001, batch_size=0) as producer:
        futures = [producer.send("orders", b"%d" % i, partition=0) for i in range(5)]
        assert [future.result(SECONDS).offset for future in futures] == [0, 1, 2, 3, 4]
    assert between.refusals == 3
    assert values_of(broker, 0) == [b"0", b"1", b"2", b"3", b"4"]


def test_another_partition_does_not_wait_for_one_that_is_refused(broker):
    between = RefusingBroker(broker)
    with between.producer(linger_ms="1h", retry_backoff=60, delivery_timeout=120) as producer:
        between.errors = [disk_full()]
        waits = producer.send("orders", b"a", partition=0)
        with pytest.raises(RequestTimeoutError, match="asked again"):
            waits.result(0.01)
        assert producer.send("orders", b"b", partition=1).result(SECONDS).offset == 0
        assert not waits.done()
        with pytest.raises(DeliveryFailedError, match=r"1 records were not delivered \(orders-0: 1\)") as caught:
            producer.close(timeout=0)
    assert caught.value.counts == {("orders", 0): 1}
    assert isinstance(waits.exception(), RequestTimeoutError)
    assert values_of(broker, 0) == []


def test_what_is_refused_too_long_is_given_up(broker):
    between = RefusingBroker(broker)
    between.errors = [disk_full() for _ in range(1000)]
    now_ms = [1_000_000]
    with between.producer(linger_ms=0, retry_backoff=0.005, delivery_timeout=1, clock=lambda: now_ms[0]) as producer:
        future = producer.send("orders", b"a", partition=0)
        while between.refusals < 3:
            now_ms[0] += 10
            time.sleep(0.001)
        assert not future.done()
        now_ms[0] += 1000
        error = future.exception(SECONDS)
        assert isinstance(error, RequestTimeoutError)
        assert "delivery_timeout (1.0 s)" in str(error)
        assert "No space left" in str(error)
        assert isinstance(error.__cause__, DiskFullError)
        between.errors.clear()
        assert producer.send("orders", b"b", partition=0).result(SECONDS).offset == 0


def test_other_refusals_fail_their_batch_at_once(broker):
    between = RefusingBroker(broker)
    between.errors = [broken()]
    with between.producer(linger_ms="1h") as producer:
        lost = [producer.send("orders", b"%d" % i, partition=0) for i in range(3)]
        errors = [future.exception(SECONDS) for future in lost]
        assert all(isinstance(error, StorageFailureError) for error in errors)
        for future in lost:
            with pytest.raises(StorageFailureError):
                future.result()
        assert "failed" in repr(lost[0])
        assert producer.send("orders", b"next", partition=0).result(SECONDS).offset == 0


def test_failures_nobody_asked_for_are_raised_by_flush_once(broker):
    between = RefusingBroker(broker)
    with between.producer(linger_ms="1h") as producer:
        between.errors = [broken()]
        lost = [producer.send("orders", b"%d" % i, partition=0) for i in range(3)]
        lost[1].exception()
        for _ in range(4):
            producer.send("orders", b"x", partition=1)
        with pytest.raises(DeliveryFailedError, match=r"2 records .*orders-0: 2.*Input/output") as caught:
            producer.flush()
        assert isinstance(caught.value.__cause__, StorageFailureError)
        assert caught.value.first_error is caught.value.__cause__
        producer.flush()
    assert values_of(broker, 1) == [b"x"] * 4


def test_failures_that_callbacks_were_told_are_not_raised_again(broker):
    between = RefusingBroker(broker)
    between.errors = [broken()]
    outcomes = []
    with between.producer(on_delivery=lambda *outcome: outcomes.append(outcome)) as producer:
        for _ in range(3):
            producer.send("orders", b"x", partition=0)
    assert [type(error) for error, _ in outcomes] == [StorageFailureError] * 3
    assert {metadata for _, metadata in outcomes} == {None}


def test_counts_of_failures_stay_right_when_there_are_many(broker):
    between = RefusingBroker(broker)
    between.errors = [broken() for _ in range(1500)]
    producer = between.producer(batch_size=0, linger_ms="1h")
    for _ in range(1500):
        producer.send("orders", b"x", partition=0)
    with pytest.raises(DeliveryFailedError) as caught:
        producer.close()
    assert caught.value.counts == {("orders", 0): 1500}


def test_a_refused_flush_fails_all_that_wait_for_it(broker):
    between = RefusingBroker(broker)
    between.flush_errors = [broken()]
    with between.producer(durability="flushed", batch_size=0, linger_ms="1h") as producer:
        future = producer.send("orders", b"a", partition=0)
        assert isinstance(future.exception(SECONDS), StorageFailureError)
        assert producer.send("orders", b"b", partition=0).result(SECONDS).offset == 1
    assert between.refusals == 0


def test_one_flush_acknowledges_all_batches_before_it(broker):
    between = GatedBroker(broker, produce=False)
    with between.producer(durability="flushed", batch_size=0, linger_ms="1h") as producer:
        futures = [producer.send("orders", b"%d" % i, partition=0) for i in range(2)]
        assert between.is_reached.wait(SECONDS)
        futures += [producer.send("orders", b"%d" % i, partition=0) for i in range(100)]
        assert len(between.produced) >= 100
        assert not any(future.done() for future in futures)
        between.gate.set()
        assert [future.result(SECONDS).offset for future in futures] == list(range(102))
    assert between.flushes <= 4


@pytest.mark.parametrize("where", ["produce", "flush"])
@pytest.mark.fault(38, "a slow disk")
def test_memory_is_bounded_and_sends_wait_for_room(broker, where):
    between = GatedBroker(broker, produce=where == "produce", flush=where == "flush")
    producer = between.producer(
        durability="flushed", buffer_memory=20_000, batch_size=4000, linger_ms=0, max_block=0.05, retry_backoff=0.01
    )
    sent = []
    blocker = None
    if where == "produce":  # somebody else is in the middle of it, so that nobody can hand over here
        blocker = threading.Thread(target=lambda: producer.send("orders", bytes(10), partition=0).result(SECONDS))
        blocker.start()
        assert between.is_reached.wait(SECONDS)
    with pytest.raises(RequestTimeoutError, match=r"was not taken"):
        send_without_end(producer, sent)
    assert 15 <= len(sent) <= 19
    assert producer._buffered_bytes <= 20_000
    timer = threading.Timer(0.02, between.gate.set)
    timer.start()
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            sent.append(producer.send("orders", b"last", partition=0))
            break
        except RequestTimeoutError:
            assert time.monotonic() < deadline
    producer.close()
    timer.join()
    if blocker is not None:
        blocker.join()
    assert all(future.done() for future in sent)
    assert producer._buffered_bytes == 0
    assert values_of(broker, 0)[-1] == b"last"


def test_a_send_that_waits_for_room_goes_on_when_there_is(broker):
    between = GatedBroker(broker, produce=False)
    producer = between.producer(durability="flushed", buffer_memory=3000, linger_ms=0, max_block=SECONDS)
    for _ in range(2):
        producer.send("orders", bytes(1400), partition=0)
    done = threading.Event()

    def send():
        producer.send("orders", bytes(1400), partition=0)
        done.set()

    thread = threading.Thread(target=send)
    thread.start()
    assert between.is_reached.wait(SECONDS)
    assert not done.wait(0.05)
    between.gate.set()
    assert done.wait(SECONDS)
    thread.join()
    producer.close()


def test_closing_frees_those_that_wait_for_room(broker):
    between = GatedBroker(broker, produce=False)
    producer = between.producer(durability="flushed", buffer_memory=3000, linger_ms=0, max_block=60)
    producer.send("orders", bytes(2900), partition=0)
    failures = []

    def send():
        try:
            producer.send("orders", bytes(1400), partition=0)
        except logstore.ClosedError as error:
            failures.append(error)

    thread = threading.Thread(target=send)
    thread.start()
    assert between.is_reached.wait(SECONDS)
    closer = threading.Thread(target=producer.close)
    closer.start()
    thread.join(SECONDS)
    assert len(failures) == 1
    between.gate.set()
    closer.join(SECONDS)
    assert not closer.is_alive()


def test_a_record_larger_than_the_memory_is_refused(broker):
    with broker.producer(buffer_memory=1000) as producer:
        with pytest.raises(logstore.RecordTooLargeError, match="buffer_memory"):
            producer.send("orders", bytes(1000))
        producer.send("orders", bytes(900), partition=0)
        producer.send("orders", bytes(900), partition=1)


def test_many_open_batches_are_handed_over_when_they_fill_the_memory(tmp_path):
    with logstore.open(tmp_path / "data", durability="appended") as broker:
        topic = broker.create_topic("wide", partitions=50)
        with broker.producer(buffer_memory=10_000, linger_ms="1h") as producer:
            for number in range(500):
                producer.send("wide", bytes(100), partition=number % 50)
                assert producer._buffered_bytes <= 10_000
        assert len(list(topic.read())) == 500


def test_an_interrupted_hand_over_neither_loses_nor_doubles(broker):
    """Ctrl-C between the append and its return, and before the append."""

    class Interrupted(RefusingBroker):
        def produce(self, topic, partition, batch, **how):
            placed = super().produce(topic, partition, batch, **how)
            if self.interrupts_after:
                self.interrupts_after = False
                raise KeyboardInterrupt
            return placed

        interrupts_after = True

    between = Interrupted(broker)
    with between.producer(linger_ms="1h") as producer:
        first = producer.send("orders", b"a", partition=0)
        with pytest.raises(KeyboardInterrupt):
            first.result()
        assert first.result(SECONDS).offset == 0, "it is in the log, and known to be"
        between.errors = [KeyboardInterrupt()]
        second = producer.send("orders", b"b", partition=0)
        with pytest.raises(KeyboardInterrupt):
            second.result()
        assert second.result(SECONDS).offset == 1
    assert values_of(broker, 0) == [b"a", b"b"]


def test_an_interrupted_send_has_not_taken_its_record(broker):
    between = RefusingBroker(broker)
    with between.producer(linger_ms="1h", batch_size=100) as producer:
        first = producer.send("orders", bytes(60), partition=0)
        between.errors = [KeyboardInterrupt()]
        with pytest.raises(KeyboardInterrupt):
            producer.send("orders", b"interrupted", partition=0)
        assert first.result(SECONDS).offset == 0
        producer.send("orders", b"again", partition=0)
    assert values_of(broker, 0) == [bytes(60), b"again"]


def test_waiting_for_a_record_within_its_own_delivery_is_refused(broker):
    """As a signal handler could that runs just then."""
    waits = []

    class Reentrant(RefusingBroker):
        def before_produce(self, topic, partition, batch):
            if not waits:
                waits.append(producer.send("orders", b"from within", partition=0))
                with pytest.raises(logstore.InvalidRequestError, match="signal handler"):
                    waits[0].result()

    with Reentrant(broker).producer(linger_ms="1h") as producer:
        assert producer.send("orders", b"a", partition=0).result(SECONDS).offset == 0
        assert waits[0].result(SECONDS).offset == 1
    assert values_of(broker, 0) == [b"a", b"from within"]


def test_a_timeout_leaves_the_record_queued(broker):
    between = GatedBroker(broker, produce=False)
    with between.producer(durability="flushed", linger_ms="1h") as producer:
        future = producer.send("orders", b"a", partition=0)
        began = time.monotonic()
        for wait in (future.result, future.exception, producer.flush):
            with pytest.raises(RequestTimeoutError):
                wait(0.01)
        assert time.monotonic() - began < 5
        between.gate.set()
        assert future.result(SECONDS).offset == 0


def test_batches_are_not_changed_behind_a_broker_that_keeps_them(broker):
    """Their memory is used again only where nobody else has it."""
    kept = []

    class Keeper(RefusingBroker):
        def produce(self, topic, partition, batch, **how):
            placed = super().produce(topic, partition, batch, **how)
            kept.append((batch, bytes(batch)))
            return placed

    with Keeper(broker).producer(linger_ms="1h", batch_size=2000) as producer:
        for number in range(200):
            producer.send("orders", b"%03d" % number * 30, partition=0)
    assert len(kept) > 5
    assert all(bytes(batch) == then for batch, then in kept)
    assert [record.value for batch, _ in kept for record in batch] == values_of(broker, 0)


def send_without_end(producer, sent):
    while True:
        sent.append(producer.send("orders", bytes(1000), partition=0))


def fill(path):
    with open(path, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


@pytest.fixture
def small_disk(tmp_path):
    path = tmp_path / "disk"
    path.mkdir()
    mount = shutil.which("mount")
    if mount is None:
        pytest.skip("NOT TESTED: a producer on a full disk; there is no mount command")
    done = subprocess.run([mount, "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(path)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"NOT TESTED: a producer on a full disk; mounting a tmpfs: {done.stderr.strip()}")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.mark.parametrize("time_type", ["CreateTime", "LogAppendTime"])
@pytest.mark.fault(9, "disk full, no inodes, over quota")
def test_a_full_disk_delays_and_loses_nothing(small_disk, time_type):
    with logstore.open(small_disk / "data", durability="appended") as broker:
        topic = broker.create_topic("orders", message_timestamp_type=time_type)
        with broker.producer(retry_backoff=0.005, linger_ms=1, batch_size=3000) as producer:
            producer.send("orders", b"first").result(SECONDS)
            fill(small_disk / "filler")
            futures = [producer.send("orders", b"%03d" % number * 100) for number in range(100)]
            with pytest.raises(RequestTimeoutError):
                futures[-1].result(0.05)
            (small_disk / "filler").unlink()
            assert [future.result(SECONDS).offset for future in futures] == list(range(1, 101))
        assert [record.value for record in topic.read()] == [b"first", *(b"%03d" % i * 100 for i in range(100))]
