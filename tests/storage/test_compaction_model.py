"""Compaction against a plain model: any sequence of appends, transactions, time, compaction and opening again."""

from __future__ import annotations

import os
import shutil
import tempfile

import pytest
from batch_writer import BatchWriter
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from reference_codec import decode_log

from logstore.storage.config import TopicConfig
from logstore.storage.log import Log

EXAMPLES = int(os.environ.get("LOGSTORE_COMPACTION_EXAMPLES", "25"))
DELETE_RETENTION_MS = 5_000
KEYS = st.integers(0, 12).map(lambda number: b"key %d" % number)
VALUES = st.none() | st.binary(max_size=40)


class CompactedLog(RuleBasedStateMachine):
    """Knows of every record ever appended its key, value, and whether its transaction was aborted."""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.mkdtemp()
        self.now_ms = 1_000_000
        self.appended: dict[int, tuple[bytes, bytes | None]] = {}
        self.aborted: set[int] = set()
        self.open: dict[int, list[int]] = {}  # offsets by producer
        self.compacted_at: list[tuple[int, int]] = []  # when a compaction had passed which offset
        self.open_log()

    def open_log(self):
        self.log = Log(
            os.path.join(self.folder, "t-0"),
            TopicConfig(
                cleanup_policy="compact", segment_bytes=1024, index_interval_bytes=100,
                delete_retention_ms=DELETE_RETENTION_MS,
            ),
            durability="appended", clock=lambda: self.now_ms,
        )
        self.writer = BatchWriter(self.log)

    def teardown(self):
        self.log.close()
        shutil.rmtree(self.folder)

    def note(self, first, records):
        for offset, (key, value) in enumerate(records, first):
            self.appended[offset] = (key, value)

    @rule(records=st.lists(st.tuples(KEYS, VALUES), min_size=1, max_size=8), codec=st.sampled_from([0, 0, 1]))
    def append(self, records, codec):
        self.note(self.writer.data(-1, -1, records, codec=codec), records)

    @rule(
        producer=st.integers(0, 2),
        records=st.lists(st.tuples(KEYS, VALUES), min_size=1, max_size=5),
        codec=st.sampled_from([0, 1]),
    )
    def append_in_transaction(self, producer, records, codec):
        first = self.writer.data(producer, 0, records, codec=codec)
        self.note(first, records)
        self.open.setdefault(producer, []).extend(range(first, first + len(records)))

    @precondition(lambda self: self.open)
    @rule(commit=st.booleans(), data=st.data())
    def end_transaction(self, commit, data):
        producer = data.draw(st.sampled_from(sorted(self.open)))
        self.writer.marker(producer, 0, commit=commit)
        offsets = self.open.pop(producer)
        if not commit:
            self.aborted.update(offsets)

    @rule(seconds=st.integers(1, 4))
    def wait(self, seconds):
        self.now_ms += seconds * 1000

    @rule()
    def roll(self):
        self.log.roll()

    @rule(memory_bytes=st.sampled_from([1 << 20, 400, 160]))
    def compact(self, memory_bytes):
        report = self.log.compact(memory_bytes=memory_bytes)
        if report.outcome == "compacted":
            self.compacted_at.append((self.now_ms, report.first_dirty_offset))

    @rule()
    def open_again(self):
        self.log.close()
        self.open_log()

    @invariant()
    def what_stays_is_what_was(self):
        found = {record.offset: (record.key, record.value) for record in self.log.read()}
        undecided = {offset for offsets in self.open.values() for offset in offsets}
        assert list(found) == sorted(found)
        for offset, record in found.items():
            assert self.appended[offset] == record
        latest: dict[bytes, int] = {}
        for offset, (key, _) in self.appended.items():
            if offset not in self.aborted and offset not in undecided:
                latest[key] = max(offset, latest.get(key, -1))
        for key, offset in latest.items():
            if self.appended[offset][1] is not None:
                assert offset in found, f"the last value of {key!r} is gone"
            elif offset not in found:
                first_passed = min(at for at, end in self.compacted_at if end > offset)
                assert self.now_ms >= first_passed + DELETE_RETENTION_MS, "a tombstone went too early"
                older = [other for other in found if other < offset and found[other][0] == key]
                assert all(other in self.aborted for other in older), "a deleted value is back"
        assert undecided <= set(found), "what is undecided was touched"

    @invariant()
    def an_independent_decoder_reads_it(self):
        stored = {}
        for segment in self.log.segments:
            with open(segment.path, "rb") as file:
                for _, batch in decode_log(file.read(), segment.base_offset):
                    if not batch.header.attributes & 0x20:
                        stored |= {record.offset: (record.key, record.value) for record in batch.records()}
        assert stored == {record.offset: (record.key, record.value) for record in self.log.read()}


CompactedLog.TestCase.settings = settings(
    max_examples=EXAMPLES, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestCompactedLog = pytest.mark.fault(18, "compaction takes too much")(CompactedLog.TestCase)
