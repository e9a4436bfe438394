"""`append` and `send` with the usual arguments take a shorter way; it leads to the same place as any other."""

from __future__ import annotations

import itertools
import time

import pytest

import logstore


class OwnBytes(bytes):
    pass


# How a record of b"value" and b"key" may be given: the first ones are the usual, the others are not.
WAYS = [
    lambda call: call(b"value", b"key"),
    lambda call: call(b"value", key=b"key"),
    lambda call: call(value=b"value", key=b"key"),
    lambda call: call(bytearray(b"value"), b"key"),
    lambda call: call(b"value", memoryview(b"key")),
    lambda call: call(OwnBytes(b"value"), OwnBytes(b"key")),
    lambda call: call(b"value", b"key", headers=None),
]
WITHOUT_KEY = [
    lambda call: call(b"value"),
    lambda call: call(b"value", None),
    lambda call: call(value=b"value"),
]
NOT_AT_ALL = [
    (lambda call: call("value"), logstore.InvalidRequestError),
    (lambda call: call(b"value", "key"), logstore.InvalidRequestError),
    (lambda call: call(5, b"key"), logstore.InvalidRequestError),
    (lambda call: call(b"value", b"key", no_such_argument=1), TypeError),
]


@pytest.fixture(params=["buffered", "appended", "flushed"])
def broker(tmp_path, request):
    with logstore.open(tmp_path / "data", durability=request.param) as broker:
        yield broker


@pytest.mark.parametrize("partitions", [1, 3])
def test_appends_lead_to_the_same_partition_and_record(broker, partitions):
    topic = broker.create_topic("orders", partitions=partitions)
    for way in WAYS:
        way(topic.append)
    topic.flush("appended")
    records = list(topic.read())
    assert len({record.partition for record in records}) == 1
    assert {(record.key, record.value, len(record.headers)) for record in records} == {(b"key", b"value", 0)}
    assert [record.offset for record in records] == list(range(len(WAYS)))
    for way in WITHOUT_KEY:
        way(topic.append)
    topic.flush("appended")
    assert sum(record.key is None and record.value == b"value" for record in topic.read()) == len(WITHOUT_KEY)


def test_sent_records_are_the_same(broker):
    topic = broker.create_topic("orders")
    with broker.producer() as producer:
        futures = [way(lambda *given, **named: producer.send("orders", *given, **named)) for way in WAYS + WITHOUT_KEY]
        assert producer.send(topic="orders", value=b"value", key=b"key").result().offset == len(futures)
        assert [future.result().offset for future in futures] == list(range(len(futures)))
    assert [(record.key, record.value) for record in topic.read()] == [
        *([(b"key", b"value")] * len(WAYS)),
        *([(None, b"value")] * len(WITHOUT_KEY)),
        (b"key", b"value"),
    ]


def test_nothing_else_is_let_through(broker):
    topic = broker.create_topic("orders")
    compacted = broker.create_topic("states", cleanup_policy="compact")
    topic.append(b"first")
    with broker.producer() as producer:
        producer.send("orders", b"second").result()

        def send(*given, **named):
            return producer.send("orders", *given, **named)

        for way, error in NOT_AT_ALL:
            for call in (topic.append, send):
                with pytest.raises(error):
                    way(call)
        for call in (lambda: topic.append(), lambda: topic.append(b"value", b"key", ()), lambda: producer.send()):
            with pytest.raises(TypeError):
                call()
        for name in (None, b"orders", 7):
            with pytest.raises(logstore.InvalidRequestError):
                producer.send(name, b"value", b"key")
        with pytest.raises(logstore.InvalidRecordError, match="needs a key"):
            compacted.append(b"value")
        with pytest.raises(logstore.InvalidRecordError, match="needs a key"):
            producer.send("states", b"value")
        with pytest.raises(logstore.RecordTooLargeError):
            topic.append(bytes(2 << 20), b"key")
        with pytest.raises(logstore.RecordTooLargeError):
            producer.send("orders", bytes(2 << 20), b"key")
    with pytest.raises(logstore.ClosedError):
        producer.send("orders", b"value", b"key")
    topic.flush("appended")
    assert [record.value for record in topic.read()] == [b"first", b"second"]
    broker.close()
    with pytest.raises(logstore.ClosedError):
        topic.append(b"value", b"key")


