"""What a broker offers for its topics: finding, making, altering and deleting them, each a durable step."""

from __future__ import annotations

import contextlib
import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from logstore.broker.metadata import TopicMetadata, find_topics, read_topics, write_topics
from logstore.broker.offsets_topic import OFFSETS_TOPIC, TRANSACTIONS_TOPIC
from logstore.broker.partition_service import PartitionService
from logstore.broker.topic import Topic
from logstore.errors import (
    InvalidRequestError,
    LogstoreError,
    StorageFailureError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
)
from logstore.storage import layout
from logstore.storage.config import TopicConfig
from logstore.storage.files import refusals, sync_directory
from logstore.storage.text_checkpoints import new_topic_id, read_offsets, write_offsets

if TYPE_CHECKING:
    from logstore.broker.group_coordinator import GroupCoordinator
    from logstore.storage.flush_scheduler import FlushScheduler
    from logstore.storage.log import Log

__all__ = ["TopicService", "remove_tree"]

PARTITIONS_MAX = 100_000


class TopicService(PartitionService):
    """The topics of a broker. `logstore.broker.Broker` is what is used."""

    path: str
    read_only: bool
    _metadata: dict[str, TopicMetadata]
    _deleted_directories: set[str]  # of topics, until file.delete.delay.ms has passed
    _housekeeping_scheduler: FlushScheduler

    @property
    @abstractmethod
    def coordinator(self) -> GroupCoordinator:
        """Consumer groups."""

    @abstractmethod
    def _check_open(self) -> None:
        """Raises if the broker is closed."""

    @abstractmethod
    def _check_writable(self) -> None:
        """Raises if the broker is closed, or reads only."""

    @abstractmethod
    def _open_log(self, metadata: TopicMetadata, number: int) -> Log:
        """Opens one partition, and makes it where it is not there."""

    def _log_path(self, topic: str, partition: int) -> str:
        return os.path.join(self.path, layout.partition_directory_name(topic, partition))

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
                remove_tree(directory)
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
                remove_tree(self._log_path(metadata.name, number))
            with contextlib.suppress(StorageFailureError):
                sync_directory(self.path)  # a directory that came back would be a topic without settings
                write_topics(self.path, before)
            raise
        self._metadata = {**before, metadata.name: metadata}
        return logs


def remove_tree(path: str) -> None:
    """Removes a directory with all it holds, as far as that goes: what stays is removed at the next open."""
    import shutil

    shutil.rmtree(path, ignore_errors=True)
