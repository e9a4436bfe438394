"""Appending without waiting for the disk, and sending through a producer."""

from __future__ import annotations

from benchmarks.compare import machine_limits, subject
from benchmarks.compare.measure import Contestant, Work
from benchmarks.compare.peers import (
    aiokafka_records,
    arrow_ipc,
    confluent_client,
    kafka_python_records,
    key_value,
    lmdb_store,
    nats_jetstream,
    persist_queue,
    plain_file,
    redis_streams,
    sqlite_store,
)
from benchmarks.compare.peers.leveldb_store import LevelDb
from benchmarks.compare.peers.rocksdb_store import RocksDb
from benchmarks.compare.targets import Target, at_least, times

__all__ = ["works"]

APPEND = "topic.append"
WRITTEN = "topic.append, logstore.open.batch.mapped=false"
SEND = "producer.send, appended"
SEND_FLUSHED = "producer.send, flushed"
MANY = "topic.append_many, lists of bytes"
AIOKAFKA = "aiokafka: compiled batch builder + write"
KAFKA_PYTHON = "kafka-python: batch builder + write"
CONFLUENT = "confluent-kafka: produce to its mock broker"
LMDB_ONE_TRANSACTION = "LMDB: put, one transaction, no sync"
ROCKSDB_BATCH = "RocksDB: put into batches of 10,000"
LEVELDB_BATCH = "LevelDB: put into batches of 10,000"
STORES = (
    LMDB_ONE_TRANSACTION,
    ROCKSDB_BATCH,
    LEVELDB_BATCH,
    "SQLite: execute, one transaction",
    "SQLite: executemany, one transaction",
)
ENCODERS = (AIOKAFKA, KAFKA_PYTHON)
PWRITE = "C: pwrite each"
# One call of append_many writes batches of logstore.batch.bytes.
SAME_BLOCKS = "C: pwrite, 64 KiB blocks"


def works() -> list[Work]:
    """From one record a call to ten thousand."""
    return [_buffered(), _appended(), _many(), _send()]


def _buffered() -> Work:
    return Work(
        "append-buffered",
        "Append one record a call, handed to the operating system at the end",
        "records",
        (
            Contestant(APPEND, "logstore", subject.append_one_by_one("buffered")),
            Contestant(AIOKAFKA, "peer", aiokafka_records.append_buffered, "aiokafka"),
            Contestant(
                KAFKA_PYTHON, "peer", kafka_python_records.append_buffered, "kafka", "kafka-python", records_max=20_000
            ),
            Contestant(LMDB_ONE_TRANSACTION, "peer", lmdb_store.append_buffered, "lmdb"),
            Contestant(ROCKSDB_BATCH, "peer", key_value.append_buffered(RocksDb), "rocksdict"),
            Contestant(LEVELDB_BATCH, "peer", key_value.append_buffered(LevelDb), "plyvel"),
            Contestant("SQLite: execute, one transaction", "peer", sqlite_store.append_buffered),
            Contestant("SQLite: executemany, one transaction", "peer", sqlite_store.append_many),
            Contestant("plain file: buffered writes", "peer", plain_file.append_buffered),
            Contestant("Python: empty compiled call", "limit", machine_limits.empty_call),
            Contestant("C: pwrite, 64 KiB blocks", "limit", machine_limits.write_blocks(64 << 10)),
            Contestant("C: pwrite, 256 KiB blocks", "limit", machine_limits.write_blocks(256 << 10)),
        ),
        targets=(
            Target(
                APPEND,
                at_least(6e6),
                (times(6, *STORES, called="the best store"), times(3, *ENCODERS, called="the best encoder")),
                value_bytes=100,
            ),
        ),
        each_size=True,
    )


