"""Many partitions in one directory: topics, their settings, their life."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from collections.abc import Iterator, Mapping
from typing import Any, Self

from logstore.broker.config import BrokerConfig
from logstore.broker.following import Follower
from logstore.broker.housekeeping import Housekeeping
from logstore.broker.metadata import TopicMetadata, find_topics, read_topics, write_topics
from logstore.broker.offsets_topic import OFFSETS_TOPIC, TRANSACTIONS_TOPIC, internal_topic_config
from logstore.broker.partition_service import PartitionService
from logstore.broker.scrub import Scrub
from logstore.broker.topic import Topic
from logstore.broker.transaction_service import TransactionService
from logstore.errors import (
    ClosedError,
    CorruptDataError,
    DiskFullError,
    InvalidRequestError,
    LogstoreError,
    ReadOnlyError,
    StorageFailureError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
)
from logstore.model import Durability, RecoveryReport, TopicPartition
from logstore.storage import layout
from logstore.storage.checkpoint import Checkpoint
from logstore.storage.config import TopicConfig
from logstore.storage.directory_lock import DirectoryLock
from logstore.storage.files import make_directory, refusals, sync_directory
from logstore.storage.flush_scheduler import FlushScheduler
from logstore.storage.log import Log
from logstore.storage.text_checkpoints import (
    new_topic_id,
    read_offsets,
    take_clean_shutdown,
    was_clean_shutdown,
    was_written_by_kafka,
    write_clean_shutdown,
    write_meta_properties,
    write_offsets,
)

__all__ = ["Broker"]

PARTITIONS_MAX = 100_000


class Broker(TransactionService, PartitionService):
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
                _remove_tree(os.path.join(self.path, name))
            for metadata in known.values():
                if metadata.is_deleted:
                    for name in self._finish_deletion(metadata):
                        _remove_tree(name)
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

    def _log_path(self, topic: str, partition: int) -> str:
        return os.path.join(self.path, layout.partition_directory_name(topic, partition))

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

    # ---- topics -------------------------------------------------------------------------------------

    def create_topic(
        self,
        name: str,
        partitions: int = 1,
        config: Mapping[str, Any] | None = None,
        *,
        exist_ok: bool = False,
        **settings: Any,
    ) -> Topic:
        """Creates a topic, durably.

        Parameters
        ----------
        name : str
            1 to 249 of the characters ``a-z A-Z 0-9 . _ -``.
        partitions : int
        config : mapping, optional
            Settings under Kafka's names: ``{"segment.bytes": "64MiB"}``.
        exist_ok : bool
            An existing topic is returned as it is; its settings and partitions are not changed.
        **settings
            Settings in snake_case: ``retention="7d"``, ``segment_bytes="64MiB"``, ``durability="appended"``.

        Returns
        -------
        Topic

        Raises
        ------
        TopicAlreadyExistsError
        InvalidRequestError
            Name, number of partitions, or a setting (an unknown one is answered with the nearest).
        StorageFailureError, ReadOnlyError, ClosedError
        """
        layout.check_topic_name(name)
        if isinstance(partitions, bool) or not isinstance(partitions, int) or not 1 <= partitions <= PARTITIONS_MAX:
            raise InvalidRequestError(f"partitions must be in [1, {PARTITIONS_MAX}], not {partitions!r}")
        checked = TopicConfig(config, **settings)
        with self._lock:
            self._check_writable()
            if name in self._topics:
                if exist_ok:
                    return self._topics[name]
                raise TopicAlreadyExistsError(f"topic {name!r} exists; pass exist_ok=True to use it as it is")
            for other in self._topics:
                if other.replace(".", "_") == name.replace(".", "_"):
                    raise InvalidRequestError(
                        f"topic {name!r} would collide with {other!r}: Kafka takes '.' and '_' for the same"
                    )
            if name in self._metadata:
                self._finish_deletion(self._metadata[name])
            self._forget_offsets(name)
            metadata = TopicMetadata(name, new_topic_id(), partitions, checked)
            logs = self._add_partitions(metadata, 0)
            topic = self._topics[name] = Topic(metadata, tuple(logs))
            self._metadata_changed()
            return topic

    def topic(self, name: str) -> Topic:
        """A topic by its name.

        Raises
        ------
        UnknownTopicOrPartitionError
        """
        with self._lock:
            self._check_open()
            found = self._topics.get(name)
            if found is None and self.read_only:
                self._look_for_new_topics()
                found = self._topics.get(name)
            if found is None:
                import difflib

                near = difflib.get_close_matches(str(name), self._topics, n=1)
                advice = f"did you mean {near[0]!r}?" if near else "create it with create_topic()"
                raise UnknownTopicOrPartitionError(f"there is no topic {name!r} in {self.path}; {advice}")
            return found

    def _look_for_new_topics(self) -> None:
        """In a broker that only reads: takes over what the writer has done to topics since."""
        with self._lock:
            self._check_open()
            listed = read_topics(self.path)
            known = {**find_topics(self.path)[0], **listed}
            gone = [
                name
                for name in self._topics
                if name not in known
                or known[name].is_deleted
                or (name in listed and listed[name].topic_id != self._metadata[name].topic_id)
            ]
            for name in gone:
                for log in self._topics.pop(name).logs:
                    log.close()
            has_changed = bool(gone)
            for name, metadata in known.items():
                topic = self._topics.get(name)
                old = None if topic is None else self._metadata[name]
                if metadata.is_deleted or (old is not None and old.partitions >= metadata.partitions):
                    continue
                if os.path.isdir(self._log_path(name, metadata.partitions - 1)):
                    logs = () if topic is None else topic.logs
                    logs = (*logs, *(self._open_log(metadata, number) for number in range(len(logs), metadata.partitions)))
                    self._metadata[name] = metadata
                    if topic is None:
                        self._topics[name] = Topic(metadata, logs)
                    else:
                        topic._take_over(metadata, logs)
                    has_changed = True
            if has_changed:
                self._metadata_changed()

    __getitem__ = topic

    def __contains__(self, name: object) -> bool:
        return name in self._topics

    def __iter__(self) -> Iterator[str]:
        return iter(self.topics())

    def topics(self) -> list[str]:
        """Names of all topics, sorted; internal ones (``__consumer_offsets`` and such) left out."""
        with self._lock:
            self._check_open()
            if self.read_only:
                self._look_for_new_topics()
            return sorted(set(self._topics) - layout.INTERNAL_TOPICS)

    def alter_topic(
        self, name: str, config: Mapping[str, Any] | None = None, *, partitions: int | None = None, **settings: Any
    ) -> Topic:
        """Changes a topic's settings, or adds partitions, durably.

        Parameters
        ----------
        name : str
        config : mapping, optional
            Settings under Kafka's names; a value of None goes back to the default.
        partitions : int, optional
            More than there are. Keys then map to other partitions than before.
        **settings
            Settings in snake_case.

        Returns
        -------
        Topic

        Raises
        ------
        UnknownTopicOrPartitionError, InvalidRequestError, StorageFailureError, ReadOnlyError
        """
        with self._lock:
            self._check_writable()
            topic = self.topic(name)
            old = self._metadata[name]
            count = old.partitions if partitions is None else partitions
            if isinstance(count, bool) or not isinstance(count, int) or not old.partitions <= count <= PARTITIONS_MAX:
                raise InvalidRequestError(
                    f"topic {name!r} has {old.partitions} partitions; their number can only rise, not become {count!r}"
                )
            if name in (OFFSETS_TOPIC, TRANSACTIONS_TOPIC) and count != old.partitions:
                raise InvalidRequestError(f"{name} keeps its number of partitions: it says where what it holds is found")
            changed = TopicMetadata(name, old.topic_id, count, old.config.with_changes(config, **settings))
            added = self._add_partitions(changed, old.partitions)
            for log in topic.logs:
                log.reconfigure(changed.config)
            topic._take_over(changed, (*topic.logs, *added))
            self._metadata_changed()
            return topic

    def alter_topics(self, changes: Mapping[str, Mapping[str, Any]]) -> None:
        """Changes settings of several topics in one durable step: after a crash all of them have changed, or none.

        Parameters
        ----------
        changes : mapping of topic to mapping of setting to value
            Settings under Kafka's names; a value of None goes back to the default.

        Raises
        ------
        UnknownTopicOrPartitionError, InvalidRequestError, StorageFailureError, ReadOnlyError
            Nothing was changed.
        """
        with self._lock:
            self._check_writable()
            changed = {}
            for name, settings in changes.items():
                self.topic(name)
                old = self._metadata[name]
                changed[name] = old._replace(config=old.config.with_changes(settings))
            write_topics(self.path, {**self._metadata, **changed})
            self._metadata = {**self._metadata, **changed}
            for name, metadata in changed.items():
                topic = self._topics[name]
                for log in topic.logs:
                    log.reconfigure(metadata.config)
                topic._take_over(metadata, topic.logs)
            self._metadata_changed()

    def delete_topic(self, name: str) -> None:
        """Deletes a topic and all its records. Records handed out stay valid; readers get `ClosedError`.

        Offsets that groups have committed for it go as well. Its directories are renamed at once; they are removed, and the
        disk is freed, after the topic's ``file.delete.delay.ms``, or when the broker is closed or opened again.

        Raises
        ------
        UnknownTopicOrPartitionError, StorageFailureError, ReadOnlyError
        InvalidRequestError
            The topic is one of the broker's own.
        """
        if name in layout.INTERNAL_TOPICS:
            raise InvalidRequestError(
                f"{name} is the broker's own; delete_group and delete_group_offsets remove what stands in it"
            )
        with self._lock:
            self._check_writable()
            topic = self.topic(name)
            metadata = self._metadata[name]._replace(is_deleted=True)
            # From here on the topic is gone, also after a crash: half of it must not come back.
            write_topics(self.path, {**self._metadata, name: metadata})
            self._metadata[name] = metadata
            del self._topics[name]
            for log in topic.logs:
                with contextlib.suppress(StorageFailureError):
                    log.close()
            gone = self._finish_deletion(metadata)
            self._deleted_directories.update(gone)
            self._housekeeping_scheduler.schedule(
                metadata.config["file.delete.delay.ms"], lambda: self._remove_deleted(gone)
            )
            self._metadata_changed()
            has_offsets = OFFSETS_TOPIC in self._topics
        if has_offsets:
            self.coordinator.forget_topic(name)

    def _finish_deletion(self, metadata: TopicMetadata) -> list[str]:
        """Takes away what is left of a topic whose deletion has begun; gives the directories to remove. Can be repeated."""
        gone = []
        with refusals(self.path, "delete a topic"):
            for number in range(metadata.partitions):
                # Renamed first, as Kafka does: a directory is there as a whole or not at all.
                suffix = f"-{number}.{os.urandom(16).hex()}-delete"
                target = os.path.join(self.path, metadata.name[: 255 - len(suffix)] + suffix)
                with contextlib.suppress(FileNotFoundError):
                    os.replace(self._log_path(metadata.name, number), target)
                    gone.append(target)
        sync_directory(self.path)
        self._forget_offsets(metadata.name)
        remaining = {name: other for name, other in self._metadata.items() if name != metadata.name}
        write_topics(self.path, remaining)
        self._metadata = remaining
        return gone

    def _remove_deleted(self, directories: list[str]) -> None:
        """Without the lock, which whoever closes holds while this thread ends."""
        for directory in directories:
            if directory in self._deleted_directories:
                _remove_tree(directory)
                self._deleted_directories.discard(directory)

    def _forget_offsets(self, name: str) -> None:
        """Takes a topic out of Kafka's offset checkpoints: another topic of that name starts anew."""
        for file_name in (layout.RECOVERY_POINT_FILE, layout.LOG_START_FILE, layout.CLEANER_OFFSET_FILE):
            path = os.path.join(self.path, file_name)
            offsets = read_offsets(path)
            kept = {place: offset for place, offset in offsets.items() if place[0] != name}
            if kept != offsets:
                write_offsets(path, kept)

    def _add_partitions(self, metadata: TopicMetadata, first: int) -> list[Log]:
        """Makes the partitions of a topic from a number on. The metadata go first: what a crash leaves undone of the
        rest, opening does."""
        before = self._metadata
        write_topics(self.path, {**before, metadata.name: metadata})
        logs: list[Log] = []
        try:
            for number in range(first, metadata.partitions):
                logs.append(self._open_log(metadata, number))
        except BaseException:
            for log in logs:
                with contextlib.suppress(LogstoreError):
                    log.close()
            for number in range(first, metadata.partitions):
                _remove_tree(self._log_path(metadata.name, number))
            with contextlib.suppress(StorageFailureError):
                sync_directory(self.path)  # a directory that came back would be a topic without settings
                write_topics(self.path, before)
            raise
        self._metadata = {**before, metadata.name: metadata}
        return logs

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


def _remove_tree(path: str) -> None:
    import shutil

    shutil.rmtree(path, ignore_errors=True)


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
