"""The broker a program holds: the logs of this process, and the clients that use them."""

from __future__ import annotations

from logstore.broker import broker

__all__ = ["Broker"]


class Broker(broker.Broker):
    """A data directory, open, with producers and consumers. Made by `logstore.open`; a context manager.

    Thread-safe. One broker writes a directory at a time; any number open it with ``read_only=True``.
    """
