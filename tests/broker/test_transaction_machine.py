"""Any course of producers, transactions, time, restarts and crashes agrees with a plain model of who sees what."""

from __future__ import annotations

import os
import shutil
import tempfile
import time

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import logstore
from logstore.broker.transaction_coordinator import TransactionCoordinator
from logstore.errors import InvalidProducerEpochError, InvalidTxnStateError, ProducerFencedError

SECONDS = 120
PARTITIONS = 2
TIMEOUT_S = 30
GROUP = "g"
NAMES = st.sampled_from(["x", "y"])
NUMBERS = st.integers(0, 10)
EXAMPLES = int(os.environ.get("LOGSTORE_TRANSACTION_EXAMPLES", "8"))
STEPS = int(os.environ.get("LOGSTORE_TRANSACTION_STEPS", "25"))


class Client:
    """A transactional producer, and what the model knows of it."""

    def __init__(self, name, producer):
        self.name = name
        self.producer = producer
        self.state = "idle"  # or "open", "expired", "fenced"
        self.values: list[tuple[int, bytes]] = []  # partition and value, of the open transaction
        self.offset: int | None = None
        self.began_ms = 0

    @property
    def has_written(self) -> bool:
        return bool(self.values) or self.offset is not None

    def forget(self, state):
        self.state, self.values, self.offset = state, [], None


