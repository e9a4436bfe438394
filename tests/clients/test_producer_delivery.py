"""What becomes of records a producer takes: batches, offsets, order, callbacks, errors, the end."""

from __future__ import annotations

import threading
import time

import pytest

import logstore
from logstore.clients.producer import Producer
from logstore.model import RecordMetadata

SECONDS = 120  # longer than anything here takes


@pytest.fixture(params=["appended", "flushed"])
def broker(tmp_path, request):
    with logstore.open(tmp_path / "data", durability=request.param) as broker:
        yield broker


def values_of(broker, topic="orders", partition=None):
    return [record.value for record in broker.topic(topic).read(partition=partition)]


def test_a_future_tells_where_its_record_stands(broker):
    topic = broker.create_topic("orders", partitions=3)
    with broker.producer() as producer:
        future = producer.send("orders", b"total: 12", b"sarah", [("trace", b"a1"), ("trace", None)], timestamp=1234)
        metadata = future.result(SECONDS)
        assert metadata == RecordMetadata("orders", logstore.partition_for_key(b"sarah", 3), 0, 1234)
        assert isinstance(metadata, RecordMetadata)
        assert future.done()
        assert future.exception() is None
        assert "offset=0" in repr(future)
    (record,) = topic.read()
    assert (record.key, record.value, record.timestamp) == (b"sarah", b"total: 12", 1234)
    assert record.headers == [("trace", b"a1"), ("trace", None)]


def test_records_of_a_batch_have_rising_offsets_and_their_own_times(broker):
    topic = broker.create_topic("orders")
    topic.append(b"before")
    with broker.producer(linger_ms="1h") as producer:
        futures = [producer.send("orders", b"%d" % i, timestamp=1000 - i) for i in range(20)]
        assert not any(future.done() for future in futures), "they linger"
        assert [future.result(SECONDS)[2:] for future in reversed(futures)] == [
            (20 - i, 1000 - 19 + i) for i in range(20)
        ]
    batches = {record.offset for record in topic.read()}
    assert batches == set(range(21))


def test_result_hands_over_at_once_instead_of_lingering(broker):
    broker.create_topic("orders")
    with broker.producer(linger_ms="1h") as producer:
        futures = [producer.send("orders", b"%d" % i) for i in range(3)]
        began = time.monotonic()
        assert futures[0].result(SECONDS).offset == 0
        assert futures[2].done(), "the whole batch went"
        assert time.monotonic() - began < 5


def test_lingering_batches_are_handed_over_by_themselves(broker):
    broker.create_topic("orders", partitions=2)
    with broker.producer(linger_ms=1) as producer:
        delivered = threading.Event()
        producer.send("orders", b"a", partition=0)
        producer.send("orders", b"b", partition=1, on_delivery=lambda error, metadata: delivered.set())
        assert delivered.wait(SECONDS)
        deadline = time.monotonic() + SECONDS
        while len(values_of(broker)) < 2 and time.monotonic() < deadline:
            time.sleep(0.001)
        assert sorted(values_of(broker)) == [b"a", b"b"]


def test_batches_are_as_large_as_asked(broker):
    topic = broker.create_topic("orders")
    with broker.producer(linger_ms="1h", batch_size="4KiB") as producer:
        for _ in range(100):
            producer.send("orders", bytes(500))
    sizes = [batch.size_bytes for batch in batches_of(topic)]
    assert len(sizes) > 10
    assert all(3500 < size <= 4096 for size in sizes[:-1])


def batches_of(topic, partition=0):
    cursor = topic.partition(partition).cursor(0)
    return list(iter(cursor.next_batch, None))


def test_a_record_larger_than_a_batch_goes_alone(broker):
    topic = broker.create_topic("orders")
    with broker.producer(linger_ms="1h", batch_size=1000) as producer:
        for size in (10, 5000, 10):
            producer.send("orders", bytes(size))
    assert [len(record.value) for record in topic.read()] == [10, 5000, 10]
    assert [batch.records_count for batch in batches_of(topic)] == [1, 1, 1]


def test_batch_size_0_batches_nothing(broker):
    topic = broker.create_topic("orders")
    with broker.producer(linger_ms="1h", batch_size=0) as producer:
        for _ in range(3):
            producer.send("orders", b"x")
    assert [batch.records_count for batch in batches_of(topic)] == [1, 1, 1]


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_compression_by_the_producer(broker, codec):
    topic = broker.create_topic("orders", compression_type="gzip")
    with broker.producer(compression_type=codec) as producer:
        futures = [producer.send("orders", b"the same again " * 10, b"k") for _ in range(50)]
        assert [future.result(SECONDS).offset for future in futures] == list(range(50))
    assert {batch.codec for batch in batches_of(topic)} == {["none", "gzip", "snappy", "lz4", "zstd"].index(codec)}
    assert values_of(broker) == [b"the same again " * 10] * 50


