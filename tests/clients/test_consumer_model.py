"""Random calls against a list for each partition: positions are exact after every kind of interleaving."""

from __future__ import annotations

import contextlib
import os
import tempfile
from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import logstore

PARTITIONS = [("plain", 0), ("plain", 1), ("packed", 0), ("packed", 1)]
partitions = st.sampled_from(PARTITIONS)
EXAMPLES = int(os.environ.get("LOGSTORE_TEST_EXAMPLES", "15"))


class ConsumerMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.stack = contextlib.ExitStack()
        directory = self.stack.enter_context(tempfile.TemporaryDirectory(prefix="consumer-model-"))
        self.broker = self.stack.enter_context(logstore.open(directory, durability="appended"))
        self.broker.create_topic("plain", partitions=2, segment_bytes=8192)
        self.broker.create_topic("packed", partitions=2, compression_type="gzip")
        self.values = {partition: [] for partition in PARTITIONS}
        self.positions = dict.fromkeys(PARTITIONS, 0)
        self.paused = set()
        self.count = 0

    @initialize(fetch_max=st.sampled_from(["50MiB", "1KiB"]))
    def open(self, fetch_max):
        self.consumer = self.stack.enter_context(self.broker.consumer("plain", "packed", fetch_max_bytes=fetch_max))

    def teardown(self):
        self.stack.close()

    def new_value(self, size):
        self.count += 1
        return b"%d:" % self.count + b"x" * size

    @rule(partition=partitions, sizes=st.lists(st.integers(0, 300), min_size=1, max_size=30))
    def append_many(self, partition, sizes):
        added = [self.new_value(size) for size in sizes]
        self.broker[partition[0]].append_many(added, partition=partition[1])
        self.values[partition] += added

    @rule(partition=partitions, size=st.integers(0, 3000))
    def append(self, partition, size):
        added = self.new_value(size)
        self.broker[partition[0]].append(added, partition=partition[1])
        self.values[partition].append(added)

    def take(self, partition, offset, value):
        assert partition not in self.paused
        assert offset == self.positions[partition]
        assert value == self.values[partition][offset]
        self.positions[partition] += 1

    def unread(self):
        return sum(len(self.values[place]) - self.positions[place] for place in PARTITIONS if place not in self.paused)

    @rule(limit=st.integers(1, 60))
    def poll(self, limit):
        expected = min(limit, self.unread())
        records = self.consumer.poll(max_records=limit)
        assert len(records) == expected
        for record in records:
            self.take((record.topic, record.partition), record.offset, record.value)

    @rule(count=st.integers(1, 30))
    def iterate(self, count):
        for _ in range(min(count, self.unread())):
            record = next(self.consumer)
            self.take((record.topic, record.partition), record.offset, record.value)

    @rule(max_bytes=st.sampled_from([None, 1, 500, 5000]))
    def fetch(self, max_bytes):
        unread = self.unread()
        batches = self.consumer.fetch(max_bytes=max_bytes)
        assert bool(batches) == (unread > 0)
        assert max_bytes is None or len(batches) == 1 or sum(batch.size_bytes for batch in batches) <= max_bytes
        for batch in batches:
            partition = (batch.topic, batch.partition)
            assert batch.base_offset <= self.positions[partition] <= batch.last_offset
            for record in batch:
                if record.offset >= self.positions[partition]:
                    self.take(partition, record.offset, record.value)

    @rule(max_bytes=st.sampled_from([None, 1, 5000]))
    def fetch_columns(self, max_bytes):
        unread = self.unread()
        found = self.consumer.fetch_columns(max_bytes=max_bytes)
        assert bool(found) == (unread > 0)
        for columns in found:
            for offset, value in zip(columns.offsets.tolist(), columns.values(), strict=True):
                self.take((columns.topic, columns.partition), offset, value)

    @rule(partition=partitions, data=st.data())
    def seek(self, partition, data):
        offset = data.draw(st.integers(0, len(self.values[partition])))
        self.consumer.seek(partition, offset)
        self.positions[partition] = offset

    @rule(chosen=st.sets(partitions))
    def seek_to_beginning(self, chosen):
        self.consumer.seek_to_beginning(*chosen)
        self.positions.update(dict.fromkeys(chosen or PARTITIONS, 0))

    @rule(chosen=st.sets(partitions))
    def seek_to_end(self, chosen):
        self.consumer.seek_to_end(*chosen)
        self.positions.update({partition: len(self.values[partition]) for partition in chosen or PARTITIONS})

    @rule(chosen=st.sets(partitions, min_size=1))
    def pause(self, chosen):
        self.consumer.pause(*chosen)
        self.paused |= chosen

    @rule(chosen=st.sets(partitions, min_size=1))
    def resume(self, chosen):
        self.consumer.resume(*chosen)
        self.paused -= chosen

    @invariant()
    def positions_are_exact(self):
        if hasattr(self, "consumer"):
            assert {partition: self.consumer.position(partition) for partition in PARTITIONS} == self.positions
            assert self.consumer.paused() == self.paused
            lag = self.consumer.lag()
            assert {place: lag[place].records for place in PARTITIONS} == {
                place: len(self.values[place]) - self.positions[place] for place in PARTITIONS
            }


ConsumerMachine.TestCase.settings = settings(max_examples=EXAMPLES, stateful_step_count=30, deadline=None)
TestConsumerModel = ConsumerMachine.TestCase


def test_no_partition_starves(tmp_path):
    """One partition has far more than the others, and more comes all the time: each still has its turn."""
    with logstore.open(tmp_path / "data", durability="appended") as broker:
        topic = broker.create_topic("orders", partitions=4)
        for partition in range(4):
            topic.append_many([b"x" * 100] * (20_000 if partition == 0 else 3_000), partition=partition)
        with broker.consumer("orders") as consumer:
            records = []
            while len(records) < 12_000:
                records += consumer.poll(max_records=1000)
                topic.append_many([b"x" * 100] * 1000, partition=0)
    for partition in range(4):
        places = [number for number, record in enumerate(records) if record.partition == partition]
        assert len(places) >= 2_000
        # A turn of each other partition comes between two of its own: 64 KiB, or 1,000 records, up to the batch's end.
        assert max(after - before for before, after in pairwise(places)) < 4 * 1_700


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_compressed_batches_come_as_they_were(tmp_path, codec):
    values = [b"%d" % number * 20 for number in range(500)]
    with logstore.open(tmp_path / "data", durability="appended") as broker:
        broker.create_topic("orders", compression_type=codec).append_many(values, keys=values)
        with broker.consumer("orders") as consumer:
            records = consumer.poll(max_records=1000)
            assert [record.value for record in records] == values
            consumer.seek(("orders", 0), 123)
            assert [record.offset for record in consumer.poll(max_records=2)] == [123, 124]
            consumer.seek(("orders", 0), 123)
            (columns,) = consumer.fetch_columns()
            assert columns.values() == values[123:]
            assert columns.keys() == values[123:]
