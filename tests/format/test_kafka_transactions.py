"""Transactions and producer state as a real broker left them: read, and given back byte for byte."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from aiokafka.record.memory_records import MemoryRecords as AiokafkaRecords
from golden_vectors import SEGMENT, SEGMENT_BASE_OFFSET
from kafka.record.memory_records import MemoryRecords as KafkaPythonRecords

from logstore._native.record_batch_builder import RecordBatchBuilder
from logstore.errors import CorruptDataError
from logstore.storage.config import TopicConfig
from logstore.storage.log import Log
from logstore.storage.producer_snapshot import decode_snapshot, encode_snapshot
from logstore.storage.transaction_index import decode_entries, encode_entries

DATA = Path(__file__).resolve().parents[1] / "data"
FIXTURES = ("kafka_broker_dir", "kafka_broker_dir_killed")
SNAPSHOTS = sorted(DATA.glob("kafka_broker_dir*/data/*/*.snapshot"))
LOOKUPS = json.loads((SEGMENT / "topic-a-0.lookups.json").read_text())
# The broker's clock when it wrote the last marker: nothing has expired by then.
NOW_MS = 1_795_344_096_289


@pytest.mark.parametrize("path", SNAPSHOTS, ids=lambda path: f"{path.parts[-4]}/{path.parts[-2]}/{path.name}")
def test_snapshots_of_a_broker_are_written_again_byte_for_byte(path):
    data = path.read_bytes()
    assert encode_snapshot(decode_snapshot(data)) == data


def test_there_are_snapshots_with_producers_and_without():
    counts = {len(decode_snapshot(path.read_bytes())) for path in SNAPSHOTS}
    assert 0 in counts
    assert max(counts) > 0
    assert encode_snapshot([]).hex() == "000148674bc700000000"


def test_the_fixtures_snapshots():
    for offset in (SEGMENT_BASE_OFFSET, 2442):
        data = (SEGMENT / "topic-a-0" / f"{offset:020d}.snapshot").read_bytes()
        producers = decode_snapshot(data)
        assert encode_snapshot(producers) == data
        found = [
            {
                "producer_id": producer.producer_id,
                "epoch": producer.epoch,
                "last_sequence": producer.last_sequence,
                "last_offset": producer.batches[-1].last_offset if producer.batches else -1,
                "offset_delta": producer.batches[-1].offset_delta if producer.batches else 0,
                "timestamp": producer.last_timestamp,
                "coordinator_epoch": producer.coordinator_epoch,
                "current_txn_first_offset": producer.transaction_offset,
            }
            for producer in producers
        ]
        assert found in (LOOKUPS["snapshot_entries"], [])


def test_the_fixtures_transaction_index():
    data = (SEGMENT / "topic-a-0" / f"{SEGMENT_BASE_OFFSET:020d}.txnindex").read_bytes()
    entries = decode_entries(data, SEGMENT_BASE_OFFSET)
    assert [entry._asdict() for entry in entries] == LOOKUPS["aborted_txns"]
    assert encode_entries(entries) == data


@pytest.mark.parametrize("damage", ["cut", "version", "crc", "count", "longer", "empty"])
def test_damaged_snapshots_are_refused(damage):
    data = bytearray((SEGMENT / "topic-a-0" / f"{2442:020d}.snapshot").read_bytes())
    if len(data) == 10:
        data = bytearray((SEGMENT / "topic-a-0" / f"{SEGMENT_BASE_OFFSET:020d}.snapshot").read_bytes())
    if damage == "version":
        data[1] = 2
    elif damage == "crc":
        data[-1] ^= 1
    elif damage == "count":
        data[9] += 1
    else:
        data = {"cut": data[:-1], "longer": data + b"\0", "empty": bytearray()}[damage]
    with pytest.raises(CorruptDataError, match="snapshot"):
        decode_snapshot(bytes(data))


@pytest.mark.parametrize("damage", ["cut", "version", "order", "below"])
def test_damaged_transaction_indexes_are_refused(damage):
    data = (SEGMENT / "topic-a-0" / f"{SEGMENT_BASE_OFFSET:020d}.txnindex").read_bytes()
    base_offset = SEGMENT_BASE_OFFSET
    if damage == "cut":
        data = data[:-1]
    elif damage == "version":
        data = b"\0\1" + data[2:]
    elif damage == "order":
        data = data[34:] + data[:34]
    else:
        base_offset = 1043
    with pytest.raises(CorruptDataError, match="transaction index"):
        decode_entries(data, base_offset)


def committed_offsets(log):
    return [record.offset for record in log.read(isolation_level="read_committed")]


@pytest.fixture(params=FIXTURES)
def directory(request, tmp_path):
    """A copy of the broker's ``transactions`` partition: committed, aborted, committed; when killed, one open."""
    target = tmp_path / "data" / "transactions-0"
    shutil.copytree(DATA / request.param / "data" / "transactions-0", target)
    return target


