"""Several producers, epochs, sequences, duplicates, gaps and transactions against a plain model, through rolls, closes,
kills, lost caches, truncation and deletion."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from made_batches import START_MS, produced
from manual_scheduler import ManualScheduler

from logstore.errors import (
    InvalidProducerEpochError,
    InvalidTxnStateError,
    OutOfOrderSequenceError,
    TransactionCoordinatorFencedError,
)
from logstore.storage.config import TopicConfig
from logstore.storage.log import Log

PRODUCERS = st.sampled_from([1, 2, 3])
SEQUENCE_MAX = 2**31 - 1


@dataclass
class Batch:
    """What was appended once: data, or a marker (``count`` 0)."""

    first: int
    producer_id: int
    epoch: int
    sequence: int
    count: int
    transactional: bool
    commit: bool | None = None
    coordinator_epoch: int = -1

    @property
    def end(self) -> int:
        return self.first + max(self.count, 1)

    def values(self) -> list[tuple[int, bytes]]:
        if self.producer_id < 0:
            return [(self.first, b"plain")]
        return [
            (self.first + i, b"%d/%d/%d" % (self.producer_id, self.epoch, (self.sequence + i) & SEQUENCE_MAX))
            for i in range(self.count)
        ]


@dataclass
class Known:
    """One producer, as the batches tell it."""

    epoch: int = -1
    coordinator_epoch: int = -1
    batches: list[Batch] = field(default_factory=list)
    opened: int = -1

    @property
    def next_sequence(self) -> int:
        if not self.batches:
            return 0
        last = self.batches[-1]
        return (last.sequence + last.count) & SEQUENCE_MAX


class Model:
    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.start = 0

    @property
    def end(self) -> int:
        return self.batches[-1].end if self.batches else 0

    def known(self) -> dict[int, Known]:
        found: dict[int, Known] = {}
        for batch in self.batches:
            if batch.producer_id < 0:
                continue
            one = found.setdefault(batch.producer_id, Known())
            if batch.epoch != one.epoch:
                one.epoch, one.batches = batch.epoch, []
            if batch.commit is not None:
                one.opened, one.coordinator_epoch = -1, batch.coordinator_epoch
                continue
            one.batches.append(batch)
            if batch.transactional and one.opened < 0:
                one.opened = batch.first
        return found

    def committed(self) -> tuple[list[tuple[int, bytes]], int]:
        """What a reader of committed records sees, and the last stable offset."""
        opened: dict[int, int] = {}
        aborted: list[tuple[int, int, int]] = []
        for batch in self.batches:
            if batch.commit is not None:
                first = opened.pop(batch.producer_id, -1)
                if first >= 0 and not batch.commit:
                    aborted.append((batch.producer_id, first, batch.first))
            elif batch.transactional:
                opened.setdefault(batch.producer_id, batch.first)
        stable = max(min([*opened.values(), self.end]), self.start)
        rows = [
            row for batch in self.batches if batch.commit is None and not (
                batch.transactional
                and any(one[0] == batch.producer_id and one[1] <= batch.first < one[2] for one in aborted)
            )
            for row in batch.values()
        ]  # fmt: skip
        return [row for row in rows if self.start <= row[0] < stable], stable

    def cut(self, offset: int) -> None:
        kept = [batch for batch in self.batches if batch.first < offset]
        if kept and kept[-1].end > offset:
            kept[-1].count = offset - kept[-1].first
        self.batches = kept


class ProducerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.root = Path(tempfile.mkdtemp(prefix="logstore-producers-", dir=memory))
        self.generation = 0
        self.model = Model()
        self.remembered: dict[int, int] = {}  # by producer: how many of its last batches are surely known

    @initialize(segment_bytes=st.sampled_from([1024, 1024, 3000]))
    def begin(self, segment_bytes):
        self.config = TopicConfig(
            {"segment.bytes": segment_bytes, "segment.ms": 10**15, "message.timestamp.after.max.ms": 2**63 - 1,
             "file.delete.delay.ms": 0}
        )  # fmt: skip
        self.directory = self.root / "0" / "orders-0"
        self.directory.parent.mkdir()
        self.open()

    def open(self) -> None:
        self.scheduler = ManualScheduler()
        self.log = self.open_log(self.directory, scheduler=self.scheduler)
        self.reader = self.open_log(self.directory, read_only=True)
        self.remembered = dict.fromkeys(self.model.known(), 1)
        assert self.log.damage is None

    def open_log(self, directory: Path, **arguments: object) -> Log:
        return Log(directory, self.config, durability="appended", clock=lambda: START_MS, **arguments)

    def teardown(self) -> None:
        if hasattr(self, "log"):
            self.reader.close()
            self.log.close()
        shutil.rmtree(self.root)

    # ---- appending ----------------------------------------------------------------------------

    def sure(self, producer_id: int) -> int:
        return self.remembered.get(producer_id, 5)

    @rule(producer_id=PRODUCERS, count=st.integers(1, 4), transactional=st.booleans(), size=st.sampled_from([0, 0, 150]))
    def send(self, producer_id, count, transactional, size):
        known = self.model.known().get(producer_id)
        epoch = max(known.epoch, 0) if known else 0
        # The very first one stands near the end of the sequences.
        sequence = known.next_sequence if known else SEQUENCE_MAX - 2
        batch = produced(producer_id, sequence, count, epoch=epoch, transactional=transactional)
        if known and known.opened >= 0 and not transactional:
            with pytest.raises(InvalidTxnStateError):
                self.log.append_as_leader(batch)
            return
        end = self.model.end
        assert self.log.append_built(batch)[0] == end
        self.model.batches.append(Batch(end, producer_id, epoch, sequence, count, transactional))
        if producer_id in self.remembered:
            self.remembered[producer_id] += 1
        if size:
            self.plain(size)

    @rule(producer_id=PRODUCERS, back=st.integers(0, 7))
    def send_again(self, producer_id, back):
        known = self.model.known().get(producer_id)
        if known is None or len(known.batches) <= back:
            return
        earlier = known.batches[-1 - back]
        batch = produced(
            producer_id, earlier.sequence, earlier.count, epoch=earlier.epoch, transactional=earlier.transactional
        )
        if back < min(5, self.sure(producer_id)):
            assert self.log.append_as_leader(batch) == range(earlier.first, earlier.end)
            return
        try:
            offsets = self.log.append_as_leader(batch)
        except OutOfOrderSequenceError:
            return
        assert back < 5, "only five batches are kept"
        assert offsets == range(earlier.first, earlier.end)

    @rule(producer_id=PRODUCERS, gap=st.integers(1, 3), count=st.integers(1, 3))
    def send_after_a_gap(self, producer_id, gap, count):
        known = self.model.known().get(producer_id)
        if known is None:
            return
        sequence = (known.next_sequence + gap) & SEQUENCE_MAX
        with pytest.raises(OutOfOrderSequenceError):
            self.log.append_as_leader(produced(producer_id, sequence, count, epoch=known.epoch))
        with pytest.raises(OutOfOrderSequenceError):
            self.log.append_as_leader(produced(producer_id, gap, count, epoch=known.epoch + 1))
        if known.epoch > 0:
            with pytest.raises(InvalidProducerEpochError):
                self.log.append_as_leader(produced(producer_id, 0, count, epoch=known.epoch - 1))

    @rule(producer_id=PRODUCERS, count=st.integers(1, 3))
    def start_a_new_epoch(self, producer_id, count):
        known = self.model.known().get(producer_id)
        if known is None or known.opened >= 0:
            return
        end, epoch = self.model.end, known.epoch + 1
        self.log.append_as_leader(produced(producer_id, 0, count, epoch=epoch))
        self.model.batches.append(Batch(end, producer_id, epoch, 0, count, False))
        self.remembered.pop(producer_id, None)

    @rule(producer_id=PRODUCERS, commit=st.booleans(), bump=st.sampled_from([0, 0, 1]), coordinator=st.integers(0, 1))
    def end_transaction(self, producer_id, commit, bump, coordinator):
        known = self.model.known().get(producer_id)
        epoch = max(known.epoch if known else 0, 0) + bump
        if known and coordinator < known.coordinator_epoch:
            with pytest.raises(TransactionCoordinatorFencedError):
                self.log.append_marker(producer_id, epoch, commit, coordinator)
            return
        end = self.model.end
        assert self.log.append_marker(producer_id, epoch, commit, coordinator) == end
        self.model.batches.append(Batch(end, producer_id, epoch, -1, 0, True, commit, coordinator))

    @rule(producer_id=PRODUCERS)
    def end_with_an_old_epoch(self, producer_id):
        known = self.model.known().get(producer_id)
        if known and known.epoch > 0:
            with pytest.raises(InvalidProducerEpochError):
                self.log.append_marker(producer_id, known.epoch - 1, True, 9)

    @rule(size=st.sampled_from([5, 200]))
    def plain(self, size):
        end = self.model.end
        assert self.log.append(b"plain" + bytes(size)) == end
        self.model.batches.append(Batch(end, -1, -1, -1, 1, False))

    # ---- changing shape -----------------------------------------------------------------------

    @rule()
    def roll(self):
        self.log.roll()

    @rule()
    def background_work(self):
        self.scheduler.run()

    @rule()
    def flush(self):
        self.log.flush()

    @precondition(lambda self: self.model.start == 0)
    @rule(data=st.data())
    def truncate_to(self, data):
        # Below a start that has risen, what is known depends on the snapshots that are left.
        offset = data.draw(st.integers(0, self.model.end), label="offset")
        self.log.truncate_to(offset)
        self.model.cut(offset)
        self.remembered = dict.fromkeys(self.model.known(), 1)
        self.reader.close()
        self.reader = self.open_log(self.directory, read_only=True)

    @rule(data=st.data())
    def advance(self, data):
        offset = data.draw(st.integers(self.model.start, self.model.end), label="offset")
        self.log.advance_log_start_offset(offset)
        self.model.start = offset

    @rule()
    def reopen(self):
        self.reader.close()
        self.log.close()
        self.open()

    @rule(lost=st.sampled_from(["nothing", "nothing", "*.snapshot", "*.txnindex", "*.index", "*.snapshot garbage"]))
    def kill(self, lost):
        self.generation += 1
        copy = self.root / str(self.generation) / "orders-0"
        shutil.copytree(self.directory, copy)
        self.reader.close()
        self.log.close()
        if self.model.start == 0 and lost != "nothing":
            for path in copy.glob(lost.split()[0]):
                if lost.endswith("garbage"):
                    path.write_bytes(path.read_bytes()[:-1] + b"\xff\0")
                else:
                    path.unlink()
        self.directory = copy
        self.open()

    # ---- always -------------------------------------------------------------------------------

    @invariant()
    def producers_agree(self):
        if not hasattr(self, "log"):
            return
        assert self.log.log_end_offset == self.model.end
        expected = {
            producer_id: (one.epoch, one.coordinator_epoch, one.opened,
                          (one.next_sequence - 1) & SEQUENCE_MAX if one.batches else -1)
            for producer_id, one in self.model.known().items()
        }  # fmt: skip
        actual = {
            one.producer_id: (one.epoch, one.coordinator_epoch, one.transaction_offset, one.last_sequence)
            for one in self.log.producers()
        }
        assert actual == expected
        assert [(one.producer_id, one.first_offset) for one in self.log.open_transactions()] == sorted(
            ((producer_id, one[2]) for producer_id, one in expected.items() if one[2] >= 0), key=lambda pair: pair[1]
        )

    @invariant()
    def committed_readers_agree(self):
        if not hasattr(self, "log"):
            return
        rows, stable = self.model.committed()
        middle = (self.model.start + self.model.end) // 2
        self.reader.refresh()
        for log in (self.log, self.reader):
            assert log.last_stable_offset == stable
            for start in (self.model.start, middle):
                expected = [row for row in rows if row[0] >= start]
                records = log.read(start, isolation_level="read_committed")
                assert [(record.offset, record.value.rstrip(b"\0")) for record in records] == expected
                batches = log.scan(start, isolation_level="read_committed")
                assert [
                    (int(offset), value.rstrip(b"\0"))
                    for batch in batches for offset, value in zip(batch.offsets, batch.values(), strict=True)
                ] == expected  # fmt: skip


TestProducers = pytest.mark.fault(42, "producers sent twice, transactions cut short")(ProducerMachine.TestCase)
TestProducers.settings = settings(
    max_examples=int(os.environ.get("LOGSTORE_MODEL_EXAMPLES", "40")),
    stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck),
)  # fmt: skip
