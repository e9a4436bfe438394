"""Everything that keeps a log in order, together: appends with keys, tombstones, transactions, time, changes of policy,
rounds of housekeeping, trims, erasure, reopening and crashes, in any order.

For every key readers get the value that a plain model says; order and offsets never change; nothing that a policy protects
is gone; what was planned is what was done; nothing comes back.

LOGSTORE_UPKEEP_EXAMPLES and LOGSTORE_UPKEEP_STEPS make the run longer.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import tempfile
import time
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import logstore
from logstore.broker import broker as broker_module
from logstore.broker.log_cleaning import is_idle
from logstore.broker.transaction_coordinator import TransactionCoordinator
from logstore.model import OffsetAndMetadata, TopicPartition
from logstore.storage.log import Log
from logstore.storage.retention import RetentionPolicy

EXAMPLES = int(os.environ.get("LOGSTORE_UPKEEP_EXAMPLES", "5"))
STEPS = int(os.environ.get("LOGSTORE_UPKEEP_STEPS", "25"))
SECONDS = 120
TOPIC = "t"
GROUP = "g"
TTL = "ttl"
TTL_MS = 8_000
KEYS = [b"a", b"b", b"c", b"d"]
RECORDS = st.lists(st.tuples(st.sampled_from(KEYS), st.one_of(st.none(), st.integers(0, 300))), min_size=1, max_size=8)
DEFAULTS = {
    "segment.bytes": 1024, "index.interval.bytes": 100, "min.cleanable.dirty.ratio": 0.3, "retention.ms": -1,
    "retention.bytes": -1, "logstore.retention.records": -1, "logstore.retention.groups": "", "logstore.expiry.header": "",
    "min.compaction.lag.ms": 0, "max.compaction.lag.ms": 2**63 - 1, "delete.retention.ms": 86_400_000,
    "file.delete.delay.ms": 60_000,
}  # fmt: skip
POLICIES = st.fixed_dictionaries(
    {"cleanup.policy": st.sampled_from(["delete", "compact", "compact,delete"])},
    optional={
        "retention.ms": st.sampled_from([0, 1_000, 30_000]),
        "retention.bytes": st.sampled_from([0, 1_500, 4_000]),
        "logstore.retention.records": st.sampled_from([0, 5, 20]),
        "logstore.retention.groups": st.just(GROUP),
        "logstore.expiry.header": st.just(TTL),
        "min.cleanable.dirty.ratio": st.just(0.0),
        "min.compaction.lag.ms": st.sampled_from([2_000, 20_000]),
        "max.compaction.lag.ms": st.just(30_000),
        "delete.retention.ms": st.sampled_from([0, 5_000]),
        "file.delete.delay.ms": st.just(0),
    },
)  # fmt: skip


class Entry:
    """An offset of the model. Markers have no key."""

    def __init__(self, offset, timestamp, key=None, value=None, *, has_ttl=False, fate="committed"):
        self.offset = offset
        self.timestamp = timestamp
        self.key = key
        self.value = value
        self.has_ttl = has_ttl
        self.fate = fate  # "open", "committed", "aborted" or "marker"
        self.is_erased = False
        self.clean_since_ms: int | None = None  # compaction passed it at first


def copy_if_there(source, target):
    """Deleted segments are unlinked on a thread of their own, before a kill or after it."""
    with contextlib.suppress(FileNotFoundError):
        shutil.copy2(source, target)


class Upkeep(RuleBasedStateMachine):
    @initialize(policy=POLICIES, durability=st.sampled_from(["appended", "appended", "flushed"]))
    def start(self, policy, durability):
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.root = Path(tempfile.mkdtemp(prefix="logstore-upkeep-", dir=memory))
        self.copies = 0
        self.now_ms = time.time_ns() // 1_000_000
        self.entries: list[Entry] = []
        self.first = 0  # the log start offset
        self.group: int | None = None
        self.durability = durability
        self.policy = {**DEFAULTS, **policy}
        self.patch = mock.patch.object(broker_module, "Log", functools.partial(Log, clock=lambda: self.now_ms))
        self.patch.start()
        self.open(self.root / "data")
        self.broker.create_topic(TOPIC, config=self.policy)

    def open(self, path):
        self.path = path
        self.broker = logstore.open(path, durability=self.durability, housekeeping=False)
        self.broker.housekeeping._clock = lambda: self.now_ms
        self.broker._transaction_coordinator = TransactionCoordinator(
            self.broker, wall_clock_ms=lambda: self.now_ms, schedule=lambda delay_ms, step: None
        )
        self.producer = None
        self.sent: list[Entry] = []

    @property
    def log(self):
        return self.broker.topic(TOPIC).partition(0)

    def teardown(self):
        if hasattr(self, "broker"):
            self.broker.close()
            self.patch.stop()
            shutil.rmtree(self.root)

    # ---- who writes -----------------------------------------------------------------------------------

    @rule(records=RECORDS, has_ttl=st.booleans())
    def append(self, records, has_ttl):
        values = [None if size is None else bytes(size) for _, size in records]
        headers = [(TTL, b"%dms" % TTL_MS)] if has_ttl else None
        offsets = self.log.append_many(values, [key for key, _ in records], headers=headers)
        assert offsets.start == len(self.entries), "offsets are never used again"
        for offset, (key, _), value in zip(offsets, records, values, strict=True):
            self.entries.append(Entry(offset, self.now_ms, key, value, has_ttl=has_ttl))

    @rule(records=RECORDS)
    def send_in_transaction(self, records):
        if self.producer is None:
            self.producer = self.broker.producer(transactional_id="x", transaction_timeout=900, linger_ms="1h")
            self.producer.init_transactions()
        if not self.producer.in_transaction:
            self.producer.begin_transaction()
        values = [None if size is None else bytes(size) for _, size in records]
        futures = [
            self.producer.send(TOPIC, value, key=key, partition=0, timestamp=self.now_ms)
            for (key, _), value in zip(records, values, strict=True)
        ]
        for future, (key, _), value in zip(futures, records, values, strict=True):
            offset = future.result(SECONDS).offset
            assert offset == len(self.entries)
            self.entries.append(Entry(offset, self.now_ms, key, value, fate="open"))
            self.sent.append(self.entries[-1])

    @precondition(lambda self: self.sent)
    @rule(commits=st.booleans())
    def end_transaction(self, commits):
        if commits:
            self.producer.commit_transaction()
        else:
            self.producer.abort_transaction()
        self.settle("committed" if commits else "aborted")

    def settle(self, fate):
        if not self.sent:
            return
        for entry in self.sent:
            entry.fate = fate
        self.sent = []
        self.entries.append(Entry(len(self.entries), self.now_ms, fate="marker"))

    # ---- people ---------------------------------------------------------------------------------------

    @rule(ms=st.sampled_from([1, 900, 6_000, 40_000]))
    def time_passes(self, ms):
        self.now_ms += ms

    @rule(policy=POLICIES)
    def change_policy(self, policy):
        self.policy = {**DEFAULTS, **policy}
        self.broker.alter_topic(TOPIC, self.policy)

    @rule(data=st.data())
    def commit_offset(self, data):
        self.group = data.draw(st.integers(self.first, len(self.entries)))
        self.broker.coordinator.commit_offsets(GROUP, {TopicPartition(TOPIC, 0): OffsetAndMetadata(self.group)})

    @rule()
    def roll(self):
        self.log.roll()

    @rule(data=st.data())
    def trim(self, data):
        self.first = max(self.first, data.draw(st.integers(0, len(self.entries))))
        self.log.advance_log_start_offset(self.first)

    @rule(key=st.sampled_from(KEYS))
    def erase(self, key):
        stored = {record.offset for record in self.log.read()}
        report = self.log.erase_key(key)
        gone = [entry for entry in self.entries[self.first :] if entry.key == key and entry.offset in stored]
        assert report.records_found == 0
        assert report.records_erased >= len(gone)  # also what a segment still holds below the log's start
        for entry in self.entries:
            entry.is_erased |= entry.key == key
        for path in self.path.rglob(f"{TOPIC}-0/*"):
            assert path.suffix not in (".deleted", ".cleaned", ".swap"), "what may hold the key is gone"

    # ---- housekeeping ---------------------------------------------------------------------------------

    @rule(compact_all=st.booleans())
    def housekeeping(self, compact_all):
        """A whole round does what its plans say, to the record and the byte."""
        keeper = self.broker.housekeeping
        plan = next(iter(keeper.retention_plans([TOPIC])))
        size_bytes = self.log.size_bytes
        results = keeper.run_now([TOPIC], tasks=("retention",))
        assert self.log.log_start_offset == plan.log_start_offset
        assert self.log.size_bytes == size_bytes - plan.bytes_freed
        assert sum(result.bytes_freed for result in results) == plan.bytes_freed
        assert bool(results) is plan.changes_anything
        assert not next(iter(keeper.retention_plans([TOPIC]))).changes_anything
        self.check_retention(plan)
        self.first = plan.log_start_offset
        self.compact(compact_all)

    def check_retention(self, plan):
        gone = self.entries[self.first : plan.log_start_offset]
        if not gone:
            return
        policy = RetentionPolicy.of(self.log.config)
        assert policy.deletes
        limits = {policy.retention_bytes, policy.retention_records}
        if limits == {-1}:
            for entry in gone:
                is_old = 0 <= policy.retention_ms < self.now_ms - entry.timestamp
                is_expired = bool(policy.expiry_header) and entry.has_ttl and self.now_ms >= entry.timestamp + TTL_MS
                # A gap is no record that anything has to keep.
                may_be_gap = entry.fate == "marker" or entry.is_erased or entry.clean_since_ms is not None
                assert is_old or is_expired or may_be_gap
        if limits == {-1, policy.retention_records} and policy.retention_ms < 0 and not policy.expiry_header:
            assert len(self.entries) - plan.log_start_offset >= policy.retention_records
        if policy.groups:
            assert self.group is not None
            assert gone[-1].offset < self.group

    def compact(self, compact_all):
        if self.log.config.is_compacted and is_idle(self.log, self.now_ms):
            self.log.roll()  # the round would do it, and go by another plan
        self.log.flush()
        plans = self.broker.housekeeping.compaction_plans([TOPIC])
        ((log, plan),) = plans
        before = [record.offset for record in log.read()]
        results = self.broker.housekeeping.run_now([TOPIC], tasks=("compaction",), compact_all=compact_all)
        is_wanted = plan.is_due or (compact_all and plan.cleanable_bytes > 0 and log.config.is_compacted)
        done = [result for result in results if result.task == "compaction"]
        assert not any(result.failed for result in done), done
        assert bool(done) is is_wanted
        end = plan.first_uncleanable_offset
        after = {record.offset for record in log.read()}
        assert after <= set(before)
        for offset in before:
            if offset not in after:
                self.check_compacted(self.entries[offset], end, log.config)
        if is_wanted:
            for entry in self.entries[plan.first_dirty_offset : end]:
                if entry.clean_since_ms is None:
                    entry.clean_since_ms = self.now_ms

    def check_compacted(self, entry, end, config):
        """Whether compaction may have taken a record, by the model alone."""
        assert entry.offset < end, "what can't be cleaned was touched"
        assert entry.fate != "open"
        if entry.clean_since_ms is None:  # it was dirty until now
            assert self.now_ms - entry.timestamp >= config["min.compaction.lag.ms"]
        if entry.fate == "aborted":
            return
        is_superseded = any(
            later.key == entry.key and later.fate == "committed" and later.offset < end and not later.is_erased
            for later in self.entries[entry.offset + 1 :]
        )
        if not is_superseded:
            assert entry.value is None, "the last value of a key is gone"
            assert entry.clean_since_ms is not None, "a tombstone went in the round that met it"

    # ---- going away and coming back ---------------------------------------------------------------------

    def gone(self):
        """No producer outlives its process: what it has open is aborted."""
        self.producer = None
        self.settle("aborted")

    @rule()
    def reopen(self):
        self.broker.close()
        self.gone()
        self.open(self.path)
        self.nothing_is_left_behind()

    @rule()
    def crash(self):
        """What a kill leaves, opened elsewhere, twice."""
        self.copies += 1
        path = self.root / f"copy{self.copies}"
        shutil.copytree(self.path, path, copy_function=copy_if_there)
        left, before, producer = self.broker, self.path, self.producer
        self.gone()
        self.open(path)
        left.close()
        del producer
        shutil.rmtree(before)
        self.nothing_is_left_behind()
        found = [record.offset for record in self.log.read()]
        self.broker.close()
        self.open(path)
        assert [record.offset for record in self.log.read()] == found

    def nothing_is_left_behind(self):
        assert self.log.damage is None
        assert not [path for path in self.path.rglob("*") if path.suffix in (".deleted", ".cleaned", ".swap")]

    # ---- what always holds -----------------------------------------------------------------------------

    @invariant()
    def readers_see_what_the_model_says(self):
        if not hasattr(self, "broker") or TOPIC not in self.broker:
            return
        log = self.log
        assert (log.log_start_offset, log.log_end_offset) == (self.first, len(self.entries))
        found = list(log.read())
        offsets = [record.offset for record in found]
        assert offsets == sorted(set(offsets))
        assert not offsets or offsets[0] >= self.first
        for record in found:
            entry = self.entries[record.offset]
            assert (record.timestamp, record.key, record.value) == (entry.timestamp, entry.key, entry.value)
            assert not entry.is_erased, "an erased record is back"
        stored = set(offsets)
        for entry in self.entries[self.first :]:
            if entry.fate != "marker" and not entry.is_erased and entry.clean_since_ms is None:
                assert entry.offset in stored, "what compaction never passed is there"
        stable = self.sent[0].offset if self.sent else len(self.entries)
        committed = [record.offset for record in log.read(isolation_level="read_committed")]
        assert committed == [at for at in offsets if at < stable and self.entries[at].fate == "committed"]
        self.each_key_has_its_value(stored, stable)

    def each_key_has_its_value(self, stored, stable):
        newest = {
            entry.key: entry
            for entry in self.entries[self.first : stable]
            if entry.fate == "committed" and not entry.is_erased
        }
        for key, entry in newest.items():
            if entry.value is not None:
                assert entry.offset in stored, f"the last value of {key!r} is gone"
            elif entry.offset not in stored:
                older = [at for at in stored if self.entries[at].key == key and at < entry.offset]
                assert all(self.entries[at].fate != "committed" for at in older), "a deleted value is back"


TestUpkeep = pytest.mark.fault(18, "compaction takes too much")(Upkeep.TestCase)
TestUpkeep.settings = settings(
    max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