@pytest.mark.parametrize("read_only", [True, False])
def test_committed_records_of_a_broker(directory, read_only):
    killed = one_is_open(directory)
    with Log(directory, read_only=read_only, clock=lambda: NOW_MS) as log:
        assert committed_offsets(log) == [*range(6), *range(14, 20)]
        assert len(list(log.read())) > 12
        assert log.last_stable_offset == 21
        assert bool(log.open_transactions()) == killed
        offsets = [int(offset) for batch in log.scan(isolation_level="read_committed") for offset in batch.offsets]
        assert offsets == committed_offsets(log)


def one_is_open(directory: Path) -> bool:
    return (directory / f"{6:020d}.log").stat().st_size > 1035


@pytest.mark.parametrize("lost", [("*.txnindex",), ("*.snapshot",), ("*.txnindex", "*.snapshot")])
def test_what_a_broker_wrote_beside_the_batches_is_derived_from_them(directory, lost):
    kept = {path.name: path.read_bytes() for path in directory.iterdir() if path.suffix in (".txnindex", ".snapshot")}
    for pattern in lost:
        for path in directory.glob(pattern):
            path.unlink()
    for _ in range(2):
        with Log(directory, clock=lambda: NOW_MS) as log:
            assert committed_offsets(log) == [*range(6), *range(14, 20)]
    for path in directory.glob("*.txnindex"):
        assert path.read_bytes() == kept[path.name]
    if not one_is_open(directory):
        name = f"{21:020d}.snapshot"
        assert (directory / name).read_bytes() == kept[name]


def test_a_log_fed_with_a_brokers_batches_writes_the_same_files(directory, tmp_path):
    """The batches through our follower, rolled where the broker did: snapshots and transaction index are its own."""
    with Log(directory, read_only=True, clock=lambda: NOW_MS) as source:
        batches = [(batch.base_offset, bytes(batch)) for batch in source.cursor(0)]
    with Log(tmp_path / "transactions-0", TopicConfig(), clock=lambda: NOW_MS) as log:
        for base_offset, batch in batches:
            if base_offset == 6:
                log.roll()
            if base_offset == 21:
                break
            log.append_as_follower(batch)
        assert log.log_end_offset == 21
    for name in (f"{6:020d}.snapshot", f"{21:020d}.snapshot", f"{6:020d}.txnindex"):
        assert (tmp_path / "transactions-0" / name).read_bytes() == (directory / name).read_bytes(), name


@pytest.mark.parametrize("reader", [AiokafkaRecords, KafkaPythonRecords])
def test_peers_decode_our_batches_and_markers(tmp_path, reader):
    with Log(tmp_path / "orders-0", durability="appended") as log:
        for commit in (True, False):
            builder = RecordBatchBuilder()
            builder.append(b"value", b"key", timestamp=NOW_MS)
            fields = {"producer_id": 77, "producer_epoch": 3, "base_sequence": 1 - commit}
            log.append_as_leader(builder.build(transactional=True, **fields))
            log.append_marker(77, 3, commit, 9)
        data = b"".join(bytes(batch) for batch in log.cursor(0))
    batches = reader(data)
    seen = []
    while (batch := batches.next_batch()) is not None:
        assert batch.validate_crc()
        assert batch.is_transactional
        assert (batch.producer_id, batch.producer_epoch) == (77, 3)
        seen += [(batch.is_control_batch, record.key, record.value) for record in batch]
    assert seen == [
        (False, b"key", b"value"), (True, b"\0\0\0\1", b"\0\0\0\0\0\x09"),
        (False, b"key", b"value"), (True, b"\0\0\0\0", b"\0\0\0\0\0\x09"),
    ]  # fmt: skip
