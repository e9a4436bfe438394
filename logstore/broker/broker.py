"""Many partitions in one directory, open together; `topic_service`, `partition_service`, `group_service` and
`transaction_service` have what is done with them."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Mapping
from typing import Any, Self

from logstore.broker.config import BrokerConfig
from logstore.broker.following import Follower
from logstore.broker.housekeeping import Housekeeping
from logstore.broker.metadata import TopicMetadata, find_topics, read_topics, write_topics
from logstore.broker.offsets_topic import internal_topic_config
from logstore.broker.scrub import Scrub
from logstore.broker.topic import Topic
from logstore.broker.topic_service import TopicService, remove_tree
from logstore.broker.transaction_service import TransactionService
from logstore.errors import (
    ClosedError,
    CorruptDataError,
    DiskFullError,
    InvalidRequestError,
    LogstoreError,
    ReadOnlyError,
    StorageFailureError,
)
from logstore.model import Durability, RecoveryReport, TopicPartition
from logstore.storage import layout
from logstore.storage.checkpoint import Checkpoint
from logstore.storage.directory_lock import DirectoryLock
from logstore.storage.files import make_directory
from logstore.storage.flush_scheduler import FlushScheduler
from logstore.storage.log import Log
from logstore.storage.text_checkpoints import (
    read_offsets,
    take_clean_shutdown,
    was_clean_shutdown,
    was_written_by_kafka,
    write_clean_shutdown,
    write_meta_properties,
    write_offsets,
)

__all__ = ["Broker"]


class Broker(TransactionService, TopicService):
    """A data directory, open. Made by `logstore.open`; a context manager.

    Thread-safe. One broker writes a directory at a time; any number open it with ``read_only=True``.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: Durability = "flushed",
        read_only: bool = False,
        housekeeping: bool = True,
        config: Mapping[str, Any] | None = None,
        **settings: Any,
    ):
        if durability not in ("flushed", "appended", "buffered"):
            raise InvalidRequestError(f"durability must be 'flushed', 'appended' or 'buffered', not {durability!r}")
        self.path = os.path.abspath(os.fspath(path))
        self.read_only = read_only
        self.durability: Durability = durability
        self.config = BrokerConfig(config, **settings)
        self._lock = threading.RLock()
        self._topics: dict[str, Topic] = {}
        self._metadata: dict[str, TopicMetadata] = {}
        self._deleted_directories: set[str] = set()  # of topics, until file.delete.delay.ms has passed
        self._closed = False
        self._directory_lock: DirectoryLock | None = None
        self._scheduler = FlushScheduler()
        # What takes long has a thread of its own, so that no hand-over or flush waits for it.
        self._housekeeping_scheduler = FlushScheduler()
        self.housekeeping = Housekeeping(self, self._housekeeping_scheduler)
        self.scrub = Scrub(
            lambda: [log for topic in list(self._topics.values()) for log in topic.logs],
            bytes_per_second=self.config["logstore.scrub.bytes.per.second"],
            interval_ms=self.config["logstore.scrub.interval.ms"], scheduler=self._housekeeping_scheduler,
            is_paused=lambda: self.housekeeping.report().state == "paused",
        )
        self._clean = False
        self._written_by_kafka = False
        if read_only:
            if not os.path.isdir(self.path):
                raise StorageFailureError(
                    self.path, "open", 2, "read_only=True opens a data directory that exists; check the path."
                )
            self._clean = was_clean_shutdown(self.path)
        else:
            self._make_directories()
            self._directory_lock = DirectoryLock(self.path)
        try:
            self._open()
            if not read_only:
                self._settle_transactions()
        except BaseException:
            self._scheduler.close()
            self._housekeeping_scheduler.close()
            if self._directory_lock is not None:
                self._directory_lock.release()
            raise
        if read_only:
            self._follower = Follower(self.path, self._look_for_new_topics)
        _open_brokers.add(self)
        if housekeeping:
            self.housekeeping.start()
            if not read_only:
                self.scrub.start(self.config["log.initial.task.delay.ms"])

    # ---- opening ------------------------------------------------------------------------------------

    def _make_directories(self) -> None:
        missing = []
        path = self.path
        while not os.path.isdir(path):
            missing.append(path)
            parent = os.path.dirname(path)
            if parent == path:
                break
            path = parent
        for path in reversed(missing):
            make_directory(path)

    def _open(self) -> None:
        # The marker of a Kafka broker: it has had the directory since, so its checkpoints count, not ours.
        self._written_by_kafka = was_written_by_kafka(self.path)
        recovery_points = read_offsets(os.path.join(self.path, layout.RECOVERY_POINT_FILE))
        log_starts = read_offsets(os.path.join(self.path, layout.LOG_START_FILE))
        if not self.read_only:
            self._clean = take_clean_shutdown(self.path)
            if not os.path.exists(os.path.join(self.path, layout.META_PROPERTIES_FILE)):
                write_meta_properties(self.path)
        try:
            known = read_topics(self.path)
        except CorruptDataError as error:
            _logger().warning("%s Topics are taken from their directories, with default settings.", error)
            known = {}
        found, strange = find_topics(self.path)
        deletions = [name for name in strange if layout.is_deleted_directory(name)]
        if left_alone := [name for name in strange if name not in deletions]:
            _logger().warning("%s: not partitions of a topic, left alone: %s", self.path, ", ".join(left_alone))
        self._metadata = dict(known)
        if not self.read_only:
            for name in deletions:
                remove_tree(os.path.join(self.path, name))
            for metadata in known.values():
                if metadata.is_deleted:
                    for name in self._finish_deletion(metadata):
                        remove_tree(name)
        for name, metadata in found.items():
            if name in known and known[name].is_deleted:
                continue
            if name not in known or known[name].partitions < metadata.partitions:
                config = known[name].config if name in known else internal_topic_config(name)
                self._metadata[name] = TopicMetadata(name, metadata.topic_id, metadata.partitions, config)
        for metadata in self._metadata.values():
            if metadata.is_deleted:
                continue
            self._topics[metadata.name] = Topic(
                metadata,
                tuple(
                    self._open_log(metadata, number, recovery_points, log_starts)
                    for number in range(metadata.partitions)
                    if not self.read_only or os.path.isdir(self._log_path(metadata.name, number))
                ),
            )
        if not self.read_only and self._metadata != known:
            write_topics(self.path, self._metadata)

    def _open_log(
        self,
        metadata: TopicMetadata,
        number: int,
        recovery_points: dict[tuple[str, int], int] | None = None,
        log_starts: dict[tuple[str, int], int] | None = None,
    ) -> Log:
        place = (metadata.name, number)
        log_start = (log_starts or {}).get(place, 0)
        known = None
        if self._clean and place in (recovery_points or {}) and _has_segments(self._log_path(*place)):
            known = _kafka_checkpoint(self._log_path(*place), (recovery_points or {})[place], log_start)
        elif not _has_segments(self._log_path(*place)) and (recovery_points or {}).get(place, 0) > log_start:
            # It held records once. A new log in its place would give their offsets to others.
            known = Checkpoint(log_start_offset=log_start, flushed_offset=(recovery_points or {})[place])
        elif log_start:
            known = Checkpoint(log_start_offset=log_start, is_contiguous=False)
        return Log(
            self._log_path(metadata.name, number),
            metadata.config,
            durability=self.durability,
            read_only=self.read_only,
            lock=self._directory_lock,
            scheduler=self._scheduler,
            deletion_scheduler=self._housekeeping_scheduler,
            topic_id=metadata.topic_id,
            known=known,
            trust_checkpoint=not self._written_by_kafka,
        )

    @property
    def recovery_reports(self) -> dict[TopicPartition, RecoveryReport]:
        """What opening checked, cut or rebuilt, of logs that were not closed in good order."""
        return {
            TopicPartition(log.topic, log.partition): log.recovery_report
            for topic in self._topics.values()
            for log in topic.logs
            if log.recovery_report != RecoveryReport()
        }

    @property
    def damages(self) -> dict[TopicPartition, CorruptDataError]:
        """Partitions that can be read around their damage, but not written, and why."""
        return {
            TopicPartition(log.topic, log.partition): log.damage
            for topic in self._topics.values()
            for log in topic.logs
            if log.damage is not None
        }

    # ---- all of it ----------------------------------------------------------------------------------

    def flush(self, durability: Durability = "flushed") -> None:
        """Returns once everything appended so far, to any topic, is at least at this level.

        Raises
        ------
        StorageFailureError
        """
        self._check_open()
        for topic in list(self._topics.values()):
            topic.flush(durability)

    def close(self) -> None:
        """Flushes and closes everything. Idempotent. Records and arrays handed out stay valid.

        Raises
        ------
        StorageFailureError
            Something could not be flushed; all else is closed in good order.
        """
        if self._follower is not None:
            self._follower.close()
        self.housekeeping.close()
        self.scrub.close()
        if self._transaction_coordinator is not None:
            self._transaction_coordinator.close()
        if self._coordinator is not None:
            self._coordinator.close()
        with self._lock:
            if self._closed:
                return
            self._closed = True
            _open_brokers.discard(self)
            failures: list[LogstoreError] = []
            logs = [log for topic in self._topics.values() for log in topic.logs]
            in_order = all(log.is_writable for log in logs)
            starts = {(log.topic, log.partition): log.log_start_offset for log in logs}
            ends = {(log.topic, log.partition): log.log_end_offset for log in logs}
            for log in logs:
                try:
                    log.close()
                    ends[log.topic, log.partition] = log.log_end_offset
                except LogstoreError as error:
                    failures.append(error)
            self._scheduler.close()
            self._housekeeping_scheduler.close()
            self._remove_deleted(list(self._deleted_directories))
            try:
                if not self.read_only and in_order and not failures:
                    write_offsets(os.path.join(self.path, layout.RECOVERY_POINT_FILE), ends)
                    write_offsets(
                        os.path.join(self.path, layout.LOG_START_FILE),
                        {place: offset for place, offset in starts.items() if offset > 0},
                    )
                    write_clean_shutdown(self.path)
            except DiskFullError as error:
                _logger().warning("%s Every record is safe; the next open takes longer.", error)
            except StorageFailureError as error:
                failures.append(error)
            finally:
                if self._directory_lock is not None:
                    self._directory_lock.release()
            if failures:
                raise failures[0]

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"the broker of {self.path} is closed, or belongs to the parent process; open it again")

    def _check_writable(self) -> None:
        self._check_open()
        if self.read_only:
            raise ReadOnlyError(f"{self.path} is open for reading only; open it without read_only=True")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "read-only" if self.read_only else "open"
        return f"Broker({self.path!r}, {state}, topics={len(self._topics)})"

    def _forked(self) -> None:
        """In a forked child: everything here belongs to the parent."""
        self._closed = True
        self._deleted_directories = set()
        self._lock = threading.RLock()
        self.housekeeping.forked()
        self.scrub.forked()
        self._housekeeping_scheduler.forget()
        if self._transaction_coordinator is not None:
            self._transaction_coordinator.forked()
        if self._coordinator is not None:
            self._coordinator.forked()
        if self._follower is not None:
            self._follower.forget()
        self._scheduler.forget()
        if self._directory_lock is not None:
            self._directory_lock.forget()


