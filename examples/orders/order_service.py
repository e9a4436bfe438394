"""The order service: publishes each order once, and knows nothing of who reads it."""

from __future__ import annotations

import random
import threading
from time import monotonic

import logstore

from .orders import Order


class OrderService(threading.Thread):
    """Places orders at a rate until it is stopped.

    Parameters
    ----------
    rate : float
        Orders a second.
    """

    def __init__(self, broker: logstore.Broker, topic: str, rate: float, seed: int):
        super().__init__(name="order-service")
        self.broker = broker
        self.topic = topic
        self.rate = rate
        self.dice = random.Random(seed)
        self.stopped = threading.Event()
        self.placed = 0
        self.failed = 0

    def run(self) -> None:
        started = monotonic()
        with self.broker.producer(on_delivery=self.delivered) as producer:
            number = 0
            while not self.stopped.wait(0.01):
                while number < (monotonic() - started) * self.rate:
                    order = Order.make(number, self.dice)
                    producer.send(self.topic, order.value, key=order.key, headers=[("source", b"web")])
                    number += 1

    def delivered(self, error: Exception | None, metadata: logstore.RecordMetadata | None) -> None:
        """Called once for each order, when it is on disk or has failed."""
        if error is None:
            self.placed += 1
        else:
            self.failed += 1

    def stop(self) -> None:
        """Delivers what was sent, and returns when that is on disk."""
        self.stopped.set()
        self.join()