def test_compression_by_the_topic_and_where_it_does_not_pay(broker):
    topic = broker.create_topic("orders", compression_type="zstd")
    with broker.producer() as producer:
        producer.send("orders", bytes(1000)).result(SECONDS)
        producer.send("orders", b"?").result(SECONDS)
    assert [batch.codec for batch in batches_of(topic)] == [4, 0]
    assert values_of(broker) == [bytes(1000), b"?"]


def test_tombstones_and_empty_values(broker):
    topic = broker.create_topic("orders", cleanup_policy="compact")
    with broker.producer() as producer:
        for value, key in ((None, b"k"), (b"", b""), (b"v", b"k"), (memoryview(b"view"), bytearray(b"array"))):
            producer.send("orders", value, key)
        with pytest.raises(logstore.InvalidRecordError, match="compacted"):
            producer.send("orders", b"v")
    assert [(record.value, record.key) for record in topic.read()] == [
        (None, b"k"), (b"", b""), (b"v", b"k"), (b"view", b"array"),
    ]  # fmt: skip


def test_append_time_is_the_logs(broker):
    topic = broker.create_topic("orders", message_timestamp_type="LogAppendTime", compression_type="zstd")
    before = int(time.time() * 1000)
    with broker.producer() as producer:
        metadata = [producer.send("orders", bytes(200), timestamp=5).result(SECONDS) for _ in range(3)]
    for record, known in zip(topic.read(), metadata, strict=True):
        assert record.timestamp_type == "LogAppendTime"
        assert before <= record.timestamp == known.timestamp <= int(time.time() * 1000)


def test_timestamps_out_of_bounds_are_refused_before_they_share_a_batch(broker):
    broker.create_topic("orders", message_timestamp_before_max_ms="1h")
    now = int(time.time() * 1000)
    with broker.producer() as producer:
        good = producer.send("orders", b"good", timestamp=now - 1000)
        for bad in (now - 7_200_000, now * 1000):
            with pytest.raises(logstore.InvalidTimestampError, match="milliseconds"):
                producer.send("orders", b"bad", timestamp=bad)
        assert good.result(SECONDS).timestamp == now - 1000
    assert values_of(broker) == [b"good"]


def test_the_log_judges_what_the_producer_did_not_know(broker):
    """Settings that changed while a batch was open."""
    topic = broker.create_topic("orders")
    with broker.producer(linger_ms="1h") as producer:
        futures = [producer.send("orders", b"no key"), producer.send("orders", b"key", b"k")]
        broker.alter_topic("orders", cleanup_policy="compact")
        for future in futures:
            assert isinstance(future.exception(SECONDS), logstore.InvalidRecordError)
        assert producer.send("orders", b"key", b"k").result(SECONDS).offset == 0
    assert next(iter(topic.read())).value == b"key"


def test_wrong_arguments_are_refused_and_nothing_is_taken(broker):
    broker.create_topic("orders", partitions=2, max_message_bytes=2000)
    with broker.producer(linger_ms="1h") as producer:
        for arguments, error, match in (
            (("nowhere", b"v"), logstore.UnknownTopicOrPartitionError, "no topic"),
            ((b"orders", b"v"), logstore.InvalidRequestError, "str"),
            (("orders", "text"), logstore.InvalidRequestError, "encode"),
            (("orders", b"v", 5), logstore.InvalidRequestError, "key"),
            (("orders", b"v", None, [("a",)]), logstore.InvalidRequestError, "headers"),
            (("orders", b"v", None, None, 2), logstore.UnknownTopicOrPartitionError, "no partition 2"),
            (("orders", b"v", None, None, -1), logstore.UnknownTopicOrPartitionError, "no partition -1"),
            (("orders", b"v", None, None, "0"), logstore.UnknownTopicOrPartitionError, "no partition"),
            (("orders", b"v", None, None, 0, -2), logstore.InvalidRecordError, "timestamp"),
            (("orders", b"v", None, None, 0, "now"), logstore.InvalidRequestError, "timestamp"),
            (("orders", bytes(2000)), logstore.RecordTooLargeError, "limit of 2000"),
        ):
            with pytest.raises(error, match=match):
                producer.send(*arguments)
        with pytest.raises(logstore.InvalidRequestError, match="called"):
            producer.send("orders", b"v", on_delivery=5)
        with pytest.raises(logstore.InvalidRequestError, match="partition="):
            producer.send("orders", b"v", b"k", expected_offset=0)
        with pytest.raises(logstore.InvalidRequestError, match="0 or more"):
            producer.send("orders", b"v", partition=0, expected_offset=-1)
        with pytest.raises(TypeError):
            producer.send("orders", b"v", wrong=1)
        producer.flush()
    assert values_of(broker) == []


