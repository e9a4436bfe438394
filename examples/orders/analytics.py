"""Analytics: reads everything from the beginning, as columns, whenever it likes; nobody notices."""

from __future__ import annotations

import json
from collections import Counter

import logstore


def revenue_by_item(broker: logstore.Broker, topic: str) -> Counter[str]:
    """Cents by item, over all orders so far."""
    cents: Counter[str] = Counter()
    for columns in broker.topic(topic).scan(start="earliest"):
        for value in columns.values():
            order = json.loads(value)
            cents[order["item"]] += order["cents"]
    return cents