class Transactions(RuleBasedStateMachine):
    """The model: what each partition holds, and who committed what."""

    @initialize(durability=st.sampled_from(["appended", "appended", "flushed"]))
    def start(self, durability):
        self.folder = tempfile.mkdtemp(prefix="logstore-")
        self.durability = durability
        self.copies = 0
        self.now_ms = time.time_ns() // 1_000_000
        self.steps: list = []
        self.count = 0
        self.stored: list[list[bytes]] = [[] for _ in range(PARTITIONS)]
        self.fates: dict[bytes, str] = {}  # "open", "committed" or "aborted"
        self.committed_offset: int | None = None
        self.open(os.path.join(self.folder, "data"))
        self.broker.create_topic("t", partitions=PARTITIONS)
        self.broker.create_topic("in")

    def open(self, path):
        self.path = path
        self.broker = logstore.open(path, durability=self.durability)
        self.steps = []
        self.broker._transaction_coordinator = TransactionCoordinator(
            self.broker, wall_clock_ms=lambda: self.now_ms,
            schedule=lambda delay_ms, step: self.steps.append((self.now_ms + delay_ms, step)),
        )
        self.plain = self.broker.producer(linger_ms="1h")
        self.clients: list[Client] = []

    # ---- the model ----------------------------------------------------------------------------------

    def settle(self, client, fate, state):
        for _, value in client.values:
            self.fates[value] = fate
        if fate == "committed" and client.offset is not None:
            # Of two that commit the same partition that one counts which was sent later, whichever ends first: as in Kafka.
            self.committed_offset = max(client.offset, self.committed_offset or 0)
        client.forget(state)

    def fence(self, name):
        """Whoever has the name is shut out, and what it has open aborted."""
        for client in self.clients:
            if client.name == name and client.state != "fenced":
                self.settle(client, "aborted", "fenced")

    def chosen(self, number, *states):
        found = [client for client in self.clients if client.state in states]
        return found[number % len(found)] if found else None

    def value(self):
        self.count += 1
        return b"%d" % self.count

    # ---- producers ----------------------------------------------------------------------------------

    @precondition(lambda self: len(self.clients) < 6)
    @rule(name=NAMES)
    def new_producer(self, name):
        producer = self.broker.producer(transactional_id=name, transaction_timeout=TIMEOUT_S, linger_ms="1h")
        producer.init_transactions()
        self.fence(name)
        self.clients.append(Client(name, producer))

    @rule(number=NUMBERS)
    def begin(self, number):
        if (client := self.chosen(number, "idle")) is not None:
            client.producer.begin_transaction()
            client.state, client.began_ms = "open", self.now_ms

    @rule(number=NUMBERS, partition=st.integers(0, PARTITIONS - 1), count=st.integers(1, 3))
    def send(self, number, partition, count):
        if (client := self.chosen(number, "open")) is None:
            return
        values = [self.value() for _ in range(count)]
        if not client.has_written:
            client.began_ms = self.now_ms  # for the coordinator it begins with what is written first
        futures = [client.producer.send("t", value, partition=partition) for value in values]
        assert futures[-1].result(SECONDS).partition == partition
        for value in values:
            self.stored[partition].append(value)
            self.fates[value] = "open"
            client.values.append((partition, value))

    @rule(number=NUMBERS)
    def send_offsets(self, number):
        if (client := self.chosen(number, "open")) is not None:
            if not client.has_written:
                client.began_ms = self.now_ms
            self.count += 1
            client.producer.send_offsets_to_transaction({("in", 0): self.count}, GROUP)
            client.offset = self.count

    @rule(number=NUMBERS)
    def commit(self, number):
        if (client := self.chosen(number, "open")) is not None:
            client.producer.commit_transaction()
            self.settle(client, "committed", "idle")

    @rule(number=NUMBERS)
    def abort(self, number):
        if (client := self.chosen(number, "open", "expired")) is not None:
            client.producer.abort_transaction()
            self.settle(client, "aborted", "idle")

    @rule(number=NUMBERS)
    def use_one_that_has_timed_out(self, number):
        if (client := self.chosen(number, "expired")) is not None:
            with pytest.raises(InvalidProducerEpochError) as caught:
                client.producer.commit_transaction()
            assert not isinstance(caught.value, ProducerFencedError)

    @rule(number=NUMBERS, what=st.sampled_from(["begin_transaction", "commit_transaction", "abort_transaction"]))
    def use_one_that_was_shut_out(self, number, what):
        client = self.chosen(number, "fenced")
        if client is None:
            return
        if what == "begin_transaction":
            if client.producer.in_transaction:
                return
            client.producer.begin_transaction()
            future = client.producer.send("t", b"late", partition=0)
            assert isinstance(future.exception(SECONDS), InvalidProducerEpochError)
        elif client.producer.in_transaction:
            with pytest.raises((InvalidProducerEpochError, InvalidTxnStateError)):
                getattr(client.producer, what)()

    @rule(partition=st.integers(0, PARTITIONS - 1))
    def send_outside_of_transactions(self, partition):
        value = self.value()
        self.plain.send("t", value, partition=partition).result(SECONDS)
        self.stored[partition].append(value)
        self.fates[value] = "committed"

    # ---- time, people, crashes ----------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.06, 5, 20, 40]))
    def time_passes(self, seconds):
        self.now_ms += int(seconds * 1000)
        due = [step for at, step in self.steps if at <= self.now_ms]
        self.steps = [(at, step) for at, step in self.steps if at > self.now_ms]
        for step in due:
            step()
        for client in self.clients:
            if client.state == "open" and client.has_written and self.now_ms - client.began_ms >= TIMEOUT_S * 1000:
                self.settle(client, "aborted", "expired")

    @rule(name=NAMES)
    def abort_by_hand(self, name):
        client = next((each for each in self.clients if each.name == name and each.state == "open"), None)
        if client is not None and client.has_written:
            assert self.broker.abort_transaction(name)
            self.fence(name)

    def gone(self):
        """No producer outlives the process: what is open is aborted."""
        for client in self.clients:
            if client.state != "fenced":
                self.settle(client, "aborted", "fenced")

    @rule()
    def restart(self):
        self.broker.close()
        self.gone()
        self.open(self.path)

    @rule()
    def crash(self):
        """What a kill leaves, opened elsewhere; the broker that is left behind changes nothing there."""
        self.copies += 1
        path = os.path.join(self.folder, f"copy{self.copies}")
        shutil.copytree(self.path, path)
        left, before, producers = self.broker, self.path, [self.plain, *(client.producer for client in self.clients)]
        self.gone()
        self.open(path)
        left.close()
        del producers
        shutil.rmtree(before)

    # ---- what everybody sees ------------------------------------------------------------------------

    @invariant()
    def readers_see_what_the_model_says(self):
        if not hasattr(self, "broker"):
            return
        for partition, values in enumerate(self.stored):
            log = self.broker.topic("t").partition(partition)
            assert [record.value for record in log.read()] == values
            stable = next((at for at, value in enumerate(values) if self.fates[value] == "open"), len(values))
            expected = [value for value in values[:stable] if self.fates[value] == "committed"]
            assert [record.value for record in log.read(isolation_level="read_committed")] == expected
            scanned = [value for batch in log.scan(isolation_level="read_committed") for value in batch.values()]
            assert scanned == expected
        found = self.broker.coordinator.committed_offsets(GROUP).get(("in", 0))
        assert (None if found is None else found.offset) == self.committed_offset

    @invariant()
    def a_process_that_only_reads_sees_the_same(self):
        if hasattr(self, "broker") and self.count % 5 == 0:
            with logstore.open(self.path, read_only=True) as reader:
                for partition in range(PARTITIONS):
                    ours, theirs = (each.topic("t").partition(partition) for each in (self.broker, reader))
                    committed = [record.value for record in theirs.read(isolation_level="read_committed")]
                    assert committed == [record.value for record in ours.read(isolation_level="read_committed")]

    def teardown(self):
        if hasattr(self, "broker"):
            self.broker.close()
            shutil.rmtree(self.folder)


TestTransactions = Transactions.TestCase
TestTransactions.settings = settings(max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None)
