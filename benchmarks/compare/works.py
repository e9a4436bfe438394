"""The works in the order of the table: what is done, by whom, what is asked of logstore."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.compare import consuming, machine_limits, subject
from benchmarks.compare.measure import Contestant, Target, Work
from benchmarks.compare.peers import (
    aiokafka_records,
    arrow_ipc,
    confluent_producer,
    lmdb_store,
    plain_file,
    sqlite_store,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["all_works"]

FLUSHED_RECORDS = 500
APPEND = "topic.append"
SEND = "producer.send, appended"
GROWING = "C: pwrite + fdatasync, file grows"


def all_works(open_mib: Sequence[int], flushed_records: int = FLUSHED_RECORDS) -> list[Work]:
    """Every work; `open_mib` says how large the stores are that are opened."""
    return [
        Work(
            "append-buffered",
            "Append one record a call, handed to the operating system at the end",
            "records",
            (
                Contestant(APPEND, "logstore", subject.append_one_by_one("buffered")),
                Contestant(
                    "aiokafka: compiled batch builder + write",
                    "peer",
                    aiokafka_records.append_buffered,
                    "aiokafka",
                ),
                Contestant(
                    "LMDB: put, one transaction, no sync",
                    "peer",
                    lmdb_store.append_buffered,
                    "lmdb",
                ),
                Contestant("SQLite: execute, one transaction", "peer", sqlite_store.append_buffered),
                Contestant("SQLite: executemany, one transaction", "peer", sqlite_store.append_many),
                Contestant("plain file: buffered writes", "peer", plain_file.append_buffered),
                Contestant("Python: empty compiled call", "limit", machine_limits.empty_call),
                Contestant("C: write, 64 KiB blocks", "limit", machine_limits.write_blocks(64 << 10)),
                Contestant("C: write, 256 KiB blocks", "limit", machine_limits.write_blocks(256 << 10)),
            ),
            targets=(Target(APPEND, per_second=2.5e6, times=3, of="LMDB: put, one transaction, no sync"),),
        ),
        Work(
            "append-appended",
            "Append one record a call, each in the page cache when the call returns",
            "records",
            (
                Contestant(APPEND, "logstore", subject.append_one_by_one("appended")),
                Contestant(
                    "LMDB: one transaction each, no sync",
                    "peer",
                    lmdb_store.append_appended,
                    "lmdb",
                ),
                Contestant(
                    "SQLite: one transaction each, synchronous=OFF",
                    "peer",
                    sqlite_store.append_appended,
                ),
                Contestant("plain file: os.write each", "peer", plain_file.append_appended),
                Contestant("Python: os.pwrite each", "limit", machine_limits.python_pwrite),
                Contestant("C: pwrite each", "limit", machine_limits.write_each(sync=False)),
            ),
            records=lambda count: max(1, count // 4),
            targets=(Target(APPEND, times=0.8, of="C: pwrite each"),),
        ),
        Work(
            "append-flushed",
            "Append one record a call, each on disk when the call returns",
            "records",
            (
                Contestant(APPEND, "logstore", subject.append_one_by_one("flushed")),
                Contestant("LMDB: one synced transaction each", "peer", lmdb_store.append_flushed, "lmdb"),
                Contestant(
                    "SQLite: one transaction each, synchronous=FULL",
                    "peer",
                    sqlite_store.append_flushed,
                ),
                Contestant("plain file: os.write + fdatasync each", "peer", plain_file.append_flushed),
                Contestant(GROWING, "limit", machine_limits.write_each(sync=True)),
                Contestant(
                    "C: pwrite + fdatasync, file written before",
                    "limit",
                    machine_limits.write_each(sync=True, zero_filled=True),
                ),
            ),
            records=lambda count: min(count, flushed_records),
            targets=(Target(APPEND, times=0.8, of=GROWING),),
        ),
        Work(
            "send",
            "Send one record a call through a producer, all acknowledged at the end",
            "records",
            (
                Contestant(SEND, "logstore", subject.send_one_by_one("appended")),
                Contestant("producer.send, flushed", "logstore", subject.send_one_by_one("flushed")),
                Contestant(APPEND, "logstore", subject.append_one_by_one("buffered")),
                Contestant(
                    "confluent-kafka: produce to its mock broker",
                    "peer",
                    confluent_producer.produce,
                    "confluent_kafka",
                ),
                Contestant(
                    "aiokafka: compiled batch builder + write",
                    "peer",
                    aiokafka_records.append_buffered,
                    "aiokafka",
                ),
                Contestant("Python: empty compiled call", "limit", machine_limits.empty_call),
            ),
            targets=(
                Target(SEND, per_second=2e6, times=3, of="confluent-kafka: produce to its mock broker"),
                Target("producer.send, flushed", per_second=1e6, times=0.5, of=SEND),
            ),
        ),
        Work(
            "append-threads",
            "Append one record a call from several threads, each on disk when the call returns",
            "records",
            (
                Contestant("topic.append, 4 threads", "logstore", subject.append_in_threads(4)),
                Contestant("topic.append, 2 threads", "logstore", subject.append_in_threads(2)),
                Contestant("topic.append, 1 thread", "logstore", subject.append_in_threads(1)),
                Contestant(GROWING, "limit", machine_limits.write_each(sync=True)),
            ),
            records=lambda count: min(count, 2 * flushed_records),
        ),
        Work(
            "append-many",
            "Append 10,000 records a call, in the page cache when the call returns",
            "records",
            (
                Contestant("topic.append_many, lists of bytes", "logstore", subject.append_many),
                Contestant(
                    "topic.append_many, Arrow arrays",
                    "logstore",
                    subject.append_many_arrow,
                    "pyarrow",
                ),
                Contestant(
                    "LMDB: putmulti, one transaction, no sync",
                    "peer",
                    lmdb_store.append_many,
                    "lmdb",
                ),
                Contestant("SQLite: executemany, one transaction", "peer", sqlite_store.append_many),
                Contestant(
                    "pyarrow: IPC file from lists of bytes",
                    "peer",
                    arrow_ipc.append_many,
                    "pyarrow",
                ),
                Contestant("C: copy, CRC-32C, write 256 KiB", "limit", machine_limits.copy_checksum_write),
                Contestant("C: write, 256 KiB blocks", "limit", machine_limits.write_blocks(256 << 10)),
                Contestant(
                    "C: write, 256 KiB blocks, recycled file",
                    "limit",
                    machine_limits.write_blocks(256 << 10, recycled=True),
                ),
            ),
            targets=(Target("topic.append_many, lists of bytes", per_second=8e6),),
        ),
        Work(
            "iterate",
            "Iterate over all records, taking each key and value",
            "records",
            (
                Contestant("topic.read", "logstore", subject.iterate(touch=True)),
                Contestant("consumer, iterated", "logstore", consuming.iterate),
                Contestant("consumer.poll", "logstore", consuming.poll),
                Contestant(
                    "aiokafka: compiled reader, same files",
                    "peer",
                    aiokafka_records.iterate_touched,
                    "aiokafka",
                ),
                Contestant("LMDB: cursor, sliced", "peer", lmdb_store.iterate_touched, "lmdb"),
                Contestant("SQLite: SELECT", "peer", sqlite_store.iterate),
                Contestant("plain file: unpack", "peer", plain_file.iterate),
                Contestant("pyarrow: IPC file, to_pylist", "peer", arrow_ipc.iterate, "pyarrow"),
                Contestant("C: pread + CRC-32C", "limit", machine_limits.read_file(checksum=True)),
            ),
            targets=(Target("topic.read", per_second=4e6), Target("consumer, iterated", per_second=3e6)),
        ),
        Work(
            "iterate-untouched",
            "Iterate over all records, only counting them",
            "records",
            (
                Contestant("topic.read", "logstore", subject.iterate(touch=False)),
                Contestant(
                    "aiokafka: compiled reader, same files",
                    "peer",
                    aiokafka_records.iterate,
                    "aiokafka",
                ),
                Contestant("LMDB: cursor, joined", "peer", lmdb_store.iterate, "lmdb"),
            ),
        ),
        Work(
            "columns",
            "Read all records as columns, every CRC verified (pyarrow has none)",
            "records",
            (
                Contestant("topic.scan", "logstore", subject.columns),
                Contestant("consumer.fetch_columns", "logstore", consuming.columns),
                Contestant("pyarrow: IPC file, read", "peer", arrow_ipc.columns, "pyarrow"),
                Contestant("C: pread + CRC-32C", "limit", machine_limits.read_file(checksum=True)),
                Contestant("C: pread", "limit", machine_limits.read_file(checksum=False)),
                Contestant("C: memcpy", "limit", machine_limits.copy_memory),
            ),
            targets=(Target("topic.scan", per_second=30e6), Target("consumer.fetch_columns", per_second=20e6)),
        ),
        Work(
            "wake-up",
            "Append a record, until a consumer that slept holds its value",
            "wake-ups",
            (
                Contestant("topic.append -> consumer", "logstore", consuming.wake_consumer),
                Contestant("Python: eventfd", "limit", consuming.wake_eventfd),
            ),
            targets=(Target("topic.append -> consumer", times=1 / 1.5, of="Python: eventfd"),),
        ),
        Work(
            "look-up-offset",
            "Find one record by its offset, at random",
            "look-ups",
            (
                Contestant("topic.read(offset)", "logstore", subject.look_up_offset),
                Contestant("LMDB: get", "peer", lmdb_store.look_up_offset, "lmdb"),
                Contestant("SQLite: SELECT by primary key", "peer", sqlite_store.look_up_offset),
                Contestant("C: pread of 4 KiB", "limit", machine_limits.read_pages),
            ),
        ),
        Work(
            "look-up-time",
            "Find the first offset at or after a time, at random",
            "look-ups",
            (
                Contestant("topic.offset_for_timestamp", "logstore", subject.look_up_time),
                Contestant("LMDB: set_range, second database", "peer", lmdb_store.look_up_time, "lmdb"),
                Contestant("SQLite: SELECT, second table", "peer", sqlite_store.look_up_time),
                Contestant("C: pread of 4 KiB", "limit", machine_limits.read_pages),
            ),
        ),
        *(_opening(mib, killed=killed) for killed in (False, True) for mib in open_mib),
    ]


def _opening(mib: int, *, killed: bool) -> Work:
    after = "after SIGKILL with nothing flushed" if killed else "after a clean close"
    size_bytes = mib << 20
    return Work(
        f"open-{'killed' if killed else 'clean'}-{mib}-mib",
        f"Open a store of {mib} MiB and learn its end, {after}",
        "opens",
        (
            Contestant("logstore.open", "logstore", subject.opened(size_bytes, killed=killed)),
            Contestant("LMDB", "peer", lmdb_store.opened(size_bytes, killed=killed), "lmdb"),
            Contestant("SQLite", "peer", sqlite_store.opened(size_bytes, killed=killed)),
        ),
        rounds_max=3 if killed and mib > 64 else 1000,
    )
