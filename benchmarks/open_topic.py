"""A topic in a directory of its own, as most suites need one."""

from __future__ import annotations

import tempfile
from typing import Any

__all__ = ["OpenTopic"]


class OpenTopic:
    """Opens a broker in a new directory below the current one, with one topic; `close` removes it all.

    Attributes
    ----------
    broker, topic, log
        The log is that of partition 0.
    """

    def __init__(self, durability: str = "appended", *, partitions: int = 1, **settings: Any) -> None:
        import logstore

        self._directory = tempfile.TemporaryDirectory(prefix="benchmark-", dir=".")
        self.path = self._directory.name
        self.broker = logstore.open(self.path, durability=durability)
        self.topic = self.broker.create_topic("records", partitions=partitions, retention=-1, **settings)
        self.log = self.topic.logs[0]

    def reopen(self, **settings: Any) -> None:
        """Close the broker and open the directory again."""
        import logstore

        self.broker.close()
        self.broker = logstore.open(self.path, **settings)
        self.topic = self.broker.topic("records")
        self.log = self.topic.logs[0]

    def close(self) -> None:
        """Close the broker and remove the directory."""
        self.broker.close()
        self._directory.cleanup()