def test_partitions_added_later_are_used(broker):
    topic = broker.create_topic("orders")
    with broker.producer(linger_ms="1h") as producer:
        first = producer.send("orders", b"a")
        with pytest.raises(logstore.UnknownTopicOrPartitionError):
            producer.send("orders", b"b", partition=2)
        broker.alter_topic("orders", partitions=3)
        assert producer.send("orders", b"b", partition=2).result(SECONDS).partition == 2
        assert first.result(SECONDS).partition == 0
        assert producer.send("orders", b"c", partition=0).result(SECONDS).offset == 1
    assert len(values_of(broker)) == 3
    assert topic.partitions == 3


def test_a_topic_that_is_deleted_fails_what_is_queued_for_it(broker):
    broker.create_topic("orders")
    with broker.producer(linger_ms="1h") as producer:
        lost = producer.send("orders", b"a")
        broker.delete_topic("orders")
        assert isinstance(lost.exception(SECONDS), logstore.UnknownTopicOrPartitionError)
        with pytest.raises(logstore.UnknownTopicOrPartitionError):
            producer.send("orders", b"b")
        broker.create_topic("orders", partitions=2)
        assert producer.send("orders", b"b", partition=1).result(SECONDS).offset == 0


def test_flush_delivers_everything(broker):
    broker.create_topic("a", partitions=5)
    broker.create_topic("b")
    with broker.producer(linger_ms="1h") as producer:
        futures = [producer.send(topic, b"%d" % i, b"%d" % i) for i in range(50) for topic in ("a", "b")]
        producer.flush()
        assert all(future.done() for future in futures)
        if broker.durability == "flushed":
            for topic in ("a", "b"):
                assert all(log.flushed_offset == log.log_end_offset for log in broker.topic(topic).logs)
        producer.flush(timeout=0)
    assert len(values_of(broker, "a")) == len(values_of(broker, "b")) == 50


def test_closing_delivers_and_refuses_from_then_on(broker):
    broker.create_topic("orders")
    producer = broker.producer(linger_ms="1h")
    future = producer.send("orders", b"a")
    producer.close()
    assert future.result().offset == 0
    producer.close()
    with pytest.raises(logstore.ClosedError, match="closed"):
        producer.send("orders", b"b")
    with pytest.raises(logstore.ClosedError):
        producer.flush()
    assert "closed" in repr(producer)


def test_closing_the_broker_delivers_first(tmp_path):
    with logstore.open(tmp_path / "data") as broker:
        broker.create_topic("orders")
        producer = broker.producer(linger_ms="1h")
        future = producer.send("orders", b"a")
    assert future.result().offset == 0
    with pytest.raises(logstore.ClosedError):
        producer.send("orders", b"b")
    with logstore.open(tmp_path / "data") as broker:
        assert values_of(broker) == [b"a"]


def test_a_producer_nobody_closes_delivers_and_warns(tmp_path):
    with logstore.open(tmp_path / "data") as broker:
        broker.create_topic("orders")
        held = [broker.producer(linger_ms=0)]
        held[0].send("orders", b"a").result()

        def let_go():
            """Its sender may be at work still, and holds it until that is done."""
            held.clear()
            deadline = time.monotonic() + 5
            while not caught.list and time.monotonic() < deadline:
                time.sleep(0.001)

        with pytest.warns(ResourceWarning, match="unclosed Producer") as caught:
            let_go()
        assert values_of(broker) == [b"a"]


def test_batches_one_after_the_other_do_not_each_wake_the_sender(tmp_path, monkeypatch):
    turns = []
    real = Producer._work
    monkeypatch.setattr(Producer, "_work", lambda producer: turns.append(producer) or real(producer))
    with logstore.open(tmp_path / "data", durability="appended") as broker, broker.producer(linger_ms=20) as producer:
        broker.create_topic("orders")
        began = time.monotonic()
        for _ in range(300):
            producer.send("orders", b"a")
            producer.flush()
        passed_ms = (time.monotonic() - began) * 1000
        assert len(turns) <= 2 * passed_ms / 20 + 5


def test_callbacks(broker):
    broker.create_topic("orders", partitions=2)
    calls = []
    with broker.producer(linger_ms="1h", on_delivery=lambda error, metadata: calls.append(("all", metadata))) as producer:
        future = producer.send("orders", b"a", partition=1, on_delivery=lambda *outcome: calls.append(outcome))
        future.add_done_callback(lambda done: calls.append(done.result()))
        assert calls == []
        producer.flush()
        metadata = future.result()
        assert calls == [(None, metadata), ("all", metadata), metadata]
        future.add_done_callback(calls.append)
        assert calls[3] is future
        with pytest.raises(TypeError):
            future.add_done_callback(None)


