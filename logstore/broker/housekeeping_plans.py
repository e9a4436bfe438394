"""What housekeeping would do: plans of retention and compaction for the logs of one broker. Changes nothing."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from logstore.broker.offsets_topic import OFFSETS_TOPIC
from logstore.errors import LogstoreError
from logstore.model import TopicPartition
from logstore.storage.layout import is_deleted_directory
from logstore.storage.retention import DiskFacts, RetentionPlan, RetentionPolicy, plan_retention
from logstore.storage.segment_deletion import DELETED_SUFFIX, log_facts

if TYPE_CHECKING:
    from logstore.broker.broker import Broker
    from logstore.broker.topic import Topic
    from logstore.storage.compaction_plan import CompactionPlan
    from logstore.storage.config import TopicConfig
    from logstore.storage.log import Log

__all__ = ["HousekeepingPlans"]


class HousekeepingPlans:
    """The side of housekeeping that only looks. `logstore.broker.housekeeping.Housekeeping` is what is used.

    Parameters
    ----------
    broker : Broker
    clock : callable, optional
        Gives the time in ms; for tests.
    disk : callable, optional
        Gives total and free bytes of the file system; for tests.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        clock: Callable[[], int] | None = None,
        disk: Callable[[], tuple[int, int]] | None = None,
    ):
        self._broker = broker
        self._clock = clock or _wall_clock_ms
        self._disk = disk or self._ask_disk

    def retention_plans(
        self,
        topics: list[str] | None = None,
        *,
        now_ms: int | None = None,
        configs: Mapping[str, TopicConfig] | None = None,
    ) -> list[RetentionPlan]:
        """What retention would do now; changes nothing, and works on a broker that only reads.

        Parameters
        ----------
        topics : list of str, optional
            All, the internal ones included, if not given.
        now_ms : int, optional
            As if it were another time.
        configs : mapping of topic to TopicConfig, optional
            As if topics had other settings.

        Returns
        -------
        list[RetentionPlan]
            A partition each. What the disk needs is reckoned over all topics, also those not asked for.

        Raises
        ------
        UnknownTopicOrPartitionError, StorageFailureError, CorruptDataError
        """
        if topics is not None:
            for name in topics:
                self._broker.topic(name)
        moment = self._clock() if now_ms is None else now_ms
        return [plan for _, plan in self._plans(moment, configs or {}) if topics is None or plan.topic in topics]

    def _plans(
        self,
        now_ms: int,
        configs: Mapping[str, TopicConfig],
        on_failure: Callable[[Log, LogstoreError], None] | None = None,
    ) -> list[tuple[Log, RetentionPlan]]:
        """A plan for each log; one that can't be looked at raises, or is left out and handed to ``on_failure``."""
        logs = []
        pairs = []
        for log in [log for topic in self._topics() for log in topic.logs if log.is_open and log.segments]:
            try:
                log.refresh()
                policy = RetentionPolicy.of(configs.get(log.topic, log.config))
                offsets = self._group_offsets(log, policy)
                facts = log_facts(log, offsets, expiry_header=policy.expiry_header, now_ms=now_ms)
            except LogstoreError as error:
                if on_failure is None:
                    raise
                on_failure(log, error)
                continue
            logs.append(log)
            pairs.append((facts, policy))
        disk = None
        if any(policy.disk_free_percent > 0 for _, policy in pairs):
            total_bytes, free_bytes = self._disk()
            disk = DiskFacts(total_bytes, free_bytes, sum(map(_pending_bytes, logs)) + self._deleted_topics_bytes())
        return list(zip(logs, plan_retention(pairs, now_ms, disk), strict=True))

    def compaction_plans(self, topics: list[str] | None = None) -> list[tuple[Log, CompactionPlan]]:
        """What compaction could do to each partition now, and why it does not; changes nothing, as `retention_plans`.

        Topics that are not compacted are left out, unless they are named.

        Raises
        ------
        UnknownTopicOrPartitionError, StorageFailureError, CorruptDataError
        """
        found = self._topics() if topics is None else [self._broker.topic(name) for name in topics]
        pairs = []
        for topic in found:
            for log in topic.logs:
                if log.is_open and log.segments and (topics is not None or log.config.is_compacted):
                    log.refresh()
                    pairs.append((log, log.compaction_plan()))
        return pairs

    def _topics(self) -> list[Topic]:
        return [topic for _, topic in sorted(self._broker._topics.copy().items())]

    def _group_offsets(self, log: Log, policy: RetentionPolicy) -> dict[str, int | None]:
        """Where the groups stand that a policy names."""
        place = TopicPartition(log.topic, log.partition)
        found: dict[str, int | None] = {}
        for group in policy.groups:
            committed = None
            if OFFSETS_TOPIC in self._broker._topics:
                committed = self._broker.coordinator.committed_offsets(group, [place]).get(place)
            found[group] = None if committed is None else committed.offset
        return found

    def _deleted_topics_bytes(self) -> int:
        """What the disk gets back once the directories of deleted topics are removed."""
        with os.scandir(self._broker.path) as entries:
            directories = [entry.path for entry in entries if is_deleted_directory(entry.name)]
        return sum(map(_size_of_files, directories))

    def _ask_disk(self) -> tuple[int, int]:
        status = os.statvfs(self._broker.path)
        return status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize


def _pending_bytes(log: Log) -> int:
    """Of files that are deleted and not unlinked yet; in a reader process, by their names."""
    if not log.read_only:
        return log._deleted_files.pending_bytes
    return _size_of_files(log.path, DELETED_SUFFIX)


def _size_of_files(directory: str, suffix: str = "") -> int:
    total = 0
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.endswith(suffix):
                with contextlib.suppress(OSError):
                    total += entry.stat().st_size
    return total


def _wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000
