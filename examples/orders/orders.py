"""What an order is, and how it is written into a record."""

from __future__ import annotations

import json
import random
from typing import NamedTuple

ITEMS = {"tea": 450, "rice": 300, "milk": 120, "bread": 260, "honey": 890, "apples": 340}
CUSTOMERS = ("ann", "bob", "cem", "dora", "eve", "finn", "gus", "hana", "ivo", "jun", "kim", "lena")


class Order(NamedTuple):
    """One order; `number` counts from 0."""

    number: int
    customer: str
    item: str
    quantity: int
    cents: int

    @property
    def key(self) -> bytes:
        """The customer: all orders of one customer are in one partition, hence in order."""
        return self.customer.encode()

    @property
    def value(self) -> bytes:
        return json.dumps(self._asdict()).encode()

    @classmethod
    def from_value(cls, value: bytes) -> Order:
        return cls(**json.loads(value))

    @classmethod
    def make(cls, number: int, dice: random.Random) -> Order:
        """A likely order."""
        item = dice.choice(list(ITEMS))
        quantity = dice.randint(1, 5)
        return cls(number, dice.choice(CUSTOMERS), item, quantity, quantity * ITEMS[item])