def test_a_callback_that_raises_breaks_no_other(broker, caplog):
    broker.create_topic("orders")
    calls = []

    def fail(error, metadata):
        raise RuntimeError("mine")

    with broker.producer(linger_ms="1h") as producer:
        for number in range(4):
            producer.send("orders", b"a", on_delivery=fail if number % 2 else lambda *outcome: calls.append(outcome))
        producer.flush()
    assert [metadata.offset for _, metadata in calls] == [0, 2]
    assert caplog.text.count("RuntimeError: mine") == 2


def test_callbacks_may_send_and_wait(broker):
    """In the calling thread, which is not the one that others wait for."""
    broker.create_topic("orders")
    found = []

    def answer(error, metadata):
        if metadata.offset < 5:
            future = producer.send("orders", b"again", on_delivery=answer)
            found.append(future.result(SECONDS).offset)

    with broker.producer(linger_ms="1h") as producer:
        producer.send("orders", b"first", on_delivery=answer)
        producer.flush()
        producer.flush()
    assert found == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("timeout", [None, SECONDS])
def test_callbacks_of_the_sender_may_send_and_wait(broker, timeout):
    """Nobody else delivers what they wait for, so that their own thread does, however long it may wait."""
    broker.create_topic("orders")
    found = []
    threads = set()
    ended = threading.Event()

    def answer(error, metadata):
        threads.add(threading.get_ident())
        if metadata.offset < 5:
            found.append(producer.send("orders", b"again", on_delivery=answer).result(timeout).offset)
        else:
            ended.set()

    with broker.producer(linger_ms=1) as producer:
        producer.send("orders", b"first", on_delivery=answer)
        assert ended.wait(SECONDS)
    assert found == [1, 2, 3, 4, 5]
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_conditional_sends(broker):
    topic = broker.create_topic("orders")
    with broker.producer(linger_ms="1h") as producer:
        before = [producer.send("orders", b"%d" % i) for i in range(3)]
        taken = producer.send("orders", b"3", expected_offset=3)
        late = producer.send("orders", b"no", expected_offset=3)
        after = producer.send("orders", b"4")
        assert taken.result(SECONDS).offset == 3
        error = late.exception(SECONDS)
        assert isinstance(error, logstore.UnexpectedOffsetError)
        assert (error.expected_offset, error.log_end_offset) == (3, 4)
        with pytest.raises(logstore.UnexpectedOffsetError, match="not at 3"):
            late.result()
        assert after.result(SECONDS).offset == 4
        assert [future.result().offset for future in before] == [0, 1, 2]
    assert values_of(broker) == [b"0", b"1", b"2", b"3", b"4"]
    assert topic.append(b"5", expected_offset=5) == 5


def test_sends_from_many_threads_keep_each_threads_order(broker):
    topic = broker.create_topic("orders", partitions=3, segment_bytes="256KiB")
    producer = broker.producer(batch_size=2000, linger_ms=1)
    sent: dict[int, list] = {}

    def send_all(writer):
        sent[writer] = [
            producer.send("orders", b"%d/%d" % (writer, i), b"%d" % (writer % 3)) for i in range(2000)
        ]

    threads = [threading.Thread(target=send_all, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    producer.close()
    numbers: dict[bytes, list[int]] = {}
    places = {}
    for record in topic.read():
        writer, number = record.value.split(b"/")
        numbers.setdefault(writer, []).append(int(number))
        places[record.value] = (record.partition, record.offset)
    assert numbers == {b"%d" % writer: list(range(2000)) for writer in range(4)}
    for writer, futures in sent.items():
        for number, future in enumerate(futures):
            assert future.result()[1:3] == places[b"%d/%d" % (writer, number)]


def test_one_winner_for_each_expected_offset(broker):
    topic = broker.create_topic("orders")
    wins: list[int] = []
    barrier = threading.Barrier(4)

    def compete():
        barrier.wait(SECONDS)
        for offset in range(50):
            try:
                assert producer.send("orders", b"x", expected_offset=offset).result(SECONDS).offset == offset
            except logstore.UnexpectedOffsetError:
                try:
                    topic.append(b"y", expected_offset=offset)
                except logstore.UnexpectedOffsetError as error:
                    assert error.log_end_offset > offset
                    continue
            wins.append(offset)

    with broker.producer() as producer:
        threads = [threading.Thread(target=compete) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
    assert sorted(wins) == list(range(50))
    assert topic.partition(0).log_end_offset == 50
