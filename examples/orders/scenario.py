"""What happens, and when: services start, one replica dies, one service sleeps and catches up, analytics replays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from time import monotonic, sleep
from typing import NamedTuple

import logstore

from .analytics import revenue_by_item
from .check import ServiceCheck, check_service
from .order_service import OrderService
from .service import Replica

TOPIC = "orders"
PARTITIONS = 3
SERVICES = {"inventory": 1, "payment": 3, "notification": 1}  # and how many replicas each has
CATCH_UP_SECONDS = 60.0  # how long the services may take after the last order
TICK_SECONDS = 0.25


class GroupLag(NamedTuple):
    """How far a service is behind."""

    records: int
    seconds: float


class Scenario:
    """One run. `step` is called from time to time to show how it goes.

    Parameters
    ----------
    rate : float
        Orders a second.
    seconds : float
        How long orders are placed.
    step : callable
        Called with the scenario, about four times a second.
    """

    def __init__(
        self, broker: logstore.Broker, rate: float, seconds: float, seed: int, step: Callable[[Scenario], None]
    ):
        self.broker = broker
        self.seconds = seconds
        self.step = step
        self.events: list[tuple[float, str]] = []
        self.revenue: Counter[str] = Counter()
        self.started = monotonic()
        broker.create_topic(TOPIC, partitions=PARTITIONS)
        for service in SERVICES:
            broker.create_topic(f"{service}.done", partitions=PARTITIONS)
        self.orders = OrderService(broker, TOPIC, rate, seed)
        self.replicas = [
            Replica(broker, TOPIC, service, number)
            for service, count in SERVICES.items()
            for number in range(1, count + 1)
        ]

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return monotonic() - self.started

    def lag(self, service: str) -> GroupLag:
        """How far a service is behind, over all partitions."""
        partitions = self.broker.describe_group(service).partitions
        return GroupLag(
            sum(partition.lag or 0 for partition in partitions),
            max((partition.lag_s or 0.0 for partition in partitions), default=0.0),
        )

    def run(self) -> list[ServiceCheck]:
        """Plays it, and checks at the end; after Ctrl-C what was placed until then."""
        for thread in (*self.replicas, self.orders):
            thread.start()
        try:
            self.play()
        except KeyboardInterrupt:
            self.tell("interrupted: no more orders, the services finish")
        finally:
            self.orders.stop()
            self.catch_up()
            for replica in self.replicas:
                replica.stop()
        self.revenue = revenue_by_item(self.broker, TOPIC)
        self.tell("analytics read everything again from the beginning")
        self.step(self)
        return [check_service(self.broker, TOPIC, service) for service in SERVICES]

    def play(self) -> None:
        """The plot, in parts of the time there is."""
        self.tell("orders are placed; each service reads them at its own pace")
        self.wait_until(0.25)
        victim = next(replica for replica in self.replicas if replica.name == "payment-2")
        victim.kill()
        self.tell(f"{victim.name} is killed in the middle of a batch; its partitions go to the others")
        self.wait_until(0.4)
        sleeper = next(replica for replica in self.replicas if replica.service == "notification")
        sleeper.stop()
        self.tell("notification is stopped; orders go on, and wait for it")
        self.wait_until(0.55)
        self.revenue = revenue_by_item(self.broker, TOPIC)
        self.tell(f"analytics replayed {self.orders.placed:,} orders from the beginning meanwhile")
        self.wait_until(0.7)
        again = Replica(self.broker, TOPIC, "notification", 2)
        self.replicas.append(again)
        again.start()
        self.tell("notification is started again, and goes on where it was")
        self.wait_until(1.0)

    def wait_until(self, part: float) -> None:
        """Lets time go by, up to a part of the whole."""
        while self.elapsed < part * self.seconds:
            sleep(TICK_SECONDS)
            self.step(self)

    def catch_up(self) -> None:
        """Waits until every service has read every order."""
        self.tell("no more orders; the services read what is left")
        deadline = monotonic() + CATCH_UP_SECONDS
        if not any(replica.service == "notification" and replica.is_alive() for replica in self.replicas):
            again = Replica(self.broker, TOPIC, "notification", 2)
            self.replicas.append(again)
            again.start()
        while monotonic() < deadline and any(self.lag(service).records for service in SERVICES):
            sleep(TICK_SECONDS)
            self.step(self)

    def tell(self, event: str) -> None:
        """Notes what happened."""
        self.events.append((self.elapsed, event))
        self.step(self)
