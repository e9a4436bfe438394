"""Many partitions in one directory."""

from logstore.broker.broker import Broker
from logstore.broker.topic import Topic

__all__ = ["Broker", "Topic"]
