"""Any course of sends, refusals and waits: each record's fate is decided once, and the log agrees with it."""

from __future__ import annotations

import contextlib
import errno
import gc
import sys
import tempfile
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from producer_brokers import RefusingBroker

import logstore
from logstore._native.record_future import RecordFuture
from logstore.errors import DeliveryFailedError, DiskFullError, StorageFailureError

PARTITIONS = 2

STEPS = st.one_of(
    st.tuples(st.just("send"), st.integers(0, PARTITIONS - 1), st.integers(1, 400)),
    st.tuples(st.just("expect"), st.integers(0, PARTITIONS - 1), st.integers(0, 12)),
    st.tuples(st.just("refuse"), st.sampled_from(["disk full", "broken", "flush"]), st.integers(1, 3)),
    st.tuples(st.just("wait"), st.integers(0, 30), st.none()),
    st.tuples(st.just("flush"), st.none(), st.none()),
)


@settings(max_examples=40, deadline=None)
@given(
    steps=st.lists(STEPS, max_size=40),
    durability=st.sampled_from(["appended", "flushed"]),
    batch_size=st.sampled_from([0, 500, 65536]),
    linger_ms=st.sampled_from([0, 3_600_000]),
    codec=st.sampled_from([None, "zstd"]),
)
def test_each_record_has_one_fate_and_the_log_agrees(steps, durability, batch_size, linger_ms, codec):
    with tempfile.TemporaryDirectory() as directory, logstore.open(directory, durability=durability) as broker:
        topic = broker.create_topic("t", partitions=PARTITIONS)
        between = RefusingBroker(broker)
        producer = between.producer(
            batch_size=batch_size, linger_ms=linger_ms, compression_type=codec, buffer_memory=4000, retry_backoff=0.0005
        )
        sent: list[tuple[int, bytes, RecordFuture]] = []
        told: dict[int, list] = {}
        for what, first, second in steps:
            number = len(sent)
            told_here = told.setdefault(number, [])
            if what == "send":
                value = b"%d/" % number + bytes(second)
                future = producer.send("t", value, partition=first, on_delivery=lambda *o, to=told_here: to.append(o))
                sent.append((first, value, future))
            elif what == "expect":
                value = b"%d" % number
                future = producer.send(
                    "t", value, partition=first, expected_offset=second, on_delivery=lambda *o, to=told_here: to.append(o)
                )
                sent.append((first, value, future))
            elif what == "refuse" and first == "flush":
                between.flush_errors += [StorageFailureError("/a", "fdatasync", errno.EIO)] * second
            elif what == "refuse":
                cls = DiskFullError if first == "disk full" else StorageFailureError
                between.errors += [cls("/a", "write", errno.ENOSPC)] * second
            elif what == "wait" and sent:
                sent[first % len(sent)][2].exception(120)
            elif what == "flush":
                producer.flush(120)  # the callbacks were told of failures
        producer.close()
        for number, (partition, value, future) in enumerate(sent):
            ((error, metadata),) = told[number]
            assert future.done()
            assert error is future.exception()
            if error is None:
                assert metadata == future.result()
                found = next(iter(topic.read(start=metadata.offset, stop=metadata.offset + 1, partition=partition)))
                assert (found.value, found.timestamp) == (value, metadata.timestamp)
        for partition in range(PARTITIONS):
            values = [record.value for record in topic.read(partition=partition)]
            order = [value for place, value, _ in sent if place == partition]
            assert values == [value for value in order if value in set(values)], "in the order sent, none twice"
            delivered = {value for place, value, future in sent if place == partition and future.exception() is None}
            assert delivered <= set(values)
        assert producer._buffered_bytes == 0


@contextlib.contextmanager
def collecting_always():
    """Has whatever allocates what the garbage collector sees give way to other threads."""

    def give_way(phase: str, info: dict) -> None:
        time.sleep(0)

    before, interval = gc.get_threshold(), sys.getswitchinterval()
    gc.freeze()  # so that each collection is short
    gc.callbacks.append(give_way)
    gc.set_threshold(1, 100, 100)
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
        gc.set_threshold(*before)
        gc.callbacks.remove(give_way)
        gc.unfreeze()


@pytest.mark.parametrize("collector", [contextlib.nullcontext, collecting_always])
def test_threads_send_while_others_wait_flush_and_refuse(collector, tmp_path):
    with collector(), logstore.open(tmp_path / "data", durability="flushed") as broker:
        topic = broker.create_topic("t", partitions=PARTITIONS, segment_bytes="128KiB")
        between = RefusingBroker(broker)
        producer = between.producer(batch_size=1500, linger_ms=1, buffer_memory=20_000, retry_backoff=0.0005)
        outcomes: dict[bytes, list] = {}
        done: list = []
        stop = threading.Event()
        failures: list[BaseException] = []

        def send(writer):
            futures = []
            for number in range(1500):
                value = b"%d/%d" % (writer, number)
                told = outcomes.setdefault(value, [])
                futures.append(
                    producer.send("t", value, partition=writer % 2, on_delivery=lambda *o, to=told: to.append(o))
                )
                futures[-1].add_done_callback(done.append)
                if number % 100 == 0:
                    futures[number // 2].exception(120)

        def disturb():
            while not stop.wait(0.002):
                between.errors.append(DiskFullError("/a", "write", errno.ENOSPC))
                try:
                    producer.flush(120)
                except DeliveryFailedError as error:
                    failures.append(error)

        threads = [threading.Thread(target=send, args=(writer,)) for writer in range(4)]
        disturber = threading.Thread(target=disturb)
        for thread in (*threads, disturber):
            thread.start()
        for thread in threads:
            thread.join(120)
        stop.set()
        disturber.join(120)
        producer.close()
        assert not failures
        assert {len(told) for told in outcomes.values()} == {1}
        assert len(set(done)) == len(done) == len(outcomes)
        assert {told[0][0] for told in outcomes.values()} == {None}
        numbers: dict[bytes, list[int]] = {}
        for record in topic.read():
            writer, number = record.value.split(b"/")
            numbers.setdefault(writer, []).append(int(number))
            assert outcomes[record.value][0][1][1:3] == (record.partition, record.offset)
        assert numbers == {b"%d" % writer: list(range(1500)) for writer in range(4)}
