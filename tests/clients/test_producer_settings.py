"""A producer's settings, and the partitions it chooses."""

from __future__ import annotations

import struct
import zlib
from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import logstore
from logstore._native.partitioner import PARTITIONERS, Partitioner
from logstore.clients.producer_settings import ProducerSettings, producer_settings
from logstore.errors import InvalidConfigError


def test_defaults_are_as_documented():
    found = producer_settings({})
    assert found == ProducerSettings()
    assert (found.linger_ms, found.batch_size, found.buffer_memory) == (5, 65536, 32 << 20)
    assert (found.max_block, found.delivery_timeout, found.retry_backoff) == (60.0, 120.0, 0.1)


def test_quantities_are_understood():
    found = producer_settings(
        {"linger_ms": "1s", "batch_size": "4KiB", "buffer_memory": "1MiB", "max_block": "2s", "retry_backoff": 1}
    )
    assert found[:2] == (1000, 4096)
    assert (found.buffer_memory, found.max_block, found.retry_backoff) == (1 << 20, 2.0, 1.0)


@pytest.mark.parametrize(
    ("given_level", "is_flushed"),
    [
        ({}, None), ({"acks": 0}, False), ({"acks": 1}, False), ({"acks": "1"}, False), ({"acks": "all"}, True),
        ({"acks": -1}, True), ({"durability": "flushed"}, True), ({"durability": "appended"}, False),
        ({"durability": "buffered"}, False), ({"acks": None, "durability": None}, None),
    ],
)  # fmt: skip
def test_acks_are_durabilities(given_level, is_flushed):
    assert producer_settings(given_level).is_flushed is is_flushed


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"linger": 5}, "did you mean linger_ms"),
        ({"batchsize": 5}, "did you mean batch_size"),
        ({"compresion": "zstd"}, "did you mean compression"),
        ({"zzz": 5}, "there are acks"),
        ({"acks": 2}, "0, 1 or 'all'"),
        ({"acks": True}, "0, 1 or 'all'"),
        ({"durability": "fsync"}, "'flushed'"),
        ({"acks": 1, "durability": "appended"}, "one of them"),
        ({"compression": "zstd", "compression_type": "lz4"}, "given twice"),
        ({"compression_type": "brotli"}, "brotli"),
        ({"compression_type": 3}, "name"),
        ({"compression_type": "gzip", "compression_level": 30}, "30"),
        ({"compression_level": 3}, "needs compression_type"),
        ({"linger_ms": -1}, "linger_ms"),
        ({"batch_size": 2**31}, "batch_size"),
        ({"buffer_memory": 0}, "buffer_memory"),
        ({"buffer_memory": "lots"}, "buffer_memory"),
        ({"max_request_size": 0}, "max_request_size"),
        ({"max_block": -1}, "max_block"),
        ({"max_block": float("nan")}, "max_block"),
        ({"delivery_timeout": None}, "delivery_timeout"),
        ({"retry_backoff": True}, "retry_backoff"),
        ({"partitioner": "random"}, "murmur2"),
        ({"on_delivery": 5}, "on_delivery"),
        ({"clock": 5}, "clock"),
        ({"client_id": 5}, "client_id"),
    ],
)
def test_wrong_settings_are_refused(wrong, match):
    with pytest.raises(InvalidConfigError, match=match):
        producer_settings(wrong)


def test_levels_are_the_topics_unless_given(tmp_path):
    with logstore.open(tmp_path / "data", durability="appended") as broker:
        broker.create_topic("plain")
        broker.create_topic("safe", durability="flushed")
        with broker.producer() as producer:
            for name in ("plain", "safe"):
                producer.send(name, b"x").result()
                log = broker.topic(name).partition(0)
                assert (log.flushed_offset == 1) == (name == "safe"), name
        with broker.producer(acks="all") as producer:
            producer.send("plain", b"x").result()
            assert broker.topic("plain").partition(0).flushed_offset == 2
        with broker.producer(durability="appended") as producer:
            producer.send("safe", b"x").result()
            assert broker.topic("safe").partition(0).flushed_offset == 1


def test_max_request_size_limits_batches(tmp_path):
    with logstore.open(tmp_path / "data", durability="appended") as broker:
        broker.create_topic("t")
        with broker.producer(max_request_size=500) as producer, pytest.raises(logstore.RecordTooLargeError):
            producer.send("t", bytes(500))


def test_a_codec_that_is_not_installed_is_known_at_the_first_send(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "cramjam", None)
    with logstore.open(tmp_path / "data", durability="appended") as broker:
        broker.create_topic("t")
        with broker.producer(compression="lz4") as producer, pytest.raises(logstore.MissingDependencyError, match="lz4"):
            producer.send("t", b"x")


def test_a_reader_makes_no_producer(tmp_path):
    logstore.open(tmp_path / "data").close()
    with logstore.open(tmp_path / "data", read_only=True) as broker, pytest.raises(logstore.ReadOnlyError):
        broker.producer()
    with pytest.raises(logstore.ClosedError):
        broker.producer()


