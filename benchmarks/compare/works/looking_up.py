"""Finding one record."""

from __future__ import annotations

from benchmarks.compare import read_limits, subject
from benchmarks.compare.measure import Contestant, Work
from benchmarks.compare.peers import key_value, lmdb_store, redis_streams, sqlite_store
from benchmarks.compare.peers.leveldb_store import LevelDb
from benchmarks.compare.peers.rocksdb_store import RocksDb
from benchmarks.compare.targets import Target, at_least, within

__all__ = ["works"]

SMALL_BATCHES = "topic.get, batches of 4 KiB"
LONG_LOG = "topic.get, batches of 4 KiB, 8 times the records"
PREAD = "C: pread of 4 KiB"
PREAD_AND_CHECK = "C: pread of 4 KiB + CRC-32C"


def works() -> list[Work]:
    """By offset, by time."""
    return [
        Work(
            "look-up-offset",
            "Find one record by its offset, at random",
            "look-ups",
            (
                Contestant(SMALL_BATCHES, "logstore", subject.look_up_offset(4096)),
                Contestant(LONG_LOG, "logstore", subject.look_up_offset(4096, times=8)),
                Contestant("topic.get, batches of 64 KiB", "logstore", subject.look_up_offset(65_536)),
                Contestant("topic.read(offset), batches of 4 KiB", "logstore", subject.look_up_offset(4096, by="read")),
                Contestant("LMDB: get", "peer", lmdb_store.look_up_offset, "lmdb"),
                Contestant("RocksDB: get", "peer", key_value.look_up_offset(RocksDb), "rocksdict"),
                Contestant("LevelDB: get", "peer", key_value.look_up_offset(LevelDb), "plyvel"),
                Contestant("SQLite: SELECT by primary key", "peer", sqlite_store.look_up_offset),
                Contestant(
                    "Redis Streams: XRANGE of one", "peer", redis_streams.look_up_offset, "redis", records_max=50_000
                ),
                Contestant(PREAD_AND_CHECK, "limit", read_limits.read_blocks(checksum=True)),
                Contestant(PREAD, "limit", read_limits.read_blocks()),
            ),
            targets=(
                Target(SMALL_BATCHES, at_least(1e6, "look-ups")),
                Target(LONG_LOG, at_least(1e6, "look-ups")),
                Target(LONG_LOG, within(1.5e-6)),
            ),
        ),
        Work(
            "look-up-time",
            "Find the first offset at or after a time, at random",
            "look-ups",
            (
                Contestant("topic.offset_for_timestamp", "logstore", subject.look_up_time),
                Contestant("LMDB: set_range, second database", "peer", lmdb_store.look_up_time, "lmdb"),
                Contestant("RocksDB: seek, second store", "peer", key_value.look_up_time(RocksDb), "rocksdict"),
                Contestant("LevelDB: seek, second store", "peer", key_value.look_up_time(LevelDb), "plyvel"),
                Contestant("SQLite: SELECT, second table", "peer", sqlite_store.look_up_time),
                Contestant(PREAD, "limit", read_limits.read_blocks()),
            ),
        ),
    ]
