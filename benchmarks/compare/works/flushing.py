"""Appending with every call on disk when it returns."""

from __future__ import annotations

from benchmarks.compare import machine_limits, subject
from benchmarks.compare.measure import Contestant, Work
from benchmarks.compare.peers import (
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
from benchmarks.compare.targets import PEERS, Target, times

__all__ = ["works"]

LOOPS = {
    "growing": "C: pwrite + fdatasync, file grows",
    "fallocated": "C: pwrite + fdatasync, file fallocated",
    "zero-filled": "C: pwrite + fdatasync, file filled with zeros",
    "recycled": "C: pwrite + fdatasync, file recycled",
}
EIGHT = "topic.append, 8 threads"
ONE = "topic.append, 1 thread"


def works(flushed_records: int) -> list[Work]:
    """Batches of 1, 100 and 1,000 records; single records from several threads."""
    return [
        _flushed(1, flushed_records),
        _flushed(100, flushed_records),
        _flushed(1_000, flushed_records),
        _threads(flushed_records),
    ]


def _flushed(batch: int, flushed_records: int) -> Work:
    calls = max(5, {1: flushed_records, 100: flushed_records * 2 // 5, 1_000: flushed_records // 10}[batch])
    ours = "topic.append" if batch == 1 else f"topic.append_many of {batch:,}"
    append = subject.append_one_by_one("flushed") if batch == 1 else subject.append_flushed_batches(batch)
    return Work(
        f"append-flushed-{batch}",
        f"Append {batch:,} record{'s' if batch > 1 else ''} a call, on disk when the call returns",
        "records",
        (
            Contestant(ours, "logstore", append),
            Contestant("LMDB: synced transactions", "peer", lmdb_store.append_flushed(batch), "lmdb"),
            Contestant("RocksDB: synced batches", "peer", key_value.append_flushed(RocksDb, batch), "rocksdict"),
            Contestant("LevelDB: synced batches", "peer", key_value.append_flushed(LevelDb, batch), "plyvel"),
            Contestant("SQLite: transactions, synchronous=FULL", "peer", sqlite_store.append_flushed(batch)),
            Contestant("plain file: os.write + fdatasync", "peer", plain_file.append_flushed(batch)),
            *_servers(batch),
            *(
                Contestant(name, "limit", machine_limits.flushed_batches(batch, file))
                for file, name in LOOPS.items()
            ),
        ),
        records=lambda count: min(count, calls * batch + 1),
        targets=(
            Target(ours, times(1, PEERS)),
            Target(ours, times(0.9, *LOOPS.values(), called="the best loop in C")),
        ),
        each_size=True,
    )


def _servers(batch: int) -> tuple[Contestant, ...]:
    redis = Contestant(
        f"Redis Streams: XADD{'' if batch == 1 else f', {batch:,} a pipeline'}, appendfsync always",
        "peer",
        redis_streams.append(records_per_call=batch, sync=True),
        "redis",
    )
    nats = Contestant(
        f"NATS JetStream: publish, {batch:,} in flight, sync always",
        "peer",
        nats_jetstream.append(in_flight=batch, sync=True),
        "nats",
        "nats-py",
        records_max=500,
    )
    queue = Contestant(
        "persist-queue: put", "peer", persist_queue.append(flushed=True), "persistqueue", "persist-queue"
    )
    return (redis, nats, queue) if batch == 1 else (redis, nats)


def _threads(flushed_records: int) -> Work:
    return Work(
        "append-threads",
        "Append one record a call from several threads, each on disk when the call returns",
        "records",
        (
            Contestant(EIGHT, "logstore", subject.append_in_threads(8)),
            Contestant("topic.append, 4 threads", "logstore", subject.append_in_threads(4)),
            Contestant("topic.append, 2 threads", "logstore", subject.append_in_threads(2)),
            Contestant(ONE, "logstore", subject.append_in_threads(1)),
            *(
                Contestant(LOOPS[file], "limit", machine_limits.flushed_batches(1, file))
                for file in ("growing", "zero-filled")
            ),
        ),
        records=lambda count: min(count, 2 * flushed_records),
        targets=(Target(EIGHT, times(5, ONE)),),
    )