def _logger() -> Any:
    import logging

    return logging.getLogger("logstore.broker")


def _has_segments(directory: str) -> bool:
    return os.path.isdir(directory) and any(layout.segment_offset(name) is not None for name in os.listdir(directory))


def _kafka_checkpoint(directory: str, recovery_point: int, log_start: int) -> Checkpoint | None:
    """What a clean stop of Kafka says of one log, if the files agree: all of it is on disk."""
    if not os.path.isdir(directory):
        return None
    offsets = [offset for name in os.listdir(directory) if (offset := layout.segment_offset(name)) is not None]
    if not offsets or recovery_point < max(offsets):
        return Checkpoint(log_start_offset=log_start, is_contiguous=False)
    active = max(offsets)
    return Checkpoint(
        log_start_offset=log_start,
        flushed_offset=recovery_point,
        segment_base_offset=active,
        position=os.path.getsize(os.path.join(directory, layout.segment_file_name(active))),
        log_end_offset=recovery_point,
        is_clean=True,
        is_contiguous=False,
    )


# Kept alive until closed: a topic may be all that a program holds, and at its end what is buffered has to be written.
_open_brokers: set[Broker] = set()


def _close_at_exit() -> None:
    for broker in list(_open_brokers):
        try:
            broker.close()
        except LogstoreError as error:
            _logger().error("%s: closing at exit failed: %s", broker.path, error)


def _after_fork_in_child() -> None:
    for broker in list(_open_brokers):
        broker._forked()
    _open_brokers.clear()


atexit.register(_close_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
