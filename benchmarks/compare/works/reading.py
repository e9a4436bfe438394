"""Reading all of it: records, and columns."""

from __future__ import annotations

from benchmarks.compare import consuming, read_limits, subject, verifying
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
from benchmarks.compare.targets import PEERS, Target, at_least, times

__all__ = ["works"]

READ = "topic.read"
READ_AND_CHECK = "C: pread + CRC-32C"


def works() -> list[Work]:
    """Records with key and value taken, records only counted, columns, verification."""
    return [_iterate(), _untouched(), _columns(), _verify()]


def _iterate() -> Work:
    return Work(
        "iterate",
        "Iterate over all records, taking each key and value",
        "records",
        (
            Contestant(READ, "logstore", subject.iterate(touch=True)),
            Contestant("consumer, iterated", "logstore", consuming.iterate),
            Contestant("consumer.poll", "logstore", consuming.poll),
            Contestant("aiokafka: compiled reader, same files", "peer", aiokafka_records.iterate_touched, "aiokafka"),
            Contestant(
                "kafka-python: reader, same files",
                "peer",
                kafka_python_records.iterate,
                "kafka",
                "kafka-python",
                records_max=20_000,
            ),
            Contestant(
                "confluent-kafka: consume from its mock broker",
                "peer",
                confluent_client.consume,
                "confluent_kafka",
                "confluent-kafka",
            ),
            Contestant("LMDB: cursor, sliced", "peer", lmdb_store.iterate_touched, "lmdb"),
            Contestant("RocksDB: iterator, sliced", "peer", key_value.iterate(RocksDb), "rocksdict"),
            Contestant("LevelDB: iterator, sliced", "peer", key_value.iterate(LevelDb), "plyvel"),
            Contestant("SQLite: SELECT", "peer", sqlite_store.iterate),
            Contestant("plain file: unpack", "peer", plain_file.iterate),
            Contestant("pyarrow: IPC file, to_pylist", "peer", arrow_ipc.iterate, "pyarrow"),
            Contestant("Redis Streams: XRANGE", "peer", redis_streams.iterate, "redis", records_max=50_000),
            Contestant(
                "NATS JetStream: fetch of 1,000", "peer", nats_jetstream.iterate, "nats", "nats-py", records_max=20_000
            ),
            Contestant(
                "persist-queue: get", "peer", persist_queue.iterate, "persistqueue", "persist-queue", records_max=5_000
            ),
            Contestant("Python: compiled iterator of key and value", "limit", read_limits.iterate_pairs),
            Contestant(READ_AND_CHECK, "limit", read_limits.read_file(checksum=True)),
        ),
        targets=(
            Target(READ, at_least(8e6), value_bytes=100),
            Target(READ, times(1.5, PEERS)),
            Target("consumer, iterated", at_least(8e6), value_bytes=100),
        ),
        each_size=True,
    )


def _untouched() -> Work:
    return Work(
        "iterate-untouched",
        "Iterate over all records, only counting them",
        "records",
        (
            Contestant(READ, "logstore", subject.iterate(touch=False)),
            Contestant("aiokafka: compiled reader, same files", "peer", aiokafka_records.iterate, "aiokafka"),
            Contestant("LMDB: cursor, joined", "peer", lmdb_store.iterate, "lmdb"),
        ),
    )


def _columns() -> Work:
    return Work(
        "columns",
        "Read all records as columns of numpy arrays, every CRC verified",
        "records",
        (
            Contestant("topic.scan", "logstore", subject.columns),
            Contestant("consumer.fetch_columns", "logstore", consuming.columns),
            Contestant("pyarrow: IPC file, read, no CRC", "peer", arrow_ipc.columns, "pyarrow"),
            Contestant(READ_AND_CHECK, "limit", read_limits.read_file(checksum=True)),
            Contestant("C: pread", "limit", read_limits.read_file(checksum=False)),
            Contestant("C: memcpy", "limit", read_limits.copy_memory),
        ),
        targets=(
            Target("topic.scan", at_least(60e6), value_bytes=100),
            Target("topic.scan", times(0.7, READ_AND_CHECK), value_bytes=1000),
        ),
        each_size=True,
    )


def _verify() -> Work:
    return Work(
        "verify",
        "Check every byte of a partition's directory",
        "records",
        (
            Contestant("verify, deep", "logstore", verifying.verify),
            Contestant(READ_AND_CHECK, "limit", read_limits.read_file(checksum=True)),
        ),
        targets=(Target("verify, deep", times(0.7, READ_AND_CHECK), value_bytes=1000),),
        each_size=True,
    )
