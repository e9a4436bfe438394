"""Appends, tombstones, time, changes of policy, retention, compaction, trims, reopening and crashes, in any order.

For every key the log has the value that a plain model says; offsets and order never change; nothing younger than the policy
allows is gone; a plan is what carrying it out does; nothing comes back.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from manual_scheduler import ManualScheduler

from logstore.storage.config import TopicConfig
from logstore.storage.log import Log
from logstore.storage.retention import RetentionPolicy, retention_plan
from logstore.storage.segment_deletion import log_facts

START_MS = 1_700_000_000_000
EXAMPLES = int(os.environ.get("LOGSTORE_RETENTION_EXAMPLES", "25"))
KEYS = [b"a", b"b", b"c", b"d"]
RECORDS = st.lists(st.tuples(st.sampled_from(KEYS), st.one_of(st.none(), st.integers(0, 300))), min_size=1, max_size=8)
POLICIES = st.fixed_dictionaries(
    {"cleanup.policy": st.sampled_from(["delete", "compact", "compact,delete"])},
    optional={
        "retention.ms": st.sampled_from([-1, 0, 1_000, 30_000]),
        "retention.bytes": st.sampled_from([-1, 0, 1_500, 4_000]),
        "logstore.retention.records": st.sampled_from([-1, 0, 5, 20]),
        "logstore.retention.groups": st.just("g"),
        "logstore.retention.groups.max.ms": st.sampled_from([-1, 5_000]),
        "min.compaction.lag.ms": st.sampled_from([0, 10_000]),
        "delete.retention.ms": st.sampled_from([0, 5_000]),
    },
)  # fmt: skip


class Entry(NamedTuple):
    offset: int
    timestamp: int
    key: bytes
    value: bytes | None


class RetentionMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.root = Path(tempfile.mkdtemp(prefix="logstore-retention-", dir=memory))
        self.now_ms = START_MS
        self.entries: list[Entry] = []
        self.start = 0
        self.touched = 0  # compaction may have been anywhere below
        self.group: int | None = None
        self.generation = 0

    @initialize(policy=POLICIES)
    def begin(self, policy) -> None:
        self.config = TopicConfig({"segment.bytes": 1024, "index.interval.bytes": 100, "retention.ms": -1, **policy})
        self.open()

    @property
    def directory(self) -> Path:
        return self.root / str(self.generation) / "t-0"

    def open(self) -> None:
        self.log = Log(
            self.directory, self.config, durability="appended", clock=lambda: self.now_ms, scheduler=ManualScheduler()
        )
        assert self.log.damage is None

    def teardown(self) -> None:
        if hasattr(self, "log"):
            self.log.close()
        shutil.rmtree(self.root)

    # ---- what goes on ----------------------------------------------------------------------------------

    @rule(records=RECORDS)
    def append(self, records) -> None:
        values = [None if size is None else bytes(size) for _, size in records]
        offsets = self.log.append_many(values, [key for key, _ in records])
        assert offsets.start == len(self.entries), "offsets are never used again"
        for offset, (key, _), value in zip(offsets, records, values, strict=True):
            self.entries.append(Entry(offset, self.now_ms, key, value))

    @rule(ms=st.sampled_from([1, 900, 6_000, 40_000]))
    def time_passes(self, ms) -> None:
        self.now_ms += ms

    @rule(policy=POLICIES)
    def change_policy(self, policy) -> None:
        self.config = TopicConfig({"segment.bytes": 1024, "index.interval.bytes": 100, "retention.ms": -1, **policy})
        self.log.reconfigure(self.config)

    @rule(data=st.data())
    def commit(self, data) -> None:
        self.group = data.draw(st.one_of(st.none(), st.integers(0, len(self.entries))))

    @rule()
    def roll(self) -> None:
        self.log.roll()

    @rule()
    def retain(self) -> None:
        policy = RetentionPolicy.of(self.config)
        facts = log_facts(self.log, {"g": self.group})
        plan = retention_plan(facts, policy, self.now_ms)
        size_bytes = self.log.size_bytes
        assert self.log.apply_retention(plan, now_ms=self.now_ms, group_offsets=lambda: {"g": self.group}) == plan
        assert self.log.log_start_offset == plan.log_start_offset
        assert self.log.size_bytes == size_bytes - plan.bytes_freed
        self.check_allowed(plan, policy)
        self.start = plan.log_start_offset
        assert not retention_plan(log_facts(self.log, {"g": self.group}), policy, self.now_ms).changes_anything

    def check_allowed(self, plan, policy) -> None:
        """Of the records that go, by the model alone."""
        gone = [entry for entry in self.entries if self.start <= entry.offset < plan.log_start_offset]
        if not gone:
            return
        assert policy.deletes
        if policy.retention_bytes < 0 and policy.retention_records < 0:
            assert policy.retention_ms >= 0
            assert all(self.now_ms - entry.timestamp > policy.retention_ms for entry in gone)
        if policy.groups and policy.groups_max_ms < 0:
            assert self.group is not None
            assert gone[-1].offset < self.group
        if policy.retention_ms < 0 and policy.retention_records >= 0 and policy.retention_bytes < 0:
            assert len(self.entries) - plan.log_start_offset >= policy.retention_records

    @rule()
    def compact(self) -> None:
        if not self.config.is_compacted:
            return
        self.log.compact()
        self.touched = max(self.touched, self.log.segments[-1].base_offset)

    @rule(data=st.data())
    def trim(self, data) -> None:
        self.start = max(self.start, data.draw(st.integers(0, len(self.entries))))
        self.log.advance_log_start_offset(self.start)

    @rule()
    def reopen(self) -> None:
        self.log.close()
        self.open()
        assert not [name for name in os.listdir(self.directory) if name.endswith((".deleted", ".cleaned", ".swap"))]

    @rule()
    def die(self) -> None:
        """What a killed process leaves, opened twice."""
        self.generation += 1
        shutil.copytree(self.root / str(self.generation - 1), self.directory.parent)
        self.log.close()
        shutil.rmtree(self.root / str(self.generation - 1))
        self.open()
        found = [record.offset for record in self.log.read()]
        self.log.close()
        self.open()
        assert [record.offset for record in self.log.read()] == found

    # ---- what always holds -----------------------------------------------------------------------------

    @invariant()
    def the_log_is_what_the_model_says(self) -> None:
        if not hasattr(self, "log"):
            return
        assert (self.log.log_start_offset, self.log.log_end_offset) == (self.start, len(self.entries))
        found = [Entry(record.offset, record.timestamp, record.key, record.value) for record in self.log.read()]
        assert all(entry == self.entries[entry.offset] for entry in found), "offsets and order stay, and so do the bytes"
        offsets = [entry.offset for entry in found]
        assert offsets == sorted(set(offsets))
        assert all(offset >= self.start for offset in offsets)
        untouched = max(self.start, self.touched)
        assert [offset for offset in offsets if offset >= untouched] == list(range(untouched, len(self.entries)))
        newest = {entry.key: entry for entry in self.entries[self.start :]}
        last_found = {entry.key: entry for entry in found}
        for key, entry in newest.items():
            if entry.value is not None:
                assert last_found[key] == entry
            else:
                assert last_found.get(key, entry) == entry, "a tombstone may go, but what it deleted stays gone"


TestRetentionMachine = pytest.mark.fault(18, "compaction takes too much")(RetentionMachine.TestCase)
TestRetentionMachine.settings = settings(max_examples=EXAMPLES, stateful_step_count=30, deadline=None)
