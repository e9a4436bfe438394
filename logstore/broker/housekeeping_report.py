"""When housekeeping works, and what it says of its work."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from logstore.model import TopicPartition

if TYPE_CHECKING:
    from logstore.broker.config import BrokerConfig

__all__ = ["HousekeepingReport", "HousekeepingResult", "HousekeepingTimes"]


class HousekeepingTimes(NamedTuple):
    """When rounds come: Kafka's ``log.initial.task.delay.ms``, ``log.retention.check.interval.ms`` and
    ``log.cleaner.backoff.ms``."""

    initial_delay_ms: int = 30_000
    retention_interval_ms: int = 300_000
    compaction_backoff_ms: int = 15_000

    @classmethod
    def of(cls, config: BrokerConfig) -> HousekeepingTimes:
        """What a broker's settings say."""
        return cls(
            config["log.initial.task.delay.ms"], config["log.retention.check.interval.ms"], config["log.cleaner.backoff.ms"]
        )


class HousekeepingResult(NamedTuple):
    """One thing that was done, or failed.

    Attributes
    ----------
    task : str
        ``"retention"``, ``"compaction"``, ``"roll"`` or ``"offset expiry"``.
    topic : str
    partition : int
        -1 where it is no partition's.
    started_ms, duration_ms : int
    bytes_freed : int
    summary : str
        What was done, or what went wrong.
    failed : bool
    """

    task: str
    topic: str
    partition: int
    started_ms: int
    duration_ms: int
    bytes_freed: int
    summary: str
    failed: bool = False


class HousekeepingReport(NamedTuple):
    """What housekeeping is at, and what it did since the broker was opened.

    Attributes
    ----------
    state : str
        ``"on"``, ``"paused"``, ``"off"`` (``housekeeping=False``, or a broker that only reads) or ``"closed"``.
    running : str
        What is being done right now; empty for nothing.
    last_retention_ms, last_compaction_ms : int
        When a round of each ended; -1 for never.
    next_retention_ms, next_compaction_ms : int
        When the next one is due; -1 for none.
    bytes_freed : int
    results : tuple[HousekeepingResult, ...]
        The latest of them, oldest first.
    failures : dict of TopicPartition to str
        Partitions whose last task failed, and how.
    """

    state: str
    running: str
    last_retention_ms: int
    last_compaction_ms: int
    next_retention_ms: int
    next_compaction_ms: int
    bytes_freed: int
    results: tuple[HousekeepingResult, ...]
    failures: dict[TopicPartition, str]