# ---- partitioners ----------------------------------------------------------------------------------

KEYS = st.one_of(st.none(), st.binary(max_size=64))
COUNTS = st.integers(1, 1000)


@pytest.mark.parametrize(
    ("key", "hash_value"),
    [  # from Kafka's UtilsTest.testMurmur2
        (b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829), (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)  # fmt: skip
def test_the_default_is_murmur2_as_kafka_publishes_it(key, hash_value):
    for count in (1, 2, 3, 10, 999):
        assert Partitioner("murmur2", count).partition_for(key) == (hash_value & 0x7FFFFFFF) % count


class ClusterOf:
    """As much of a cluster's metadata as kafka-python's partitioner asks for."""

    def __init__(self, count):
        self.count = count

    def topics(self):
        return {"t"}

    def partitions_for_topic(self, topic):
        return set(range(self.count))

    available_partitions_for_topic = partitions_for_topic


@settings(deadline=None)
@given(st.binary(max_size=200), COUNTS)
def test_murmur2_is_what_other_clients_choose(key, count):
    aiokafka = pytest.importorskip("aiokafka.partitioner")
    kafka = pytest.importorskip("kafka.partitioner.default")
    everywhere = list(range(count))
    chosen = Partitioner("murmur2", count).partition_for(key)
    assert chosen == aiokafka.DefaultPartitioner()(key, everywhere, everywhere)
    partitioner = kafka.DefaultPartitioner()
    if hasattr(partitioner, "partition"):
        assert chosen == partitioner.partition("t", key, key, b"", b"", ClusterOf(count))
    else:  # before 2.1
        assert chosen == partitioner(key, everywhere, everywhere)


@given(st.binary(min_size=1, max_size=200), COUNTS)
def test_crc32_is_librdkafkas(key, count):
    assert Partitioner("crc32", count).partition_for(key) == zlib.crc32(key) % count


@given(st.lists(KEYS, max_size=30), COUNTS)
def test_without_a_key_the_partition_stays_for_a_batch(keys, count):
    for name, sticks in (("murmur2", lambda key: key is None), ("crc32", lambda key: not key)):
        chosen = Partitioner(name, count)
        assert {chosen.partition_for(key) for key in keys if sticks(key)} <= {0}


def test_without_a_key_batches_go_round(tmp_path):
    with logstore.open(tmp_path / "data", durability="appended") as broker:
        topic = broker.create_topic("t", partitions=3)
        with broker.producer(linger_ms="1h", batch_size=1000) as producer:
            for number in range(120):
                producer.send("t", struct.pack(">I", number) * 20)
        logs = [[struct.unpack(">I", record.value[:4])[0] for record in log.read()] for log in topic.logs]
    assert sorted(chain(*logs)) == list(range(120))
    assert all(len(log) >= 30 for log in logs), "no partition is left out"
    for log in logs:
        jumps = sum(after != before + 1 for before, after in zip(log, log[1:], strict=False))
        assert jumps <= len(log) // 7, "a batch is filled before the next partition's turn"


def test_round_robin_goes_round_whatever_the_key(tmp_path):
    with logstore.open(tmp_path / "data", durability="appended") as broker:
        broker.create_topic("t", partitions=3)
        with broker.producer(partitioner="round_robin") as producer:
            futures = [producer.send("t", b"x", b"same") for _ in range(7)]
            assert [future.result().partition for future in futures] == [0, 1, 2, 0, 1, 2, 0]


def test_a_partitioner_of_ones_own(tmp_path):
    asked = []

    def by_length(key, count):
        asked.append((key, count))
        return 5 if key == b"wrong" else "no" if key == b"text" else len(key or b"") % count

    with logstore.open(tmp_path / "data", durability="appended") as broker:
        broker.create_topic("t", partitions=3)
        with broker.producer(partitioner=by_length) as producer:
            keys = [None, b"a", memoryview(b"ab"), b"abc"]
            assert [producer.send("t", b"x", key).result().partition for key in keys] == [0, 1, 2, 0]
            assert asked == [(None, 3), (b"a", 3), (b"ab", 3), (b"abc", 3)]
            for key in (b"wrong", b"text"):
                with pytest.raises(logstore.InvalidRequestError, match="0 to 2"):
                    producer.send("t", b"x", key)
            assert producer.send("t", b"x", b"wrong", partition=1).result().partition == 1


@pytest.mark.parametrize("name", PARTITIONERS)
def test_one_partition_is_always_chosen(name):
    chosen = Partitioner(name, 1)
    assert [chosen.partition_for(key) for key in (None, b"", b"a", b"b")] == [0, 0, 0, 0]


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=20))
def test_topics_and_producers_choose_alike(keys):
    for key in keys:
        assert Partitioner("murmur2", 7).partition_for(key) == logstore.partition_for_key(key, 7)
