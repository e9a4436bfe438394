"""The check at the end: every order, by every service, at least once, in order per customer."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from typing import NamedTuple

import logstore

from .orders import Order


class ServiceCheck(NamedTuple):
    """What one service did with the orders.

    Attributes
    ----------
    missing : list[int]
        Orders that were never handled.
    repeated : int
        How often an order was handled again.
    out_of_order : list[int]
        Orders handled for the first time after a later order of the same customer.
    by_replica : dict[str, int]
        Orders handled, by the replica that did it.
    by_partition : dict[int, int]
        The same by the partition they were in.
    """

    service: str
    missing: list[int]
    repeated: int
    out_of_order: list[int]
    by_replica: dict[str, int]
    by_partition: dict[int, int]

    @property
    def passed(self) -> bool:
        return not self.missing and not self.out_of_order


def orders_placed(broker: logstore.Broker, topic: str) -> set[int]:
    """Numbers of all orders in the log."""
    return {Order.from_value(record.value).number for record in broker.topic(topic).read()}


def check_service(broker: logstore.Broker, topic: str, service: str) -> ServiceCheck:
    """Holds a service's notes against the orders."""
    placed = orders_placed(broker, topic)
    times_handled: Counter[int] = Counter()
    latest: dict[bytes, int] = defaultdict(lambda: -1)
    out_of_order = []
    by_replica: Counter[str] = Counter()
    by_partition: Counter[int] = Counter()
    done = broker.topic(f"{service}.done")
    for partition in range(done.partitions):
        # One customer's orders are in one partition here as well, so this is the order in which they were handled.
        for record in done.read(partition=partition):
            note = json.loads(record.value)
            number = note["number"]
            times_handled[number] += 1
            by_replica[note["replica"]] += 1
            by_partition[note["partition"]] += 1
            if times_handled[number] == 1:
                if number < latest[record.key]:
                    out_of_order.append(number)
                latest[record.key] = max(latest[record.key], number)
    return ServiceCheck(
        service,
        sorted(placed - set(times_handled)),
        times_handled.total() - len(times_handled),
        out_of_order,
        dict(sorted(by_replica.items())),
        dict(sorted(by_partition.items())),
    )
