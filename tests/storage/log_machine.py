"""A hypothesis state machine that drives a `Log` against `LogModel`, through closes, kills and losses of power."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import crash_states
import pytest
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from log_model import Entry, Headers, LogModel
from manual_scheduler import ManualScheduler
from reference_codec import decode_log
from reference_files import derive_indexes, encode_offset_index, encode_time_index

from logstore._native.record_batch import Record, RecordBatch
from logstore._native.record_batch_builder import RecordBatchBuilder
from logstore.errors import CorruptDataError, OffsetOutOfRangeError, RecordTooLargeError
from logstore.storage.config import TopicConfig
from logstore.storage.log import Log

START_MS = 1_700_000_000_000
NEVER = 2**63 - 1
CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
LEVELS = st.sampled_from(["buffered", "appended", "flushed", None])
BYTES = st.one_of(st.none(), st.just(b""), st.binary(max_size=40), st.integers(60, 400).map(bytes))
HEADERS = st.lists(st.tuples(st.text(max_size=5), st.one_of(st.none(), st.binary(max_size=5))), max_size=2).map(tuple)
# What an explicit timestamp says relative to the clock; None is a record without a timestamp.
AGES = st.one_of(st.none(), st.integers(-3_000_000, 3_000_000), st.sampled_from([0, -1, START_MS]))
RECORDS = st.lists(st.tuples(AGES, BYTES, BYTES, HEADERS), min_size=1, max_size=12)


def entry_of(record: Record) -> Entry:
    return Entry(record.offset, record.timestamp, record.key, record.value, tuple(record.headers))


def entries_of(records: Iterable[Record]) -> list[Entry]:
    return [entry_of(record) for record in records]


class LogMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        # In memory where that can be had: the losses of power are made up, and a real fsync takes its time.
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.root = Path(tempfile.mkdtemp(prefix="logstore-model-", dir=memory))
        self.generation = 0
        self.now_ms = START_MS
        self.damaged_indexes: set[str] = set()  # files that nobody had to write again

    @initialize(
        segment_bytes=st.sampled_from([1024, 1500, 4096, 8192]),
        index_interval_bytes=st.sampled_from([0, 100, 512]),
        batch_bytes=st.sampled_from([64, 300, 900]),
        codec=st.sampled_from(sorted(CODECS)),
        append_time=st.sampled_from([False, False, False, True]),
        flush_messages=st.sampled_from([NEVER, NEVER, 3]),
    )
    def begin(self, segment_bytes, index_interval_bytes, batch_bytes, codec, append_time,
              flush_messages):  # fmt: skip
        self.config = TopicConfig(
            {
                "segment.bytes": segment_bytes,
                "index.interval.bytes": index_interval_bytes,
                "logstore.batch.bytes": batch_bytes,
                "compression.type": "uncompressed" if codec == "none" else codec,
                "message.timestamp.type": "LogAppendTime" if append_time else "CreateTime",
                "flush.messages": flush_messages,
                "segment.ms": 10**15,
            }
        )
        self.model = LogModel(append_time=append_time)
        self.directory = self.root / "0" / "orders-0"
        self.on_disk_offset = 0  # records below it have been flushed
        self.open()

    def open(self) -> None:
        self.scheduler = ManualScheduler()
        self.log = self.open_log(self.directory, scheduler=self.scheduler)
        self.last_flushed = 0  # by this object; a checkpoint may know less than was flushed

    def open_log(self, directory: Path, **arguments: object) -> Log:
        return Log(directory, self.config, clock=lambda: self.now_ms, **arguments)

    def teardown(self) -> None:
        if hasattr(self, "log"):
            self.close()
        shutil.rmtree(self.root)

    # ---- appending ----------------------------------------------------------------------------

    def timestamp(self, age: int | None) -> int:
        return self.now_ms if age is None else max(self.now_ms - age, -1)

    def handed_over(self) -> None:
        self.model.hand_over(self.log.log_end_offset, self.now_ms)

    def check_acknowledged(self, level: str | None) -> None:
        self.handed_over()
        if level != "buffered":
            assert self.log.log_end_offset == self.model.end_offset
        if level in ("flushed", None):
            assert self.log.flushed_offset == self.model.end_offset
        unflushed = self.log.log_end_offset - self.log.flushed_offset
        assert unflushed < self.config["flush.messages"]

    @rule(age=AGES, key=BYTES, value=BYTES, headers=HEADERS, level=LEVELS)
    def append(self, age, key, value, headers, level):
        given = None if age is None else self.timestamp(age)
        offset = self.log.append(value, key, headers=list(headers) or None, timestamp=given, durability=level)
        assert offset == self.model.append(self.timestamp(age), key, value, headers)
        self.check_acknowledged(level)

    @rule(records=RECORDS, with_keys=st.booleans(), with_times=st.booleans(), level=LEVELS)
    def append_many(self, records, with_keys, with_times, level):
        headers: Headers = records[0][3]
        offsets = self.log.append_many(
            [value for _, _, value, _ in records],
            [key for _, key, _, _ in records] if with_keys else None,
            timestamps=[self.timestamp(age) for age, *_ in records] if with_times else None,
            headers=list(headers) or None,
            durability=level,
        )
        assert offsets == range(self.model.end_offset, self.model.end_offset + len(records))
        for age, key, value, _ in records:
            timestamp = self.timestamp(age) if with_times else self.now_ms
            self.model.append(timestamp, key if with_keys else None, value, headers)
        self.check_acknowledged(level)

    def build(self, records, codec: str, **fields: int) -> RecordBatch:
        builder = RecordBatchBuilder()
        for age, key, value, headers in records:
            builder.append(value, key, headers=list(headers), timestamp=self.timestamp(age))
        return builder.build(codec=CODECS[codec], **fields)

    @rule(records=RECORDS, codec=st.sampled_from(sorted(CODECS)), level=LEVELS)
    def append_as_leader(self, records, codec, level):
        batch = self.build(records, codec)
        assume(batch.size_bytes <= self.config["segment.bytes"])
        offsets = self.log.append_as_leader(bytes(batch), durability=level)
        assert offsets == range(self.model.end_offset, self.model.end_offset + len(records))
        for age, key, value, headers in records:
            self.model.append(self.timestamp(age), key, value, headers)
        self.check_acknowledged("appended" if level == "buffered" else level)

    @precondition(lambda self: not self.model.append_time)
    @rule(
        records=RECORDS, codec=st.sampled_from(sorted(CODECS)), level=LEVELS,
        gap=st.sampled_from([0, 0, 0, 1, 7]),
    )  # fmt: skip
    def append_as_follower(self, records, codec, level, gap):
        self.log.flush("appended")
        self.handed_over()
        base_offset = self.model.end_offset + gap
        batch = self.build(records, codec, base_offset=base_offset, partition_leader_epoch=self.generation)
        assume(batch.size_bytes <= self.config["segment.bytes"])
        offsets = self.log.append_as_follower(bytes(batch), durability=level)
        assert offsets == range(base_offset, base_offset + len(records))
        self.model.end_offset = base_offset
        for age, key, value, headers in records:
            self.model.append(self.timestamp(age), key, value, headers)
        self.check_acknowledged("appended" if level == "buffered" else level)

    @rule(level=LEVELS)
    def append_too_large(self, level):
        value = bytes(self.config["segment.bytes"])
        with pytest.raises(RecordTooLargeError):
            self.log.append(value, durability=level)

    @rule(level=st.sampled_from(["appended", "flushed"]))
    def flush(self, level):
        self.log.flush(level)
        self.check_acknowledged(level)

    @rule(ms=st.sampled_from([1, 1000, 3_600_000]))
    def time_passes(self, ms):
        self.now_ms += ms

    @rule()
    def background_work(self):
        self.scheduler.run(within_ms=1000)
        self.handed_over()

    # ---- reading ------------------------------------------------------------------------------

    def some_offset(self, data, most: int | None = None) -> int:
        end = self.log.log_end_offset if most is None else most
        return data.draw(st.integers(self.model.start_offset, end), label="offset")

    @rule()
    def read_all(self):
        assert entries_of(self.log.read()) == self.model.visible()

    @rule(data=st.data(), stop=st.one_of(st.none(), st.integers(0, 100)))
    def read(self, data, stop):
        start = self.some_offset(data)
        assert entries_of(self.log.read(start, stop=stop)) == self.model.visible(start, stop)

    @rule(beyond=st.integers(1, 5))
    def read_out_of_range(self, beyond):
        for offset in (self.model.start_offset - beyond, self.log.log_end_offset + beyond):
            if offset >= 0:
                with pytest.raises(OffsetOutOfRangeError) as caught:
                    self.log.read(offset)
                assert caught.value.offset == offset
                assert caught.value.log_start_offset == self.model.start_offset
                assert caught.value.log_end_offset == self.model.visible_end_offset

    @rule(data=st.data())
    def read_by_time(self, data):
        timestamps = [entry.timestamp for entry in self.model.visible()]
        timestamp = data.draw(st.sampled_from(sorted({0, self.now_ms, *timestamps})))
        timestamp = max(timestamp + data.draw(st.sampled_from([-1, 0, 1])), 0)
        expected = self.model.first_at_or_after(timestamp)
        found = self.log.offset_for_timestamp(timestamp)
        assert found == (None if expected is None else (expected.offset, expected.timestamp))
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=timestamp)
        start = self.model.visible_end_offset if expected is None else expected.offset
        assert entries_of(self.log.read(moment)) == self.model.visible(start)
        assert entries_of(self.log.read(stop=moment)) == self.model.visible(None, start)

    @rule(data=st.data(), max_bytes=st.sampled_from([0, 1, 200, 1000, 100_000]))
    def fetch(self, data, max_bytes):
        start = self.some_offset(data)
        batches = self.log.fetch(start, max_bytes)
        expected = self.model.visible(start)
        assert bool(batches) == bool(expected)
        if not batches:
            return
        assert len(batches) == 1 or sum(batch.size_bytes for batch in batches) <= max_bytes
        got = [entry for batch in batches for entry in entries_of(batch)]
        got = [entry for entry in got if entry.offset >= start]
        assert got == expected[: len(got)]
        assert got
        if max_bytes == 100_000:
            assert got == expected

    @rule(data=st.data())
    def scan(self, data):
        start = self.some_offset(data)
        expected = self.model.visible(start)
        batches = list(self.log.scan(start))
        assert [int(offset) for b in batches for offset in b.offsets] == [e.offset for e in expected]
        assert [int(time) for b in batches for time in b.timestamps] == [e.timestamp for e in expected]
        assert [key for b in batches for key in list(b.keys())] == [e.key for e in expected]
        assert [value for b in batches for value in b.values()] == [e.value for e in expected]

    @rule()
    def read_beside(self):
        with self.open_log(self.directory, read_only=True) as reader:
            assert reader.damage is None
            assert reader.log_start_offset == self.model.start_offset
            assert reader.log_end_offset == self.model.visible_end_offset
            assert entries_of(reader.read()) == self.model.visible()

    # ---- changing shape -----------------------------------------------------------------------

    @rule(data=st.data())
    def truncate_to(self, data):
        offset = data.draw(st.integers(0, self.model.end_offset + 2), label="offset")
        self.log.truncate_to(offset)
        self.model.hand_over(self.model.end_offset, self.now_ms)
        if offset < self.model.end_offset:
            self.model.cut(offset)
            self.last_flushed = self.on_disk_offset = offset
            assert self.log.flushed_offset == offset

    @rule(data=st.data())
    def advance_log_start_offset(self, data):
        self.log.flush("appended")
        self.handed_over()
        offset = self.some_offset(data)
        self.log.advance_log_start_offset(offset)
        self.model.advance_start(offset)

    @rule()
    def roll(self):
        self.log.roll()
        self.handed_over()

    # ---- the end, and beginning again ---------------------------------------------------------

    def close(self) -> None:
        writable = self.log.is_writable
        self.log.close()
        self.model.hand_over(self.model.end_offset, self.now_ms)
        if writable:
            self.check_index_files()

    @rule()
    def reopen(self):
        self.close()
        self.open()
        assert self.log.damage is None
        assert self.log.recovery_report.cut_bytes == 0
        assert self.log.recovery_report.rebuilt_indexes == 0
        assert self.log.flushed_offset == self.model.end_offset
        assert entries_of(self.log.read()) == self.model.visible()

    def next_directory(self) -> Path:
        self.generation += 1
        return self.root / str(self.generation) / "orders-0"

    @rule()
    def kill(self):
        """Whatever was handed over is there."""
        copy = crash_states.copy_log(self.directory, self.next_directory())
        self.close_aside()
        self.directory = copy
        self.model.drop_open_batch()
        self.open()
        assert self.log.damage is None
        assert self.log.recovery_report.cut_bytes == 0
        assert self.log.flushed_offset <= self.log.log_end_offset
        assert entries_of(self.log.read()) == self.model.visible()

    def close_aside(self) -> None:
        """The process that is killed: whatever it does after the copy does not count."""
        self.log.close()

    @rule(seed=st.integers(0, 2**32), garbage=st.booleans())
    def lose_power(self, seed, garbage):
        """A prefix is there, with all that was flushed; and recovering twice changes nothing more."""
        flushed = self.on_disk_offset
        copy = crash_states.copy_log(self.directory, self.next_directory())
        damaged = crash_states.lose_power(copy, flushed, Random(seed), garbage=garbage)
        if not (copy / "logstore.checkpoint").exists():
            # Only the records say then where the log ended, not what was truncated or skipped behind them.
            kept = self.model.visible(None, flushed)
            flushed = kept[-1].offset + 1 if kept else 0
        recovered = self.open_log(copy, scheduler=ManualScheduler())
        if recovered.damage is not None:
            # Garbage with a sound batch behind it can't be told from damage to what was acknowledged.
            assert garbage, recovered.damage
            self.check_around_damage(recovered, flushed)
            recovered.close()
            return
        assert flushed <= recovered.log_end_offset <= self.model.visible_end_offset, recovered
        state = self.check_recovered(recovered)
        again = crash_states.copy_log(copy, self.next_directory())
        recovered.close()
        self.close_aside()
        self.directory = again
        self.open()
        assert self.log.recovery_report.cut_bytes == 0
        assert (self.log.log_start_offset, self.log.log_end_offset) == state
        self.model.cut(self.log.log_end_offset)
        self.on_disk_offset = min(self.on_disk_offset, self.model.end_offset)
        self.damaged_indexes |= damaged
        # An older slot of the checkpoint may know an earlier start.
        self.log.advance_log_start_offset(self.model.start_offset)
        assert entries_of(self.log.read()) == self.model.visible()

    def check_recovered(self, recovered: Log) -> tuple[int, int]:
        assert recovered.log_start_offset <= self.model.start_offset
        end = recovered.log_end_offset
        start = min(self.model.start_offset, end)
        read, expected = entries_of(recovered.read(start)), self.model.visible(None, end)
        assert [entry.offset for entry in read] == [entry.offset for entry in expected], recovered
        assert read == expected
        return recovered.log_start_offset, end

    def check_around_damage(self, recovered: Log, flushed: int) -> None:
        read = []
        try:
            for record in recovered.read(self.model.start_offset):
                read.append(entry_of(record))
        except CorruptDataError:
            pass
        expected = self.model.visible()
        assert read == expected[: len(read)]
        assert not read or read[-1].offset >= flushed - 1 or len(read) == len(expected)
        assert len(read) >= len(self.model.visible(None, flushed))

    # ---- always -------------------------------------------------------------------------------

    @invariant()
    def offsets_agree(self):
        if not hasattr(self, "log"):
            return
        assert self.log.log_start_offset == self.model.start_offset
        assert self.log.log_end_offset == self.model.visible_end_offset
        assert self.log.flushed_offset <= self.log.log_end_offset
        assert self.log.flushed_offset >= self.last_flushed
        self.last_flushed = self.log.flushed_offset
        self.on_disk_offset = max(self.on_disk_offset, self.last_flushed)
        buffered = self.log.open_batch_records_count
        assert self.log.log_end_offset + buffered == self.model.end_offset

    def check_index_files(self) -> None:
        """After a close in good order the files are those that the format's rule gives (log-format, 3.4)."""
        paths = crash_states.segment_paths(self.directory)
        for path in paths:
            base_offset = int(path.stem)
            batches = [(position, batch.header) for position, batch in decode_log(path.read_bytes(), base_offset)]
            offsets, times = derive_indexes(batches, base_offset, self.config["index.interval.bytes"])
            for suffix, expected in (
                (".index", encode_offset_index(offsets, base_offset)),
                (".timeindex", encode_time_index(times, base_offset)),
            ):
                file = path.with_suffix(suffix)
                if file.name not in self.damaged_indexes:
                    assert file.read_bytes() == expected, file.name
