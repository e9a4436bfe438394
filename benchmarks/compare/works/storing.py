"""Compression beside the codec alone, and what a record takes on the disk."""

from __future__ import annotations

from benchmarks.compare import codec_speed, disk_space
from benchmarks.compare.measure import Contestant, Work
from benchmarks.compare.peers import (
    arrow_ipc,
    key_value,
    lmdb_store,
    nats_jetstream,
    plain_file,
    redis_streams,
    sqlite_store,
)
from benchmarks.compare.peers.leveldb_store import LevelDb
from benchmarks.compare.peers.rocksdb_store import RocksDb
from benchmarks.compare.targets import Target, at_most, times

__all__ = ["works"]

ALONE = {"zstd": "zstandard: one context, level 3", "lz4": "cramjam: lz4 blocks"}


def works() -> list[Work]:
    """zstd and lz4 both ways; bytes on the disk."""
    return [
        *(_compress(codec) for codec in ("zstd", "lz4")),
        *(_decompress(codec) for codec in ("zstd", "lz4")),
        _disk(),
    ]


def _compress(codec: codec_speed.Codec) -> Work:
    module = {"zstd": "zstandard", "lz4": "cramjam"}[codec]
    return Work(
        f"compress-{codec}",
        f"Compress records in batches of 64 KiB with {codec}",
        "records",
        (
            Contestant("codec of a batch", "logstore", codec_speed.compress(codec, alone=False), module),
            Contestant(f"topic.append_many, {codec}", "logstore", codec_speed.append_many(codec), module),
            Contestant(ALONE[codec], "limit", codec_speed.compress(codec, alone=True), module),
        ),
        targets=(Target("codec of a batch", times(0.9, ALONE[codec])),),
    )


def _decompress(codec: codec_speed.Codec) -> Work:
    module = {"zstd": "zstandard", "lz4": "cramjam"}[codec]
    return Work(
        f"decompress-{codec}",
        f"Decompress records in batches of 64 KiB with {codec}",
        "records",
        (
            Contestant("codec of a batch", "logstore", codec_speed.decompress(codec, alone=False), module),
            Contestant(f"topic.scan, {codec}", "logstore", codec_speed.columns(codec), module),
            Contestant(ALONE[codec], "limit", codec_speed.decompress(codec, alone=True), module),
        ),
        targets=(Target("codec of a batch", times(0.9, ALONE[codec])),),
    )


def _disk() -> Work:
    return Work(
        "disk",
        "What a record takes on the disk over its key and value, once the store is closed",
        "records",
        (
            Contestant("topic.append_many", "logstore", disk_space.taken_by(disk_space.write_logstore)),
            Contestant("topic.append, buffered", "logstore", disk_space.taken_by(disk_space.write_logstore_one_by_one)),
            Contestant("LMDB", "peer", disk_space.taken_by(lmdb_store.store_records), "lmdb"),
            Contestant("RocksDB", "peer", disk_space.taken_by(key_value.store_records(RocksDb)), "rocksdict"),
            Contestant("LevelDB", "peer", disk_space.taken_by(key_value.store_records(LevelDb)), "plyvel"),
            Contestant("SQLite", "peer", disk_space.taken_by(sqlite_store.store_records)),
            Contestant("pyarrow: IPC file", "peer", disk_space.taken_by(arrow_ipc.store_records), "pyarrow"),
            Contestant("plain file: two lengths", "peer", disk_space.taken_by(plain_file.store_records)),
            Contestant(
                "Redis Streams: append-only file",
                "peer",
                disk_space.taken_by(redis_streams.store_records),
                "redis",
                records_max=20_000,
            ),
            Contestant(
                "NATS JetStream",
                "peer",
                disk_space.taken_by(nats_jetstream.store_records),
                "nats",
                "nats-py",
                records_max=20_000,
            ),
        ),
        targets=tuple(
            Target(name, at_most(12, "bytes a record"), value_bytes=100)
            for name in ("topic.append_many", "topic.append, buffered")
        ),
        amount="bytes a record",
        rounds_max=1,
    )