def _appended() -> Work:
    return Work(
        "append-appended",
        "Append one record a call, each in the page cache when the call returns",
        "records",
        (
            Contestant(APPEND, "logstore", subject.append_one_by_one("appended")),
            Contestant(WRITTEN, "logstore", subject.append_one_by_one("appended", logstore_open_batch_mapped=False)),
            Contestant("LMDB: one transaction each, no sync", "peer", lmdb_store.append_appended, "lmdb"),
            Contestant("RocksDB: put", "peer", key_value.append_appended(RocksDb), "rocksdict"),
            Contestant("LevelDB: put", "peer", key_value.append_appended(LevelDb), "plyvel"),
            Contestant("SQLite: one transaction each, synchronous=OFF", "peer", sqlite_store.append_appended),
            Contestant(
                "persist-queue: put, synchronous=OFF",
                "peer",
                persist_queue.append(flushed=False),
                "persistqueue",
                "persist-queue",
                records_max=10_000,
            ),
            Contestant("plain file: os.write each", "peer", plain_file.append_appended),
            Contestant(
                "Redis Streams: XADD", "peer", redis_streams.append(records_per_call=1), "redis", records_max=5_000
            ),
            Contestant(
                "NATS JetStream: publish",
                "peer",
                nats_jetstream.append(in_flight=1),
                "nats",
                "nats-py",
                records_max=2_000,
            ),
            Contestant("Python: os.pwrite each", "limit", machine_limits.python_pwrite),
            Contestant(PWRITE, "limit", machine_limits.pwrite_each),
        ),
        records=lambda count: max(1, count // 4),
        targets=(Target(APPEND, times(0.9, PWRITE)), Target(WRITTEN, times(0.9, PWRITE))),
        each_size=True,
    )


def _many() -> Work:
    return Work(
        "append-many",
        "Append 10,000 records a call, in the page cache when the call returns",
        "records",
        (
            Contestant(MANY, "logstore", subject.append_many),
            Contestant("topic.append_many, Arrow arrays", "logstore", subject.append_many_arrow, "pyarrow"),
            Contestant("topic.append_many, numpy arrays", "logstore", subject.append_many_numpy, "numpy"),
            Contestant("LMDB: putmulti, one transaction, no sync", "peer", lmdb_store.append_many, "lmdb"),
            Contestant("RocksDB: batches of 10,000", "peer", key_value.append_many(RocksDb), "rocksdict"),
            Contestant("LevelDB: batches of 10,000", "peer", key_value.append_many(LevelDb), "plyvel"),
            Contestant("SQLite: executemany, one transaction", "peer", sqlite_store.append_many),
            Contestant("pyarrow: IPC file from lists of bytes", "peer", arrow_ipc.append_many, "pyarrow"),
            Contestant("C: copy, CRC-32C, pwrite 256 KiB", "limit", machine_limits.copy_checksum_write),
            Contestant(SAME_BLOCKS, "limit", machine_limits.write_blocks(64 << 10)),
            Contestant("C: pwrite, 256 KiB blocks", "limit", machine_limits.write_blocks(256 << 10)),
            Contestant(
                "C: pwrite, 256 KiB blocks, recycled file",
                "limit",
                machine_limits.write_blocks(256 << 10, recycled=True),
            ),
        ),
        targets=(
            Target(MANY, at_least(12e6), value_bytes=100),
            Target("topic.append_many, Arrow arrays", at_least(12e6), value_bytes=100),
            Target(MANY, times(0.8, SAME_BLOCKS), value_bytes=1000),
        ),
        each_size=True,
    )


def _send() -> Work:
    return Work(
        "send",
        "Send one record a call through a producer, all acknowledged at the end",
        "records",
        (
            Contestant(SEND, "logstore", subject.send_one_by_one("appended")),
            Contestant(SEND_FLUSHED, "logstore", subject.send_one_by_one("flushed")),
            Contestant(APPEND, "logstore", subject.append_one_by_one("buffered")),
            Contestant(CONFLUENT, "peer", confluent_client.produce, "confluent_kafka", "confluent-kafka"),
            Contestant(AIOKAFKA, "peer", aiokafka_records.append_buffered, "aiokafka"),
            Contestant(
                "Redis Streams: XADD, 1,000 a pipeline",
                "peer",
                redis_streams.append(records_per_call=1_000),
                "redis",
                records_max=20_000,
            ),
            Contestant(
                "NATS JetStream: publish, 2,000 in flight",
                "peer",
                nats_jetstream.append(in_flight=2_000),
                "nats",
                "nats-py",
                records_max=20_000,
            ),
            Contestant("Python: empty compiled call", "limit", machine_limits.empty_call),
        ),
        targets=(
            Target(SEND, at_least(4e6), value_bytes=100),
            Target(SEND_FLUSHED, at_least(1e6), times(0.5, SEND), value_bytes=100),
        ),
        each_size=True,
    )
