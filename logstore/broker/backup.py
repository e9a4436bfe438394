"""Backups of a data directory: one manifest a backup, and segments that all of them share.

    <backup>/<time>.manifest        what there was: topics, their settings, segments with digests
    <backup>/<topic>-<partition>/   segments, named by what they hold

A backup is there when its manifest is. Committed offsets are copied before the records they point to, so that no group
is ahead of its topics.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from logstore.broker.metadata import TopicMetadata, find_topics, read_topics, write_topics
from logstore.errors import InvalidRequestError, UnknownTopicOrPartitionError
from logstore.storage import layout
from logstore.storage.backup import (
    StoredSegment,
    copy_log,
    manifest_of,
    restore_log,
    take_snapshot,
    write_manifest,
)
from logstore.storage.config import TopicConfig
from logstore.storage.files import make_directory, read_text, refusals, replace_file, sync_directory

__all__ = ["BackupResult", "backup_directory", "list_backups", "restore_directory"]

SUFFIX = ".manifest"
KEPT_COUNT = 7


class BackupResult(NamedTuple):
    """What a backup or a restore did.

    Attributes
    ----------
    manifest : str
        The path of the backup's manifest.
    partitions, records_end, size_bytes, copied_bytes : int
        ``records_end`` is the sum of all log end offsets less log start offsets.
    """

    manifest: str
    partitions: int
    records_end: int
    size_bytes: int
    copied_bytes: int


def backup_directory(
    source: str,
    target: str,
    topics: Collection[str] = (),
    *,
    keep: int = KEPT_COUNT,
    progress: Callable[[int, int], None] | None = None,
) -> BackupResult:
    """Backs a data directory up; others may write to it meanwhile.

    Parameters
    ----------
    source, target : str
        The target is made if missing; segments that an earlier backup there has are not copied again.
    topics : collection of str
        Only these; else all, committed offsets among them.
    keep : int
        How many backups stay in the target; older ones go.
    progress : callable, optional
        Told bytes done, and bytes in all.

    Returns
    -------
    BackupResult

    Raises
    ------
    CorruptDataError
        A log is damaged; nothing of an earlier backup has changed.
    UnknownTopicOrPartitionError, InvalidRequestError, StorageFailureError
    """
    source, target = os.path.abspath(source), os.path.abspath(target)
    if os.path.commonpath([source, target]) == source:
        raise InvalidRequestError(f"{target} lies in {source}, which is what is to be backed up; choose a place outside")
    if keep < 1:
        raise InvalidRequestError(f"at least one backup has to be kept, not {keep}")
    chosen = _topics_of(source, topics)
    # Committed offsets first, then what they point to. All sizes at one moment; then the copying.
    places = sorted(
        ((metadata.name not in layout.INTERNAL_TOPICS, metadata.name, number)
         for metadata in chosen.values() for number in range(metadata.partitions)),
    )  # fmt: skip
    snapshots = {}
    for _, topic, number in places:
        path = os.path.join(source, layout.partition_directory_name(topic, number))
        if os.path.isdir(path):
            snapshots[topic, number] = take_snapshot(path)
    total = sum(sum(snapshot.sizes.values()) for snapshot in snapshots.values())
    make_directory(target)
    entries = []
    done_bytes = copied_bytes = 0
    for (topic, number), snapshot in snapshots.items():
        before = done_bytes

        def report(here: int, before: int = before) -> None:
            if progress is not None:
                progress(before + here, total)

        store = os.path.join(target, layout.partition_directory_name(topic, number))
        entry, copied = copy_log(
            snapshot, store, progress=report,
            append_time=chosen[topic].config["message.timestamp.type"] == "LogAppendTime",
        )  # fmt: skip
        entries.append({"topic": topic, "partition": number, **entry})
        done_bytes += sum(snapshot.sizes.values())
        copied_bytes += copied
    sync_directory(target)
    path = _new_manifest_path(target)
    write_manifest(path, {
        "created_ms": time.time_ns() // 1_000_000,
        "source": source,
        "meta_properties": read_text(os.path.join(source, layout.META_PROPERTIES_FILE)),
        "topics": {
            metadata.name: {
                "id": metadata.topic_id, "partitions": metadata.partitions, "config": metadata.config.overrides(),
            } for metadata in chosen.values()
        },
        "partitions": entries,
    })  # fmt: skip
    _prune(target, keep)
    return _result(path, entries, copied_bytes)


def list_backups(target: str) -> list[str]:
    """Paths of the manifests in a backup's directory, oldest first.

    Raises
    ------
    StorageFailureError
    """
    with refusals(target, "list"):
        return sorted(os.path.join(target, name) for name in os.listdir(target) if name.endswith(SUFFIX))


def restore_directory(
    backup: str,
    target: str,
    topics: Collection[str] = (),
    *,
    at: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> BackupResult:
    """Builds a data directory from a backup, and verifies every byte of it.

    Parameters
    ----------
    backup, target : str
        The target must not exist, or be empty. It appears as a whole, when all is there.
    topics : collection of str
        Only these; else all.
    at : str, optional
        Which backup: how its manifest's name begins; else the latest.
    progress : callable, optional
        Told bytes done, and bytes in all.

    Returns
    -------
    BackupResult

    Raises
    ------
    CorruptDataError
        The backup is damaged; the target is not there.
    UnknownTopicOrPartitionError, InvalidRequestError, StorageFailureError
    """
    backup, target = os.path.abspath(backup), os.path.abspath(target)
    path = _manifest_path(backup, at)
    manifest = manifest_of(path)
    if os.path.isdir(target) and os.listdir(target):
        raise InvalidRequestError(f"{target} is not empty; a restore needs a directory that is new")
    wanted = set(topics) or set(manifest["topics"])
    if unknown := wanted.difference(manifest["topics"]):
        raise UnknownTopicOrPartitionError(f"the backup has no topic {', '.join(sorted(unknown))}")
    metadata = {
        name: TopicMetadata(name, entry["id"], entry["partitions"], TopicConfig(entry["config"]))
        for name, entry in manifest["topics"].items() if name in wanted
    }  # fmt: skip
    entries = [entry for entry in manifest["partitions"] if entry["topic"] in wanted]
    total = sum(_size_of(entry) for entry in entries)
    work = target + ".restoring"
    with refusals(work, "remove what an earlier restore has left"):
        if os.path.isdir(work):
            shutil.rmtree(work)
    os.makedirs(os.path.dirname(work), exist_ok=True)
    make_directory(work)
    done_bytes = 0
    for entry in entries:

        def report(here: int, before: int = done_bytes) -> None:
            if progress is not None:
                progress(before + here, total)

        name = layout.partition_directory_name(entry["topic"], entry["partition"])
        topic = metadata[entry["topic"]]
        restore_log(
            entry, os.path.join(backup, name), os.path.join(work, name), topic_id=topic.topic_id,
            index_interval_bytes=topic.config["index.interval.bytes"], progress=report,
        )
        done_bytes += _size_of(entry)
    write_topics(work, metadata)
    if manifest["meta_properties"]:
        replace_file(os.path.join(work, layout.META_PROPERTIES_FILE), manifest["meta_properties"].encode())
    sync_directory(work)
    with refusals(target, "rename"):
        if os.path.isdir(target):
            os.rmdir(target)
        os.replace(work, target)
    sync_directory(os.path.dirname(target))
    return _result(path, entries, total)


def _topics_of(source: str, topics: Collection[str]) -> dict[str, TopicMetadata]:
    found = find_topics(source)[0]
    known = read_topics(source)
    there = {
        name: metadata._replace(config=known[name].config, topic_id=known[name].topic_id) if name in known else metadata
        for name, metadata in found.items() if not (name in known and known[name].is_deleted)
    }  # fmt: skip
    if unknown := set(topics).difference(there):
        raise UnknownTopicOrPartitionError(
            f"there is no topic {', '.join(sorted(unknown))} in {source}; `logstore topic list` shows what there is"
        )
    return {name: metadata for name, metadata in sorted(there.items()) if not topics or name in topics}


def _new_manifest_path(target: str) -> str:
    while True:
        now_ms = time.time_ns() // 1_000_000
        stamp = time.strftime("%Y-%m-%dT%H-%M-%S", time.gmtime(now_ms // 1000)) + f".{now_ms % 1000:03d}Z"
        path = os.path.join(target, stamp + SUFFIX)
        if not os.path.exists(path):
            return path
        time.sleep(0.001)


def _manifest_path(backup: str, at: str | None) -> str:
    there = list_backups(backup) if os.path.isdir(backup) else []
    chosen = [path for path in there if at is None or os.path.basename(path).startswith(at)]
    if not chosen:
        names = ", ".join(os.path.basename(path).removesuffix(SUFFIX) for path in there[-5:])
        raise UnknownTopicOrPartitionError(
            f"there is no backup {at} in {backup}; there are {names}" if there
            else f"{backup} holds no backup; `logstore backup` makes one"
        )
    return chosen[-1]


def _size_of(entry: dict[str, Any]) -> int:
    return sum(StoredSegment(*fields).size_bytes for fields in entry["segments"])


def _result(path: str, entries: list[dict[str, Any]], copied_bytes: int) -> BackupResult:
    records = sum(entry["log_end_offset"] - entry["log_start_offset"] for entry in entries)
    return BackupResult(path, len(entries), records, sum(map(_size_of, entries)), copied_bytes)


def _prune(target: str, keep: int) -> None:
    """Removes old manifests, then what no manifest names. A damaged manifest keeps everything."""
    manifests = list_backups(target)
    with refusals(target, "remove an old backup"):
        for path in manifests[:-keep]:
            os.unlink(path)
    sync_directory(target)
    named: set[str] = set()
    for path in manifests[-keep:]:
        for entry in manifest_of(path)["partitions"]:
            folder = os.path.join(target, layout.partition_directory_name(entry["topic"], entry["partition"]))
            named.update(os.path.join(folder, StoredSegment(*fields).file_name) for fields in entry["segments"])
    with refusals(target, "remove an old backup"):
        for name in os.listdir(target):
            store = os.path.join(target, name)
            if layout.split_partition_directory_name(name) is None or not os.path.isdir(store):
                continue
            for file_name in os.listdir(store):
                path = os.path.join(store, file_name)
                if path not in named and (file_name.endswith(".log") or file_name == "copying"):
                    os.unlink(path)
            with contextlib.suppress(OSError):
                os.rmdir(store)
