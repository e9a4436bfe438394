"""One record by its offset: the same as a read gives, whatever is in the way."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import logstore
from logstore._native import record_lookup
from logstore.errors import (
    ClosedError,
    CorruptDataError,
    InvalidRequestError,
    OffsetOutOfRangeError,
    UnknownTopicOrPartitionError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(params=[0, 20_000, record_lookup.CACHE_BYTES_MAX])
def cache_bytes(request) -> Iterator[int]:
    before = record_lookup.set_cache_bytes_max(request.param)
    yield request.param
    record_lookup.set_cache_bytes_max(before)


def parts(record) -> tuple[object, ...]:
    return record.offset, record.timestamp, record.key, record.value, record.headers


@settings(max_examples=25, deadline=None)
@given(
    calls=st.lists(st.tuples(st.integers(1, 60), st.sampled_from([0, 10, 300, 3000])), min_size=1, max_size=25),
    batch_bytes=st.sampled_from([500, 4096, 65536]),
    interval=st.sampled_from([0, 1024, 4096]),
    compression=st.sampled_from(["none", "zstd"]),
    wanted=st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=60),
)
def test_every_record_is_what_a_read_gives(calls, batch_bytes, interval, compression, wanted, tmp_path_factory):
    config = {
        "logstore.batch.bytes": batch_bytes,
        "index.interval.bytes": interval,
        "compression.type": compression if compression != "none" else "uncompressed",
        "segment.bytes": 40_000,
    }
    with logstore.open(tmp_path_factory.mktemp("data"), durability="appended") as broker:
        topic = broker.create_topic("orders", config=config)
        for i, (count, size) in enumerate(calls):
            values = [None if j % 7 == 5 else b"%d/%d" % (i, j) + bytes(size) for j in range(count)]
            keys = [None if j % 5 == 3 else b"k%d" % j for j in range(count)]
            topic.append_many(values, keys)
            topic.append(b"alone", headers=[("h", b"%d" % i)])
        rows = [parts(record) for record in topic.read()]
        for share in wanted + wanted[:3]:
            offset = int(share * len(rows))
            assert parts(topic.get(offset)) == rows[offset]


def test_many_at_random_while_another_thread_appends(tmp_path, cache_bytes):
    with logstore.open(tmp_path, durability="appended") as broker:
        topic = broker.create_topic("orders", config={"logstore.batch.bytes": 2000, "segment.bytes": 60_000})
        topic.append(b"0")
        count = 4000
        failures: list[BaseException] = []

        def look_up() -> None:
            try:
                state = 1
                for _ in range(count):
                    end = topic.partition(0).log_end_offset
                    state = state * 69069 + 1 & 0xFFFFFFFF
                    offset = state % end
                    record = topic.get(offset)
                    assert (record.offset, record.value) == (offset, b"%d" % offset)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=look_up) for _ in range(2)]
        for thread in threads:
            thread.start()
        for i in range(1, count):
            topic.append(b"%d" % i, durability="buffered" if i % 3 else "appended")
        for thread in threads:
            thread.join()
        assert not failures


def test_what_was_compacted_away_is_none(tmp_path, cache_bytes):
    with logstore.open(tmp_path, durability="appended") as broker:
        topic = broker.create_topic(
            "orders", config={"cleanup.policy": "compact", "segment.bytes": 20_000, "logstore.batch.bytes": 3000}
        )
        for i in range(2000):
            topic.append(b"%d" % i, b"k%d" % (i % 10 if i < 1500 else i), durability="buffered")
        topic.flush()
        assert all(topic.get(i).value == b"%d" % i for i in range(0, 1600, 7))
        topic.partition(0).roll()
        topic.partition(0).compact()
        kept = {record.offset: parts(record) for record in topic.read()}
        assert len(kept) < 1000
        for offset in range(2000):
            record = topic.get(offset)
            assert (None if record is None else parts(record)) == kept.get(offset)


def test_what_is_cut_off_and_written_anew_is_not_taken_from_before(tmp_path, cache_bytes):
    with logstore.open(tmp_path, durability="appended") as broker:
        topic = broker.create_topic("orders")
        topic.append_many([b"old-%d" % i for i in range(100)])
        assert topic.get(70).value == topic.get(70).value == b"old-70"
        topic.partition(0).truncate_to(50)
        with pytest.raises(OffsetOutOfRangeError):
            topic.get(70)
        topic.append_many([b"new-%d" % i for i in range(50, 100)])
        assert topic.get(70).value == b"new-70"
        assert topic.get(49).value == b"old-49"


def test_what_was_erased_is_not_served_from_memory(tmp_path, cache_bytes):
    with logstore.open(tmp_path, durability="appended") as broker:
        topic = broker.create_topic("orders")
        topic.append_many([b"%d" % i for i in range(100)], [b"k%d" % (i % 10) for i in range(100)])
        topic.partition(0).roll()
        assert topic.get(23).value == topic.get(23).value == b"23"
        topic.partition(0).erase_key(b"k3")
        assert topic.get(23) is None
        assert topic.get(24).value == b"24"


def test_markers_and_undecided_records_are_none_for_committed_readers(tmp_path):
    with logstore.open(tmp_path, durability="appended") as broker:
        topic = broker.create_topic("orders")
        with broker.producer(transactional_id="t") as producer:
            for commits in (True, False):
                producer.begin_transaction()
                producer.send("orders", b"%d" % commits).result()
                if commits:
                    producer.commit_transaction()
                else:
                    producer.abort_transaction()
            producer.begin_transaction()
            producer.send("orders", b"open").result()
            plain = [topic.get(i) for i in range(5)]
            committed = [topic.get(i, isolation_level="read_committed") for i in range(5)]
            producer.abort_transaction()
        assert [None if record is None else record.value for record in plain] == [b"1", None, b"0", None, b"open"]
        assert [None if record is None else record.value for record in committed] == [b"1", None, None, None, None]


def test_damage_is_named_and_never_passed_over(tmp_path):
    with logstore.open(tmp_path, durability="appended") as broker:
        topic = broker.create_topic("orders", config={"logstore.batch.bytes": 1000})
        topic.append_many([b"%05d" % i * 10 for i in range(1000)])
        path = topic.partition(0).segments[0].path
        with open(path, "r+b") as file:
            data = file.read()
            at = data.index(b"00500" * 10)
            file.seek(at)
            file.write(b"X")
        for _ in range(2):
            with pytest.raises(CorruptDataError) as caught:
                topic.get(500)
            assert caught.value.path == path
            assert at - 1000 < caught.value.position <= at
        assert topic.get(400).value == b"00400" * 10
        assert topic.get(600).value == b"00600" * 10


def test_wrong_calls_are_refused(tmp_path):
    with logstore.open(tmp_path, durability="appended") as broker:
        topic = broker.create_topic("orders", partitions=2)
        topic.append(b"0", partition=1)
        assert topic.get(0, 1).value == topic.get(0, partition=1).value == b"0"
        for offset in (1, -1, 2**62):
            with pytest.raises(OffsetOutOfRangeError) as caught:
                topic.get(offset, 1)
            assert caught.value.log_end_offset == 1
        for wrong in (None, "earliest", 1.0, True, 2**70):
            with pytest.raises(InvalidRequestError):
                topic.get(wrong, 1)
        with pytest.raises(InvalidRequestError):
            topic.get(0)
        with pytest.raises(InvalidRequestError):
            topic.get(0, 1, isolation_level="serializable")
        with pytest.raises(UnknownTopicOrPartitionError):
            topic.get(0, 2)
    with pytest.raises(ClosedError):
        topic.get(0, 1)


def test_an_offset_alone_is_judged_like_one_with_a_partition(tmp_path):
    with logstore.open(tmp_path, durability="appended") as broker:
        topic = broker.create_topic("orders")
        topic.append(b"0")
        assert topic.get(0).value == topic.get(offset=0).value == topic.get(0, 0).value == b"0"
        for offset in (1, -1, 2**62):
            with pytest.raises(OffsetOutOfRangeError) as caught:
                topic.get(offset)
            assert caught.value.log_end_offset == 1
        for wrong in (None, "earliest", 1.0, True, 2**70, -(2**70)):
            with pytest.raises(InvalidRequestError):
                topic.get(wrong)
        with pytest.raises(TypeError):
            topic.get()
    with pytest.raises(ClosedError):
        topic.get(0)


def test_a_process_that_only_reads_finds_what_was_appended_since(tmp_path: Path):
    with logstore.open(tmp_path, durability="appended") as broker:
        topic = broker.create_topic("orders")
        topic.append(b"0")
        with logstore.open(tmp_path, read_only=True) as reader:
            seen = reader.topic("orders")
            assert seen.get(0).value == b"0"
            topic.append(b"1")
            assert seen.get(1).value == b"1"
            with pytest.raises(OffsetOutOfRangeError):
                seen.get(2)


def test_the_cache_stays_within_its_limit(tmp_path):
    before = record_lookup.set_cache_bytes_max(100_000)
    try:
        with logstore.open(tmp_path, durability="appended") as broker:
            topic = broker.create_topic("orders", config={"logstore.batch.bytes": 4000, "index.interval.bytes": 500})
            topic.append_many([b"%d" % i + bytes(1000) for i in range(2000)])
            for _ in range(2):
                for i in range(2000):
                    assert topic.get(i).value.startswith(b"%d\0" % i)
                    assert record_lookup.cache_bytes() <= 100_000
    finally:
        record_lookup.set_cache_bytes_max(before)