RECORD_OVERHEAD_BYTES = 36  # what is reckoned with, at most


@pytest.mark.parametrize("batch_bytes", [100, 1000, 1 << 20])
def test_batches_are_full_before_they_are_handed_over(tmp_path, batch_bytes):
    settings = {"logstore_batch_bytes": batch_bytes, "logstore_durability": "buffered", "logstore_linger_ms": "1h"}
    values = [b"x" * (i * 7 % 40) for i in range(300)]
    with logstore.open(tmp_path / "data") as broker:
        topic = broker.create_topic("orders", **settings)
        assert [topic.append(value, b"key") for value in values] == list(range(300))
        topic.flush("appended")
        assert [(record.key, record.value) for record in topic.read()] == [(b"key", value) for value in values]
        batches = topic.logs[0].fetch(0, 1 << 20)
    for batch, following in itertools.pairwise(batches):
        assert batch.size_bytes <= batch_bytes or batch.records_count == 1
        record_bytes = RECORD_OVERHEAD_BYTES + len(b"key") + len(values[following.base_offset])
        assert batch.size_bytes + record_bytes > batch_bytes
    assert sum(batch.records_count for batch in batches) == 300


def test_each_record_has_the_millisecond_of_its_append(tmp_path):
    """However many are appended in it, and when it ends between two of them."""
    with logstore.open(tmp_path / "data", durability="buffered") as broker:
        topic = broker.create_topic("orders", retention=-1)
        read = []
        deadline = time.monotonic() + 0.05
        while time.monotonic() < deadline:
            before_ms = time.time_ns() // 1_000_000
            topic.append(b"value", b"key")
            read.append((before_ms, time.time_ns() // 1_000_000))
        topic.flush("appended")
        stamps = [record.timestamp for record in topic.read()]
    assert len(stamps) == len(read)
    wrong = [(stamp, span) for stamp, span in zip(stamps, read, strict=True) if not span[0] <= stamp <= span[1]]
    assert wrong == []


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"cleanup_policy": "compact"}, logstore.InvalidRecordError),
        ({"max_message_bytes": 70}, logstore.RecordTooLargeError),
    ],
    ids=["keys", "sizes"],
)
def test_a_rule_that_changes_holds_for_the_next_record(tmp_path, changes, refusal):
    """Also while an open batch goes on, which records join with nothing else to be done."""
    with logstore.open(tmp_path / "data", durability="buffered") as broker:
        topic = broker.create_topic("orders", logstore_linger_ms="1h")
        for _ in range(5):
            topic.append(b"value")
        broker.alter_topic("orders", **changes)
        with pytest.raises(refusal):
            topic.append(b"value")
        topic.flush("appended")
        assert topic.logs[0].log_end_offset == 5


def test_what_an_acknowledgement_means_changes_with_the_next_record(tmp_path):
    with logstore.open(tmp_path / "data") as broker:
        topic = broker.create_topic("orders", logstore_linger_ms="1h", logstore_durability="buffered", flush_ms=2**63 - 1)
        log = topic.logs[0]

        def state():
            for _ in range(5):
                topic.append(b"value", b"key")
            return log.open_batch_records_count, log.flushed_offset

        assert state() == (5, 0)
        broker.alter_topic("orders", logstore_durability="appended")
        assert state() == (0, 0)
        broker.alter_topic("orders", logstore_durability="buffered")
        assert state() == (5, 0)
        broker.alter_topic("orders", logstore_durability="flushed")
        assert state() == (0, 20)
