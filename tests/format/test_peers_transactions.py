"""aiokafka and kafka-python read what a transaction leaves: its batches, its markers, its offsets and its state."""

from __future__ import annotations

import struct

import pytest
from aiokafka.record.memory_records import MemoryRecords as AiokafkaRecords
from kafka.record.memory_records import MemoryRecords as KafkaPythonRecords

import logstore

READERS = {"aiokafka": AiokafkaRecords, "kafka-python": KafkaPythonRecords}
COMMIT, ABORT = b"\0\0\0\1", b"\0\0\0\0"
MARKER_VALUE = b"\0\0\0\0\0\0"  # version 0, coordinator epoch 0


@pytest.fixture(params=["uncompressed", "zstd"])
def directory(request, tmp_path):
    """Two transactions, the first committed, the second aborted."""
    path = tmp_path / "data"
    with logstore.open(path, durability="appended") as broker:
        broker.create_topic("t", partitions=2)
        broker.create_topic("in")
        codec = {} if request.param == "uncompressed" else {"compression_type": request.param}
        with broker.producer(transactional_id="x", linger_ms="1h", **codec) as producer:
            for end in ("commit", "abort"):
                producer.begin_transaction()
                for number in range(50):
                    producer.send("t", b"%s %d" % (end.encode(), number), b"key", partition=number % 2)
                producer.flush()
                producer.send_offsets_to_transaction({("in", 0): 7 if end == "commit" else 8}, "g")
                getattr(producer, f"{end}_transaction")()
    return path


def batches_of(directory, place, reader):
    batches = READERS[reader]((directory / place / f"{0:020d}.log").read_bytes())
    while (batch := batches.next_batch()) is not None:
        assert batch.validate_crc()
        yield batch


@pytest.mark.parametrize("reader", READERS)
def test_batches_and_markers(directory, reader):
    for partition in range(2):
        seen = []
        for batch in batches_of(directory, f"t-{partition}", reader):
            assert batch.is_transactional
            records = [(record.key, record.value) for record in batch]
            if batch.is_control_batch:
                seen.append((batch.producer_epoch, *records))
            else:
                seen.append((batch.producer_epoch, batch.base_sequence, [value for _, value in records]))
        numbers = range(partition, 50, 2)
        assert seen == [
            (0, 0, [b"commit %d" % number for number in numbers]), (1, (COMMIT, MARKER_VALUE)),
            (1, 0, [b"abort %d" % number for number in numbers]), (2, (ABORT, MARKER_VALUE)),
        ]  # fmt: skip


@pytest.mark.parametrize("reader", READERS)
def test_committed_offsets(directory, reader):
    seen = []
    for batch in batches_of(directory, "__consumer_offsets-0", reader):
        assert batch.is_transactional
        seen += [record.key if batch.is_control_batch else struct.unpack_from(">q", record.value, 2)[0] for record in batch]
    assert seen == [7, COMMIT, 8, ABORT]


@pytest.mark.parametrize("reader", READERS)
def test_transaction_state(directory, reader):
    seen = []
    for batch in batches_of(directory, "__transaction_state-0", reader):
        assert not batch.is_transactional
        for record in batch:
            assert record.key == b"\0\0\0\1x"
            version, _, epoch, timeout_ms, status = struct.unpack_from(">hqhib", record.value)
            assert (version, timeout_ms) == (0, 60_000)
            (count,) = struct.unpack_from(">i", record.value, 17)
            seen.append((status, epoch, count, [name for name, _ in record.headers]))
    decided = (2, 1, 2, ["logstore.ends"])  # PrepareCommit, with the partitions of two topics
    assert decided in seen
    assert seen[0] == (0, 0, -1, [])
    assert seen[-1] == (5, 2, 0, [])  # CompleteAbort, written at the close

