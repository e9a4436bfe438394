"""Brokers that stand between a producer and the real one: slow, refusing, or recording."""

from __future__ import annotations

import threading
from typing import Any

from logstore.clients.producer import Producer
from logstore.clients.producer_settings import producer_settings


class BrokerBetween:
    """Passes everything on; tests override what they want to happen first."""

    def __init__(self, broker):
        self.broker = broker
        self.produced: list[tuple[str, int, bytes]] = []
        self.flushes = 0

    def producer(self, **settings: Any) -> Producer:
        return Producer(self, producer_settings(settings))

    def before_produce(self, topic, partition, batch):
        pass

    def before_flush(self, topic, partition):
        pass

    def produce(self, topic, partition, batch, **how):
        self.before_produce(topic, partition, batch)
        self.produced.append((topic, partition, bytes(batch)))
        return self.broker.produce(topic, partition, batch, **how)

    def flush_partition(self, topic, partition, offset):
        self.before_flush(topic, partition)
        self.flushes += 1
        return self.broker.flush_partition(topic, partition, offset)

    def __getattr__(self, name):
        return getattr(self.broker, name)


class GatedBroker(BrokerBetween):
    """Flushes, or appends, when a test opens the gate."""

    def __init__(self, broker, *, produce=True, flush=True):
        super().__init__(broker)
        self.gate = threading.Event()
        self.is_reached = threading.Event()
        self.gates_produce, self.gates_flush = produce, flush

    def wait(self):
        self.is_reached.set()
        assert self.gate.wait(120)

    def before_produce(self, topic, partition, batch):
        if self.gates_produce:
            self.wait()

    def before_flush(self, topic, partition):
        if self.gates_flush:
            self.wait()


class RefusingBroker(BrokerBetween):
    """Raises what a test has put in ``errors``, one a call; None lets a call pass."""

    def __init__(self, broker):
        super().__init__(broker)
        self.errors: list[BaseException | None] = []
        self.flush_errors: list[BaseException | None] = []
        self.refusals = 0

    def before_produce(self, topic, partition, batch):
        if self.errors and (error := self.errors.pop(0)) is not None:
            self.refusals += 1
            raise error

    def before_flush(self, topic, partition):
        if self.flush_errors and (error := self.flush_errors.pop(0)) is not None:
            raise error
